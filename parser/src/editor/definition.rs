//! Where what stands at an offset was defined: a stage by its FROM, a variable by its ARG or ENV.

use super::cursor::{Cursor, Place, Token};
use super::scope;
use crate::line::{self, Reading};
use crate::span::Span;

pub fn define(source: &str, offset: usize) -> Option<Span> {
    let reading = line::read(source);
    let cursor = Cursor::at(&reading, offset)?;
    if let Some(name) = variable_at(&cursor) {
        let variables = scope::variables(&reading, cursor.line.span.start);
        return variables.into_iter().find(|variable| variable.name == name).map(|variable| variable.span);
    }
    stage_at(&reading, &cursor).map(|index| {
        let stage = &scope::stages(&reading)[index];
        stage.name.map_or(stage.line.text_span(), |(_, span)| span)
    })
}

/// The name of the variable at the cursor.
pub fn variable_at<'a>(cursor: &Cursor<'a>) -> Option<&'a str> {
    let (Place::FlagValue(_, token) | Place::Argument(_, token)) = cursor.place else { return None };
    let at = token.before.len();
    token.text.match_indices('$').find_map(|(dollar, _)| {
        let rest = &token.text[dollar + 1..];
        let (open, rest) = rest.strip_prefix('{').map_or((0, rest), |rest| (1, rest));
        let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let end = dollar + 1 + open + length;
        (dollar <= at && at <= end && length > 0).then(|| &rest[..length])
    })
}

/// The position of the stage that is named at the cursor.
pub fn stage_at(reading: &Reading, cursor: &Cursor<'_>) -> Option<usize> {
    let stages = scope::stages(reading);
    let named = |name: &str| {
        stages.iter().rposition(|stage| stage.name.is_some_and(|(known, _)| known.eq_ignore_ascii_case(name)))
    };
    match (cursor.instruction?, cursor.place) {
        // FROM sees the latest stage above it (D12.7); its own name is a definition.
        ("FROM", Place::Argument(0, Token { text, .. })) => stages
            .iter()
            .take_while(|stage| stage.line.span.start < cursor.line.span.start)
            .enumerate()
            .filter(|(_, stage)| stage.name.is_some_and(|(known, _)| known.eq_ignore_ascii_case(text)))
            .last()
            .map(|(index, _)| index),
        ("FROM", Place::Argument(2, Token { text, .. })) => named(text),
        ("COPY", Place::FlagValue("from", Token { text, .. })) => {
            text.parse().ok().filter(|index| *index < stages.len()).or_else(|| named(text))
        }
        ("RUN", Place::FlagValue("mount", token)) => {
            let (key, value) = mount_field(token)?.split_once('=')?;
            (key == "from").then(|| named(value))?
        }
        _ => None,
    }
}

/// The field of a `--mount` that the cursor is in.
pub fn mount_field<'a>(token: Token<'a>) -> Option<&'a str> {
    let at = token.before.len();
    let start = token.before.rfind(',').map_or(0, |comma| comma + 1);
    let end = token.text[at..].find(',').map_or(token.text.len(), |comma| at + comma);
    token.text.get(start..end)
}
