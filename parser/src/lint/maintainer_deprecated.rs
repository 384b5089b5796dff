//! MAINTAINER is used.

use super::Subject;
use crate::ast::InstructionKind;
use crate::diagnostic::Diagnostic;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let instructions = subject.file.stages.iter().flat_map(|stage| &stage.instructions);
    let maintainers = instructions.filter(|instruction| matches!(instruction.kind, InstructionKind::Maintainer(_)));
    let message = "Maintainer instruction is deprecated in favor of using label";
    maintainers.map(|instruction| Diagnostic::warning("MaintainerDeprecated", message, instruction.span)).collect()
}
