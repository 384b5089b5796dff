//! Expansion of words: quotes, escapes and variables (D9, D11).
//!
//! The rules are those of a small shell, with these turns:
//!
//! - Unquoted, the escape makes any next character literal and vanishes. In `"…"` it does so only before `"`, `$` and itself.
//!   In `'…'` it is an ordinary character (D9.6 to D9.8).
//! - `$$`, `$1` and their like are variables that are never set, so they vanish: `$$` is no way to write a dollar (D11.2, D11.3).
//! - The words of `${v:-w}` and its kin are expanded themselves and may nest. In the pattern and the replacement of `#`, `%`
//!   and `/` escapes are kept for the pattern to interpret (D11.10, D11.11).
//! - The result of a variable is never expanded again (D11.18).
//!
//! Expansion of hostile text is bounded: nesting by [`MAX_DEPTH`], the inserted text by [`MAX_LENGTH`], and the matching of patterns is bounded too.

mod lexer;
mod pattern;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::quote::quoted;
pub(crate) use lexer::{Lexer, Mode};

/// Deepest nesting of `${a:-${b:-…}}`.
pub const MAX_DEPTH: usize = 100;
/// Most bytes that the variables and replacements of one word may bring in.
pub const MAX_LENGTH: usize = 4 << 20;
/// Most comparisons that the patterns of one word may take.
const MAX_STEPS: usize = 1 << 24;

/// Where the values of variables come from. `None` is an unset variable, which differs from an empty one (D11.7).
pub trait Scope {
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

impl Scope for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        HashMap::get(self, name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

impl Scope for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        BTreeMap::get(self, name).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// The last pair of a name counts, as in a list of assignments.
impl Scope for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }
}

impl<F: Fn(&str) -> Option<String>> Scope for F {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self(name).map(Cow::Owned)
    }
}

/// The scope in which nothing is set.
pub struct NoVariables;

impl Scope for NoVariables {
    fn get(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    pub text: String,
    /// Variables that have a value.
    pub used: BTreeSet<String>,
    /// Variables that vanished because they are not set. Those behind `-`, `+` and `?` are not among them: there the
    /// author provided for it.
    pub unset: BTreeSet<String>,
}

/// Why a word cannot be expanded. `Display` is BuildKit's text (D9.10).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", quoted(.word))]
pub struct ExpandError {
    /// The whole word.
    pub word: String,
    pub reason: ExpandReason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandReason {
    #[error("unexpected end of statement while looking for matching {0}")]
    Unbalanced(&'static str),
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${name:?message}`.
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidEscape { pattern: String, escaped: char },
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the variables' values are longer than {MAX_LENGTH} bytes together")]
    TooLong,
    #[error("the patterns take too long to match")]
    TooSlow,
}

/// Expands words of one file.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    escape: char,
}

impl Expander {
    /// `escape` is the file's escape character, [`crate::ast::Directives::escape`].
    pub fn new(escape: char) -> Self {
        Expander { escape }
    }

    /// Expands one word; blanks in it stay, also those of values (D9.11).
    pub fn word(&self, word: &str, scope: &dyn Scope) -> Result<Expansion, ExpandError> {
        let mut lexer = Lexer::new(word, self.escape, scope, Mode::default());
        let text = lexer.text().map_err(|reason| error(word, reason))?;
        Ok(Expansion { text, used: lexer.used, unset: lexer.unset })
    }

    /// Expands and splits: at blanks of the word and of unquoted variables, never inside quotes (EXPOSE, D9.11).
    /// Gives the words and the unset variables.
    pub fn words(&self, word: &str, scope: &dyn Scope) -> Result<(Vec<String>, BTreeSet<String>), ExpandError> {
        let mut lexer = Lexer::new(word, self.escape, scope, Mode::default());
        let words = lexer.words().map_err(|reason| error(word, reason))?;
        Ok((words, lexer.unset))
    }

    /// Expands the body of a here-document: quotes are ordinary characters, the escape is always `\` (D5.18, D5.19).
    pub fn heredoc(&self, body: &str, scope: &dyn Scope) -> Result<Expansion, ExpandError> {
        let mode = Mode { ignore_quotes: true, ..Mode::default() };
        let mut lexer = Lexer::new(body, '\\', scope, mode);
        let text = lexer.text().map_err(|reason| error(body, reason))?;
        Ok(Expansion { text, used: lexer.used, unset: lexer.unset })
    }

    /// An instruction as progress shows it: variables expanded, quotes kept, unset variables as written; the text itself if that
    /// fails (X5.15).
    pub fn display(&self, text: &str, scope: &dyn Scope) -> String {
        let mode = Mode { keep_quotes: true, keep_unset: true, ..Mode::default() };
        Lexer::new(text, self.escape, scope, mode).text().unwrap_or_else(|_| text.to_owned())
    }
}

fn error(word: &str, reason: ExpandReason) -> ExpandError {
    ExpandError { word: word.to_owned(), reason }
}

#[cfg(test)]
mod tests;
