//! The bytes of a file: a reflink where the file system has it, else copied inside the kernel, else through a buffer (X3.41).

use super::error::{Context, Error};
use super::stat;
use rustix::fd::BorrowedFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Below this, read and write are cheaper than asking for anything better.
const SMALL: u64 = 64 * 1024;
const BUFFER: usize = 128 * 1024;
/// Most that one `copy_file_range` call takes.
const MAX_RANGE: u64 = 0x7fff_f000;

/// Remembers which pairs of file systems (source, destination) know no reflink, and which no copy in the kernel, so that each is
/// tried once.
#[derive(Default)]
pub(crate) struct DataCopier {
    pairs: Mutex<HashMap<(u64, u64), Abilities>>,
}

#[derive(Clone, Copy)]
struct Abilities {
    reflink: bool,
    copy_range: bool,
}

pub(crate) struct Source<'a> {
    pub fd: BorrowedFd<'a>,
    pub path: &'a [u8],
    pub dev: u64,
    /// As seen when it was opened: what grows is cut there (X3.42).
    pub size: u64,
    /// In units of 512.
    pub blocks: u64,
}

pub(crate) struct Target<'a> {
    pub fd: BorrowedFd<'a>,
    pub path: &'a [u8],
}

impl DataCopier {
    /// Copies into an empty file; returns the number of bytes.
    pub fn copy(&self, source: &Source<'_>, target: &Target<'_>) -> Result<u64, Error> {
        if source.size == 0 {
            return Ok(0);
        }
        if source.size <= SMALL {
            return through_buffer(source, target, 0, source.size);
        }
        let pair = (source.dev, stat::of(target.fd).context("stat", target.path)?.dev);
        let known = Abilities { reflink: true, copy_range: true };
        let mut can = *self.pairs.lock().unwrap_or_else(PoisonError::into_inner).entry(pair).or_insert(known);
        let before = (can.reflink, can.copy_range);
        let copied = copy_large(source, target, &mut can);
        if before != (can.reflink, can.copy_range) {
            self.pairs.lock().unwrap_or_else(PoisonError::into_inner).insert(pair, can);
        }
        copied
    }
}

impl DataCopier {
    /// Copies through a buffer and gives the blake3 digest of what it wrote.
    pub fn copy_hashing(&self, source: &Source<'_>, target: &Target<'_>) -> Result<[u8; 32], Error> {
        let mut hasher = blake3::Hasher::new();
        if source.size > 0 {
            through_buffer_to(source, target, 0, source.size, &mut |data| {
                hasher.update(data);
            })?;
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

fn copy_large(source: &Source<'_>, target: &Target<'_>, can: &mut Abilities) -> Result<u64, Error> {
    if can.reflink {
        match rustix::fs::ioctl_ficlone(target.fd, source.fd) {
            Ok(()) => return Ok(source.size),
            Err(_) => can.reflink = false,
        }
    }
    if source.blocks.saturating_mul(512) >= source.size {
        return copy_range(source, target, 0, source.size, can);
    }
    // With holes: they stay holes, or a hostile sparse file would fill the disk.
    rustix::fs::ftruncate(target.fd, source.size).context("truncate", target.path)?;
    let mut at = 0;
    while at < source.size {
        let start = match rustix::fs::seek(source.fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let end = match rustix::fs::seek(source.fd, SeekFrom::Hole(start)) {
            Ok(end) => end.min(source.size),
            Err(_) => source.size,
        };
        if end <= start || copy_range(source, target, start, end, can)? < end - start {
            break;
        }
        at = end;
    }
    Ok(source.size)
}

fn copy_range(
    source: &Source<'_>,
    target: &Target<'_>,
    start: u64,
    end: u64,
    can: &mut Abilities,
) -> Result<u64, Error> {
    let (mut from, mut to) = (start, start);
    while can.copy_range && from < end {
        let length = usize::try_from((end - from).min(MAX_RANGE)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source.fd, Some(&mut from), target.fd, Some(&mut to), length) {
            // It shrank (X3.42), or the file system only pretends: reading tells.
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::XDEV | Errno::PERM | Errno::IO | Errno::OPNOTSUPP | Errno::INVAL)
                if from == start =>
            {
                can.copy_range = false
            }
            Err(errno) => return Err(Error::io("copy", target.path, errno)),
        }
    }
    Ok(from - start + through_buffer(source, target, from, end)?)
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Plain reads and writes at the same offsets; ends early where the source does.
fn through_buffer(source: &Source<'_>, target: &Target<'_>, start: u64, end: u64) -> Result<u64, Error> {
    through_buffer_to(source, target, start, end, &mut |_| ())
}

/// The same; `seen` is given all that is copied, in order.
fn through_buffer_to(
    source: &Source<'_>,
    target: &Target<'_>,
    start: u64,
    end: u64,
    seen: &mut dyn FnMut(&[u8]),
) -> Result<u64, Error> {
    SCRATCH.with_borrow_mut(|buffer| {
        let mut at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
            let got = match rustix::io::pread(source.fd, &mut buffer[..want], at) {
                Ok(0) => break,
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::io("read", source.path, errno)),
            };
            let mut rest = &buffer[..got];
            seen(rest);
            while !rest.is_empty() {
                match rustix::io::pwrite(target.fd, rest, at) {
                    Ok(0) => return Err(Error::io("write", target.path, Errno::IO)),
                    Ok(written) => {
                        rest = &rest[written..];
                        at += written as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(Error::io("write", target.path, errno)),
                }
            }
        }
        Ok(at - start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn copy(source: &File, target: &File, size: u64) -> u64 {
        let meta = source.metadata().unwrap();
        let from = Source { fd: source.as_fd(), path: b"s", dev: meta.dev(), size, blocks: meta.blocks() };
        let to = Target { fd: target.as_fd(), path: b"t" };
        DataCopier::default().copy(&from, &to).unwrap()
    }

    /// X3.41, X3.42: sizes around the buffer, cut at the size at open, shrunk since.
    #[test]
    fn copies_what_was_seen() {
        for (length, size) in
            [(0, 0), (1, 1), (65_537, 65_537), (400_000, 400_000), (400_000, 300_000), (100_000, 200_000)]
        {
            let mut source = tempfile::tempfile().unwrap();
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            source.write_all(&data).unwrap();
            let mut target = tempfile::tempfile().unwrap();
            copy(&source, &target, size);
            let mut got = Vec::new();
            target.rewind().unwrap();
            target.read_to_end(&mut got).unwrap();
            let want = &data[..data.len().min(usize::try_from(size).unwrap())];
            // A reflink takes all, and a size above the blocks looks sparse.
            assert!(
                got.starts_with(want) && got[want.len()..].iter().all(|b| *b == 0 || got == data),
                "{length} {size}"
            );
        }
    }

    #[test]
    fn holes_stay() {
        let source = tempfile::tempfile().unwrap();
        source.set_len(1 << 30).unwrap();
        source.write_all_at(b"middle", 512 << 20).unwrap();
        let target = tempfile::tempfile().unwrap();
        assert_eq!(copy(&source, &target, 1 << 30), 1 << 30);
        let meta = target.metadata().unwrap();
        assert_eq!(meta.len(), 1 << 30);
        assert!(meta.blocks() < 4096, "{} blocks", meta.blocks());
        let mut middle = [0; 6];
        target.read_exact_at(&mut middle, 512 << 20).unwrap();
        assert_eq!(&middle, b"middle");
    }
}
