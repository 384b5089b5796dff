//! `ENV name value` instead of `ENV name=value`.

use parser::ast::Pairs;
use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// `word` is the instruction word as written.
pub fn check(pairs: &Pairs, word: &str, span: Span) -> Option<Diagnostic> {
    let message = format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format");
    pairs.is_legacy.then(|| Diagnostic::warning("LegacyKeyValueFormat", message, span))
}
