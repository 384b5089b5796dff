//! The program's side: asking the zygote for sandboxes.

use super::SandboxError;
use super::limits::Limits;
use super::name_service::{self, Dns};
use super::network::Network;
use super::protocol::{
    Reply, Request, RequestMount, RequestNetwork, RequestSource, Security, receive, send, send_reply, to_memory,
};
use crate::emulation::{Architecture, Emulation};
use crate::users::Identity;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;

/// Starts sandboxes. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Launcher {
    control: Arc<OwnedFd>,
    emulation: Arc<Emulation>,
    keeps_spare: bool,
}

/// A process and the world that it sees.
pub struct Container {
    /// A detached mount that becomes `/`.
    pub root: OwnedFd,
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// More of them, in a memory file: `NAME=value`, each ended by a zero byte.
    pub secret_env: Option<OwnedFd>,
    /// Made, if it is missing, as the process's.
    pub cwd: String,
    pub user: Identity,
    pub hostname: String,
    pub network: Network,
    pub security: Security,
    pub limits: Limits,
    /// Nothing can be written but what is mounted.
    pub readonly_root: bool,
    /// In the order of mounting: a parent before what lies in it.
    pub mounts: Vec<ContainerMount>,
    /// Address and name, for /etc/hosts.
    pub extra_hosts: Vec<(IpAddr, String)>,
    pub dns: Dns,
}

pub struct ContainerMount {
    /// Absolute, resolved inside the root; made where it is missing.
    pub target: String,
    pub readonly: bool,
    pub source: MountSource,
}

pub enum MountSource {
    Detached {
        mount: OwnedFd,
        is_directory: bool,
    },
    /// Size in bytes, 0 for the kernel's default.
    Tmpfs {
        size: u64,
    },
    File {
        content: String,
        mode: u32,
    },
    /// A device file of the host, which may be used as one.
    Device(OwnedFd),
    /// A file that is written to no disk, with what the memory file holds.
    Secret {
        memory: OwnedFd,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Where a sandbox's output goes.
pub enum Stdio {
    /// Two pipes: [`Process::stdout`] and [`Process::stderr`]. Standard input is empty.
    Pipes,
    /// The same with a standard input.
    PipesFrom(OwnedFd),
    /// The program's own; standard input only if asked for.
    Inherit { stdin: bool },
    /// A terminal of the sandbox, whose master is [`Process::terminal`]. It has its size before the program starts.
    Terminal { rows: u16, columns: u16 },
}

/// A process in its sandbox. Dropping it kills it and everything in the sandbox.
pub struct Process {
    channel: AsyncFd<OwnedFd>,
    /// Kept for as long as it is in use.
    network: Network,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    /// Closed when the command takes over, or never will. Not of a process that joined a sandbox.
    starting: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    exit: Exit,
    failure: Option<SandboxError>,
    has_ended: bool,
}

/// A further process in a sandbox.
pub struct Joining {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Must be there.
    pub cwd: String,
    pub user: Identity,
    pub security: Security,
    /// Of each process. It joins the sandbox's control group, which has limits of its own.
    pub limits: Limits,
    /// Rows and columns of a terminal of its own.
    pub terminal: Option<(u16, u16)>,
}

/// What a process that joins a sandbox talks through: one end for the zygote, one for whoever watches it, who may be another program.
pub struct Channel {
    pub ours: OwnedFd,
    pub theirs: OwnedFd,
}

impl Channel {
    pub fn new() -> Result<Channel, SandboxError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(SandboxError::errno("create a socket"))?;
        Ok(Channel { ours, theirs })
    }

    /// Tells the other end that nothing will come of it.
    pub fn refuse(theirs: &OwnedFd, step: &str, reason: String) {
        send_reply(theirs.as_fd(), &Reply::Refused { step: step.to_owned(), reason }, &[]);
    }
}

/// What a sandbox without a `/proc` of its own means, and how to have one.
pub const SHARES_PROC: &str = "the kernel gives no new /proc, since that of the container in which rbuild runs is covered in part: steps see the \
     container's processes there, though they can signal none, and trace none but other steps. Uncovered (Docker: --security-opt systempaths=unconfined, Podman: \
     --security-opt unmask=ALL, Kubernetes: procMount: Unmasked in the securityContext), they see their own alone";

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 and the signal, for one that was killed (X1.99).
    pub code: i32,
    /// The kernel killed a process of it because all were beyond their limit of memory.
    pub out_of_memory: bool,
    /// Why it never ran.
    pub start_error: Option<StartError>,
    /// Mount points that had to be made in the root, to be removed by [`crate::stubs`].
    pub stubs: Vec<String>,
    /// It saw the `/proc` of what rbuild runs in; see [`SHARES_PROC`].
    pub shares_proc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    NotFound,
    NotExecutable,
    /// The kernel does not know how to start it; what it is for, if it is a program at all.
    WrongFormat(Option<&'static Architecture>),
}

impl Launcher {
    pub(super) fn new(control: OwnedFd, emulation: Emulation) -> Self {
        Launcher { control: Arc::new(control), emulation: Arc::new(emulation), keeps_spare: false }
    }

