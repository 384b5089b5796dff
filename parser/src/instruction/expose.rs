//! `EXPOSE port ...`; what a port is, is known after expansion only: [`crate::expose`].

use super::{Input, Parse};
use crate::ast::Word;
use crate::error_rule::ErrorRule;
use crate::words;

/// Sorted as text (D15.16).
pub(super) fn parse(input: &Input<'_>) -> Parse<Vec<Word>> {
    let mut ports = words::fields(input.rest);
    if ports.is_empty() {
        return Err(input.fault(ErrorRule::WrongArgumentCount, "EXPOSE requires at least one argument"));
    }
    input.no_flags()?;
    ports.sort_unstable();
    Ok(ports.into_iter().map(|port| input.line.word(port)).collect())
}
