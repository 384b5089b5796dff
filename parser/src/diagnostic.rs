//! Errors and warnings that point into a Dockerfile, and how they are drawn.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::error_rule::ErrorRule;
use crate::span::{LineIndex, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One finding. `Display` gives the message in BuildKit's wording, with the suggestion (D22).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The rule that is broken: of an error, or of a build check, such as `StageNameCasing` (D21).
    pub rule: &'static str,
    /// Without the suggestion.
    pub message: Box<str>,
    /// The place as BuildKit reports it: of a warning the whole instruction.
    pub span: Span,
    /// The part of it that is meant: what is underlined.
    pub focus: Span,
    /// What was probably meant: a word, not a sentence.
    pub suggestion: Option<String>,
    pub notes: Vec<String>,
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {suggestion}?)"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    pub fn error(rule: ErrorRule, message: impl Into<String>, span: Span) -> Self {
        Diagnostic::new(Severity::Error, rule.name(), message.into(), span)
    }

    pub fn warning(rule: &'static str, message: impl Into<String>, span: Span) -> Self {
        Diagnostic::new(Severity::Warning, rule, message.into(), span)
    }

    fn new(severity: Severity, rule: &'static str, message: String, span: Span) -> Self {
        Diagnostic {
            severity,
            rule,
            message: message.into_boxed_str(),
            span,
            focus: span,
            suggestion: None,
            notes: Vec::new(),
        }
    }

    pub fn with_focus(mut self, focus: Span) -> Self {
        self.focus = focus;
        self
    }

    pub fn with_suggestion(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The finding with its source lines underlined, as rustc draws it. `source` is the text that was parsed.
    pub fn render(&self, source: &str, file_name: &str, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*self.message).id(self.rule);
        let (start, end) = clamp(source, self.focus);
        let snippet =
            Snippet::source(source).path(file_name).fold(true).annotation(AnnotationKind::Primary.span(start..end));
        let mut group = title.element(snippet);
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(suggestion) = &self.suggestion {
            group = group.element(Level::HELP.message(format!("did you mean {suggestion}?")));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

/// The span moved onto character boundaries inside the source, so that a diagnostic drawn over another text than the one
/// that was parsed looks odd instead of panicking. Line ends at the end of the span are left out.
fn clamp(source: &str, span: Span) -> (usize, usize) {
    let boundary = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (boundary(span.start), boundary(span.end.max(span.start)));
    let text = source.get(start..end).unwrap_or_default();
    (start, start + text.trim_end_matches(['\n', '\r']).len())
}

/// The source around a span as BuildKit quotes it: the file and line, then numbered lines between rules, the faulty ones
/// marked with `>>>` (X5.30, X5.31). The focus is underlined, if it lies on one line and is not all of the span.
pub fn excerpt(source: &str, file_name: &str, span: Span, focus: Span) -> String {
    let (first, last) = LineIndex::new(source).lines(span);
    let context = if first == last { 2 } else { 1 };
    let shown = first.saturating_sub(context).max(1)..=last + context;
    let rule = "-".repeat(20);
    let mut text = format!("{file_name}:{first}\n{rule}\n");
    let mut offset = 0;
    for (number, line) in (1..).zip(source.split('\n')) {
        if shown.contains(&number) {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            text.push_str(&format!(" {number:3} | {mark} {}\n", line.trim_end_matches('\r')));
            if let Some(underline) = underline(line, focus, offset, first == last) {
                text.push_str(&format!("     |     {underline}\n"));
            }
        }
        offset += line.len() + 1;
    }
    text.push_str(&rule);
    text.push('\n');
    text
}

/// A line of `^` below the part of a line that a span means; none where it means several lines, or all of the `only` one.
fn underline(line: &str, span: Span, offset: usize, only: bool) -> Option<String> {
    let (start, end) = (span.start.checked_sub(offset)?, span.end.checked_sub(offset)?);
    let (before, marked) = (line.get(..start)?, line.get(start..end)?);
    let is_all = only && marked.trim_end() == line.trim();
    (!is_all && !marked.trim().is_empty()).then(|| {
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        format!("{indent}{}", "^".repeat(marked.chars().count()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestion_is_part_of_the_text() {
        let diagnostic = Diagnostic::error(ErrorRule::UnknownFlag, "unknown flag: --mont", Span::default())
            .with_suggestion(Some("mount".into()));
        assert_eq!(diagnostic.to_string(), "unknown flag: --mont (did you mean mount?)");
    }

    #[test]
    fn excerpts_mark_and_underline() {
        let source = "FROM a\nRUN b\nRUN c\nRUN d\n";
        assert_eq!(
            excerpt(source, "Dockerfile", Span::new(11, 12), Span::new(11, 12)),
            "Dockerfile:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN b\n     |         ^\n   3 |     RUN c\n   4 |     RUN d\n--------------------\n"
        );
        assert_eq!(
            excerpt(source, "Dockerfile", Span::new(13, 24), Span::new(13, 24)),
            "Dockerfile:3\n--------------------\n   2 |     RUN b\n   3 | >>> RUN c\n   4 | >>> RUN d\n   5 |     \n--------------------\n"
        );
        // One line of several can be meant.
        assert_eq!(
            excerpt(source, "Dockerfile", Span::new(13, 24), Span::new(19, 24)),
            "Dockerfile:3\n--------------------\n   2 |     RUN b\n   3 | >>> RUN c\n   4 | >>> RUN d\n     |     ^^^^^\n   5 |     \n--------------------\n"
        );
        // A span beyond the source is no reason to fail.
        assert!(excerpt(source, "Dockerfile", Span::new(100, 200), Span::new(100, 200)).starts_with("Dockerfile:5"));
    }

    #[test]
    fn render_survives_a_span_that_does_not_fit() {
        let diagnostic = Diagnostic::error(ErrorRule::NoStages, "x", Span::new(1, 900));
        assert!(diagnostic.render("é", "Dockerfile", false).contains("error[NoStages]: x"));
    }
}
