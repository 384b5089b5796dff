// Saves and restores with GitHub's own client of the cache service: whole keys, beginnings of keys, a key that is taken.
const cache = require('@actions/cache');
const fs = require('fs');
const assert = require('assert');

async function main() {
  fs.mkdirSync('files', { recursive: true });
  const paths = ['files'];
  const save = async (key, text) => {
    fs.writeFileSync('files/f', text);
    return cache.saveCache(paths, key, { uploadChunkSize: 1 << 20 });
  };
  const restore = async (key, others) => {
    fs.rmSync('files/f', { force: true });
    const found = await cache.restoreCache(paths.slice(), key, others);
    return [found, fs.existsSync('files/f') ? fs.readFileSync('files/f', 'utf8') : undefined];
  };
  // Does not compress: several pieces.
  const { randomBytes } = require('crypto');
  const large = randomBytes(3 << 20).toString('hex');
  assert.deepStrictEqual(await restore('key-1', []), [undefined, undefined]);
  assert.notStrictEqual(await save('key-1', 'one'), -1);
  assert.notStrictEqual(await save('key-2', large), -1);
  assert.strictEqual(await save('key-1', 'again'), -1, 'a key is taken for ever');
  assert.deepStrictEqual(await restore('key-1', []), ['key-1', 'one']);
  assert.deepStrictEqual(await restore('key-9', ['key-']), ['key-2', large], 'the newest');
  assert.deepStrictEqual(await restore('other', ['none']), [undefined, undefined]);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
