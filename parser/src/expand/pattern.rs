//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}` (D11.12): `*`, `?`, and escapes of them; brackets mean nothing.
//!
//! Matching follows all ways through the pattern at once, so that its time is bounded by the product of the lengths. Replacing begins
//! a match at every character, which a hostile pattern makes slow: [`Limits`] bounds the work and the result.

use super::ExpandReason;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    AnyString,
    AnyChar,
    Char(char),
}

/// What the expansion of one word may still do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Comparisons of a token with a character.
    pub steps: usize,
    /// Bytes that come out.
    pub bytes: usize,
}

impl Limits {
    pub fn take_bytes(&mut self, bytes: usize) -> Result<(), ExpandReason> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(ExpandReason::TooLong)?;
        Ok(())
    }

    fn take_steps(&mut self, steps: usize) -> Result<(), ExpandReason> {
        self.steps = self.steps.checked_sub(steps).ok_or(ExpandReason::TooSlow)?;
        Ok(())
    }
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
    pub fn trim_start<'v>(&self, value: &'v str, longest: bool, limits: &mut Limits) -> Result<&'v str, ExpandReason> {
        let length = match_length(&self.tokens, value.chars(), longest, limits)?;
        Ok(&value[length.unwrap_or(0)..])
    }

    /// Removes the shortest or longest match at the end, which is a match at the start of all reversed.
    pub fn trim_end<'v>(&self, value: &'v str, longest: bool, limits: &mut Limits) -> Result<&'v str, ExpandReason> {
        let reversed: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let length = match_length(&reversed, value.chars().rev(), longest, limits)?;
        Ok(&value[..value.len() - length.unwrap_or(0)])
    }

    /// Replaces the first or all matches, leftmost and longest. The replacement is literal (D11.15).
    pub fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
        limits: &mut Limits,
    ) -> Result<String, ExpandReason> {
        let mut out = String::with_capacity(value.len());
        let mut rest = value;
        let mut after_match = false;
        loop {
            match match_length(&self.tokens, rest.chars(), true, limits)? {
                // An empty match directly behind another match is none.
                Some(length) if length > 0 || !after_match => {
                    limits.take_bytes(replacement.len())?;
                    out.push_str(replacement);
                    if !all {
                        out.push_str(&rest[length..]);
                        return Ok(out);
                    }
                    rest = &rest[length..];
                    after_match = length > 0;
                    if after_match {
                        continue;
                    }
                }
                _ => after_match = false,
            }
            let Some(c) = rest.chars().next() else { return Ok(out) };
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
}

/// What beginning a match costs, whatever comes of it.
const START_STEPS: usize = 4;

/// How many bytes the pattern matches from the first character on.
fn match_length(
    tokens: &[Token],
    chars: impl Iterator<Item = char>,
    longest: bool,
    limits: &mut Limits,
) -> Result<Option<usize>, ExpandReason> {
    limits.take_steps(START_STEPS)?;
    let mut chars = chars.peekable();
    match (tokens.first(), chars.peek()) {
        (None, _) => return Ok(Some(0)),
        (Some(Token::Char(expected)), Some(c)) if c != expected => return Ok(None),
        _ => limits.take_steps(tokens.len())?,
    }
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
        limits.take_steps(tokens.len() + 1)?;
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
    Ok(found)
}

/// `*` may match nothing.
fn skip_stars(tokens: &[Token], states: &mut [bool]) {
    for (index, token) in tokens.iter().enumerate() {
        if states[index] && *token == Token::AnyString {
            states[index + 1] = true;
        }
    }
}
