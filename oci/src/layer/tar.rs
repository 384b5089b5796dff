//! Reading tars of unknown origin: ustar, PAX, GNU and v7, from a stream.
//!
//! The `tar` crate is not used here: it takes PAX records apart at newlines, which loses names and capabilities that
//! contain one, and it reads extended headers of any size into memory. Where dialects disagree this follows Go's
//! `archive/tar`, which is what other builders and container engines see in the same bytes.

use super::Error;
use super::header::BLOCK;
use super::sparse::{self, Segment};
use std::io::{self, BufRead, BufReader, Read};

/// Longest PAX header, GNU long name or sparse map; archives with longer ones are refused.
pub(super) const MAX_EXTENSION: u64 = 1 << 20;

const BUFFER: usize = 256 * 1024;

/// An entry's header with all extensions applied.
#[derive(Debug, Default)]
pub struct Entry {
    /// As stored: not cleaned, not checked.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Of the file as it is to be, which for a sparse one is more than is stored.
    pub size: u64,
    pub mtime: (i64, u32),
    pub atime: Option<(i64, u32)>,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes of a sparse file belong; the rest is zero.
    pub sparse: Option<Vec<Segment>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    #[default]
    File,
    Link,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
    Other(u8),
}

/// The entries of a tar, one after the other. As a [`Read`], the stored content of the last entry.
pub struct TarReader<R> {
    input: BufReader<R>,
    /// Bytes taken from the input, for messages.
    offset: u64,
    /// Of the current entry.
    content: u64,
    padding: u64,
    ended: bool,
}

