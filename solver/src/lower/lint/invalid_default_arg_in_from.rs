//! Without build args, a FROM names no image.

use super::super::environment::Environment;
use oci::Reference;
use parser::ast::From;
use parser::diagnostic::Diagnostic;
use parser::expand::Expander;

/// `defaults` is the global scope without build args. A FROM that cannot be expanded is another error.
pub fn check(from: &From, expander: &Expander, defaults: &Environment) -> Option<Diagnostic> {
    let name = expander.word(&from.image.value, defaults).ok()?.text;
    if name.parse::<Reference>().is_ok() {
        return None;
    }
    let message = format!("Default value for ARG {} results in empty or invalid base image name", from.image.value);
    Some(Diagnostic::warning("InvalidDefaultArgInFrom", message, from.span).with_focus(from.image.span))
}
