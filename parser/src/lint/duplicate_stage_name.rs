//! Two stages have the same name.

use std::collections::HashSet;

use super::Subject;
use crate::diagnostic::Diagnostic;
use crate::quote::quoted;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let finding = |stage: &crate::ast::Stage| {
        let name = stage.from.name.as_ref().filter(|name| !seen.insert(name.value.clone()))?;
        let message = format!("Duplicate stage name {}, stage names should be unique", quoted(name));
        Some(Diagnostic::warning("DuplicateStageName", message, stage.from.span).with_focus(name.span))
    };
    subject.file.stages.iter().filter_map(finding).collect()
}
