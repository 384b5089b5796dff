//! MAINTAINER, STOPSIGNAL, USER, WORKDIR: the whole rest is one argument, inner blanks included (D6.5).

use super::{Input, Parse};
use crate::ast::Word;
use crate::error_rule::ErrorRule;

pub(super) fn parse(input: &Input<'_>, instruction: &str) -> Parse<Word> {
    let word = argument(input, instruction)?;
    input.no_flags()?;
    Ok(word)
}

/// STOPSIGNAL drops its flags without a look at them (D7.9).
pub(super) fn stopsignal(input: &Input<'_>) -> Parse<Word> {
    argument(input, "STOPSIGNAL")
}

fn argument(input: &Input<'_>, instruction: &str) -> Parse<Word> {
    match input.rest {
        "" => Err(input.fault(ErrorRule::WrongArgumentCount, format!("{instruction} requires exactly one argument"))),
        text => Ok(input.line.word(text)),
    }
}
