//! Writing changes as a layer tar.

use super::dir::{self, split};
use super::header::{BLOCK, Header, TypeFlag, padding};
use super::{Change, ChangeKind, Error, Times, shown};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Clone, Copy, Debug, Default)]
pub struct TarOptions {
    pub times: Times,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TarSummary {
    pub entries: u64,
    /// Length of the whole tar.
    pub bytes: u64,
    /// Things a user may want to know of, one sentence each.
    pub warnings: Vec<String>,
}

/// Which xattrs go into the tar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Xattrs {
    /// `security.capability`, as found by the diff: the form of a layer (X4.18).
    Capability,
    /// All that the files have, but for overlayfs's own.
    All,
}

/// Writes the tar of a layer (spec X4.12 to X4.21): `changes` as [`super::diff`] lists them, file contents from `upper`.
///
/// An error among the changes ends it. Equal changes and contents give equal bytes. No changes give a tar of 1024 zero bytes.
pub fn write_tar(
    changes: impl IntoIterator<Item = Result<Change, Error>>,
    upper: BorrowedFd<'_>,
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    write([Ok(TreeEntries { folder: b"", tree: upper, entries: changes })], options, Xattrs::Capability, out)
}

/// Entries of a tar that are of one tree.
pub(super) struct TreeEntries<'a, I> {
    /// Where they lie in the tar: without slashes, empty for the top.
    pub folder: &'a [u8],
    /// Where the contents come from.
    pub tree: BorrowedFd<'a>,
    pub entries: I,
}

pub(super) fn write<'a, I: IntoIterator<Item = Result<Change, Error>>>(
    parts: impl IntoIterator<Item = Result<TreeEntries<'a, I>, Error>>,
    options: &TarOptions,
    xattrs: Xattrs,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    let mut summary = TarSummary::default();
    let mut out = Buffered::new(out);
    for part in parts {
        let TreeEntries { folder, tree, entries } = part?;
        let mut writer = TarWriter { out, folder, files: Files { tree, parent: None }, options, xattrs };
        if !folder.is_empty() {
            writer.folder()?;
            summary.entries += 1;
        }
        for change in entries {
            writer.entry(&change?, &mut summary)?;
            summary.entries += 1;
        }
        out = writer.out;
    }
    out.zeros(2 * BLOCK)?;
    summary.bytes = out.finish()?;
    Ok(summary)
}

struct TarWriter<'a, W> {
    out: Buffered<'a, W>,
    folder: &'a [u8],
    files: Files<'a>,
    options: &'a TarOptions,
    xattrs: Xattrs,
}

impl<W: Write> TarWriter<'_, W> {
    fn folder(&mut self) -> Result<(), Error> {
        let path = [self.folder, b"/"].concat();
        self.out.header(&Header {
            mode: 0o755,
            mtime: self.options.times.of(0),
            ..Header::new(&path, TypeFlag::Directory)
        })
    }

    /// A path as the tar has it.
    fn place(&self, path: &[u8]) -> Vec<u8> {
        if self.folder.is_empty() { path.to_vec() } else { dir::join(self.folder, path) }
    }

    fn entry(&mut self, change: &Change, summary: &mut TarSummary) -> Result<(), Error> {
        let (parent, base) = split(&change.path);
        let mut path = self.place(&change.path);
        let link;
        let mut header = Header::new(b"", TypeFlag::Regular);
        match &change.kind {
            ChangeKind::Directory => {
                path.push(b'/');
                header.kind = TypeFlag::Directory;
            }
            ChangeKind::File { size } => header.size = *size,
            ChangeKind::Symlink { target } => {
                header.kind = TypeFlag::Symlink;
                header.link = target;
            }
            ChangeKind::HardLink { to } => {
                header.kind = TypeFlag::Link;
                link = self.place(to);
                header.link = &link;
            }
            ChangeKind::Device { char, major, minor } => {
                header.kind = if *char { TypeFlag::Char } else { TypeFlag::Block };
                header.device = (*major, *minor);
            }
            ChangeKind::Fifo => header.kind = TypeFlag::Fifo,
            ChangeKind::Whiteout => path = self.place(&dir::join(parent, &[b".wh.", base].concat())),
        }
        header.path = &path;
        if change.kind != ChangeKind::Whiteout {
            header.mode = change.mode;
            header.uid = change.uid.into();
            header.gid = change.gid.into();
            header.mtime = self.options.times.of(change.mtime.0);
            if base.starts_with(b".wh.") {
                summary.warnings.push(format!(
                    "{} has the name of a whiteout: unpacking the layer will delete a file instead",
                    shown(&change.path)
                ));
            }
        }

        let all;
        let pairs: Vec<(&[u8], &[u8])> = match self.xattrs {
            Xattrs::Capability => {
                change.capability.iter().map(|value| (&b"security.capability"[..], value.as_slice())).collect()
            }
            Xattrs::All => {
                all = self.files.xattrs(&change.path)?;
                all.iter().map(|(name, value)| (name.to_bytes(), value.as_slice())).collect()
            }
        };
        header.xattrs = &pairs;
        self.out.header(&header)?;
        if let ChangeKind::File { size } = change.kind {
            if size > 0 {
                let file = self.files.open(&change.path)?;
                self.out.copy(file, size, &change.path)?;
            }
            self.out.zeros(padding(size))?;
        }
        Ok(())
    }
}

