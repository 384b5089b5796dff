//! From physical lines to logical ones: directives, comments, continuations and here-document bodies (D1 to D5).

use crate::ast::{Directives, Word};
use crate::diagnostic::Diagnostic;
use crate::heredoc::{self, Heredoc};
use crate::span::{Span, Spanned};
use nom::Parser;
use nom::bytes::complete::take_while;
use nom::character::complete::{char, satisfy, space0};
use nom::combinator::{recognize, rest};
use nom::sequence::delimited;

/// One instruction, its continuations joined.
#[derive(Clone, Debug)]
pub(crate) struct LogicalLine {
    pub text: String,
    /// Where pieces of `text` were written: (offset in `text`, offset in the source).
    pieces: Vec<(usize, usize)>,
    /// From the first to the last physical line, bodies included (D4.8).
    pub span: Span,
    pub comments: Vec<String>,
    pub heredocs: Vec<Heredoc>,
}

impl LogicalLine {
    /// Where a range of `text` was written.
    pub fn span_of(&self, start: usize, end: usize) -> Span {
        let at = |offset: usize| {
            let piece = self.pieces.partition_point(|(begin, _)| *begin <= offset).saturating_sub(1);
            self.pieces.get(piece).map_or(self.span.start, |(begin, source)| source + (offset - begin))
        };
        // The end belongs to the last character, which may stand on another line than what follows it.
        let last = if end > start { at(end - 1) + 1 } else { at(start) };
        Span { start: at(start), end: last.max(at(start)) }
    }

    /// `part`, which must be a slice of `text`, as a word with its place.
    pub fn word(&self, part: &str) -> Word {
        Spanned { value: part.to_owned(), span: self.span_of_part(part) }
    }

    pub fn span_of_part(&self, part: &str) -> Span {
        let offset = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if offset > self.text.len() {
            return self.span;
        }
        self.span_of(offset, offset + part.len())
    }
}

pub(crate) struct Lines {
    pub directives: Directives,
    pub lines: Vec<LogicalLine>,
    pub warnings: Vec<Diagnostic>,
}

/// Longer physical lines are refused (D1.6).
const MAX_LINE: usize = 65535;

/// Splits a source into logical lines.
pub(crate) fn split(source: &str) -> Result<Lines, Diagnostic> {
    let directives = directives(source)?;
    let mut lines = Vec::new();
    let mut warnings = Vec::new();
    let mut comments: Vec<String> = Vec::new();
    let mut physical = Physical { source, at: if source.starts_with('\u{feff}') { 3 } else { 0 } };
    let mut may_be_directive = true;
    while let Some(line) = physical.next()? {
        let start = line.offset;
        let text = line.text.trim_start();
        if let Some(comment) = text.strip_prefix('#') {
            if may_be_directive && directive(text).is_some() {
                continue;
            }
            may_be_directive = false;
            let comment = comment.trim();
            if comment.is_empty() {
                comments.clear();
            } else {
                comments.push(comment.to_owned());
            }
            continue;
        }
        may_be_directive = false;
        let mut logical = LogicalLine {
            text: String::new(),
            pieces: Vec::new(),
            span: Span { start: start + (line.text.len() - text.len()), end: line.end() },
            comments: Vec::new(),
            heredocs: Vec::new(),
        };
        let mut continues = logical.push(text, line.end() - text.len(), directives.escape);
        if !continues && logical.text.is_empty() {
            continue;
        }
        let mut empty_continuation = false;
        while continues {
            let Some(line) = physical.next()? else { break };
            if line.text.trim_start().starts_with('#') {
                continue;
            }
            logical.span.end = line.end();
            if line.text.trim().is_empty() {
                empty_continuation = true;
                continue;
            }
            continues = logical.push(line.text, line.offset, directives.escape);
        }
        if empty_continuation {
            warnings.push(Diagnostic::warning(
                "NoEmptyContinuation",
                "Empty continuation line in instruction",
                logical.span,
            ));
        }
        logical.comments = std::mem::take(&mut comments);
        if logical.text.trim().is_empty() {
            continue;
        }
        if takes_heredocs(&logical.text) {
            read_bodies(&mut logical, &mut physical)?;
        }
        lines.push(logical);
    }
    Ok(Lines { directives, lines, warnings })
}

