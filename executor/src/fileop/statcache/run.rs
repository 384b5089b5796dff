//! Sorted runs: records in files, searched with one read each.
//!
//! A file is a header, blocks of records sorted by (device, inode), and an index of the blocks' first (device, inode).
//! The header has the index's checksum and every block its own, verified when the block is read: opening a file takes
//! its index alone, and damage costs the records of the damaged block.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 16] = b"rbuild stat 0002";
/// The header's parts after the magic: the number of records, the checksum.
const HEADER: usize = MAGIC.len() + 8 + 32;
/// A page, so that reading a block touches no other.
pub(super) const BLOCK: usize = 4096;
const CHECKSUM: usize = 8;
/// dev, ino, size, mtime s, ctime s: 8 bytes each; mtime ns, ctime ns: 4 bytes each; digest.
pub(super) const RECORD: usize = KEY + 32;
pub(super) const KEY: usize = 5 * 8 + 2 * 4;
pub(super) const IDENTITY: usize = 2 * 8;
pub(super) const PER_BLOCK: usize = (BLOCK - CHECKSUM) / RECORD;
/// Blocks read or written at once where it goes through all of them.
const BATCH: usize = 16;
/// 4 MiB of blocks: all of a context of 50,000 files.
const CACHED: usize = 1024;

pub(super) type Record = [u8; RECORD];
pub(super) type Key = [u8; KEY];
/// Device and inode.
pub(super) type Identity = (u64, u64);

pub(super) struct Run {
    file: File,
    /// Tells runs apart in the cache of blocks.
    number: u64,
    count: usize,
    /// The first identity of each block.
    fences: Vec<Identity>,
}

impl Run {
    fn new(file: File, count: usize, fences: Vec<Identity>) -> Run {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Run { file, number: NUMBER.fetch_add(1, Ordering::Relaxed), count, fences }
    }

    /// Of a file that `seal` has completed, with at most `max` records.
    pub(super) fn open(file: File, max: usize) -> io::Result<Run> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        let Some(rest) = header.strip_prefix(MAGIC) else { return Err(invalid("another format")) };
        let (count, checksum) = rest.split_at(8);
        let count = usize::try_from(word(count)).ok().filter(|count| *count <= max);
        let count = count.ok_or_else(|| invalid("too many records"))?;
        let blocks = count.div_ceil(PER_BLOCK);
        // Compared before memory is allocated for what the header claims.
        if file.metadata()?.len() != offset(blocks) + (blocks * IDENTITY) as u64 {
            return Err(invalid("wrong length"));
        }
        let mut index = vec![0; blocks * IDENTITY];
        file.read_exact_at(&mut index, offset(blocks))?;
        if index_checksum(count, &index) != checksum {
            return Err(invalid("damaged index"));
        }
        let fences = index.chunks_exact(IDENTITY).map(identity).collect();
        Ok(Run::new(file, count, fences))
    }

    /// Completes a file that is to be opened again.
    pub(super) fn seal(&self) -> io::Result<()> {
        let index: Vec<u8> =
            self.fences.iter().flat_map(|(dev, ino)| [dev.to_le_bytes(), ino.to_le_bytes()]).flatten().collect();
        self.file.write_all_at(&index, offset(self.fences.len()))?;
        let mut header = [0; BLOCK];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..][..8].copy_from_slice(&(self.count as u64).to_le_bytes());
        header[HEADER - 32..HEADER].copy_from_slice(&index_checksum(self.count, &index));
        self.file.write_all_at(&header, 0)
    }

    /// Records, with those in damaged blocks.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The only block that may have `identity`.
    fn block_of(&self, identity: Identity) -> Option<usize> {
        self.fences.partition_point(|first| *first <= identity).checked_sub(1)
    }

    /// Empties `buffer` where the file cannot be read.
    fn read(&self, blocks: Range<usize>, buffer: &mut Vec<u8>) {
        buffer.resize(blocks.len() * BLOCK, 0);
        if let Err(error) = self.file.read_exact_at(buffer, offset(blocks.start)) {
            tracing::debug!(?blocks, %error, "stat cache not read");
            buffer.clear();
        }
    }
}

/// Recently read blocks. Inodes of a directory's files are mostly near each other, so that a walk takes most of its
/// lookups from one block before it needs the next.
pub(super) struct BlockCache {
    slots: Box<[Mutex<Slot>]>,
}

#[derive(Default)]
struct Slot {
    run: u64,
    block: usize,
    /// Empty if the block is damaged.
    data: Vec<u8>,
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        BlockCache { slots: (0..CACHED).map(|_| Mutex::default()).collect() }
    }
}

impl BlockCache {
    /// The position in `run` of a record with all of `key`, and its digest.
    pub(super) fn find(&self, run: &Run, key: &Key) -> Option<(usize, [u8; 32])> {
        let wanted = identity(key);
        let block = run.block_of(wanted)?;
        // Neighbouring blocks never take each other's slot; those of different runs seldom do.
        let slot = (run.number.wrapping_mul(199) as usize).wrapping_add(block) % CACHED;
        let mut slot = self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
        if (slot.run, slot.block) != (run.number, block) {
            (slot.run, slot.block) = (run.number, block);
            run.read(block..block + 1, &mut slot.data);
            if !is_sound(&slot.data) {
                tracing::debug!(block, "stat cache is damaged");
                slot.data.clear();
            }
        }
        let (records, _) = slot.data.as_chunks::<RECORD>();
        // The last block is filled up with zeros.
        let records = records.get(..PER_BLOCK.min(run.count - block * PER_BLOCK))?;
        let at = records.binary_search_by_key(&wanted, |record| identity(record)).ok()?;
        let digest = records[at].strip_prefix(key)?;
        Some((block * PER_BLOCK + at, digest.try_into().ok()?))
    }
}

