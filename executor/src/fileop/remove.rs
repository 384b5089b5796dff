//! Removes a whole tree.

use super::error::{Context, Error};
use super::path::{join, push};
use super::resolve::open_dir;
use super::stat;
use super::walk::read_dir;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, SeekFrom};
use rustix::io::Errno;

/// Removes an entry of `dir` with all that is below it; links are not followed. Flat, however deep the tree is.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), Error> {
    if !stat::at(dir, name).context("stat", path)?.is_dir() {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty()).context("remove", path);
    }
    let top = open_dir(dir, name, path)?;
    let mut above = vec![(top, path.to_vec())];
    while let Some((fd, at)) = above.last() {
        let mut deeper = None;
        rustix::fs::seek(fd, SeekFrom::Start(0)).context("read", at)?;
        for entry in read_dir(fd, at)? {
            let full = join(at, &entry.name);
            if entry.kind != FileType::Directory {
                rustix::fs::unlinkat(fd, &entry.name, AtFlags::empty()).context("remove", &full)?;
                continue;
            }
            match rustix::fs::unlinkat(fd, &entry.name, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    deeper = Some((open_dir(fd, &entry.name, &full)?, entry.name));
                    break;
                }
                Err(errno) => return Err(Error::io("remove", &full, errno)),
            }
        }
        match deeper {
            Some((fd, name)) => {
                let mut path = at.clone();
                push(&mut path, &name);
                above.push((fd, path));
            }
            // Emptied; the one above lists again and removes it.
            None => {
                above.pop();
            }
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).context("remove", path)
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
        std::fs::write(tmp.path().join("t/a/b/f"), "").unwrap();
        std::fs::write(tmp.path().join("keep"), "").unwrap();
        std::os::unix::fs::symlink("..", tmp.path().join("t/a/up")).unwrap();
        let root = std::fs::File::open(tmp.path()).unwrap();
        remove(root.as_fd(), b"t", b"t").unwrap();
        assert!(!tmp.path().join("t").exists() && tmp.path().join("keep").exists());
    }
}
