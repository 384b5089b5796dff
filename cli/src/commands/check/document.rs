//! The JSON documents of BuildKit's `lint` request, and the places in them, which `outline` and `targets` have too.

use crate::definition::Definition;
use crate::error::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use parser::lint::Rule;
use parser::{LineIndex, Span};
use serde::Serialize;
use solver::check::{Report, violation};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    warnings: Vec<Warning<'a>>,
    sources: [Source<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct Source<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// A range for each line.
#[derive(Serialize)]
pub struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

impl Location {
    pub fn new(index: &LineIndex, span: Span) -> Location {
        let (first, last) = index.lines(span);
        let ranges = (first..=last).map(|line| Range { start: Position { line }, end: Position { line } });
        Location { ranges: ranges.collect() }
    }
}

/// Bytes as Go's JSON has them.
pub fn base64(text: &str) -> String {
    BASE64.encode(text)
}

/// Why a build would fail. Warnings that are errors have no place of their own.
fn build_error(report: &Report, index: &LineIndex) -> Option<BuildError> {
    if let Some(error) = report.errors.first() {
        return Some(BuildError { message: error.to_string(), location: Location::new(index, error.span) });
    }
    let is_violated = report.warnings_are_errors && !report.warnings.is_empty();
    let location = Location { ranges: Vec::new() };
    is_violated.then(|| BuildError { message: violation(&report.warnings), location })
}

pub fn json(definition: &Definition, report: &Report) -> Result<String> {
    let index = LineIndex::new(&definition.text);
    let warning = |warning: &'_ parser::Diagnostic| {
        let name = warning.rule;
        let rule = Rule::find(name);
        Warning {
            rule_name: name,
            description: rule.map(|rule| rule.description),
            url: rule.and_then(Rule::url),
            detail: warning.to_string(),
            location: Location::new(&index, warning.span),
        }
    };
    let document = Document {
        warnings: report.warnings.iter().map(warning).collect(),
        sources: [Source { filename: &definition.name, data: base64(&definition.text), language: "Dockerfile" }],
        build_error: build_error(report, &index),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
