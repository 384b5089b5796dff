//! A word uses a variable that is neither set nor declared, and so expands to nothing (D10.7).

use super::super::stage::{SILENT_ARGS, StageState};
use super::variable_span;
use parser::ast::Word;
use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// None where the base image's environment is not known, or the variable is declared without a value.
pub fn check(name: &str, word: &Word, state: &StageState, span: Span) -> Option<Diagnostic> {
    let is_declared = state.declared_args.iter().any(|declared| declared == name);
    if !state.is_base_known || is_declared || SILENT_ARGS.contains(&name) {
        return None;
    }
    let suggestion = parser::suggest::closest(state.environment.names(), name).map(|name| format!("${name}"));
    Some(
        Diagnostic::warning("UndefinedVar", format!("Usage of undefined variable '${name}'"), span)
            .with_focus(variable_span(word, name))
            .with_suggestion(suggestion),
    )
}
