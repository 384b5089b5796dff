//! The walk over one word.

use std::collections::BTreeSet;

use super::pattern::{Limits, Pattern};
use super::{ExpandReason, MAX_DEPTH, MAX_LENGTH, MAX_STEPS, Scope};

/// What of the written form stays in the result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mode {
    /// Quotes still protect, but are not removed.
    pub keep_quotes: bool,
    pub keep_escapes: bool,
    /// Unset variables stay as written instead of vanishing.
    pub keep_unset: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
}

pub(crate) struct Lexer<'a> {
    rest: &'a str,
    escape: char,
    scope: &'a dyn Scope,
    mode: Mode,
    depth: usize,
    limits: Limits,
    pub used: BTreeSet<String>,
    pub unset: BTreeSet<String>,
}

/// The split of a text into words, fed with its pieces.
#[derive(Default)]
struct Words {
    word: String,
    done: Vec<String>,
}

impl Words {
    /// Text that splits at white space.
    fn split(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.done.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

/// How a piece of the walk takes part in splitting.
enum Piece<'p> {
    /// White space in it separates words.
    Open(&'p str),
    /// It belongs to one word.
    Protected(&'p str),
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str, escape: char, scope: &'a dyn Scope, mode: Mode) -> Self {
        Lexer {
            rest: text,
            escape,
            scope,
            mode,
            depth: 0,
            limits: Limits { steps: MAX_STEPS, bytes: MAX_LENGTH },
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }

    /// The whole text, as one word.
    pub fn text(&mut self) -> Result<String, ExpandReason> {
        let mut out = String::new();
        self.walk(None, self.mode.keep_escapes, &mut |piece| match piece {
            Piece::Open(text) | Piece::Protected(text) => out.push_str(text),
        })?;
        Ok(out)
    }

    /// The words of the text; empty ones vanish.
    pub fn words(&mut self) -> Result<Vec<String>, ExpandReason> {
        let mut words = Words::default();
        self.walk(None, self.mode.keep_escapes, &mut |piece| match piece {
            Piece::Open(text) => words.split(text),
            Piece::Protected(text) => words.word.push_str(text),
        })?;
        Ok(words.finish())
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Takes characters while they fit.
    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Walks to the unescaped `stop`, which is taken, or to the end of the text where there is none to look for.
    fn walk(
        &mut self,
        stop: Option<char>,
        keep_escapes: bool,
        emit: &mut dyn FnMut(Piece<'_>),
    ) -> Result<(), ExpandReason> {
        let outer = std::mem::replace(&mut self.mode.keep_escapes, keep_escapes);
        let result = self.walk_pieces(stop, emit);
        self.mode.keep_escapes = outer;
        result
    }

    fn walk_pieces(&mut self, stop: Option<char>, emit: &mut dyn FnMut(Piece<'_>)) -> Result<(), ExpandReason> {
        let mut buffer = [0; 4];
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok(());
            }
            match c {
                '$' => emit(Piece::Open(&self.dollar()?)),
                '\'' if !self.mode.ignore_quotes => emit(Piece::Protected(self.single_quoted()?)),
                '"' if !self.mode.ignore_quotes => emit(Piece::Protected(&self.double_quoted()?)),
                '<' => emit(Piece::Protected(self.possible_marker())),
                _ => {
                    self.next();
                    if c != self.escape {
                        emit(Piece::Open(c.encode_utf8(&mut buffer)));
                        continue;
                    }
                    if self.mode.keep_escapes {
                        emit(Piece::Protected(c.encode_utf8(&mut buffer)));
                    }
                    if let Some(escaped) = self.next() {
                        emit(Piece::Protected(escaped.encode_utf8(&mut buffer)));
                    }
                }
            }
        }
        match stop {
            None => Ok(()),
            Some('/') => Err(ExpandReason::MissingSlash),
            Some(_) => Err(ExpandReason::MissingBrace),
        }
    }

    /// `<<` and the blanks behind it stay together, because a here-document's name may follow them (D5.5).
    fn possible_marker(&mut self) -> &'a str {
        let marker = self.rest;
        self.next();
        if self.peek() == Some('<') {
            self.next();
            if self.rest.starts_with('-') && self.rest[1..].starts_with([' ', '\t']) {
                self.next();
            }
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r'));
        }
        &marker[..marker.len() - self.rest.len()]
    }

    fn single_quoted(&mut self) -> Result<&'a str, ExpandReason> {
        let quoted = self.rest;
        self.next();
        let inside = self.take_while(|c| c != '\'');
        if self.next().is_none() {
            return Err(ExpandReason::Unbalanced("single-quote"));
        }
        Ok(if self.mode.keep_quotes { &quoted[..inside.len() + 2] } else { inside })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandReason> {
        let mut out = String::new();
        self.next();
        if self.mode.keep_quotes {
            out.push('"');
        }
        loop {
            match self.peek() {
                None => return Err(ExpandReason::Unbalanced("double-quote")),
                Some('"') => {
                    self.next();
                    if self.mode.keep_quotes {
                        out.push('"');
                    }
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    if c != self.escape {
                        out.push(c);
                        continue;
                    }
                    if self.mode.keep_escapes {
                        out.push(c);
                    }
                    match self.peek() {
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.next();
                            out.push(next);
                        }
                        _ if self.mode.keep_escapes => {}
                        _ => out.push(c),
                    }
                }
            }
        }
    }

    /// `$name`, `${name}` and the forms with modifiers.
    fn dollar(&mut self) -> Result<String, ExpandReason> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(ExpandReason::TooDeep);
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.value(name)? {
            Some(value) => Ok(value),
            None => Ok(self.vanish(name, || format!("${name}"))),
        }
    }

    fn braced(&mut self) -> Result<String, ExpandReason> {
        match self.peek() {
            None => return Err(ExpandReason::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandReason::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandReason::MissingBrace),
            Some('}') => match self.value(name)? {
                Some(value) => Ok(value),
                None => Ok(self.vanish(name, || format!("${{{name}}}"))),
            },
            Some(':') => match self.next() {
                None => Err(ExpandReason::MissingBrace),
                Some(modifier @ ('-' | '+' | '?')) => self.conditional(name, modifier, true),
                Some(other) => self.unsupported(name, other),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.conditional(name, modifier, false),
            Some(modifier @ ('#' | '%')) => self.trimmed(name, modifier),
            Some('/') => self.replaced(name),
            Some(other) => Err(ExpandReason::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${v:-w}`, `${v+w}`, `${v?w}`: with a colon an empty value counts as unset.
    fn conditional(&mut self, name: &str, modifier: char, colon: bool) -> Result<String, ExpandReason> {
        let word = self.operand('}', false)?;
        let value = self.value(name)?;
        if self.mode.keep_unset && value.is_none() {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let was_set = value.is_some();
        let usable = value.filter(|value| !(colon && value.is_empty()));
        Ok(match (modifier, usable) {
            ('-', None) | ('+', Some(_)) => word,
            ('+', None) => String::new(),
            (_, Some(value)) => value,
            (_, None) => {
                let fallback = if was_set { "is not allowed to be empty" } else { "is not allowed to be unset" };
                let message = if word.is_empty() { fallback.to_owned() } else { word };
                return Err(ExpandReason::Required { name: name.to_owned(), message });
            }
        })
    }

    /// `${v:0:1}` and the like are an error, but not where an unset variable stays as written: a shell may know better.
    fn unsupported(&mut self, name: &str, modifier: char) -> Result<String, ExpandReason> {
        let word = self.operand('}', false)?;
        if self.mode.keep_unset && self.value(name)?.is_none() {
            return Ok(format!("${{{name}:{modifier}{word}}}"));
        }
        Err(ExpandReason::UnsupportedModifier(format!(":{modifier}")))
    }

    /// `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`. An unset variable is empty, and a wrong pattern wrong nevertheless.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandReason> {
        let word = self.operand('}', true)?;
        let value = match self.value(name)? {
            None if self.mode.keep_unset => {
                return Ok(self.vanish(name, || format!("${{{name}{modifier}{word}}}")));
            }
            None => self.vanish(name, String::new),
            Some(value) => value,
        };
        let (longest, pattern) = match word.strip_prefix(modifier) {
            Some(pattern) => (true, pattern),
            None => (false, word.as_str()),
        };
        let pattern = Pattern::parse(pattern)?;
        Ok(match modifier {
            '#' => pattern.trim_start(&value, longest, &mut self.limits)?.to_owned(),
            _ => pattern.trim_end(&value, longest, &mut self.limits)?.to_owned(),
        })
    }

    /// `${v/p/r}`, `${v//p/r}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandReason> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand('/', true)?;
        let replacement = self.operand('}', true)?;
        let value = match self.value(name)? {
            None if self.mode.keep_unset => {
                let slashes = if all { "//" } else { "/" };
                return Ok(self.vanish(name, || format!("${{{name}{slashes}{pattern}/{replacement}}}")));
            }
            None => self.vanish(name, String::new),
            Some(value) => value,
        };
        Pattern::parse(&pattern)?.replace(&value, &replacement, all, &mut self.limits)
    }

    /// The expanded text up to `stop`.
    fn operand(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandReason> {
        let mut out = String::new();
        self.walk(Some(stop), keep_escapes, &mut |piece| match piece {
            Piece::Open(text) | Piece::Protected(text) => out.push_str(text),
        })?;
        Ok(out)
    }

    /// The longest name at this place, a positional number, one special character, or nothing (D11.1 to D11.4).
    fn name(&mut self) -> &'a str {
        match self.peek() {
            Some(c) if c.is_ascii_digit() => self.take_while(|c| c.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                let (name, rest) = self.rest.split_at(1);
                self.rest = rest;
                name
            }
            _ => self.take_while(|c| c == '_' || c.is_alphanumeric()),
        }
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, ExpandReason> {
        let value = self.scope.get(name);
        let value = value.map(|value| value.into_owned());
        if let Some(value) = &value {
            self.limits.take_bytes(value.len())?;
            self.used.insert(name.to_owned());
        }
        Ok(value)
    }

    /// What stands for an unset variable.
    fn vanish(&mut self, name: &str, written: impl FnOnce() -> String) -> String {
        self.unset.insert(name.to_owned());
        if self.mode.keep_unset { written() } else { String::new() }
    }
}