/// PAX records or GNU long names for the next entry.
#[derive(Default)]
struct Extensions {
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> TarReader<R> {
    pub fn new(input: R) -> Self {
        TarReader { input: BufReader::with_capacity(BUFFER, input), offset: 0, content: 0, padding: 0, ended: false }
    }

    /// The next entry; what is left of the last one's content is skipped. `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(block) = self.header()? else {
                return Ok(None);
            };
            let stored = number(&block[124..136]).and_then(|size| u64::try_from(size).ok());
            let stored = stored.ok_or_else(|| self.invalid("a size is not a number"))?;
            match block[156] {
                b'x' | b'X' => {
                    let data = self.extension(stored)?;
                    extensions.pax = pax_records(&data).ok_or_else(|| self.invalid("a PAX record is malformed"))?;
                }
                b'g' => self.set_content(stored)?,
                b'L' => extensions.path = Some(text(&self.extension(stored)?)),
                b'K' => extensions.link = Some(text(&self.extension(stored)?)),
                _ => return self.entry(&block, stored, extensions).map(Some),
            }
        }
    }

    /// Reads what follows the end of the archive, so that it is part of the digest (spec X4.44).
    pub fn drain(&mut self) -> Result<(), Error> {
        io::copy(&mut self.input, &mut io::sink()).map_err(Error::Input)?;
        Ok(())
    }

    /// A part of the current entry's stored content straight from the buffer, empty at its end. To be followed
    /// by [`consume`](Self::consume).
    pub fn fill(&mut self) -> Result<&[u8], Error> {
        if self.content == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let part = loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Input(error)),
                Ok(part) => break part.len(),
            }
        };
        if part == 0 {
            return Err(Error::InvalidTar { offset, reason: "it ends within a file" });
        }
        let limit = usize::try_from(self.content).unwrap_or(usize::MAX);
        Ok(&self.input.buffer()[..part.min(limit)])
    }

    pub fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.offset += count as u64;
        self.content -= count as u64;
    }

    fn entry(&mut self, block: &[u8; BLOCK], stored: u64, extensions: Extensions) -> Result<Entry, Error> {
        let bad_number = || Error::InvalidTar { offset: self.offset, reason: "a header field is not a number" };
        let field = |range: std::ops::Range<usize>| number(&block[range]).ok_or_else(bad_number);
        let id = |range| field(range).map(|id| u64::try_from(id).unwrap_or(u64::MAX));
        let device = |range| field(range).map(|n| u32::try_from(n).unwrap_or(u32::MAX));

        let magic = &block[257..265];
        let is_ustar = magic.starts_with(b"ustar\0");
        let is_gnu = magic == b"ustar  \0";
        let mut path = text(&block[..100]);
        let prefix = match (is_ustar, &block[508..512] == b"tar\0") {
            (true, true) => text(&block[345..476]),
            (true, false) => text(&block[345..500]),
            _ => Vec::new(),
        };
        if !prefix.is_empty() {
            path = [prefix, path].join(&b'/');
        }
        let mut entry = Entry {
            kind: match block[156] {
                0 if path.ends_with(b"/") => EntryKind::Directory,
                // 7 is "contiguous", which POSIX lets us take for a regular file; S is GNU's sparse one.
                0 | b'0' | b'7' | b'S' => EntryKind::File,
                b'1' => EntryKind::Link,
                b'2' => EntryKind::Symlink,
                b'3' => EntryKind::Char,
                b'4' => EntryKind::Block,
                b'5' => EntryKind::Directory,
                b'6' => EntryKind::Fifo,
                other => EntryKind::Other(other),
            },
            path,
            link: text(&block[157..257]),
            mode: (field(100..108)? & 0o7777) as u32,
            uid: id(108..116)?,
            gid: id(116..124)?,
            size: stored,
            mtime: (field(136..148)?, 0),
            ..Entry::default()
        };
        if matches!(entry.kind, EntryKind::Char | EntryKind::Block) && (is_ustar || is_gnu) {
            entry.device = (device(329..337)?, device(337..345)?);
        }
        let mut sparse_records = sparse::PaxSparse::default();
        for (key, value) in extensions.pax {
            if !sparse_records.take(&key, &value) {
                entry.apply(key, value).ok_or_else(|| self.invalid("a PAX record has an invalid value"))?;
            }
        }
        if let Some(path) = extensions.path {
            entry.path = path;
        }
        if let Some(link) = extensions.link {
            entry.link = link;
        }

        // The size of a link or a directory does not mean that content follows.
        if !matches!(entry.kind, EntryKind::File | EntryKind::Other(_)) {
            entry.size = 0;
        }
        self.set_content(entry.size)?;
        if block[156] == b'S' {
            let (segments, size) = sparse::gnu_map(block, || self.block())?;
            entry.sparse = Some(segments);
            entry.size = size;
        } else if entry.kind == EntryKind::File && sparse_records.is_sparse() {
            let before = self.content;
            let map = sparse_records.map(self)?;
            entry.path = map.path.unwrap_or(entry.path);
            entry.size = map.size.unwrap_or(before);
            entry.sparse = Some(map.segments);
        }
        if let Some(segments) = &entry.sparse
            && !sparse::is_valid(segments, self.content, entry.size)
        {
            return Err(self.invalid("the map of a sparse file does not fit its content"));
        }
        Ok(entry)
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        if self.ended {
            return Ok(None);
        }
        let at_end = self.input.fill_buf().map_err(Error::Input)?.is_empty();
        let block = if at_end { [0; BLOCK] } else { self.block()? };
        if block.iter().all(|&b| b == 0) {
            self.ended = true;
            return Ok(None);
        }
        // Historical programs summed signed bytes.
        let field = 148..156;
        let with_blanks = || block.iter().enumerate().map(|(at, &b)| if field.contains(&at) { b' ' } else { b });
        let unsigned: i64 = with_blanks().map(i64::from).sum();
        let signed: i64 = with_blanks().map(|b| i64::from(b as i8)).sum();
        match number(&block[148..156]) {
            Some(sum) if sum == unsigned || sum == signed => Ok(Some(block)),
            _ => Err(self.invalid("the checksum of a header is wrong")),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], Error> {
        let mut block = [0; BLOCK];
        self.input.read_exact(&mut block).map_err(|e| self.cut_short(e))?;
        self.offset += BLOCK as u64;
        Ok(block)
    }

    /// The content of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        if size > MAX_EXTENSION {
            return Err(self.invalid("an extended header is larger than 1 MiB"));
        }
        self.set_content(size)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(|e| self.cut_short(e))?;
        Ok(data)
    }

    fn set_content(&mut self, size: u64) -> Result<(), Error> {
        if i64::try_from(size).is_err() {
            return Err(self.invalid("a size is too large"));
        }
        self.content = size;
        self.padding = super::header::padding(size) as u64;
        Ok(())
    }

    fn skip(&mut self, count: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink()).map_err(Error::Input)?;
        self.offset += skipped;
        if skipped < count { Err(self.invalid("it ends within a file")) } else { Ok(()) }
    }

    pub(super) fn invalid(&self, reason: &'static str) -> Error {
        Error::InvalidTar { offset: self.offset, reason }
    }

    fn cut_short(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.invalid("it ends within a header"),
            _ => Error::Input(error),
        }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..limit])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.content -= read as u64;
        Ok(read)
    }
}

