//! Dockerfiles: from text to a syntax tree, without any I/O.
//!
//! [`parse`] takes a source through three steps: lines (continuations, comments, here-documents), flags and
//! words, and one function for each instruction. The result is a [`Dockerfile`](ast::Dockerfile) whose words are as written and know their place
//! in the source, or [`Diagnostic`]s that can quote it. What needs a build's values comes later and is
//! here too, as functions of text: [`expand`] for variables, [`mount`], [`expose`] and [`chmod`] for values of options, [`ignore`] and
//! [`glob`] for patterns.

pub mod ast;
pub mod chmod;
pub mod diagnostic;
pub mod expand;
pub mod expose;
mod flags;
pub mod glob;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
mod json;
mod line;
pub mod mount;
pub mod path;
pub mod signal;
pub mod span;
pub mod suggest;

pub use ast::Dockerfile;
pub use diagnostic::Diagnostic;
pub use span::{Span, Spanned};

use ast::{Instruction, InstructionKind, Stage};
use instruction::Parsed;
use line::LogicalLine;
use span::LineIndex;

/// Parses a Dockerfile. Independent errors are reported together, in file order.
pub fn parse(source: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    if source.is_empty() {
        return Err(vec![Diagnostic::error("the Dockerfile cannot be empty", Span::default())]);
    }
    let lines = line::split(source).map_err(|error| vec![error])?;
    if lines.lines.is_empty() {
        return Err(vec![Diagnostic::error("file with no instructions", Span { start: 0, end: source.len() })]);
    }
    let index = LineIndex::new(source);
    let mut errors = Vec::new();
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for line in &lines.lines {
        match instruction::parse(line, lines.directives.escape, Some(index.line(line.span.start))) {
            Ok(Parsed::From(from)) => stages.push(Stage { from, instructions: Vec::new() }),
            Ok(Parsed::Instruction(kind)) => {
                let instruction = with_place(kind, line);
                match (stages.last_mut(), &instruction.kind) {
                    (Some(stage), _) => stage.instructions.push(instruction),
                    (None, InstructionKind::Arg(_)) => global_args.push(instruction),
                    (None, _) => errors.push(Diagnostic::error("no build stage in current context", line.span)),
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if stages.is_empty() {
        let span = Span { start: 0, end: source.len() };
        return Err(vec![Diagnostic::error("dockerfile contains no stages to build", span)]);
    }
    Ok(Dockerfile { directives: lines.directives, global_args, stages, warnings: lines.warnings })
}

/// Parses the text of an ONBUILD trigger, with default directives (D15.58). Spans are offsets in `text`.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let lines = line::split(text)?.lines;
    let [line] = lines.as_slice() else {
        return Err(Diagnostic::error("onbuild trigger should be a single expression", Span::default()));
    };
    match instruction::parse(line, '\\', None)? {
        Parsed::Instruction(kind) => Ok(with_place(kind, line)),
        Parsed::From(_) => Err(Diagnostic::error("FROM isn't allowed as an ONBUILD trigger", line.span)),
    }
}

fn with_place(kind: InstructionKind, line: &LogicalLine) -> Instruction {
    Instruction { span: line.span, kind, comments: line.comments.clone(), text: line.text.trim().to_owned() }
}

#[cfg(test)]
mod tests;
