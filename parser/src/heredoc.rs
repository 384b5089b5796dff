//! Here-documents (D5).
//!
//! A marker is a whole word of the instruction line: optional descriptor, `<<`, optional `-`, a name. Words are found as a shell
//! would, with `\` always the escape. Bodies follow the instruction in the order of their markers. The builder expands
//! the body of a COPY or ADD unless any part of the name is quoted; a RUN's body it leaves to the shell.

use crate::span::Span;
use nom::Parser;
use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{char, digit0, space0};
use nom::combinator::{all_consuming, opt, rest, verify};
use std::borrow::Cow;

/// A marker and its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Heredoc {
    /// Unquoted (D5.6).
    pub name: String,
    /// Raw, the newline of the last line included (D5.14).
    pub body: String,
    /// Whether variables in the body count (D5.7).
    pub expand: bool,
    /// `<<-`: leading tabs are stripped (D5.15).
    pub strip_tabs: bool,
    /// The body and its terminator; the marker's line where there is none.
    pub span: Span,
}

impl Heredoc {
    /// The body as the builder uses it: without leading tabs where `<<-` says so.
    pub fn content(&self) -> Cow<'_, str> {
        if !self.strip_tabs {
            return Cow::Borrowed(&self.body);
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect::<String>().into()
    }

    /// The marker that `word` is, with an empty body, if it is one. An error for unbalanced quotes in the name.
    pub fn from_marker(word: &str) -> Option<Result<Heredoc, &'static str>> {
        let (strip_tabs, raw) = marker(word)?;
        Some(unquote(raw).map(|(name, quoted)| Heredoc {
            name,
            body: String::new(),
            expand: !quoted,
            strip_tabs,
            span: Span::default(),
        }))
    }
}

/// D5.2 to D5.5: whether tabs are stripped, and the raw name.
fn marker(word: &str) -> Option<(bool, &str)> {
    let name = verify(rest, |name: &str| !name.is_empty() && !name.contains('<'));
    let mut parser = all_consuming((digit0, tag("<<"), opt(char('-')), space0, name));
    let parsed: nom::IResult<&str, _> = parser.parse(word);
    let (_, (_, _, dash, _, name)) = parsed.ok()?;
    Some((dash.is_some(), name))
}

/// D5.6, D5.7.
fn unquote(raw: &str) -> Result<(String, bool), &'static str> {
    let mut name = String::new();
    let mut quoted = false;
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                if let Some(escaped) = rest.chars().next() {
                    name.push(escaped);
                    rest = &rest[escaped.len_utf8()..];
                }
            }
            '\'' | '"' => {
                quoted = true;
                let inside: nom::IResult<&str, &str> = take_while(|inner| inner != c).parse(rest);
                let Ok((after, inside)) = inside else { return Err("unbalanced quotes in here-document name") };
                let Some(after) = after.strip_prefix(c) else { return Err("unbalanced quotes in here-document name") };
                name.push_str(inside);
                rest = after;
            }
            c => name.push(c),
        }
    }
    Ok((name, quoted))
}

/// The markers on an instruction line; none if the line does not split into words (D5.9).
pub(crate) fn markers(line: &str) -> Vec<Result<Heredoc, &'static str>> {
    match shell_words(line) {
        Some(words) => words.into_iter().filter_map(Heredoc::from_marker).collect(),
        None => Vec::new(),
    }
}

/// Whether the whole of `text` is one marker word.
pub(crate) fn is_one_word(text: &str) -> bool {
    matches!(shell_words(text).as_deref(), Some([word]) if marker(word).is_some())
}

/// Splits at blanks, quotes and escapes kept; `None` for an unbalanced quote. `<<` and `<<-` join the word that follows (D5.5).
fn shell_words(line: &str) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() {
            if let Some(begun) = start
                && !opens_name(&line[begun..at])
            {
                words.push(&line[begun..at]);
                start = None;
            }
            continue;
        }
        start.get_or_insert(at);
        match c {
            '\\' => {
                chars.next();
            }
            '\'' => {
                chars.by_ref().find(|(_, c)| *c == '\'')?;
            }
            '"' => loop {
                match chars.next()?.1 {
                    '\\' => {
                        chars.next();
                    }
                    '"' => break,
                    _ => {}
                }
            },
            _ => {}
        }
    }
    words.extend(start.map(|begun| &line[begun..]));
    Some(words)
}

fn opens_name(word: &str) -> bool {
    let operator = word.trim_start_matches(|c: char| c.is_ascii_digit()).trim_end();
    operator == "<<" || operator == "<<-"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<(String, bool, bool)> {
        let markers = markers(line).into_iter().map(Result::unwrap);
        markers.map(|heredoc| (heredoc.name, heredoc.expand, heredoc.strip_tabs)).collect()
    }

    #[test]
    fn markers_are_whole_unquoted_words() {
        let plain = |name: &str| (name.to_owned(), true, false);
        for (line, expected) in [
            ("RUN cat <<EOF", vec![plain("EOF")]),
            ("RUN cat <<A 3<<B", vec![plain("A"), plain("B")]),
            ("RUN << EOF", vec![plain("EOF")]),
            ("RUN <<- EOF", vec![("EOF".into(), true, true)]),
            ("RUN << -EOF", vec![plain("-EOF")]),
            ("RUN <<-EOF", vec![("EOF".into(), true, true)]),
            ("RUN <<eo'f'", vec![("eof".into(), false, false)]),
            (r"RUN <<eo\'f", vec![plain("eo'f")]),
            ("RUN <<'one two'", vec![("one two".into(), false, false)]),
            ("RUN <<$EOF", vec![plain("$EOF")]),
            ("RUN cat <<<x", vec![]),
            ("RUN echo $((1<<2))", vec![]),
            ("RUN x<<EOF", vec![]),
            ("RUN echo \"<<EOF\" '<<EOF'", vec![]),
            ("RUN echo it's <<EOF", vec![]),
        ] {
            assert_eq!(names(line), expected, "{line}");
        }
    }
}
