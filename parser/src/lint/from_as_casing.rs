//! AS is in another case than its FROM.

use super::{Subject, is_self_consistent};
use crate::diagnostic::Diagnostic;
use crate::words;

pub(super) fn check(subject: &Subject<'_>) -> Vec<Diagnostic> {
    let finding = |line: &crate::line::LogicalLine| {
        let (from, arguments) = line.head();
        if !from.eq_ignore_ascii_case("FROM") || !is_self_consistent(from) {
            return None;
        }
        let [.., keyword, _] = words::fields(arguments)[..] else { return None };
        let matches = match from == from.to_lowercase() {
            true => keyword == keyword.to_lowercase(),
            false => keyword == keyword.to_uppercase(),
        };
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        (keyword.eq_ignore_ascii_case("AS") && !matches)
            .then(|| Diagnostic::warning("FromAsCasing", message, line.span).with_focus(line.span_of(keyword)))
    };
    subject.lines.iter().filter_map(finding).collect()
}
