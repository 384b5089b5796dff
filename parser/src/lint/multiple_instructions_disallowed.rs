//! A CMD, ENTRYPOINT or HEALTHCHECK that a later one in the same stage makes useless.

use std::collections::HashMap;

use super::Subject;
use crate::ast::InstructionKind;
use crate::diagnostic::Diagnostic;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for stage in &subject.file.stages {
        let mut earlier = HashMap::new();
        for instruction in &stage.instructions {
            let kind = &instruction.kind;
            let is_single = matches!(
                kind,
                InstructionKind::Cmd(_) | InstructionKind::Entrypoint(_) | InstructionKind::Healthcheck(_)
            );
            if is_single && let Some(span) = earlier.insert(kind.name(), instruction.span) {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    kind.name()
                );
                findings.push(Diagnostic::warning("MultipleInstructionsDisallowed", message, span));
            }
        }
    }
    findings
}
