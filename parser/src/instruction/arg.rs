//! `ARG name[=default] ...` (D13.1, D13.2).

use super::{Input, Parse};
use crate::ast::ArgDeclaration;
use crate::error_rule::ErrorRule;
use crate::words;

pub(super) fn parse(input: &Input<'_>) -> Parse<Vec<ArgDeclaration>> {
    // Flags are dropped without a look at them (D7.9).
    let words = words::quoted_words(input.rest, input.escape);
    if words.is_empty() {
        return Err(input.fault(ErrorRule::WrongArgumentCount, "ARG requires at least one argument"));
    }
    let declaration = |word: &str| {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => {
                return Err(input.fault_at(ErrorRule::InvalidKeyValue, word, "ARG names can not be blank"));
            }
            Some((name, default)) => (name, Some(default)),
            None => (word, None),
        };
        Ok(ArgDeclaration { name: input.line.word(name), default: default.map(|text| input.line.word(text)) })
    };
    words.into_iter().map(declaration).collect()
}
