//! Reads tar archives in any of the compressions that ADD knows, told apart by content (X3.69).
//!
//! Everything is hostile: extension headers are bounded in number and size, decoders have memory limits, and file data is only ever
//! streamed. So are claims: nothing is allocated for a size before its bytes are there. What fields mean is what Go's `archive/tar` makes of
//! them, which the `tar` crate does not: it knows no negative and no empty numbers, and reads a long name of any size into memory.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;

const BLOCK: usize = 512;
/// Most bytes of one PAX or GNU long name header.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most bytes of all extension headers before one entry, and most of them. Writers need four: global, PAX, long name and long link.
const MAX_EXTENSION_BYTES: u64 = 2 * MAX_EXTENSION;
const MAX_EXTENSIONS: usize = 64;
/// Most bytes of a sparse file's map as it stands in the archive.
const MAX_SPARSE_MAP: usize = 1 << 20;
/// Most bytes of a name or link target: the kernel takes no longer ones, and so the norm does not either.
pub(crate) const MAX_NAME: usize = 4096;
/// Memory for a decoder's window: that of `xz -9` and `zstd --long=27`.
const MAX_WINDOW: u64 = 160 << 20;

type Block = [u8; BLOCK];
type Records = BTreeMap<Vec<u8>, Vec<u8>>;
/// Offsets and lengths.
type Pieces = Vec<(u64, u64)>;

/// One entry's header with its extensions applied.
#[derive(Debug, Default)]
pub(crate) struct ArchiveEntry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// The type flag, `b'0'` for a regular file, sparse or not.
    pub kind: u8,
    pub mode: u32,
    pub uid: i64,
    pub gid: i64,
    pub mtime: (i64, u32),
    pub atime: Option<(i64, u32)>,
    pub device: (i64, i64),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

/// Where the data of a sparse file belongs; the rest of it are holes.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// In order and apart. The entry's data are the pieces one after the other.
    pub pieces: Pieces,
    pub size: u64,
}

pub(crate) struct Archive<R> {
    input: R,
    /// Bytes of the current entry's data that have not been read, and the padding after them.
    data: u64,
    padding: u64,
}

/// Decompresses what is compressed, going by the first bytes.
pub(crate) fn decompress<'a>(mut input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = [0; 6];
    let mut length = 0;
    while length < magic.len() {
        match input.read(&mut magic[length..])? {
            0 => break,
            got => length += got,
        }
    }
    let input = io::Cursor::new(magic[..length].to_vec()).chain(input);
    let buffered = || io::BufReader::with_capacity(128 * 1024, input);
    Ok(match &magic[..length] {
        [0x1f, 0x8b, 8, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered())),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered())),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MAX_WINDOW, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(), stream))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered())?;
            decoder.window_log_max(MAX_WINDOW.ilog2())?;
            Box::new(decoder)
        }
        _ => Box::new(buffered()),
    })
}

/// Whether what begins like this is a tar archive, or compressed by one of the known ways (D19.5).
pub fn is_archive(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] =
        [b"BZh", &[0x1f, 0x8b, 8], &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
    MAGICS.iter().any(|magic| head.starts_with(magic)) || matches!(Archive::new(head).header(), Ok(Some(_)))
}

