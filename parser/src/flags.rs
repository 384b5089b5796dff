//! `--name=value` flags in front of an instruction's arguments (D7).

use crate::line::LogicalLine;
use crate::span::Span;
use crate::suggest;

/// A flag as written.
#[derive(Debug)]
struct Flag {
    name: String,
    value: Option<String>,
    span: Span,
}

/// The flags of one instruction, to be taken one by one; what is left in the end is unknown.
#[derive(Debug)]
pub(crate) struct Flags {
    flags: Vec<Flag>,
}

/// A message and its place, before it is known which instruction it belongs to.
pub(crate) type Problem = (String, Span, Option<String>);

/// Takes the flags from the start of `text`, a part of `line`; gives them and the rest, left-trimmed.
pub(crate) fn split<'a>(line: &LogicalLine, text: &'a str, escape: char) -> (Flags, &'a str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, length) = flag_word(rest, escape);
        let span = line.span_of_part(&rest[..length]);
        rest = rest[length..].trim_start();
        let body = &word[2..];
        if body.is_empty() {
            break;
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (body.to_owned(), None),
        };
        flags.push(Flag { name, value, span });
    }
    (Flags { flags }, rest)
}

/// What follows the flags, for callers that do not want them.
pub(crate) fn after_flags(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, length) = flag_word(rest, '\\');
        rest = rest[length..].trim_start();
        if word == "--" {
            break;
        }
    }
    rest
}

/// A word with its quotes and escapes removed, and how long it was with them (D7.3).
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == escape => {
                if let Some((_, escaped)) = chars.next() {
                    word.push(escaped);
                }
            }
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote.is_none() && c.is_whitespace() => return (word, at),
            c => word.push(c),
        }
    }
    (word, text.len())
}

impl Flags {
    pub fn none() -> Self {
        Flags { flags: Vec::new() }
    }

    /// The value of a flag that needs one (D7.8).
    pub fn string(&mut self, name: &str) -> Result<Option<(String, Span)>, Problem> {
        let mut values = self.list(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err((format!("duplicate flag specified: --{name}"), values[1].1, None)),
        }
    }

    /// All values of a flag that may stand several times.
    pub fn list(&mut self, name: &str) -> Result<Vec<(String, Span)>, Problem> {
        let (wanted, others): (Vec<_>, Vec<_>) = self.flags.drain(..).partition(|flag| flag.name == name);
        self.flags = others;
        let values = wanted.into_iter().map(|flag| match flag.value {
            Some(value) => Ok((value, flag.span)),
            None => Err((format!("missing a value on flag: --{name}"), flag.span, None)),
        });
        values.collect()
    }

    /// D7.7.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        let (mut wanted, others): (Vec<_>, Vec<_>) = self.flags.drain(..).partition(|flag| flag.name == name);
        self.flags = others;
        if wanted.len() > 1 {
            return Err((format!("duplicate flag specified: --{name}"), wanted[1].span, None));
        }
        let Some(flag) = wanted.pop() else { return Ok(None) };
        match flag.value.as_deref().map(str::to_lowercase).as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some("") => Err((format!("missing a value on flag: --{name}"), flag.span, None)),
            Some(_) => {
                let value = flag.value.unwrap_or_default();
                Err((format!("expecting boolean value for flag --{name}, not: {value}"), flag.span, None))
            }
        }
    }

    /// Refuses what was not taken (D7.5). `known` are the instruction's flags, for the suggestion.
    pub fn finish(self, known: &[&str]) -> Result<(), Problem> {
        match self.flags.into_iter().next() {
            None => Ok(()),
            Some(flag) => {
                let suggestion = suggest::closest(known.iter().copied(), &flag.name);
                Err((format!("unknown flag: --{}", flag.name), flag.span, suggestion))
            }
        }
    }
}
