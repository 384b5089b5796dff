//! FROM uses a variable that is neither a global ARG nor a platform's.

use super::variable_span;
use parser::ast::Word;
use parser::diagnostic::Diagnostic;
use parser::expand::Expansion;
use parser::span::Span;

/// `known` are the names that FROM may use, declared without a value too.
pub fn check<'a>(
    word: &'a Word,
    expansion: &'a Expansion,
    known: &'a [String],
    span: Span,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let undeclared = expansion.unset.iter().filter(|name| !known.contains(name));
    undeclared.map(move |name| {
        Diagnostic::warning("UndefinedArgInFrom", format!("FROM argument '{name}' is not declared"), span)
            .with_focus(variable_span(word, name))
            .with_suggestion(parser::suggest::closest(known, name))
    })
}
