//! WORKDIR's directories and here-documents' files (X3.H).

use super::error::{Context, Error};
use super::path::{clean, join, parent_and_name};
use super::resolve::{NewDir, make_dirs, resolve};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Makes a directory and its missing parents, all 0755, owned by `owner`, with `time` (seconds since the epoch) or now; what exists
/// is left as it is (X3.61).
pub fn mkdir(destination: BorrowedFd<'_>, path: &str, owner: (u32, u32), time: Option<i64>) -> Result<(), Error> {
    let at = resolve(destination, &clean(path.as_bytes()), true, &|_, _| true)?;
    make_dirs(&at, NewDir { mode: 0o755, owner, time }).map(drop)
}

/// Writes a file, through links; `mode` is for a new one only (X3.67). Its directory must exist.
pub fn mkfile(destination: BorrowedFd<'_>, path: &str, data: &[u8], mode: u32) -> Result<(), Error> {
    let at = resolve(destination, &clean(path.as_bytes()), true, &|_, _| true)?;
    let full = at.full_path();
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match at.missing.as_slice() {
        [] if at.stat.is_dir() => return Err(Error::io("open", &full, Errno::ISDIR)),
        [] => {
            let dir = at.parent.as_ref().ok_or_else(|| Error::io("open", &full, Errno::NOENT))?;
            let (_, name) = parent_and_name(&full);
            rustix::fs::openat(dir, name, flags | OFlags::TRUNC, Mode::empty()).context("open", &full)?
        }
        [name] if at.stat.is_dir() => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(&at.node, name, flags, Mode::from(0o600)).context("open", &full)?;
            rustix::fs::fchmod(&file, Mode::from(mode & 0o7777)).context("chmod", &full)?;
            file
        }
        [first, ..] => {
            let errno = if at.stat.is_dir() { Errno::NOENT } else { Errno::NOTDIR };
            let at = if at.stat.is_dir() { join(&at.path, first) } else { at.path };
            return Err(Error::io("open", &at, errno));
        }
    };
    write_all(&file, data, &full)
}

pub(crate) fn write_all(file: &OwnedFd, mut data: &[u8], path: &[u8]) -> Result<(), Error> {
    while !data.is_empty() {
        match rustix::io::write(file.as_fd(), data) {
            Ok(0) => return Err(Error::io("write", path, Errno::IO)),
            Ok(written) => data = &data[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("write", path, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn me() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    /// X3.61, X3.63.
    #[test]
    fn workdir() {
        let tmp = tempfile::tempdir().unwrap();
        let root = fs::File::open(tmp.path()).unwrap();
        fs::create_dir(tmp.path().join("z")).unwrap();
        fs::write(tmp.path().join("z/f"), "").unwrap();
        symlink("/real", tmp.path().join("link")).unwrap();
        mkdir(root.as_fd(), "/link/a b", me(), Some(1_000)).unwrap();
        let meta = fs::metadata(tmp.path().join("real/a b")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o755, 1_000));
        mkdir(root.as_fd(), "/", me(), None).unwrap();
        for path in ["/z/f", "/z/f/x"] {
            let error = mkdir(root.as_fd(), path, me(), None).unwrap_err();
            assert_eq!(error.to_string(), "mkdir /z/f: not a directory");
        }
        if me().0 == 0 {
            mkdir(root.as_fd(), "/z/owned/deep", (7, 8), None).unwrap();
            let meta = fs::metadata(tmp.path().join("z/owned")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (7, 8));
            assert_eq!(fs::metadata(tmp.path().join("z")).unwrap().uid(), 0);
        }
    }

    /// X3.67.
    #[test]
    fn here_document() {
        let tmp = tempfile::tempdir().unwrap();
        let root = fs::File::open(tmp.path()).unwrap();
        symlink("/target", tmp.path().join("link")).unwrap();
        mkfile(root.as_fd(), "/link", b"longer text", 0o640).unwrap();
        mkfile(root.as_fd(), "target", b"short", 0o777).unwrap();
        assert_eq!(fs::read(tmp.path().join("target")).unwrap(), b"short");
        assert_eq!(fs::metadata(tmp.path().join("target")).unwrap().permissions().mode() & 0o7777, 0o640);
        for (path, text) in [
            ("/", "open /: is a directory"),
            ("/no/f", "open /no: no such file or directory"),
            ("/target/f", "open /target: not a directory"),
        ] {
            assert_eq!(mkfile(root.as_fd(), path, b"", 0o644).unwrap_err().to_string(), text);
        }
    }
}
