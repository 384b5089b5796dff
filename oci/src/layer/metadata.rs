//! Owners, xattrs, modes and times of entries that are being written.

use super::{Error, dir};
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// The last second of 2261: later times do not fit 64 bits of nanoseconds, and become 1970 as negative ones do (spec X4.39).
const LATEST: i64 = 9_223_372_036;

/// How a problem that does not stop the unpacking is told.
pub type Warn<'a> = &'a mut dyn FnMut(String);

/// An entry: its directory, its name there, and its path for messages.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub dir: BorrowedFd<'a>,
    pub name: &'a [u8],
    pub path: &'a [u8],
}

impl Target<'_> {
    /// Does not follow a symlink. With `single_id`, an owner that the user namespace does not know is told in a warning.
    pub fn set_owner(&self, uid: u64, gid: u64, single_id: bool, warn: Warn<'_>) -> Result<(), Error> {
        // The highest number means "leave as it is" to the kernel.
        let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        let (Some(uid), Some(gid)) = (id(uid), id(gid)) else {
            return Err(Error::entry(self.path, format!("its owner {uid}:{gid} is not a valid pair of ids")));
        };
        let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match rustix::fs::chownat(self.dir, self.name, owner, group, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::INVAL) if single_id => {
                warn(format!("{} belongs to {uid}:{gid} in the image", super::shown(self.path)));
                Ok(())
            }
            Err(Errno::INVAL) => Err(Error::entry(
                self.path,
                format!(
                    "its owner {uid}:{gid} has no counterpart in this user namespace: \
                     more subordinate ids are needed in /etc/subuid and /etc/subgid"
                ),
            )),
            Err(error) => Err(Error::io("set the owner of", self.path, error)),
        }
    }

    /// Of anything but a symlink.
    pub fn set_mode(&self, mode: u32) -> Result<(), Error> {
        rustix::fs::chmodat(self.dir, self.name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
            .map_err(|e| Error::io("set the mode of", self.path, e))
    }

    /// Does not follow a symlink. The access time is at least `mtime`.
    pub fn set_times(&self, mtime: (i64, u32), atime: Option<(i64, u32)>) -> Result<(), Error> {
        rustix::fs::utimensat(self.dir, self.name, &timestamps(mtime, atime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Error::io("set the times of", self.path, e))
    }

    /// Does not follow a symlink. `plain` says that this is a file or directory, which may have `user.` xattrs.
    /// What an image must not set, or the file system cannot store, is left out with a warning (spec X4.40).
    pub fn set_xattr(&self, name: &[u8], value: &[u8], plain: bool, warn: Warn<'_>) -> Result<(), Error> {
        let shown = super::shown(name);
        let what = || format!("{}: xattr {shown}", super::shown(self.path));
        if name.starts_with(b"trusted.") || dir::is_overlay_mark(name) {
            warn(format!("{} is not taken from images", what()));
            return Ok(());
        }
        let path = dir::proc_path(self.dir, self.name);
        match rustix::fs::lsetxattr(path.as_slice(), name, value, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => {
                warn(format!("{} is not supported by the file system", what()));
                Ok(())
            }
            Err(Errno::PERM) if name.starts_with(b"user.") && !plain => {
                warn(format!("{} cannot be set on a special file", what()));
                Ok(())
            }
            Err(error) => Err(Error::io("set an xattr of", self.path, error)),
        }
    }

    /// Marks a directory as hiding what is below it.
    pub fn set_opaque(&self, attribute: &CStr) -> Result<(), Error> {
        let path = dir::proc_path(self.dir, self.name);
        rustix::fs::lsetxattr(path.as_slice(), attribute, b"y", XattrFlags::empty())
            .map_err(|e| Error::io("mark as opaque", self.path, e))
    }
}

pub fn timestamps(mtime: (i64, u32), atime: Option<(i64, u32)>) -> Timestamps {
    let bounded = |(seconds, nanos): (i64, u32)| match (0..=LATEST).contains(&seconds) {
        true => Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
        false => Timespec { tv_sec: 0, tv_nsec: 0 },
    };
    let last_modification = bounded(mtime);
    let key = |time: &Timespec| (time.tv_sec, time.tv_nsec);
    let last_access = atime.map(bounded).filter(|atime| key(atime) > key(&last_modification));
    Timestamps { last_access: last_access.unwrap_or(last_modification), last_modification }
}
