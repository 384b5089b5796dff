//! HEALTHCHECK (D15.31 to D15.36).

use super::{Arguments, Result};
use crate::ast::Healthcheck;
use crate::json;
use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::combinator::{all_consuming, value};
use nom::multi::many1;
use nom::number::complete::recognize_float;

const FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];

pub(super) fn parse(arguments: &mut Arguments) -> Result<Healthcheck> {
    let (kind, command) = arguments.rest.split_once(char::is_whitespace).unwrap_or((arguments.rest, ""));
    let command = command.trim();
    match kind.to_ascii_uppercase().as_str() {
        "" => arguments.problem("HEALTHCHECK requires at least one argument"),
        "NONE" if !command.is_empty() => arguments.problem("HEALTHCHECK NONE takes no arguments"),
        // Flags are dropped without a look (D7.9).
        "NONE" => Ok(Healthcheck {
            interval: 0,
            timeout: 0,
            start_period: 0,
            start_interval: 0,
            retries: 0,
            test: vec!["NONE".into()],
        }),
        "CMD" => {
            let interval = duration(arguments, "interval")?;
            let timeout = duration(arguments, "timeout")?;
            let start_period = duration(arguments, "start-period")?;
            let start_interval = duration(arguments, "start-interval")?;
            let retries = retries(arguments)?;
            arguments.no_more_flags(&FLAGS)?;
            let test = match json::strings(command) {
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
                Some(Ok(words)) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                Some(Err(message)) => return arguments.problem(message),
            };
            if command.is_empty() || test.len() < 2 {
                return arguments.problem("Missing command after HEALTHCHECK CMD");
            }
            Ok(Healthcheck { interval, timeout, start_period, start_interval, retries, test })
        }
        _ => arguments.problem(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    }
}

fn retries(arguments: &mut Arguments) -> Result<i64> {
    let Some((text, span)) = arguments.flags.string("retries")? else { return Ok(0) };
    match text.parse::<i32>() {
        Ok(number) if number >= 0 => Ok(number.into()),
        Ok(number) => Err((format!("--retries cannot be negative ({number})"), span, None)),
        Err(_) => Err((format!("--retries must be a number, not {text:?}"), span, None)),
    }
}

/// A flag's duration in nanoseconds.
fn duration(arguments: &mut Arguments, name: &str) -> Result<i64> {
    let Some((text, span)) = arguments.flags.string(name)? else { return Ok(0) };
    match nanoseconds(&text) {
        Some(0) => Ok(0),
        Some(n) if n < 1_000_000 => Err((format!("Interval {name:?} cannot be less than 1ms"), span, None)),
        Some(n) => Ok(n),
        None => Err((format!("time: invalid duration {text:?}"), span, None)),
    }
}

/// Go's duration syntax: `1m30s`, `1.5h`, `0`.
fn nanoseconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let unit = alt((
        value(1.0, tag("ns")),
        value(1e3, alt((tag("us"), tag("µs"), tag("μs")))),
        value(1e6, tag("ms")),
        value(1e9, tag("s")),
        value(60e9, tag("m")),
        value(3600e9, tag("h")),
    ));
    let mut parser = all_consuming(many1((recognize_float, unit)));
    let parsed: nom::IResult<&str, Vec<(&str, f64)>> = parser.parse(text);
    let total = parsed.ok()?.1.into_iter().try_fold(0.0, |total, (number, unit)| {
        let number: f64 = number.parse().ok()?;
        Some(total + number * unit)
    })?;
    // Beyond 292 years the number does not fit, in Go neither.
    (total.is_finite() && total.abs() < 9.2e18).then_some(total.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn durations_are_go_s() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("500us", Some(500_000)),
            ("5", None),
            ("s", None),
            ("", None),
            ("1e30h", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }
}
