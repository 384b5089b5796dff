//! The index of a directory: its entries, and where their content lies. JSON, compressed.

use super::super::{Error, Result};
use super::{BlobRecord, MOST_CONTENT, MOST_ENTRIES, pack};
use serde::{Deserialize, Serialize};
use std::io::Read;

const FORMAT: u32 = 1;
/// Uncompressed.
const MOST_BYTES: u64 = 512 << 20;
const LEVEL: i32 = 9;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    pub format: u32,
    /// The directory itself, with an empty path, then what is in it: parents first.
    pub entries: Vec<Entry>,
    /// The chunks of the content, by their positions in `chunks`.
    pub stream: Vec<u32>,
    pub chunks: Vec<Chunk>,
    pub packs: Vec<BlobRecord>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(rename = "p")]
    pub path: Text,
    #[serde(flatten)]
    pub kind: Kind,
    /// `0o7777`.
    #[serde(rename = "m")]
    pub mode: u32,
    #[serde(rename = "o")]
    pub owner: (u32, u32),
    /// Seconds since 1970, nanoseconds.
    #[serde(rename = "t")]
    pub mtime: (i64, u32),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k")]
pub enum Kind {
    #[serde(rename = "d")]
    Directory,
    #[serde(rename = "f")]
    File {
        #[serde(rename = "s")]
        size: u64,
    },
    #[serde(rename = "l")]
    Symlink {
        #[serde(rename = "l")]
        target: Text,
    },
    /// Another name of an earlier file.
    #[serde(rename = "h")]
    HardLink {
        #[serde(rename = "l")]
        to: Text,
    },
}

/// Bytes that are text nearly always.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    Text(String),
    Bytes(Vec<u8>),
}

impl Text {
    pub fn new(bytes: Vec<u8>) -> Text {
        String::from_utf8(bytes).map_or_else(|error| Text::Bytes(error.into_bytes()), Text::Text)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Text::Text(text) => text.as_bytes(),
            Text::Bytes(bytes) => bytes,
        }
    }
}

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// BLAKE3 of its bytes, in hex.
    #[serde(rename = "h")]
    pub hash: String,
    /// Position in [`Index::packs`].
    #[serde(rename = "p")]
    pub pack: u32,
    #[serde(rename = "o")]
    pub offset: u64,
    /// As it lies there.
    #[serde(rename = "z")]
    pub stored: u32,
    #[serde(rename = "n")]
    pub length: u32,
}

impl Index {
    pub fn new() -> Index {
        Index { format: FORMAT, ..Index::default() }
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self).map_err(|error| Error::Document(error.to_string()))?;
        zstd::bulk::compress(&json, LEVEL).map_err(|error| Error::Document(error.to_string()))
    }

    /// Reads an index that anybody may have written; what it says is in bounds.
    pub fn decode(bytes: &[u8]) -> Result<Index> {
        let invalid = |why: &str| Error::Document(format!("the index of a cache directory {why}"));
        let mut json = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(|_| invalid("is not compressed"))?;
        decoder.take(MOST_BYTES + 1).read_to_end(&mut json).map_err(|_| invalid("is not compressed"))?;
        if json.len() as u64 > MOST_BYTES {
            return Err(invalid("is too large"));
        }
        let index: Index = serde_json::from_slice(&json).map_err(|error| invalid(&format!("is not valid: {error}")))?;
        if index.format != FORMAT {
            return Err(invalid("has another format: a newer rbuild wrote it"));
        }
        if index.entries.len() > MOST_ENTRIES {
            return Err(invalid("has too many entries"));
        }
        let is_in_pack = |chunk: &Chunk| {
            let pack = index.packs.get(chunk.pack as usize);
            pack.is_some_and(|pack| chunk.offset.checked_add(chunk.stored.into()).is_some_and(|end| end <= pack.size))
        };
        if !index.chunks.iter().all(|chunk| chunk.length <= pack::MOST_CHUNK && is_in_pack(chunk)) {
            return Err(invalid("names chunks that cannot be"));
        }
        let mut content = 0_u64;
        for &position in &index.stream {
            let chunk =
                index.chunks.get(position as usize).ok_or_else(|| invalid("names chunks that are not there"))?;
            content = content.saturating_add(chunk.length.into());
        }
        let sizes = index.entries.iter().fold(0_u64, |sum, entry| match entry.kind {
            Kind::File { size } => sum.saturating_add(size),
            _ => sum,
        });
        if content != sizes || content > MOST_CONTENT {
            return Err(invalid("has more or less content than its files"));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    fn index() -> Index {
        let entry = |path: &[u8], kind| Entry {
            path: Text::new(path.to_vec()),
            kind,
            mode: 0o644,
            owner: (1, 2),
            mtime: (-3, 4),
        };
        Index {
            entries: vec![
                entry(b"", Kind::Directory),
                entry(b"a\xff", Kind::File { size: 6 }),
                entry(b"b", Kind::Symlink { target: Text::Text("a".into()) }),
                entry(b"c", Kind::HardLink { to: Text::new(b"a\xff".to_vec()) }),
            ],
            stream: vec![0, 0],
            chunks: vec![Chunk { hash: "00".into(), pack: 0, offset: 4, stored: 6, length: 3 }],
            packs: vec![BlobRecord { digest: Digest::of(b""), size: 10 }],
            ..Index::new()
        }
    }

    #[test]
    fn indexes_are_read_as_they_were_written() {
        let index = index();
        assert_eq!(Index::decode(&index.encode().unwrap()).unwrap(), index);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let changes: [fn(&mut Index); 8] = [
            |index| index.format = 2,
            |index| index.stream.push(0),
            |index| index.stream[0] = 1,
            |index| index.chunks[0].pack = 1,
            |index| index.chunks[0].offset = 5,
            |index| index.chunks[0].offset = u64::MAX,
            |index| index.chunks[0].length = u32::MAX,
            |index| index.entries[1].kind = Kind::File { size: u64::MAX },
        ];
        for change in changes {
            let mut index = index();
            change(&mut index);
            let error = Index::decode(&index.encode().unwrap()).unwrap_err().to_string();
            assert!(error.contains("the index of a cache directory"), "{error}");
        }
        assert!(Index::decode(b"x").is_err());
    }
}
