//! The comment above a named stage or an ARG does not begin with its name, and so describes nothing (D3.7).

use super::Subject;
use crate::ast::{Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::span::Span;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let file = subject.file;
    let stages = file.stages.iter().filter_map(|stage| {
        let name = stage.from.name.as_deref()?;
        finding("FROM", &[name], &stage.from.comments, stage.from.span)
    });
    let instructions = file.global_args.iter().chain(file.stages.iter().flat_map(|stage| &stage.instructions));
    stages.chain(instructions.filter_map(argument)).collect()
}

fn argument(instruction: &Instruction) -> Option<Diagnostic> {
    let InstructionKind::Arg(declarations) = &instruction.kind else { return None };
    let names: Vec<_> = declarations.iter().map(|declaration| declaration.name.as_str()).collect();
    finding("ARG", &names, &instruction.comments, instruction.span)
}

fn finding(instruction: &str, names: &[&str], comments: &[String], span: Span) -> Option<Diagnostic> {
    let first_word = comments.last()?.split(' ').next()?;
    if names.contains(&first_word) {
        return None;
    }
    let name = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {instruction} should follow the format: `# {name} <description>`");
    Some(Diagnostic::warning("InvalidDefinitionDescription", message, span))
}
