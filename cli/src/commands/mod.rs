//! One file a command: its flags, and what it does with them.

pub mod build;
pub mod call;
pub mod check;
pub mod commit;
pub mod du;
pub mod exec;
pub mod fmt;
pub mod graph;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod lock;
pub mod logs;
pub mod lsp;
pub mod outline;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod start;
pub mod stop;
pub mod supervise;
pub mod tag;
pub mod targets;
pub mod version;
pub mod wait;

use crate::app::{App, open_store};
use crate::cli::{Cli, Command};
use crate::error::{CliError, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the command that the user gave. The sandbox is entered and the store is opened only for those that need it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let root = cli.root;
    let app = || App::open(root.clone());
    match cli.command {
        Command::Build(args) => build_or_call(*args, root, cli.debug),
        Command::Debug(mut args) => {
            args.debug_on_failure = true;
            build_or_call(*args, root, cli.debug)
        }
        Command::Check(args) => check::run(&args, root),
        Command::Outline(args) => outline::run(&args, root),
        Command::Targets(args) => targets::run(&args),
        Command::Graph(args) => graph::run(&args, root),
        Command::Fmt(args) => fmt::run(&args),
        Command::Lsp(_) => lsp::run(),
        Command::Images(args) => images::run(&args, &app()?),
        Command::Tag(args) => tag::run(&args, &app()?),
        Command::Rmi(args) => rmi::run(&args, &app()?),
        Command::Inspect(args) => inspect::run(&args, &app()?),
        Command::History(args) => history::run(&args, &app()?),
        Command::Du(args) => du::run(&args, &app()?),
        Command::Prune(args) => prune::run(&args, &App::open_to_prune(root)?),
        Command::Pull(args) => pull::run(&args, &app()?),
        Command::Push(args) => push::run(&args, &app()?),
        Command::Run(args) => run::run(&args, &app()?),
        Command::Ps(args) => ps::run(&args, &open_store(root)?),
        Command::Logs(args) => logs::run(&args, &open_store(root)?),
        Command::Exec(args) => exec::run(&args, &open_store(root)?),
        Command::Stop(args) => stop::run(&args, &open_store(root)?),
        Command::Kill(args) => kill::run(&args, &open_store(root)?),
        Command::Start(args) => start::run(&args, &app()?),
        Command::Wait(args) => wait::run(&args, &open_store(root)?),
        Command::Rm(args) => rm::run(&args, &app()?),
        Command::Commit(args) => commit::run(&args, &app()?),
        Command::Supervise(args) => supervise::run(&args, root),
        Command::Import(args) => import::run(&args, &app()?),
        Command::Load(args) => load::run(&args, &app()?),
        Command::Lock(args) => lock::run(&args, &app()?),
        Command::Save(args) => save::run(&args, &app()?),
        Command::Version(args) => version::run(&args),
    }
}

fn build_or_call(args: build::BuildArgs, root: Option<PathBuf>, debug: bool) -> Result<ExitCode> {
    // What is wrong with the flags is said before anything is opened.
    args.reject_unsupported()?;
    match args.call()? {
        Some(call) => call::run(call, &args, root).map_err(CliError::of_build),
        None => {
            let app = App::open(root)?;
            let code = build::run(args, &app, debug).unwrap_or_else(|error| {
                // Before anything is tidied up.
                error.print();
                ExitCode::from(error.exit_code())
            });
            app.collect();
            Ok(code)
        }
    }
}

/// Does the same with all containers that the user names. One that it fails for does not keep it from the others.
fn for_each_container(words: &[String], mut act: impl FnMut(&String) -> Result<()>) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for word in words {
        if let Err(error) = act(word) {
            error.print();
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}
