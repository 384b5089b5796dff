//! `ONBUILD instruction` (D15.50 to D15.52). The trigger stays text, with the bodies of its here-documents (D5.27).

use super::{Input, Parse};
use crate::ast::Onbuild;
use crate::error_rule::ErrorRule;
use crate::json::{self, JsonArray};
use crate::words;

pub(super) fn parse(input: &Input<'_>) -> Parse<Onbuild> {
    let (word, arguments) = words::head(input.rest);
    if word.is_empty() {
        return Err(input.fault(ErrorRule::WrongArgumentCount, "ONBUILD requires at least one argument"));
    }
    let trigger_word = word.to_uppercase();
    line_stage(input, &trigger_word, words::flags(arguments, input.escape).1)?;
    input.no_flags()?;
    match trigger_word.as_str() {
        "ONBUILD" => {
            return Err(input.fault_at(
                ErrorRule::InvalidTrigger,
                word,
                "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            ));
        }
        "FROM" | "MAINTAINER" => {
            return Err(input.fault_at(
                ErrorRule::InvalidTrigger,
                word,
                format!("{trigger_word} isn't allowed as an ONBUILD trigger"),
            ));
        }
        _ => {}
    }
    let text = input.line.text.trim_start();
    let mut trigger = text.get(input.word.len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &input.line.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.body);
        trigger.push_str(&heredoc.name);
    }
    Ok(Onbuild { trigger })
}

/// The part of the trigger that is checked here and now: the shape of its arguments.
fn line_stage(input: &Input<'_>, word: &str, rest: &str) -> Parse<()> {
    match word {
        "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "COPY" | "ADD" | "VOLUME" if json::array(rest) == JsonArray::Mixed => {
            input.json(rest).map(|_| ())
        }
        "ENV" | "LABEL" => super::env::check_shape(input, rest, word),
        _ => Ok(()),
    }
}
