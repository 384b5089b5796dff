//! One compiled pattern (D20.8).

use super::IgnoreError;
use crate::glob::{self, Machine, Token};
use crate::path;

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// As given, `!` included.
    pub written: String,
    pub is_negation: bool,
    form: Form,
}

/// Most patterns are of the simple forms, which need no machine.
#[derive(Clone, Debug)]
enum Form {
    Exact(Vec<u8>),
    /// `foo/**`: everything that starts so.
    Prefix(Vec<u8>),
    /// `**/foo`, `**.o`: everything that ends so; with `whole`, also exactly this.
    Suffix {
        suffix: Vec<u8>,
        whole: Option<Vec<u8>>,
    },
    Machine(Machine),
}

impl Pattern {
    /// `None` for a blank text.
    pub fn parse(text: &str) -> Result<Option<Pattern>, IgnoreError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = path::clean(text);
        let (is_negation, pattern) = match cleaned.strip_prefix('!') {
            Some("") => return Err(IgnoreError::LoneNegation),
            Some(pattern) => (true, pattern),
            None => (false, cleaned.as_str()),
        };
        let bad = |_| IgnoreError::BadPattern { pattern: text.to_owned() };
        let form = Form::parse(pattern).map_err(bad)?;
        Ok(Some(Pattern { written: cleaned.clone(), is_negation, form }))
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.form {
            Form::Exact(text) => path == text,
            Form::Prefix(prefix) => path.starts_with(prefix),
            Form::Suffix { suffix, whole } => path.ends_with(suffix) || whole.as_deref() == Some(path),
            Form::Machine(machine) => machine.matches(path),
        }
    }

    /// Whether the pattern could match something below the directory, which it does not match itself.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        let starts_in = |prefix: &[u8]| prefix.starts_with(directory) && prefix.get(directory.len()) == Some(&b'/');
        let (prefix, has_wildcard) = match &self.form {
            Form::Exact(text) => (text.as_slice(), false),
            Form::Prefix(prefix) => (prefix.as_slice(), true),
            Form::Suffix { .. } => return true,
            Form::Machine(machine) => (machine.literal_prefix(), true),
        };
        starts_in(prefix) || (has_wildcard && (directory.starts_with(prefix) || prefix == [directory, b"/"].concat()))
    }
}

impl Form {
    /// Follows BuildKit's choice between plain comparison and machine, which decides what an odd `**` means: at the start
    /// with a literal behind it `**` is "ends with", elsewhere it matches whole directories.
    fn parse(pattern: &str) -> Result<Form, glob::BadPattern> {
        let mut tokens = Vec::new();
        let mut is_literal = true;
        let mut leading = false;
        let mut trailing = false;
        let mut chars = pattern.chars();
        let mut is_first = true;
        while let Some(c) = chars.next() {
            if c == '*' && chars.as_str().starts_with('*') {
                chars.next();
                if chars.as_str().starts_with('/') {
                    chars.next();
                }
                let at_end = chars.as_str().is_empty();
                if is_first {
                    leading = true;
                } else if at_end && is_literal && !leading {
                    trailing = true;
                } else {
                    is_literal = false;
                }
                let token = if at_end { Token::Everything } else { Token::Directories };
                if tokens.last() != Some(&token) {
                    tokens.push(token);
                }
            } else {
                let token = glob::token(c, &mut chars)?;
                is_literal &= matches!(token, Token::Literal(_)) && c != '\\';
                if token != Token::Star || tokens.last() != Some(&Token::Star) {
                    tokens.push(token);
                }
            }
            is_first = false;
        }
        if !is_literal {
            return Ok(Form::Machine(Machine::new(tokens)));
        }
        let bytes = |text: &str| text.as_bytes().to_vec();
        Ok(match (leading, trailing) {
            (true, _) => {
                let suffix = pattern.strip_prefix("**").unwrap_or(pattern);
                Form::Suffix { suffix: bytes(suffix), whole: suffix.strip_prefix('/').map(bytes) }
            }
            (false, true) => Form::Prefix(bytes(pattern.strip_suffix("**").unwrap_or(pattern))),
            (false, false) => Form::Exact(bytes(pattern)),
        })
    }
}