fn bad(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Reads all entries with their data, of which there are at most `limit` bytes, and tells how many there were: for the fuzzer, which
/// has no other way in that leaves the file system alone.
pub fn read_all(input: impl Read + Send, limit: u64) -> io::Result<usize> {
    let mut archive = Archive::new(decompress(input)?.take(limit));
    let mut entries = 0;
    while archive.next()?.is_some() {
        io::copy(&mut archive, &mut io::sink())?;
        entries += 1;
    }
    Ok(entries)
}

/// The newest time of a regular file in an archive, in seconds since 1970; `None` if this is none, or holds none.
pub fn newest(input: impl Read + Send) -> Option<i64> {
    let mut archive = Archive::new(decompress(input).ok()?);
    let mut newest = None;
    loop {
        match archive.next() {
            Ok(Some(entry)) if entry.kind == b'0' => newest = newest.max(Some(entry.mtime.0)),
            Ok(Some(_)) => {}
            Ok(None) => return newest,
            Err(_) => return None,
        }
    }
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Archive<R> {
        Archive { input, data: 0, padding: 0 }
    }

    /// The next entry, whose data is then there to be read; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<ArchiveEntry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                return if extensions.any { Err(bad("it ends after an extension header")) } else { Ok(None) };
            };
            match header[156] {
                kind @ (b'L' | b'K' | b'x') => {
                    let data = self.extension(&header, &mut extensions)?;
                    extensions.any = true;
                    match kind {
                        b'x' => extensions.pax = pax(&data)?,
                        b'L' => extensions.long_path = Some(c_string(&data)),
                        _ => extensions.long_link = Some(c_string(&data)),
                    }
                }
                // Global headers are ignored (X3.75).
                b'g' => drop(self.extension(&header, &mut extensions)?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Block, extensions: Extensions) -> io::Result<ArchiveEntry> {
        let (posix, gnu) = (header[257..263] == *b"ustar\0", header[257..265] == *b"ustar  \0");
        let mut entry = ArchiveEntry {
            path: c_string(&header[..100]),
            link: c_string(&header[157..257]),
            kind: header[156],
            // The type's bits, which old writers add, go.
            mode: (field(header, "mode", 100..108)? & 0o7777) as u32,
            uid: field(header, "uid", 108..116)?,
            gid: field(header, "gid", 116..124)?,
            mtime: (field(header, "mtime", 136..148)?, 0),
            ..ArchiveEntry::default()
        };
        if posix {
            // star has times after a shorter prefix.
            let end = if header[508..] == *b"tar\0" { 476 } else { 500 };
            let prefix = c_string(&header[345..end]);
            if !prefix.is_empty() {
                entry.path = super::path::join(&prefix, &entry.path);
            }
        }
        if (posix || gnu) && matches!(entry.kind, b'3' | b'4') {
            entry.device = (field(header, "major", 329..337)?, field(header, "minor", 337..345)?);
        }
        let mut size = field(header, "size", 124..136)?;
        let sparse_records = self.records(&mut entry, &mut size, extensions)?;
        if entry.kind == 0 {
            // Of old archives: a directory shows by its name only.
            entry.kind = if entry.path.ends_with(b"/") { b'5' } else { b'0' };
        }
        // Whatever a header says, only regular files (and types unknown here) have data.
        let size = if matches!(entry.kind, b'1'..=b'6') { 0 } else { size };
        let size = u64::try_from(size).map_err(|_| bad(format!("negative size {size}")))?;
        let map = if entry.kind == b'S' { Some(self.old_sparse_map(header)?) } else { None };
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        if let Some((pieces, real)) = map {
            entry.kind = b'0';
            entry.sparse = Some(Sparse::new(pieces, real, self.data)?);
        } else if let Some((pieces, real)) = self.pax_sparse_map(&sparse_records, &mut entry.path)? {
            if entry.kind != b'0' {
                return Err(bad("a sparse file that is no regular file"));
            }
            entry.sparse = Some(Sparse::new(pieces, real.unwrap_or(size), self.data)?);
        }
        for (what, name) in [("name", &entry.path), ("link target", &entry.link)] {
            if name.contains(&0) {
                return Err(bad(format!("a {what} contains a zero byte")));
            }
            if name.len() > MAX_NAME {
                return Err(bad(format!("a {what} of {} bytes, more than {MAX_NAME}", name.len())));
            }
        }
        Ok(entry)
    }

    /// Applies PAX records and long names to an entry; those of a sparse file are left.
    fn records(&self, entry: &mut ArchiveEntry, size: &mut i64, extensions: Extensions) -> io::Result<Records> {
        let mut sparse = Records::new();
        for (key, value) in extensions.pax {
            let text = || std::str::from_utf8(&value).unwrap_or_default();
            let int = || text().parse::<i64>().map_err(|_| bad(format!("bad PAX value {:?}", text())));
            match key.as_slice() {
                b"path" => entry.path = value,
                b"linkpath" => entry.link = value,
                b"size" => *size = int()?,
                b"uid" => entry.uid = int()?,
                b"gid" => entry.gid = int()?,
                b"mtime" => entry.mtime = pax_time(text())?,
                b"atime" => entry.atime = Some(pax_time(text())?),
                name if name.starts_with(b"GNU.sparse.") => drop(sparse.insert(key, value)),
                name => {
                    if let Some(name) = name.strip_prefix(b"SCHILY.xattr.") {
                        entry.xattrs.push((name.to_vec(), value));
                    }
                }
            }
        }
        // They win in Go.
        if let Some(path) = extensions.long_path {
            entry.path = path;
        }
        if let Some(link) = extensions.long_link {
            entry.link = link;
        }
        Ok(sparse)
    }

    /// The map and real size of GNU's own sparse files: four pieces in the header, more in blocks after it.
    fn old_sparse_map(&mut self, header: &Block) -> io::Result<(Pieces, u64)> {
        let number = |field: &[u8]| {
            let value = number(field).map_err(|problem| bad(format!("bad sparse map: {problem}")))?;
            u64::try_from(value).map_err(|_| bad("bad sparse map: negative"))
        };
        let size = number(&header[483..495])?;
        let mut pieces = Vec::new();
        let mut add = |fields: &[u8]| -> io::Result<()> {
            // An unused field ends a block's list.
            for piece in fields.chunks_exact(24).take_while(|piece| piece[0] != 0) {
                pieces.push((number(&piece[..12])?, number(&piece[12..])?));
            }
            Ok(())
        };
        add(&header[386..482])?;
        let mut more = header[482] != 0;
        let mut length = 0;
        while more {
            length += BLOCK;
            if length > MAX_SPARSE_MAP {
                return Err(bad(format!("sparse map of more than {MAX_SPARSE_MAP} bytes")));
            }
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            add(&block[..504])?;
            more = block[504] != 0;
        }
        Ok((pieces, size))
    }

    /// The map, and the real size if it is told, of a sparse file in PAX format: versions 0.0 and 0.1 have the map in records, 1.0 in blocks
    /// before the data. `None` for other files.
    fn pax_sparse_map(&mut self, records: &Records, path: &mut Vec<u8>) -> io::Result<Option<(Pieces, Option<u64>)>> {
        let record = |key: &[u8]| records.get(key).map(Vec::as_slice);
        let map = record(b"GNU.sparse.map");
        let in_data = match (record(b"GNU.sparse.major"), record(b"GNU.sparse.minor")) {
            (Some(b"1"), Some(b"0")) => true,
            (Some(b"0"), Some(b"0" | b"1")) => false,
            // Before 1.0 no version was told.
            (None, None) if map.is_some() => false,
            (None, None) => return Ok(None),
            _ => return Err(bad("unknown version of sparse file")),
        };
        if let Some(name) = record(b"GNU.sparse.name") {
            *path = name.to_vec();
        }
        let size = record(b"GNU.sparse.size").or(record(b"GNU.sparse.realsize")).map(decimal).transpose()?;
        if in_data {
            return Ok(Some((self.leading_sparse_map()?, size)));
        }
        let pieces = match map {
            Some(map) => pairs(map.split(|b| *b == b','))?,
            None => Vec::new(),
        };
        if record(b"GNU.sparse.numblocks").map(decimal).transpose()? != Some(pieces.len() as u64) {
            return Err(bad("bad sparse map: it has another length than is told"));
        }
        Ok(Some((pieces, size)))
    }

    /// Lines of decimal numbers, the first of which tells how many pairs follow, up to the end of a block.
    fn leading_sparse_map(&mut self) -> io::Result<Pieces> {
        let mut text = Vec::new();
        let (mut lines, mut wanted) = (0, 1);
        while lines < wanted {
            if self.data < BLOCK as u64 {
                return Err(bad("bad sparse map: it goes on after the file's data"));
            }
            if text.len() >= MAX_SPARSE_MAP {
                return Err(bad(format!("sparse map of more than {MAX_SPARSE_MAP} bytes")));
            }
            let mut block = [0; BLOCK];
            self.read_exact(&mut block)?;
            text.extend_from_slice(&block);
            lines += block.iter().filter(|b| **b == b'\n').count() as u64;
            if wanted == 1 && lines > 0 {
                let pieces = decimal(text.split(|b| *b == b'\n').next().unwrap_or_default())?;
                wanted = pieces.saturating_mul(2).saturating_add(1);
            }
        }
        // Reading ended, so there are as many as wanted.
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        pairs(text.split(|b| *b == b'\n').take(wanted).skip(1))
    }

    /// A block that is a header; `None` at the end mark or the end of the input.
    fn header(&mut self) -> io::Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            match self.input.read(&mut block[length..]) {
                Ok(0) if length == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => length += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let stored = number(&block[148..156]).map_err(|_| bad("bad header checksum"))?;
        let sum = |signed: bool| -> i64 {
            let value = |(at, b): (usize, &u8)| match at {
                148..156 => i64::from(b' '),
                _ if signed => i64::from(b.cast_signed()),
                _ => i64::from(*b),
            };
            block.iter().enumerate().map(value).sum()
        };
        // Old writers summed signed bytes.
        if stored != sum(false) && stored != sum(true) {
            return Err(bad("bad header checksum"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, header: &Block, extensions: &mut Extensions) -> io::Result<Vec<u8>> {
        let size = field(header, "size", 124..136)?;
        let size = u64::try_from(size).map_err(|_| bad(format!("negative size {size}")))?;
        if size > MAX_EXTENSION {
            return Err(bad(format!("extension header of {size} bytes, more than {MAX_EXTENSION}")));
        }
        extensions.count += 1;
        extensions.bytes += size;
        if extensions.count > MAX_EXTENSIONS {
            return Err(bad(format!("more than {MAX_EXTENSIONS} extension headers before one entry")));
        }
        if extensions.bytes > MAX_EXTENSION_BYTES {
            return Err(bad(format!("extension headers of more than {MAX_EXTENSION_BYTES} bytes before one entry")));
        }
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }

    fn skip_data(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let padding = std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut self.input.by_ref().take(padding), &mut io::sink())?;
        // A last file's padding may be missing.
        if skipped != padding && skipped != 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// The current entry's data; an input that ends early is an error.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data -= got as u64;
        Ok(got)
    }
}

/// What stands before an entry.
#[derive(Default)]
struct Extensions {
    any: bool,
    count: usize,
    bytes: u64,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// Of the last PAX header, which takes the place of earlier ones.
    pax: Records,
}

/// Records `LENGTH KEY=VALUE\n`; a value may hold anything, so only the length tells where it ends. Of several with one key the last counts.
fn pax(mut data: &[u8]) -> io::Result<Records> {
    let broken = || bad("malformed PAX header");
    let mut records = Records::new();
    // Sparse files of version 0.0 have a pair of records for each piece. They become the one record of 0.1.
    let mut map: Vec<&[u8]> = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().take(20).position(|b| *b == b' ').ok_or_else(broken)?;
        let length: usize = std::str::from_utf8(&data[..blank]).ok().and_then(|t| t.parse().ok()).ok_or_else(broken)?;
        let record = data.get(blank + 1..length).ok_or_else(broken)?;
        let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        data = &data[length..];
        if let b"GNU.sparse.offset" | b"GNU.sparse.numbytes" = key {
            if map.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") || value.contains(&b',') {
                return Err(broken());
            }
            map.push(value);
        } else if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
            // It takes back what the header itself says nothing about either.
            records.remove(key);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
    }
    if !map.is_empty() {
        records.insert(b"GNU.sparse.map".to_vec(), map.join(&b','));
    }
    Ok(records)
}

impl Sparse {
    /// `data`: how many bytes the archive has for all pieces.
    fn new(pieces: Pieces, size: u64, data: u64) -> io::Result<Sparse> {
        let (mut end, mut total) = (0, 0);
        for (offset, length) in &pieces {
            if *offset < end {
                return Err(bad("bad sparse map: its pieces overlap or are out of order"));
            }
            let after = offset.checked_add(*length).filter(|after| *after <= size);
            end = after.ok_or_else(|| bad(format!("bad sparse map: it goes beyond the file's {size} bytes")))?;
            // No overflow: they are apart, and within `size`.
            total += length;
        }
        if total != data {
            return Err(bad(format!("bad sparse map: it is of {total} bytes, but there are {data}")));
        }
        Ok(Sparse { pieces, size })
    }
}

/// Offsets and lengths, by turns.
fn pairs<'a>(numbers: impl Iterator<Item = &'a [u8]>) -> io::Result<Pieces> {
    let mut numbers = numbers.map(decimal);
    let mut pairs = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or_else(|| bad("bad sparse map: a piece without length"))?;
        pairs.push((offset?, length?));
    }
    Ok(pairs)
}

