//! The supervisor of a running container.

use super::log::{LogWriter, Stream};
use super::record::{NetworkMode, Record, State, Status};
use super::request::{self, Exec, Request};
use super::{Container, ContainerError, Result, short};
use crate::emulation::{Unrunnable, why_not_started};
use crate::mount;
use crate::sandbox::{
    self, Channel, ContainerMount, Dns, Exit, Joining, Launcher, MountSource, Network, Process, SHARES_PROC,
    SandboxError, StartError, Stdio,
};
use crate::snapshot::Snapshots;
use crate::stubs;
use crate::users::{self, Identity};
use cache::{ContainerDirectory, ContainerLock};
use rustix::fs::FileType;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Where a container's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Where rbuild's own goes, and nowhere else.
    Own,
    /// There and to the log.
    OwnAndLog,
    Log,
}

/// How a command that could not be started counts.
pub fn start_error_code(error: StartError) -> i32 {
    match error {
        StartError::NotFound => 127,
        StartError::NotExecutable | StartError::WrongFormat(_) => 126,
    }
}

/// Of rbuild itself, before the command.
pub const FAILED: i32 = 125;

/// A container that runs. Dropping it kills the container, and leaves it as dead; [`finish`](Supervisor::finish) is the other way.
pub struct Supervisor {
    own: Own,
    process: Process,
    /// The container's files.
    root: OwnedFd,
    env: Vec<String>,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// What the user should know of how it was started.
    pub notice: Option<String>,
    /// `None`: nothing is written down.
    pub log: Option<Arc<LogWriter>>,
    copies: Vec<JoinHandle<()>>,
    /// Keeps standard input open.
    _stdin: Option<OwnedFd>,
    requests: mpsc::Receiver<Asked>,
    listening: tokio::task::JoinHandle<()>,
    kill_at: Option<Instant>,
    /// What is known of the platform, if this machine does not run it by itself.
    unrunnable: Option<Unrunnable>,
    /// They are told how it ended.
    waiting: Vec<tokio::net::UnixStream>,
}

struct Own {
    directory: ContainerDirectory,
    lock: ContainerLock,
    record: Record,
    state: State,
}

struct Asked {
    request: Request,
    descriptors: Vec<OwnedFd>,
    /// Closed when all is done.
    connection: tokio::net::UnixStream,
}

impl Supervisor {
    /// Starts a container, whose lock is held. Where that fails, the container is left as one that ended, or removed if nothing shall stay.
    /// The command may not have taken over yet: see [`started`](Supervisor::started).
    pub async fn start(
        snapshots: &Snapshots,
        launcher: &Launcher,
        container: Container,
        lock: ContainerLock,
        output: Output,
        size: (u16, u16),
    ) -> Result<Supervisor> {
        let Container { directory, record, .. } = container;
        let mut own = Own { directory, lock, record, state: State::default() };
        // It may be that the image brings what it takes.
        let unrunnable = launcher.emulation().provide(&own.record.platform).err();
        let launched = match network(snapshots, launcher, &own.record).await {
            Ok((network, notice)) => {
                launch(snapshots, launcher, &own, network, output, size).map(|launched| (launched, notice))
            }
            Err(error) => Err(error),
        };
        match launched {
            Ok((launched, notice)) => {
                let Launched { mut process, root, env, log, stdin, requests, listening } = launched;
                let mut copies = Vec::new();
                for (pipe, stream) in [(process.stdout.take(), Stream::Stdout), (process.stderr.take(), Stream::Stderr)]
                {
                    if let Some(pipe) = pipe {
                        let own: Option<Box<dyn Write + Send>> = match (output, stream) {
                            (Output::Log, _) => None,
                            (_, Stream::Stdout) => Some(Box::new(std::io::stdout())),
                            (_, Stream::Stderr) => Some(Box::new(std::io::stderr())),
                        };
                        let log = log.clone();
                        copies.push(std::thread::spawn(move || copy(pipe, stream, log.as_deref(), own)));
                    }
                }
                own.state.status = Status::Running;
                own.state.started = Some(OffsetDateTime::now_utc());
                own.state.pid = Some(std::process::id());
                own.write_state()?;
                Ok(Supervisor {
                    own,
                    process,
                    root,
                    env,
                    terminal: None,
                    notice,
                    log,
                    copies,
                    _stdin: stdin,
                    requests,
                    listening,
                    kill_at: None,
                    unrunnable,
                    waiting: Vec::new(),
                })
            }
            Err(error) => {
                own.state.error = error.to_string();
                own.end(FAILED);
                Err(error)
            }
        }
    }

