//! Everything that can be said about a Dockerfile without running it (D21).

use crate::lower::{ImageResolver, LowerOptions, Lowered, Purpose, lower};
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
    /// Base images that nobody could be asked about, and why: what depends on their configs was not checked.
    pub unresolved: Vec<(String, String)>,
}

/// Checks a Dockerfile: all stages, or those that `options.target` needs (D12.23).
pub async fn check<R: ImageResolver>(source: &str, options: &LowerOptions, resolver: &R) -> Report {
    let (dockerfile, mut errors) = parser::parse_partly(source);
    let Some(dockerfile) = dockerfile else { return Report { errors, ..Report::default() } };
    let options = LowerOptions { purpose: Purpose::Check, ..options.clone() };
    let Lowered { plan, warnings, warnings_are_errors, unresolved, .. } = lower(&dockerfile, &options, resolver).await;
    errors.extend(plan.err().unwrap_or_default());
    Report { warnings, errors, warnings_are_errors, unresolved }
}

/// The error of a build whose warnings are errors (D21.2).
pub fn violation(warnings: &[Diagnostic]) -> String {
    let mut rules: Vec<_> = warnings.iter().map(|warning| warning.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    format!("lint violation found for rules: {}", rules.join(", "))
}
