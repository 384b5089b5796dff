//! `HEALTHCHECK [flags] CMD command` and `HEALTHCHECK NONE` (D15.31 to D15.36).

use super::{Fault, Input, Parse, command};
use crate::ast::{CommandLine, Healthcheck, Word};
use crate::diagnostic::Diagnostic;
use crate::duration;
use crate::error_rule::ErrorRule;
use crate::flags::{FlagKind, Flags};
use crate::quote::quoted;
use crate::suggest;

const FLAGS: [(&str, FlagKind); 5] = [
    ("interval", FlagKind::Text),
    ("timeout", FlagKind::Text),
    ("start-period", FlagKind::Text),
    ("start-interval", FlagKind::Text),
    ("retries", FlagKind::Text),
];

/// Shortest duration other than zero, in nanoseconds.
const MINIMUM: i64 = 1_000_000;

pub(super) fn parse(input: &Input<'_>) -> Parse<Healthcheck> {
    let end = input.rest.find(char::is_whitespace).unwrap_or(input.rest.len());
    let (word, text) = input.rest.split_at(end);
    let command = command::line(input, text.trim_start())?;
    let kind = word.to_uppercase();
    match kind.as_str() {
        "" => return Err(input.fault(ErrorRule::WrongArgumentCount, "HEALTHCHECK requires at least one argument")),
        // Its flags are dropped without a look at them (D7.9).
        "NONE" if text.trim().is_empty() => return Ok(none()),
        "NONE" => return Err(input.fault(ErrorRule::WrongArgumentCount, "HEALTHCHECK NONE takes no arguments")),
        _ => {}
    }
    let flags = input.flags(&FLAGS)?;
    if kind != "CMD" {
        let message = format!("Unknown type {} in HEALTHCHECK (try CMD)", quoted(&kind));
        let error = Diagnostic::error(ErrorRule::WrongArgumentCount, message, input.line.span_of(word));
        return Err(Fault::Instruction(error.with_suggestion(suggest::closest_keyword(&["CMD", "NONE"], word))));
    }
    let test = match command {
        CommandLine::Exec(words) if !words.is_empty() => [vec!["CMD".to_owned()], words].concat(),
        CommandLine::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_owned(), text],
        _ => return Err(input.fault(ErrorRule::WrongArgumentCount, "Missing command after HEALTHCHECK CMD")),
    };
    Ok(Healthcheck {
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(&flags)?,
        test,
    })
}

fn none() -> Healthcheck {
    let test = vec!["NONE".to_owned()];
    Healthcheck { interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0, test }
}

fn fault(flag: &Word, message: String) -> Fault {
    Fault::Instruction(Diagnostic::error(ErrorRule::InvalidFlagValue, message, flag.span))
}

fn interval(flags: &Flags, name: &str) -> Parse<i64> {
    let Some(flag) = flags.non_empty(name) else { return Ok(0) };
    let nanoseconds = duration::parse(&flag).map_err(|message| fault(&flag, message))?;
    if nanoseconds != 0 && nanoseconds < MINIMUM {
        return Err(fault(&flag, format!("Interval {} cannot be less than 1ms", quoted(name))));
    }
    Ok(nanoseconds)
}

fn retries(flags: &Flags) -> Parse<i64> {
    let Some(flag) = flags.non_empty("retries") else { return Ok(0) };
    let digits = flag.strip_prefix(['-', '+']).unwrap_or(&flag);
    let retries: i32 = flag.parse().map_err(|_| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let reason = if is_number { "value out of range" } else { "invalid syntax" };
        fault(&flag, format!("strconv.ParseInt: parsing {}: {reason}", quoted(&flag)))
    })?;
    if retries < 0 {
        return Err(fault(&flag, format!("--retries cannot be negative ({retries})")));
    }
    Ok(retries.into())
}