impl LogicalLine {
    /// Adds a physical line; says whether the next one belongs to it too (D4.1 to D4.4).
    fn push(&mut self, text: &str, offset: usize, escape: char) -> bool {
        let trimmed = text.trim_end_matches([' ', '\t']);
        let (kept, continues) = match trimmed.strip_suffix(escape) {
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (text, false),
        };
        self.pieces.push((self.text.len(), offset));
        self.text.push_str(kept);
        continues
    }
}

fn read_bodies(logical: &mut LogicalLine, physical: &mut Physical) -> Result<(), Diagnostic> {
    for marker in heredoc::markers(&logical.text) {
        let mut heredoc = marker.map_err(|message| Diagnostic::error(message, logical.span))?;
        let start = physical.at;
        loop {
            let Some(line) = physical.next_raw() else {
                return Err(Diagnostic::error("unterminated heredoc", logical.span));
            };
            let end = line.trim_end_matches(['\r', '\n']);
            let end = if heredoc.strip_tabs { end.trim_start_matches('\t') } else { end };
            logical.span.end = physical.at - (line.len() - line.trim_end_matches(['\r', '\n']).len());
            if end == heredoc.name {
                break;
            }
            heredoc.body.push_str(line);
        }
        heredoc.span = Span { start, end: logical.span.end };
        logical.heredocs.push(heredoc);
    }
    Ok(())
}

/// D5.1: RUN, COPY and ADD, also below ONBUILD, and not in JSON form.
fn takes_heredocs(text: &str) -> bool {
    if !text.contains("<<") {
        return false;
    }
    let (mut keyword, mut arguments) = split_keyword(text);
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        (keyword, arguments) = split_keyword(arguments);
    }
    let known = ["RUN", "COPY", "ADD"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
    known && !crate::json::is_array(crate::flags::after_flags(arguments))
}

/// The instruction word and the rest, trimmed (D6.1).
pub(crate) fn split_keyword(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.find(['\t', '\x0b', '\x0c', '\r', ' ']) {
        Some(end) => (&text[..end], text[end..].trim()),
        None => (text, &text[text.len()..]),
    }
}

struct PhysicalLine<'a> {
    /// Without its ending.
    text: &'a str,
    offset: usize,
}

impl PhysicalLine<'_> {
    fn end(&self) -> usize {
        self.offset + self.text.len()
    }
}

struct Physical<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Physical<'a> {
    fn next_raw(&mut self) -> Option<&'a str> {
        let rest = &self.source[self.at..];
        if rest.is_empty() {
            return None;
        }
        let line = rest.split_inclusive('\n').next()?;
        self.at += line.len();
        Some(line)
    }

    fn next(&mut self) -> Result<Option<PhysicalLine<'a>>, Diagnostic> {
        let offset = self.at;
        let Some(line) = self.next_raw() else { return Ok(None) };
        if line.len() > MAX_LINE {
            let span = Span { start: offset, end: offset };
            return Err(Diagnostic::error(
                format!("dockerfile line greater than max allowed size of {MAX_LINE}"),
                span,
            ));
        }
        Ok(Some(PhysicalLine { text: line.trim_end_matches(['\r', '\n']), offset }))
    }
}

/// D2.3 to D2.12. `syntax` and `check` are also found below a shebang (D2.9); `escape` is not (D2.10).
fn directives(source: &str) -> Result<Directives, Diagnostic> {
    let mut found = Directives { syntax: None, escape: '\\', check: None };
    let mut has_escape = false;
    let mut offset = if source.starts_with('\u{feff}') { 3 } else { 0 };
    let mut below_shebang = false;
    for (index, line) in source[offset..].split_inclusive('\n').enumerate() {
        let start = offset;
        offset += line.len();
        let text = line.trim_end_matches(['\r', '\n']);
        if index == 0 && text.starts_with("#!") {
            below_shebang = true;
            continue;
        }
        let Some((name, value)) = directive(text.trim_start()) else { break };
        let indented = text.starts_with(char::is_whitespace);
        let at = start + text.len() - text.trim_start().len();
        let word = Spanned { value: value.to_owned(), span: Span { start: at, end: start + text.len() } };
        let twice = match name.as_str() {
            "escape" => {
                if !below_shebang {
                    found.escape = match value {
                        "\\" => '\\',
                        "`" => '`',
                        _ => {
                            let message = format!("invalid escape token '{value}' does not match ` or \\");
                            return Err(Diagnostic::error(message, word.span));
                        }
                    };
                }
                std::mem::replace(&mut has_escape, true)
            }
            // These two are looked for without trimming (D2.8).
            "syntax" if !indented => found.syntax.replace(word.clone()).is_some(),
            "check" if !indented => found.check.replace(word.clone()).is_some(),
            _ => false,
        };
        if twice {
            return Err(Diagnostic::error(format!("only one {name} parser directive can be used"), word.span));
        }
    }
    Ok(found)
}

