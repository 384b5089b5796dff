//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}` (D11.12): `*`, `?`, and escapes of them; brackets mean nothing.
//!
//! Matching follows all ways through the pattern at once, so that its time is bounded by the product of the lengths.

use super::ExpandReason;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    AnyString,
    AnyChar,
    Char(char),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, ExpandReason> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::AnyString,
                '?' => Token::AnyChar,
                '\\' => match chars.next() {
                    // `}` and `/` are escaped for the substitution around the pattern, the others for the pattern.
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(escaped),
                    other => {
                        let escaped = other.unwrap_or(char::REPLACEMENT_CHARACTER);
                        return Err(ExpandReason::InvalidEscape { pattern: text.to_owned(), escaped });
                    }
                },
                c => Token::Char(c),
            });
        }
        tokens.dedup_by(|a, b| *a == Token::AnyString && *b == Token::AnyString);
        Ok(Pattern { tokens })
    }

    /// Removes the shortest or longest match at the start.
    pub fn trim_start<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        match match_length(&self.tokens, value.chars(), longest) {
            Some(length) => &value[length..],
            None => value,
        }
    }

    /// Removes the shortest or longest match at the end, which is a match at the start of all reversed.
    pub fn trim_end<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let reversed: Vec<Token> = self.tokens.iter().rev().copied().collect();
        match match_length(&reversed, value.chars().rev(), longest) {
            Some(length) => &value[..value.len() - length],
            None => value,
        }
    }

    /// Replaces the first or all matches, leftmost and longest. The replacement is literal (D11.15).
    pub fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        let mut after_match = false;
        loop {
            match match_length(&self.tokens, rest.chars(), true) {
                // An empty match directly behind another match is none.
                Some(length) if length > 0 || !after_match => {
                    out.push_str(replacement);
                    if !all {
                        out.push_str(&rest[length..]);
                        return out;
                    }
                    rest = &rest[length..];
                    after_match = length > 0;
                    if after_match {
                        continue;
                    }
                }
                _ => after_match = false,
            }
            let Some(c) = rest.chars().next() else { return out };
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
}

/// How many bytes the pattern matches from the first character on.
fn match_length(tokens: &[Token], chars: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
    // `states[i]`: the tokens before `i` have matched what was read.
    let mut states = vec![false; tokens.len() + 1];
    states[0] = true;
    skip_stars(tokens, &mut states);
    let mut found = None;
    let mut length = 0;
    let mut next = vec![false; tokens.len() + 1];
    if states[tokens.len()] {
        found = Some(0);
    }
    for c in chars {
        if found.is_some() && !longest {
            break;
        }
        next.fill(false);
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| states[*index]) {
            match token {
                Token::AnyString => next[index] = true,
                Token::AnyChar => next[index + 1] = true,
                Token::Char(expected) => next[index + 1] |= *expected == c,
            }
        }
        skip_stars(tokens, &mut next);
        std::mem::swap(&mut states, &mut next);
        length += c.len_utf8();
        if states[tokens.len()] {
            found = Some(length);
        } else if !states.contains(&true) {
            break;
        }
    }
    found
}

/// `*` may match nothing.
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (index, token) in tokens.iter().enumerate() {
        if states[index] && *token == Token::AnyString {
            states[index + 1] = true;
        }
    }
}
