//! `.dockerignore` files, and the patterns of `--exclude` (D20).
//!
//! A path is excluded if the last pattern that matches it, or a directory above it, is not a `!` pattern. A pattern is only asked
//! where it could change the result, and what it said of a directory holds for all below (D20.7, D20.13): so a walk that
//! hands [`MatchState`] down asks each pattern once for each entry, and [`PatternMatcher::is_excluded`] is defined as such a walk.

mod matcher;
mod pattern;

pub use matcher::{MatchState, PatternMatcher};

use crate::path;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("illegal exclusion pattern: \"!\"")]
    LoneNegation,
    #[error("syntax error in pattern {}", crate::quote::quoted(.pattern))]
    BadPattern { pattern: String },
}

/// A parsed `.dockerignore`.
#[derive(Clone, Debug)]
pub struct IgnoreFile {
    patterns: Vec<String>,
    matcher: PatternMatcher,
}

impl IgnoreFile {
    pub fn parse(text: &str) -> Result<IgnoreFile, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let patterns: Vec<String> = text.split('\n').filter_map(pattern_of_line).collect();
        let matcher = PatternMatcher::new(&patterns)?;
        Ok(IgnoreFile { patterns, matcher })
    }

    /// Cleaned, in order; negations start with `!`.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    pub fn matcher(&self) -> &PatternMatcher {
        &self.matcher
    }
}

/// The pattern on a line (D20.3, D20.4).
fn pattern_of_line(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return Some(mark.to_owned());
    }
    let cleaned = path::clean(pattern);
    let relative = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
    Some(format!("{mark}{relative}"))
}

#[cfg(test)]
mod tests;
