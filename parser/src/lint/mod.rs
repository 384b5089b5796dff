//! Build checks that the text alone can answer (D21); one file a rule. Rules that need values, the context or base images are the
//! solver's.
//!
//! All findings are reported. What of them counts is for the caller to say, with [`CheckOptions`].

mod consistent_instruction_casing;
mod duplicate_stage_name;
mod from_as_casing;
mod invalid_definition_description;
mod maintainer_deprecated;
mod no_empty_continuation;
mod options;
mod reserved_stage_name;
mod rule;
mod stage_name_casing;

pub use options::CheckOptions;
pub use rule::{RULES, Rule};

use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::line::LogicalLine;

/// What rules look at.
struct Subject<'a> {
    source: &'a str,
    file: &'a Dockerfile,
    lines: &'a [LogicalLine],
}

type Check = fn(&Subject<'_>) -> Vec<Diagnostic>;

const CHECKS: [Check; 8] = [
    consistent_instruction_casing::check,
    duplicate_stage_name::check,
    from_as_casing::check,
    invalid_definition_description::check,
    maintainer_deprecated::check,
    no_empty_continuation::check,
    reserved_stage_name::check,
    stage_name_casing::check,
];

/// All findings, in file order.
pub(crate) fn check(source: &str, file: &Dockerfile, lines: &[LogicalLine]) -> Vec<Diagnostic> {
    let subject = Subject { source, file, lines };
    let mut findings: Vec<Diagnostic> = CHECKS.iter().flat_map(|rule| rule(&subject)).collect();
    findings.sort_by_key(|finding| finding.span.start);
    findings
}

/// Whether a word is all in lower case or all in upper case.
fn is_self_consistent(word: &str) -> bool {
    word == word.to_lowercase() || word == word.to_uppercase()
}

#[cfg(test)]
mod tests;
