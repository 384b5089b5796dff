//! Two rules about `FROM --platform`: no constant, and not what is the default anyway.

use oci::Platform;
use parser::ast::{From, Word};
use parser::diagnostic::Diagnostic;
use parser::expand::Expansion;

/// `target` is the value of `TARGETPLATFORM`.
pub fn check(from: &From, platform: &Word, expansion: &Expansion, target: &str) -> Option<Diagnostic> {
    if expansion.used.is_empty() && expansion.unset.is_empty() {
        return constant(from, platform, &expansion.text);
    }
    let is_only_target = expansion.unset.is_empty() && expansion.used.iter().eq(["TARGETPLATFORM"]);
    if !is_only_target || expansion.text != target {
        return None;
    }
    let message = format!(
        "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
        platform.value
    );
    Some(Diagnostic::warning("RedundantTargetPlatform", message, from.span).with_focus(platform.span))
}

/// A stage whose name says what it is for may have a platform of its own.
fn constant(from: &From, word: &Word, text: &str) -> Option<Diagnostic> {
    let platform: Platform = text.parse().ok()?;
    let name = from.name.as_ref().map_or("", |name| name.value.as_str());
    if name.contains(&platform.os) || name.contains(&platform.architecture) {
        return None;
    }
    let message = format!("FROM --platform flag should not use constant value \"{text}\"");
    Some(Diagnostic::warning("FromPlatformFlagConstDisallowed", message, from.span).with_focus(word.span))
}
