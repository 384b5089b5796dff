//! Attacks by whoever controls the Dockerfile, the base image or the context. They are listed in `executor/ATTACKS.md`, each with its test.
//!
//! What a shell cannot try is tried by a small program, `attack.c`. It prints a line for each attempt: its name, and the error that it got or `DONE`.

mod files;
mod images;
mod processes;
mod system_calls;

use crate::harness::{Harness, Outcome, printed, tool};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The attacker's program, linked statically, at an address that system calls of 32 bits reach.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PROGRAM.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (directory.path().join("attack.c"), directory.path().join("attack"));
        std::fs::write(&source, include_str!("attack.c")).unwrap();
        let arguments = ["-static", "-no-pie", "-O1", "-o", program.to_str().unwrap(), source.to_str().unwrap()];
        tool("gcc", &arguments);
        (directory, program)
    });
    path
}

/// A context with the attacker's program. `FROM hostile` is busybox with that in it.
fn context(harness: &Harness, name: &str, dockerfile: &str) -> PathBuf {
    let dockerfile = format!("FROM busybox AS hostile\nCOPY attack /bin/attack\n{dockerfile}");
    let context = harness.context(name, &dockerfile);
    std::fs::copy(program(), context.join("attack")).unwrap();
    context
}

fn build(harness: &Harness, dockerfile: &str, flags: &[&str]) -> Outcome {
    harness.build(&context(harness, "attack", dockerfile), flags)
}

/// The command of a build whose signals, should they get out, reach nobody else.
fn build_alone(harness: &Harness, dockerfile: &str, flags: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let context = context(harness, "attack", dockerfile);
    let mut command = harness.command(&["build", "--progress=plain"]);
    command.args(flags).arg(context).process_group(0);
    command
}

/// What became of each attempt.
fn attempts(outcome: &Outcome) -> BTreeMap<String, String> {
    let pairs = printed(outcome).into_iter().filter_map(|line| {
        let (name, result) = line.rsplit_once(": ")?;
        Some((name.to_owned(), result.to_owned()))
    });
    pairs.collect()
}
