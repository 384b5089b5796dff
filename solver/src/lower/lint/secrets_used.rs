//! The name of an ARG or ENV says that its value is a secret: it would be readable in the image's config or history.

use parser::diagnostic::Diagnostic;
use parser::quote::quoted;
use parser::span::Span;

const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// `instruction` is `ARG` or `ENV`.
pub fn check(instruction: &str, name: &str, span: Span, word: Span) -> Option<Diagnostic> {
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)));
    if !has(&SECRET_WORDS) || has(&HARMLESS_WORDS) {
        return None;
    }
    let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {})", quoted(name));
    Some(
        Diagnostic::warning("SecretsUsedInArgOrEnv", message, span)
            .with_focus(word)
            .with_note("give it to the steps that need it with RUN --mount=type=secret"),
    )
}
