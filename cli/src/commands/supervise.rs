//! The supervisor of a container in the background: rbuild, started by rbuild.
//!
//! It is handed the container's lock as standard input, so that nobody can take it in between, and says on standard output, in one line, how the start
//! went. It runs in a session of its own, in the user namespace of whoever started it.

use super::run::Signals;
use crate::app::App;
use crate::error::{CliError, Result};
use cache::ContainerLock;
use clap::Args;
use executor::container::supervisor::{FAILED, Output, Supervisor, start_error_code};
use executor::container::{Container, ContainerError};
use executor::sandbox::StartError;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

#[derive(Args)]
pub struct SuperviseArgs {
    pub id: String,
}

/// How the start went.
#[derive(Serialize, Deserialize)]
struct Report {
    code: i32,
    error: Option<String>,
    notice: Option<String>,
}

impl Report {
    fn failed(code: i32, error: String) -> Report {
        Report { code, error: Some(error), notice: None }
    }
}

/// How long a container has to heed a signal that ends its supervisor, in seconds.
const GRACE: u64 = 10;

/// Starts a container in the background, and waits until it runs. Gives 0, or the exit code that says why it does not.
pub fn start(app: &App, container: Container, lock: ContainerLock) -> Result<u8> {
    let directory = &container.directory;
    // What a user namespace has of this is registered by who made it; the supervisor lives in the same one, and says what is missing.
    let _ = app.launcher.emulation().provide(&container.record.platform);
    let mut supervisor = Command::new("/proc/self/exe");
    supervisor
        .arg("--root")
        .arg(app.store.root())
        .args(["supervise", directory.id()])
        .current_dir("/")
        .stdin(File::from(lock))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child =
        supervisor.spawn().map_err(|error| CliError::Failed(format!("cannot start a supervisor: {error}")))?;
    // It holds the lock too, as it is its standard input.
    drop(supervisor);
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let Ok(report) = serde_json::from_str::<Report>(&line) else {
        return Err(CliError::Failed(format!(
            "the supervisor of {} ended before the container ran",
            container.called()
        )));
    };
    if let Some(notice) = report.notice {
        eprintln!("note: {notice}");
    }
    if let Some(error) = report.error {
        // So that the container can be started again or removed at once.
        let _ = child.wait();
        CliError::Failed(error).print();
    }
    Ok(u8::try_from(report.code).unwrap_or(FAILED as u8))
}

pub fn run(args: &SuperviseArgs, root: Option<PathBuf>) -> Result<ExitCode> {
    // Nobody's terminal ends it.
    let _ = rustix::process::setsid();
    // The zygote keeps the lock in its own standard input: it is free when the last process has gone.
    let app = App::open(root)?;
    let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(supervise(&args.id, &app, File::from(lock).into()));
    if let Err(error) = ended {
        report(Report::failed(FAILED, error.to_string()));
    }
    app.store.empty_trash();
    Ok(ExitCode::SUCCESS)
}

async fn supervise(id: &str, app: &App, lock: ContainerLock) -> std::result::Result<(), ContainerError> {
    let container = Container::find(&app.store, id)?;
    let program = container.record.command().first().cloned().unwrap_or_default();
    let mut signals = Signals::listen().map_err(|error| ContainerError::Signals(error.to_string()))?;
    let mut supervisor = Supervisor::start(&app.snapshots, &app.launcher, container, lock, Output::Log, (0, 0)).await?;
    match supervisor.started().await {
        Ok(None) => report(Report { code: 0, error: None, notice: supervisor.notice.take() }),
        Ok(Some(error)) => {
            let reason = supervisor.explain(error).unwrap_or_else(|| match error {
                StartError::NotFound => format!("{program:?} was not found"),
                StartError::NotExecutable | StartError::WrongFormat(_) => format!("{program:?} cannot be executed"),
            });
            let message = format!("cannot start the container: {reason}");
            report(Report::failed(start_error_code(error), message));
        }
        Err(error) => {
            let message = error.to_string();
            let _ = supervisor.finish(Err(error));
            report(Report::failed(FAILED, message));
            return Ok(());
        }
    }
    supervisor.log_terminal()?;
    let exit = loop {
        tokio::select! {
            exit = supervisor.serve() => break exit,
            _ = signals.interrupt.recv() => {}
            _ = signals.terminate.recv() => {}
        }
        supervisor.stop(GRACE)?;
    };
    // Who waits for it reads the code from its state.
    supervisor.finish(exit).map(|_| ())
}

/// Says how the start went, and lets go of the pipe.
fn report(report: Report) {
    let mut stdout = std::io::stdout();
    let line = serde_json::to_string(&report).unwrap_or_default();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