/// The lower-cased name and the value of a directive line (D2.2).
fn directive(line: &str) -> Option<(String, &str)> {
    let name = recognize((satisfy(|c| c.is_ascii_alphabetic()), take_while(|c: char| c.is_ascii_alphanumeric())));
    let mut parser = (char('#'), space0, name, delimited(space0, char('='), space0), rest);
    let parsed: nom::IResult<&str, _> = parser.parse(line);
    let (_, (_, _, name, _, value)) = parsed.ok()?;
    let name = name.to_ascii_lowercase();
    let value = value.trim();
    let known = ["syntax", "escape", "check"].contains(&name.as_str());
    (known && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        split(source).unwrap().lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn directives_stand_at_the_top() {
        for (id, source, escape) in [
            ("E1", "#!/usr/bin/x\n# escape=`\nFROM a", '\\'),
            ("E3", "\n# escape=`\nFROM a", '\\'),
            ("E4", "# note\n# escape=`", '\\'),
            ("E5", "# foo=bar\n# escape=`", '\\'),
            ("E6", "# EsCaPe=`", '`'),
            ("E10", "\u{feff}# escape=`", '`'),
            ("D2.5", "# escape=\n# escape=`", '\\'),
            ("D2.8", "  # escape=`", '`'),
        ] {
            assert_eq!(split(source).unwrap().directives.escape, escape, "{id}");
        }
        let message = |source| split(source).err().unwrap().message;
        assert_eq!(message("# escape=`\n# escape=`"), "only one escape parser directive can be used", "E7");
        assert!(message("# escape=x").contains("invalid escape token"), "E8");
        assert_eq!(split("#!/x\n# check=skip=all\nFROM a").unwrap().directives.check.unwrap().value, "skip=all", "E2");
    }

    #[test]
    fn continuations_join_verbatim() {
        for (id, source, text) in [
            ("E11", "RUN a \\\r\n b\r\n", "RUN a  b"),
            ("E12", "RUN a \\  \n b", "RUN a  b"),
            ("E13", "ENV C x\\\\\nENV D y", "ENV C x\\\\"),
            ("E14", "ENV E hello\\\n\\\nworld", "ENV E helloworld"),
            ("E15", "RUN a && \\\n# note \\\n b", "RUN a &&  b"),
            ("E16", "RUN a \\\n\n b", "RUN a  b"),
            ("E17", "RUN x \\", "RUN x "),
            ("E18", "RUN echo a # b", "RUN echo a # b"),
            ("E20", "RUN echo \"x\\\n# y\\\nz\"", "RUN echo \"xz\""),
        ] {
            assert_eq!(texts(source)[0], text, "{id}");
        }
    }

    #[test]
    fn spans_lead_back_to_the_source() {
        let source = "FROM a\nRUN one \\\n  two\n";
        let lines = split(source).unwrap().lines;
        let two = lines[1].text.find("two").unwrap();
        let span = lines[1].span_of(two, two + 3);
        assert_eq!(&source[span.start..span.end], "two");
        assert_eq!(&source[lines[1].span.start..lines[1].span.end], "RUN one \\\n  two");
    }

    #[test]
    fn bodies_follow_their_markers() {
        let lines = split("COPY <<A <<-B /d/\nB\nA\n\tA\n\tB\nRUN x").unwrap().lines;
        assert_eq!(lines.len(), 2);
        let bodies: Vec<_> = lines[0].heredocs.iter().map(|heredoc| heredoc.content().into_owned()).collect();
        assert_eq!(bodies, ["B\n", "A\n"]);
        for open in ["COPY <<EOF /f\nx\nEOF ", "RUN <<EOF\nx"] {
            assert_eq!(split(open).err().unwrap().message, "unterminated heredoc", "E38");
        }
        assert_eq!(texts("USER <<X\nX"), ["USER <<X", "X"], "E26");
        assert_eq!(texts("RUN [\"<<EOF\"]\nX"), ["RUN [\"<<EOF\"]", "X"], "E24");
    }
}
