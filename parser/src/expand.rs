//! Word expansion: quotes, escapes and variables (D9, D11).
//!
//! The expander walks a word once. Unquoted, an escape makes the next character literal; `'…'` is literal; in `"…"` variables count
//! and an escape is removed only before `"`, `$` or itself. `${name…}` may carry a modifier whose words are expanded in turn, ending
//! at the first unescaped `}` of their level. A value is never expanded again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::str::Chars;

/// Where values come from.
pub trait Scope {
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Scope for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        HashMap::get(self, name).map(|value| value.as_str().into())
    }
}

impl Scope for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        BTreeMap::get(self, name).map(|value| value.as_str().into())
    }
}

/// The result of expanding a word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expansion {
    pub text: String,
    /// Names that were used and are not set.
    pub unset: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching {0}-quote")]
    UnbalancedQuote(&'static str),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${v:?message}`.
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid escape '\\{0}'")]
    InvalidEscape(char),
    #[error("substitutions are nested too deeply")]
    TooDeep,
}

/// Substitutions nest at most so deep: the walk is recursive, and hostile input must not exhaust the stack.
const MAX_DEPTH: usize = 100;

/// Expands words with one escape character.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    escape: char,
}

impl Expander {
    /// `escape` is `\` or a backtick.
    pub fn new(escape: char) -> Self {
        Expander { escape }
    }

    /// Expands a word to one text (D9.11).
    pub fn word(&self, word: &str, scope: &dyn Scope) -> Result<Expansion, ExpandError> {
        let mut walk = self.walk(word, scope);
        let pieces = walk.until(End::OfInput)?;
        Ok(Expansion { text: plain(&pieces), unset: walk.unset })
    }

    /// Expands a text to several words: what an unquoted variable gives is split at blanks (EXPOSE).
    pub fn words(&self, word: &str, scope: &dyn Scope) -> Result<(Vec<String>, BTreeSet<String>), ExpandError> {
        let mut walk = self.walk(word, scope);
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        for piece in walk.until(End::OfInput)? {
            match piece {
                Piece::Quoted(text) => current.get_or_insert_default().push_str(&text),
                Piece::Plain(text) => {
                    for c in text.chars() {
                        if c.is_whitespace() {
                            words.extend(current.take());
                        } else {
                            current.get_or_insert_default().push(c);
                        }
                    }
                }
            }
        }
        words.extend(current);
        Ok((words, walk.unset))
    }

    /// Expands the body of a here-document: quotes are ordinary characters, the escape is always `\` (D5.18, D5.19).
    pub fn heredoc(&self, body: &str, scope: &dyn Scope) -> Result<String, ExpandError> {
        let mut walk = Expander { escape: '\\' }.walk(body, scope);
        walk.quotes_are_ordinary = true;
        Ok(plain(&walk.until(End::OfInput)?))
    }

    /// Expands for display: quotes and escapes stay, and so do variables that are not set or cannot be expanded (X5.15).
    pub fn display(&self, text: &str, scope: &dyn Scope) -> String {
        let mut shown = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let taken = match c {
                c if c == self.escape => c.len_utf8() + rest[c.len_utf8()..].chars().next().map_or(0, char::len_utf8),
                '\'' => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
                '$' => {
                    let length = variable_length(rest, self.escape);
                    let expansion = self.word(&rest[..length], scope);
                    if let Ok(Expansion { text, unset }) = expansion
                        && length > 1
                        && unset.is_empty()
                    {
                        shown.push_str(&text);
                        rest = &rest[length..];
                        continue;
                    }
                    length
                }
                c => c.len_utf8(),
            };
            shown.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
        shown
    }

    fn walk<'a>(&self, text: &'a str, scope: &'a dyn Scope) -> Walk<'a> {
        Walk {
            chars: text.chars().peekable(),
            escape: self.escape,
            scope,
            unset: BTreeSet::new(),
            quotes_are_ordinary: false,
            keep_escapes: false,
            depth: 0,
        }
    }
}

/// How long the variable at the start of `text` is, its braces included.
fn variable_length(text: &str, escape: char) -> usize {
    let after = &text[1..];
    if after.starts_with('{') {
        let mut depth = 0;
        let mut escaped = false;
        for (at, c) in after.char_indices() {
            match c {
                _ if escaped => escaped = false,
                c if c == escape => escaped = true,
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return 1 + at + c.len_utf8();
            }
        }
        return text.len();
    }
    let name = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
    1 + name
}

enum Piece {
    /// May be split at blanks.
    Plain(String),
    Quoted(String),
}

fn plain(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Plain(text) | Piece::Quoted(text) => text.as_str(),
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    OfInput,
    /// An unescaped character, which is taken.
    At(char),
}

