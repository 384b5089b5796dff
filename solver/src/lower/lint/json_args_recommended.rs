//! CMD or ENTRYPOINT in shell form: the shell, not the command, gets signals. Authors who set a SHELL know that.

use oci::ImageConfig;
use parser::ast::CommandLine;
use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// `word` is the instruction word as written.
pub fn check(command: &CommandLine, config: &ImageConfig, word: &str, span: Span) -> Option<Diagnostic> {
    let has_shell = config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
    if has_shell || matches!(command, CommandLine::Exec(_)) {
        return None;
    }
    let message = format!("JSON arguments recommended for {word} to prevent unintended behavior related to OS signals");
    Some(Diagnostic::warning("JSONArgsRecommended", message, span))
}
