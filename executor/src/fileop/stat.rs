//! The attributes of one entry, with the same types on every architecture.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, StatxFlags, Timespec, Timestamps};
use rustix::io::Result;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub kind: FileType,
    /// Permissions with setuid, setgid and sticky: 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Units of 512 bytes on disk.
    pub blocks: u64,
    pub nlink: u32,
    pub dev: u64,
    pub ino: u64,
    pub rdev: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Time {
    pub fn timespec(self) -> Timespec {
        Timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds.into() }
    }
}

impl Stat {
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// What tells one state of a file from another (X6.44).
    pub fn version(&self) -> (u64, u64, u64, Time, Time) {
        (self.dev, self.ino, self.size, self.mtime, self.ctime)
    }

    pub fn times(&self) -> Timestamps {
        Timestamps { last_access: self.atime.timespec(), last_modification: self.mtime.timespec() }
    }
}

/// Of what `fd` is open on; an `O_PATH` descriptor will do.
pub(crate) fn of(fd: impl AsFd) -> Result<Stat> {
    statx(fd.as_fd(), b"", AtFlags::EMPTY_PATH)
}

/// Of an entry of `dir`; links are not followed.
pub(crate) fn at(dir: impl AsFd, name: &[u8]) -> Result<Stat> {
    statx(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
}

fn statx(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Stat> {
    let s = rustix::fs::statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)?;
    let time = |t: rustix::fs::StatxTimestamp| Time { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    Ok(Stat {
        kind: FileType::from_raw_mode(u32::from(s.stx_mode)),
        mode: u32::from(s.stx_mode) & 0o7777,
        uid: s.stx_uid,
        gid: s.stx_gid,
        size: s.stx_size,
        blocks: s.stx_blocks,
        nlink: s.stx_nlink,
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
    })
}
