//! Removes a whole tree.

use super::error::{Context, Error};
use super::path::join;
use super::resolve::open_dir;
use super::stat;
use super::walk::read_dir;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType};

/// Directories above the current one that stay open: a hostile tree may be deeper than a process may have descriptors.
const OPEN: usize = 64;

/// A directory that is being emptied.
struct Level {
    /// `None` while something far below it is being emptied.
    dir: Option<OwnedFd>,
    name: Vec<u8>,
    path: Vec<u8>,
    /// Directories in it, which are all that is left.
    below: Vec<Vec<u8>>,
}

/// Removes an entry of `dir` with all that is below it; links are not followed. Flat, however deep the tree is, and lists each directory
/// once.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Error> {
    if !stat::at(dir, name).context("stat", path)?.is_dir() {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty()).context("remove", path);
    }
    let mut levels = vec![enter(dir, name, path.to_vec())?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.below.pop() else {
            let (name, path) = (std::mem::take(&mut level.name), std::mem::take(&mut level.path));
            levels.pop();
            let above = reopened(dir, &mut levels)?;
            rustix::fs::unlinkat(above, &name, AtFlags::REMOVEDIR).context("remove", &path)?;
            continue;
        };
        let path = join(&level.path, &name);
        let level = enter(reopened(dir, &mut levels)?, &name, path)?;
        levels.push(level);
        if let Some(far) = levels.len().checked_sub(OPEN + 1) {
            levels[far].dir = None;
        }
    }
    Ok(())
}

/// Opens a directory, and removes what is no directory in it.
fn enter(above: BorrowedFd<'_>, name: &[u8], path: Vec<u8>) -> Result<Level, Error> {
    let dir = open_dir(above, name, &path)?;
    let mut below = Vec::new();
    for entry in read_dir(&dir, &path)? {
        if entry.kind == FileType::Directory {
            below.push(entry.name);
        } else {
            rustix::fs::unlinkat(&dir, &entry.name, AtFlags::empty()).context("remove", &join(&path, &entry.name))?;
        }
    }
    Ok(Level { dir: Some(dir), name: name.to_vec(), path, below })
}

/// The last of `levels`, open, or `top` if there is none.
fn reopened<'a>(top: BorrowedFd<'a>, levels: &'a mut [Level]) -> Result<BorrowedFd<'a>, Error> {
    if levels.last().is_some_and(|level| level.dir.is_none()) {
        // Then all above it are closed too, and its neighbours are wanted next.
        let first_open = levels.len().saturating_sub(OPEN);
        for at in 0..levels.len() {
            let above = at.checked_sub(1).and_then(|above| levels[above].dir.as_ref()).map_or(top, AsFd::as_fd);
            let dir = open_dir(above, &levels[at].name, &levels[at].path)?;
            levels[at].dir = Some(dir);
            if (1..=first_open).contains(&at) {
                levels[at - 1].dir = None;
            }
        }
    }
    Ok(levels.last().and_then(|level| level.dir.as_ref()).map_or(top, AsFd::as_fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn removes_all_and_follows_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("t/a/b/c")).unwrap();
        std::fs::create_dir_all(tmp.path().join("t/d")).unwrap();
        // Deeper than what stays open, and with branches.
        for depth in [1, 40, 150] {
            let dir = tmp.path().join("t").join("e/".repeat(depth));
            std::fs::create_dir_all(dir.join("left/f")).unwrap();
            std::fs::create_dir_all(dir.join("right")).unwrap();
            std::fs::write(dir.join("right/f"), "").unwrap();
        }
        std::fs::write(tmp.path().join("t/a/b/f"), "").unwrap();
        std::fs::write(tmp.path().join("keep"), "").unwrap();
        std::os::unix::fs::symlink("..", tmp.path().join("t/a/up")).unwrap();
        let root = std::fs::File::open(tmp.path()).unwrap();
        remove(root.as_fd(), b"t", b"t").unwrap();
        assert!(!tmp.path().join("t").exists() && tmp.path().join("keep").exists());
    }
}
