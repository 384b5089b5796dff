//! Paths inside a root that nobody can leave (X3.3).
//!
//! A path is walked element by element with `O_PATH | O_NOFOLLOW`, and links are expanded here, not by the kernel: `..`
//! stops at the root, absolute targets restart there. Unlike one `openat2(RESOLVE_IN_ROOT)` this can go on past what does
//! not exist yet (a destination's missing parents, dangling links, X3.17), skips what an ignore file hides, has no limit of 4096
//! bytes (X6.52), and tells the canonical path. Each step is one name below a descriptor, so that a directory that
//! is exchanged for a link meanwhile cannot lead outside (X6.45).

use super::error::{Context, Error};
use super::path::{names, push, shown};
use super::stat::{self, Stat};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// The norm's limit (X3.3).
const MAX_LINKS: usize = 255;

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How far a path exists.
pub(crate) struct Resolved {
    /// Canonical path of the last thing that exists.
    pub path: Vec<u8>,
    /// `O_PATH` descriptor of it.
    pub node: OwnedFd,
    pub stat: Stat,
    /// Directory that holds `node`, where that is no directory.
    pub parent: Option<OwnedFd>,
    /// Elements below `path` that do not exist.
    pub missing: Vec<Vec<u8>>,
}

impl Resolved {
    pub fn exists(&self) -> bool {
        self.missing.is_empty()
    }

    /// With the missing elements: where the path leads once it is made.
    pub fn full_path(&self) -> Vec<u8> {
        let mut path = self.path.clone();
        self.missing.iter().for_each(|name| push(&mut path, name));
        path
    }
}

/// Says whether an entry (canonical path, is a directory) exists for whoever asks.
pub(crate) type Visible<'a> = &'a dyn Fn(&[u8], bool) -> bool;

/// Follows every link on the way, the last one too if `follow_last`.
pub(crate) fn resolve(
    root: BorrowedFd<'_>,
    path: &[u8],
    follow_last: bool,
    visible: Visible<'_>,
) -> Result<Resolved, Error> {
    let start = || open_path(root, b".", b"");
    let node = start()?;
    let stat = stat::of(&node).context("stat", b"")?;
    let mut at = Resolved { path: Vec::new(), node, stat, parent: None, missing: Vec::new() };
    let mut pending: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = pending.pop() {
        match name.as_slice() {
            b"." => continue,
            b".." => {
                if at.missing.pop().is_none() && !at.path.is_empty() {
                    // From the root again: `..` of a directory that was moved meanwhile may lie outside.
                    let (parent, _) = super::path::parent_and_name(&at.path);
                    at = reopen(root, parent)?;
                }
                continue;
            }
            _ => {}
        }
        if !at.missing.is_empty() || !at.stat.is_dir() {
            at.missing.push(name);
            continue;
        }
        let full = super::path::join(&at.path, &name);
        let node = match rustix::fs::openat(&at.node, &name, PATH_ONLY, Mode::empty()) {
            Ok(node) => node,
            Err(Errno::NOENT) => {
                at.missing.push(name);
                continue;
            }
            Err(errno) => return Err(Error::io("open", &full, errno)),
        };
        let stat = stat::of(&node).context("stat", &full)?;
        if !visible(&full, stat.is_dir()) {
            at.missing.push(name);
        } else if stat.kind == FileType::Symlink && (follow_last || !pending.is_empty()) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::TooManyLinks { path: shown(path) });
            }
            let target = rustix::fs::readlinkat(&node, "", Vec::new()).context("readlink", &full)?;
            let target = target.to_bytes();
            if target.first() == Some(&b'/') {
                at = reopen(root, b"")?;
            }
            pending.extend(names(target).rev().map(<[u8]>::to_vec));
        } else {
            let dir = std::mem::replace(&mut at.node, node);
            at.parent = (!stat.is_dir()).then_some(dir);
            at.stat = stat;
            at.path = full;
        }
    }
    Ok(at)
}

fn reopen(root: BorrowedFd<'_>, path: &[u8]) -> Result<Resolved, Error> {
    let node = open_dirs(root, path)?;
    let stat = stat::of(&node).context("stat", path)?;
    Ok(Resolved { path: path.to_vec(), node, stat, parent: None, missing: Vec::new() })
}

fn open_path(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    rustix::fs::openat(dir, name, PATH_ONLY | OFlags::DIRECTORY, Mode::empty()).context("open", path)
}

/// Opens the directory with a canonical path (`O_PATH`); a link on the way is an error.
pub(crate) fn open_dirs(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Error> {
    let mut fd = open_path(root, b".", b"")?;
    for name in names(path) {
        fd = open_path(fd.as_fd(), name, path)?;
    }
    Ok(fd)
}

/// Opens a directory's entries for reading; `name` may be `.`.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    rustix::fs::openat(dir, name, READ_DIR, Mode::empty()).context("open", path)
}

/// How directories are made that nobody asked for by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDir {
    pub mode: u32,
    pub owner: (u32, u32),
    /// Seconds since the epoch, instead of now.
    pub time: Option<i64>,
}

