//! Runs processes in sandboxes (X1).
//!
//! [`enter`] is the first thing that a program does, while it has one thread. Started by an ordinary user, it moves the whole program
//! into a user namespace, in which it is root over the user's subordinate ids. Then it forks the *zygote*: a small process with one thread
//! that starts all sandboxes. Forking it costs little and touches no lock; processes that it started die with it, and it dies when the
//! program does. The program talks to it through a [`Launcher`].
//!
//! A sandbox is a process in new pid, mount, ipc and uts namespaces whose root is a [detached mount](crate::mount) that it is handed. The
//! command is process 1 of its namespace: when it ends, the kernel ends everything that it left behind.
//!
//! - [`entry`], [`subordinate`], [`refusal`]: the user namespace, the ids in it, and why there may be none
//! - [`launcher`], [`protocol`], [`zygote`]: the program's side, the messages, the zygote's side
//! - [`network`], [`pasta`], [`name_service`]: isolated networks; the files by which names are found
//! - [`spare`]: a sandbox in waiting
//! - [`child`], [`bench`], [`rootfs`], [`seccomp`]: what happens between fork and exec
//! - [`capabilities`], [`limits`], [`cgroup`]: what a sandbox may do and use up
//! - [`join`]: further processes in a sandbox that runs

// The only unsafe code of the workspace: fork, exec and a few system calls without a safe wrapper.
#![allow(unsafe_code)]

mod bench;
mod capabilities;
mod cgroup;
mod child;
mod descriptors;
mod entry;
mod join;
mod launcher;
mod limits;
mod mounts;
mod name_service;
mod network;
mod pasta;
mod protocol;
mod refusal;
mod rootfs;
mod seccomp;
mod spare;
mod subordinate;
mod syscalls;
mod working_directory;
mod zygote;

pub use capabilities::{Capabilities, UnknownCapability};
pub use entry::{Entered, enter};
pub use launcher::{
    Channel, Container, ContainerMount, Exit, Joining, Launcher, MountSource, Process, SHARES_PROC, StartError, Stdio,
};
pub use limits::{Limits, Resources, Rlimit, RlimitName};
pub use name_service::{Dns, ExtraHost, HostAddress};
pub use network::{Network, NetworkError, NetworkNamespace, PortMapping, Protocol};
pub use protocol::Security;
pub(crate) use protocol::{from_memory as read_memory_file, receive, send, to_memory as memory_file};

/// Has a command that is not sandboxed end when the thread that starts it does, and so with rbuild, however that ends. That thread must live at least as
/// long as the command should: those of a tokio runtime do.
pub(crate) fn end_with_this_thread(command: &mut std::process::Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec there is one system call and nothing else.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// From now on this process and those that it starts leave no core files, with which secrets would come to lie on a disk. One byte and not
/// none: the kernel takes zero as a mere wish where a program is to get the dump (core(5)), and gives up in both cases with one.
///
/// It stays dumpable in the sense of prctl(2), since that decides about the owner of /proc/self too: rbuild and its helpers use that.
pub fn no_core_files() -> rustix::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })
}

use std::io;

/// What the program may do, which decides how layers are marked and whose files there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Privileges {
    /// Root of the machine.
    Root,
    /// Root in a user namespace with a range of ids.
    SubordinateIds,
    /// Root in a user namespace that maps one id: every file belongs to it.
    SingleId,
}

impl Privileges {
    pub fn describe(self) -> &'static str {
        match self {
            Privileges::Root => "root",
            Privileges::SubordinateIds => "user namespace with subordinate ids",
            Privileges::SingleId => "user namespace with a single id",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: io::Error },
    #[error(
        "cannot use a user namespace: {source}. Without root rbuild needs one: {advice}. Or run rbuild as root of the machine"
    )]
    NoUserNamespace { source: io::Error, advice: String },
    #[error("{0}: check that /etc/subuid and /etc/subgid both give this user a range of ids")]
    IdMapping(String),
    #[error("cannot start the step: {step}: {reason}")]
    Setup { step: String, reason: String },
    #[error("cannot connect the network: {step}: {reason}")]
    Network { step: String, reason: String },
    #[error("the process that starts steps has ended")]
    ZygoteGone,
}

impl SandboxError {
    fn errno(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> SandboxError {
        move |errno| SandboxError::System { action, source: errno.into() }
    }

    fn io(action: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
        move |source| SandboxError::System { action, source }
    }
}
