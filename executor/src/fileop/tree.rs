//! Writes copied entries: one source root at a time, its directories and files on all cores.

use super::CopySummary;
use super::data::{DataCopier, Source, Target};
use super::error::{Context, Error};
use super::metadata::Attributes;
use super::path::{join, parent_and_name, shown};
use super::resolve::{open_dir, open_dirs};
use super::select::{Filter, SourceRoot};
use super::stat::{self, Stat};
use super::walk::{Entry, Node, Visitor, walk};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A directory, a name in it, and the whole path for messages and for links.
pub(crate) type Place<'a> = (BorrowedFd<'a>, &'a [u8], &'a [u8]);

pub(crate) struct TreeCopy<'a> {
    destination: BorrowedFd<'a>,
    attributes: Attributes<'a>,
    /// Where a file with several names was first copied to, by device and inode (X3.35).
    links: Mutex<HashMap<(u64, u64), Arc<FirstCopy>>>,
    data: DataCopier,
    files: AtomicU64,
    bytes: AtomicU64,
}

/// Locked while it is being copied; then the path of the copy.
type FirstCopy = Mutex<Option<Vec<u8>>>;

/// The copy of a directory.
pub(crate) struct TargetDir {
    path: Vec<u8>,
    /// Not there yet for a directory that counts only if something below it does (X3.45).
    fd: OnceLock<OwnedFd>,
    making: Mutex<()>,
    is_root: bool,
}

