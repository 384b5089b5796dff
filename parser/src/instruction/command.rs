//! CMD, ENTRYPOINT and SHELL: exec form or shell form (D8, D15.43).

use super::{Input, Parse};
use crate::ast::CommandLine;
use crate::error_rule::ErrorRule;

/// A command, possibly empty (D8.8).
pub(super) fn parse(input: &Input<'_>) -> Parse<CommandLine> {
    let command = line(input, input.rest)?;
    input.no_flags()?;
    Ok(command)
}

pub(super) fn line(input: &Input<'_>, text: &str) -> Parse<CommandLine> {
    Ok(match input.json(text)? {
        Some(words) => CommandLine::Exec(words),
        None => CommandLine::Shell(text.to_owned()),
    })
}

pub(super) fn shell(input: &Input<'_>) -> Parse<Vec<String>> {
    let command = line(input, input.rest)?;
    input.no_flags()?;
    match command {
        CommandLine::Exec(words) if !words.is_empty() => Ok(words),
        CommandLine::Shell(text) if !text.is_empty() => {
            Err(input.fault(ErrorRule::InvalidJsonForm, "SHELL requires the arguments to be in JSON form"))
        }
        _ => Err(input.fault(ErrorRule::WrongArgumentCount, "SHELL requires at least one argument")),
    }
}
