//! Tar headers: ustar, with a PAX extended header in front only for what does not fit (spec X4.14 to X4.16).
//!
//! A layer's diff id is the digest of its tar, and two builders agree on it only if they write every byte alike, so
//! this follows Go's `archive/tar` in the places that POSIX leaves open:
//!
//! - A path over 100 bytes is split at a slash into prefix and name; only if that cannot be done, or if a byte is
//!   not ASCII, does it go into a record `path`. If a PAX header is written anyway, a long path goes into it too.
//! - With a PAX header, the ustar fields hold what fits: text without its non-ASCII bytes and cut, numbers or zero.
//! - Records are sorted by key; the PAX header's own name is `dir/PaxHeaders.0/base`.

use std::collections::BTreeMap;

pub const BLOCK: usize = 512;

/// Of the ustar fields `name` and `linkname`.
const NAME: usize = 100;
const PREFIX: usize = 155;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TypeFlag {
    Regular = b'0',
    Link = b'1',
    Symlink = b'2',
    Char = b'3',
    Block = b'4',
    Directory = b'5',
    Fifo = b'6',
    Pax = b'x',
}

/// One entry's header. User and group names stay empty: ids are what counts inside an image.
#[derive(Clone, Debug)]
pub struct Header<'a> {
    /// As it is to be stored: directories end in a slash.
    pub path: &'a [u8],
    pub link: &'a [u8],
    pub kind: TypeFlag,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    pub device: (u32, u32),
    /// Names without the `SCHILY.xattr.` that they get as PAX records.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
}

impl<'a> Header<'a> {
    pub fn new(path: &'a [u8], kind: TypeFlag) -> Self {
        Header { path, link: b"", kind, mode: 0, uid: 0, gid: 0, size: 0, mtime: 0, device: (0, 0), xattrs: &[] }
    }

    /// Appends the header, and the PAX header before it if one is needed, to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.pax_records() {
            Some(records) => {
                write_pax(self.path, &records, out);
                self.write_ustar(&ascii(self.path), b"", &ascii(self.link), out);
            }
            None => match split_path(self.path) {
                Some((prefix, name)) => self.write_ustar(name, prefix, self.link, out),
                None => self.write_ustar(self.path, b"", self.link, out),
            },
        }
    }

    /// The records of the PAX header; `None` if everything fits into ustar.
    fn pax_records(&self) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut records = BTreeMap::new();
        let mut needed = false;
        let mut put = |key: &[u8], value: Vec<u8>, forces: bool| {
            records.insert(key.to_vec(), value);
            needed |= forces;
        };
        if self.path.len() > NAME || !self.path.is_ascii() {
            put(b"path", self.path.to_vec(), split_path(self.path).is_none());
        }
        if self.link.len() > NAME || !self.link.is_ascii() {
            put(b"linkpath", self.link.to_vec(), true);
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if !fits_octal(8, id) {
                put(key, id.to_string().into_bytes(), true);
            }
        }
        if !fits_octal(12, self.size) {
            put(b"size", self.size.to_string().into_bytes(), true);
        }
        if !u64::try_from(self.mtime).is_ok_and(|mtime| fits_octal(12, mtime)) {
            put(b"mtime", self.mtime.to_string().into_bytes(), true);
        }
        for (name, value) in self.xattrs {
            put(&[b"SCHILY.xattr.", *name].concat(), value.to_vec(), true);
        }
        needed.then_some(records)
    }

    fn write_ustar(&self, name: &[u8], prefix: &[u8], link: &[u8], out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        put_text(&mut block[..100], name);
        put_octal(&mut block[100..108], self.mode.into());
        put_octal(&mut block[108..116], self.uid);
        put_octal(&mut block[116..124], self.gid);
        put_octal(&mut block[124..136], self.size);
        put_octal(&mut block[136..148], u64::try_from(self.mtime).unwrap_or(0));
        block[156] = self.kind as u8;
        put_text(&mut block[157..257], link);
        put_octal(&mut block[329..337], self.device.0.into());
        put_octal(&mut block[337..345], self.device.1.into());
        put_text(&mut block[345..500], prefix);
        finish(&mut block, out);
    }
}

/// How many zero bytes follow `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn write_pax(path: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    let mut data = Vec::new();
    for (key, value) in records {
        put_record(key, value, &mut data);
    }
    let (dir, base) = match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    let parts = [dir, b"PaxHeaders.0", base];
    let mut name = ascii(&parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'/'));
    name.truncate(NAME);
    while name.last() == Some(&b'/') {
        name.pop();
    }

    let mut block = [0; BLOCK];
    put_text(&mut block[..100], &name);
    for field in [100..108, 108..116, 116..124, 136..148] {
        put_octal(&mut block[field], 0);
    }
    put_octal(&mut block[124..136], data.len() as u64);
    block[156] = TypeFlag::Pax as u8;
    finish(&mut block, out);
    out.extend_from_slice(&data);
    out.resize(out.len() + padding(data.len() as u64), 0);
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn put_record(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Magic, version, checksum.
fn finish(block: &mut [u8; BLOCK], out: &mut Vec<u8>) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    put_octal(&mut block[148..155], sum);
    out.extend_from_slice(block);
}

/// Prefix and name of a path that is too long for the name field alone.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME || !path.is_ascii() {
        return None;
    }
    let end = match path.len() > PREFIX + 1 {
        true => PREFIX + 1,
        false => path.len() - usize::from(path.ends_with(b"/")),
    };
    let slash = path[..end].iter().rposition(|&b| b == b'/').filter(|&slash| slash > 0)?;
    let name = &path[slash + 1..];
    (!name.is_empty() && name.len() <= NAME && slash <= PREFIX).then_some((&path[..slash], name))
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// Whether a number fits a field of `width` bytes, the last of which is NUL.
fn fits_octal(width: usize, number: u64) -> bool {
    number < 1 << (3 * (width - 1))
}

fn put_octal(field: &mut [u8], number: u64) {
    let number = if fits_octal(field.len(), number) { number } else { 0 };
    let digits = field.len() - 1;
    for (place, digit) in field[..digits].iter_mut().rev().enumerate() {
        *digit = b'0' + (number >> (3 * place) & 7) as u8;
    }
    field[digits] = 0;
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    // Some readers take a regular file whose cut name happens to end in a slash for a directory.
    if text.len() > field.len() && field[len - 1] == b'/' {
        let end = field[..len - 1].iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}
