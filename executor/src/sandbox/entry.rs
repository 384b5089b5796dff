//! Entering the user namespace, and starting the zygote.

use super::launcher::Launcher;
use super::{Privileges, SandboxError, zygote};
use crate::emulation::Emulation;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitOptions, getegid, geteuid, getpid, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;

/// The program's place after [`enter`].
pub struct Entered {
    pub launcher: Launcher,
    pub privileges: Privileges,
}

/// Enters a user namespace unless the program is root, and starts the zygote. Must be called before there is a second
/// thread: a user namespace can only be entered by a process with one.
pub fn enter() -> Result<Entered, SandboxError> {
    let owns_namespace = !geteuid().is_root();
    let privileges = if owns_namespace { enter_user_namespace()? } else { privileges_of_root() };
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(SandboxError::errno("create a socket"))?;
    let program = getpid();
    match zygote::fork(libc::CLONE_NEWPID).map_err(SandboxError::io("fork"))? {
        // The end of the program, however it comes, closes its end of the socket: the zygote cleans up and follows.
        None => zygote::serve(theirs, privileges, program),
        Some(_) => Ok(Entered { launcher: Launcher::new(ours, Emulation::new(owns_namespace)), privileges }),
    }
}

/// Uid 0 may be that of a container: there, the rules of user namespaces hold.
fn privileges_of_root() -> Privileges {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let lengths = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    match lengths.sum::<u64>() {
        4_294_967_295 => Privileges::Root,
        1 => Privileges::SingleId,
        _ => Privileges::SubordinateIds,
    }
}

fn enter_user_namespace() -> Result<Privileges, SandboxError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let ranges = subordinate_ranges(uid);
    let Some((uids, gids)) = ranges else {
        unshare()?;
        write_file("/proc/self/setgroups", "deny")?;
        write_file("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write_file("/proc/self/gid_map", &format!("0 {gid} 1"))?;
        return Ok(Privileges::SingleId);
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
                Ok(1) => write_maps(parent.get(), (uid, uids), (gid, gids)),
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
    if let Some((program, output)) = message.split_once(": ") {
        let program = if program == "newgidmap" { "newgidmap" } else { "newuidmap" };
        return Err(SandboxError::IdMapping { program, output: output.trim().to_owned() });
    }
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (root_user, root_group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    set_thread_res_gid(root_group, root_group, root_group).map_err(SandboxError::errno("become group 0"))?;
    set_thread_res_uid(root_user, root_user, root_user).map_err(SandboxError::errno("become user 0"))?;
    set_thread_groups(&[]).map_err(SandboxError::errno("leave the groups"))?;
    Ok(Privileges::SubordinateIds)
}

fn unshare() -> Result<(), SandboxError> {
    // SAFETY: the namespaces hold for the whole process, which has one thread; no descriptor table is taken apart.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .map_err(|errno| SandboxError::NoUserNamespace(errno.into()))
}

fn write_file(path: &'static str, text: &str) -> Result<(), SandboxError> {
    fs::write(path, text).map_err(SandboxError::io("map ids"))
}

/// The user's first ranges in /etc/subuid and /etc/subgid, if the programs that may map them are there.
fn subordinate_ranges(uid: u32) -> Option<((u32, u32), (u32, u32))> {
    let installed = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(program).exists())
            || std::path::Path::new("/usr/bin").join(program).exists()
    };
    if !installed("newuidmap") || !installed("newgidmap") {
        return None;
    }
    let name = user_name(uid);
    let range = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let owner = fields.next()?;
            if Some(owner) != name.as_deref() && owner.parse() != Ok(uid) {
                return None;
            }
            Some((fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?))
        })
    };
    Some((range("/etc/subuid")?, range("/etc/subgid")?))
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    })
}

/// In the child: maps 0 to the user, and 1 and up to the range.
fn write_maps(parent: i32, uids: (u32, (u32, u32)), gids: (u32, (u32, u32))) -> Result<(), String> {
    for (program, (own, (start, length))) in [("newuidmap", uids), ("newgidmap", gids)] {
        let arguments = [
            parent.to_string(),
            "0".into(),
            own.to_string(),
            "1".into(),
            "1".into(),
            start.to_string(),
            length.to_string(),
        ];
        let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}
