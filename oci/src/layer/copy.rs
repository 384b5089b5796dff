//! Copying a merged tree into a user's directory (`--output type=local`).

use super::dir::{self, split};
use super::metadata::Target;
use super::resolve::remove;
use super::walk::Walk;
use super::{Change, ChangeKind, Error, Times, shown};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    pub files: u64,
    pub bytes: u64,
    /// Devices and fifos, which are left out.
    pub skipped: Vec<String>,
}

/// Copies everything under `root` into the directory `dest`, which is made if it is missing (spec R5.10.1, R5.10.2).
///
/// Regular files, directories and symlinks are copied, with modes and times; they belong to the caller. What is there
/// already is replaced, but a directory over a directory merges. Below `dest` no symlink is followed, be it an old one or
/// one just copied. The time of `dest` itself is left alone.
pub fn copy_tree(root: BorrowedFd<'_>, dest: &Path, times: Times) -> Result<CopySummary, Error> {
    let name = dest.as_os_str().as_encoded_bytes();
    std::fs::create_dir_all(dest).map_err(|e| Error::io("create directory", name, e))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dest = rustix::fs::openat(CWD, dest, flags, Mode::empty()).map_err(|e| Error::io("open directory", name, e))?;

    let changes = Walk { tree: root, lower: None, overlay: None, is_single: &|_| false }.changes()?;
    let mut copy = Copy { root, dest: dest.as_fd(), times, parent: None, summary: CopySummary::default() };
    let mut directories = Vec::new();
    for change in changes {
        let change = change?;
        copy.entry(&change)?;
        if change.kind == ChangeKind::Directory {
            directories.push(change);
        }
    }
    // A directory may forbid writing, and writing into it changes its time.
    for change in directories.iter().rev() {
        let (parent, name) = split(&change.path);
        let target = Target { dir: copy.parent(parent)?, name, path: &change.path };
        target.set_mode(change.mode)?;
        target.set_times(times.of_fine(change.mtime), None)?;
    }
    Ok(copy.summary)
}

struct Copy<'a> {
    root: BorrowedFd<'a>,
    dest: BorrowedFd<'a>,
    times: Times,
    /// The last directory in the destination.
    parent: Option<(Vec<u8>, OwnedFd)>,
    summary: CopySummary,
}

impl Copy<'_> {
    fn entry(&mut self, change: &Change) -> Result<(), Error> {
        let path = &change.path;
        let (parent, name) = split(path);
        let (root, dest) = (self.root, self.dest);
        let fail = |e: Errno| Error::io("create", path, e);
        let dir = self.parent(parent)?;
        let target = Target { dir, name, path };
        match &change.kind {
            ChangeKind::Directory => {
                match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
                    Err(Errno::EXIST) if dir::open_dir(dir, name).is_ok() => {}
                    Err(Errno::EXIST) => {
                        remove(dir, name).map_err(|e| Error::io("replace", path, e))?;
                        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).map_err(fail)?;
                    }
                    result => result.map_err(fail)?,
                }
                return target.set_mode(change.mode | 0o700);
            }
            ChangeKind::File { size } => {
                let mut from = dir::open_file(root, path).map_err(|e| Error::io("open", path, e))?;
                let mut to: File = replacing(dir, name, path, || {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
                })?
                .into();
                let copied = std::io::copy(&mut from, &mut to).map_err(|e| Error::io("copy", path, e))?;
                if copied != *size {
                    return Err(Error::SizeChanged { path: shown(path), expected: *size });
                }
                target.set_mode(change.mode)?;
                self.summary.bytes += copied;
            }
            ChangeKind::Symlink { target } => {
                replacing(dir, name, path, || rustix::fs::symlinkat(target.as_slice(), dir, name))?;
            }
            ChangeKind::HardLink { to } => {
                let (to_parent, to_name) = split(to);
                let to_dir = dir::open_dir(dest, to_parent).map_err(|e| Error::io("open directory", to_parent, e))?;
                replacing(dir, name, path, || {
                    match rustix::fs::linkat(&to_dir, to_name, dir, name, AtFlags::empty()) {
                        // The first name is of a device, which was left out.
                        Err(Errno::NOENT) => Ok(()),
                        result => result,
                    }
                })?;
                return Ok(());
            }
            ChangeKind::Device { .. } | ChangeKind::Fifo | ChangeKind::Whiteout => {
                self.summary.skipped.push(shown(path));
                return Ok(());
            }
        }
        let mtime = self.times.of_fine(change.mtime);
        Target { dir: self.parent(parent)?, name, path }.set_times(mtime, None)?;
        self.summary.files += 1;
        Ok(())
    }

    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        if self.parent.as_ref().is_none_or(|(open, _)| open != path) {
            let fd = dir::open_dir(self.dest, path).map_err(|e| Error::io("open directory", path, e))?;
            self.parent = Some((path.to_vec(), fd));
        }
        Ok(self.parent.as_ref().map_or(self.dest, |(_, fd)| fd.as_fd()))
    }
}

/// Runs `create`; if something is there already, removes that and runs it again.
fn replacing<T>(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    create: impl Fn() -> rustix::io::Result<T>,
) -> Result<T, Error> {
    match create() {
        Err(Errno::EXIST) => {
            remove(dir, name).map_err(|e| Error::io("replace", path, e))?;
            create().map_err(|e| Error::io("create", path, e))
        }
        result => result.map_err(|e| Error::io("create", path, e)),
    }
}
