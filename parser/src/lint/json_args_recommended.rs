//! CMD or ENTRYPOINT in shell form: the shell, not the command, gets signals. With a SHELL of their own, authors know that. A base
//! image's SHELL is not known here.

use std::collections::HashSet;

use super::Subject;
use crate::ast::{CommandLine, InstructionKind};
use crate::diagnostic::Diagnostic;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let mut stages_with_shell = HashSet::new();
    for stage in &subject.file.stages {
        let mut has_shell = stages_with_shell.contains(stage.from.image.as_str());
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Shell(_) => has_shell = true,
                InstructionKind::Cmd(CommandLine::Shell(_)) | InstructionKind::Entrypoint(CommandLine::Shell(_))
                    if !has_shell =>
                {
                    let message = format!(
                        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                        instruction.kind.name()
                    );
                    findings.push(Diagnostic::warning("JSONArgsRecommended", message, instruction.span));
                }
                _ => {}
            }
        }
        if has_shell && let Some(name) = &stage.from.name {
            stages_with_shell.insert(name.as_str());
        }
    }
    findings
}
