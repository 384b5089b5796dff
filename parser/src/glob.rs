//! Wildcards: Go's `filepath.Match` (D18.15), and the machine that also runs the patterns of `.dockerignore`.
//!
//! `*` and `?` do not match `/`; `[a-z]` and `[^a]` are classes; a backslash makes the next character literal. Paths are bytes: a
//! byte that is not UTF-8 counts as one character, which no literal matches.
//!
//! The machine follows all ways through a pattern at once, so that time is bounded by pattern length times path length,
//! whatever the pattern.

/// A pattern with an open bracket, an empty class, or a lone backslash at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Literal(char),
    /// `?`: any character but `/`.
    One,
    /// Any character in, or not in, the ranges; `/` is like others.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`: any run without `/`.
    Star,
    /// `**` with something behind it: nothing, or anything that ends with `/`.
    Directories,
    /// `**` at the end: anything.
    Everything,
}

/// Whether the path matches the whole pattern.
pub fn match_path(pattern: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<bool, BadPattern> {
    let pattern = std::str::from_utf8(pattern.as_ref()).map_err(|_| BadPattern)?;
    Ok(Machine::new(tokens(pattern)?).matches(path.as_ref()))
}

/// Whether there is an unescaped `*`, `?` or `[`.
pub fn has_wildcard(text: impl AsRef<[u8]>) -> bool {
    let mut chars = text.as_ref().iter().map(|byte| char::from(*byte));
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

/// Splits a path before the first element with a wildcard: where a walk starts, and the pattern that it follows from there
/// (X3.7). Without wildcards all is prefix. Escapes in the prefix are removed.
pub fn split_wildcard(path: &str) -> (String, Option<String>) {
    let mut at = 0;
    for element in path.split_inclusive('/') {
        if has_wildcard(element) {
            let prefix = path[..at].strip_suffix('/').filter(|prefix| !prefix.is_empty()).unwrap_or(&path[..at]);
            return (unescaped(prefix), Some(path[at..].to_owned()));
        }
        at += element.len();
    }
    (unescaped(path), None)
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

/// The tokens of a `filepath.Match` pattern, in which `**` is `*`.
fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match token(c, &mut chars)? {
            Token::Star if tokens.last() == Some(&Token::Star) => {}
            token => tokens.push(token),
        }
    }
    Ok(tokens)
}

/// One token, of which the first character is taken already.
pub(crate) fn token(first: char, chars: &mut std::str::Chars<'_>) -> Result<Token, BadPattern> {
    Ok(match first {
        '*' => Token::Star,
        '?' => Token::One,
        '[' => class(chars)?,
        '\\' => Token::Literal(chars.next().ok_or(BadPattern)?),
        c => Token::Literal(c),
    })
}

fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, BadPattern> {
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next().ok_or(BadPattern)? {
            ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
            ']' | '-' => return Err(BadPattern),
            '\\' => chars.next().ok_or(BadPattern)?,
            c => c,
        };
        let mut high = low;
        if chars.as_str().starts_with('-') {
            chars.next();
            high = match chars.next().ok_or(BadPattern)? {
                ']' | '-' => return Err(BadPattern),
                '\\' => chars.next().ok_or(BadPattern)?,
                c => c,
            };
        }
        ranges.push((low, high));
    }
}

/// A character of a path; `None` is a byte that is not UTF-8.
type PathChar = Option<char>;

