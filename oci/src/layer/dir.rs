//! Access to the entries of one directory tree through directory descriptors. Nothing here follows a symlink, and
//! nothing leaves the tree: what lies in it was written by a build step or by somebody's layer.

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The longest path given to one system call; PATH_MAX counts the final NUL.
const LONGEST: usize = 4095;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens the directory at `path` under `root` for listing; the empty path is the root itself. Paths longer than
/// PATH_MAX are opened in several steps (spec X6.52).
pub fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if path.is_empty() {
        return rustix::fs::openat(root, c".", flags, Mode::empty());
    }
    if path.len() <= LONGEST {
        return open_beneath(root, path, flags);
    }
    let cut = path[..LONGEST].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
    let first = open_beneath(root, &path[..cut], flags)?;
    open_dir(first.as_fd(), &path[cut + 1..])
}

/// Opens the regular file at `path` under `root` for reading. The caller has seen that it is one; should a fifo have
/// taken its place, opening it does not block.
pub fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    if path.len() <= LONGEST {
        return Ok(open_beneath(root, path, flags)?.into());
    }
    let (parent, name) = split(path);
    let parent = open_dir(root, parent)?;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?.into())
}

fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat2(root, path, flags, Mode::empty(), BENEATH) {
        // A kernel before 5.6, or a seccomp filter that does not know the call: component by component.
        Err(Errno::NOSYS | Errno::PERM) => {
            let (parent, name) = split(path);
            let mut dir = None::<OwnedFd>;
            for component in parent.split(|&b| b == b'/').filter(|component| !component.is_empty()) {
                let at = dir.as_ref().map_or(root, |dir| dir.as_fd());
                let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                dir = Some(rustix::fs::openat(at, component, step, Mode::empty())?);
            }
            let at = dir.as_ref().map_or(root, |dir| dir.as_fd());
            rustix::fs::openat(at, name, flags, Mode::empty())
        }
        result => result,
    }
}

/// Parent path and last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    if !dir.is_empty() {
        path.extend_from_slice(dir);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The names in a directory, in byte order, without `.` and `..`.
pub fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut raw = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// lstat of one name.
pub fn stat(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)
}

/// As [`stat`], with `None` for a name that does not exist.
pub fn stat_if_exists(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<Statx>> {
    match stat(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A path that names an entry of an open directory for the xattr calls, which have no variant relative to a
/// descriptor before Linux 6.13. They are called with the variants that do not follow a final symlink.
pub fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// One xattr of one name; `None` if it is not set or the file system has no xattrs.
pub fn xattr(dir: BorrowedFd<'_>, name: &[u8], attribute: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let path = proc_path(dir, name);
    read_value(|buffer| rustix::fs::lgetxattr(path.as_slice(), attribute, buffer))
}

/// One xattr of an open file.
pub fn fd_xattr(fd: BorrowedFd<'_>, attribute: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    read_value(|buffer| rustix::fs::fgetxattr(fd, attribute, buffer))
}

/// The names of an open file's xattrs.
pub fn fd_xattr_names(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    Ok(split_names(read_value(|buffer| rustix::fs::flistxattr(fd, buffer))?))
}

/// The names of the xattrs of one name.
pub fn xattr_names(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<CString>> {
    let path = proc_path(dir, name);
    Ok(split_names(read_value(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer))?))
}

/// The xattrs of one name, in byte order of their names.
pub fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let path = proc_path(dir, name);
    let mut names = split_names(read_value(|buffer| rustix::fs::llistxattr(path.as_slice(), buffer))?);
    names.sort_unstable();
    let mut values = Vec::with_capacity(names.len());
    for name in names {
        if let Some(value) = read_value(|buffer| rustix::fs::lgetxattr(path.as_slice(), &name, buffer))? {
            values.push((name, value));
        }
    }
    Ok(values)
}

fn split_names(list: Option<Vec<u8>>) -> Vec<CString> {
    let list = list.unwrap_or_default();
    list.split(|&b| b == 0).filter(|name| !name.is_empty()).filter_map(|name| CString::new(name).ok()).collect()
}

/// Reads a value or list: most fit a small buffer, the kernel's limit for both is 64 KiB.
fn read_value(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut small = [0; 256];
    match read(&mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    let mut large = vec![0; 64 * 1024];
    match read(&mut large) {
        Ok(len) => {
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The target of a symlink.
pub fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes())
}

/// Xattrs that overlayfs keeps its own records in: never part of an image, and never taken from one.
pub fn is_overlay_mark(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
