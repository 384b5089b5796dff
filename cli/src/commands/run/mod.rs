//! Runs a program in an image.

mod options;
mod record;
mod terminal;

pub use options::{ProcessArgs, RunArgs};
pub use record::with_value;
pub use terminal::{Signals, Terminal, size};

use crate::app::App;
use crate::definition;
use crate::error::{CliError, Result};
use crate::{commands::supervise, stdout};
use cache::{ContainerLock, NewContainer};
use executor::container::record::State;
use executor::container::supervisor::{FAILED, Output, Supervisor};
use executor::container::{Container, ContainerError};
use executor::source::image::Images;
use record::Flags;
use rustix::termios::isatty;
use solver::event::EventSink;
use std::process::ExitCode;

/// Exit codes as Docker's (R10.4): those below 125 are the program's.
pub fn run(args: &RunArgs, app: &App) -> Result<ExitCode> {
    Ok(ExitCode::from(try_run(args, app).unwrap_or_else(|error| {
        error.print();
        FAILED as u8
    })))
}

fn try_run(args: &RunArgs, app: &App) -> Result<u8> {
    if args.process.tty && !args.detach && !isatty(std::io::stdin()) {
        return Err(CliError::Usage("the input device is not a TTY: leave -t out".into()));
    }
    let flags = Flags::parse(args, app.default_network())?;
    let images = app.images(false)?;
    let runtime = app.runtime()?;
    let (container, lock) = runtime.block_on(create(args, flags, app, &images))?;
    if args.detach {
        let id = container.directory.id().to_owned();
        let code = supervise::start(app, container, lock)?;
        if code == 0 {
            stdout::line(id)?;
        }
        return Ok(code);
    }
    runtime.shutdown_background();
    // One thread has less to hand over than many.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(in_foreground(app, container, lock));
    app.store.empty_trash();
    code
}

async fn create(args: &RunArgs, flags: Flags, app: &App, images: &Images) -> Result<(Container, ContainerLock)> {
    let platform = definition::platforms(args.platform.as_slice())?.into_iter().next();
    let (reference, resolved) = app.resolve(images, args.image(), platform.as_ref()).await?;
    let stack = images.stack(&reference.to_string(), &resolved.manifest)?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    images.unpack(&app.snapshots, &stack, "", &EventSink::new(sender)).await?;
    receiver.close();
    let record = flags.record(args, &reference, &resolved, stack.ids())?;
    let document = serde_json::to_vec_pretty(&record)?;
    let (directory, lock) = app.store.create_container(&NewContainer {
        id: &record.id,
        name: record.name.as_deref(),
        layers: &record.layers,
        document: &document,
        remove: record.remove,
    })?;
    Ok((Container { directory, record, state: State::default() }, lock))
}

/// Is the container's supervisor itself, and shows its output. That of one that is kept goes to its log as well.
async fn in_foreground(app: &App, container: Container, lock: ContainerLock) -> Result<u8> {
    let (tty, output) = (container.record.tty, if container.record.remove { Output::Own } else { Output::OwnAndLog });
    // Before the program starts: until then, a signal would end rbuild alone.
    let signals = Signals::listen()?;
    let mut supervisor = Supervisor::start(&app.snapshots, &app.launcher, container, lock, output, size()).await?;
    show_notice(&mut supervisor);
    let exit = watch(&mut supervisor, tty, signals).await;
    Ok(u8::try_from(supervisor.finish(exit)?).unwrap_or(255))
}

fn show_notice(supervisor: &mut Supervisor) {
    if let Some(notice) = supervisor.notice.take() {
        eprintln!("note: {notice}");
    }
}

/// Waits for the end, passing signals on. The second one of a kind that the program does not heed ends it.
async fn watch(
    supervisor: &mut Supervisor,
    tty: bool,
    mut signals: Signals,
) -> std::result::Result<executor::sandbox::Exit, ContainerError> {
    if let Some(reason) = supervisor.started().await?.and_then(|error| supervisor.explain(error)) {
        eprintln!("error: {reason}");
    }
    show_notice(supervisor);
    let terminal = match supervisor.terminal.take() {
        Some(master) if tty => Terminal::connect(master, supervisor.log.clone()).ok(),
        _ => None,
    };
    let mut asked = false;
    loop {
        let number = tokio::select! {
            exit = supervisor.serve() => return exit,
            number = signals.next(terminal.as_ref()) => number,
        };
        supervisor.signal(if std::mem::replace(&mut asked, true) { 9 } else { number })?;
    }
}
