//! The zygote: starts sandboxes and waits for them, one thread, no memory worth speaking of.

use super::cgroup::Group;
use super::child::Failure;
use super::descriptors::close_all_but;
use super::protocol::{NetworkRequest, Reply, Request, from_memory, receive, send_reply};
use super::spare::{self, Spare};
use super::{Privileges, Security, child, join, pasta};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

pub(super) struct Running {
    pub pidfd: OwnedFd,
    /// `None` once the program has lost interest: the process has been killed, and only has to be reaped.
    pub channel: Option<OwnedFd>,
    /// Removed with the sandbox.
    pub group: Option<Group>,
}

/// Serves requests until the program's end of `control` closes; then everything that runs is killed.
///
/// The zygote is process 1 of a pid namespace: should it be killed, the kernel kills what it started, whatever that did to stay. `program` is the
/// process that it serves.
pub(super) fn serve(control: OwnedFd, privileges: Privileges, program: Pid) -> ! {
    close_all_but(&[control.as_fd()]);
    // Ctrl-C reaches the whole group of a terminal; the program decides what it means.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut running: Vec<Running> = Vec::new();
    let mut names = (1_u64..).map(|number| format!("rbuild-{}-{number}", program.as_raw_nonzero()));
    let mut spare = None;
    loop {
        let mut polled = vec![PollFd::new(&control, PollFlags::IN)];
        for sandbox in &running {
            polled.push(PollFd::new(&sandbox.pidfd, PollFlags::IN));
            polled.push(PollFd::new(sandbox.channel.as_ref().unwrap_or(&sandbox.pidfd), PollFlags::IN));
        }
        if poll(&mut polled, None).is_err() {
            continue;
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        let mut index = 0;
        let mut joining = Vec::new();
        running.retain_mut(|sandbox| {
            let (ended, spoken_to) = (ready[1 + 2 * index], ready[2 + 2 * index]);
            index += 1;
            if ended {
                report_exit(sandbox);
                return false;
            }
            if spoken_to {
                joining.extend(heed(sandbox, privileges));
            }
            true
        });
        running.append(&mut joining);
        if ready[0] {
            match receive(control.as_fd()) {
                Ok(Some((kind, descriptors))) if kind == b"n" => running.extend(connect(descriptors, privileges)),
                Ok(Some((kind, descriptors))) => {
                    let name = names.next().unwrap_or_default();
                    running.extend(start(descriptors, privileges, &name, &mut spare));
                    if kind == b"s" {
                        // For the next one, while this one runs.
                        spare = spare.or_else(|| Spare::fork(privileges));
                    }
                }
                Ok(None) | Err(_) => {
                    for sandbox in &running {
                        let _ = pidfd_send_signal(&sandbox.pidfd, Signal::KILL);
                    }
                    // The last one first: a sandbox's first process ends when those that joined it have been reaped.
                    for sandbox in running.iter().rev() {
                        let _ = waitid(WaitId::PidFd(sandbox.pidfd.as_fd()), WaitIdOptions::EXITED);
                    }
                    // Their groups go with them.
                    drop(running);
                    spare.into_iter().for_each(Spare::end);
                    std::process::exit(0);
                }
            }
        }
    }
}

/// Passes a signal on, or starts a further process. If the program has closed its end, the sandbox must go, too.
fn heed(sandbox: &mut Running, privileges: Privileges) -> Option<Running> {
    match receive(sandbox.channel.as_ref()?.as_fd()) {
        Ok(Some((_, descriptors))) if !descriptors.is_empty() => {
            return join::start(sandbox, descriptors, privileges);
        }
        Ok(Some((bytes, _))) => {
            let signal = bytes.first().and_then(|number| Signal::from_named_raw(i32::from(*number)));
            if let Some(signal) = signal {
                let _ = pidfd_send_signal(&sandbox.pidfd, signal);
            }
        }
        Err(rustix::io::Errno::AGAIN) => {}
        Ok(None) | Err(_) => {
            // Process 1 of a namespace takes all others with it.
            let _ = pidfd_send_signal(&sandbox.pidfd, Signal::KILL);
            sandbox.channel = None;
        }
    }
    None
}

fn start(descriptors: Vec<OwnedFd>, privileges: Privileges, name: &str, spare: &mut Option<Spare>) -> Option<Running> {
    let [memory, channel, ..] = descriptors.as_slice() else { return None };
    let refuse = |Failure { step, reason }| {
        send_reply(channel.as_fd(), &Reply::Refused { step, reason }, &[]);
        None
    };
    let request: Request = match from_memory(memory) {
        Ok(request) => request,
        Err(error) => return refuse(Failure { step: "reading the request".into(), reason: error.to_string() }),
    };
    let resources = &request.limits.resources;
    let group = match resources.is_limited().then(|| Group::create(resources, name)).transpose() {
        Ok(group) => group,
        Err(failure) => return refuse(failure),
    };
    let is_insecure = request.security == Security::Insecure;
    let prepared = spare.take_if(|_| !is_insecure && group.is_none());
    let pidfd = match prepared.and_then(|spare| spare.hand(&descriptors)) {
        Some(pidfd) => pidfd,
        None => match fork(spare::NAMESPACES) {
            Ok(Some(pidfd)) => pidfd,
            Ok(None) => {
                close_all_but(&descriptors.iter().map(AsFd::as_fd).collect::<Vec<_>>());
                let bench = child::bench(privileges, is_insecure, group.as_ref());
                child::run(descriptors, bench, privileges)
            }
            Err(error) => {
                return refuse(Failure { step: "creating namespaces".into(), reason: error.to_string() });
            }
        },
    };
    let channel = descriptors.into_iter().nth(1)?;
    Some(Running { pidfd, channel: Some(channel), group })
}

/// An isolated network is kept like a sandbox: it ends when its channel closes.
fn connect(descriptors: Vec<OwnedFd>, privileges: Privileges) -> Option<Running> {
    let mut descriptors = descriptors.into_iter();
    let (memory, channel) = (descriptors.next()?, descriptors.next()?);
    let refuse = |step: &str, error: std::io::Error| {
        send_reply(channel.as_fd(), &Reply::Refused { step: step.to_owned(), reason: error.to_string() }, &[]);
        None
    };
    let request: NetworkRequest = match from_memory(&memory) {
        Ok(request) => request,
        Err(error) => return refuse("reading the request", error),
    };
    match fork(libc::CLONE_NEWNS | libc::CLONE_NEWPID) {
        Ok(Some(pidfd)) => Some(Running { pidfd, channel: Some(channel), group: None }),
        Ok(None) => {
            close_all_but(&[channel.as_fd()]);
            pasta::hold(&request, channel, privileges)
        }
        Err(error) => refuse("creating namespaces", error),
    }
}

/// Forks as `flags` say: the child's descriptor in the parent, `None` in the child.
pub(super) fn fork(flags: libc::c_int) -> std::io::Result<Option<OwnedFd>> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is valid and asks for nothing.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags | libc::CLONE_PIDFD) as u64;
    args.pidfd = &raw mut pidfd as u64;
    // A sibling has that of the process that asks for it.
    args.exit_signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    // SAFETY: without CLONE_VM and without a stack this is a fork; the process has one thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match result {
        -1 => Err(std::io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the kernel has just opened it for us.
        _ => Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

fn report_exit(sandbox: &Running) {
    let status = waitid(WaitId::PidFd(sandbox.pidfd.as_fd()), WaitIdOptions::EXITED);
    let code = match status {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            _ => 255,
        },
        _ => 255,
    };
    let out_of_memory = sandbox.group.as_ref().is_some_and(Group::ran_out_of_memory);
    if let Some(channel) = &sandbox.channel {
        send_reply(channel.as_fd(), &Reply::Exited { code, out_of_memory }, &[]);
    }
}
