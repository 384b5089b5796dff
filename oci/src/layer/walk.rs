//! The sorted walk that finds what a layer holds.
//!
//! Directories are scanned breadth first, those of one depth in parallel, and each is opened by its path from the
//! root: so the number of open descriptors is that of the threads, not of the tree's depth, and a tree that a hostile
//! step made a hundred thousand levels deep needs no stack. The results are put into depth-first order afterwards,
//! and only then is it known which directories hold a change (spec X4.10) and which of several links comes first.

use super::dir::{self, join};
use super::{Change, ChangeKind, Error, shown};
use rayon::prelude::*;
use rustix::fs::{FileType, OFlags, Statx};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

const OPAQUE: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
const REDIRECT: [&CStr; 2] = [c"trusted.overlay.redirect", c"user.overlay.redirect"];

/// From how many directories of one depth on it pays to wake other threads.
const PARALLEL_FROM: usize = 12;

/// What is walked, and against what it is compared.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub tree: BorrowedFd<'a>,
    /// The merged tree below; entries that are equal to its are left out.
    pub lower: Option<BorrowedFd<'a>>,
    /// Whether overlayfs marks (whiteouts, opaque directories) have their meaning or are plain entries.
    pub overlay: bool,
}

/// A directory still to be scanned.
struct Pending {
    path: Vec<u8>,
    /// The same path is a directory below.
    lower: bool,
    /// Overlayfs shows nothing of the lower directory here: what is absent from the upper one is deleted.
    opaque: bool,
}

enum Item {
    Entry(Change, Option<Inode>),
    Directory {
        change: Change,
        modified: bool,
        /// Index of its contents in the list of scanned directories, known once the next depth is queued.
        contents: usize,
    },
}

type Inode = (u32, u32, u64);

struct Scanned {
    items: Vec<Item>,
    pending: Vec<Pending>,
}

