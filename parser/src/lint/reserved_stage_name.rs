//! A stage has a name that means something else.

use super::Subject;
use crate::diagnostic::Diagnostic;
use crate::quote::quoted;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let finding = |stage: &crate::ast::Stage| {
        let name = stage.from.name.as_ref().filter(|name| matches!(name.as_str(), "scratch" | "context"))?;
        let message = format!("Stage name should not use the same name as reserved stage {}", quoted(name));
        Some(Diagnostic::warning("ReservedStageName", message, stage.from.span).with_focus(name.span))
    };
    subject.file.stages.iter().filter_map(finding).collect()
}
