//! Entering the user namespace, and starting the zygote.
//!
//! Root that may mount needs none. Everybody else gets one, with as many ids as can be had (R1.12.13): root without that right, as in most
//! containers, passes on the ids that it has; a user those that /etc/subuid and /etc/subgid grant, mapped by newuidmap and newgidmap; and where
//! those are missing or fail, one id is better than none.

use super::launcher::Launcher;
use super::refusal::Refusal;
use super::subordinate::{self, Lack, Ranges};
use super::{Privileges, SandboxError, zygote};
use crate::emulation::Emulation;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitOptions, getegid, geteuid, getpid, waitpid};
use rustix::thread::{CapabilitySet, UnshareFlags, unshare_unsafe};
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;

/// The program's place after [`enter`].
pub struct Entered {
    pub launcher: Launcher,
    pub privileges: Privileges,
    /// What the user should know of it: why there are fewer ids than wished for, and how to have more.
    pub notice: Option<String>,
}

/// Enters a user namespace unless the program is root, and starts the zygote. Must be called before there is a second
/// thread: a user namespace can only be entered by a process with one.
pub fn enter() -> Result<Entered, SandboxError> {
    let owns_namespace = !may_mount();
    let (privileges, notice) = match owns_namespace {
        true => enter_user_namespace()?,
        false => (privileges_here(), None),
    };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(SandboxError::errno("create a socket"))?;
    let program = getpid();
    match zygote::fork(libc::CLONE_NEWPID).map_err(SandboxError::io("fork"))? {
        // The end of the program, however it comes, closes its end of the socket: the zygote cleans up and follows.
        None => zygote::serve(theirs, privileges, program),
        Some(_) => {
            let launcher = Launcher::new(ours, Emulation::new(owns_namespace));
            Ok(Entered { launcher, privileges, notice })
        }
    }
}

/// Uid 0 alone says little: in a container it seldom has the capabilities of root.
fn may_mount() -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    geteuid().is_root() && effective.is_ok_and(|set| set.contains(CapabilitySet::SYS_ADMIN))
}

/// Root may be that of a container with a user namespace: there, the rules of those hold.
fn privileges_here() -> Privileges {
    // PROC_USER_INIT_INO of the kernel's proc_ns.h.
    if fs::read_link("/proc/self/ns/user").is_ok_and(|name| name.as_os_str() == "user:[4026531837]") {
        return Privileges::Root;
    }
    match id_map("/proc/self/uid_map").iter().map(|(_, length)| u64::from(*length)).sum::<u64>() {
        1 => Privileges::SingleId,
        _ => Privileges::SubordinateIds,
    }
}

/// The ids that there are: the first of each range, and its length.
fn id_map(path: &str) -> Vec<(u32, u32)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let range = |line: &str| {
        let mut fields = line.split_whitespace().map(str::parse);
        Some((fields.next()?.ok()?, fields.nth(1)?.ok()?))
    };
    text.lines().filter_map(range).collect()
}

/// Who writes the maps of the new namespace.
enum Mapping {
    /// The program itself, from outside: it is root, and all its ids stay what they are.
    Own { uids: Vec<(u32, u32)>, gids: Vec<(u32, u32)> },
    /// newuidmap and newgidmap.
    Granted(Ranges),
}