/// Makes what is missing of `at`, and opens it for reading. Only new directories get `new`'s attributes, by chmod, so that
/// the umask does not matter (X3.15).
pub(crate) fn make_dirs(at: &Resolved, new: NewDir) -> Result<OwnedFd, Error> {
    let mut path = at.path.clone();
    if !at.stat.is_dir() {
        return Err(Error::io("mkdir", &path, Errno::NOTDIR));
    }
    // Making an entry moves its parent's time, and a mode may forbid it: then attributes are set from the innermost outwards. Otherwise
    // at once, because all the descriptors of a path of thousands of names are more than a process may have.
    let at_once = new.time.is_none() && new.mode & 0o300 == 0o300;
    let mut dir = open_dir(&at.node, b".", &path)?;
    let mut above = Vec::new();
    for name in &at.missing {
        push(&mut path, name);
        match rustix::fs::mkdirat(&dir, name, Mode::from(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("mkdir", &path, errno)),
        }
        let child = open_dir(&dir, name, &path)?;
        let parent = std::mem::replace(&mut dir, child);
        if at_once {
            finish_new_dir(&dir, new, &path)?;
        } else {
            above.push(parent);
        }
    }
    for at in (0..above.len()).rev() {
        finish_new_dir(above.get(at + 1).unwrap_or(&dir), new, &path)?;
    }
    Ok(dir)
}

fn finish_new_dir(dir: &OwnedFd, new: NewDir, path: &[u8]) -> Result<(), Error> {
    let stat = stat::of(dir).context("stat", path)?;
    let (uid, gid) = new.owner;
    if (stat.uid, stat.gid) != (uid, gid) {
        rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context("chown", path)?;
    }
    rustix::fs::fchmod(dir, Mode::from(new.mode)).context("chmod", path)?;
    if let Some(seconds) = new.time {
        let time = stat::Time { seconds, nanoseconds: 0 }.timespec();
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(dir, &times).context("utimes", path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn root(dir: &Path) -> OwnedFd {
        std::fs::File::open(dir).unwrap().into()
    }

    /// X3.3, X3.16, X3.17, X6.46.
    #[test]
    fn stays_inside() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::create_dir(dir.join("etc")).unwrap();
        std::fs::write(dir.join("a/b/f"), "").unwrap();
        symlink("/a", dir.join("abs")).unwrap();
        symlink("../../../../a/b", dir.join("a/up")).unwrap();
        symlink("/etc/passwd", dir.join("out")).unwrap();
        symlink("b/f", dir.join("a/file")).unwrap();
        symlink("nowhere/deep", dir.join("dangling")).unwrap();
        for (path, exists, full) in [
            ("", true, ""),
            ("abs/b", true, "a/b"),
            ("a/up/f", true, "a/b/f"),
            ("../../a", true, "a"),
            ("abs/../etc", true, "etc"),
            ("a/up/..", true, "a"),
            ("out", false, "etc/passwd"),
            ("a/file", true, "a/b/f"),
            ("a/file/x", false, "a/b/f/x"),
            ("dangling/x", false, "nowhere/deep/x"),
            ("dangling/../../../abs", true, "a"),
            ("new/../../a/b", true, "a/b"),
        ] {
            let at = resolve(root(dir).as_fd(), path.as_bytes(), true, &|_, _| true).unwrap();
            assert_eq!(at.full_path().escape_ascii().to_string(), full, "{path}");
            assert_eq!(at.exists(), exists, "{path}");
        }
        let link = resolve(root(dir).as_fd(), b"a/file", false, &|_, _| true).unwrap();
        assert_eq!((link.stat.kind, link.path.as_slice()), (FileType::Symlink, &b"a/file"[..]));
        assert!(link.parent.is_some());
    }

    #[test]
    fn loops_end() {
        let tmp = tempfile::tempdir().unwrap();
        symlink("l", tmp.path().join("l")).unwrap();
        symlink("x/m/m", tmp.path().join("m")).unwrap();
        symlink(".", tmp.path().join("x")).unwrap();
        for path in ["l", "l/x", "m"] {
            let at = resolve(root(tmp.path()).as_fd(), path.as_bytes(), true, &|_, _| true);
            assert!(matches!(at, Err(Error::TooManyLinks { .. })), "{path}");
        }
    }

    #[test]
    fn hidden_things_do_not_exist() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("a")).unwrap();
        symlink("a", tmp.path().join("l")).unwrap();
        let at = resolve(root(tmp.path()).as_fd(), b"l", true, &|path, _| path != b"a").unwrap();
        assert!(!at.exists());
    }

    #[test]
    fn make_dirs_sets_only_new_ones() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("old")).unwrap();
        std::fs::set_permissions(tmp.path().join("old"), std::fs::Permissions::from_mode(0o711)).unwrap();
        let root = root(tmp.path());
        let at = resolve(root.as_fd(), b"old/x/y", true, &|_, _| true).unwrap();
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_dirs(&at, NewDir { mode: 0o1777, owner: me, time: Some(7) }).unwrap();
        let mode = |p: &str| std::fs::metadata(tmp.path().join(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("old"), mode("old/x"), mode("old/x/y")), (0o711, 0o1777, 0o1777));
        for p in ["old/x", "old/x/y"] {
            let meta = std::fs::metadata(tmp.path().join(p)).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::mtime(&meta), 7, "{p}");
        }
        let long = vec!["d".repeat(200); 40].join("/");
        let at = resolve(root.as_fd(), long.as_bytes(), true, &|_, _| true).unwrap();
        make_dirs(&at, NewDir { mode: 0o755, owner: me, time: None }).unwrap();
        assert!(resolve(root.as_fd(), long.as_bytes(), true, &|_, _| true).unwrap().exists());
    }
}
