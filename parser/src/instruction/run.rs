//! `RUN [flags] command` (D15.1 to D15.10), and what a RUN with here-documents runs (D5.24 to D5.26).

use super::{Fault, Input, Parse, command};
use crate::ast::{CommandLine, Run, RunNetwork, RunSecurity, Word};
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::flags::{FlagKind, Flags};
use crate::heredoc::Marker;
use crate::mount::Mount;
use crate::quote::quoted;
use crate::suggest;

const FLAGS: [(&str, FlagKind); 4] =
    [("mount", FlagKind::List), ("network", FlagKind::Text), ("security", FlagKind::Text), ("device", FlagKind::List)];

pub(super) fn parse(input: &Input<'_>) -> Parse<Run> {
    let command = command::line(input, input.rest)?;
    let flags = input.flags(&FLAGS)?;
    let mounts = flags.list("mount");
    for mount in &mounts {
        Mount::check(mount).map_err(|error| Fault::Instruction(error.diagnostic(mount)))?;
    }
    Ok(Run {
        command,
        heredocs: input.line.heredocs.clone(),
        mounts,
        network: network(&flags)?,
        security: security(&flags)?,
        devices: flags.list("device"),
    })
}

fn fault(flag: &Word, message: String, known: &[&str]) -> Fault {
    let error = Diagnostic::error(ErrorRule::InvalidFlagValue, message, flag.span);
    Fault::Instruction(error.with_suggestion(suggest::closest(known, flag)))
}

fn network(flags: &Flags) -> Parse<Option<RunNetwork>> {
    let Some(flag) = flags.text("network") else { return Ok(None) };
    match flag.as_str() {
        "default" => Ok(Some(RunNetwork::Default)),
        "none" => Ok(Some(RunNetwork::None)),
        "host" => Ok(Some(RunNetwork::Host)),
        mode => Err(fault(&flag, format!("invalid network mode {}", quoted(mode)), &["default", "none", "host"])),
    }
}

fn security(flags: &Flags) -> Parse<Option<RunSecurity>> {
    let Some(flag) = flags.text("security") else { return Ok(None) };
    match flag.as_str() {
        "sandbox" => Ok(Some(RunSecurity::Sandbox)),
        "insecure" => Ok(Some(RunSecurity::Insecure)),
        mode => Err(fault(&flag, format!("security {} is not valid", quoted(mode)), &["sandbox", "insecure"])),
    }
}

/// What a RUN hands to the sandbox, here-documents resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum RunForm {
    /// A command in exec form, or a text for the shell.
    Command(CommandLine),
    /// A file of mode 0755 at `/dev/pipes/<name>`, which the shell is told to run. The content starts with `#!`.
    Script { name: String, content: String },
}

impl Run {
    /// A lone marker makes its body the command, or a script if it starts with `#!`; in any other case the shell gets the text
    /// with all bodies and terminators, and reads the here-documents itself.
    pub fn script(&self) -> RunForm {
        let (CommandLine::Shell(text), Some(first)) = (&self.command, self.heredocs.first()) else {
            return RunForm::Command(self.command.clone());
        };
        if !matches!(Marker::parse(text), Ok(Some(_))) {
            let mut full = text.clone();
            for heredoc in &self.heredocs {
                full.push('\n');
                full.push_str(&heredoc.body);
                full.push_str(&heredoc.name);
            }
            return RunForm::Command(CommandLine::Shell(full));
        }
        // The raw body decides, as in BuildKit: behind `<<-`, an indented `#!` makes no script.
        if first.body.starts_with("#!") {
            RunForm::Script { name: first.name.clone(), content: first.content() }
        } else {
            RunForm::Command(CommandLine::Shell(first.content()))
        }
    }
}