    /// Waits until the command has taken over, or cannot. One with a terminal has its master from here on.
    pub async fn started(&mut self) -> Result<Option<StartError>> {
        if self.own.record.tty {
            self.terminal = Some(self.process.terminal().await?);
        }
        match self.process.started().await? {
            Ok(stubs) => {
                if self.process.shares_proc() {
                    let notices: Vec<_> = self.notice.take().into_iter().chain([SHARES_PROC.to_owned()]).collect();
                    self.notice = Some(notices.join("; "));
                }
                if !stubs.is_empty() {
                    self.own.state.stubs = stubs;
                    self.own.write_state()?;
                }
                Ok(None)
            }
            Err(error) => Ok(Some(error)),
        }
    }

    /// Why the command could not be started, if that is because of its platform.
    pub fn explain(&self, error: StartError) -> Option<String> {
        let record = &self.own.record;
        let exit = Exit {
            code: FAILED,
            out_of_memory: false,
            start_error: Some(error),
            stubs: Vec::new(),
            shares_proc: false,
        };
        let reason = why_not_started(&exit, &record.platform, self.unrunnable.as_ref())?;
        Some(format!("{}: exec format error: {reason}", record.image))
    }

    /// Has what the terminal shows written to the log.
    pub fn log_terminal(&mut self) -> Result<()> {
        if let Some(terminal) = &self.terminal {
            let from =
                terminal.try_clone().map_err(ContainerError::io("watch the terminal of", &self.own.directory))?;
            let log = self.log.clone();
            self.copies.push(std::thread::spawn(move || copy(from, Stream::Stdout, log.as_deref(), None)));
        }
        Ok(())
    }

    /// Serves requests until the container ends. May be given up and called again.
    pub async fn serve(&mut self) -> Result<Exit> {
        loop {
            let kill_at = self.kill_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            tokio::select! {
                exit = self.process.wait() => return Ok(exit?),
                Some(asked) = self.requests.recv() => self.heed(asked)?,
                () = tokio::time::sleep_until(kill_at), if self.kill_at.is_some() => {
                    self.kill_at = None;
                    self.signal(libc::SIGKILL as u8)?;
                }
            }
        }
    }

    pub fn signal(&self, number: u8) -> Result<()> {
        Ok(self.process.signal(number)?)
    }

    /// Asks the container to end, and kills it after `seconds`.
    pub fn stop(&mut self, seconds: u64) -> Result<()> {
        self.signal(stop_signal(&self.own.record.config.stop_signal))?;
        let kill_at = Instant::now().checked_add(Duration::from_secs(seconds));
        self.kill_at = [self.kill_at, kill_at].into_iter().flatten().min();
        Ok(())
    }

    fn heed(&mut self, asked: Asked) -> Result<()> {
        match asked.request {
            Request::Signal(number) => self.signal(number),
            Request::Stop { seconds } => self.stop(seconds),
            Request::Wait => {
                self.waiting.push(asked.connection);
                Ok(())
            }
            Request::Exec(exec) => {
                let Ok([theirs, stdin, stdout, stderr]) = <[OwnedFd; 4]>::try_from(asked.descriptors) else {
                    return Ok(());
                };
                match self.joining(exec) {
                    Ok(joining) => self.process.join(joining, theirs, [stdin, stdout, stderr])?,
                    Err(error) => Channel::refuse(&theirs, "finding its user", error.to_string()),
                }
                Ok(())
            }
        }
    }

    fn joining(&self, exec: Exec) -> Result<Joining> {
        let config = &self.own.record.config;
        let identity = users::process_identity(self.root.as_fd(), exec.user.as_deref().unwrap_or(&config.user))?;
        let mut env = self.env.clone();
        if !config.env.iter().any(|entry| entry.starts_with("HOME=")) {
            set(&mut env, format!("HOME={}", identity.home));
        }
        for entry in exec.env {
            set(&mut env, entry);
        }
        Ok(Joining {
            args: exec.command,
            env,
            cwd: absolute(exec.workdir.as_deref().unwrap_or(&config.working_dir)),
            user: identity,
            security: self.own.record.security,
            limits: self.own.record.limits.clone(),
            terminal: exec.terminal,
        })
    }

