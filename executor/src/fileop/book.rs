//! The digests of a layer's files, kept beside it.
//!
//! A copy writes them down. They are good for two things: the layer's content id is computed without reading the copies again, and the next
//! copy of the same files finds those that have not changed, and links them.
//!
//! A block for each directory, its files sorted by a hash of their names; an index of the blocks by a hash of the directory's path; and a
//! checksum of the index. What is held in memory is the index alone.

use rustix::fd::{AsFd, OwnedFd};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 16] = b"rbuild files 001";
/// Hash of a name, digest of the content.
const RECORD: usize = 16 + 32;
/// Hash of a path, offset, number of records.
const ENTRY: usize = 16 + 8 + 4;
/// Length of the index, and its checksum.
const TRAILER: usize = 8 + 32;
/// How many blocks are kept at hand while a tree is walked.
const RECENT: usize = 8;

type Key = [u8; 16];

/// A directory's files.
#[derive(Default)]
pub(crate) struct Block(Vec<(Key, [u8; 32])>);

impl Block {
    pub fn get(&self, name: &[u8]) -> Option<&[u8; 32]> {
        let key = key(name);
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(&self.0[at].1)
    }

    pub fn push(&mut self, name: &[u8], digest: [u8; 32]) {
        self.0.push((key(name), digest));
    }
}

fn key(text: &[u8]) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&blake3::hash(text).as_bytes()[..16]);
    key
}

/// Where digests are written down, from any thread.
pub struct BookWriter {
    inner: Mutex<Writing>,
}

struct Writing {
    out: BufWriter<File>,
    offset: u64,
    index: Vec<(Key, u64, u32)>,
    /// The first failure: without a book nothing is lost but time.
    failed: bool,
}

impl BookWriter {
    pub fn create(path: &Path) -> io::Result<BookWriter> {
        let mut out = BufWriter::with_capacity(64 * 1024, File::create_new(path)?);
        out.write_all(MAGIC)?;
        let inner = Writing { out, offset: MAGIC.len() as u64, index: Vec::new(), failed: false };
        Ok(BookWriter { inner: Mutex::new(inner) })
    }

    /// The files of the directory at `path`, relative to where the copy begins.
    pub(crate) fn add(&self, path: &[u8], mut block: Block) {
        if block.0.is_empty() {
            return;
        }
        block.0.sort_unstable_by_key(|(key, _)| *key);
        let mut writing = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = (key(path), writing.offset, block.0.len() as u32);
        let mut bytes = Vec::with_capacity(block.0.len() * RECORD);
        for (name, digest) in &block.0 {
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(digest);
        }
        writing.failed |= writing.out.write_all(&bytes).is_err();
        writing.offset += bytes.len() as u64;
        writing.index.push(entry);
    }

