//! Digests of files remembered by what `stat` says, so that an unchanged context is not read again.
//!
//! The rule is git's: a file with the same device, inode, size, mtime and ctime has the same content, *unless* it was
//! changed in the same tick of the file system's clock in which it was read. Entries that young are not remembered at
//! all; the next build reads them once more. The ctime also moves when a mode or an extended attribute does, so the
//! digest may cover attributes too.
//!
//! Memory is bounded, however many files there are: records are on disk in sorted runs (`run`), a log-structured merge
//! tree. The stored run is the cache's file. What is added collects in memory and is spilled into temporary runs; of
//! these, every few of a size are merged into one, so that a lookup goes through a logarithmic number of them. Saving
//! merges all into a new file. Whatever is wrong with a file, its records are not there: nothing but time is lost.

mod run;

use super::stat::Stat;
use run::{BlockCache, IDENTITY, Identity, KEY, Key, RECORD, Record, Run, Writer};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// About 340 MB on disk; in memory 1.3 MB for the index and 0.5 MB for what was used.
const MAX_RECORDS: usize = 1 << 22;
/// So that threads seldom wait for each other.
const SHARDS: usize = 16;
/// What a hash table of 1024 buckets takes before it grows: 1.3 MiB in all shards.
const SHARD_RECORDS: usize = 896;
/// Spilled runs of a level that are merged into one of the next: with `MAX_RECORDS` added there are no more than 15.
const FAN_IN: usize = 4;
/// FAT keeps times in units of two seconds; nothing in use is coarser.
const RACY: Duration = Duration::from_secs(2);

/// Records without the identity that they are found by.
type Shard = HashMap<Identity, [u8; RECORD - IDENTITY]>;

pub struct StatCache {
    stored: Option<Run>,
    /// One bit a stored record: used since it was loaded.
    used: Box<[AtomicU64]>,
    added: [Mutex<Shard>; SHARDS],
    /// From the oldest to the newest, of descending levels.
    spilled: RwLock<Vec<Spilled>>,
    /// Held by the thread that changes `spilled`. Taken before the locks of shards.
    spilling: Mutex<()>,
    /// Where runs are spilled.
    dir: PathBuf,
    blocks: BlockCache,
}

struct Spilled {
    run: Arc<Run>,
    level: u32,
}

impl Default for StatCache {
    /// Spills into the directory for temporary files: an image may have as many files as a context, and is to take no
    /// more memory.
    fn default() -> StatCache {
        StatCache::with(None, std::env::temp_dir())
    }
}

impl StatCache {
    pub fn new() -> StatCache {
        StatCache::default()
    }

    fn with(stored: Option<Run>, dir: PathBuf) -> StatCache {
        let words = stored.as_ref().map_or(0, Run::len).div_ceil(64);
        StatCache {
            stored,
            used: (0..words).map(|_| AtomicU64::new(0)).collect(),
            added: Default::default(),
            spilled: RwLock::default(),
            spilling: Mutex::default(),
            dir,
            blocks: BlockCache::default(),
        }
    }

