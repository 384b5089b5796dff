use crate::error::Result;
use crate::stdout;
use cache::Store;
use clap::Args;
use executor::container::{Container, request};
use std::process::ExitCode;

#[derive(Args)]
pub struct WaitArgs {
    /// Names or ids of containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

pub fn run(args: &WaitArgs, store: &Store) -> Result<ExitCode> {
    super::for_each_container(&args.containers, |word| {
        let container = Container::find(store, word)?;
        let told = match container.directory.is_running() {
            true => request::wait(&container.directory).ok().flatten(),
            false => None,
        };
        let code = match told {
            Some(code) => code,
            None => {
                container.directory.wait()?;
                Container::read(container.directory)?.state.code()
            }
        };
        stdout::line(code)
    })
}