/// The files of a tree, which are asked for in the order of the walk: the last parent directory stays open.
struct Files<'a> {
    tree: BorrowedFd<'a>,
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Files<'_> {
    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != path) {
            let fd = dir::open_dir(self.tree, path).map_err(|e| Error::io("open directory", path, e))?;
            self.parent = Some((path.to_vec(), fd));
        }
        Ok(self.parent.as_ref().map_or(self.tree, |(_, fd)| fd.as_fd()))
    }

    fn open(&mut self, path: &[u8]) -> Result<File, Error> {
        let (parent, name) = split(path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(self.parent(parent)?, name, flags, Mode::empty());
        Ok(file.map_err(|e| Error::io("open", path, e))?.into())
    }

    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<(std::ffi::CString, Vec<u8>)>, Error> {
        let (parent, name) = split(path);
        let mut xattrs =
            dir::xattrs(self.parent(parent)?, name).map_err(|e| Error::io("read the xattrs of", path, e))?;
        xattrs.retain(|(name, _)| !dir::is_overlay_mark(name.to_bytes()));
        Ok(xattrs)
    }
}

/// Collects headers and small files into large writes.
struct Buffered<'a, W> {
    out: &'a mut W,
    block: Vec<u8>,
    written: u64,
}

const BUFFER: usize = 256 * 1024;

impl<'a, W: Write> Buffered<'a, W> {
    fn new(out: &'a mut W) -> Self {
        Buffered { out, block: Vec::new(), written: 0 }
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), Error> {
        header.write(&mut self.block);
        self.flush_if_full()
    }

    fn zeros(&mut self, count: usize) -> Result<(), Error> {
        self.block.resize(self.block.len() + count, 0);
        self.flush_if_full()
    }

    /// Copies a file of `size` bytes. Asking for one byte more than is expected shows growth without a further read.
    fn copy(&mut self, mut file: File, size: u64, path: &[u8]) -> Result<(), Error> {
        let changed = || Error::SizeChanged { path: shown(path), expected: size };
        let mut left = size;
        let mut at_end = false;
        while !at_end {
            self.flush_if_full()?;
            let start = self.block.len();
            let want = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1).min(BUFFER - start);
            self.block.resize(start + want, 0);
            let read = match file.read(&mut self.block[start..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => 0,
                result => {
                    let read = result.map_err(|e| Error::io("read", path, e))?;
                    at_end = read == 0 || (read as u64 == left && read < want);
                    read
                }
            };
            self.block.truncate(start + read);
            left = left.checked_sub(read as u64).ok_or_else(changed)?;
        }
        if left > 0 { Err(changed()) } else { Ok(()) }
    }

    fn flush_if_full(&mut self) -> Result<(), Error> {
        if self.block.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.out.write_all(&self.block).map_err(Error::Output)?;
        self.written += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        Ok(self.written)
    }
}