fn path_chars(path: &[u8]) -> impl Iterator<Item = PathChar> {
    path.utf8_chunks().flat_map(|chunk| chunk.valid().chars().map(Some).chain(chunk.invalid().iter().map(|_| None)))
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    tokens: Vec<Token>,
    /// Bytes that every match starts and ends with: most paths are refused by these alone.
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

impl Machine {
    pub fn new(tokens: Vec<Token>) -> Self {
        let literal = |token: &Token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        };
        let prefix: String = tokens.iter().map_while(literal).collect();
        let suffix: Vec<char> = tokens.iter().rev().map_while(literal).collect();
        let suffix: String = suffix.into_iter().rev().collect();
        Machine { tokens, prefix: prefix.into_bytes(), suffix: suffix.into_bytes() }
    }

    /// What every match starts with.
    pub fn literal_prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        let mut states = States::new(self.tokens.len());
        let mut next = States::new(self.tokens.len());
        self.enter(&mut states, 0);
        for c in path_chars(path) {
            next.clear();
            for index in 0..states.active.len() {
                self.step(states.active[index], c, &mut next);
            }
            std::mem::swap(&mut states, &mut next);
            if states.active.is_empty() {
                return false;
            }
        }
        states.is_active[self.tokens.len()]
    }

    /// Activates the state before token `index`, and those behind tokens that may match nothing.
    fn enter(&self, states: &mut States, mut index: usize) {
        while states.add(index) {
            match self.tokens.get(index) {
                Some(Token::Star | Token::Directories | Token::Everything) => index += 1,
                _ => return,
            }
        }
    }

    fn step(&self, index: usize, c: PathChar, next: &mut States) {
        let Some(token) = self.tokens.get(index) else { return };
        match token {
            Token::Literal(expected) if c == Some(*expected) => self.enter(next, index + 1),
            Token::One if c != Some('/') => self.enter(next, index + 1),
            Token::Class { negated, ranges } => {
                let inside = c.is_some_and(|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)));
                if inside != *negated {
                    self.enter(next, index + 1);
                }
            }
            Token::Star if c != Some('/') => self.enter(next, index),
            Token::Everything => self.enter(next, index),
            Token::Directories => {
                // Inside a directory name there is no way out but the next `/`.
                next.add(index);
                if c == Some('/') {
                    self.enter(next, index + 1);
                }
            }
            Token::Literal(_) | Token::One | Token::Star => {}
        }
    }
}

/// A set of states.
struct States {
    active: Vec<usize>,
    is_active: Vec<bool>,
}

impl States {
    fn new(tokens: usize) -> Self {
        States { active: Vec::with_capacity(8), is_active: vec![false; tokens + 1] }
    }

    fn add(&mut self, index: usize) -> bool {
        let is_new = !self.is_active[index];
        if is_new {
            self.is_active[index] = true;
            self.active.push(index);
        }
        is_new
    }

    fn clear(&mut self) {
        for index in self.active.drain(..) {
            self.is_active[index] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filepath_match() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*", ".hidden", true),
            ("*c", "abc", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("**/f", "a/f", true),
            ("**/f", "a/b/f", false),
            ("**/f", "f", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("a?c", "aéc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a]x", "/x", true),
            (r"[\]]", "]", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("[*]", "*", true),
            ("a*b*c*d", "aXbYcZd", true),
            ("a*b*c*d", "aXbYcZ", false),
            ("", "", true),
            ("[b-a]", "a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(match_path(pattern, path), Ok(expected), "{pattern} {path}");
        }
        for pattern in ["[", "[a", "[]a]", "[^]", "[a-]", "[-a]", "a\\", "[\\", "x[a-"] {
            assert_eq!(match_path(pattern, "zzz"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(match_path("a?c", b"a\xffc"), Ok(true));
        assert_eq!(match_path("a*", b"a\xff\xfe"), Ok(true));
        assert_eq!(match_path("[^b]", b"\xff"), Ok(true));
        assert_eq!(match_path("a\u{fffd}", b"a\xff"), Ok(false));
    }

    #[test]
    fn wildcards_and_splitting() {
        assert!(has_wildcard("a*") && has_wildcard("[") && has_wildcard(r"\\?"));
        assert!(!has_wildcard("a") && !has_wildcard(r"\*") && !has_wildcard("\\"));
        let split = |path: &str| split_wildcard(path);
        assert_eq!(split("a/b*/c"), ("a".into(), Some("b*/c".into())));
        assert_eq!(split("/a/b/c?"), ("/a/b".into(), Some("c?".into())));
        assert_eq!(split("/*"), ("/".into(), Some("*".into())));
        assert_eq!(split("*"), ("".into(), Some("*".into())));
        assert_eq!(split(r"a\*/b"), ("a*/b".into(), None));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "a*".repeat(200) + "b";
        assert_eq!(match_path(pattern, "a".repeat(2000)), Ok(false));
    }
}
