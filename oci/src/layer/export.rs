//! Copies a merged tree into a directory of the user's (R5.10.1, R5.10.2).

use super::error::Error;
use super::tar::open_file;
use super::{Change, ChangeKind, tree};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Copies directories, files and links with modes and times; owners become the caller's. Existing files are replaced; a symlink in the
/// destination is never followed, so a hostile tree cannot write outside of it. Device nodes are left out.
pub fn copy_tree(root: BorrowedFd, destination: BorrowedFd) -> Result<(), Error> {
    let entries = tree(root)?;
    for entry in &entries {
        let (directory, name) = parent(destination, &entry.path)?;
        copy(root, entry, &directory, &name)?;
    }
    for entry in entries.iter().rev().filter(|entry| entry.kind == ChangeKind::Directory) {
        let (directory, name) = parent(destination, &entry.path)?;
        set_times(&directory, &name, entry)?;
    }
    Ok(())
}

fn copy(root: BorrowedFd, entry: &Change, directory: &OwnedFd, name: &[u8]) -> Result<(), Error> {
    let path = &entry.path;
    let mode = Mode::from_raw_mode(entry.mode);
    let found = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(Error::file("look at", path)(errno)),
    };
    let keeps_directory = entry.kind == ChangeKind::Directory && found == Some(FileType::Directory);
    if found.is_some() && !keeps_directory {
        let flags = if found == Some(FileType::Directory) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(directory, name, flags).map_err(Error::file("replace", path))?;
    }
    match &entry.kind {
        ChangeKind::Directory => {
            if !keeps_directory {
                rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700))
                    .map_err(Error::file("make the directory", path))?;
            }
            rustix::fs::chmodat(directory, name, mode | Mode::RWXU, AtFlags::empty())
                .map_err(Error::file("set the mode of", path))
        }
        // Another name is a file like any other: a second copy is right on every destination.
        ChangeKind::File(_) | ChangeKind::HardLink(_) => {
            let mut source = open_file(root, path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
                .map_err(Error::file("create", path))?;
            let mut copy = File::from(copy);
            std::io::copy(&mut source, &mut copy).map_err(|source| Error::File {
                action: "copy",
                path: path.clone(),
                source,
            })?;
            rustix::fs::fchmod(&copy, mode).map_err(Error::file("set the mode of", path))?;
            set_times(directory, name, entry)
        }
        ChangeKind::Symlink(target) => {
            rustix::fs::symlinkat(target.as_slice(), directory, name).map_err(Error::file("make the link", path))?;
            set_times(directory, name, entry)
        }
        ChangeKind::Fifo | ChangeKind::Device { .. } | ChangeKind::Whiteout => Ok(()),
    }
}

fn set_times(directory: &OwnedFd, name: &[u8], entry: &Change) -> Result<(), Error> {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::file("set the time of", &entry.path))
}

/// The directory that holds `path`, reached without following links, and the name in it.
fn parent(destination: BorrowedFd, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd, name: &[u8]| {
        rustix::fs::openat(at, name, flags, Mode::empty()).map_err(Error::file("open the parent of", path))
    };
    let mut directory = open(destination, b".")?;
    let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let name = parts.pop().unwrap_or_default().to_owned();
    for part in parts {
        directory = open(directory.as_fd(), part)?;
    }
    Ok((directory, name))
}
