//! Removes build cache (R7.7.8, R10.3.3).

use super::du::{header, parse_filters, pretty, row};
use super::images::size_text;
use crate::app::App;
use crate::error::{CliError, Result};
use crate::stdout;
use cache::{Caps, Policy, Space};
use clap::Args;
use executor::container::Container;
use rustix::termios::isatty;
use std::io::Write;
use std::process::ExitCode;

#[derive(Args)]
pub struct PruneArgs {
    /// Remove also what images with names share, and images without a name
    #[arg(short, long)]
    pub all: bool,

    /// Remove only what matches: id, parents, type, description, mutable, immutable, shared or private, with =VALUE,
    /// !=VALUE, ~=REGEX or nothing, or until=24h for what was not used for that long; several must all match
    #[arg(long = "filter", value_name = "FILTER")]
    pub filters: Vec<String>,

    /// Always keep this much, such as 10GB or 10% of the disk
    #[arg(long, visible_alias = "keep-storage", value_name = "SPACE")]
    pub reserved_space: Option<Space>,

    /// Keep no more than this
    #[arg(long, value_name = "SPACE")]
    pub max_used_space: Option<Space>,

    /// Remove until this much of the disk is free
    #[arg(long, value_name = "SPACE")]
    pub min_free_space: Option<Space>,

    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Show all that is known of what is removed
    #[arg(long)]
    pub verbose: bool,
}

pub fn run(args: &PruneArgs, app: &App) -> Result<ExitCode> {
    let (filters, unused_for) = parse_filters(&args.filters)?;
    if !args.force && isatty(std::io::stdin()) && !is_confirmed(args.all)? {
        return Ok(ExitCode::SUCCESS);
    }
    let disk = app.store.disk()?;
    let space = |given: Option<Space>| given.map_or(0, |space| space.of(disk.size));
    let caps = Caps {
        reserved: space(args.reserved_space),
        max_used: space(args.max_used_space),
        min_free: space(args.min_free_space),
    };
    let policy = Policy { all: args.all, filters, unused_for, caps, ..Policy::default() };
    let (mut total, mut rows, mut shown) = (0, vec![header()], Ok(()));
    let pruned = app.store.prune(&policy, &Container::images, |record| {
        total += record.size;
        match args.verbose {
            true if shown.is_ok() => shown = stdout::print(&pretty(record)),
            true => {}
            false => rows.push(row(record, false)),
        }
    });
    // What is gone is told, whatever came then.
    if rows.len() > 1 {
        stdout::table(&rows)?;
    }
    shown?;
    stdout::line(format_args!("Total: {}", size_text(total)))?;
    pruned?;
    Ok(ExitCode::SUCCESS)
}

fn is_confirmed(all: bool) -> Result<bool> {
    let what = if all { "all build cache" } else { "all dangling build cache" };
    let mut out = std::io::stdout();
    write!(out, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(CliError::from)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
