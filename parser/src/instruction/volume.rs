//! `VOLUME path ...` or `VOLUME ["path", ...]` (D15.29).

use super::{Input, Parse};
use crate::ast::Word;
use crate::error_rule::ErrorRule;
use crate::span::Spanned;
use crate::words;

pub(super) fn parse(input: &Input<'_>) -> Parse<Vec<Word>> {
    let volumes = words_or_json(input)?;
    if volumes.is_empty() {
        return Err(input.fault(ErrorRule::WrongArgumentCount, "VOLUME requires at least one argument"));
    }
    input.no_flags()?;
    let trimmed = |volume: Word| match volume.trim() {
        "" => Err(input.fault(ErrorRule::WrongArgumentCount, "VOLUME specified can not be an empty string")),
        path => Ok(Spanned::new(path.to_owned(), volume.span)),
    };
    volumes.into_iter().map(trimmed).collect()
}

/// The shape of VOLUME, COPY and ADD: a JSON array, else fields. Members of an array have the place of the array.
pub(super) fn words_or_json(input: &Input<'_>) -> Parse<Vec<Word>> {
    Ok(match input.json(input.rest)? {
        Some(members) => members.into_iter().map(|member| Spanned::new(member, input.rest_span())).collect(),
        None => words::fields(input.rest).into_iter().map(|field| input.line.word(field)).collect(),
    })
}
