//! One file a command: its flags, and what it does with them.

pub mod build;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod load;
pub mod pull;
pub mod push;
pub mod rmi;
pub mod run;
pub mod save;
pub mod tag;
pub mod version;

use crate::app::App;
use crate::cli::{Cli, Command};
use crate::error::Result;
use std::process::ExitCode;

/// Runs the command that the user gave.
pub fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Version(args) = cli.command {
        return version::run(&args);
    }
    if let Command::Build(args) = &cli.command {
        // What is wrong with the flags is said before anything is opened.
        args.reject_unsupported()?;
    }
    let app = App::open(cli.root)?;
    match cli.command {
        Command::Build(args) => build::run(*args, &app),
        Command::Images(args) => images::run(&args, &app),
        Command::Tag(args) => tag::run(&args, &app),
        Command::Rmi(args) => rmi::run(&args, &app),
        Command::Inspect(args) => inspect::run(&args, &app),
        Command::History(args) => history::run(&args, &app),
        Command::Pull(args) => pull::run(&args, &app),
        Command::Push(args) => push::run(&args, &app),
        Command::Run(args) => run::run(args, &app),
        Command::Import(args) => import::run(&args, &app),
        Command::Load(args) => load::run(&args, &app),
        Command::Save(args) => save::run(&args, &app),
        Command::Version(args) => version::run(&args),
    }
}
