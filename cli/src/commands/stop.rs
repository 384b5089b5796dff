use crate::error::Result;
use crate::stdout;
use cache::Store;
use clap::Args;
use executor::container::request::{Request, ask};
use executor::container::{Container, ContainerError};
use std::process::ExitCode;

#[derive(Args)]
pub struct StopArgs {
    /// Seconds until the container is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub time: u64,

    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

pub fn run(args: &StopArgs, store: &Store) -> Result<ExitCode> {
    super::for_each_container(&args.containers, |word| {
        let container = Container::find(store, word)?;
        if container.directory.is_running() {
            match ask(&container.directory, &Request::Stop { seconds: args.time }) {
                Ok(()) | Err(ContainerError::NotRunning(_)) => container.directory.wait()?,
                Err(error) => return Err(error.into()),
            }
        }
        stdout::line(word)
    })
}
