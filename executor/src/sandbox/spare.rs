//! A sandbox in waiting: a process in namespaces of its own for the next request.
//!
//! Making its [bench](super::bench) takes longer than all else that comes before a command. So the zygote has one made while the step before runs. It has seen
//! no step: each serves one request. Sandboxes with limits, and insecure ones, are made when they are asked for.

use super::descriptors::close_all_but;
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

    /// Hands over a request's descriptors, as they came. Gives the sandbox's process.
    pub fn hand(self, descriptors: &[OwnedFd]) -> Option<OwnedFd> {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match send(self.socket.as_fd(), b"r", &descriptors) {
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
    close_all_but(&[socket.as_fd()]);
    let bench = child::bench(privileges, false, None);
    let Ok(Some((_, descriptors))) = receive(socket.as_fd()) else { std::process::exit(0) };
    child::run(descriptors, bench, privileges)
}
