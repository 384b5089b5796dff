//! Where an offset stands: in which instruction, and in which part of it.

use crate::line::{LogicalLine, Reading};
use crate::span::Span;
use crate::words;

/// A word at the cursor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'a> {
    pub text: &'a str,
    /// Up to the cursor.
    pub before: &'a str,
}

/// What the cursor is in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place<'a> {
    /// The instruction word, also that of a trigger.
    Instruction(Token<'a>),
    /// A flag's name, with its dashes.
    Flag(Token<'a>),
    /// The value of a flag, whose name has no dashes.
    FlagValue(&'a str, Token<'a>),
    /// The argument of that number, flags not counted.
    Argument(usize, Token<'a>),
}

/// The instruction around an offset.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    pub line: &'a LogicalLine,
    /// In upper case; of a trigger its own word.
    pub instruction: Instruction,
    pub place: Place<'a>,
}

/// The instruction's name, if there is one of that name.
pub type Instruction = Option<&'static str>;

impl<'a> Cursor<'a> {
    /// `None` outside of instructions, in here-documents, and on lines of comments.
    pub fn at(reading: &'a Reading, offset: usize) -> Option<Cursor<'a>> {
        let index = reading.lines.partition_point(|line| line.span.start <= offset).checked_sub(1)?;
        let line = &reading.lines[index];
        let at = line.text_offset(offset)?;
        let mut start = line.text.len() - line.text.trim_start().len();
        loop {
            let rest = line.text.get(start..)?;
            let (word, arguments) = words::head(rest);
            let arguments_start = line.text.len() - arguments.len();
            if at <= start + word.len() {
                let token = token(word, at.checked_sub(start)?)?;
                return Some(Cursor { line, instruction: known(word), place: Place::Instruction(token) });
            }
            if word.eq_ignore_ascii_case("ONBUILD") && !arguments.is_empty() {
                start = arguments_start;
                continue;
            }
            let place = place(line, arguments_start, at)?;
            return Some(Cursor { line, instruction: known(word), place });
        }
    }

    pub fn span(&self, token: Token<'_>) -> Span {
        match token.text.is_empty() {
            // Nothing is written yet: no slice of the line to ask about.
            true => Span::new(self.line.span.end, self.line.span.end),
            false => self.line.span_of(token.text),
        }
    }
}

fn known(word: &str) -> Instruction {
    crate::instruction::NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(word))
}

fn token(text: &str, at: usize) -> Option<Token<'_>> {
    Some(Token { text, before: text.get(..at)? })
}

fn place(line: &LogicalLine, arguments: usize, at: usize) -> Option<Place<'_>> {
    let text = line.text.as_str();
    let mut index = 0;
    let mut has_arguments = false;
    let mut start = arguments;
    loop {
        let rest = text.get(start..)?;
        let skipped = rest.len() - rest.trim_start().len();
        start += skipped;
        let rest = rest.trim_start();
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        if at < start || rest.is_empty() {
            // Between two words: a new one begins here.
            return Some(Place::Argument(index, Token { text: "", before: "" }));
        }
        let word = &rest[..length];
        if at <= start + length {
            let whole = token(word, at - start)?;
            if has_arguments || !word.starts_with('-') {
                return Some(Place::Argument(index, whole));
            }
            return Some(match word.split_once('=') {
                Some((flag, value)) if at > start + flag.len() => {
                    Place::FlagValue(flag.trim_start_matches('-'), token(value, at - start - flag.len() - 1)?)
                }
                _ => Place::Flag(whole),
            });
        }
        if has_arguments || !word.starts_with("--") {
            has_arguments = true;
            index += 1;
        }
        start += length;
    }
}
