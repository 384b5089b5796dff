//! Sizes of tmpfs mounts (D17.7).

/// A size such as `64m`, `1.5GiB`, `1024`: units are powers of 1024.
pub(super) fn parse(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let amount: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let is_plain = ["", "b", "k", "m", "g", "t", "p"].contains(&unit.as_str());
    let has_suffix = unit.len() <= 3 && (is_plain || unit.ends_with('b') || unit.ends_with('i'));
    let size = amount * 1024f64.powi(power);
    (has_suffix && size < u64::MAX as f64).then_some(size as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        let cases = [("1", 1), ("1k", 1024), ("1.5GiB", 1536 << 20), ("2 mb", 2 << 20), ("1b", 1)];
        for (text, size) in cases {
            assert_eq!(parse(text), Some(size), "{text}");
        }
        for text in ["", "k", "1x", "-1", "1kk", "1.2.3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
