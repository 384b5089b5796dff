//! Reads tar archives in any of the compressions that ADD knows, told apart by content (X3.69).
//!
//! Everything is hostile: extension headers are bounded, decoders have memory limits, and file data is only ever streamed. Headers are parsed
//! by the `tar` crate; the blocks are walked here, because it would read a GNU long name or a PAX header of any size into memory.

use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// Most bytes of one PAX or GNU long name header.
const MAX_EXTENSION: u64 = 1 << 20;
/// Memory for a decoder's window: that of `xz -9` and `zstd --long=27`.
const MAX_WINDOW: u64 = 160 << 20;

/// One entry's header with its extensions applied.
#[derive(Debug, Default)]
pub(crate) struct ArchiveEntry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// The type flag, `b'0'` for a regular file.
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    pub atime: Option<(i64, u32)>,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
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
            let size = header.entry_size().map_err(|e| bad(format!("bad size in header: {e}")))?;
            let kind = header.as_bytes()[156];
            match kind {
                b'L' | b'K' | b'x' => {
                    let data = self.extension(size)?;
                    extensions.any = true;
                    match kind {
                        b'x' => extensions.pax(&data)?,
                        b'L' => extensions.long_path = Some(c_string(&data)),
                        _ => extensions.long_link = Some(c_string(&data)),
                    }
                }
                // Global headers are ignored (X3.75).
                b'g' => drop(self.extension(size)?),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, size: u64, extensions: Extensions) -> io::Result<ArchiveEntry> {
        let number = |what: &str, value: io::Result<u64>| value.map_err(|e| bad(format!("bad {what} in header: {e}")));
        let mut entry = ArchiveEntry {
            path: extensions.long_path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions
                .long_link
                .unwrap_or_else(|| header.link_name_bytes().map(|l| l.into_owned()).unwrap_or_default()),
            kind: header.as_bytes()[156],
            mode: header.mode().map_err(|e| bad(format!("bad mode in header: {e}")))? & 0o7777,
            uid: number("uid", header.uid())?,
            gid: number("gid", header.gid())?,
            mtime: (i64::try_from(number("mtime", header.mtime())?).unwrap_or(-1), 0),
            atime: None,
            device: (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            xattrs: Vec::new(),
        };
        let mut size = size;
        for (key, value) in extensions.pax {
            let text = || std::str::from_utf8(&value).unwrap_or_default();
            let int = || text().parse::<u64>().map_err(|_| bad(format!("bad PAX value {:?}", text())));
            match key.as_slice() {
                b"path" => entry.path = value,
                b"linkpath" => entry.link = value,
                b"size" => size = int()?,
                b"uid" => entry.uid = int()?,
                b"gid" => entry.gid = int()?,
                b"mtime" => entry.mtime = pax_time(text())?,
                b"atime" => entry.atime = Some(pax_time(text())?),
                key if key.starts_with(b"GNU.sparse.") => return Err(bad("sparse files are not supported")),
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        entry.xattrs.push((name.to_vec(), value));
                    }
                }
            }
        }
        if entry.kind == 0 {
            // Of old archives: a directory shows by its name only.
            entry.kind = if entry.path.ends_with(b"/") { b'5' } else { b'0' };
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(bad("a name contains a zero byte"));
        }
        // Whatever a header says, only regular files (and types unknown here) have data.
        let data = if matches!(entry.kind, b'1'..=b'6') { 0 } else { size };
        self.data = data;
        self.padding = data.wrapping_neg() % BLOCK as u64;
        Ok(entry)
    }

    /// A block that is a header; `None` at the end mark or the end of the input.
    fn header(&mut self) -> io::Result<Option<Header>> {
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
        let header = Header::from_byte_slice(&block);
        let stored = header.cksum().map_err(|_| bad("bad header checksum"))?;
        let sum = |signed: bool| -> i64 {
            let value = |(at, b): (usize, &u8)| match at {
                148..156 => i64::from(b' '),
                _ if signed => i64::from(b.cast_signed()),
                _ => i64::from(*b),
            };
            block.iter().enumerate().map(value).sum()
        };
        // Old writers summed signed bytes.
        if i64::from(stored) != sum(false) && i64::from(stored) != sum(true) {
            return Err(bad("bad header checksum"));
        }
        Ok(Some(header.clone()))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(bad(format!("extension header of {size} bytes")));
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

#[derive(Default)]
struct Extensions {
    any: bool,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extensions {
    /// Records `LENGTH KEY=VALUE\n`; a value may hold anything, so only the length tells where it ends.
    fn pax(&mut self, mut data: &[u8]) -> io::Result<()> {
        let broken = || bad("malformed PAX header");
        while !data.is_empty() {
            let blank = data.iter().position(|b| *b == b' ').ok_or_else(broken)?;
            let length: usize =
                std::str::from_utf8(&data[..blank]).ok().and_then(|t| t.parse().ok()).ok_or_else(broken)?;
            let record = data.get(blank + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.pax.retain(|(k, _)| k != key);
            // An empty value takes back what the header itself says nothing about either.
            if !value.is_empty() || key.starts_with(b"SCHILY.xattr.") {
                self.pax.push((key.to_vec(), value.to_vec()));
            }
            data = &data[length..];
        }
        Ok(())
    }
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

    #[test]
    fn extensions_are_bounded() {
        let mut header = Header::new_gnu();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(8 << 30);
        header.set_cksum();
        let input = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(0));
        assert!(Archive::new(input).next().unwrap_err().to_string().contains("extension header"));
    }
}
