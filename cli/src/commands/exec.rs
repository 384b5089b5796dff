use super::run::{ProcessArgs, Signals, Terminal, size, with_value};
use crate::error::{CliError, Result};
use cache::Store;
use clap::Args;
use executor::container::supervisor::{FAILED, start_error_code};
use executor::container::{Container, ContainerError, request};
use rustix::fs::{Mode, OFlags};
use rustix::termios::isatty;
use std::os::fd::AsFd;
use std::process::ExitCode;

#[derive(Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub process: ProcessArgs,

    /// Name or id of a container that runs
    pub container: String,

    /// What to run in it
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Exit codes as those of `rbuild run`.
pub fn run(args: &ExecArgs, store: &Store) -> Result<ExitCode> {
    Ok(ExitCode::from(try_run(args, store).unwrap_or_else(|error| {
        error.print();
        FAILED as u8
    })))
}

fn try_run(args: &ExecArgs, store: &Store) -> Result<u8> {
    if args.process.tty && !isatty(std::io::stdin()) {
        return Err(CliError::Usage("the input device is not a TTY: leave -t out".into()));
    }
    let container = Container::find(store, &args.container)?;
    if !container.is_running() {
        return Err(ContainerError::NotRunning(container.called().to_owned()).into());
    }
    let mut env: Vec<String> = args.process.env.iter().filter_map(|text| with_value(text)).collect();
    if args.process.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.insert(0, format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    let exec = request::Exec {
        command: args.command.clone(),
        env,
        user: args.process.user.clone(),
        workdir: args.process.workdir.clone(),
        terminal: args.process.tty.then(size),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(watch(args, &container, exec));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn watch(args: &ExecArgs, container: &Container, exec: request::Exec) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let stdin = if args.process.interactive { rustix::stdio::stdin() } else { null.as_fd() };
    let mut process = request::exec(&container.directory, exec, stdin)?;
    let terminal = if args.process.tty {
        Some(Terminal::connect(process.terminal().await.map_err(ContainerError::from)?, None)?)
    } else {
        None
    };
    let exit = loop {
        let number = tokio::select! {
            exit = process.wait() => break exit.map_err(ContainerError::from)?,
            number = signals.next(terminal.as_ref()) => number,
        };
        process.signal(number)?;
    };
    let code = exit.start_error.map_or(exit.code, start_error_code);
    Ok(u8::try_from(code).unwrap_or(255))
}
