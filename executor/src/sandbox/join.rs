//! Further processes in a sandbox that runs already.
//!
//! The zygote is the parent of the sandbox's first process, so it may name that by its descriptor for as long as it likes. A pid namespace is entered by
//! children only, and whoever is not root cannot go back to the machine's own. So the zygote forks a process that enters it, forks once more and ends; that
//! last one is a *sibling*, a child of the zygote, which waits for it as for all others. It joins the other namespaces itself, and goes the way of every first
//! process from there (see [`super::child`]).

use super::child::{Failure, Result, die_with_parent, failed, open_terminal, set_up_streams, start_session, take_over};
use super::descriptors::close_all_but;
use super::protocol::{Reply, Request, from_memory, receive, send, send_reply};
use super::zygote::{Running, fork};
use super::{Privileges, working_directory};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, set_dumpable_behavior, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::convert::Infallible;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Starts what is asked for in `sandbox`. Descriptors: memory with the request, the channel for the replies, standard input, output
/// and error.
pub(super) fn start(sandbox: &Running, descriptors: Vec<OwnedFd>, privileges: Privileges) -> Option<Running> {
    let mut descriptors = descriptors.into_iter();
    let (memory, channel) = (descriptors.next()?, descriptors.next()?);
    let refuse = |step: &str, reason: String| {
        send_reply(channel.as_fd(), &Reply::Refused { step: step.to_owned(), reason }, &[]);
        None
    };
    let request: Request = match from_memory(&memory) {
        Ok(request) => request,
        Err(error) => return refuse("reading the request", error.to_string()),
    };
    let (ours, theirs) = match socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None) {
        Ok(pair) => pair,
        Err(errno) => return refuse("creating a socket", errno.to_string()),
    };
    let between = match fork(0) {
        Ok(Some(between)) => between,
        Ok(None) => {
            let stdio: Vec<OwnedFd> = descriptors.collect();
            let others = [sandbox.pidfd.as_fd(), theirs.as_fd(), channel.as_fd()];
            close_all_but(&stdio.iter().map(AsFd::as_fd).chain(others).collect::<Vec<_>>());
            let own = namespaces(sandbox.pidfd.as_fd()).and_then(|own| hide().map(|()| own));
            let inside = own.and_then(|own| Ok((fork_inside(sandbox.pidfd.as_fd(), theirs.as_fd())?, own)));
            match inside {
                Ok((Side::Between, _)) => std::process::exit(0),
                Ok((Side::Inside, own)) => {
                    let Err(Failure { step, reason }) = run(sandbox, &request, own, stdio, &channel, privileges);
                    send_reply(channel.as_fd(), &Reply::Failed { step, reason }, &[]);
                    std::process::exit(255)
                }
                Err(Failure { step, reason }) => {
                    refuse(&step, reason);
                    std::process::exit(1)
                }
            }
        }
        Err(error) => return refuse("creating a process", error.to_string()),
    };
    drop(theirs);
    // It says nothing if it failed, and has told the program why.
    let received = receive(ours.as_fd());
    let _ = waitid(WaitId::PidFd(between.as_fd()), WaitIdOptions::EXITED);
    let pidfd = received.ok()??.1.into_iter().next()?;
    Some(Running { pidfd, channel: Some(channel), group: None })
}

/// From others in the container, which may be root there: until exec this process has the host's program, memory and descriptors, and at the end no
/// more rights than they have, so that they could trace it (CVE-2016-9962). Exec undoes this.
fn hide() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("hiding the process"))
}

enum Side {
    Between,
    Inside,
}

/// Enters the pid namespace of `target`, forks a sibling there, and sends its descriptor home.
fn fork_inside(target: BorrowedFd, home: BorrowedFd) -> Result<Side> {
    let step = || failed("joining the container");
    move_into_thread_name_spaces(target, ThreadNameSpaceType::PROCESS_ID).map_err(step())?;
    let forked = fork(libc::CLONE_PARENT)
        .map_err(|error| Failure { step: "joining the container".into(), reason: error.to_string() })?;
    match forked {
        Some(pidfd) => {
            send(home, b"p", &[pidfd.as_fd()]).map_err(step())?;
            Ok(Side::Between)
        }
        None => Ok(Side::Inside),
    }
}

fn run(
    sandbox: &Running,
    request: &Request,
    namespaces: ThreadNameSpaceType,
    stdio: Vec<OwnedFd>,
    channel: &OwnedFd,
    privileges: Privileges,
) -> Result<Infallible> {
    die_with_parent()?;
    start_session()?;
    let [stdin, stdout, stderr] = stdio
        .try_into()
        .map_err(|_| Failure { step: "reading the request".into(), reason: "descriptors are missing".into() })?;
    if let Some(group) = &sandbox.group {
        group.join()?;
    }
    move_into_thread_name_spaces(sandbox.pidfd.as_fd(), namespaces).map_err(failed("joining the container"))?;
    let terminal = request.terminal.map(|(rows, columns)| open_terminal(rows, columns, channel)).transpose()?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    set_up_streams(terminal.as_ref(), [&stdin, &stdout, &stderr])?;
    working_directory::enter(&request.cwd)?;
    take_over(request, &[], channel, privileges)
}

/// Those that the target has to itself. Joining another's, the network's of the host for one, would need rights over that.
fn namespaces(target: BorrowedFd) -> Result<ThreadNameSpaceType> {
    let entries = fs::read_to_string(format!("/proc/self/fdinfo/{}", target.as_raw_fd())).unwrap_or_default();
    let pid = entries.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim).unwrap_or_default();
    let mut own = ThreadNameSpaceType::empty();
    for (name, kind) in [
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("net", ThreadNameSpaceType::NETWORK),
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ] {
        let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/{name}"));
        let theirs = link(pid).map_err(|error| Failure {
            step: format!("looking at the container's {name} namespace"),
            reason: error.to_string(),
        })?;
        if link("self").is_ok_and(|ours| ours != theirs) {
            own |= kind;
        }
    }
    Ok(own)
}
