//! The files of a checkout, as they become a layer.

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// `subdir` of `tree`, if every part of it is a directory and no link.
pub(super) fn real_directory(tree: &Path, subdir: &str) -> std::result::Result<PathBuf, String> {
    let mut path = tree.to_owned();
    for name in subdir.split('/') {
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => return Err(format!("{name:?} is a symbolic link")),
            Ok(_) => return Err(format!("{name:?} is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(format!("there is no {name:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(path)
}

pub(super) fn move_entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Modes that do not depend on the umask, the commit's time where that is wanted, and no `.git` files, which point at where the
/// repositories of submodules are on this machine.
pub(super) fn normalise(root: &Path, keep_git_dir: bool, time: Option<i64>) -> io::Result<()> {
    let mut pending = vec![root.to_owned()];
    let mut directories = Vec::new();
    let date = |path: &Path| match time {
        Some(seconds) => {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
        }
        None => Ok(()),
    };
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                pending.push(path);
                continue;
            }
            if kind.is_file() && entry.file_name() == ".git" && !keep_git_dir {
                fs::remove_file(&path)?;
                continue;
            }
            if kind.is_file() {
                let is_executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                fs::set_permissions(&path, fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))?;
            }
            date(&path)?;
        }
        directories.push(directory);
    }
    // Innermost last in, first out: an entry's change moves the time of its directory.
    directories.iter().rev().try_for_each(|directory| date(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdirectories_are_no_links() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        fs::write(tmp.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("/", tmp.path().join("a/l")).unwrap();
        assert_eq!(real_directory(tmp.path(), "a/b").unwrap(), tmp.path().join("a/b"));
        assert_eq!(real_directory(tmp.path(), "a/l/etc").unwrap_err(), "\"l\" is a symbolic link");
        assert_eq!(real_directory(tmp.path(), "f").unwrap_err(), "\"f\" is not a directory");
        assert_eq!(real_directory(tmp.path(), "x").unwrap_err(), "there is no \"x\"");
    }
}
