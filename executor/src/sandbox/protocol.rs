//! What the program and the zygote say to each other.
//!
//! A request is one byte with descriptors: a memory file with the [`Request`] (`r`; `s` if more will follow) or [`NetworkRequest`] (`n`) as JSON, the channel for the
//! replies, and those that the request counts. Replies are datagrams on the channel, one [`Reply`] as JSON each, the
//! last one an exit. Closing the channel kills the sandbox. What the program sends on it is a signal's number, or, with
//! descriptors, a request for a further process in the sandbox.

use super::capabilities::Capabilities;
use super::limits::Limits;
use super::network::PortMapping;
use crate::users::Identity;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// The kernel passes no more descriptors in one message.
const MAX_DESCRIPTORS: usize = 253;
const MAX_REPLY: usize = 64 * 1024;

/// As [`Network`](super::Network). The descriptor of a namespace to join follows standard error's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RequestNetwork {
    Host,
    None,
    Joined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// These capabilities, Docker's seccomp profile for them, masked and read-only paths, no devices.
    Confined(Capabilities),
    /// `RUN --security=insecure`: all that rbuild itself may do (R1.10.3).
    Insecure,
}

impl Default for Security {
    fn default() -> Self {
        Security::Confined(Capabilities::default())
    }
}

/// A sandbox to start. Descriptors follow in this order: root, stdin, stdout, stderr, one that is closed when the command takes over, one for each mount
/// that has one, and that of [`secret_env`](Request::secret_env). Or a process in a sandbox that runs: descriptors as [`super::join`] says, and what would make a
/// world is left empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Whether there are variables in a memory file, each ended by a zero byte. No message holds a secret.
    pub secret_env: bool,
    pub cwd: String,
    pub user: Identity,
    pub hostname: String,
    pub network: RequestNetwork,
    pub security: Security,
    pub limits: Limits,
    pub readonly_root: bool,
    pub mounts: Vec<RequestMount>,
    /// Of the files in /etc.
    pub hosts: String,
    pub resolv_conf: String,
    /// Rows and columns.
    pub terminal: Option<(u16, u16)>,
}

/// An isolated network to make. Its reply is [`Reply::Network`]; closing the channel ends it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NetworkRequest {
    /// The path of pasta.
    pub program: PathBuf,
    pub ports: Vec<PortMapping>,
    /// A directory of the host that is mounted over in a namespace of its own.
    pub scratch_point: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RequestMount {
    pub target: String,
    pub readonly: bool,
    pub source: RequestSource,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum RequestSource {
    /// The next descriptor.
    Detached {
        is_directory: bool,
    },
    /// The next descriptor.
    Device,
    /// Bytes, 0 for the kernel's default.
    Tmpfs {
        size: u64,
    },
    File {
        content: String,
        mode: u32,
    },
    /// The next descriptor, a memory file.
    Secret {
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

impl Request {
    /// Whether the step is handed secrets.
    pub fn has_secrets(&self) -> bool {
        self.secret_env || self.mounts.iter().any(|mount| matches!(mount.source, RequestSource::Secret { .. }))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The terminal's master comes with it.
    Terminal,
    /// The network is connected; the namespace's descriptor comes with it.
    Network,
    /// Paths that had to be made in the root for mounts, in order of making.
    Stubs(Vec<String>),
    /// The sandbox has the `/proc` of what rbuild runs in.
    SharesProc,
    /// There is no process.
    Refused {
        step: String,
        reason: String,
    },
    /// Something before exec failed; the exit follows.
    Failed {
        step: String,
        reason: String,
    },
    NotFound,
    NotExecutable,
    /// The first bytes of what the kernel did not know how to start; of a script's interpreter.
    WrongFormat(Vec<u8>),
    Exited {
        /// The exit code, or 128 and the signal.
        code: i32,
        out_of_memory: bool,
    },
}

/// Sends `bytes` with descriptors.
pub(crate) fn send(socket: BorrowedFd, bytes: &[u8], descriptors: &[BorrowedFd]) -> rustix::io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(rustix::io::Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL))
        .map(|_| ())
}

/// Receives one message; `None` at the end.
pub(crate) fn receive(socket: BorrowedFd) -> rustix::io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_REPLY];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    if message.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    Ok(Some((bytes, descriptors)))
}

/// A request in a memory file: its size has no limit that matters.
pub(crate) fn to_memory(request: &impl Serialize) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("rbuild-request", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    // In one call: the file is not buffered.
    file.write_all(&serde_json::to_vec(request)?)?;
    Ok(file.into())
}

pub(crate) fn from_memory<T: DeserializeOwned>(memory: &OwnedFd) -> io::Result<T> {
    let mut file = std::fs::File::from(memory.try_clone()?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub(super) fn send_reply(channel: BorrowedFd, reply: &Reply, descriptors: &[BorrowedFd]) {
    let bytes = serde_json::to_vec(reply).unwrap_or_default();
    // The other side may have lost interest.
    let _ = send(channel, &bytes, descriptors);
}
