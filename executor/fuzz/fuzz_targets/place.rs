//! A root to unpack into, which holds links that lead out of it, and a canary beside it.

use executor::fileop::{Owner, unpack};
use rustix::fd::AsFd;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Place {
    outer: TempDir,
}

impl Place {
    pub fn new() -> Place {
        let outer = tempfile::Builder::new().prefix("rbuild-fuzz-").tempdir().unwrap();
        let place = Place { outer };
        fs::create_dir_all(place.path("canary/dir")).unwrap();
        fs::write(place.path("canary/file"), "secret").unwrap();
        fs::create_dir_all(place.path("root/old/dir")).unwrap();
        fs::write(place.path("root/old/file"), "old").unwrap();
        symlink("../canary", place.path("root/up")).unwrap();
        symlink(place.path("canary"), place.path("root/out")).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join(name)
    }

    /// Unpacks whatever `archive` is; fails if that changes anything beside the root.
    pub fn unpack(&self, archive: &[u8]) {
        let root = File::open(self.path("root")).unwrap();
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let owner = if uid.is_root() { Owner::Keep } else { Owner::Set(uid.as_raw(), gid.as_raw()) };
        let before = self.outside();
        let _ = unpack(archive, "archive", root.as_fd(), "/", owner);
        assert_eq!(before, self.outside());
        self.check_inside(&self.path("root"));
    }

    /// All that must stay as it is. A change time moves with every attribute, a link count with a link into the root.
    fn outside(&self) -> Vec<(PathBuf, Vec<i64>)> {
        let mut paths = vec![self.outer.path().to_owned()];
        for dir in [self.outer.path(), &self.path("canary")] {
            paths.extend(fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
        }
        paths.retain(|path| *path != self.path("root"));
        paths.sort();
        let state = |path: PathBuf| {
            let meta = fs::symlink_metadata(&path).unwrap();
            let (size, links) = (meta.size() as i64, meta.nlink() as i64);
            (path, vec![meta.ino() as i64, size, links, meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
        };
        paths.into_iter().map(state).collect()
    }

    /// No device may be a whiteout. Opens all directories up, which an ordinary user could not remove otherwise.
    fn check_inside(&self, dir: &Path) {
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => self.check_inside(&entry.path()),
                Ok(meta) => assert!(!meta.file_type().is_char_device() || meta.rdev() != 0, "{:?}", entry.path()),
                Err(_) => {}
            }
        }
    }
}
