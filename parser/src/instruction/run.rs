//! RUN, and what its here-documents make of the command (D5.23 to D5.26).

use super::{Arguments, Result};
use crate::ast::{CommandLine, Run, RunNetwork, RunSecurity, Word};
use crate::heredoc::Heredoc;
use crate::suggest;

const FLAGS: [&str; 4] = ["mount", "network", "security", "device"];

pub(super) fn parse(arguments: &mut Arguments) -> Result<Run> {
    let word = |(value, span)| Word { value, span };
    let mounts = arguments.flags.list("mount")?.into_iter().map(word).collect();
    let devices = arguments.flags.list("device")?.into_iter().map(word).collect();
    let network = match arguments.flags.string("network")? {
        None => None,
        Some((value, span)) => Some(match value.as_str() {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host,
            _ => {
                let suggestion = suggest::closest(["default", "none", "host"], &value);
                return Err((format!("invalid network mode {value:?}"), span, suggestion));
            }
        }),
    };
    let security = match arguments.flags.string("security")? {
        None => None,
        Some((value, span)) => Some(match value.as_str() {
            "sandbox" => RunSecurity::Sandbox,
            "insecure" => RunSecurity::Insecure,
            _ => return Err((format!("security {value:?} is not valid"), span, None)),
        }),
    };
    arguments.no_more_flags(&FLAGS)?;
    let heredocs = arguments.line.heredocs.clone();
    let command = match arguments.json()? {
        Some(words) => CommandLine::Exec(words),
        None => CommandLine::Shell(arguments.rest.to_owned()),
    };
    Ok(Run { command, heredocs, mounts, network, security, devices })
}

/// What a RUN runs.
#[derive(Clone, Debug, PartialEq)]
pub enum RunForm {
    Command(CommandLine),
    /// A here-document that starts with `#!`: a file of that name and content, run by the shell.
    Script {
        name: String,
        content: String,
    },
}

impl Run {
    pub fn form(&self) -> RunForm {
        let CommandLine::Shell(text) = &self.command else { return RunForm::Command(self.command.clone()) };
        match self.heredocs.as_slice() {
            [] => RunForm::Command(self.command.clone()),
            [only] if is_lone_marker(text) => {
                let content = only.content().into_owned();
                match content.starts_with("#!") {
                    true => RunForm::Script { name: only.name.clone(), content },
                    false => RunForm::Command(CommandLine::Shell(content)),
                }
            }
            several => {
                let mut command = text.clone();
                for Heredoc { name, body, .. } in several {
                    command.push('\n');
                    command.push_str(body);
                    command.push_str(name);
                }
                RunForm::Command(CommandLine::Shell(command))
            }
        }
    }
}

fn is_lone_marker(text: &str) -> bool {
    crate::heredoc::is_one_word(text.trim())
}