    pub fn finish(self) -> io::Result<()> {
        let mut writing = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        if writing.failed {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut index = Vec::with_capacity(writing.index.len() * ENTRY);
        for (path, offset, count) in &writing.index {
            index.extend_from_slice(path);
            index.extend_from_slice(&offset.to_le_bytes());
            index.extend_from_slice(&count.to_le_bytes());
        }
        writing.out.write_all(&index)?;
        writing.out.write_all(&(index.len() as u64).to_le_bytes())?;
        writing.out.write_all(blake3::hash(&index).as_bytes())?;
        writing.out.flush()
    }
}

/// A finished book.
pub struct Book {
    file: File,
    index: HashMap<Key, (u64, u32)>,
    recent: Mutex<Vec<(Key, std::sync::Arc<Block>)>>,
}

impl Book {
    /// `None` where there is none, or it is damaged.
    pub fn open(path: &Path) -> Option<Book> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let end = length.checked_sub(TRAILER as u64)?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, end).ok()?;
        let size = u64::from_le_bytes(trailer[..8].try_into().ok()?);
        let start = end.checked_sub(size).filter(|start| *start >= MAGIC.len() as u64)?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        file.read_exact_at(&mut bytes, start).ok()?;
        let mut magic = [0; 16];
        file.read_exact_at(&mut magic, 0).ok()?;
        if blake3::hash(&bytes).as_bytes() != &trailer[8..] || &magic != MAGIC {
            return None;
        }
        let mut index = HashMap::with_capacity(bytes.len() / ENTRY);
        for entry in bytes.chunks_exact(ENTRY) {
            let (path, rest) = entry.split_at(16);
            let (offset, count) = rest.split_at(8);
            let offset = u64::from_le_bytes(offset.try_into().ok()?);
            let count = u32::from_le_bytes(count.try_into().ok()?);
            // Blocks lie before the index: memory is never taken for more.
            let length = u64::from(count) * RECORD as u64;
            offset.checked_add(length).filter(|end| *end <= start)?;
            index.insert(path.try_into().ok()?, (offset, count));
        }
        Some(Book { file, index, recent: Mutex::default() })
    }

    pub(crate) fn block(&self, path: &[u8]) -> Option<Block> {
        let (offset, count) = *self.index.get(&key(path))?;
        let mut bytes = vec![0; count as usize * RECORD];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        let record = |record: &[u8]| Some((record[..16].try_into().ok()?, record[16..].try_into().ok()?));
        bytes.chunks_exact(RECORD).map(record).collect::<Option<Vec<_>>>().map(Block)
    }

    /// The digest of the file at `path`.
    pub fn digest(&self, path: &[u8]) -> Option<[u8; 32]> {
        let (parent, name) = super::path::parent_and_name(path);
        let wanted = key(parent);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent.iter().find(|(key, _)| *key == wanted).map(|(_, block)| block.clone());
        let block = match found {
            Some(block) => block,
            None => {
                let block = std::sync::Arc::new(self.block(parent).unwrap_or_default());
                if recent.len() == RECENT {
                    recent.remove(0);
                }
                recent.push((wanted, block.clone()));
                block
            }
        };
        drop(recent);
        block.get(name).copied()
    }
}

/// The copy that an earlier build made of the same files: where what has not changed is linked from.
pub struct Previous {
    /// The directory that was copied into.
    root: OwnedFd,
    book: Book,
}

/// A directory of an earlier copy.
pub(crate) struct PreviousDir {
    pub fd: OwnedFd,
    pub block: Block,
}

impl Previous {
    pub fn new(root: OwnedFd, book: Book) -> Previous {
        Previous { root, book }
    }

    pub(crate) fn directory(&self, path: &[u8]) -> Option<PreviousDir> {
        let block = self.book.block(path)?;
        let fd = super::resolve::open_dirs(self.root.as_fd(), path).ok()?;
        Some(PreviousDir { fd, block })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("book");
        let writer = BookWriter::create(&path).unwrap();
        for dir in 0..20_u8 {
            let mut block = Block::default();
            (0..50_u8).for_each(|file| block.push(format!("f{file}").as_bytes(), [dir ^ file; 32]));
            writer.add(format!("d{dir}").as_bytes(), block);
        }
        writer.add(b"empty", Block::default());
        writer.finish().unwrap();
        let book = Book::open(&path).unwrap();
        for dir in (0..20).rev() {
            for file in 0..50 {
                assert_eq!(book.digest(format!("d{dir}/f{file}").as_bytes()), Some([dir ^ file; 32]));
            }
        }
        assert_eq!((book.digest(b"f"), book.digest(b"empty/f")), (None, None));
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        let at = flipped.len() - TRAILER - 3;
        flipped[at] ^= 1;
        // An index that claims more than there is, as a whole: its checksum holds.
        let mut claims = good.clone();
        let end = claims.len() - TRAILER;
        let first = end - 20 * ENTRY;
        claims[first + 24..first + 28].fill(0xff);
        let checksum = *blake3::hash(&claims[first..end]).as_bytes();
        claims[end + 8..].copy_from_slice(&checksum);
        for bad in [&claims[..], &good[..good.len() - 1], &good[..10], b"", &flipped] {
            std::fs::write(&path, bad).unwrap();
            assert!(Book::open(&path).is_none());
        }
        assert!(Book::open(&tmp.path().join("none")).is_none());
    }
}
