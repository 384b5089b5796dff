//! From the file to logical lines: comments dropped, continuations joined, here-document bodies attached (D1, D3 to D5).
//!
//! A [`LogicalLine`] remembers where each joined piece came from, so that any slice of its text has a [`Span`] in the file.

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::directive::DirectiveRun;
use crate::error_rule::ErrorRule;
use crate::heredoc::{self, Heredoc};
use crate::instruction;
use crate::span::{Span, Spanned};

/// Longest physical line, without its newline (D1.6).
const MAX_LINE: usize = 65535;

/// One instruction's text, with what surrounds it.
#[derive(Debug, Default)]
pub(crate) struct LogicalLine {
    /// Continuations joined; leading blanks of the first physical line removed.
    pub text: String,
    /// Where each joined piece starts: in `text`, and in the source. Ascending.
    pieces: Vec<(usize, usize)>,
    /// From the instruction word to the end of the last physical line, here-document bodies included.
    pub span: Span,
    /// The comment block above (D3.6).
    pub comments: Vec<String>,
    /// Whether a blank line was skipped inside (D3.5).
    pub empty_continuation: bool,
    pub heredocs: Vec<Heredoc>,
}

impl LogicalLine {
    /// Where a slice of `text` was written. For a text that is no slice of it, the whole line.
    pub fn span_of(&self, part: &str) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if start > self.text.len() || self.text.len() - start < part.len() {
            return self.span;
        }
        let end = match part.len() {
            0 => self.source_offset(start),
            length => self.source_offset(start + length - 1) + 1,
        };
        Span::new(self.source_offset(start), end)
    }

    /// The instruction word and its arguments.
    pub fn head(&self) -> (&str, &str) {
        crate::words::head(self.text.trim())
    }

    /// A slice of `text` as a word.
    pub fn word(&self, part: &str) -> Word {
        Spanned::new(part.to_owned(), self.span_of(part))
    }

    /// The text's own place: the instruction without here-document bodies.
    pub fn text_span(&self) -> Span {
        self.span_of(self.text.trim_end())
    }

    /// The offset in `text` of a place in the source: of a line break that is continued, where the next piece begins. `None` outside of
    /// the text, as in bodies of here-documents and comments.
    pub fn text_offset(&self, source: usize) -> Option<usize> {
        let index = self.pieces.partition_point(|(_, start)| *start <= source).checked_sub(1)?;
        let (text, start) = self.pieces[index];
        let end = self.pieces.get(index + 1).map_or(self.text.len(), |(text, _)| *text);
        let at = text + (source - start);
        // A cursor behind the last blank of a line still belongs to it.
        (at <= end).then_some(at)
    }

    fn source_offset(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(text, _)| *text <= offset);
        match after.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((text, source)) => source + (offset - text),
            None => self.span.start,
        }
    }

    fn push(&mut self, piece: &str, source_offset: usize) {
        self.pieces.push((self.text.len(), source_offset));
        self.text.push_str(piece);
    }
}

/// All logical lines of a file. With errors, the lines that could be read nevertheless.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub lines: Vec<LogicalLine>,
    pub escape: char,
    pub errors: Vec<Diagnostic>,
}

/// Physical lines with their offsets and line ends.
struct PhysicalLines<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Iterator for PhysicalLines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let rest = self.source.get(start..).filter(|rest| !rest.is_empty())?;
        let line = rest.split_inclusive('\n').next()?;
        self.at += line.len();
        Some((start, line))
    }
}

pub(crate) fn read(source: &str) -> Reading {
    let bom = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut physical = PhysicalLines { source, at: bom };
    let mut directives = DirectiveRun::default();
    let mut reading = Reading::default();
    let mut comments = Vec::new();

    if let Some(error) = too_long(source) {
        reading.escape = directives.escape;
        reading.errors.push(error);
        return reading;
    }
    while let Some((start, raw)) = physical.next() {
        let line = raw.trim_end_matches(['\n', '\r']);
        let text = line.trim_start();
        let start = start + line.len() - text.len();
        match directives.accept(text, Span::new(start, start + text.len())) {
            Ok(true) => continue,
            Ok(false) => {}
            // Without knowing the escape nothing behind it can be read.
            Err(error) => {
                reading.errors.push(error);
                break;
            }
        }
        if let Some(comment) = text.strip_prefix('#') {
            match comment.trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        if text.is_empty() {
            continue;
        }
        let mut logical = join(text, start, &mut physical, directives.escape);
        logical.comments = std::mem::take(&mut comments);
        if let Err(error) = attach_heredocs(&mut logical, &mut physical, directives.escape) {
            reading.errors.push(error);
        }
        reading.lines.push(logical);
    }
    reading.escape = directives.escape;
    if reading.lines.is_empty() && reading.errors.is_empty() {
        reading.errors.push(Diagnostic::error(
            ErrorRule::EmptyDockerfile,
            "file with no instructions",
            Span::new(0, 0),
        ));
    }
    reading
}

fn too_long(source: &str) -> Option<Diagnostic> {
    let (start, line) = PhysicalLines { source, at: 0 }
        .find(|(_, line)| line.len() > MAX_LINE && line.trim_end_matches('\n').len() > MAX_LINE)?;
    let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
    Some(Diagnostic::error(ErrorRule::LineTooLong, message, Span::new(start, start + line.len())))
}

/// Joins the physical lines of one instruction, of which the first is given (D4).
fn join(first: &str, start: usize, physical: &mut PhysicalLines<'_>, escape: char) -> LogicalLine {
    let mut logical = LogicalLine { span: Span::new(start, start + first.len()), ..LogicalLine::default() };
    let mut line = (start, first);
    loop {
        let Some(text) = continued(line.1, escape) else {
            logical.push(line.1, line.0);
            return logical;
        };
        logical.push(text, line.0);
        line = loop {
            let Some((start, raw)) = physical.next() else { return logical };
            let next = raw.trim_end_matches(['\n', '\r']);
            logical.span.end = start + next.len();
            match next.trim_start() {
                "" => logical.empty_continuation = true,
                text if text.starts_with('#') => {}
                _ => break (start, next),
            }
        };
    }
}

/// The line without its continuation mark, if it has one: an escape before blanks at the end, not itself preceded by one (D4.1
/// to D4.3).
pub(crate) fn continued(line: &str, escape: char) -> Option<&str> {
    let text = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!text.ends_with(escape)).then_some(text)
}

