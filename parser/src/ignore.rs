//! .dockerignore files, and patterns in their syntax (D20).
//!
//! A path is excluded if the last pattern that matches it, or any of its parent directories, is not a `!` pattern. Patterns are
//! compiled to a small automaton that is run over the path's bytes, in time linear in both: a hostile pattern cannot blow up.

use crate::path;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("illegal exclusion pattern: \"!\"")]
    LoneNegation,
    #[error("syntax error in pattern {0:?}")]
    BadPattern(String),
}

/// The patterns of an ignore file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoreFile {
    pub patterns: Vec<String>,
}

impl IgnoreFile {
    /// Reads the lines of an ignore file (D20.2 to D20.4).
    pub fn parse(text: &str) -> IgnoreFile {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let patterns = lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        IgnoreFile { patterns: patterns.collect() }
    }
}

/// Decides which paths are excluded.
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

/// What each pattern said of a directory: the start for deciding on its children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchState(Vec<bool>);

#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    negated: bool,
    tokens: Vec<Token>,
    /// Set where no token is a wildcard: the common case is one comparison.
    literal: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `*`
    Name,
    /// `**/`: any directories, or none.
    Directories,
    /// `**`
    Everything,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl PatternMatcher {
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, IgnoreError> {
        let mut compiled = Vec::new();
        for pattern in patterns {
            let text = pattern.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let (negated, body) = match text.strip_prefix('!') {
                Some("") => return Err(IgnoreError::LoneNegation),
                Some(body) => (true, body.trim()),
                None => (false, text),
            };
            let cleaned = path::clean(body);
            let anchored = if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
            let tokens = compile(anchored.as_bytes()).ok_or_else(|| IgnoreError::BadPattern(text.to_owned()))?;
            let bytes = tokens.iter().map(|token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            });
            compiled.push(Pattern { text: text.to_owned(), negated, literal: bytes.collect(), tokens });
        }
        Ok(PatternMatcher { patterns: compiled })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn has_negations(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// Whether `path`, relative and `/`-separated, is excluded, its parents considered.
    pub fn is_excluded(&self, path: &[u8]) -> bool {
        self.decide(path).0
    }

    /// The pattern because of which `path` is excluded.
    pub fn deciding_pattern(&self, path: &[u8]) -> Option<&str> {
        let (excluded, state) = self.decide(path);
        if !excluded {
            return None;
        }
        let deciding =
            self.patterns.iter().zip(&state.0).rev().find(|(pattern, matched)| **matched && !pattern.negated);
        deciding.map(|(pattern, _)| pattern.text.as_str())
    }

    fn decide(&self, path: &[u8]) -> (bool, MatchState) {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        let mut result = (false, MatchState::default());
        for end in ends {
            result = self.step(&result.1, &path[..end]);
        }
        result
    }

    /// The state of the root, whose children are decided on first.
    pub fn root_state(&self) -> MatchState {
        MatchState::default()
    }

    /// Decides on `path`, given its parent's state, and gives its own for its children (D20.13).
    pub fn step(&self, parent: &MatchState, path: &[u8]) -> (bool, MatchState) {
        let mut excluded = false;
        let mut state = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut matched = parent.0.get(index).copied().unwrap_or(false);
            if !matched {
                // A pattern is only asked where it could change the decision so far.
                if pattern.negated != excluded {
                    continue;
                }
                matched = pattern.matches(path);
            }
            state[index] = matched;
            if matched {
                excluded = !pattern.negated;
            }
        }
        (excluded, MatchState(state))
    }

    /// Whether a `!` pattern could match something below `directory`: if not, an excluded directory need not be read.
    pub fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        self.patterns.iter().filter(|pattern| pattern.negated).any(|pattern| pattern.may_match_below(directory))
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        match &self.literal {
            Some(literal) => literal == path,
            None => run(&self.tokens, path),
        }
    }

    fn may_match_below(&self, directory: &[u8]) -> bool {
        // Compare up to the first wildcard; what lies behind it may be anything.
        let mut fixed = self.tokens.iter().map_while(|token| match token {
            Token::Byte(byte) => Some(*byte),
            _ => None,
        });
        for byte in directory {
            match fixed.next() {
                Some(known) if known == *byte => {}
                Some(_) => return false,
                None => return true,
            }
        }
        !matches!(fixed.next(), Some(byte) if byte != b'/')
    }
}

fn compile(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'*' if rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                if rest.first() == Some(&b'/') {
                    rest = &rest[1..];
                    tokens.push(Token::Directories);
                } else {
                    tokens.push(Token::Everything);
                }
            }
            b'*' => tokens.push(Token::Name),
            b'?' => tokens.push(Token::One),
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                tokens.push(Token::Byte(escaped));
                rest = after;
            }
            b'[' => {
                let (class, after) = compile_class(rest)?;
                tokens.push(class);
                rest = after;
            }
            byte => tokens.push(Token::Byte(byte)),
        }
    }
    Some(tokens)
}

fn compile_class(pattern: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, mut rest) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut ranges = Vec::new();
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        let low = match byte {
            b']' if !ranges.is_empty() => return Some((Token::Class { negated, ranges }, rest)),
            b']' => return None,
            b'\\' => take(&mut rest)?,
            byte => byte,
        };
        let mut high = low;
        if rest.first() == Some(&b'-') && rest.get(1).is_some_and(|next| *next != b']') {
            rest = &rest[1..];
            high = match take(&mut rest)? {
                b'\\' => take(&mut rest)?,
                byte => byte,
            };
        }
        ranges.push((low, high));
    }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

