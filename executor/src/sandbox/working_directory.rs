//! The directory in which a command starts.
//!
//! Its path is the Dockerfile's or a container's word and is followed inside of the root only, and through none of the links of `/proc` that are no
//! paths: those lead to wherever a descriptor does, which this process still has some of.

use super::child::{Failure, Result, failed};
use crate::users::Identity;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Makes it the process's own.
pub(super) fn enter(path: &str) -> Result<()> {
    let step = || format!("chdir to cwd ({path:?}) set in config.json failed");
    let directory = open(path).map_err(|errno| match errno {
        Errno::LOOP => {
            Failure { step: step(), reason: "there are too many links, or one of /proc that is no path".into() }
        }
        errno => failed(step())(errno),
    })?;
    rustix::process::fchdir(directory).map_err(failed(step()))
}

/// X1.35: makes what is missing of the path, for `owner`.
pub(super) fn make(path: &str, owner: &Identity) -> Result<()> {
    if open(path).is_ok() {
        return Ok(());
    }
    let mut made = String::new();
    let mut parent = open("/").map_err(failed("opening the root"))?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        made.push('/');
        made.push_str(part);
        match rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                rustix::fs::chownat(&parent, part, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed(format!("giving {made} to its user")))?;
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(format!("mkdir {made}"))(errno)),
        }
        // What cannot be entered is told by `enter`.
        let Ok(next) = open(&made) else { return Ok(()) };
        parent = next;
    }
    Ok(())
}

fn open(path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}