impl Entry {
    /// Applies one PAX record; `None` if its value makes no sense.
    fn apply(&mut self, key: Vec<u8>, value: Vec<u8>) -> Option<()> {
        // An empty value takes back an earlier record or global default: the field of the header counts.
        if value.is_empty() && !key.starts_with(XATTR) {
            return Some(());
        }
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key.as_slice() {
            b"path" => self.path = value,
            b"linkpath" => self.link = value,
            b"size" => self.size = number(&value)?,
            b"uid" => self.uid = number(&value)?,
            b"gid" => self.gid = number(&value)?,
            b"mtime" => self.mtime = pax_time(&value)?,
            b"atime" => self.atime = Some(pax_time(&value)?),
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value));
                }
            }
        }
        Some(())
    }
}

const XATTR: &[u8] = b"SCHILY.xattr.";

/// Up to the first NUL.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|&b| b == 0).next().unwrap_or_default().to_vec()
}

/// A number in octal, or in base 256 if the first bit is set (GNU, for what does not fit).
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement in all bits but the first.
        let negative = first & 0x40 != 0;
        let start = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        let value = rest.iter().try_fold(start, |n, &b| n.checked_mul(256)?.checked_add(b.into()))?;
        return i64::try_from(value).ok();
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|&b| b == 0 || b == b' ').unwrap_or(digits.len());
    if digits[end..].iter().any(|&b| b != 0 && b != b' ') {
        return None;
    }
    digits[..end].iter().try_fold(0i64, |n, &b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add((b - b'0').into()),
        _ => None,
    })
}

/// `LENGTH KEY=VALUE\n` again and again; the length counts the whole record, so that a value may hold any byte.
fn pax_records(mut data: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().take(20).position(|&b| b == b' ')?;
        let len: usize = std::str::from_utf8(&data[..blank]).ok()?.parse().ok()?;
        let record = data.get(blank + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&b| b == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || (key == b"path" || key == b"linkpath") && value.contains(&0) {
            return None;
        }
        records.push((key.to_vec(), value.to_vec()));
        data = &data[len..];
    }
    Some(records)
}

/// `[-]SECONDS[.FRACTION]`, rounded down to nanoseconds.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = if whole == "-" { 0 } else { whole.parse().ok()? };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    match value.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let table: [(&[u8], Option<i64>); 9] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77777777)),
            (b"0000648\0", None),
            (b"00 0644\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, value) in table {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn pax_values_may_hold_newlines() {
        let records = pax_records(b"14 path=a\nb=c\n9 uid=17\n").unwrap();
        assert_eq!(records, [(b"path".to_vec(), b"a\nb=c".to_vec()), (b"uid".to_vec(), b"17".to_vec())]);
        for bad in
            [&b"8 path=a\n"[..], b"99 path=a\n", b"x path=a\n", b"9 patha\n\n", b"10 path=a\0\n", b"3 =\n", b"0 a=b\n"]
        {
            assert!(pax_records(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn pax_times() {
        assert_eq!(pax_time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(pax_time(b"12"), Some((12, 0)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"-0.5"), Some((-1, 500_000_000)));
        assert_eq!(pax_time(b"1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(pax_time(b"1.x"), None);
        assert_eq!(pax_time(b""), None);
    }
}
