//! Sparse files in foreign tars (spec R4.3.9): GNU's old format, and its PAX formats 0.0, 0.1 and 1.0. None is ever written.

use super::Error;
use super::header::BLOCK;
use super::tar::{MAX_EXTENSION, TarReader, number};
use std::io::Read;

/// A run of stored bytes: where in the file it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub len: u64,
}

/// Whether the segments are in order, lie within the file, and account for all that is stored.
pub fn is_valid(segments: &[Segment], stored: u64, size: u64) -> bool {
    let mut end = 0;
    let mut total = 0u64;
    for segment in segments {
        let Some(next) = segment.offset.checked_add(segment.len) else { return false };
        if segment.offset < end || next > size {
            return false;
        }
        end = next;
        // Segments do not overlap and end before `size`, so this cannot overflow.
        total += segment.len;
    }
    total == stored && i64::try_from(size).is_ok()
}

/// The map of an old GNU header: four segments in the header, then blocks of 21. And the file's size.
pub fn gnu_map(
    header: &[u8; BLOCK],
    mut next: impl FnMut() -> Result<[u8; BLOCK], Error>,
) -> Result<(Vec<Segment>, u64), Error> {
    let invalid = || Error::InvalidTar { offset: 0, reason: "the map of a sparse file is malformed" };
    let field = |field: &[u8]| number(field).and_then(|n| u64::try_from(n).ok()).ok_or_else(invalid);
    let size = field(&header[483..495])?;
    let mut segments = Vec::new();
    let mut add = |entries: &[u8]| {
        for entry in entries.chunks_exact(24) {
            if entry[0] == 0 || entry[12] == 0 {
                break;
            }
            segments.push(Segment { offset: field(&entry[..12])?, len: field(&entry[12..])? });
        }
        Ok::<_, Error>(segments.len())
    };
    add(&header[386..482])?;
    let mut more = header[482] != 0;
    while more {
        let block = next()?;
        if add(&block[..504])? as u64 > MAX_EXTENSION / 24 {
            return Err(invalid());
        }
        more = block[504] != 0;
    }
    Ok((segments, size))
}

/// The `GNU.sparse.*` records of an entry.
#[derive(Default)]
pub struct PaxSparse {
    numbers: Vec<Option<u64>>,
    path: Option<Vec<u8>>,
    size: Option<u64>,
    in_content: bool,
}

pub struct PaxMap {
    pub segments: Vec<Segment>,
    /// The real name: the entry's own one is made up.
    pub path: Option<Vec<u8>>,
    pub size: Option<u64>,
}

impl PaxSparse {
    /// Whether the record was one of these.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return false };
        match key {
            b"name" => self.path = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = decimal(value),
            b"major" => self.in_content = value == b"1",
            b"offset" | b"numbytes" => self.numbers.push(decimal(value)),
            b"map" => self.numbers = value.split(|&b| b == b',').map(decimal).collect(),
            _ => {}
        }
        true
    }

    pub fn is_sparse(&self) -> bool {
        self.in_content || !self.numbers.is_empty()
    }

    /// The map, which format 1.0 has at the start of the content: decimal numbers, one a line, their count first,
    /// padded to a block.
    pub fn map<R: Read>(mut self, content: &mut TarReader<R>) -> Result<PaxMap, Error> {
        let malformed = "the map of a sparse file is malformed";
        if self.in_content {
            let mut map = Vec::new();
            let mut lines = 0;
            let mut count = None;
            while count.is_none_or(|count: u64| lines <= 2 * count) {
                let mut block = [0; BLOCK];
                if map.len() as u64 >= MAX_EXTENSION || content.read_exact(&mut block).is_err() {
                    return Err(content.invalid(malformed));
                }
                map.extend_from_slice(&block);
                lines += block.iter().filter(|&&b| b == b'\n').count() as u64;
                if count.is_none() && lines > 0 {
                    let first = map.split(|&b| b == b'\n').next().and_then(decimal);
                    count = Some(first.filter(|&n| n <= MAX_EXTENSION).ok_or_else(|| content.invalid(malformed))?);
                }
            }
            let count = usize::try_from(count.unwrap_or(0)).unwrap_or(0);
            self.numbers = map.split(|&b| b == b'\n').skip(1).take(2 * count).map(decimal).collect();
        }
        let numbers: Option<Vec<u64>> = self.numbers.into_iter().collect();
        let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
        let numbers = numbers.ok_or_else(|| content.invalid(malformed))?;
        let segments = numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], len: pair[1] }).collect();
        Ok(PaxMap { segments, path: self.path, size: self.size })
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
