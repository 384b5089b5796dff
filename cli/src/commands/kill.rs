use crate::error::{CliError, Result};
use crate::stdout;
use cache::Store;
use clap::Args;
use executor::container::request::{Request, ask};
use executor::container::supervisor::signal_number;
use executor::container::{Container, ContainerError};
use std::process::ExitCode;

#[derive(Args)]
pub struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_name = "SIGNAL")]
    pub signal: String,

    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

pub fn run(args: &KillArgs, store: &Store) -> Result<ExitCode> {
    let number = signal_number(&args.signal);
    let number = number.ok_or_else(|| CliError::Usage(format!("invalid signal {:?}", args.signal)))?;
    super::for_each_container(&args.containers, |word| {
        let container = Container::find(store, word)?;
        if !container.directory.is_running() {
            return Err(ContainerError::NotRunning(word.clone()).into());
        }
        ask(&container.directory, &Request::Signal(number))?;
        stdout::line(word)
    })
}
