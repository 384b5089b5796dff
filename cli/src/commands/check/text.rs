//! Findings for people: rbuild's own drawing, and the text of docker buildx.

use super::all_findings;
use crate::definition::Definition;
use parser::diagnostic::excerpt;
use parser::lint::Rule;
use rustix::termios::isatty;
use solver::check::Report;

pub fn findings(definition: &Definition, report: &Report) -> String {
    let color = isatty(std::io::stdout()) && std::env::var_os("NO_COLOR").is_none();
    let mut text = String::new();
    for finding in all_findings(report) {
        text.push_str(&finding.render(&definition.text, &definition.name, color));
        text.push('\n');
        if let Some(url) = Rule::find(finding.rule).and_then(Rule::url) {
            text.push_str(&format!("  = see {url}\n"));
        }
        text.push('\n');
    }
    text.push_str(&unresolved(report));
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let summary = match (report.errors.len(), report.warnings.len()) {
        (0, 0) => "no findings".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    text.push_str(&format!("{}: {summary}\n", definition.name));
    text
}

/// Base images that nobody could be asked about: what depends on them was not checked.
pub fn unresolved(report: &Report) -> String {
    let note = |(image, reason): &(String, String)| format!("note: {image} was not looked at: {reason}\n");
    report.unresolved.iter().map(note).collect()
}

/// The errors are not in it: as those of a build, they go to standard error.
pub fn as_buildx(definition: &Definition, report: &Report) -> String {
    let mut text = match report.warnings.len() {
        0 if report.errors.is_empty() => return "Check complete, no warnings found.\n".into(),
        0 => String::new(),
        1 => "Check complete, 1 warning has been found!\n".into(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in &report.warnings {
        let name = warning.rule;
        let url = Rule::find(name).and_then(Rule::url).map(|url| format!(" - {url}")).unwrap_or_default();
        let quoted = excerpt(&definition.text, &definition.name, warning.span, warning.focus);
        text.push_str(&format!("\nWARNING: {name}{url}\n{warning}\n{quoted}"));
    }
    text
}