    /// Writes down how the container ended. Gives the exit code that stands for it.
    pub fn finish(mut self, exit: Result<Exit>) -> Result<i32> {
        self.listening.abort();
        self.terminal = None;
        for copy in self.copies.drain(..) {
            // All who could write have ended.
            let _ = copy.join();
        }
        let (code, stubs, failure) = match exit {
            Ok(exit) => (exit.start_error.map_or(exit.code, start_error_code), exit.stubs, None),
            Err(error) => (FAILED, std::mem::take(&mut self.own.state.stubs), Some(error)),
        };
        stubs::remove(self.root.as_fd(), &stubs);
        self.own.state.error = failure.as_ref().map(ToString::to_string).unwrap_or_default();
        // The mount must be gone before anybody else may start or remove the container.
        let Supervisor { own, root, waiting, .. } = self;
        drop(root);
        own.end(code);
        for connection in waiting {
            let _ = connection.try_write(&code.to_ne_bytes());
        }
        failure.map_or(Ok(code), Err)
    }
}

impl Own {
    fn write_state(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        Ok(self.directory.set_state(&text)?)
    }

    /// Gives up the lock last.
    fn end(mut self, code: i32) {
        if self.record.remove {
            return self.directory.remove(&self.lock);
        }
        self.state.status = Status::Exited;
        self.state.ended = Some(OffsetDateTime::now_utc());
        self.state.exit_code = code;
        self.state.pid = None;
        self.state.stubs.clear();
        // Without it the container counts as dead, which is not far from the truth.
        let _ = self.write_state();
        let _ = std::fs::remove_file(self.directory.path().join("socket"));
    }
}

struct Launched {
    process: Process,
    root: OwnedFd,
    env: Vec<String>,
    log: Option<Arc<LogWriter>>,
    stdin: Option<OwnedFd>,
    requests: mpsc::Receiver<Asked>,
    listening: tokio::task::JoinHandle<()>,
}

fn launch(
    snapshots: &Snapshots,
    launcher: &Launcher,
    own: &Own,
    network: Network,
    output: Output,
    (rows, columns): (u16, u16),
) -> Result<Launched> {
    let Own { directory, record, .. } = own;
    let store = snapshots.store();
    for layer in &record.layers {
        if !store.layer_path(layer).exists() {
            let id = short(&record.id).to_owned();
            return Err(ContainerError::NoLayer { id, layer: layer.to_string() });
        }
    }
    let root = snapshots.mount_over(&record.layers, &directory.upper(), &directory.fresh_work()?)?;
    let config = &record.config;
    let identity = users::process_identity(root.as_fd(), &config.user)?;
    let env = environment(record, &identity);
    let hostname = record.hostname.clone();
    let container = sandbox::Container {
        secret_env: None,
        root: root.try_clone().map_err(ContainerError::io("mount", directory))?,
        args: record.command(),
        env: env.clone(),
        cwd: absolute(&config.working_dir),
        user: identity,
        hostname: hostname.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned()),
        network,
        security: record.security,
        limits: record.limits.clone(),
        readonly_root: record.readonly_root,
        mounts: mounts(record)?,
        extra_hosts: Vec::new(),
        dns: Dns::default(),
    };
    let log = match output {
        Output::Own => None,
        Output::OwnAndLog | Output::Log => {
            let log = LogWriter::open(&directory.log()).map_err(ContainerError::io("write the log of", directory))?;
            Some(Arc::new(log))
        }
    };
    let (stdio, stdin) = match (record.tty, output) {
        (true, _) => (Stdio::Terminal { rows, columns }, None),
        (false, Output::Own) => (Stdio::Inherit { stdin: record.interactive }, None),
        (false, Output::OwnAndLog) if record.interactive => {
            let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0);
            let stdin = stdin.map_err(|errno| ContainerError::io("start", directory)(errno.into()))?;
            (Stdio::PipesFrom(stdin), None)
        }
        (false, Output::Log) if record.interactive => {
            let (read, write) = std::io::pipe().map_err(ContainerError::io("start", directory))?;
            (Stdio::PipesFrom(read.into()), Some(write.into()))
        }
        (false, Output::OwnAndLog | Output::Log) => (Stdio::Pipes, None),
    };
    let (requests, listening) = listen(directory)?;
    let process = launcher.launch(container, stdio)?;
    Ok(Launched { process, root, env, log, stdin, requests, listening })
}

/// The container's network, and what is to be said of it.
async fn network(snapshots: &Snapshots, launcher: &Launcher, record: &Record) -> Result<(Network, Option<String>)> {
    let required = match record.network {
        NetworkMode::Host => return Ok((Network::Host, None)),
        NetworkMode::None => return Ok((Network::None, None)),
        NetworkMode::Isolated { required } => required,
    };
    match launcher.isolated_network(&record.ports, &snapshots.store().root().join("trash")).await {
        Ok(namespace) => Ok((Network::Joined(Arc::new(namespace)), None)),
        Err(error) if required => Err(ContainerError::Network(error)),
        Err(error) => {
            let notice = format!("the container has the host's network, as there is no isolated one: {error}");
            Ok((Network::Host, Some(notice)))
        }
    }
}