/// A number of a sparse file's records; like all sizes it fits a signed one.
fn decimal(text: &[u8]) -> io::Result<u64> {
    let value = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(|| bad("bad sparse map: no number"))
}

fn field(header: &Block, what: &str, range: Range<usize>) -> io::Result<i64> {
    number(&header[range]).map_err(|problem| bad(format!("bad {what} in header: {problem}")))
}

/// A number of a header: octal, between blanks and zero bytes; or, as GNU tar writes what does not fit, with the first bit set, then
/// big-endian in two's complement.
fn number(field: &[u8]) -> Result<i64, &'static str> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        // The bit after the mark is the sign. A field has 12 bytes at most.
        let top = i128::from(first & 0x3f) - i128::from(first & 0x40);
        let value = rest.iter().fold(top, |value, b| value << 8 | i128::from(*b));
        return i64::try_from(value).map_err(|_| "out of range");
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
    // What comes after a blank must be blank; after a zero byte anything may.
    let rest = digits.len() + start;
    if field[rest..].split(|b| *b == 0).next().is_some_and(|rest| !rest.iter().all(blank)) {
        return Err("not a number");
    }
    digits.iter().try_fold(0i64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8).map(|value| value + i64::from(b - b'0')).ok_or("out of range"),
        _ => Err("not a number"),
    })
}

