//! COPY or ADD of a path that the ignore file keeps out of the context.

use parser::IgnoreFile;
use parser::diagnostic::Diagnostic;
use parser::quote::quoted;
use parser::span::Span;

/// Only where no pattern re-includes: what those bring back is not decided by names alone.
pub fn check(ignore: &IgnoreFile, keyword: &str, source: &str, span: Span, word: Span) -> Option<Diagnostic> {
    if ignore.matcher().has_negations() {
        return None;
    }
    let path = parser::path::clean(source);
    let is_root = path == "." || path == "/";
    let ignores_all = || ignore.patterns().iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*"));
    let is_ignored = match is_root {
        true => ignores_all(),
        false => ignore.matcher().is_excluded(path.as_bytes()),
    };
    let verb = if keyword == "ADD" { "Add" } else { "Copy" };
    let message = format!("Attempting to {verb} file {} that is excluded by .dockerignore", quoted(&path));
    is_ignored.then(|| Diagnostic::warning("CopyIgnoredFile", message, span).with_focus(word))
}
