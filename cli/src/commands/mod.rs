//! One file a command: its flags, and what it does with them.

pub mod build;
pub mod call;
pub mod check;
pub mod fmt;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod load;
pub mod lsp;
pub mod outline;
pub mod pull;
pub mod push;
pub mod rmi;
pub mod run;
pub mod save;
pub mod tag;
pub mod targets;
pub mod version;

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::error::{CliError, Result};
use std::process::ExitCode;

/// Runs the command that the user gave. The sandbox is entered and the store is opened only for those that need it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let root = cli.root;
    let app = || App::open(root.clone());
    match cli.command {
        Command::Build(args) => {
            // What is wrong with the flags is said before anything is opened.
            args.reject_unsupported()?;
            match args.call()? {
                Some(call) => call::run(call, &args, root).map_err(CliError::of_build),
                None => build::run(*args, &app()?, cli.debug),
            }
        }
        Command::Check(args) => check::run(&args, root),
        Command::Outline(args) => outline::run(&args, root),
        Command::Targets(args) => targets::run(&args),
        Command::Fmt(args) => fmt::run(&args),
        Command::Lsp(_) => lsp::run(),
        Command::Images(args) => images::run(&args, &app()?),
        Command::Tag(args) => tag::run(&args, &app()?),
        Command::Rmi(args) => rmi::run(&args, &app()?),
        Command::Inspect(args) => inspect::run(&args, &app()?),
        Command::History(args) => history::run(&args, &app()?),
        Command::Pull(args) => pull::run(&args, &app()?),
        Command::Push(args) => push::run(&args, &app()?),
        Command::Run(args) => run::run(args, &app()?),
        Command::Import(args) => import::run(&args, &app()?),
        Command::Load(args) => load::run(&args, &app()?),
        Command::Save(args) => save::run(&args, &app()?),
        Command::Version(args) => version::run(&args),
    }
}
