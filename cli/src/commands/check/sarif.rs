//! Findings as a SARIF 2.1.0 log, which code scanning services read.

use super::{all_findings, is_error, location};
use crate::definition::Definition;
use crate::error::Result;
use parser::LineIndex;
use parser::lint::Rule;
use serde_json::{Value, json};
use solver::check::Report;
use std::collections::BTreeSet;

pub fn log(definition: &Definition, report: &Report) -> Result<String> {
    let index = LineIndex::new(&definition.text);
    let names: BTreeSet<&str> = all_findings(report).map(|finding| finding.rule).collect();
    let rules: Vec<Value> = names.iter().map(|name| rule(name)).collect();
    let result = |finding: &parser::Diagnostic| {
        let (line, end_line) = index.lines(finding.focus);
        let notes: String = finding.notes.iter().map(|note| format!("\n{note}")).collect();
        json!({
            "ruleId": finding.rule,
            "ruleIndex": names.iter().position(|name| *name == finding.rule),
            "level": if is_error(finding, report) { "error" } else { "warning" },
            "message": {"text": format!("{finding}{notes}")},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(&location(definition))},
                "region": {
                    "startLine": line,
                    "startColumn": index.column(&definition.text, finding.focus.start),
                    "endLine": end_line,
                    "endColumn": index.column(&definition.text, finding.focus.end),
                },
            }}],
        })
    };
    let results: Vec<Value> = all_findings(report).map(result).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "rbuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

fn rule(name: &str) -> Value {
    let mut rule = json!({"id": name, "name": name});
    if let Some(known) = Rule::find(name) {
        rule["shortDescription"] = json!({"text": known.description});
        if let Some(url) = known.url() {
            rule["helpUri"] = url.into();
        }
    }
    rule
}

/// A path as a relative URI reference.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte.into()),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_name_their_rule_and_place() {
        let (definition, report) = super::super::report_of("# check=error=true\nFROM scratch AS B\nWORKDIR é");
        let log: Value = serde_json::from_str(&log(&definition, &report).unwrap()).unwrap();
        let run = &log["runs"][0];
        let ids: Vec<_> = run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert_eq!(ids, ["StageNameCasing", "WorkdirRelativePath"]);
        let result = &run["results"][1];
        assert_eq!((&result["ruleId"], &result["ruleIndex"]), (&json!("WorkdirRelativePath"), &json!(1)));
        assert_eq!(result["level"], "error");
        let region = &result["locations"][0]["physicalLocation"]["region"];
        assert_eq!(*region, json!({"startLine": 3, "startColumn": 9, "endLine": 3, "endColumn": 10}));
    }

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("a b/ü.Dockerfile"), "a%20b/%C3%BC.Dockerfile");
    }
}
