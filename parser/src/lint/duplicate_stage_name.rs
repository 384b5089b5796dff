//! Two stages have the same name.

use std::collections::HashSet;

use super::Subject;
use crate::diagnostic::Diagnostic;
use crate::quote::quoted;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let names = subject.file.stages.iter().filter_map(|stage| stage.from.name.as_ref());
    let again = names.filter(|name| !seen.insert(name.value.as_str()));
    let finding = |name: &crate::ast::Word| {
        let message = format!("Duplicate stage name {}, stage names should be unique", quoted(name));
        Diagnostic::warning("DuplicateStageName", message, name.span)
    };
    again.map(finding).collect()
}
