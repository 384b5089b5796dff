//! A sandbox in waiting: a process in namespaces of its own that has /proc, /dev and /sys ready, for the next request.
//!
//! Making these takes longer than all else that comes before a command, and depends on nothing that a request says. So the zygote has one made while the
//! step before runs. It has seen no step: each serves one request, and those that are to be insecure are made when they are asked for.

use super::cgroup::Group;
use super::kernel_files::KernelFiles;
use super::protocol::{receive, send};
use super::zygote::fork;
use super::{Privileges, child};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::os::fd::{AsFd, OwnedFd};

/// The namespaces of every sandbox. A network of its own and control groups are entered when they are known.
pub(super) const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

pub(super) struct Spare {
    pidfd: OwnedFd,
    socket: OwnedFd,
}

impl Spare {
    /// `None` where it cannot be had: a sandbox can be made without.
    pub fn fork(privileges: Privileges) -> Option<Spare> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        match fork(NAMESPACES).ok()? {
            Some(pidfd) => Some(Spare { pidfd, socket: ours }),
            None => {
                drop(ours);
                wait(theirs, privileges)
            }
        }
    }

    /// Hands a request over: its descriptors, as they came, and its control group. Gives the sandbox's process.
    pub fn hand(self, descriptors: &[OwnedFd], group: Option<&Group>) -> Option<OwnedFd> {
        let group = serde_json::to_vec(&group).ok()?;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match send(self.socket.as_fd(), &group, &descriptors) {
            Ok(()) => Some(self.pidfd),
            Err(_) => {
                self.end();
                None
            }
        }
    }

    pub fn end(self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// In the new process.
fn wait(socket: OwnedFd, privileges: Privileges) -> ! {
    let kernel = child::die_with_parent().and_then(|()| KernelFiles::new(privileges, false));
    let Ok(Some((group, descriptors))) = receive(socket.as_fd()) else { std::process::exit(0) };
    let group: Option<Group> = serde_json::from_slice(&group).unwrap_or_default();
    child::run(descriptors, kernel, privileges, group.as_ref())
}