    /// For who starts one sandbox after another: while one runs, the next is made ready.
    pub fn keeping_a_spare(self) -> Self {
        Launcher { keeps_spare: true, ..self }
    }

    /// Programs of other processors, for which it is asked before they are launched.
    pub fn emulation(&self) -> &Emulation {
        &self.emulation
    }

    pub(super) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Starts a sandbox. Must be called within a tokio runtime.
    pub fn launch(&self, container: Container, stdio: Stdio) -> Result<Process, SandboxError> {
        let Channel { ours, theirs } = Channel::new()?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(SandboxError::errno("create a pipe"));
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(SandboxError::errno("open /dev/null"))?;
        let (stdout, stderr) = match stdio {
            Stdio::Pipes | Stdio::PipesFrom(_) => (Some(pipe()?), Some(pipe()?)),
            Stdio::Inherit { .. } | Stdio::Terminal { .. } => (None, None),
        };
        let (starting, until_exec) = pipe()?;
        let inherits = matches!(stdio, Stdio::Inherit { .. });
        let inherits_stdin = matches!(stdio, Stdio::Inherit { stdin: true });
        let (input, output, errors) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
        let mut sources = Vec::new();
        let mut mounts = Vec::new();
        for mount in container.mounts {
            let source = match mount.source {
                MountSource::Detached { mount, is_directory } => {
                    sources.push(mount);
                    RequestSource::Detached { is_directory }
                }
                MountSource::Device(device) => {
                    sources.push(device);
                    RequestSource::Device
                }
                MountSource::Tmpfs { size } => RequestSource::Tmpfs { size },
                MountSource::File { content, mode } => RequestSource::File { content, mode },
                MountSource::Secret { memory, mode, uid, gid } => {
                    sources.push(memory);
                    RequestSource::Secret { mode, uid, gid }
                }
            };
            mounts.push(RequestMount { target: mount.target, readonly: mount.readonly, source });
        }
        let network = match &container.network {
            Network::Host => RequestNetwork::Host,
            Network::None => RequestNetwork::None,
            Network::Joined(_) => RequestNetwork::Joined,
        };
        let request = Request {
            args: container.args,
            env: container.env,
            secret_env: container.secret_env.is_some(),
            cwd: container.cwd,
            user: container.user,
            hosts: name_service::hosts(&container.hostname, &container.extra_hosts),
            hostname: container.hostname,
            network,
            security: container.security,
            limits: container.limits,
            readonly_root: container.readonly_root,
            mounts,
            resolv_conf: name_service::resolv_conf(&container.dns, network),
            terminal: match stdio {
                Stdio::Terminal { rows, columns } => Some((rows, columns)),
                Stdio::Pipes | Stdio::PipesFrom(_) | Stdio::Inherit { .. } => None,
            },
        };
        let memory = to_memory(&request).map_err(SandboxError::io("write a request"))?;
        let mut descriptors: Vec<BorrowedFd> = vec![memory.as_fd(), theirs.as_fd(), container.root.as_fd()];
        descriptors.push(match &stdio {
            Stdio::PipesFrom(stdin) => stdin.as_fd(),
            _ if inherits_stdin => input,
            _ => null.as_fd(),
        });
        match (&stdout, &stderr) {
            (Some((_, stdout)), Some((_, stderr))) => descriptors.extend([stdout.as_fd(), stderr.as_fd()]),
            _ if inherits => descriptors.extend([output, errors]),
            _ => descriptors.extend([null.as_fd(), null.as_fd()]),
        }
        descriptors.push(until_exec.as_fd());
        if let Network::Joined(network) = &container.network {
            descriptors.push(network.namespace.as_fd());
        }
        descriptors.extend(sources.iter().map(AsFd::as_fd));
        descriptors.extend(container.secret_env.iter().map(AsFd::as_fd));
        self.ask(if self.keeps_spare { b"s" } else { b"r" }, &descriptors)?;
        let mut process = Process::watching(ours)?;
        process.network = container.network;
        process.stdout = stdout.map(|(read, _)| read);
        process.stderr = stderr.map(|(read, _)| read);
        process.starting = Some(starting);
        Ok(process)
    }
}

impl Process {
    /// A process whose channel this is the end of. Must be called within a tokio runtime.
    pub fn watching(ours: OwnedFd) -> Result<Process, SandboxError> {
        // SAFETY: the descriptor is owned, and stays open and the same until the AsyncFd is dropped.
        let channel = unsafe { AsyncFd::register(ours) }
            .map_err(|failed| SandboxError::System { action: "watch a socket", source: failed.into_parts().1 })?;
        Ok(Process {
            channel,
            network: Network::Host,
            stdout: None,
            stderr: None,
            starting: None,
            terminal: None,
            exit: Exit { code: 255, out_of_memory: false, start_error: None, stubs: Vec::new(), shares_proc: false },
            failure: None,
            has_ended: false,
        })
    }

