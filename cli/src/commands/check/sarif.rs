//! Findings as a SARIF 2.1.0 log, which code scanning services read.

use super::{all_findings, is_error, location};
use crate::definition::Definition;
use crate::error::Result;
use parser::lint::Rule;
use parser::{LineIndex, Span};
use serde_json::{Value, json};
use solver::check::Report;
use std::collections::BTreeSet;

pub fn log(definition: &Definition, report: &Report) -> Result<String> {
    let index = LineIndex::new(&definition.text);
    let names: BTreeSet<&str> = all_findings(report).map(|finding| finding.rule).collect();
    let rules: Vec<Value> = names.iter().map(|name| rule(name)).collect();
    let result = |finding: &parser::Diagnostic| {
        let notes: String = finding.notes.iter().map(|note| format!("\n{note}")).collect();
        json!({
            "ruleId": finding.rule,
            "ruleIndex": names.iter().position(|name| *name == finding.rule),
            "level": if is_error(finding, report) { "error" } else { "warning" },
            "message": {"text": format!("{finding}{notes}")},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(&location(definition))},
                "region": region(&index, &definition.text, finding.focus),
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
            "columnKind": "utf16CodeUnits",
            "results": results,
        }],
    });
    Ok(serde_json::to_string_pretty(&log)? + "\n")
}

/// Columns are those of editors, in UTF-16 code units: there are readers that never look at `columnKind`.
fn region(index: &LineIndex, source: &str, span: Span) -> Value {
    let (start_line, end_line) = index.lines(span);
    let column = |line: usize, offset: usize| {
        let start = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let before = source.get(start..offset).unwrap_or_default().trim_end_matches(['\n', '\r']);
        before.encode_utf16().count() + 1
    };
    json!({
        "startLine": start_line,
        "startColumn": column(start_line, span.start),
        "endLine": end_line,
        "endColumn": column(end_line, span.end),
    })
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

/// A path as a URI: relative to the working directory where it lies in there.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
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
    fn columns_count_utf16_code_units_within_their_line() {
        let source = "FROM a\n😀é x\r\ny\n";
        let index = LineIndex::new(source);
        let region = |start, end| region(&index, source, Span::new(start, end)).to_string();
        let expected = |line: [usize; 4]| {
            format!(
                "{{\"startLine\":{},\"startColumn\":{},\"endLine\":{},\"endColumn\":{}}}",
                line[0], line[1], line[2], line[3]
            )
        };
        assert_eq!(region(14, 15), expected([2, 5, 2, 6]));
        // Line ends belong to the line that they end, and are no columns.
        assert_eq!(region(0, 17), expected([1, 1, 2, 6]));
        assert_eq!(region(17, 18), expected([3, 1, 3, 2]));
        assert_eq!(region(19, 19), expected([4, 1, 4, 1]));
    }

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("a b/ü.Dockerfile"), "a%20b/%C3%BC.Dockerfile");
        assert_eq!(uri("/a/Dockerfile"), "file:///a/Dockerfile");
    }
}
