//! Go's duration texts, as HEALTHCHECK flags take them (D15.32).

/// Nanoseconds. The error is Go's text.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", crate::quote::quoted(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanoseconds: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", crate::quote::quoted(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                let quoted = crate::quote::quoted;
                return Err(format!("time: unknown unit {} in duration {}", quoted(unit), quoted(text)));
            }
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        // More than 18 digits are below a nanosecond of any unit.
        let digits = &fraction[..fraction.len().min(18)];
        let part: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| invalid())? };
        let scale = 10i128.pow(digits.len() as u32);
        let value = whole.checked_mul(nanoseconds).and_then(|value| value.checked_add(part * nanoseconds / scale));
        total = value.and_then(|value| total.checked_add(value)).ok_or_else(invalid)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations() {
        let cases = [
            ("0", 0),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("500us", 500_000),
            ("-1s", -1_000_000_000),
            (".5s", 500_000_000),
            ("1ns", 1),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        assert_eq!(parse("5"), Err("time: missing unit in duration \"5\"".into()));
        assert_eq!(parse("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
        for text in ["", "-", "s", "1.2.3s", "99999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
