//! A list of patterns applied to paths.

use super::IgnoreError;
use super::pattern::Pattern;

/// Patterns in `.dockerignore` syntax, compiled. Paths are relative, `/`-separated bytes without a trailing slash.
#[derive(Clone, Debug, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
    has_negations: bool,
}

/// Which patterns matched a directory or one above it: what a walk hands down to the directory's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchState {
    /// One bit a pattern.
    matched: Vec<u64>,
}

impl MatchState {
    fn get(&self, index: usize) -> bool {
        self.matched.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn set(&mut self, index: usize) {
        if let Some(word) = self.matched.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }
}

impl PatternMatcher {
    /// Blank patterns are left out.
    pub fn new<I>(patterns: I) -> Result<PatternMatcher, IgnoreError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let parsed = patterns.into_iter().filter_map(|pattern| Pattern::parse(pattern.as_ref()).transpose());
        let patterns = parsed.collect::<Result<Vec<Pattern>, IgnoreError>>()?;
        let has_negations = patterns.iter().any(|pattern| pattern.is_negation);
        Ok(PatternMatcher { patterns, has_negations })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn has_negations(&self) -> bool {
        self.has_negations
    }

    /// Whether the path is excluded, its parents considered.
    pub fn is_excluded(&self, path: &[u8]) -> bool {
        !self.is_empty() && self.walk(path).0
    }

    /// The pattern that has the last word on the path, as written; `None` if no pattern matches it.
    pub fn deciding_pattern(&self, path: &[u8]) -> Option<&str> {
        let deciding = self.walk(path).2?;
        self.patterns.get(deciding).map(|pattern| pattern.written.as_str())
    }

    /// The state of the root directory, from which its entries are stepped to.
    pub fn root_state(&self) -> MatchState {
        MatchState { matched: vec![0; self.patterns.len().div_ceil(64)] }
    }

    /// Whether the entry at `path` (from the root) is excluded, and its state for its own entries. `parent` is the state of the
    /// directory it is in.
    pub fn step(&self, parent: &MatchState, path: &[u8]) -> (bool, MatchState) {
        let (excluded, state, _) = self.decide(parent, path);
        (excluded, state)
    }

    /// Whether a `!` pattern could apply below the directory. If not, an excluded directory need not be read (D20.12).
    pub fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| pattern.is_negation && pattern.may_match_below(directory))
    }

    fn walk(&self, path: &[u8]) -> (bool, MatchState, Option<usize>) {
        let mut result = (false, self.root_state(), None);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain(std::iter::once(path.len())) {
            result = self.decide(&result.1, &path[..end]);
        }
        result
    }

    /// Also gives the index of the pattern that decided.
    fn decide(&self, parent: &MatchState, path: &[u8]) -> (bool, MatchState, Option<usize>) {
        let mut state = self.root_state();
        let mut excluded = false;
        let mut deciding = None;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let is_match = parent.get(index) || (pattern.is_negation == excluded && pattern.matches(path));
            if is_match {
                state.set(index);
                excluded = !pattern.is_negation;
                deciding = Some(index);
            }
        }
        (excluded, state, deciding)
    }
}
