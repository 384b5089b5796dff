//! Chunks, and the packs that they lie in.

use super::super::{Error, Result};
use super::BlobRecord;
use super::index::{Chunk, Index};
use crate::blob::BlobWriter;
use crate::store::Store;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

/// How large chunks are, at least, mostly and at most.
const LEAST: usize = 32 << 10;
const MEAN: usize = 128 << 10;
pub const MOST_CHUNK: u32 = 512 << 10;
/// A pack that has so many bytes is full.
const FULL: u64 = 16 << 20;
pub const MOST_PACK: u64 = 64 << 20;
const LEVEL: i32 = 3;
/// Packs of which less than one byte in so many is used are left behind.
const USELESS: u64 = 3;

/// Puts chunks into packs, apart from those that the cache has.
pub struct Packer<'a> {
    store: &'a Store,
    known: HashMap<[u8; 32], Known>,
    index: Index,
    positions: HashMap<[u8; 32], u32>,
    /// The packs that are new, and where in the index.
    written: Vec<(BlobWriter, BlobRecord)>,
    current: Option<(BlobWriter, u64)>,
    /// Packs of the cache, by their place in the index.
    taken_over: HashMap<BlobRecordKey, u32>,
    /// Of chunks and their bytes as they are stored.
    pub sent: (usize, u64),
}

type BlobRecordKey = [u8; 32];

#[derive(Clone)]
struct Known {
    pack: BlobRecord,
    offset: u64,
    stored: u32,
    length: u32,
}

/// What a packer made: an index without entries, and new packs, whose files go with their writers.
pub struct Packed {
    pub index: Index,
    pub written: Vec<(BlobWriter, BlobRecord)>,
    pub sent: (usize, u64),
}

impl<'a> Packer<'a> {
    /// `previous` is what the cache has, as far as `is_there` says so of its packs.
    pub fn new(store: &'a Store, previous: Option<&Index>, is_there: impl Fn(&BlobRecord) -> bool) -> Self {
        let mut known = HashMap::new();
        if let Some(previous) = previous {
            let mut used = vec![0_u64; previous.packs.len()];
            for chunk in &previous.chunks {
                used[chunk.pack as usize] += u64::from(chunk.stored);
            }
            for chunk in &previous.chunks {
                let pack = previous.packs[chunk.pack as usize];
                let mut hash = [0; 32];
                if used[chunk.pack as usize] >= pack.size / USELESS
                    && is_there(&pack)
                    && hex::decode_to_slice(&chunk.hash, &mut hash).is_ok()
                {
                    let (offset, stored, length) = (chunk.offset, chunk.stored, chunk.length);
                    known.insert(hash, Known { pack, offset, stored, length });
                }
            }
        }
        Packer {
            store,
            known,
            index: Index::new(),
            positions: HashMap::new(),
            written: Vec::new(),
            current: None,
            taken_over: HashMap::new(),
            sent: (0, 0),
        }
    }

    /// Cuts a stream and packs it.
    pub fn add(&mut self, content: impl Read) -> Result<()> {
        for chunk in fastcdc::v2020::StreamCDC::new(content, LEAST, MEAN, MOST_CHUNK as usize) {
            let chunk = chunk.map_err(|error| Error::Service {
                what: "cannot read a cache directory".into(),
                problem: io::Error::from(error).to_string(),
            })?;
            let hash = *blake3::hash(&chunk.data).as_bytes();
            let position = match self.positions.get(&hash) {
                Some(position) => *position,
                None => self.place(hash, &chunk.data)?,
            };
            self.index.stream.push(position);
        }
        Ok(())
    }

    fn place(&mut self, hash: [u8; 32], bytes: &[u8]) -> Result<u32> {
        let position = u32::try_from(self.index.chunks.len()).unwrap_or(u32::MAX);
        let length = bytes.len() as u32;
        let known = self.known.get(&hash).filter(|known| known.length == length).cloned();
        let (pack, offset, stored) = match known {
            Some(Known { pack, offset, stored, .. }) => {
                let packs = &mut self.index.packs;
                let place = *self.taken_over.entry(*pack.digest.bytes()).or_insert_with(|| {
                    packs.push(pack);
                    packs.len() as u32 - 1
                });
                (place, offset, stored)
            }
            None => {
                let compressed = zstd::bulk::compress(bytes, LEVEL).map_err(written)?;
                let (writer, size) = match &mut self.current {
                    Some(current) => current,
                    None => {
                        // Its place is known now, what it is when it is full.
                        self.index.packs.push(BlobRecord { digest: oci::Digest::of(b""), size: 0 });
                        self.current.insert((self.store.blob_writer()?, 0))
                    }
                };
                let (offset, stored) = (*size, compressed.len() as u32);
                writer.write_all(&compressed).map_err(written)?;
                *size += u64::from(stored);
                self.sent = (self.sent.0 + 1, self.sent.1 + u64::from(stored));
                let is_full = *size >= FULL;
                let place = self.place_of_current();
                if is_full {
                    self.close()?;
                }
                (place, offset, stored)
            }
        };
        self.index.chunks.push(Chunk { hash: hex::encode(hash), pack, offset, stored, length });
        self.positions.insert(hash, position);
        Ok(position)
    }

    /// Only new packs have no size yet, and there is one at a time.
    fn place_of_current(&self) -> u32 {
        self.index.packs.iter().rposition(|pack| pack.size == 0).unwrap_or(0) as u32
    }

    fn close(&mut self) -> Result<()> {
        let Some((mut writer, _)) = self.current.take() else { return Ok(()) };
        let place = self.place_of_current() as usize;
        let (digest, size) = writer.seal();
        let record = BlobRecord { digest, size };
        self.index.packs[place] = record;
        self.written.push((writer, record));
        Ok(())
    }

    pub fn finish(mut self) -> Result<Packed> {
        self.close()?;
        Ok(Packed { index: self.index, written: self.written, sent: self.sent })
    }
}

/// The content that an index describes, out of packs that are here.
pub struct Unpacker<'a> {
    index: &'a Index,
    packs: &'a [File],
    next: usize,
    bytes: Vec<u8>,
    at: usize,
}

impl<'a> Unpacker<'a> {
    /// `packs` are the index's, in its order.
    pub fn new(index: &'a Index, packs: &'a [File]) -> Self {
        Unpacker { index, packs, next: 0, bytes: Vec::new(), at: 0 }
    }

    fn chunk(&self, chunk: &Chunk) -> io::Result<Vec<u8>> {
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let pack = self.packs.get(chunk.pack as usize).ok_or_else(|| invalid("a pack is missing"))?;
        let mut stored = vec![0; chunk.stored as usize];
        pack.read_exact_at(&mut stored, chunk.offset)?;
        let bytes = zstd::bulk::decompress(&stored, chunk.length as usize)?;
        if bytes.len() != chunk.length as usize || blake3::hash(&bytes).to_hex().as_str() != chunk.hash {
            return Err(invalid("a chunk has the wrong content"));
        }
        Ok(bytes)
    }
}

impl Read for Unpacker<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            let Some(position) = self.index.stream.get(self.next) else { return Ok(0) };
            self.bytes = self.chunk(&self.index.chunks[*position as usize])?;
            (self.at, self.next) = (0, self.next + 1);
        }
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn written(error: io::Error) -> Error {
    Error::Service { what: "cannot write a pack of a cache directory".into(), problem: error.to_string() }
}