fn enter_user_namespace() -> Result<(Privileges, Option<String>), SandboxError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let mapping = match uid {
        0 => Mapping::Own { uids: id_map("/proc/self/uid_map"), gids: id_map("/proc/self/gid_map") },
        _ => match subordinate::ranges_of(uid) {
            Ok(ranges) => Mapping::Granted(ranges),
            Err(lack) => {
                unshare()?;
                return single_id(uid, gid, lack);
            }
        },
    };
    // The maps can only be written from outside: by a child that stays in the old namespace while its parent enters the new one.
    let (mut go, mut entered) = io::pipe().map_err(SandboxError::io("create a pipe"))?;
    let (mut result, mut report) = io::pipe().map_err(SandboxError::io("create a pipe"))?;
    let parent = getpid().as_raw_nonzero();
    // SAFETY: the process has one thread.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(SandboxError::System { action: "fork", source: io::Error::last_os_error() }),
        0 => {
            drop(entered);
            let mut byte = [0];
            let written = match go.read(&mut byte) {
                Ok(1) => write_maps(parent.get(), &mapping, (uid, gid)),
                _ => Ok(()),
            };
            if let Err(message) = written {
                let _ = report.write_all(message.as_bytes());
            }
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(0) }
        }
        child => child,
    };
    drop(report);
    unshare()?;
    entered.write_all(b"x").map_err(SandboxError::io("write to a pipe"))?;
    let mut message = String::new();
    result.read_to_string(&mut message).map_err(SandboxError::io("read from a pipe"))?;
    let _ = waitpid(rustix::process::Pid::from_raw(child), WaitOptions::empty());
    if !message.is_empty() {
        // Once the users are mapped, they stay so.
        return match id_map("/proc/self/uid_map").is_empty() {
            true => single_id(uid, gid, Lack::Refused { message: message.trim().to_owned() }),
            false => Err(SandboxError::IdMapping(message.trim().to_owned())),
        };
    }
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (root_user, root_group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    set_thread_res_gid(root_group, root_group, root_group).map_err(refused)?;
    set_thread_res_uid(root_user, root_user, root_user).map_err(refused)?;
    set_thread_groups(&[]).map_err(refused)?;
    check_capabilities()?;
    Ok((Privileges::SubordinateIds, None))
}

const BARE_ROOT: &str = "this is root without its capabilities, as in a container that was given none: let it have SETUID, SETGID and SETFCAP \
    (Docker: --cap-add, Kubernetes: capabilities: {add: […]}), or run rbuild as another user";

/// Maps the one id that everybody may map, in the new namespace.
fn single_id(uid: u32, gid: u32, lack: Lack) -> Result<(Privileges, Option<String>), SandboxError> {
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|error| match error.raw_os_error() {
            _ if uid == 0 => SandboxError::NoUserNamespace { source: error, advice: BARE_ROOT.into() },
            Some(code) => refused(Errno::from_raw_os_error(code)),
            None => SandboxError::System { action: "map ids", source: error },
        })
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    check_capabilities()?;
    let notice = format!(
        "all files of steps belong to one user, and no step can run as another than root: {}",
        lack.advice(uid)
    );
    Ok((Privileges::SingleId, Some(notice)))
}

fn unshare() -> Result<(), SandboxError> {
    // SAFETY: the namespaces hold for the whole process, which has one thread; no descriptor table is taken apart.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }.map_err(refused)
}

/// A security module may let the namespace be made and then deny what it is for (R1.12.12).
fn check_capabilities() -> Result<(), SandboxError> {
    match mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC) {
        Err(errno @ (Errno::PERM | Errno::ACCESS)) => Err(refused(errno)),
        // Where that is no mount, sandboxes will say so.
        _ => Ok(()),
    }
}

fn refused(errno: Errno) -> SandboxError {
    SandboxError::NoUserNamespace { source: errno.into(), advice: Refusal::observe(errno).advice() }
}

/// In the child.
fn write_maps(parent: i32, mapping: &Mapping, (uid, gid): (u32, u32)) -> Result<(), String> {
    match mapping {
        Mapping::Own { uids, gids } => {
            for (file, ranges) in [("uid_map", uids), ("gid_map", gids)] {
                let lines: String =
                    ranges.iter().map(|(first, length)| format!("{first} {first} {length}\n")).collect();
                fs::write(format!("/proc/{parent}/{file}"), lines)
                    .map_err(|error| format!("writing {file}: {error}"))?;
            }
            Ok(())
        }
        Mapping::Granted(ranges) => {
            map_granted("newuidmap", parent, uid, &ranges.uids)?;
            map_granted("newgidmap", parent, gid, &ranges.gids)
        }
    }
}

/// Maps 0 to the user's own id, and 1 and up to the ranges.
fn map_granted(program: &str, parent: i32, own: u32, ranges: &[(u32, u32)]) -> Result<(), String> {
    let mut arguments = vec![parent.to_string(), "0".into(), own.to_string(), "1".into()];
    let mut next = 1;
    for (first, length) in ranges {
        arguments.extend([next, *first, *length].map(|number| number.to_string()));
        next += length;
    }
    let path = subordinate::program(program).ok_or_else(|| format!("{program} is gone"))?;
    let output = Command::new(path).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