impl Walk<'_> {
    /// All changes, depth first, names of a directory in byte order.
    pub fn changes(&self) -> Result<Vec<Change>, Error> {
        let mut directories: Vec<Vec<Item>> = Vec::new();
        let mut depth = vec![Pending { path: Vec::new(), lower: self.lower.is_some(), opaque: false }];
        while !depth.is_empty() {
            let scanned: Vec<Scanned> = match depth.len() >= PARALLEL_FROM {
                true => depth.par_iter().map(|pending| self.scan(pending)).collect::<Result<_, _>>()?,
                false => depth.iter().map(|pending| self.scan(pending)).collect::<Result<_, _>>()?,
            };
            let mut next = Vec::new();
            let first_of_next = directories.len() + scanned.len();
            for mut scanned in scanned {
                let mut index = first_of_next + next.len();
                for item in &mut scanned.items {
                    if let Item::Directory { contents, .. } = item {
                        *contents = index;
                        index += 1;
                    }
                }
                next.append(&mut scanned.pending);
                directories.push(scanned.items);
            }
            depth = next;
        }
        Ok(in_order(directories))
    }

    fn scan(&self, pending: &Pending) -> Result<Scanned, Error> {
        let path = &pending.path;
        let dir = dir::open_dir(self.tree, path).map_err(|e| Error::io("open directory", path, e))?;
        let dir = dir.as_fd();
        let lower = match self.lower {
            Some(lower) if pending.lower => {
                Some(dir::open_dir(lower, path).map_err(|e| Error::io("open lower directory", path, e))?)
            }
            _ => None,
        };
        let lower = lower.as_ref().map(|lower| lower.as_fd());
        let opaque = pending.opaque || self.overlay && self.read_marks(dir, path)?;

        let mut names = dir::names(dir).map_err(|e| Error::io("list directory", path, e))?;
        if let (true, Some(lower)) = (opaque, lower) {
            names.extend(dir::names(lower).map_err(|e| Error::io("list lower directory", path, e))?);
            names.sort_unstable();
            names.dedup();
        }

        let mut scanned = Scanned { items: Vec::with_capacity(names.len()), pending: Vec::new() };
        for name in names {
            let below = match lower {
                Some(lower) => dir::stat_if_exists(lower, &name)
                    .map_err(|e| Error::io("stat lower", &join(path, name.to_bytes()), e))?,
                None => None,
            };
            self.entry(Place { dir, lower, path, name: &name }, below, opaque, &mut scanned)?;
        }
        Ok(scanned)
    }

    /// Looks at one name, which exists in the tree, or below, or both.
    fn entry(&self, place: Place<'_>, below: Option<Statx>, opaque: bool, scanned: &mut Scanned) -> Result<(), Error> {
        let path = join(place.path, place.name.to_bytes());
        let here = dir::stat_if_exists(place.dir, place.name).map_err(|e| Error::io("stat", &path, e))?;
        let Some(here) = here else {
            // Hidden by an opaque parent (X4.4), or gone since it was listed.
            if below.is_some() {
                scanned.items.push(Item::Entry(whiteout(path), None));
            }
            return Ok(());
        };
        let kind = match FileType::from_raw_mode(here.stx_mode.into()) {
            FileType::Directory => {
                let lower = below.is_some_and(|below| is_directory(&below));
                let modified = below.is_none_or(|below| !same_metadata(&here, &below));
                let change = change(path.clone(), ChangeKind::Directory, &here, None);
                scanned.items.push(Item::Directory { change, modified, contents: 0 });
                scanned.pending.push(Pending { path, lower, opaque: opaque && lower });
                return Ok(());
            }
            FileType::CharacterDevice if self.overlay && (here.stx_rdev_major, here.stx_rdev_minor) == (0, 0) => {
                if below.is_some() {
                    scanned.items.push(Item::Entry(whiteout(path), None));
                }
                return Ok(());
            }
            FileType::RegularFile => ChangeKind::File { size: here.stx_size },
            FileType::Symlink => {
                let target = dir::read_link(place.dir, place.name).map_err(|e| Error::io("read symlink", &path, e))?;
                ChangeKind::Symlink { target }
            }
            file_type @ (FileType::CharacterDevice | FileType::BlockDevice) => ChangeKind::Device {
                char: file_type == FileType::CharacterDevice,
                major: here.stx_rdev_major,
                minor: here.stx_rdev_minor,
            },
            FileType::Fifo => ChangeKind::Fifo,
            // A socket means nothing without the process that listened on it (X4.11).
            _ => return Ok(()),
        };
        let capability = match kind {
            ChangeKind::File { .. } => capability(place.dir, place.name, &path)?,
            _ => None,
        };
        let change = change(path, kind, &here, capability);
        if let (Some(below), Some(lower)) = (below, place.lower)
            && is_equal(&change, &here, &below, place, lower)?
        {
            return Ok(());
        }
        let inode = (here.stx_nlink > 1).then_some((here.stx_dev_major, here.stx_dev_minor, here.stx_ino));
        scanned.items.push(Item::Entry(change, inode));
        Ok(())
    }

    /// Whether overlayfs marked this directory as opaque (X4.5). A redirected one cannot be compared by path (X4.6).
    fn read_marks(&self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Error> {
        let fail = |e| Error::io("read the xattrs of directory", path, e);
        let mut opaque = false;
        for name in dir::fd_xattr_names(dir).map_err(fail)? {
            if REDIRECT.contains(&name.as_c_str()) {
                return Err(Error::Redirected { path: shown(path) });
            }
            if OPAQUE.contains(&name.as_c_str()) {
                opaque |= dir::fd_xattr(dir, &name).map_err(fail)?.as_deref() == Some(b"y");
            }
        }
        Ok(opaque)
    }
}

/// Where an entry lies: a name in an open directory, and the directory of the same path below.
#[derive(Clone, Copy)]
struct Place<'a> {
    dir: BorrowedFd<'a>,
    lower: Option<BorrowedFd<'a>>,
    path: &'a [u8],
    name: &'a CString,
}

fn change(path: Vec<u8>, kind: ChangeKind, stat: &Statx, capability: Option<Vec<u8>>) -> Change {
    Change {
        path,
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        capability,
    }
}

/// X4.3: no metadata, and the same time always.
fn whiteout(path: Vec<u8>) -> Change {
    Change { path, kind: ChangeKind::Whiteout, mode: 0, uid: 0, gid: 0, mtime: (0, 0), capability: None }
}

