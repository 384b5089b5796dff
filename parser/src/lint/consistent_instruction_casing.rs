//! Instruction words follow the majority's case; a tie counts as upper case, and mixed case is always wrong.

use super::{Subject, is_self_consistent};
use crate::diagnostic::Diagnostic;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    // ARG before the first FROM does not take part.
    let Some(first) = subject.file.stages.first() else { return Vec::new() };
    let in_stages = subject.lines.iter().filter(|line| line.span.start >= first.from.span.start);
    let all: Vec<_> = in_stages.map(|line| (line, line.head().0)).collect();
    let is_lower = |word: &str| word == word.to_lowercase();
    let consistent = all.iter().filter(|(_, word)| is_self_consistent(word));
    let (lower, upper) = consistent.fold((0, 0), |(lower, upper), (_, word)| match is_lower(word) {
        true => (lower + 1, upper),
        false => (lower, upper + 1),
    });
    let (majority, follows): (&str, fn(&str) -> bool) = match lower > upper {
        true => ("lowercase", |word| word == word.to_lowercase()),
        false => ("uppercase", |word| word == word.to_uppercase()),
    };
    let wrong = all.into_iter().filter(|(_, word)| !follows(word));
    let finding = |(line, word): (&crate::line::LogicalLine, &str)| {
        let message = format!("Command '{word}' should match the case of the command majority ({majority})");
        Diagnostic::warning("ConsistentInstructionCasing", message, line.span).with_focus(line.span_of(word))
    };
    wrong.map(finding).collect()
}
