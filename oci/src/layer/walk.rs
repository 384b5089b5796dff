//! The sorted walk that finds what a layer holds.
//!
//! Changes come one by one, depth first, so that what is held in memory are the directories on the way and some that were scanned
//! ahead, never the whole tree. The next subdirectories are scanned in parallel. Each is opened by its path from the root: so the
//! number of open descriptors is that of the threads, not of the tree's depth, and a tree that a hostile step made a
//! hundred thousand levels deep needs no stack. A directory that did not change itself is held back until something below it is known to
//! have changed (spec X4.10).

use super::attributes::{self, Attributes};
use super::dir::{self, join};
use super::{Change, ChangeKind, Error, shown};
use rayon::prelude::*;
use rustix::fs::{FileType, OFlags, Statx};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// The extended attributes in which overlayfs keeps what it knows of directories. Those of the other kind are a step's own and mean nothing: where
/// the kernel uses `trusted`, which only root of the machine may write, every step may write `user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// `trusted.overlay.*`
    Trusted,
    /// `user.overlay.*`, with the mount option `userxattr`. The kernel gives a step's own another name.
    User,
}

impl Marks {
    pub(super) fn opaque(self) -> &'static CStr {
        match self {
            Marks::Trusted => c"trusted.overlay.opaque",
            Marks::User => c"user.overlay.opaque",
        }
    }

    fn redirect(self) -> &'static CStr {
        match self {
            Marks::Trusted => c"trusted.overlay.redirect",
            Marks::User => c"user.overlay.redirect",
        }
    }
}

/// From how many directories on it pays to wake other threads.
const PARALLEL_FROM: usize = 4;
/// How many subdirectories of a directory are scanned ahead.
const AHEAD: usize = 64;

/// What is walked, and against what it is compared.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub tree: BorrowedFd<'a>,
    /// The merged tree below; entries that are equal to its are left out.
    pub lower: Option<BorrowedFd<'a>>,
    /// The overlayfs marks (with them, whiteouts and opaque directories) that have a meaning; without, all are plain entries.
    pub overlay: Option<Marks>,
    /// Says of files that they have one name only in this tree, whatever their link count: others may be in other layers. Those
    /// need not be remembered.
    pub is_single: &'a (dyn Fn(&[u8]) -> bool + Sync),
}

/// A directory still to be scanned.
#[derive(Clone)]
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
        contents: Pending,
    },
    /// Of an entry, whether it is a change or not: [`Attributes::others`](super::attributes::Attributes).
    Attributes([u8; 32]),
}

type Inode = (u32, u32, u64);

/// What lies in a directory, names in byte order.
type Scanned = Vec<Item>;

/// The changes of a walk, depth first, names of a directory in byte order. Ends after an error.
pub struct Changes<'a> {
    walk: Walk<'a>,
    /// From the root to where the walk is.
    frames: Vec<Frame>,
    /// The first frame whose directory has not been given out yet, though it may have to be; all above it are the same.
    held_from: usize,
    /// Where a file with several names was met first (X4.12).
    first_names: HashMap<Inode, Box<[u8]>>,
    ready: VecDeque<Change>,
    attributes: Option<blake3::Hasher>,
}

/// A directory that the walk is in.
struct Frame {
    items: std::vec::IntoIter<Item>,
    /// Of the next subdirectories, in order.
    ahead: VecDeque<Scanned>,
    /// The directory itself, as long as nothing in it is known to have changed.
    held: Option<Change>,
}

