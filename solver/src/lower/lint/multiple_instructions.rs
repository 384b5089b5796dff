//! A CMD, ENTRYPOINT or HEALTHCHECK that a later one in the same stage makes useless.

use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// `earlier` is where the instruction stood before; it is set to where it stands now. The earlier one is reported: it
/// is the one without effect.
pub fn check(earlier: &mut Option<Span>, word: &str, span: Span) -> Option<Diagnostic> {
    let earlier = earlier.replace(span)?;
    let message = format!(
        "Multiple {word} instructions should not be used in the same stage because only the last one will be used"
    );
    Some(Diagnostic::warning("MultipleInstructionsDisallowed", message, earlier))
}
