//! What is wrong with a Dockerfile, and how it is shown.

use crate::span::{LineIndex, Span};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// A finding at a place in the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The name of the build check that found it, such as `StageNameCasing`.
    pub rule: Option<&'static str>,
    pub message: String,
    pub span: Span,
    /// What was probably meant: shown as `(did you mean X?)` behind the message (D22.1).
    pub suggestion: Option<String>,
    pub notes: Vec<String>,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>, span: Span) -> Self {
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            span,
            suggestion: None,
            notes: Vec::new(),
        }
    }

    pub fn warning(rule: &'static str, message: impl Into<String>, span: Span) -> Self {
        Diagnostic { severity: Severity::Warning, rule: Some(rule), ..Diagnostic::error(message, span) }
    }

    /// The finding under its quoted, underlined source line.
    pub fn render(&self, source: &str, file_name: &str, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let end = self.span.end.min(source.len());
        let start = self.span.start.min(end);
        // One line is enough to find the place; a here-document of a thousand lines would bury the message.
        let end = source[start..end].find('\n').map_or(end, |newline| start + newline);
        let snippet =
            Snippet::source(source).path(file_name).fold(true).annotation(AnnotationKind::Primary.span(start..end));
        let title = self.to_string();
        let mut group = level.primary_title(title.as_str()).element(snippet);
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {suggestion}?)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// The source around a span as BuildKit quotes it: the file and line, then numbered lines between rules, the faulty ones
/// marked with `>>>` (X5.30, X5.31).
pub fn excerpt(source: &str, file_name: &str, span: Span) -> String {
    let (first, last) = LineIndex::new(source).lines(span);
    let padding = if first == last { 2 } else { 1 };
    let rule = "-".repeat(20);
    let mut text = format!("{file_name}:{first}\n{rule}\n");
    let shown = first.saturating_sub(padding).max(1)..=last + padding;
    let mut offset = 0;
    for (number, line) in source.split('\n').enumerate().map(|(index, line)| (index + 1, line)) {
        if shown.contains(&number) {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            text.push_str(&format!(" {number:3} | {mark} {}\n", line.trim_end_matches('\r')));
            if let Some(underline) = underline(line, span, offset) {
                text.push_str(&format!("     |     {underline}\n"));
            }
        }
        offset += line.len() + 1;
    }
    text.push_str(&rule);
    text.push('\n');
    text
}

/// A line of `^` below the part of a line that a span means; none where it means the whole line, or several.
fn underline(line: &str, span: Span, offset: usize) -> Option<String> {
    let (start, end) = (span.start.checked_sub(offset)?, span.end.checked_sub(offset)?);
    let (before, marked) = (line.get(..start)?, line.get(start..end)?);
    let is_part = !marked.trim().is_empty() && marked.trim_end() != line.trim();
    is_part.then(|| {
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{indent}{}", "^".repeat(marked.chars().count()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "FROM a\nRUN x\nCOPPY a /\nRUN y\n";

    #[test]
    fn renders_the_underlined_line() {
        let mut diagnostic = Diagnostic::error("unknown instruction: COPPY", Span { start: 13, end: 18 });
        diagnostic.suggestion = Some("COPY".into());
        insta::assert_snapshot!(diagnostic.render(SOURCE, "Dockerfile", false), @r#"
        error: unknown instruction: COPPY (did you mean COPY?)
         --> Dockerfile:3:1
          |
        3 | COPPY a /
          | ^^^^^
        "#);
    }

    #[test]
    fn excerpts_mark_the_faulty_lines() {
        let text = excerpt(SOURCE, "Dockerfile", Span { start: 13, end: 18 });
        insta::assert_snapshot!(text, @r#"
        Dockerfile:3
        --------------------
           1 |     FROM a
           2 |     RUN x
           3 | >>> COPPY a /
             |     ^^^^^
           4 |     RUN y
           5 |     
        --------------------
        "#);
    }
}