impl Frame {
    fn new(items: Scanned, held: Option<Change>) -> Frame {
        Frame { items: items.into_iter(), ahead: VecDeque::new(), held }
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<Change, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            match self.frames.last_mut()?.items.next() {
                None => {
                    self.frames.pop();
                    self.held_from = self.held_from.min(self.frames.len());
                }
                Some(Item::Entry(mut change, inode)) => {
                    if let Some(inode) = inode {
                        match self.first_names.get(&inode) {
                            Some(first) => change.kind = ChangeKind::HardLink { to: first.to_vec() },
                            None => {
                                self.first_names.insert(inode, change.path.as_slice().into());
                            }
                        }
                    }
                    self.release();
                    self.ready.push_back(change);
                }
                Some(Item::Attributes(digest)) => {
                    self.attributes.get_or_insert_default().update(&digest);
                }
                Some(Item::Directory { change, modified, contents }) => match self.contents(contents) {
                    Ok(items) if modified => {
                        self.release();
                        self.ready.push_back(change);
                        self.frames.push(Frame::new(items, None));
                        self.held_from = self.frames.len();
                    }
                    Ok(items) => self.frames.push(Frame::new(items, Some(change))),
                    Err(error) => {
                        self.frames.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

impl Changes<'_> {
    /// A digest of the extended attributes that are no part of a layer and that steps see all the same; once all changes have come.
    pub fn other_attributes(&self) -> Option<[u8; 32]> {
        self.attributes.as_ref().map(|hasher| hasher.finalize().into())
    }

    /// Something changed here: so the directories that lead to it are listed.
    fn release(&mut self) {
        let held = self.frames[self.held_from..].iter_mut().filter_map(|frame| frame.held.take());
        self.ready.extend(held);
        self.held_from = self.frames.len();
    }

    /// What lies in the subdirectory that the walk has come to; scans the next ones with it.
    fn contents(&mut self, first: Pending) -> Result<Scanned, Error> {
        let Some(frame) = self.frames.last_mut() else { return Ok(Vec::new()) };
        if let Some(scanned) = frame.ahead.pop_front() {
            return Ok(scanned);
        }
        let following = frame.items.as_slice().iter().filter_map(|item| match item {
            Item::Directory { contents, .. } => Some(contents.clone()),
            Item::Entry(..) | Item::Attributes(_) => None,
        });
        let pending: Vec<Pending> = std::iter::once(first).chain(following.take(AHEAD - 1)).collect();
        frame.ahead = match pending.len() >= PARALLEL_FROM {
            true => pending.par_iter().map(|pending| self.walk.scan(pending)).collect::<Result<Vec<_>, _>>()?.into(),
            false => pending.iter().map(|pending| self.walk.scan(pending)).collect::<Result<_, _>>()?,
        };
        Ok(frame.ahead.pop_front().unwrap_or_default())
    }
}

impl<'a> Walk<'a> {
    pub fn changes(self) -> Result<Changes<'a>, Error> {
        let root = Pending { path: Vec::new(), lower: self.lower.is_some(), opaque: false };
        let frames = vec![Frame::new(self.scan(&root)?, None)];
        Ok(Changes {
            walk: self,
            held_from: 1,
            frames,
            first_names: HashMap::new(),
            ready: VecDeque::new(),
            attributes: None,
        })
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
        let opaque = pending.opaque
            || match self.overlay {
                Some(marks) => read_marks(marks, dir, path)?,
                None => false,
            };

        let mut names = dir::names(dir).map_err(|e| Error::io("list directory", path, e))?;
        if let (true, Some(lower)) = (opaque, lower) {
            names.extend(dir::names(lower).map_err(|e| Error::io("list lower directory", path, e))?);
            names.sort_unstable();
            names.dedup();
        }

        let mut scanned = Vec::with_capacity(names.len());
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
                scanned.push(Item::Entry(whiteout(path), None));
            }
            return Ok(());
        };
        let file_type = FileType::from_raw_mode(here.stx_mode.into());
        // Symlinks cannot have any that count.
        let attributes = match file_type {
            FileType::RegularFile | FileType::Directory => attributes::read(place.dir, place.name.to_bytes(), &path)?,
            _ => Attributes::default(),
        };
        let has_others = attributes.others.is_some();
        scanned.extend(attributes.others.map(Item::Attributes));
        let lost = |path: &[u8]| -> Result<Option<Item>, Error> {
            let lower = place.lower.filter(|_| !has_others && below.is_some());
            let Some(lower) = lower else { return Ok(None) };
            let below = attributes::read(lower, place.name.to_bytes(), path)?;
            Ok(below.others.map(|_| Item::Attributes(attributes::removed(path))))
        };
        let kind = match file_type {
            FileType::Directory => {
                let lower = below.is_some_and(|below| is_directory(&below));
                scanned.extend(lost(&path)?);
                let modified = below.is_none_or(|below| !same_metadata(&here, &below));
                let change = change(path.clone(), ChangeKind::Directory, &here, None);
                let contents = Pending { path, lower, opaque: opaque && lower };
                scanned.push(Item::Directory { change, modified, contents });
                return Ok(());
            }
            FileType::CharacterDevice
                if self.overlay.is_some() && (here.stx_rdev_major, here.stx_rdev_minor) == (0, 0) =>
            {
                if below.is_some() {
                    scanned.push(Item::Entry(whiteout(path), None));
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
        let change = change(path, kind, &here, attributes.capability);
        if let (Some(below), Some(lower)) = (below, place.lower)
            && is_equal(&change, &here, &below, place, lower)?
        {
            scanned.extend(lost(&change.path)?);
            return Ok(());
        }
        let is_shared = here.stx_nlink > 1 && !(self.is_single)(&change.path);
        let inode = is_shared.then_some((here.stx_dev_major, here.stx_dev_minor, here.stx_ino));
        scanned.push(Item::Entry(change, inode));
        Ok(())
    }
}

/// Whether overlayfs marked this directory as opaque (X4.5). A redirected one cannot be compared by path (X4.6).
fn read_marks(marks: Marks, dir: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Error> {
    let fail = |e| Error::io("read the xattrs of directory", path, e);
    let mut opaque = false;
    for name in dir::fd_xattr_names(dir).map_err(fail)? {
        if name.as_c_str() == marks.redirect() {
            return Err(Error::Redirected { path: shown(path) });
        }
        if name.as_c_str() == marks.opaque() {
            opaque |= dir::fd_xattr(dir, &name).map_err(fail)?.as_deref() == Some(b"y");
        }
    }
    Ok(opaque)
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
    dir::xattr(dir, name.to_bytes(), c"security.capability").map_err(|e| Error::io("read the capabilities of", path, e))
}

fn same_metadata(a: &Statx, b: &Statx) -> bool {
    let key = |s: &Statx| (s.stx_mode, s.stx_uid, s.stx_gid, s.stx_rdev_major, s.stx_rdev_minor);
    key(a) == key(b)
}

/// The rule for "not modified" (X4.7) for what is not a directory: a file that was copied up but is as before is no
/// change. Where times and sizes are the same, contents decide. The norm asks them only where a tar may have truncated the times, and so loses
/// a file that takes the place of another of its size from the same tick of the clock, as a script or a checkout writes them.
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
    if here.stx_size == 0 {
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