struct Walk<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    scope: &'a dyn Scope,
    unset: BTreeSet<String>,
    quotes_are_ordinary: bool,
    /// In patterns, escapes are left for the pattern step (D11.11).
    keep_escapes: bool,
    depth: usize,
}

impl Walk<'_> {
    fn until(&mut self, end: End) -> Result<Vec<Piece>, ExpandError> {
        let mut pieces = Vec::new();
        loop {
            let Some(c) = self.chars.next() else {
                return match end {
                    End::OfInput => Ok(pieces),
                    End::At('/') => Err(ExpandError::MissingSlash),
                    End::At(_) => Err(ExpandError::MissingBrace),
                };
            };
            match c {
                c if end == End::At(c) => return Ok(pieces),
                // `${v/p}`: the brace ends the substitution before the slash came.
                '}' if end == End::At('/') => return Err(ExpandError::MissingSlash),
                '\'' if !self.quotes_are_ordinary => pieces.push(Piece::Quoted(self.single_quoted()?)),
                '"' if !self.quotes_are_ordinary => pieces.push(Piece::Quoted(self.double_quoted()?)),
                '$' => pieces.push(Piece::Plain(self.dollar()?)),
                c if c == self.escape => {
                    if self.keep_escapes {
                        push(&mut pieces, c);
                    }
                    if let Some(escaped) = self.chars.next() {
                        // Escaped blanks do not separate words.
                        pieces.push(Piece::Quoted(escaped.to_string()));
                    }
                }
                c => push(&mut pieces, c),
            }
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        loop {
            match self.chars.next().ok_or(ExpandError::UnbalancedQuote("single"))? {
                '\'' => return Ok(text),
                c => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let unbalanced = || ExpandError::UnbalancedQuote("double");
        let mut text = String::new();
        loop {
            match self.chars.next().ok_or_else(unbalanced)? {
                '"' => return Ok(text),
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => {
                    let escaped = self.chars.next().ok_or_else(unbalanced)?;
                    if !(escaped == '"' || escaped == '$' || escaped == self.escape) {
                        text.push(c);
                    }
                    text.push(escaped);
                }
                c => text.push(c),
            }
        }
    }

    /// Behind a `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        match self.chars.peek().copied() {
            Some('{') => {
                self.chars.next();
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(ExpandError::TooDeep);
                }
                let value = self.braced();
                self.depth -= 1;
                value
            }
            Some(c) if is_special(c) || is_name(c) => {
                let name = self.name();
                Ok(self.value(&name).unwrap_or_default())
            }
            _ => Ok("$".to_owned()),
        }
    }

    /// D11.1 to D11.3: positional and special names are never set.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek().copied() {
            Some(c) if is_special(c) => {
                self.chars.next();
                name.push(c);
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(digit) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(digit);
                }
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| is_name(*c)) {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.scope.get(name).map(Cow::into_owned);
        if value.is_none() && name.chars().next().is_some_and(|c| is_name(c) && !c.is_ascii_digit()) {
            self.unset.insert(name.to_owned());
        }
        value
    }

    /// Behind `${`.
    fn braced(&mut self) -> Result<String, ExpandError> {
        match self.chars.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let Some(modifier) = self.chars.next() else { return Err(ExpandError::MissingBrace) };
        match modifier {
            '}' => Ok(self.value(&name).unwrap_or_default()),
            ':' => match self.chars.next() {
                Some(operator @ ('-' | '+' | '?')) => self.default_or_alternative(&name, operator, true),
                Some(other) => Err(ExpandError::UnsupportedModifier(format!(":{other}"))),
                None => Err(ExpandError::MissingBrace),
            },
            '-' | '+' | '?' => self.default_or_alternative(&name, modifier, false),
            '#' | '%' => self.trimmed(&name, modifier),
            '/' => self.replaced(&name),
            other => Err(ExpandError::UnsupportedModifier(other.to_string())),
        }
    }

    fn default_or_alternative(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let value = self.scope.get(name).map(Cow::into_owned);
        let unset_before = self.unset.clone();
        let word = plain(&self.until(End::At('}'))?);
        let counts = value.as_ref().is_some_and(|value| !(empty_is_unset && value.is_empty()));
        if counts != (operator == '+') {
            // What the word names is not used.
            self.unset = unset_before;
        }
        match (operator, counts) {
            ('-', true) | ('?', true) => Ok(value.unwrap_or_default()),
            ('-', false) | ('+', true) => Ok(word),
            ('+', _) => Ok(String::new()),
            _ => {
                let message = match (word.is_empty(), value.is_some()) {
                    (false, _) => word,
                    (true, true) => "is not allowed to be empty".to_owned(),
                    (true, false) => "is not allowed to be unset".to_owned(),
                };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    fn pattern_until(&mut self, end: char) -> Result<String, ExpandError> {
        let outer = std::mem::replace(&mut self.keep_escapes, true);
        let pieces = self.until(End::At(end));
        self.keep_escapes = outer;
        Ok(plain(&pieces?))
    }

    /// `#`, `##`, `%`, `%%`.
    fn trimmed(&mut self, name: &str, side: char) -> Result<String, ExpandError> {
        let longest = self.chars.next_if_eq(&side).is_some();
        let pattern = Pattern::parse(&self.pattern_until('}')?)?;
        let value = self.value(name).unwrap_or_default();
        let bounds = value.char_indices().map(|(at, _)| at).chain([value.len()]);
        // Shortest prefix and longest suffix start from the left end.
        let mut cuts: Vec<usize> = bounds.collect();
        if longest == (side == '#') {
            cuts.reverse();
        }
        let cut = cuts.into_iter().find(|cut| {
            let part = if side == '#' { &value[..*cut] } else { &value[*cut..] };
            pattern.matches(part)
        });
        Ok(match (cut, side) {
            (Some(cut), '#') => value[cut..].to_owned(),
            (Some(cut), _) => value[..cut].to_owned(),
            (None, _) => value,
        })
    }

    /// `/` and `//`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = Pattern::parse(&self.pattern_until('/')?)?;
        let replacement = self.pattern_until('}')?;
        let value = self.value(name).unwrap_or_default();
        let mut result = String::new();
        let mut at = 0;
        while at <= value.len() {
            let rest = &value[at..];
            let bounds = rest.char_indices().map(|(end, _)| end).chain([rest.len()]);
            let longest = bounds.rev_found(|end| pattern.matches(&rest[..end]));
            if let Some(length) = longest {
                result.push_str(&replacement);
                at += length;
                if !all || at == value.len() {
                    break;
                }
                if length > 0 {
                    continue;
                }
            }
            let Some(c) = value[at..].chars().next() else { break };
            result.push(c);
            at += c.len_utf8();
        }
        result.push_str(value.get(at..).unwrap_or_default());
        Ok(result)
    }
}

/// The greatest of increasing numbers that passes.
trait RevFound: Iterator<Item = usize> + Sized {
    fn rev_found(self, mut passes: impl FnMut(usize) -> bool) -> Option<usize> {
        let all: Vec<usize> = self.collect();
        all.into_iter().rev().find(|end| passes(*end))
    }
}

impl<I: Iterator<Item = usize>> RevFound for I {}

fn push(pieces: &mut Vec<Piece>, c: char) {
    match pieces.last_mut() {
        Some(Piece::Plain(text)) => text.push(c),
        _ => pieces.push(Piece::Plain(c.to_string())),
    }
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_special(c: char) -> bool {
    matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')
}

/// A pattern of `#`, `%` and `/` (D11.12): `*` and `?`, no brackets.
struct Pattern(Vec<Element>);

#[derive(Clone, Copy, PartialEq)]
enum Element {
    Any,
    One,
    Literal(char),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, ExpandError> {
        let mut elements = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            elements.push(match c {
                '*' => Element::Any,
                '?' => Element::One,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Element::Literal(c),
                    Some(c) => return Err(ExpandError::InvalidEscape(c)),
                    None => Element::Literal('\\'),
                },
                c => Element::Literal(c),
            });
        }
        Ok(Pattern(elements))
    }

    /// Whether all of `text` matches. Linear in the product of the lengths: hostile patterns cannot blow it up.
    fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut element, mut at) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(element) {
                Some(Element::Any) => {
                    retry = Some((element, at));
                    element += 1;
                    continue;
                }
                Some(Element::One) if at < text.len() => {
                    element += 1;
                    at += 1;
                    continue;
                }
                Some(Element::Literal(c)) if text.get(at) == Some(c) => {
                    element += 1;
                    at += 1;
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            match retry {
                Some((any, from)) if from < text.len() => {
                    retry = Some((any, from + 1));
                    element = any + 1;
                    at = from + 1;
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope() -> BTreeMap<String, String> {
        [("v", "a/b/c"), ("e", ""), ("x", "1"), ("p", "80 81/udp"), ("é", "accent")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn expand(word: &str) -> Result<String, String> {
        Expander::new('\\').word(word, &scope()).map(|expansion| expansion.text).map_err(|error| error.to_string())
    }

    #[test]
    fn words_expand() {
        for (word, expected) in [
            // D9
            (r"a\tb", "atb"),
            (r#""a\tb""#, r"a\tb"),
            (r#""\"\$x\\""#, r#""$x\"#),
            ("'$HOME'", "$HOME"),
            (r#"a"b c"'d'"#, "ab cd"),
            (r"end\", "end"),
            // D11
            ("$x$y", "1"),
            ("$$y", "y"),
            ("he$.x", "he$.x"),
            ("$", "$"),
            ("$1x", "x"),
            ("$999aaa", "aaa"),
            ("$@$*$#", ""),
            (r"\${x}", "${x}"),
            ("${x}", "1"),
            ("$é", "accent"),
            ("${n:-w}${e:-w}${v:-w}", "wwa/b/c"),
            ("${n-w}${e-w}", "w"),
            ("${n:+w}${e:+w}${x:+w}", "w"),
            ("${n+w}${e+w}", "w"),
            ("${v#*/}", "b/c"),
            ("${v##*/}", "c"),
            ("${v%/*}", "a/b"),
            ("${v%%/*}", "a"),
            ("${v/b/x}", "a/x/c"),
            (r"${v//\//-}", "a-b-c"),
            ("${v/b/}", "a//c"),
            ("${v#[ab]}", "a/b/c"),
            ("${n:-${m:-x}}", "x"),
            ("${a:-b}}", "b}"),
            ("${n:-'a b'}", "a b"),
            (r"${v//\\//\\/}", "a/b/c"),
            ("${v//?/x}", "xxxxx"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn malformed_words_are_refused() {
        for (word, expected) in [
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("\"a", "unexpected end of statement while looking for matching double-quote"),
            ("${}", "syntax error: bad substitution"),
            ("${{x}}", "syntax error: bad substitution"),
            ("${:x}", "syntax error: bad substitution"),
            ("${", "syntax error: missing '}'"),
            ("${x", "syntax error: missing '}'"),
            ("${x:-a", "syntax error: missing '}'"),
            ("${v:=1}", "unsupported modifier (:=) in substitution"),
            ("${v=1}", "unsupported modifier (=) in substitution"),
            ("${v:#a}", "unsupported modifier (:#) in substitution"),
            ("${n:?need n}", "n: need n"),
            ("${n?}", "n: is not allowed to be unset"),
            ("${e:?}", "e: is not allowed to be empty"),
            ("${v/a}", "syntax error: missing '/' in ${}"),
            (r"${v#\a}", r"invalid escape '\a'"),
        ] {
            assert_eq!(expand(word), Err(expected.to_owned()), "{word}");
        }
        assert_eq!(expand(&"${a:-".repeat(500)), Err("substitutions are nested too deeply".into()));
    }

    #[test]
    fn unquoted_values_split_into_words() {
        let words = |text| Expander::new('\\').words(text, &scope()).unwrap().0;
        assert_eq!(words("$p"), ["80", "81/udp"], "E118");
        assert_eq!(words("\"$p\""), ["80 81/udp"]);
        assert_eq!(words("a$e"), ["a"]);
        assert!(words("$e").is_empty());
    }

    #[test]
    fn documents_keep_their_quotes() {
        let heredoc = |text| Expander::new('`').heredoc(text, &scope()).unwrap();
        assert_eq!(heredoc("a\\nb\n"), "anb\n", "E27");
        assert_eq!(heredoc("\"$x\" '$x'\n"), "\"1\" '1'\n", "E28");
        assert_eq!(heredoc("\\\n"), "\n", "D5.19");
        assert_eq!(heredoc("\\\\ \\$x"), "\\ $x");
    }

    #[test]
    fn display_leaves_what_is_not_set() {
        let display = |text| Expander::new('\\').display(text, &scope());
        assert_eq!(
            display("RUN echo \"$x\" $n '$x' \\$x ${n:-d} ${x}"),
            "RUN echo \"1\" $n '$x' \\$x ${n:-d} 1".replace("${n:-d}", "d")
        );
        assert_eq!(display("RUN echo $(date) ${"), "RUN echo $(date) ${");
    }

    #[test]
    fn names_that_are_not_set_are_told() {
        let unset = |word| Expander::new('\\').word(word, &scope()).unwrap().unset.into_iter().collect::<Vec<_>>();
        assert_eq!(unset("$n ${m} $x $1"), ["m", "n"]);
        assert!(unset("${n:-w}").is_empty());
    }

    proptest! {
        #[test]
        fn never_panics(word in "[ -~é$'\"{}\\\\:/#%*?]*") {
            for escape in ['\\', '`'] {
                let expander = Expander::new(escape);
                let _ = expander.word(&word, &scope());
                let _ = expander.words(&word, &scope());
                let _ = expander.heredoc(&word, &scope());
                let _ = expander.display(&word, &scope());
            }
        }
    }
}
