use super::supervise;
use crate::app::App;
use crate::error::{CliError, Result};
use crate::stdout;
use clap::Args;
use executor::container::Container;
use std::process::ExitCode;

#[derive(Args)]
pub struct StartArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

pub fn run(args: &StartArgs, app: &App) -> Result<ExitCode> {
    super::for_each_container(&args.containers, |word| {
        let container = Container::find(&app.store, word)?;
        // One that runs already is what was asked for.
        if let Some(lock) = container.directory.try_lock()?
            && supervise::start(app, container, lock)? != 0
        {
            return Err(CliError::Failed(format!("the container {word} was not started")));
        }
        stdout::line(word)
    })
}
