//! Moves a copied tree from where it was put together to where it belongs.
//!
//! What does not exist yet at the destination is moved by one rename, whatever its size; only directories that exist are gone into. Renames happen
//! in the layer's own directory, because an overlay mount of it counts as another file system. The destination is looked at
//! through the overlay; it must not be used to look at the same names again.

use super::error::{Context, Error};
use super::metadata::Attributes;
use super::path::{join, shown};
use super::resolve::{open_dir, open_dirs};
use super::stat::{self, Stat};
use super::{Owner, walk};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

/// Moves what lies in `staged` into the directory at the canonical `path`, which is open as `merged` in the destination. `layer` is the
/// root of the layer in which the destination's changes are.
pub(crate) fn place(staged: &OwnedFd, merged: &OwnedFd, layer: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
    let dup = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0).context("dup", path);
    // No recursion: both trees may be as deep as someone hostile has made them.
    let mut levels = vec![Level::new(dup(staged)?, dup(merged)?, None, layer, path.to_vec())?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.next() else {
            levels.pop().map_or(Ok(()), |level| level.leave())?;
            continue;
        };
        let full = join(&level.path, &entry.name);
        let is_dir = entry.kind == FileType::Directory;
        match stat::at(&level.merged, &entry.name) {
            Err(Errno::NOENT) => level.rename(&entry.name, is_dir, &full)?,
            Err(errno) => return Err(Error::io("stat", &full, errno)),
            Ok(old) if old.is_dir() && is_dir => {
                let from = open_dir(&level.staged, &entry.name, &full)?;
                let into = open_dir(&level.merged, &entry.name, &full)?;
                let attributes = stat::of(&from).context("stat", &full)?;
                let next = Level::new(from, into, Some(attributes), layer, full)?;
                levels.push(next);
            }
            Ok(old) if old.is_dir() => return Err(Error::ReplaceDirectory { path: shown(&full) }),
            Ok(_) if is_dir => return Err(Error::NonDirectory { path: shown(&full) }),
            // Takes the place of the old entry in the layer, or hides the one of a lower layer.
            Ok(_) => level.rename(&entry.name, false, &full)?,
        }
    }
    Ok(())
}

/// A directory that exists on both sides.
struct Level {
    staged: OwnedFd,
    merged: OwnedFd,
    /// As it is in the layer; only where something is moved there.
    upper: Option<OwnedFd>,
    entries: std::vec::IntoIter<walk::Entry>,
    path: Vec<u8>,
    /// Of the copy, from before its entries were moved away: what the existing directory gets in the end (X3.32).
    attributes: Option<Stat>,
}

impl Level {
    fn new(
        staged: OwnedFd,
        merged: OwnedFd,
        attributes: Option<Stat>,
        layer: BorrowedFd<'_>,
        path: Vec<u8>,
    ) -> Result<Level, Error> {
        let entries = walk::read_dir(&staged, &path)?;
        let upper = match entries.is_empty() {
            true => None,
            false => Some(changed_directory(&merged, layer, &path)?),
        };
        Ok(Level { staged, merged, upper, entries: entries.into_iter(), path, attributes })
    }

    fn rename(&self, name: &[u8], is_dir: bool, path: &[u8]) -> Result<(), Error> {
        let Some(upper) = &self.upper else { return Ok(()) };
        match rustix::fs::renameat(&self.staged, name, upper, name) {
            // The mark of something that an earlier action of this step removed. A directory in its place must say that it hides
            // what lies below; only the overlay can make such a one.
            Err(Errno::NOTDIR | Errno::EXIST) if is_dir => Err(Error::io("replace", path, Errno::BUSY)),
            renamed => renamed.context("rename", path),
        }
    }

    fn leave(self) -> Result<(), Error> {
        let Some(stat) = &self.attributes else { return Ok(()) };
        let attributes = Attributes { owner: Owner::Keep, chmod: None };
        attributes.apply(self.staged.as_fd(), stat, self.merged.as_fd(), &self.path).map(drop)
    }
}

/// The directory as it is in the layer; it gets there by a change that changes nothing.
fn changed_directory(merged: &OwnedFd, layer: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Error> {
    let mode = stat::of(merged).context("stat", path)?.mode;
    rustix::fs::fchmod(merged, Mode::from(mode)).context("chmod", path)?;
    let upper = open_dirs(layer, path)?;
    open_dir(&upper, b".", path)
}

/// An empty directory beside others of the same copy.
pub(crate) fn make_stage(parent: BorrowedFd<'_>, number: usize) -> Result<OwnedFd, Error> {
    let name = number.to_string();
    rustix::fs::mkdirat(parent, &name, Mode::from(0o700)).context("mkdir", name.as_bytes())?;
    open_dir(parent, name.as_bytes(), name.as_bytes())
}
