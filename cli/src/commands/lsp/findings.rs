//! What is wrong with a document, as the editor shows it.

use super::document::Document;
use super::files;
use crate::app::NoImages;
use lsp_server::Notification;
use lsp_types::{CodeDescription, Diagnostic, DiagnosticSeverity, NumberOrString, PublishDiagnosticsParams, Uri};
use parser::Severity;
use parser::lint::Rule;
use solver::check::{Report, check};
use solver::lower::LowerOptions;

/// Errors and build checks of a document.
pub fn report(document: &Document) -> Report {
    let options = LowerOptions { ignore: files::ignore(document), ..LowerOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.map(|runtime| runtime.block_on(check(&document.text, &options, &NoImages))).unwrap_or_default()
}

pub fn diagnostics(document: &Document) -> Vec<Diagnostic> {
    let report = report(document);
    report.errors.iter().chain(&report.warnings).map(|finding| diagnostic(document, finding)).collect()
}

pub fn diagnostic(document: &Document, finding: &parser::Diagnostic) -> Diagnostic {
    let notes: String = finding.notes.iter().map(|note| format!("\n{note}")).collect();
    let url = Rule::find(finding.rule).and_then(Rule::url).and_then(|url| url.parse().ok());
    Diagnostic {
        range: document.range(finding.focus),
        severity: Some(match finding.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(finding.rule.to_owned())),
        code_description: url.map(|href| CodeDescription { href }),
        source: Some("rbuild".into()),
        message: format!("{finding}{notes}"),
        ..Diagnostic::default()
    }
}

pub fn publish(uri: &Uri, version: Option<i32>, diagnostics: Vec<Diagnostic>) -> Notification {
    let params = PublishDiagnosticsParams { uri: uri.clone(), diagnostics, version };
    Notification::new("textDocument/publishDiagnostics".into(), params)
}
