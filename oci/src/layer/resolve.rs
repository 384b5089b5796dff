//! Finding and making parent directories inside a tree that a hostile archive is being unpacked into.
//!
//! Paths are walked one component at a time, never following a symlink in the kernel: a symlink in the tree is read and
//! its target walked from the tree's root, and `..` is a step back in our own list. So nothing outside can be
//! reached, whatever the archive has put there, and dangling links lead to directories that are made inside.
//! The last directory stays open, and its ancestors for the next path that shares them.

use super::dir::{self, join, split};
use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As the kernel's own limit, but generous.
const MAX_LINKS: usize = 255;

/// How many of the innermost directories stay open.
const KEEP_OPEN: usize = 64;

pub struct Resolver<'a> {
    root: BorrowedFd<'a>,
    levels: Vec<Level>,
    /// The path that led to the last level, if no symlink was on the way.
    direct: bool,
    /// The last path asked for.
    last: Option<Vec<u8>>,
}

struct Level {
    name: Vec<u8>,
    fd: Option<OwnedFd>,
}

/// What stands where a directory is needed.
pub enum Obstacle {
    Nothing,
    /// A deletion that this very archive has brought.
    Whiteout,
}

impl<'a> Resolver<'a> {
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Resolver { root, levels: Vec::new(), direct: true, last: None }
    }

    /// Goes to the directory at `path`, which has no `.`, `..` or empty components. `make` is called where there is
    /// none yet, with the parent directory, the name, and the resolved path; it makes the directory or fails.
    pub fn enter<E: From<rustix::io::Errno>>(
        &mut self,
        path: &[u8],
        mut make: impl FnMut(BorrowedFd<'_>, &[u8], &[u8], Obstacle) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.last.as_deref() == Some(path) {
            return Ok(());
        }
        self.last = None;
        let mut queue: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        self.keep_common(&mut queue);
        let mut links = 0;
        while let Some(name) = queue.pop_front() {
            if name == b".." {
                self.levels.pop();
                self.reopen();
                continue;
            }
            let at = self.fd()?;
            match self.open(at, &name) {
                Ok(fd) => self.push(name, fd),
                Err(Errno::NOENT) => {
                    make(at, &name, &join(&self.path(), &name), Obstacle::Nothing)?;
                    let fd = self.open(at, &name)?;
                    self.push(name, fd);
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let c_name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
                    let stat = dir::stat(at, &c_name)?;
                    if is_whiteout(&stat) {
                        make(at, &name, &join(&self.path(), &name), Obstacle::Whiteout)?;
                        let fd = self.open(at, &name)?;
                        self.push(name, fd);
                        continue;
                    }
                    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Symlink {
                        return Err(Errno::NOTDIR.into());
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = dir::read_link(at, &c_name)?;
                    self.direct = false;
                    if target.starts_with(b"/") {
                        self.levels.clear();
                    }
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        queue.push_front(component.to_vec());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.last = Some(path.to_vec());
        Ok(())
    }

    /// The directory entered last.
    pub fn fd(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        match self.levels.last() {
            None => Ok(self.root),
            Some(level) => level.fd.as_ref().map(|fd| fd.as_fd()).ok_or(Errno::BADF),
        }
    }

    /// Its real path.
    pub fn path(&self) -> Vec<u8> {
        self.levels.iter().map(|level| level.name.as_slice()).collect::<Vec<_>>().join(&b'/')
    }

    /// To be called when a directory or symlink was removed: what is remembered may have led through it.
    /// The current directory stays the current one until the next [`enter`](Self::enter).
    pub fn forget(&mut self) {
        self.direct = false;
        self.last = None;
    }

    /// Stays in the ancestors that the last path and the next one have in common.
    fn keep_common(&mut self, queue: &mut VecDeque<Vec<u8>>) {
        let common = match self.direct {
            true => self.levels.iter().zip(queue.iter()).take_while(|(level, name)| level.name == **name).count(),
            false => 0,
        };
        self.levels.truncate(common);
        self.reopen();
        queue.drain(..self.levels.len());
        self.direct = true;
    }

    /// Deep down, only the innermost directories are open: this opens the last level again after a step back.
    fn reopen(&mut self) {
        if self.levels.last().is_some_and(|level| level.fd.is_none()) {
            let fd = dir::open_dir(self.root, &self.path()).ok();
            if let Some(level) = self.levels.last_mut() {
                level.fd = fd;
            }
        }
    }

    fn open(&self, at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    }

    fn push(&mut self, name: Vec<u8>, fd: OwnedFd) {
        self.levels.push(Level { name, fd: Some(fd) });
        if let Some(far) = self.levels.len().checked_sub(KEEP_OPEN + 1) {
            self.levels[far].fd = None;
        }
    }
}

/// A character device 0:0.
pub fn is_whiteout(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::CharacterDevice
        && (stat.stx_rdev_major, stat.stx_rdev_minor) == (0, 0)
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && part != b".")
}

/// A stored name without leading slash, `.`, `..` and doubled slashes; `..` does not lead above the root
/// (spec X4.34). Empty for the root itself.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in components(path) {
        match part {
            b".." => _ = kept.pop(),
            part => kept.push(part),
        }
    }
    kept.join(&b'/')
}

/// Removes what `name` is, with everything below. A tree is not descended into but flattened, directory by
/// directory: a hostile archive can make it deeper than a stack or the descriptors of a process allow.
pub fn remove(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    remove_while(at, name, &|| true)
}

/// The same, as far as `go_on` lets it: what is left can be removed later.
pub fn remove_while(at: BorrowedFd<'_>, name: &[u8], go_on: &dyn Fn() -> bool) -> rustix::io::Result<()> {
    use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
    match unlinkat(at, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let open = |at: BorrowedFd<'_>, name: &[u8]| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let tree = open(at, name)?;
    let mut counter = 0u64;
    loop {
        let names = dir::names(tree.as_fd())?;
        if names.is_empty() {
            return unlinkat(at, name, AtFlags::REMOVEDIR);
        }
        for name in names {
            if !go_on() {
                return Ok(());
            }
            match unlinkat(&tree, &name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => {}
                result => {
                    result?;
                    continue;
                }
            }
            let sub = open(tree.as_fd(), name.to_bytes())?;
            for inner in dir::names(sub.as_fd())? {
                if !go_on() {
                    return Ok(());
                }
                match unlinkat(&sub, &inner, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => loop {
                        counter += 1;
                        let flat = counter.to_string();
                        match renameat_with(&sub, &inner, &tree, flat, RenameFlags::NOREPLACE) {
                            Err(Errno::EXIST) => {}
                            result => break result?,
                        }
                    },
                    result => result?,
                }
            }
            drop(sub);
            unlinkat(&tree, &name, AtFlags::REMOVEDIR)?;
            // Listing starts anew from here on: names have moved.
        }
        rustix::fs::seek(&tree, rustix::fs::SeekFrom::Start(0))?;
    }
}

/// Parent path and last component of a cleaned path; `None` for the root.
pub fn parent_and_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    (!path.is_empty()).then(|| split(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        let table = [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a", "a"),
            ("../../a", "a"),
            ("a/../../b", "b"),
            ("/", ""),
            ("..", ""),
            ("a/..", ""),
            ("...", "..."),
        ];
        for (name, cleaned) in table {
            assert_eq!(clean(name.as_bytes()), cleaned.as_bytes(), "{name}");
        }
    }
}
