//! The first WORKDIR is relative: where it leads depends on the base image.

use parser::diagnostic::Diagnostic;
use parser::quote::quoted;
use parser::span::Span;

pub fn check(path: &str, span: Span, word: Span) -> Option<Diagnostic> {
    let message = format!("Relative workdir {} can have unexpected results if the base image changes", quoted(path));
    (!path.starts_with('/')).then(|| Diagnostic::warning("WorkdirRelativePath", message, span).with_focus(word))
}
