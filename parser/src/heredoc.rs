//! Here-documents: markers such as `<<EOF` and the bodies that follow the instruction (D5).
//!
//! Markers are looked for in the words of the whole instruction line, split by the expander with `\` as the escape whatever the
//! file says, and with quotes and escapes kept (D5.9). A line that cannot be split has none.

use crate::expand::{ExpandReason, Lexer, Mode, NoVariables};
use crate::span::Span;
use crate::words;

/// A here-document: its marker and its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Heredoc {
    /// Unquoted (D5.6).
    pub name: String,
    /// As written, line ends included; see [`Heredoc::content`].
    pub body: String,
    /// Whether COPY and ADD expand variables in it: no part of the name is quoted (D5.7).
    pub expand: bool,
    /// `<<-`: leading tabs do not count (D5.15).
    pub strip_tabs: bool,
    /// The body in the file, without the terminator.
    pub span: Span,
}

impl Heredoc {
    /// The body as the builder itself uses it: without leading tabs if the marker is `<<-`.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.body.clone();
        }
        self.body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// A marker, before its body is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Marker {
    pub name: String,
    pub expand: bool,
    pub strip_tabs: bool,
}

impl Marker {
    /// The marker that a raw word is, if it is one.
    pub fn parse(word: &str) -> Result<Option<Marker>, ExpandReason> {
        let Some((strip_tabs, raw)) = words::heredoc_marker(word) else { return Ok(None) };
        let plain = Mode { keep_unset: true, ..Mode::default() };
        let with_quotes = Mode { keep_quotes: true, ..plain };
        let split = |mode| Lexer::new(raw, '\\', &NoVariables, mode).words();
        let (names, quoted_names) = (split(plain)?, split(with_quotes)?);
        Ok(match (names.as_slice(), quoted_names.as_slice()) {
            ([name], [quoted]) => Some(Marker { name: name.clone(), expand: name == quoted, strip_tabs }),
            _ => None,
        })
    }

    pub fn into_heredoc(self) -> Heredoc {
        let Marker { name, expand, strip_tabs } = self;
        Heredoc { name, body: String::new(), expand, strip_tabs, span: Span::default() }
    }
}

/// All markers of an instruction line, in order.
pub(crate) fn markers(line: &str) -> Result<Vec<Marker>, ExpandReason> {
    let raw = Mode { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Mode::default() };
    let words = Lexer::new(line, '\\', &NoVariables, raw).words().unwrap_or_default();
    words.iter().filter_map(|word| Marker::parse(word).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<(String, bool, bool)> {
        markers(line).unwrap().into_iter().map(|marker| (marker.name, marker.expand, marker.strip_tabs)).collect()
    }

    #[test]
    fn names_and_quoting() {
        let cases = [
            ("RUN <<EOF", "EOF", true, false),
            ("RUN 3<<-EOF", "EOF", true, true),
            ("RUN << EOF", "EOF", true, false),
            ("RUN <<- EOF", "EOF", true, true),
            ("RUN << -EOF", "-EOF", true, false),
            ("RUN <<eo'f'", "eof", false, false),
            (r"RUN <<eo\'f", "eo'f", true, false),
            ("RUN <<'one two'", "one two", false, false),
            ("RUN <<\"EOF\"", "EOF", false, false),
            ("RUN <<$EOF", "$EOF", true, false),
            ("RUN <<${EOF}", "${EOF}", true, false),
        ];
        for (line, name, expand, strip) in cases {
            assert_eq!(found(line), [(name.to_owned(), expand, strip)], "{line}");
        }
        assert_eq!(found("RUN cat <<A 4<<-B > f").len(), 2);
    }

    #[test]
    fn what_is_no_marker() {
        for line in [
            "RUN cat <<<foo",
            "RUN echo $((1<<2))",
            "RUN echo \"<<EOF\"",
            "RUN echo '<<EOF'",
            "RUN echo it's <<EOF",
            "RUN x<<EOF",
            "RUN <<",
            "RUN cat <<\"",
        ] {
            assert_eq!(found(line), [], "{line}");
        }
    }

    #[test]
    fn content_strips_tabs_only_for_dash() {
        let mut heredoc = Marker { name: "E".into(), expand: true, strip_tabs: true }.into_heredoc();
        heredoc.body = "\t\ta\tb\n c\n\t\n".into();
        assert_eq!(heredoc.content(), "a\tb\n c\n\n");
        heredoc.strip_tabs = false;
        assert_eq!(heredoc.content(), heredoc.body);
    }
}
