//! Removes the mount points that a sandbox had to make in its root (X1.46 to X1.50).

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use std::os::fd::BorrowedFd;

/// Removes each of `paths`, last one first, if it is still an empty directory or an empty file. The parent gets the times back that it
/// had. What cannot be removed stays: it is then part of the step's result, as in the norm.
pub fn remove(root: BorrowedFd, paths: &[String]) {
    for path in paths.iter().rev() {
        let Some((parent, name)) = path.rsplit_once('/') else { continue };
        let parent = if parent.is_empty() { "/" } else { parent };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let Ok(parent) = rustix::fs::openat2(root, parent, flags, Mode::empty(), resolve) else { continue };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_size != 0 {
            continue;
        }
        let before = rustix::fs::fstat(&parent);
        let flags = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if rustix::fs::unlinkat(&parent, name, flags).is_ok()
            && let Ok(before) = before
        {
            let time = |seconds: i64, nanoseconds: u64| Timespec {
                tv_sec: seconds,
                tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
            };
            let times = Timestamps {
                last_access: time(before.st_atime, before.st_atime_nsec),
                last_modification: time(before.st_mtime, before.st_mtime_nsec),
            };
            let _ = rustix::fs::futimens(&parent, &times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;

    #[test]
    fn empty_stubs_go_and_used_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::create_dir_all(path("run/secrets")).unwrap();
        fs::write(path("run/secrets/key"), "").unwrap();
        fs::create_dir(path("etc")).unwrap();
        fs::write(path("etc/hosts"), "written").unwrap();
        let stubs = ["/a", "/a/b", "/run", "/run/secrets", "/run/secrets/key", "/etc/hosts", "/gone"];
        let root = crate::mount::open_directory(directory.path()).unwrap();
        remove(root.as_fd(), &stubs.map(str::to_owned));
        assert!(!path("a").exists() && !path("run").exists(), "X1.48");
        assert!(path("etc/hosts").exists(), "X1.47");
    }
}
