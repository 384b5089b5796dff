//! `rbuild`: flags to requests, events to a display, errors to exit codes.
//!
//! [`cli`] defines the flags, one file a command lies in [`commands`], [`progress`] draws, [`app`] opens what commands share.

mod app;
mod cli;
mod commands;
mod config;
mod definition;
mod error;
mod file;
mod interrupt;
mod limits;
mod lockfile;
mod output;
mod progress;
mod proxy;
mod stdout;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse_from(cli::with_default_command(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { error::USAGE } else { 0 });
        }
    };
    if cli.debug {
        let filter = tracing_subscriber::EnvFilter::new("debug,hyper=info,rustls=info");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}
