//! From instructions to stages: the whole file (D1.9 to D1.12, D6.6).

use std::borrow::Cow;

use crate::ast::{Directives, Dockerfile, Instruction, InstructionKind, Stage};
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::instruction::{self, Fault, Parsed};
use crate::line::{self, LogicalLine};
use crate::span::{LineIndex, Span};
use crate::{directive, lint};

/// Parses a Dockerfile. All instructions of all stages are looked at, whatever will be built (D6.7). Of several errors the
/// first is the one that BuildKit reports.
pub fn parse(source: &str) -> Result<Dockerfile, Vec<Diagnostic>> {
    match parse_partly(source) {
        (Some(file), errors) if errors.is_empty() => Ok(file),
        (_, errors) => Err(errors),
    }
}

/// As [`parse`], but with errors gives what is right too, so that more can be said about it. `None` where something is missing on
/// which the rest depends: a FROM, a variable, the lines behind a here-document without an end.
pub fn parse_partly(source: &str) -> (Option<Dockerfile>, Vec<Diagnostic>) {
    if source.is_empty() {
        let message = "the Dockerfile cannot be empty";
        return (None, vec![Diagnostic::error(ErrorRule::EmptyDockerfile, message, Span::default())]);
    }
    let reading = line::read(source);
    let index = LineIndex::new(source);
    let mut is_usable = reading.errors.is_empty();
    let mut errors = reading.errors;
    let mut instruction_errors = Vec::new();
    let mut stage_errors = Vec::new();
    let mut file = Dockerfile {
        directives: Directives {
            syntax: directive::scan(source, "syntax"),
            escape: reading.escape,
            check: directive::scan(source, "check"),
        },
        global_args: Vec::new(),
        stages: Vec::new(),
        warnings: Vec::new(),
    };
    let mut in_stage = false;
    for line in &reading.lines {
        match instruction::parse(line, reading.escape) {
            Ok(Parsed::From(from)) => {
                in_stage = true;
                file.stages.push(Stage { from, instructions: Vec::new() });
            }
            Ok(Parsed::Instruction(instruction)) => match file.stages.last_mut() {
                Some(stage) => stage.instructions.push(instruction),
                None if matches!(instruction.kind, InstructionKind::Arg(_)) => file.global_args.push(instruction),
                None if in_stage => {}
                None => {
                    let message = "no build stage in current context";
                    let error = Diagnostic::error(ErrorRule::InstructionBeforeFrom, message, line.span);
                    let error = error.with_focus(line.text_span());
                    is_usable = false;
                    instruction_errors.push(error.with_note("only ARG may stand before the first FROM"));
                    in_stage = true; // said once is enough
                }
            },
            Err(fault) => {
                // A broken FROM opens its stage nevertheless, or everything behind it would be wrong too.
                in_stage |= instruction_word(line).eq_ignore_ascii_case("FROM");
                is_usable &= !declares(line);
                // The place is the instruction, the focus the word that is wrong.
                match fault.at(line.span) {
                    Fault::Line(error) => errors.push(error),
                    Fault::Stage(error) => stage_errors.push(error),
                    Fault::Instruction(mut error) => {
                        let number = index.line(line.span.start);
                        error.message = format!("dockerfile parse error on line {number}: {}", error.message).into();
                        instruction_errors.push(error);
                    }
                }
            }
        }
    }
    errors.extend(instruction_errors);
    errors.extend(stage_errors);
    if errors.is_empty() && file.stages.is_empty() {
        let end = Span::new(source.len(), source.len());
        errors.push(Diagnostic::error(ErrorRule::NoStages, "dockerfile contains no stages to build", end));
    }
    if file.stages.is_empty() || !is_usable {
        return (None, errors);
    }
    file.warnings = lint::check(source, &file, &reading.lines);
    (Some(file), errors)
}

/// Whether later instructions may depend on what the line declares. A misspelt word may mean anything.
fn declares(line: &LogicalLine) -> bool {
    let word = instruction_word(line).to_uppercase();
    !instruction::NAMES.contains(&word.as_str()) || matches!(word.as_str(), "FROM" | "ARG" | "ENV")
}

/// As [`parse`], for a file of unknown encoding (D1.1): bytes that are not UTF-8 are replaced. Gives the text too, to which the
/// spans belong.
pub fn parse_bytes(source: &[u8]) -> (Cow<'_, str>, Result<Dockerfile, Vec<Diagnostic>>) {
    let text = String::from_utf8_lossy(source);
    let result = parse(&text);
    (text, result)
}

/// Parses the trigger of an ONBUILD, with default directives (D15.58). Spans are those of the trigger's text.
pub fn parse_trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let reading = line::read(text);
    if let Some(error) = reading.errors.into_iter().next() {
        return Err(error);
    }
    let [line] = reading.lines.as_slice() else {
        return Err(Diagnostic::error(
            ErrorRule::InvalidTrigger,
            "onbuild trigger should be a single expression",
            Span::new(0, text.len()),
        ));
    };
    match instruction::parse(line, '\\') {
        Ok(Parsed::Instruction(instruction)) => Ok(instruction),
        Ok(Parsed::From(_)) => Err(Diagnostic::error(
            ErrorRule::InvalidTrigger,
            "FROM isn't allowed as an ONBUILD trigger",
            line.text_span(),
        )),
        Err(Fault::Line(error) | Fault::Instruction(error) | Fault::Stage(error)) => Err(error),
    }
}

fn instruction_word(line: &LogicalLine) -> &str {
    line.head().0
}
