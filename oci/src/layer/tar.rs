//! Writes a layer's tar: ustar headers, and a PAX record only for what does not fit (X4.12 to X4.18). The bytes depend on the
//! changes alone.

use super::error::Error;
use super::{Change, ChangeKind};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

const BLOCK: usize = 512;
/// The largest numbers that ustar's octal fields hold.
const MAX_ID: u32 = 0o7777777;
const MAX_SIZE: u64 = 0o77777777777;

#[derive(Clone, Copy, Debug, Default)]
pub struct TarOptions {
    /// Later times become this one (SOURCE_DATE_EPOCH with `rewrite-timestamp`, X4.24). Seconds since 1970.
    pub clamp_mtime: Option<i64>,
}

/// Writes `changes`, whose files lie in `upper`.
pub fn write_tar(
    changes: &[Change],
    upper: BorrowedFd,
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<(), Error> {
    let mut buffer = vec![0; 128 * 1024];
    for change in changes {
        write_header(change, options, out)?;
        if let ChangeKind::File(size) = change.kind {
            write_body(change, size, upper, &mut buffer, out)?;
        }
    }
    out.write_all(&[0; 2 * BLOCK]).map_err(Error::Write)
}

fn write_body(
    change: &Change,
    size: u64,
    upper: BorrowedFd,
    buffer: &mut [u8],
    out: &mut impl Write,
) -> Result<(), Error> {
    if size == 0 {
        return Ok(());
    }
    let mut file = open_file(upper, &change.path)?;
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read(&mut buffer[..wanted]).map_err(|source| Error::File {
            action: "read",
            path: change.path.clone(),
            source,
        })?;
        if read == 0 {
            return Err(Error::FileChanged(change.path.clone()));
        }
        out.write_all(&buffer[..read]).map_err(Error::Write)?;
        left -= read as u64;
    }
    out.write_all(&[0; BLOCK][..padding(size)]).map_err(Error::Write)
}

/// Opens a file of a layer for reading; a fifo or a link in its place is an error, never followed.
pub(super) fn open_file(root: BorrowedFd, path: &[u8]) -> Result<File, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(Error::file("open", path))?;
    Ok(File::from(file))
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn write_header(change: &Change, options: &TarOptions, out: &mut impl Write) -> Result<(), Error> {
    let mut name = change.path.clone();
    if change.kind == ChangeKind::Directory {
        name.push(b'/');
    }
    if change.kind == ChangeKind::Whiteout {
        let at = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        name.splice(at..at, *b".wh.");
    }
    let (kind, link, size, device) = match &change.kind {
        ChangeKind::File(size) => (b'0', &[][..], *size, (0, 0)),
        ChangeKind::Whiteout => (b'0', &[][..], 0, (0, 0)),
        ChangeKind::HardLink(first) => (b'1', first.as_slice(), 0, (0, 0)),
        ChangeKind::Symlink(target) => (b'2', target.as_slice(), 0, (0, 0)),
        ChangeKind::Device { block: false, major, minor } => (b'3', &[][..], 0, (*major, *minor)),
        ChangeKind::Device { block: true, major, minor } => (b'4', &[][..], 0, (*major, *minor)),
        ChangeKind::Directory => (b'5', &[][..], 0, (0, 0)),
        ChangeKind::Fifo => (b'6', &[][..], 0, (0, 0)),
    };
    let mtime = match (change.kind == ChangeKind::Whiteout, options.clamp_mtime) {
        (true, _) => 0,
        (false, Some(latest)) => change.mtime.0.min(latest),
        (false, None) => change.mtime.0,
    };
    let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let (prefix, short_name) = split_name(&name).unwrap_or_else(|| {
        records.insert(b"path".to_vec(), name.clone());
        (Vec::new(), ascii(&name, 100))
    });
    let short_link = if link.len() <= 100 && link.is_ascii() {
        link.to_vec()
    } else {
        records.insert(b"linkpath".to_vec(), link.to_vec());
        ascii(link, 100)
    };
    let fits = |number: u64, most: u64, key: &str, records: &mut BTreeMap<_, _>| match number <= most {
        true => number,
        false => {
            records.insert(key.as_bytes().to_vec(), number.to_string().into_bytes());
            0
        }
    };
    let uid = fits(change.uid.into(), MAX_ID.into(), "uid", &mut records);
    let gid = fits(change.gid.into(), MAX_ID.into(), "gid", &mut records);
    let size = fits(size, MAX_SIZE, "size", &mut records);
    let mtime = match u64::try_from(mtime) {
        Ok(mtime) => fits(mtime, MAX_SIZE, "mtime", &mut records),
        Err(_) => {
            records.insert(b"mtime".to_vec(), mtime.to_string().into_bytes());
            0
        }
    };
    for (attribute, value) in &change.xattrs {
        records.insert([b"SCHILY.xattr.", attribute.as_slice()].concat(), value.clone());
    }
    if !records.is_empty() {
        write_records(&name, &records, out)?;
    }
    let header =
        Header { prefix, name: short_name, mode: change.mode, uid, gid, size, mtime, kind, link: short_link, device };
    out.write_all(&header.bytes()).map_err(Error::Write)
}

/// A PAX header in front of an entry.
fn write_records(name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut impl Write) -> Result<(), Error> {
    let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let at = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let shown = [&trimmed[..at], b"PaxHeaders.0/", &trimmed[at..]].concat();
    let header = Header {
        prefix: Vec::new(),
        name: ascii(&shown, 100),
        mode: 0,
        uid: 0,
        gid: 0,
        size: body.len() as u64,
        mtime: 0,
        kind: b'x',
        link: Vec::new(),
        device: (0, 0),
    };
    out.write_all(&header.bytes()).map_err(Error::Write)?;
    out.write_all(&body).map_err(Error::Write)?;
    out.write_all(&[0; BLOCK][..padding(body.len() as u64)]).map_err(Error::Write)
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Splits a name that does not fit into the prefix and name fields; `None` if it cannot be, or is not ASCII.
fn split_name(name: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((Vec::new(), name.to_vec()));
    }
    let last = name.len().saturating_sub(2).min(155);
    let slash = name[..=last].iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0)?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= 100 && !rest.is_empty()).then(|| (prefix.to_vec(), rest.to_vec()))
}

/// What of a name the header field shows beside a PAX record.
fn ascii(name: &[u8], most: usize) -> Vec<u8> {
    name.iter().copied().filter(u8::is_ascii).take(most).collect()
}

struct Header {
    prefix: Vec<u8>,
    name: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    kind: u8,
    link: Vec<u8>,
    device: (u32, u32),
}

impl Header {
    fn bytes(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", self.uid).as_bytes());
        put(116, format!("{:07o}", self.gid).as_bytes());
        put(124, format!("{:011o}", self.size).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        put(345, &self.prefix);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}
