//! What an upper directory changes about the tree below it (X4.1 to X4.13).
//!
//! The walk goes depth first through the upper directory alone, each directory's entries in byte order; the lower tree is only
//! asked for the names met. An entry that is equal to the lower one is left out: overlayfs copies files up that are only opened
//! for writing. A directory without a change of its own is listed when something below it is.

use super::error::Error;
use super::{CAPABILITY, Change, ChangeKind, OPAQUE};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Overlay marks are dropped from trees; everything else is kept.
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// The changes of `upper` against the merged tree `lower`; `None` is an empty tree.
pub fn diff(upper: BorrowedFd, lower: Option<BorrowedFd>) -> Result<Vec<Change>, Error> {
    let mut walk = Walk { changes: Vec::new(), links: HashMap::new(), all: false };
    let lower = lower.map(|lower| open_directory(lower, c".", b"")).transpose()?;
    walk.directory(&open_directory(upper, c".", b"")?, lower.as_ref(), false, &mut Vec::new(), &mut Vec::new())?;
    Ok(walk.changes)
}

/// Everything in a merged tree, with all extended attributes (R5.10.4).
pub fn tree(root: BorrowedFd) -> Result<Vec<Change>, Error> {
    let mut walk = Walk { changes: Vec::new(), links: HashMap::new(), all: true };
    walk.directory(&open_directory(root, c".", b"")?, None, false, &mut Vec::new(), &mut Vec::new())?;
    Ok(walk.changes)
}

struct Walk {
    changes: Vec<Change>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// List all attributes.
    all: bool,
}

impl Walk {
    /// `ancestors` are directories that are not listed yet; they are when something below them is (X4.10).
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        opaque: bool,
        path: &mut Vec<u8>,
        ancestors: &mut Vec<Change>,
    ) -> Result<(), Error> {
        let mut names = list(upper, path)?;
        if opaque && let Some(lower) = lower {
            names.extend(list(lower, path)?);
        }
        for name in names {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(upper, lower, opaque, &name, path, ancestors)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        opaque: bool,
        name: &CStr,
        path: &mut Vec<u8>,
        ancestors: &mut Vec<Change>,
    ) -> Result<(), Error> {
        let below = lower.map(|lower| stat(lower, name, path)).transpose()?.flatten();
        let Some(stat) = stat(upper, name, path)? else {
            // In an opaque directory, a name of the lower one that did not come back.
            if below.is_some() {
                self.emit(Change::whiteout(path), ancestors);
            }
            return Ok(());
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if below.is_some() {
                self.emit(Change::whiteout(path), ancestors);
            }
            return Ok(());
        }
        match kind {
            FileType::Socket => Ok(()),
            FileType::Directory => {
                let directory = open_directory(upper.as_fd(), name, path)?;
                let below_is_directory = below.as_ref().is_some_and(is_directory);
                let lower_directory = match (lower, below_is_directory) {
                    (Some(lower), true) => Some(open_directory(lower.as_fd(), name, path)?),
                    _ => None,
                };
                let change = self.change(&directory, None, &stat, path)?;
                let unchanged =
                    below.as_ref().is_some_and(|below| is_directory(below) && same_attributes(&stat, below));
                // A directory made anew inside an opaque one need not carry the mark itself.
                let opaque = opaque || is_opaque(&directory);
                if unchanged {
                    ancestors.push(change);
                    self.directory(&directory, lower_directory.as_ref(), opaque, path, ancestors)?;
                    // Listed by now if anything below it was.
                    if ancestors.last().is_some_and(|last| last.path == *path) {
                        ancestors.pop();
                    }
                } else {
                    self.emit(change, ancestors);
                    self.directory(&directory, lower_directory.as_ref(), opaque, path, ancestors)?;
                }
                Ok(())
            }
            _ => {
                if let (Some(below), Some(lower)) = (&below, lower)
                    && self.is_unchanged(upper, lower, name, &stat, below, path)?
                {
                    return Ok(());
                }
                let change = self.change(upper, Some(name), &stat, path)?;
                self.emit(change, ancestors);
                Ok(())
            }
        }
    }

    fn emit(&mut self, change: Change, ancestors: &mut Vec<Change>) {
        self.changes.append(ancestors);
        self.changes.push(change);
    }

    /// The entry of `name` in `parent`, or of the directory `parent` itself.
    fn change(&mut self, parent: &OwnedFd, name: Option<&CStr>, stat: &Stat, path: &[u8]) -> Result<Change, Error> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => ChangeKind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name.unwrap_or(c"."), Vec::new());
                ChangeKind::Symlink(target.map_err(Error::file("read the link", path))?.into_bytes())
            }
            FileType::Fifo => ChangeKind::Fifo,
            FileType::CharacterDevice => device(stat, false),
            FileType::BlockDevice => device(stat, true),
            _ => ChangeKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        };
        let mut change = Change {
            path: path.to_owned(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            xattrs: self.attributes(parent, name, stat),
            kind,
        };
        if stat.st_nlink > 1 && change.kind != ChangeKind::Directory {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => change.kind = ChangeKind::HardLink(first.clone()),
                None => {
                    self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
                }
            }
        }
        Ok(change)
    }

    fn attributes(&self, parent: &OwnedFd, name: Option<&CStr>, stat: &Stat) -> Vec<(Vec<u8>, Vec<u8>)> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !self.all {
            // Capabilities mean something on executable files only; the others are not asked, which halves the walk.
            return match (kind, name) {
                (FileType::RegularFile, Some(name)) if stat.st_mode & 0o111 != 0 => {
                    let value = get_attribute(parent, Some(name), CAPABILITY);
                    value.map(|value| (CAPABILITY.into(), value)).into_iter().collect()
                }
                _ => Vec::new(),
            };
        }
        let mut names = vec![0; 64 * 1024];
        let length = rustix::fs::llistxattr(proc_path(parent, name), &mut names).unwrap_or(0);
        let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let kept = names.filter(|name| !OVERLAY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
        let mut attributes: Vec<_> = kept
            .filter_map(|attribute| {
                let text = std::str::from_utf8(attribute).ok()?;
                Some((attribute.to_owned(), get_attribute(parent, name, text)?))
            })
            .collect();
        attributes.sort();
        attributes
    }

    /// X4.7.
    fn is_unchanged(
        &self,
        upper: &OwnedFd,
        lower: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        below: &Stat,
        path: &[u8],
    ) -> Result<bool, Error> {
        let same = stat.st_mode == below.st_mode
            && same_attributes(stat, below)
            && stat.st_rdev == below.st_rdev
            && stat.st_size == below.st_size
            && stat.st_mtime == below.st_mtime
            && get_attribute(upper, Some(name), CAPABILITY) == get_attribute(lower, Some(name), CAPABILITY);
        if !same {
            return Ok(false);
        }
        if stat.st_mtime_nsec != 0 || below.st_mtime_nsec != 0 {
            return Ok(stat.st_mtime_nsec == below.st_mtime_nsec);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => same_content(upper, lower, name, path),
            FileType::Symlink => {
                let read = |directory: &OwnedFd| {
                    rustix::fs::readlinkat(directory, name, Vec::new()).map_err(Error::file("read the link", path))
                };
                Ok(read(upper)? == read(lower)?)
            }
            _ => Ok(true),
        }
    }
}