/// Runs the automaton: a set of positions in `tokens`, moved on by each byte.
fn run(tokens: &[Token], path: &[u8]) -> bool {
    let mut current = vec![false; tokens.len() + 1];
    let mut next = current.clone();
    enter(tokens, &mut current, 0, true, false);
    for &byte in path {
        next.fill(false);
        let mut alive = false;
        for (position, token) in tokens.iter().enumerate().filter(|(position, _)| current[*position]) {
            let to = match token {
                Token::Byte(wanted) => (*wanted == byte).then_some(position + 1),
                Token::One => (byte != b'/').then_some(position + 1),
                Token::Class { negated, ranges } => {
                    let found = ranges.iter().any(|(low, high)| (low..=high).contains(&&byte));
                    (found != *negated && byte != b'/').then_some(position + 1)
                }
                Token::Name => (byte != b'/').then_some(position),
                Token::Directories | Token::Everything => Some(position),
            };
            if let Some(to) = to {
                alive = true;
                enter(tokens, &mut next, to, byte == b'/', to == position);
            }
        }
        if !alive {
            return false;
        }
        std::mem::swap(&mut current, &mut next);
    }
    current[tokens.len()]
}

/// Adds a position, and those behind it that need no byte. `**/` is left where an element starts, or where it was just
/// reached, since it may match nothing.
fn enter(tokens: &[Token], set: &mut [bool], position: usize, element_start: bool, stayed: bool) {
    let mut position = position;
    let mut stayed = stayed;
    loop {
        set[position] = true;
        match tokens.get(position) {
            Some(Token::Name | Token::Everything) => position += 1,
            Some(Token::Directories) if element_start || !stayed => position += 1,
            _ => return,
        }
        stayed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn excluded(patterns: &[&str], path: &str) -> bool {
        PatternMatcher::new(patterns).unwrap().is_excluded(path.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_the_norm() {
        for (patterns, path, expected) in [
            (&["foo"][..], "foo", true),
            (&["foo"], "x/foo", false),
            (&["foo"], "foo/deep/er", true),
            (&["**/foo"], "foo", true),
            (&["**/foo"], "x/y/foo", true),
            (&["**/foo"], "x/yfoo", false),
            (&["*.md"], "a.md", true),
            (&["*.md"], "d/a.md", false),
            (&["**/*.bin"], "data.bin", true),
            (&["**/*.bin"], "d/data.bin", true),
            (&["**.o"], "d/e/x.o", true),
            (&["foo/**"], "foo", false),
            (&["foo/**"], "foo/x", true),
            (&["assets/**/er"], "assets/er", true),
            (&["assets/**/er"], "assets/deep/er", true),
            (&["assets/**/er"], "assets/deeper", false),
            (&["a.?xt"], "a.txt", true),
            (&["[a-c]"], "b", true),
            (&["[^a-c]"], "b", false),
            (&["/b.txt"], "b.txt", true),
            (&["./c.md"], "c.md", true),
            (&["a//b/./c/../d"], "a/b/d", true),
            (&["foo/"], "foo", true),
            (&["*"], "x/y", true),
            (&["."], "x", false),
            (&["../x"], "x", false),
            (&["a", "!a/b"], "a/b", false),
            (&["a", "!a/b"], "a/c", true),
            (&["*", "!src", "src/tmp"], "src/tmp/x", true),
            (&["*", "!src", "src/tmp"], "src/x", false),
            (&["docs", "!docs/c.md"], "docs/c.md", false),
            (&["!docs/c.md", "docs"], "docs/c.md", true),
            (&["#x"], "#x", true),
            (&[r"\*"], "*", true),
            (&[r"\*"], "a", false),
        ] {
            assert_eq!(excluded(patterns, path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn files_are_read_line_by_line() {
        let file = IgnoreFile::parse("\u{feff}# comment\r\n #x\r\n\n  *.md  \n");
        assert_eq!(file.patterns, ["#x", "*.md"], "D20.2 to D20.4, E115");
        assert_eq!(PatternMatcher::new(["!"]).unwrap_err(), IgnoreError::LoneNegation);
        assert!(PatternMatcher::new(["[a"]).is_err());
    }

    #[test]
    fn says_which_pattern_decided() {
        let matcher = PatternMatcher::new(["*.md", "docs", "!docs/keep"]).unwrap();
        assert_eq!(matcher.deciding_pattern(b"docs/x"), Some("docs"));
        assert_eq!(matcher.deciding_pattern(b"docs/keep"), None);
        assert_eq!(matcher.deciding_pattern(b"a.txt"), None);
    }

    #[test]
    fn excluded_directories_are_pruned_where_nothing_comes_back() {
        let matcher = PatternMatcher::new(["a", "b", "!a/b/c", "!x*/y"]).unwrap();
        for (directory, expected) in
            [("a", true), ("a/b", true), ("a/z", false), ("b", false), ("ab", false), ("xx", true)]
        {
            assert_eq!(matcher.may_reinclude_below(directory.as_bytes()), expected, "{directory}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(patterns in proptest::collection::vec("[a-c*?/!\\[\\]^\\\\.-]{0,12}", 0..4), path in "[a-c/.]{0,12}") {
            if let Ok(matcher) = PatternMatcher::new(&patterns) {
                let _ = matcher.deciding_pattern(path.as_bytes());
            }
        }
    }
}
