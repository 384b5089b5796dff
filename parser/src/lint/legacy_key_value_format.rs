//! `ENV name value` instead of `ENV name=value`.

use super::Subject;
use crate::ast::InstructionKind;
use crate::diagnostic::Diagnostic;
use crate::words;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let escape = subject.file.directives.escape;
    let instructions = subject.file.stages.iter().flat_map(|stage| &stage.instructions);
    let finding = |instruction: &crate::ast::Instruction| {
        if !matches!(instruction.kind, InstructionKind::Env(_) | InstructionKind::Label(_)) {
            return None;
        }
        let arguments = words::head(&instruction.text).1;
        let is_legacy = words::quoted_words(arguments, escape).first().is_some_and(|first| !first.contains('='));
        let name = instruction.kind.name();
        let message = format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        is_legacy.then(|| Diagnostic::warning("LegacyKeyValueFormat", message, instruction.span))
    };
    instructions.filter_map(finding).collect()
}
