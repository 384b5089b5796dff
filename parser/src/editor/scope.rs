//! Names that a place can use: stages and variables.

use crate::line::{LogicalLine, Reading};
use crate::span::Span;
use crate::words;

/// Platform ARGs, which FROM may use and stages may declare (D13.11).
pub const PLATFORM_ARGS: [&str; 11] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// A FROM.
pub struct StageLine<'a> {
    pub line: &'a LogicalLine,
    pub image: &'a str,
    /// As written, and where.
    pub name: Option<(&'a str, Span)>,
}

pub fn stages(reading: &Reading) -> Vec<StageLine<'_>> {
    reading.lines.iter().filter_map(stage).collect()
}

fn stage(line: &LogicalLine) -> Option<StageLine<'_>> {
    let (word, arguments) = line.head();
    if !word.eq_ignore_ascii_case("FROM") {
        return None;
    }
    let fields: Vec<&str> = words::fields(arguments).into_iter().skip_while(|field| field.starts_with("--")).collect();
    let name = match fields.as_slice() {
        [_, keyword, name, ..] if keyword.eq_ignore_ascii_case("AS") => Some((*name, line.span_of(name))),
        _ => None,
    };
    Some(StageLine { line, image: fields.first().copied().unwrap_or_default(), name })
}

/// A variable that ARG or ENV gives.
pub struct Variable<'a> {
    pub line: &'a LogicalLine,
    pub name: &'a str,
    pub span: Span,
}

/// The variables that the instruction at `offset` sees, the latest first: those of its stage, or of the global scope for FROM
/// and what stands before it.
pub fn variables(reading: &Reading, offset: usize) -> Vec<Variable<'_>> {
    let before: Vec<&LogicalLine> = reading.lines.iter().take_while(|line| line.span.start <= offset).collect();
    let is_from = |line: &&LogicalLine| line.head().0.eq_ignore_ascii_case("FROM");
    let in_from = before.last().is_some_and(is_from);
    let first = before.iter().position(is_from);
    let visible: &[&LogicalLine] = match (first, before.iter().rposition(is_from)) {
        (Some(first), _) if in_from => &before[..first],
        (_, Some(last)) => &before[last + 1..],
        _ => &before,
    };
    visible.iter().rev().flat_map(|line| declared(line, reading.escape)).collect()
}

/// What an ARG or ENV declares.
fn declared(line: &LogicalLine, escape: char) -> Vec<Variable<'_>> {
    let (word, arguments) = line.head();
    let is_arg = word.eq_ignore_ascii_case("ARG");
    if !is_arg && !word.eq_ignore_ascii_case("ENV") {
        return Vec::new();
    }
    let words = words::quoted_words(arguments, escape);
    let variable = |name| Variable { line, name, span: line.span_of(name) };
    if !is_arg && words.first().is_some_and(|first| !first.contains('=')) {
        return vec![variable(words::head(arguments).0)];
    }
    words.into_iter().map(|word| variable(word.split('=').next().unwrap_or(word))).collect()
}