fn environment(record: &Record, identity: &Identity) -> Vec<String> {
    let mut env = record.config.env.clone();
    let has = |env: &[String], name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", identity.home));
    }
    if record.tty && !has(&env, "TERM") {
        env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    env
}

/// Sets a variable in a list of them.
pub fn set(env: &mut Vec<String>, entry: String) {
    let name = entry.split('=').next().unwrap_or_default();
    env.retain(|known| known.split('=').next() != Some(name));
    env.push(entry);
}

fn absolute(directory: &str) -> String {
    if directory.starts_with('/') { directory.to_owned() } else { format!("/{directory}") }
}

fn mounts(record: &Record) -> Result<Vec<ContainerMount>> {
    let host = mount::open_directory("/".as_ref())?;
    let mounts = record.volumes.iter().map(|volume| {
        let mount = mount::bind(host.as_fd(), &volume.source)?;
        let stat = rustix::fs::fstat(&mount)
            .map_err(|errno| SandboxError::System { action: "look at a volume", source: errno.into() })?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let source = MountSource::Detached { mount, is_directory };
        Ok(ContainerMount { target: volume.target.clone(), readonly: volume.readonly, source })
    });
    let tmpfs = record.tmpfs.iter().map(|tmpfs| {
        let source = MountSource::Tmpfs { size: tmpfs.size };
        Ok(ContainerMount { target: tmpfs.target.clone(), readonly: false, source })
    });
    let mut mounts: Vec<ContainerMount> = mounts.chain(tmpfs).collect::<Result<_>>()?;
    // A parent before what lies in it.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

/// Accepts connections and reads their requests, so that one that is slow to speak holds up nobody.
fn listen(directory: &ContainerDirectory) -> Result<(mpsc::Receiver<Asked>, tokio::task::JoinHandle<()>)> {
    let failed = || ContainerError::io("listen for", directory);
    let listener = request::listen(directory).map_err(failed())?;
    listener.set_nonblocking(true).map_err(failed())?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(failed())?;
    let (sender, receiver) = mpsc::channel(16);
    let listening = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                if let Some((request, descriptors)) = request::read(&connection).await {
                    let _ = sender.send(Asked { request, descriptors, connection }).await;
                }
            });
        }
    });
    Ok((receiver, listening))
}

/// Copies output until its end, or until nobody reads it any more: then the program hears of that as if it wrote there itself.
pub fn copy(from: OwnedFd, stream: Stream, log: Option<&LogWriter>, mut own: Option<Box<dyn Write + Send>>) {
    let mut from = File::from(from);
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let bytes = match from.read(&mut buffer) {
            // A terminal that nobody has open any more is an error.
            Ok(0) => return,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
            Ok(length) => &buffer[..length],
        };
        if let Some(log) = log {
            // A full disk must not end the program.
            let _ = log.write(stream, bytes);
        }
        if let Some(own) = &mut own
            && own.write_all(bytes).and_then(|()| own.flush()).is_err()
        {
            return;
        }
    }
}

/// The number of a signal: `15`, `TERM`, `SIGTERM`. `None` for what is none.
pub fn signal_number(text: &str) -> Option<u8> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|offset| offset.parse::<u8>().ok()) {
        return (offset <= 30).then_some(34 + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-").and_then(|offset| offset.parse::<u8>().ok()) {
        return (offset <= 30).then(|| 64 - offset);
    }
    let position = NAMES.iter().position(|known| *known == name)?;
    u8::try_from(position + 1).ok()
}

/// An image's STOPSIGNAL. One that makes no sense is as good as none.
fn stop_signal(text: &str) -> u8 {
    signal_number(text).unwrap_or(libc::SIGTERM as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("KILL", 9),
            ("SIGSYS", 31),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(signal_number(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "NOPE", "RTMIN+31", "-9", "SIG"] {
            assert_eq!(signal_number(text), None, "{text}");
        }
        assert_eq!((stop_signal(""), stop_signal("nonsense"), stop_signal("SIGQUIT")), (15, 15, 3));
    }

    #[test]
    fn variables_replace_those_of_the_same_name() {
        let mut env = vec!["A=1".to_owned(), "AB=2".into(), "A=3".into()];
        set(&mut env, "A=4".into());
        assert_eq!(env, ["AB=2", "A=4"]);
    }
}