fn c_string(data: &[u8]) -> Vec<u8> {
    data.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Seconds with a fraction of any length, possibly negative.
fn pax_time(text: &str) -> io::Result<(i64, u32)> {
    let broken = || bad(format!("bad PAX time {text:?}"));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| broken())?;
    let mut nanoseconds = 0;
    for place in 0..9 {
        let digit = match fraction.as_bytes().get(place) {
            None => 0,
            Some(b @ b'0'..=b'9') => u32::from(b - b'0'),
            Some(_) => return Err(broken()),
        };
        nanoseconds = nanoseconds * 10 + digit;
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        return Ok((seconds.checked_sub(1).ok_or_else(broken)?, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, time) in [("12", Some((12, 0))), ("1.5", Some((1, 500_000_000))), ("-1.25", Some((-2, 750_000_000)))]
        {
            assert_eq!(pax_time(text).ok(), time, "{text}");
        }
        assert!(pax_time("1.x").is_err() && pax_time("").is_err());
    }

    /// As Go's parseNumeric.
    #[test]
    fn numbers() {
        let all: &[(&[u8], Result<i64, &str>)] = &[
            (b"0000644\0", Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0 644\0x", Ok(0o644)),
            (b"777777777777", Ok(0o777_777_777_777)),
            (b"", Ok(0)),
            (b"\0\0\0", Ok(0)),
            (b"       \0", Ok(0)),
            (b"89", Err("not a number")),
            (b"6 4", Err("not a number")),
            (b"-1", Err("not a number")),
            (b"+1", Err("not a number")),
            (b"\x80", Ok(0)),
            (b"\x80\x00\x00\x07", Ok(7)),
            (b"\xbf\xff", Ok(0x3fff)),
            (b"\xff\xff", Ok(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err("out of range")),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Ok(i64::MIN)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", Err("out of range")),
        ];
        for (field, want) in all {
            assert_eq!(number(field), *want, "{}", field.escape_ascii());
        }
    }
}
