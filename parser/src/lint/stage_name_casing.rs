//! A stage name is written with upper-case letters, which names do not keep (D12.2).

use super::Subject;
use crate::diagnostic::Diagnostic;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let finding = |stage: &crate::ast::Stage| {
        let name = stage.from.name.as_ref()?;
        let written = subject.source.get(name.span.start..name.span.end)?;
        let message = format!("Stage name '{written}' should be lowercase");
        (written.to_lowercase() != written)
            .then(|| Diagnostic::warning("StageNameCasing", message, stage.from.span).with_focus(name.span))
    };
    subject.file.stages.iter().filter_map(finding).collect()
}