    /// A missing, damaged or foreign file gives an empty cache. Reads the file's index only: damage elsewhere is found,
    /// and costs the records concerned, when they are looked up. Spills into the file's directory.
    pub fn load(path: &Path) -> StatCache {
        let stored = match File::open(path).and_then(|file| Run::open(file, MAX_RECORDS)) {
            Ok(run) => Some(run),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(path = %path.display(), %error, "stat cache not read, starting a new one");
                }
                None
            }
        };
        StatCache::with(stored, directory(path).into())
    }

    /// Writes the file anew if anything was added, by rename. With more than four million records those go that were
    /// not used.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        self.save_at_most(MAX_RECORDS, path)
    }

    fn save_at_most(&self, max: usize, path: &Path) -> io::Result<()> {
        self.spill(None)?;
        let spilled: Vec<Arc<Run>> = self.spilled_runs().iter().rev().map(|spilled| spilled.run.clone()).collect();
        if spilled.is_empty() {
            return Ok(());
        }
        let runs: Vec<&Run> = spilled.iter().map(Arc::as_ref).chain(&self.stored).collect();

        let used: usize = self.used.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum();
        let added: usize = spilled.iter().map(|run| run.len()).sum();
        let (mut room, mut room_for_unused) = (max, max.saturating_sub(used + added));
        let file = tempfile::NamedTempFile::new_in(directory(path))?;
        let merged = run::merge(&runs, file.as_file().try_clone()?, |rank, at| {
            let is_unused = rank == spilled.len() && !self.is_used(at);
            if room == 0 || is_unused && room_for_unused == 0 {
                return false;
            }
            room -= 1;
            room_for_unused -= usize::from(is_unused);
            true
        })?;
        merged.seal()?;
        file.persist(path)?;
        Ok(())
    }

    /// Of a stored record. One that was used after `save` has counted may still change it: then another unused one
    /// stays or goes.
    fn is_used(&self, at: usize) -> bool {
        self.used[at / 64].load(Ordering::Relaxed) & (1 << (at % 64)) != 0
    }

    pub(crate) fn get(&self, stat: &Stat) -> Option<[u8; 32]> {
        let key = key(stat);
        if let Some((at, digest)) = self.stored.as_ref().and_then(|run| self.blocks.find(run, &key)) {
            // Reads only, mostly: the word is other threads' too.
            if !self.is_used(at) {
                self.used[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
            }
            return Some(digest);
        }
        // Before the runs: a record leaves its shard only when it is in one of them.
        let identity = run::identity(&key);
        if let Some(rest) = lock(self.shard(identity)).get(&identity)
            && let Some(digest) = rest.strip_prefix(&key[IDENTITY..])
        {
            return digest.try_into().ok();
        }
        self.spilled_runs().iter().rev().find_map(|spilled| Some(self.blocks.find(&spilled.run, &key)?.1))
    }

    /// Remembers a digest of a file that had `stat` both before and after it was read, where `now` is a time before
    /// that.
    pub(crate) fn insert(&self, stat: &Stat, digest: &[u8; 32], now: SystemTime) {
        if is_racy(stat, now) {
            return;
        }
        let key = key(stat);
        let identity = run::identity(&key);
        let mut rest = [0; RECORD - IDENTITY];
        rest[..KEY - IDENTITY].copy_from_slice(&key[IDENTITY..]);
        rest[KEY - IDENTITY..].copy_from_slice(digest);
        let shard = self.shard(identity);
        loop {
            let mut records = lock(shard);
            if let Some(changed) = records.get_mut(&identity) {
                *changed = rest;
                return;
            }
            if records.len() < SHARD_RECORDS {
                records.insert(identity, rest);
                return;
            }
            drop(records);
            if let Err(error) = self.spill(Some(shard)) {
                tracing::debug!(dir = %self.dir.display(), %error, "added records are lost to the stat cache");
            }
        }
    }

    fn shard(&self, (_, ino): Identity) -> &Mutex<Shard> {
        // Fibonacci hashing: neighbours spread evenly.
        let hash = ino.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.added[hash as usize % SHARDS]
    }

    fn spilled_runs(&self) -> impl std::ops::Deref<Target = Vec<Spilled>> {
        self.spilled.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_spilled(&self, change: impl FnOnce(&mut Vec<Spilled>)) {
        change(&mut self.spilled.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Moves what was added into a run, unless another thread has just emptied the shard that is `full`. After an error
    /// it is lost.
    fn spill(&self, full: Option<&Mutex<Shard>>) -> io::Result<()> {
        let _spilling = lock(&self.spilling);
        if full.is_some_and(|shard| lock(shard).len() < SHARD_RECORDS) {
            return Ok(());
        }
        self.write_added()?;
        self.compact()
    }

    fn write_added(&self) -> io::Result<()> {
        // All shards stay locked until their records are found in the run.
        let mut shards: Vec<MutexGuard<'_, Shard>> = self.added.iter().map(lock).collect();
        let mut records: Vec<Record> = Vec::with_capacity(shards.iter().map(|shard| shard.len()).sum());
        for ((dev, ino), rest) in shards.iter_mut().flat_map(|shard| shard.drain()) {
            let mut record = [0; RECORD];
            record[..8].copy_from_slice(&dev.to_le_bytes());
            record[8..IDENTITY].copy_from_slice(&ino.to_le_bytes());
            record[IDENTITY..].copy_from_slice(&rest);
            records.push(record);
        }
        let spilled: usize = self.spilled_runs().iter().map(|spilled| spilled.run.len()).sum();
        // More than can be saved is not kept either, for the sake of the disk.
        if records.is_empty() || spilled + records.len() > MAX_RECORDS {
            return Ok(());
        }
        records.sort_unstable_by_key(|record| run::identity(record));
        let mut writer = Writer::new(tempfile::tempfile_in(&self.dir)?)?;
        records.iter().try_for_each(|record| writer.push(record))?;
        let run = Arc::new(writer.finish()?);
        self.change_spilled(|spilled| spilled.push(Spilled { run, level: 0 }));
        Ok(())
    }

    /// Merges the newest runs while there are enough of their level. Lookups go on in the old ones meanwhile.
    fn compact(&self) -> io::Result<()> {
        loop {
            let (level, newest) = {
                let spilled = self.spilled_runs();
                let Some(level) = spilled.last().map(|last| last.level) else { return Ok(()) };
                let newest = spilled.iter().rev().take_while(|spilled| spilled.level == level);
                (level, newest.map(|spilled| spilled.run.clone()).collect::<Vec<_>>())
            };
            if newest.len() < FAN_IN {
                return Ok(());
            }
            let runs: Vec<&Run> = newest.iter().map(Arc::as_ref).collect();
            let merged = tempfile::tempfile_in(&self.dir).and_then(|file| run::merge(&runs, file, |_, _| true));
            let (merged, result) = match merged {
                Ok(run) => (Some(Spilled { run: Arc::new(run), level: level + 1 }), Ok(())),
                Err(error) => (None, Err(error)),
            };
            self.change_spilled(|spilled| {
                // Runs that cannot be merged go, too: their number stays small, and with it that of open files.
                spilled.truncate(spilled.len().saturating_sub(newest.len()));
                spilled.extend(merged);
            });
            result?;
        }
    }
}

/// Whether the file might change again without its times telling.
fn is_racy(stat: &Stat, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (now, window) = (i128::from(now.as_secs()), i128::from(RACY.as_secs()));
    // A ctime ahead of the clock is as bad as a young one; an mtime may be anything that someone has set.
    i128::from(stat.ctime.seconds) >= now - window || (i128::from(stat.mtime.seconds) - now).abs() <= window
}

fn key(stat: &Stat) -> Key {
    let mut key = [0; KEY];
    let words = [stat.dev, stat.ino, stat.size, stat.mtime.seconds.cast_unsigned(), stat.ctime.seconds.cast_unsigned()];
    for (slot, word) in key.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    key[40..44].copy_from_slice(&stat.mtime.nanoseconds.to_le_bytes());
    key[44..48].copy_from_slice(&stat.ctime.nanoseconds.to_le_bytes());
    key
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use run::{BLOCK, PER_BLOCK};
    use std::os::unix::fs::FileExt;

    fn stat(ino: u64, seconds: i64) -> Stat {
        static SOME: std::sync::LazyLock<Stat> =
            std::sync::LazyLock::new(|| crate::fileop::stat_of(tempfile::tempfile().unwrap()).unwrap());
        let mut stat = *SOME;
        stat.ino = ino;
        for time in [&mut stat.mtime, &mut stat.ctime] {
            time.seconds = seconds;
            time.nanoseconds = 1;
        }
        stat
    }

    fn digest(ino: u64) -> [u8; 32] {
        *blake3::hash(&ino.to_le_bytes()).as_bytes()
    }

    fn add(cache: &StatCache, inodes: impl IntoIterator<Item = u64>) {
        let now = SystemTime::now();
        inodes.into_iter().for_each(|ino| cache.insert(&stat(ino, 5), &digest(ino), now));
    }

    fn filled(count: u64) -> StatCache {
        let cache = StatCache::new();
        add(&cache, 0..count);
        cache
    }

    fn stored(cache: &StatCache) -> usize {
        cache.stored.as_ref().map_or(0, Run::len)
    }

    /// How many of the inodes are found; never with another digest.
    fn found(cache: &StatCache, inodes: impl IntoIterator<Item = u64>) -> usize {
        let found = |ino: &u64| cache.get(&stat(*ino, 5)).inspect(|got| assert_eq!(*got, digest(*ino))).is_some();
        inodes.into_iter().filter(found).count()
    }

    #[test]
    fn round_trip() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(100).save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!(found(&cache, 0..200), 100);
        for ino in 0..100 {
            assert_eq!(cache.get(&stat(ino, 6)), None, "{ino}");
        }
        // A changed file takes the place of the old record; others stay.
        cache.insert(&stat(7, 9), &[200; 32], SystemTime::now());
        cache.save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!((cache.get(&stat(7, 5)), cache.get(&stat(7, 9))), (None, Some([200; 32])));
        assert!(cache.get(&stat(8, 5)).is_some());
        assert_eq!(stored(&cache), 100);
        // Nothing is written if nothing was added.
        std::fs::remove_file(&path).unwrap();
        cache.save(&path).unwrap();
        assert!(!path.exists());
    }

    /// Devices are told apart, full and partly filled blocks hold what they should, and no neighbour is taken for
    /// another.
    #[test]
    fn every_position() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        for count in [0, 1, PER_BLOCK - 1, PER_BLOCK, PER_BLOCK + 1, 40 * PER_BLOCK, 40 * PER_BLOCK + 1] {
            let _ = std::fs::remove_file(&path);
            let cache = StatCache::new();
            add(&cache, (0..count as u64).map(|n| n * 3 + 1));
            cache.save(&path).unwrap();
            let cache = StatCache::load(&path);
            assert_eq!((stored(&cache), found(&cache, 0..3 * count as u64 + 9)), (count, count));
            let mut elsewhere = stat(1, 5);
            elsewhere.dev += 1;
            assert_eq!(cache.get(&elsewhere), None);
        }
    }

    #[test]
    fn damage_is_an_empty_cache() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(3).save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let flipped = |at: usize| {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            flipped
        };
        let (magic, count, checksum, index) = (flipped(3), flipped(16), flipped(40), flipped(good.len() - 1));
        let (huge, longer) = (flipped(23), [&good[..], b"x"].concat());
        let short = [&good[..good.len() - 1], &good[..20], b"", b"something else entirely"];
        for bad in [&magic, &count, &checksum, &index, &huge, &longer].map(Vec::as_slice).iter().chain(&short) {
            std::fs::write(&path, bad).unwrap();
            assert!(StatCache::load(&path).stored.is_none());
        }
        assert!(StatCache::load(&tmp.path().join("missing")).stored.is_none());
        assert!(StatCache::load(tmp.path()).stored.is_none());
    }

    /// The other blocks' records are found, and survive the next save; a file that is cut off under way is no worse.
    #[test]
    fn damage_in_one_block() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        let count = 50 * PER_BLOCK as u64;
        filled(count).save(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 3], 21 * BLOCK as u64 + 100).unwrap();
        let damaged = 20 * PER_BLOCK as u64..21 * PER_BLOCK as u64;
        let cache = StatCache::load(&path);
        assert_eq!((found(&cache, 0..count), found(&cache, damaged.clone())), (49 * PER_BLOCK, 0));
        add(&cache, [damaged.start, count]);
        cache.save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!((stored(&cache), found(&cache, 0..=count)), (49 * PER_BLOCK + 2, 49 * PER_BLOCK + 2));

        let cache = StatCache::load(&path);
        File::options().write(true).open(&path).unwrap().set_len(10 * BLOCK as u64).unwrap();
        assert_eq!(found(&cache, 0..=count), 9 * PER_BLOCK);
        add(&cache, [count + 1]);
        cache.save(&path).unwrap();
        assert!(found(&StatCache::load(&path), 0..=count + 1) <= 9 * PER_BLOCK + 1);
    }

    /// Neither what is in memory nor the number of runs grows with the number of files.
    #[test]
    fn many_files_are_spilled_and_merged() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        let cache = StatCache::load(&path);
        // Neither in order nor in each other's neighbourhood.
        let count = 300_000;
        let inode = |n: u64| n * 7919 % count;
        let mut most_runs = 0;
        for n in 0..count {
            add(&cache, [inode(n)]);
            if n % 1000 == 0 {
                assert!(cache.added.iter().all(|shard| lock(shard).capacity() <= SHARD_RECORDS));
                most_runs = most_runs.max(cache.spilled_runs().len());
            }
        }
        assert!((2..=9).contains(&most_runs), "{most_runs}");
        assert!(cache.spilled_runs().iter().all(|spilled| spilled.run.len() < count as usize));
        assert_eq!(found(&cache, 0..count + 10), count as usize);
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "temporary files have no name");
        // Changed after its record was spilled, twice.
        for seconds in [6, 7] {
            cache.insert(&stat(5, seconds), &[77; 32], SystemTime::now());
            add(&cache, count..count + 20_000);
        }
        cache.save(&path).unwrap();
        // Still there after saving, and saved again.
        add(&cache, [count + 20_000]);
        assert_eq!(found(&cache, count..count + 30_000), 20_001);
        cache.save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!(stored(&cache), count as usize + 20_001);
        assert_eq!((cache.get(&stat(5, 5)), cache.get(&stat(5, 7))), (None, Some([77; 32])));
        assert_eq!(found(&cache, 0..count), count as usize - 1);
    }

    /// Records are lost where they cannot be spilled; no more are in memory.
    #[test]
    fn without_a_directory_to_spill_into() {
        let cache = StatCache::load(Path::new("/nonexistent/cache"));
        add(&cache, 0..50_000);
        assert!(cache.added.iter().all(|shard| lock(shard).capacity() <= SHARD_RECORDS));
        assert_eq!(found(&cache, 49_999..50_000), 1);
        assert!(cache.save(Path::new("/nonexistent/cache")).is_err());
    }

    #[test]
    fn unused_records_go_first() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(1000).save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!(found(&cache, 500..800), 300);
        add(&cache, 2000..2100);
        cache.save_at_most(450, &path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!((stored(&cache), found(&cache, 500..800), found(&cache, 2000..2100)), (450, 300, 100));
        assert_eq!(found(&cache, (0..500).chain(800..1000)), 50);
        // More was used than there is room for.
        add(&cache, [3000]);
        cache.save_at_most(400, &path).unwrap();
        assert_eq!(stored(&StatCache::load(&path)), 400);
    }

    #[test]
    fn threads() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(10_000).save(&path).unwrap();
        let cache = StatCache::load(&path);
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let cache = &cache;
                scope.spawn(move || {
                    let own = thread * 100_000;
                    for n in 0..20_000 {
                        add(cache, [own + n]);
                        // Found wherever it is just now: in memory, spilled, merged.
                        assert_eq!(found(cache, [n / 2, own + n, own + n / 2, own + n / 2 * 7 % (n + 1)]), 4);
                    }
                });
            }
            scope.spawn(|| (0..5).for_each(|_| cache.save(&path).unwrap()));
        });
        cache.save(&path).unwrap();
        assert_eq!(stored(&StatCache::load(&path)), 10_000 + 4 * 20_000);
    }

    /// What was written in the same moment in which it was read is not trusted.
    #[test]
    fn racy_files_are_not_remembered() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (seconds, racy) in [(997, false), (998, true), (1000, true), (5000, true), (1, false)] {
            assert_eq!(is_racy(&stat(1, seconds), now), racy, "{seconds}");
        }
        let mut dated_ahead = stat(1, 1);
        dated_ahead.mtime.seconds = 1 << 40;
        assert!(!is_racy(&dated_ahead, now));
    }
}
