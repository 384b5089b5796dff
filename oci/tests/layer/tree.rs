//! Making and describing small directory trees.

use oci::layer::{self, Change, ChangeKind, Error, Marks, TarOptions, TarSummary};
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempDir;

pub struct Tree {
    dir: TempDir,
    fd: fs::File,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Tree {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::File::open(dir.path()).unwrap();
        Tree { dir, fd }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn path(&self, name: impl AsRef<[u8]>) -> PathBuf {
        self.dir.path().join(Path::new(OsStr::from_bytes(name.as_ref())))
    }

    pub fn dir(&self, name: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.time_of(&path, 500, 0)
    }

    /// A file of mode 0644 with an mtime of 1000 seconds.
    pub fn file(&self, name: impl AsRef<[u8]>, content: &str) -> &Self {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        self.time_of(&path, 1000, 0)
    }

    pub fn mode(&self, name: impl AsRef<[u8]>, mode: u32) -> &Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub fn time(&self, name: impl AsRef<[u8]>, seconds: i64, nanos: i64) -> &Self {
        self.time_of(&self.path(name), seconds, nanos)
    }

    fn time_of(&self, path: &Path, seconds: i64, nanos: i64) -> &Self {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    pub fn symlink(&self, name: impl AsRef<[u8]>, target: &str) -> &Self {
        let path = self.path(name);
        symlink(target, &path).unwrap();
        self.time_of(&path, 1000, 0)
    }

    pub fn link(&self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &Self {
        fs::hard_link(self.path(to), self.path(name)).unwrap();
        self
    }

    pub fn node(&self, name: impl AsRef<[u8]>, kind: FileType, device: u64) -> &Self {
        let path = self.path(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::from_raw_mode(0o600), device).unwrap();
        self.time_of(&path, 1000, 0)
    }

    pub fn whiteout(&self, name: impl AsRef<[u8]>) -> &Self {
        self.node(name, FileType::CharacterDevice, 0)
    }

    pub fn xattr(&self, name: impl AsRef<[u8]>, attribute: &str, value: &[u8]) -> &Self {
        rustix::fs::lsetxattr(self.path(name), attribute, value, XattrFlags::empty()).unwrap();
        self
    }

    pub fn opaque(&self, name: impl AsRef<[u8]>) -> &Self {
        self.xattr(name, "user.overlay.opaque", b"y")
    }

    pub fn remove(&self, name: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        self
    }
}

/// A change as a short line: its type's letter (`-` for a whiteout) and path.
pub fn short(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let path = String::from_utf8_lossy(&change.path);
            match &change.kind {
                ChangeKind::Directory => format!("d {path}"),
                ChangeKind::File { .. } => format!("f {path}"),
                ChangeKind::Symlink { target } => format!("l {path} -> {}", String::from_utf8_lossy(target)),
                ChangeKind::HardLink { to } => format!("h {path} = {}", String::from_utf8_lossy(to)),
                ChangeKind::Device { char, major, minor } => {
                    format!("{} {path} {major}:{minor}", if *char { 'c' } else { 'b' })
                }
                ChangeKind::Fifo => format!("p {path}"),
                ChangeKind::Whiteout => format!("- {path}"),
            }
        })
        .collect()
}

/// All changes at once.
pub fn diff(upper: BorrowedFd<'_>, lower: Option<BorrowedFd<'_>>) -> Result<Vec<Change>, Error> {
    layer::diff(upper, lower, Marks::User, &|_| false)?.collect()
}

pub fn write_tar(
    changes: &[Change],
    upper: BorrowedFd<'_>,
    options: &TarOptions,
    out: &mut impl std::io::Write,
) -> Result<TarSummary, Error> {
    layer::write_tar(changes.iter().cloned().map(Ok), upper, options, out)
}

pub fn content_id(
    changes: &[Change],
    upper: BorrowedFd<'_>,
    window: Option<(SystemTime, SystemTime)>,
) -> Result<[u8; 32], Error> {
    let times = window.map_or(layer::ContentTimes::All, |(start, end)| layer::ContentTimes::Outside(start, end));
    layer::content_id(changes.iter().cloned().map(Ok), upper, times, &|_| None)
}
