//! A shell in a step that failed, or in what was built.
//!
//! On a terminal the shell has one of its own, as with `rbuild run -it`, and Ctrl-C is the shell's. Without one it reads commands from standard input, which must
//! hold some: a build that nobody watches must not wait for somebody to type.

use super::export::PlatformResult;
use super::request::Request;
use crate::commands::run::{Signals, Terminal, size};
use crate::error::{CliError, Result};
use executor::container::log::Stream;
use executor::container::supervisor::copy;
use executor::debug::{Session, Shell};
use executor::sandbox::Stdio;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::termios::isatty;
use solver::op::Exec;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

/// The RUN step that would come next, but for what it runs.
pub fn next_step(part: &PlatformResult, request: &Request) -> Exec {
    let config = &part.target.config.config;
    let shell = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    Exec {
        args: shell.into_iter().chain([String::new()]).collect(),
        env: config.env.clone(),
        cwd: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
        user: config.user.clone(),
        hostname: None,
        network: request.lower.network,
        insecure: false,
        platform: part.platform.clone(),
        mounts: Vec::new(),
        devices: Vec::new(),
        secret_env: Vec::new(),
        extra_hosts: request.lower.extra_hosts.clone(),
    }
}

const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
/// So many characters of a step's name are enough to know it again.
const NAME: usize = 60;
const NOBODY: &str = "standard input is no terminal, and there are no commands in it";

/// A shell to be opened when the progress display has ended.
pub struct Debugging {
    pub session: Box<Session>,
    /// `--debug-shell`.
    pub program: Option<String>,
    /// What the session is of, as progress calls it.
    pub name: String,
    /// Why the build failed, if it did.
    pub failure: Option<CliError>,
}

impl Debugging {
    /// Opens the shell and waits for its end. Gives rbuild's exit code: a failed build's stays that of the failure, else it is the shell's.
    pub async fn run(self) -> Result<u8> {
        let signals = Signals::listen()?;
        let failed = self.failure.as_ref().map(CliError::exit_code);
        if let Some(failure) = &self.failure {
            failure.print();
        }
        match (self.shell(signals).await, failed) {
            (Ok(End::Killed(code)), _) | (Ok(End::Exited(_)), Some(code)) | (Ok(End::Exited(code)), None) => Ok(code),
            (Err(error), None) => Err(error),
            (Err(error), Some(code)) => {
                eprintln!("note: there is no shell for this step: {}", error.message());
                Ok(code)
            }
        }
    }

    async fn shell(mut self, mut signals: Signals) -> Result<End> {
        let on_terminal = isatty(std::io::stdin());
        if !on_terminal {
            let has_commands = tokio::select! {
                has_commands = has_commands() => has_commands,
                _ = signals.interrupt.recv() => return Ok(End::Killed(INTERRUPTED)),
                _ = signals.terminate.recv() => return Ok(End::Killed(TERMINATED)),
            };
            if !has_commands {
                return Err(CliError::Failed(NOBODY.into()));
            }
        }
        let stdio = || match on_terminal {
            true => {
                let (rows, columns) = size();
                Ok(Stdio::Terminal { rows, columns })
            }
            false => Ok(Stdio::PipesFrom(std::io::stdin().as_fd().try_clone_to_owned()?)),
        };
        let shell = self.session.open(self.program.as_deref(), stdio).await?;
        self.introduce(&shell.program);
        attend(shell, on_terminal, signals).await
    }

    fn introduce(&self, program: &str) {
        let user = match self.session.user() {
            "" => "root",
            user => user,
        };
        let what = if self.failure.is_some() { "the failed step" } else { "the stage" };
        // Names of steps hold whatever the Dockerfile does, and the whole of it has just been told.
        let mut name: String = self.name.chars().take(NAME).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if self.name.chars().nth(NAME).is_some() {
            name.push('…');
        }
        let directory = self.session.working_directory();
        let _ = writeln!(
            std::io::stderr().lock(),
            "note: this is {program} in {what} {name}, as {user} in {directory}\n\
             note: what you change here is gone when you leave, but for the contents of cache mounts"
        );
    }
}

enum End {
    Exited(u8),
    /// Instead of the shell's own end.
    Killed(u8),
}

/// Waits for the end, passing Ctrl-C on. The second one that the shell does not heed ends it, and so does SIGTERM at once.
async fn attend(shell: Shell, on_terminal: bool, mut signals: Signals) -> Result<End> {
    let mut process = shell.process;
    let mut terminal = None;
    let mut copies = Vec::new();
    if on_terminal {
        terminal = Some(Terminal::connect(process.terminal().await?, None)?);
    } else {
        copies.extend(process.stdout.take().map(|pipe| passing_on(pipe, Stream::Stdout)));
        copies.extend(process.stderr.take().map(|pipe| passing_on(pipe, Stream::Stderr)));
    }
    let mut interrupted = false;
    let end = loop {
        tokio::select! {
            exit = process.wait() => break End::Exited(u8::try_from(exit?.code).unwrap_or(255)),
            _ = signals.interrupt.recv() => process.signal(if std::mem::replace(&mut interrupted, true) { 9 } else { 2 })?,
            _ = signals.terminate.recv() => {
                process.kill().await;
                break End::Killed(TERMINATED);
            }
            _ = signals.resize.recv() => {
                if let Some(terminal) = &terminal {
                    terminal.resize();
                }
            }
        }
    };
    drop(terminal);
    for copy in copies {
        // All who could write have ended.
        let _ = copy.join();
    }
    Ok(end)
}

fn passing_on(pipe: OwnedFd, stream: Stream) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let own: Box<dyn Write + Send> = match stream {
            Stream::Stdout => Box::new(std::io::stdout()),
            Stream::Stderr => Box::new(std::io::stderr()),
        };
        copy(pipe, stream, None, Some(own));
    })
}

/// Whether there is something to read in standard input. Waits for whoever is at the other end of a pipe.
async fn has_commands() -> bool {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: it may wait for longer than rbuild lives.
    std::thread::spawn(move || sender.send(is_fed()));
    receiver.await.unwrap_or(false)
}

fn is_fed() -> bool {
    let stdin = std::io::stdin();
    let Ok(stat) = rustix::fs::fstat(&stdin) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let position = rustix::fs::tell(&stdin).unwrap_or(0);
            u64::try_from(stat.st_size).is_ok_and(|size| size > position)
        }
        FileType::Fifo | FileType::Socket => {
            let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut polled, None)).is_ok()
                && rustix::io::ioctl_fionread(&stdin).is_ok_and(|bytes| bytes > 0)
        }
        _ => false,
    }
}