impl<'a> TreeCopy<'a> {
    pub fn new(destination: BorrowedFd<'a>, attributes: Attributes<'a>) -> TreeCopy<'a> {
        TreeCopy {
            destination,
            attributes,
            links: Mutex::default(),
            data: DataCopier::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    pub fn summary(&self) -> CopySummary {
        CopySummary { files: self.files.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// Copies what a directory holds into one that is there (X3.13).
    pub fn directory(&self, root: &SourceRoot, filter: &Filter<'_>, dir: OwnedFd, path: Vec<u8>) -> Result<(), Error> {
        let target = TargetDir { path, fd: OnceLock::from(dir), making: Mutex::new(()), is_root: true };
        walk(self, filter, root.open_dir()?, &root.path, target)
    }

    /// Copies one entry that is no directory.
    pub fn entry(&self, from: Place<'_>, kind: FileType, to: Place<'_>) -> Result<(), Error> {
        match kind {
            FileType::RegularFile => self.file(from, to)?,
            FileType::Symlink => {
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                let target = rustix::fs::readlinkat(from.0, from.1, Vec::new()).context("readlink", from.2)?;
                replacing(to, || rustix::fs::symlinkat(&target, to.0, to.1), "symlink")?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
            }
            FileType::Socket => {
                // What it was bound to is gone: an empty file with the same permissions (X3.39).
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                create(to, stat.mode)?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                // Never opened (X6.40, X6.42).
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                let mode = Mode::from(stat.mode & 0o777);
                replacing(to, || rustix::fs::mknodat(to.0, to.1, stat.kind, mode, stat.rdev), "mknod")?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
            }
            _ => return Err(Error::Changed { path: shown(from.2) }),
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn file(&self, from: Place<'_>, to: Place<'_>) -> Result<(), Error> {
        let source = open_file(from.0, from.1, from.2)?;
        let stat = stat::of(&source).context("stat", from.2)?;
        if stat.kind != FileType::RegularFile {
            return Err(Error::Changed { path: shown(from.2) });
        }
        if stat.nlink < 2 {
            return self.file_data(source.as_fd(), &stat, from.2, to);
        }
        let first = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(links.entry((stat.dev, stat.ino)).or_default())
        };
        // Held while the first one is written, so that the others find all of it.
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.as_deref() {
            Some(path) => {
                let (parent, name) = parent_and_name(path);
                let parent = open_dirs(self.destination, parent)?;
                replacing(to, || rustix::fs::linkat(&parent, name, to.0, to.1, AtFlags::empty()), "link")
            }
            None => {
                self.file_data(source.as_fd(), &stat, from.2, to)?;
                *first = Some(to.2.to_vec());
                Ok(())
            }
        }
    }

    fn file_data(&self, source: BorrowedFd<'_>, stat: &Stat, path: &[u8], to: Place<'_>) -> Result<(), Error> {
        let target = create(to, self.attributes.mode_of(stat)?)?;
        let from = Source { fd: source, path, dev: stat.dev, size: stat.size, blocks: stat.blocks };
        let copied = self.data.copy(&from, &Target { fd: target.as_fd(), path: to.2 })?;
        self.bytes.fetch_add(copied, Ordering::Relaxed);
        if copied != stat.size {
            tracing::warn!(path = shown(path), "shrank while it was being copied");
        }
        self.attributes.apply(source, stat, target.as_fd(), to.2)
    }

    /// The copy of `node`, made now if it was not, with the parents that were put off.
    fn target<'n>(&self, node: &'n Node<TargetDir>) -> Result<BorrowedFd<'n>, Error> {
        if let Some(fd) = node.data.fd.get() {
            return Ok(fd.as_fd());
        }
        let mut missing = vec![node];
        let mut above = node.parent.as_deref();
        let mut fd = loop {
            match above {
                Some(dir) => match dir.data.fd.get() {
                    Some(fd) => break fd,
                    None => missing.push(dir),
                },
                // The root has one.
                None => return Err(Error::Changed { path: shown(&node.path) }),
            }
            above = above.and_then(|dir| dir.parent.as_deref());
        };
        for dir in missing.into_iter().rev() {
            let _making = dir.data.making.lock().unwrap_or_else(PoisonError::into_inner);
            if dir.data.fd.get().is_none() {
                let _ = dir.data.fd.set(make_dir(fd.as_fd(), &dir.name, &dir.data.path)?);
            }
            fd = dir.data.fd.get().unwrap_or(fd);
        }
        Ok(fd.as_fd())
    }
}

impl Visitor for TreeCopy<'_> {
    type Dir = TargetDir;

    fn enter(&self, parent: &Node<TargetDir>, name: &[u8], lazy: bool) -> Result<TargetDir, Error> {
        let path = join(&parent.data.path, name);
        let fd = OnceLock::new();
        if !lazy {
            let _ = fd.set(make_dir(self.target(parent)?, name, &path)?);
        }
        Ok(TargetDir { path, fd, making: Mutex::new(()), is_root: false })
    }

    fn entries(&self, dir: &Node<TargetDir>, entries: &[Entry]) -> Result<(), Error> {
        let target = self.target(dir)?;
        for Entry { name, kind } in entries {
            let (from, to) = (join(&dir.path, name), join(&dir.data.path, name));
            self.entry((dir.fd.as_fd(), name, &from), *kind, (target, name, &to))?;
        }
        Ok(())
    }

    /// Attributes of directories come last: writing below would change their times, and a mode may forbid to write.
    fn leave(&self, dir: &mut Node<TargetDir>) -> Result<(), Error> {
        let Some(target) = dir.data.fd.get() else { return Ok(()) };
        if dir.data.is_root {
            // Keeps its own mode and owner, or those of a made parent, but takes the times (X3.30, X3.31).
            return rustix::fs::futimens(target, &dir.stat.times()).context("utimes", &dir.data.path);
        }
        self.attributes.apply(dir.fd.as_fd(), &dir.stat, target.as_fd(), &dir.data.path)
    }
}

/// A directory in a copied tree: made, or there already, but no link to one (X3.23).
fn make_dir(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    match rustix::fs::mkdirat(parent, name, Mode::from(0o700)) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            if !stat::at(parent, name).context("stat", path)?.is_dir() {
                return Err(Error::NonDirectory { path: shown(path) });
            }
        }
        Err(errno) => return Err(Error::io("mkdir", path, errno)),
    }
    open_dir(parent, name, path)
}

/// A new, empty file.
pub(crate) fn create(to: Place<'_>, mode: u32) -> Result<OwnedFd, Error> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(to, || rustix::fs::openat(to.0, to.1, flags, Mode::from(mode & 0o777)), "open")
}

/// Makes an entry; one that is in the way is removed first, so that other names of it keep the old data (X3.22).
pub(crate) fn replacing<T>(
    to: Place<'_>,
    make: impl Fn() -> rustix::io::Result<T>,
    action: &'static str,
) -> Result<T, Error> {
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.context(action, to.2),
    }
    if stat::at(to.0, to.1).context("stat", to.2)?.is_dir() {
        return Err(Error::ReplaceDirectory { path: shown(to.2) });
    }
    rustix::fs::unlinkat(to.0, to.1, AtFlags::empty()).context("remove", to.2)?;
    make().context(action, to.2)
}

/// Opens a regular file for reading, without waiting for a fifo's other end if it has become one. Leaves its atime alone where
/// that is allowed: a build that only reads should not write an inode for each file.
pub(crate) fn open_file(dir: impl AsFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    let dir = dir.as_fd();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()).context("open", path),
        opened => opened.context("open", path),
    }
}
