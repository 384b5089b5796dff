//! Owner, mode, times and extended attributes of copied entries, always in this order: a chown clears setuid bits and
//! capabilities, so it comes first (X3.26).

use super::Owner;
use super::error::{Context, Error};

use super::stat::{self, Stat};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, XattrFlags};
use rustix::io::Errno;
use solver::op::Chmod;
use std::ffi::{CStr, CString};

/// What `--chown` and `--chmod` make of a source's attributes.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub owner: Owner,
    pub chmod: Option<&'a Chmod>,
}

impl Attributes<'_> {
    pub fn owner_of(&self, source: &Stat) -> (u32, u32) {
        match self.owner {
            Owner::Keep => (source.uid, source.gid),
            Owner::Root => (0, 0),
            Owner::Set(uid, gid) => (uid, gid),
        }
    }

    /// Mode of a copied file or directory, all 12 bits (X3.27, X3.28).
    pub fn mode_of(&self, source: &Stat) -> Result<u32, Error> {
        match self.chmod {
            None => Ok(source.mode),
            Some(Chmod::Octal(mode)) => Ok(mode & 0o7777),
            Some(Chmod::Symbolic(spec)) => parser::chmod::apply_symbolic(spec, source.mode, source.is_dir())
                .map_err(|reason| Error::Chmod { spec: spec.clone(), reason: reason.to_string() }),
        }
    }

    /// Mode and owner of directories that are made on the way to a destination (X3.15).
    pub fn new_dir(&self) -> super::resolve::NewDir {
        let mode = match self.chmod {
            // Directories made on the way lose the special bits in the norm, whatever X3.27 says of entries.
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        };
        let owner = match self.owner {
            Owner::Keep | Owner::Root => (0, 0),
            Owner::Set(uid, gid) => (uid, gid),
        };
        super::resolve::NewDir { mode, owner, time: None }
    }

    /// Gives a file or directory, open as `target`, the attributes of `source`. Calls that would change nothing are left out: they
    /// cost a journal entry each, and on an overlay a copy-up. Says whether the source has extended attributes.
    pub fn apply(
        &self,
        source: BorrowedFd<'_>,
        source_stat: &Stat,
        target: BorrowedFd<'_>,
        path: &[u8],
    ) -> Result<bool, Error> {
        let now = stat::of(target).context("stat", path)?;
        let (uid, gid) = self.owner_of(source_stat);
        let mode = self.mode_of(source_stat)?;
        let chown = (now.uid, now.gid) != (uid, gid);
        if chown {
            rustix::fs::fchown(target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context("chown", path)?;
        }
        // A chown may have cleared bits.
        if now.mode != mode || chown && mode & 0o7000 != 0 {
            rustix::fs::fchmod(target, Mode::from(mode)).context("chmod", path)?;
        }
        rustix::fs::futimens(target, &source_stat.times()).context("utimes", path)?;
        Ok(self.copy_xattrs(source, target, path))
    }

    /// Of a link, fifo or device, by name.
    pub fn apply_at(&self, dir: BorrowedFd<'_>, name: &[u8], source: &Stat, path: &[u8]) -> Result<(), Error> {
        let (uid, gid) = self.owner_of(source);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).context("chown", path)?;
        if source.kind != FileType::Symlink {
            let mode = Mode::from(self.mode_of(source)?);
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).context("chmod", path)?;
        }
        rustix::fs::utimensat(dir, name, &source.times(), AtFlags::SYMLINK_NOFOLLOW).context("utimes", path)
    }

    /// Failures are none of the build's, and one name that fails does not stop the others (X3.37).
    fn copy_xattrs(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &[u8]) -> bool {
        let attributes = xattrs(source);
        for (name, value) in &attributes {
            // It would bring the source's permissions back.
            if self.chmod.is_some() && name.as_bytes() == b"system.posix_acl_access" {
                continue;
            }
            set_xattr(target, name, value, path);
        }
        !attributes.is_empty()
    }
}

pub(crate) fn set_xattr(target: BorrowedFd<'_>, name: &CStr, value: &[u8], path: &[u8]) {
    if let Err(errno) = rustix::fs::fsetxattr(target, name, value, XattrFlags::empty()) {
        tracing::debug!(path = super::path::shown(path), ?name, %errno, "extended attribute not copied");
    }
}

/// Attributes that belong to the place, not to the file (X3.37).
pub(crate) fn is_copied(name: &[u8]) -> bool {
    name != b"security.selinux" && !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

/// The extended attributes that a copy takes along, by name. Those that cannot be read are left out.
pub(crate) fn xattrs(fd: impl AsFd) -> Vec<(CString, Vec<u8>)> {
    let fd = fd.as_fd();
    let mut list = [0; 1024];
    let names = match rustix::fs::flistxattr(fd, &mut list[..]) {
        Ok(0) => return Vec::new(),
        Ok(length) => list[..length].to_vec(),
        Err(Errno::RANGE) => {
            // The kernel's limit for a list.
            let mut list = vec![0; 64 * 1024];
            match rustix::fs::flistxattr(fd, list.as_mut_slice()) {
                Ok(length) => list[..length].to_vec(),
                Err(_) => return Vec::new(),
            }
        }
        Err(_) => return Vec::new(),
    };
    let mut found = Vec::new();
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty() && is_copied(name)) {
        let Ok(name) = CString::new(name) else { continue };
        // The kernel's limit for a value.
        let mut value = vec![0; 64 * 1024];
        if let Ok(length) = rustix::fs::fgetxattr(fd, &name, value.as_mut_slice()) {
            value.truncate(length);
            value.shrink_to_fit();
            found.push((name, value));
        }
    }
    found.sort();
    found
}
