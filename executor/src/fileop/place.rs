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
    let entries = walk::read_dir(staged, path)?;
    if entries.is_empty() {
        return Ok(());
    }
    let upper = changed_directory(merged, layer, path)?;
    for entry in entries {
        let full = join(path, &entry.name);
        let is_dir = entry.kind == FileType::Directory;
        match stat::at(merged, &entry.name) {
            Err(Errno::NOENT) => rename(staged, &upper, &entry.name, is_dir, &full)?,
            Err(errno) => return Err(Error::io("stat", &full, errno)),
            Ok(old) if old.is_dir() && is_dir => {
                let from = open_dir(staged, &entry.name, &full)?;
                let attributes = stat::of(&from).context("stat", &full)?;
                let into = open_dir(merged, &entry.name, &full)?;
                place(&from, &into, layer, &full)?;
                take_over(&from, &attributes, &into, &full)?;
            }
            Ok(old) if old.is_dir() => return Err(Error::ReplaceDirectory { path: shown(&full) }),
            Ok(_) if is_dir => return Err(Error::NonDirectory { path: shown(&full) }),
            // Takes the place of the old entry in the layer, or hides the one of a lower layer.
            Ok(_) => rename(staged, &upper, &entry.name, false, &full)?,
        }
    }
    Ok(())
}

/// The directory as it is in the layer; it gets there by a change that changes nothing.
fn changed_directory(merged: &OwnedFd, layer: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Error> {
    let mode = stat::of(merged).context("stat", path)?.mode;
    rustix::fs::fchmod(merged, Mode::from(mode)).context("chmod", path)?;
    let upper = open_dirs(layer, path)?;
    open_dir(&upper, b".", path)
}

fn rename(from: &OwnedFd, to: &OwnedFd, name: &[u8], is_dir: bool, path: &[u8]) -> Result<(), Error> {
    match rustix::fs::renameat(from, name, to, name) {
        // The mark of something that an earlier action of this step removed. A directory in its place must say that it hides what
        // lies below; only the overlay can make such a one.
        Err(Errno::NOTDIR | Errno::EXIST) if is_dir => Err(Error::io("replace", path, Errno::BUSY)),
        renamed => renamed.context("rename", path),
    }
}

/// An existing directory gets the attributes of the copied one (X3.32). `stat` is from before its entries were moved away.
fn take_over(staged: &OwnedFd, stat: &Stat, into: &OwnedFd, path: &[u8]) -> Result<(), Error> {
    let attributes = Attributes { owner: Owner::Keep, chmod: None };
    attributes.apply(staged.as_fd(), stat, into.as_fd(), path).map(drop)
}

/// An empty directory beside others of the same copy.
pub(crate) fn make_stage(parent: BorrowedFd<'_>, number: usize) -> Result<OwnedFd, Error> {
    let name = number.to_string();
    rustix::fs::mkdirat(parent, &name, Mode::from(0o700)).context("mkdir", name.as_bytes())?;
    open_dir(parent, name.as_bytes(), name.as_bytes())
}
