//! A blank line inside a continued instruction (D3.5), reported at the instruction's last line.

use super::Subject;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let with_blanks = subject.lines.iter().filter(|line| line.empty_continuation);
    let finding = |line: &crate::line::LogicalLine| {
        let before = subject.source.get(..line.span.end).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Diagnostic::warning("NoEmptyContinuation", "Empty continuation line", Span::new(start, line.span.end))
    };
    with_blanks.map(finding).collect()
}
