//! ENV and LABEL: `name=value ...`, or the legacy `name value` (D14).

use super::{Fault, Input, Parse};
use crate::ast::{Pairs, Word};
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::quote::quoted;
use crate::words;

pub(super) fn parse(input: &Input<'_>, instruction: &str) -> Parse<Pairs> {
    let (pairs, is_legacy) = pairs(input, input.rest, instruction)?;
    if pairs.is_empty() {
        return Err(input.fault(ErrorRule::WrongArgumentCount, format!("{instruction} requires at least one argument")));
    }
    input.no_flags()?;
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name.is_empty()) {
        let message = format!("{instruction} names can not be blank");
        return Err(Fault::Instruction(Diagnostic::error(ErrorRule::InvalidKeyValue, message, name.span)));
    }
    Ok(Pairs { pairs, is_legacy })
}

/// The errors of the line stage alone, for a trigger.
pub(super) fn check_shape(input: &Input<'_>, arguments: &str, instruction: &str) -> Parse<()> {
    pairs(input, arguments, instruction).map(|_| ())
}

/// The pairs, and whether they are in the legacy form.
fn pairs(input: &Input<'_>, arguments: &str, instruction: &str) -> Parse<(Vec<(Word, Word)>, bool)> {
    let pair = |name: &str, value: &str| (input.line.word(name), input.line.word(value));
    let words = words::quoted_words(arguments, input.escape);
    let Some(first) = words.first() else { return Ok((Vec::new(), false)) };
    if !first.contains('=') {
        // The legacy form splits at the first blanks, quoted or not (D14.2).
        return match words::head(arguments) {
            (name, value) if name.len() < arguments.len() => Ok((vec![pair(name, value)], true)),
            _ => Err(input.line_fault(ErrorRule::InvalidKeyValue, format!("{instruction} must have two arguments"))),
        };
    }
    let modern = |word: &&str| match word.split_once('=') {
        Some((name, value)) => Ok(pair(name, value)),
        None => {
            let message = format!("Syntax error - can't find = in {}. Must be of the form: name=value", quoted(word));
            Err(Fault::Line(Diagnostic::error(ErrorRule::InvalidKeyValue, message, input.line.span_of(word))))
        }
    };
    let pairs = words.iter().map(modern).collect::<Parse<_>>()?;
    Ok((pairs, false))
}
