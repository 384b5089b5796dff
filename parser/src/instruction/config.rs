//! Instructions that only set a value of the image config: EXPOSE, VOLUME, USER, WORKDIR, MAINTAINER, STOPSIGNAL, SHELL.

use super::{Arguments, Result};
use crate::ast::Word;

pub(super) fn expose(arguments: &mut Arguments) -> Result<Vec<Word>> {
    arguments.no_more_flags(&[])?;
    let words = arguments.words();
    at_least_one(arguments, words)
}

pub(super) fn volume(arguments: &mut Arguments) -> Result<Vec<Word>> {
    arguments.no_more_flags(&[])?;
    let words = arguments.json_or_words()?;
    at_least_one(arguments, words)
}

fn at_least_one(arguments: &Arguments, words: Vec<Word>) -> Result<Vec<Word>> {
    match words.is_empty() {
        true => arguments.problem(format!("{} requires at least one argument", arguments.keyword)),
        false => Ok(words),
    }
}

/// The whole rest as one word, inner blanks kept.
pub(super) fn exactly_one(arguments: &mut Arguments) -> Result<Word> {
    arguments.no_more_flags(&[])?;
    rest(arguments)
}

/// Flags are dropped without a look (D7.9).
pub(super) fn stopsignal(arguments: &mut Arguments) -> Result<Word> {
    rest(arguments)
}

fn rest(arguments: &Arguments) -> Result<Word> {
    match arguments.rest.is_empty() {
        true => arguments.problem(format!("{} requires exactly one argument", arguments.keyword)),
        false => Ok(arguments.line.word(arguments.rest)),
    }
}

/// D15.43.
pub(super) fn shell(arguments: &mut Arguments) -> Result<Vec<String>> {
    arguments.no_more_flags(&[])?;
    match arguments.json()? {
        None => arguments.problem("SHELL requires the arguments to be in JSON form"),
        Some(words) if words.is_empty() => arguments.problem("SHELL requires at least one argument"),
        Some(words) => Ok(words),
    }
}
