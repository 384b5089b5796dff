//! A stage has a name that means something else.

use super::Subject;
use crate::diagnostic::Diagnostic;
use crate::quote::quoted;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let names = subject.file.stages.iter().filter_map(|stage| stage.from.name.as_ref());
    let reserved = names.filter(|name| matches!(name.as_str(), "scratch" | "context"));
    let finding = |name: &crate::ast::Word| {
        let message = format!("Stage name should not use the same name as reserved stage {}", quoted(name));
        Diagnostic::warning("ReservedStageName", message, name.span)
    };
    reserved.map(finding).collect()
}
