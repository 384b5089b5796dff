//! `FROM [--platform=P] image [AS name]` (D12.1, D12.2).

use super::{Fault, Input, Parse};
use crate::ast::From;
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::flags::FlagKind;
use crate::quote::quoted;
use crate::span::Spanned;
use crate::words;

pub(super) fn parse(input: &Input<'_>) -> Parse<From> {
    let (image, written_name) = match words::fields(input.rest).as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (*image, Some(*name)),
        _ => {
            let message = "FROM requires either one or three arguments";
            let error = Diagnostic::error(ErrorRule::WrongArgumentCount, message, input.rest_span());
            return Err(Fault::Instruction(match input.rest.contains('#') {
                true => error.with_note("a comment needs a line of its own"),
                false => error.with_note("the form is FROM [--platform=PLATFORM] IMAGE [AS NAME]"),
            }));
        }
    };
    let name = written_name.map(|written| {
        let name = written.to_lowercase();
        if is_stage_name(&name) {
            return Ok(Spanned::new(name, input.line.span_of(written)));
        }
        let message = format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quoted(written)
        );
        Err(input.fault_at(ErrorRule::InvalidStageName, written, message))
    });
    let name = name.transpose()?;
    let flags = input.flags(&[("platform", FlagKind::Text)])?;
    Ok(From {
        span: input.line.span,
        platform: flags.non_empty("platform"),
        image: input.line.word(image),
        name,
        comments: input.line.comments.clone(),
        text: input.line.text.trim().to_owned(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}