    /// Starts a further process in the sandbox. `theirs` is its end of a [`Channel`], `stdio` its standard input, output and error.
    pub fn join(&self, joining: Joining, theirs: OwnedFd, stdio: [OwnedFd; 3]) -> Result<(), SandboxError> {
        let request = Request {
            args: joining.args,
            env: joining.env,
            secret_env: false,
            cwd: joining.cwd,
            user: joining.user,
            hostname: String::new(),
            network: RequestNetwork::Host,
            security: joining.security,
            limits: joining.limits,
            readonly_root: false,
            mounts: Vec::new(),
            hosts: String::new(),
            resolv_conf: String::new(),
            terminal: joining.terminal,
        };
        let memory = to_memory(&request).map_err(SandboxError::io("write a request"))?;
        let descriptors: Vec<BorrowedFd> = [&memory, &theirs].into_iter().chain(&stdio).map(AsFd::as_fd).collect();
        send(self.channel.get_ref().as_fd(), b"j", &descriptors).map_err(SandboxError::errno("ask for a process"))
    }

    async fn reply(&mut self) -> Result<(), SandboxError> {
        loop {
            let mut ready = self.channel.readable().await.map_err(SandboxError::io("wait for a sandbox"))?;
            let received = ready.try_io(|channel| receive(channel.as_fd()).map_err(Into::into));
            let Ok(received) = received else { continue };
            return self.take(received.map_err(SandboxError::io("hear from a sandbox"))?);
        }
    }

    fn take(&mut self, received: Option<(Vec<u8>, Vec<OwnedFd>)>) -> Result<(), SandboxError> {
        let (bytes, descriptors) = received.ok_or(SandboxError::ZygoteGone)?;
        match serde_json::from_slice(&bytes).map_err(|_| SandboxError::ZygoteGone)? {
            Reply::Network => {}
            Reply::Terminal => self.terminal = descriptors.into_iter().next(),
            Reply::Stubs(stubs) => self.exit.stubs = stubs,
            Reply::SharesProc => self.exit.shares_proc = true,
            Reply::NotFound => self.exit.start_error = Some(StartError::NotFound),
            Reply::WrongFormat(header) => {
                self.exit.start_error = Some(StartError::WrongFormat(Architecture::of_program(&header)));
            }
            Reply::NotExecutable => self.exit.start_error = Some(StartError::NotExecutable),
            Reply::Refused { step, reason } => {
                self.failure = Some(SandboxError::Setup { step, reason });
                self.has_ended = true;
            }
            Reply::Failed { step, reason } => self.failure = Some(SandboxError::Setup { step, reason }),
            Reply::Exited { code, out_of_memory } => {
                (self.exit.code, self.exit.out_of_memory) = (code, out_of_memory);
                self.has_ended = true;
            }
        }
        Ok(())
    }

    /// The master of the sandbox's terminal. Call it once, for a sandbox that has one.
    pub async fn terminal(&mut self) -> Result<OwnedFd, SandboxError> {
        loop {
            if let Some(terminal) = self.terminal.take() {
                return Ok(terminal);
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if self.has_ended {
                return Err(SandboxError::ZygoteGone);
            }
            self.reply().await?;
        }
    }

    /// Waits until the command has taken over, or cannot. Gives the mount points that had to be made so far.
    pub async fn started(&mut self) -> Result<std::result::Result<Vec<String>, StartError>, SandboxError> {
        if let Some(starting) = self.starting.take() {
            let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(starting);
            let pipe = pipe.map_err(SandboxError::io("watch a pipe"))?;
            // There is nothing to read but the end.
            pipe.readable().await.map_err(SandboxError::io("wait for a sandbox"))?;
        }
        // All that was said before is there by now.
        loop {
            match receive(self.channel.get_ref().as_fd()) {
                Ok(None) if self.has_ended => break,
                Ok(received) => self.take(received)?,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(SandboxError::errno("hear from a sandbox")(errno)),
            }
        }
        match (self.failure.take(), self.exit.start_error) {
            (Some(failure), _) => Err(failure),
            (None, Some(error)) => Ok(Err(error)),
            (None, None) => Ok(Ok(self.exit.stubs.clone())),
        }
    }

    /// Whether it sees the `/proc` of what rbuild runs in. Known once it has [started](Process::started).
    pub fn shares_proc(&self) -> bool {
        self.exit.shares_proc
    }

    /// Sends a signal to the process.
    pub fn signal(&self, number: u8) -> Result<(), SandboxError> {
        match send(self.channel.get_ref().as_fd(), &[number], &[]) {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Ok(()),
            Err(errno) => Err(SandboxError::errno("send a signal")(errno)),
        }
    }

    /// Ends the process and all that it started. When this is over, they are gone.
    pub async fn kill(&mut self) {
        let _ = self.signal(libc::SIGKILL as u8);
        let _ = self.wait().await;
    }

    /// Waits for the end. Whatever the process started has ended by then, too. May be given up and called again.
    pub async fn wait(&mut self) -> Result<Exit, SandboxError> {
        while !self.has_ended {
            self.reply().await?;
        }
        self.failure.take().map_or_else(|| Ok(self.exit.clone()), Err)
    }
}