impl Change {
    /// X4.3.
    fn whiteout(path: &[u8]) -> Self {
        Change {
            path: path.to_owned(),
            kind: ChangeKind::Whiteout,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

fn same_attributes(a: &Stat, b: &Stat) -> bool {
    a.st_mode == b.st_mode && a.st_uid == b.st_uid && a.st_gid == b.st_gid
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn device(stat: &Stat, block: bool) -> ChangeKind {
    ChangeKind::Device { block, major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 8];
    OPAQUE.iter().any(
        |name| matches!(rustix::fs::fgetxattr(directory, *name, &mut value), Ok(length) if value[..length] == *b"y"),
    )
}

fn open_directory(parent: BorrowedFd, name: &CStr, path: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::file("open", path))
}

fn list(directory: &OwnedFd, path: &[u8]) -> Result<BTreeSet<CString>, Error> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory).map_err(Error::file("list", path))? {
        let entry = entry.map_err(Error::file("list", path))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.insert(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn stat(directory: &OwnedFd, name: &CStr, path: &[u8]) -> Result<Option<Stat>, Error> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::file("look at", path)(errno)),
    }
}

/// A path to an entry that does not follow it, for calls that take no directory.
fn proc_path(parent: &OwnedFd, name: Option<&CStr>) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}", parent.as_raw_fd()).into_bytes();
    match name {
        Some(name) => {
            path.push(b'/');
            path.extend_from_slice(name.to_bytes());
        }
        None => path.extend_from_slice(b"/."),
    }
    path
}

/// An attribute's value; `None` where there is none or the file system has no attributes.
fn get_attribute(parent: &OwnedFd, name: Option<&CStr>, attribute: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; if attribute == CAPABILITY { 64 } else { 64 * 1024 }];
    let length = rustix::fs::lgetxattr(proc_path(parent, name), attribute, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}

fn same_content(upper: &OwnedFd, lower: &OwnedFd, name: &CStr, path: &[u8]) -> Result<bool, Error> {
    use std::io::Read;
    let open = |directory: &OwnedFd| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(Error::file("open", path))?;
        Ok::<_, Error>(std::io::BufReader::with_capacity(64 * 1024, std::fs::File::from(file)))
    };
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let (mut a, mut b) = (open(upper)?.bytes(), open(lower)?.bytes());
    loop {
        match (a.next().transpose().map_err(failed)?, b.next().transpose().map_err(failed)?) {
            (None, None) => return Ok(true),
            (a, b) if a == b => {}
            _ => return Ok(false),
        }
    }
}
