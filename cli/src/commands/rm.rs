use crate::app::App;
use crate::error::Result;
use crate::stdout;
use cache::ContainerDirectory;
use clap::Args;
use executor::container::request::{Request, ask};
use executor::container::{ContainerError, short};
use std::process::ExitCode;

#[derive(Args)]
pub struct RmArgs {
    /// Kill containers that run, and be silent about those that are not there
    #[arg(short, long)]
    pub force: bool,

    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

const KILL: u8 = 9;

pub fn run(args: &RmArgs, app: &App) -> Result<ExitCode> {
    let code = super::for_each_container(&args.containers, |word| {
        match app.store.find_container(word) {
            Err(cache::Error::NoContainer(_)) if args.force => return Ok(()),
            found => remove(&found?, args.force)?,
        }
        stdout::line(word)
    });
    app.store.empty_trash();
    code
}

/// Containers whose record cannot be read can be removed, too.
fn remove(directory: &ContainerDirectory, force: bool) -> Result<()> {
    if force && directory.is_running() {
        match ask(directory, &Request::Signal(KILL)) {
            Ok(()) | Err(ContainerError::NotRunning(_)) => directory.wait()?,
            Err(error) => return Err(error.into()),
        }
        if !directory.path().exists() {
            return Ok(());
        }
    }
    match directory.try_lock()? {
        Some(lock) => directory.remove(&lock),
        None => return Err(ContainerError::Running(called(directory)).into()),
    }
    Ok(())
}

fn called(directory: &ContainerDirectory) -> String {
    directory.name().unwrap_or_else(|| short(directory.id()).to_owned())
}