/// Takes records in their order.
pub(super) struct Writer {
    file: BufWriter<File>,
    block: [u8; BLOCK],
    count: usize,
    fences: Vec<Identity>,
}

impl Writer {
    pub(super) fn new(mut file: File) -> io::Result<Writer> {
        file.seek(SeekFrom::Start(offset(0)))?;
        let file = BufWriter::with_capacity(BATCH * BLOCK, file);
        Ok(Writer { file, block: [0; BLOCK], count: 0, fences: Vec::new() })
    }

    pub(super) fn push(&mut self, record: &Record) -> io::Result<()> {
        let at = self.count % PER_BLOCK;
        if at == 0 {
            self.fences.push(identity(record));
        }
        self.block[at * RECORD..][..RECORD].copy_from_slice(record);
        self.count += 1;
        if at + 1 == PER_BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let (records, checksum) = self.block.split_at_mut(BLOCK - CHECKSUM);
        checksum.copy_from_slice(&block_checksum(records));
        self.file.write_all(&self.block)?;
        self.block.fill(0);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Run> {
        if !self.count.is_multiple_of(PER_BLOCK) {
            self.end_block()?;
        }
        let file = self.file.into_inner().map_err(IntoInnerError::into_error)?;
        Ok(Run::new(file, self.count, self.fences))
    }
}

/// Merges `runs`, the newest first: of records with the same identity the newest counts. `keep` gets a record's run and
/// position.
pub(super) fn merge(runs: &[&Run], to: File, mut keep: impl FnMut(usize, usize) -> bool) -> io::Result<Run> {
    let mut writer = Writer::new(to)?;
    let mut cursors: Vec<Cursor<'_>> = runs.iter().map(|run| Cursor::new(run)).collect();
    let first = |(rank, cursor): (usize, &mut Cursor<'_>)| Some(Reverse((cursor.identity()?, rank)));
    let mut heap: BinaryHeap<_> = cursors.iter_mut().enumerate().filter_map(first).collect();
    let mut last = None;
    while let Some(mut top) = heap.peek_mut() {
        let Reverse((identity, rank)) = *top;
        let cursor = &mut cursors[rank];
        if last.replace(identity) != Some(identity) && keep(rank, cursor.at) {
            writer.push(cursor.record())?;
        }
        cursor.at += 1;
        match cursor.identity() {
            Some(next) => *top = Reverse((next, rank)),
            None => _ = PeekMut::pop(top),
        }
    }
    writer.finish()
}

/// Goes through a run's records, without those in damaged blocks.
struct Cursor<'a> {
    run: &'a Run,
    at: usize,
    batch: Range<usize>,
    data: Vec<u8>,
}

impl<'a> Cursor<'a> {
    fn new(run: &'a Run) -> Cursor<'a> {
        Cursor { run, at: 0, batch: 0..0, data: Vec::new() }
    }

    /// Of the record at or after the present position, which becomes the present one.
    fn identity(&mut self) -> Option<Identity> {
        while self.at < self.run.count {
            if !self.at.is_multiple_of(PER_BLOCK) {
                return Some(identity(self.record()));
            }
            let block = self.at / PER_BLOCK;
            if !self.batch.contains(&block) {
                self.batch = block..(block + BATCH).min(self.run.fences.len());
                self.run.read(self.batch.clone(), &mut self.data);
            }
            if self.data.chunks_exact(BLOCK).nth(block - self.batch.start).is_some_and(is_sound) {
                return Some(identity(self.record()));
            }
            self.at += PER_BLOCK;
        }
        None
    }

    /// The present record, where `identity` gave one.
    fn record(&self) -> &Record {
        let at = (self.at / PER_BLOCK - self.batch.start) * BLOCK + self.at % PER_BLOCK * RECORD;
        self.data[at..].first_chunk().unwrap_or(&[0; RECORD])
    }
}

/// Of a block in its file; with the number of blocks, of the index.
fn offset(block: usize) -> u64 {
    (block as u64 + 1) * BLOCK as u64
}

/// Of a record or a key.
pub(super) fn identity(record: &[u8]) -> Identity {
    (word(record), word(&record[8..]))
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
}

fn is_sound(block: &[u8]) -> bool {
    block.split_last_chunk().is_some_and(|(records, checksum)| block_checksum(records) == *checksum)
}

/// FNV-1a of words in place of bytes, in four lanes that a processor computes side by side. It is against accidents,
/// any within one word for certain; a CRC-32 or BLAKE3 would be half of the time of reading a block.
fn block_checksum(records: &[u8]) -> [u8; CHECKSUM] {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME);
    let mut lanes = [BASIS; 4];
    let (words, _) = records.as_chunks::<8>();
    for words in words.chunks(4) {
        for (lane, word) in lanes.iter_mut().zip(words) {
            // The rotation brings high bits down, where a multiplication carries them on.
            *lane = step(lane.rotate_left(29), u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(BASIS, |hash, lane| step(hash.rotate_left(29), lane)).to_le_bytes()
}

fn index_checksum(count: usize, index: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(count as u64).to_le_bytes()).update(index);
    *hasher.finalize().as_bytes()
}