/// Reads the bodies that the line's markers announce (D5.10 to D5.14).
fn attach_heredocs(
    logical: &mut LogicalLine,
    physical: &mut PhysicalLines<'_>,
    escape: char,
) -> Result<(), Diagnostic> {
    if !logical.text.contains("<<") || !instruction::may_have_heredocs(&logical.text, escape) {
        return Ok(());
    }
    let markers = heredoc::markers(&logical.text)
        .map_err(|reason| Diagnostic::error(ErrorRule::InvalidHeredoc, reason.to_string(), logical.text_span()))?;
    for marker in markers {
        let mut heredoc = marker.into_heredoc();
        heredoc.span = Span::new(physical.at, physical.at);
        loop {
            let Some((start, raw)) = physical.next() else {
                let message = format!("there is no line `{}` that would end the here-document", heredoc.name);
                logical.span.end = physical.source.trim_end().len().max(logical.span.end);
                let error = Diagnostic::error(ErrorRule::UnterminatedHeredoc, "unterminated heredoc", logical.span);
                return Err(error.with_focus(logical.text_span()).with_note(message));
            };
            let line = raw.trim_end_matches(['\n', '\r']);
            logical.span.end = start + line.len();
            let line = if heredoc.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name {
                break;
            }
            heredoc.body.push_str(raw);
            heredoc.span.end = physical.at;
        }
        logical.heredocs.push(heredoc);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        read(source).lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_and_comments() {
        let cases: &[(&str, &[&str])] = &[
            ("RUN a \\  \n b", &["RUN a  b"]),
            ("ab\\\ncd", &["abcd"]),
            ("a\\\n\\\nb", &["ab"]),
            ("a \\\\\nb", &["a \\\\", "b"]),
            ("a \\\\\\\nb", &["a \\\\\\", "b"]),
            ("  a \\\n# c \\\n  # d\n b", &["a  b"]),
            ("a \\\n\n b", &["a  b"]),
            ("a \\", &["a "]),
            ("\\\na", &["a"]),
            ("a\r\n\r\nb \\\r\nc\r\n", &["a", "b c"]),
            ("\u{feff}a", &["a"]),
            ("# escape=`\na `\nb\\\nc", &["a b\\", "c"]),
        ];
        for (source, expected) in cases {
            assert_eq!(texts(source), *expected, "{source:?}");
        }
    }

    #[test]
    fn slices_know_their_place() {
        let source = "# x\nRUN one \\\n  two";
        let reading = read(source);
        let line = &reading.lines[0];
        let two = &line.text[line.text.find("two").unwrap()..];
        assert_eq!(&source[line.span_of(two).start..line.span_of(two).end], "two");
        assert_eq!(line.span, Span::new(4, source.len()));
        let across = line.span_of(&line.text[4..]);
        assert_eq!(&source[across.start..across.end], "one \\\n  two");
        assert_eq!(line.span_of("elsewhere"), line.span);
    }

    #[test]
    fn comments_above_an_instruction() {
        let reading = read("# a\n# b\n\nX\n# c\n#\n# d\nY\nZ");
        let comments: Vec<_> = reading.lines.iter().map(|line| line.comments.join(",")).collect();
        assert_eq!(comments, ["a,b", "d", ""]);
    }

    #[test]
    fn long_lines_are_refused() {
        assert!(read(&format!("RUN {}", "x".repeat(MAX_LINE - 4))).errors.is_empty());
        let errors = read(&format!("RUN {}\n", "x".repeat(MAX_LINE - 3))).errors;
        assert!(errors[0].message.contains("max allowed size of 65535"));
    }
}