fn is_directory(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
}

fn capability(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    dir::xattr(dir, name, c"security.capability").map_err(|e| Error::io("read the capabilities of", path, e))
}

fn same_metadata(a: &Statx, b: &Statx) -> bool {
    let key = |s: &Statx| (s.stx_mode, s.stx_uid, s.stx_gid, s.stx_rdev_major, s.stx_rdev_minor);
    key(a) == key(b)
}

/// The rule for "not modified" (X4.7) for what is not a directory: a file that was copied up but is as before is no
/// change. Times decide; where both have no nanoseconds they may have been truncated by a tar, and contents decide.
fn is_equal(
    change: &Change,
    here: &Statx,
    below: &Statx,
    place: Place<'_>,
    lower: BorrowedFd<'_>,
) -> Result<bool, Error> {
    let time = |s: &Statx| (s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec);
    if !same_metadata(here, below) || here.stx_size != below.stx_size || time(here) != time(below) {
        return Ok(false);
    }
    let is_file = matches!(change.kind, ChangeKind::File { .. });
    if is_file && capability(lower, place.name, &change.path)? != change.capability {
        return Ok(false);
    }
    if here.stx_mtime.tv_nsec != 0 || here.stx_size == 0 {
        return Ok(true);
    }
    match &change.kind {
        ChangeKind::File { .. } => same_contents(place, lower, &change.path),
        ChangeKind::Symlink { target } => {
            let other = dir::read_link(lower, place.name).map_err(|e| Error::io("read symlink", &change.path, e))?;
            Ok(*target == other)
        }
        _ => Ok(true),
    }
}

fn same_contents(place: Place<'_>, lower: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Error> {
    let fail = |e: std::io::Error| Error::io("compare", path, e);
    let open = |dir| -> Result<std::fs::File, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(dir, place.name, flags, rustix::fs::Mode::empty()).map_err(|e| fail(e.into()))?;
        Ok(fd.into())
    };
    let (mut a, mut b) = (open(place.dir)?, open(lower)?);
    let (mut block_a, mut block_b) = (Vec::new(), Vec::new());
    loop {
        block_a.clear();
        block_b.clear();
        a.by_ref().take(BLOCK).read_to_end(&mut block_a).map_err(fail)?;
        b.by_ref().take(BLOCK).read_to_end(&mut block_b).map_err(fail)?;
        if block_a != block_b {
            return Ok(false);
        }
        if block_a.is_empty() {
            return Ok(true);
        }
    }
}

const BLOCK: u64 = 64 * 1024;

/// Depth-first order, without the directories that neither changed nor hold a change, and with the second and
/// further names of an inode turned into links to the first (X4.12).
fn in_order(mut directories: Vec<Vec<Item>>) -> Vec<Change> {
    // Contents come after their directory in the list: backwards, every child is known before its parent.
    let mut has_changes = vec![false; directories.len()];
    for index in (0..directories.len()).rev() {
        has_changes[index] = directories[index].iter().any(|item| match item {
            Item::Entry(..) => true,
            Item::Directory { modified, contents, .. } => *modified || has_changes[*contents],
        });
    }

    let mut changes = Vec::new();
    let mut first_names: HashMap<Inode, Vec<u8>> = HashMap::new();
    let mut open: Vec<std::vec::IntoIter<Item>> = Vec::new();
    open.extend(directories.first_mut().map(|root| std::mem::take(root).into_iter()));
    while let Some(items) = open.last_mut() {
        match items.next() {
            None => {
                open.pop();
            }
            Some(Item::Directory { change, modified, contents }) => {
                if modified || has_changes[contents] {
                    changes.push(change);
                    open.push(std::mem::take(&mut directories[contents]).into_iter());
                }
            }
            Some(Item::Entry(mut change, inode)) => {
                if let Some(inode) = inode {
                    match first_names.get(&inode) {
                        Some(first) => change.kind = ChangeKind::HardLink { to: first.clone() },
                        None => {
                            first_names.insert(inode, change.path.clone());
                        }
                    }
                }
                changes.push(change);
            }
        }
    }
    changes
}
