//! FROM (D12.1, D12.2).

use super::{Arguments, Result};
use crate::ast::{From, Word};

pub(super) fn parse(arguments: &mut Arguments) -> Result<From> {
    let platform = arguments.flags.string("platform")?.map(|(value, span)| Word { value, span });
    arguments.no_more_flags(&["platform"])?;
    let mut words = arguments.words().into_iter();
    let (image, name) = match (words.next(), words.next(), words.next(), words.next()) {
        (Some(image), None, None, None) => (image, None),
        (Some(image), Some(keyword), Some(name), None) if keyword.eq_ignore_ascii_case("as") => (image, Some(name)),
        _ => return arguments.problem("FROM requires either one or three arguments"),
    };
    let name = name.map(stage_name).transpose()?;
    Ok(From {
        span: arguments.line.span,
        platform,
        image,
        name,
        comments: arguments.line.comments.clone(),
        text: arguments.line.text.trim().to_owned(),
    })
}

fn stage_name(word: Word) -> Result<Word> {
    let lower = word.value.to_lowercase();
    let starts_well = lower.starts_with(|c: char| c.is_ascii_lowercase());
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if !starts_well || !lower.chars().all(valid) {
        let message = format!(
            "invalid name for build stage: {:?}, name can't start with a number or contain symbols",
            word.value
        );
        return Err((message, word.span, None));
    }
    Ok(Word { value: lower, span: word.span })
}
