//! One CSV record: how `--mount` (D17.1) and flags of the command line list their options.

/// The fields of one CSV record, as Go's reader splits it.
pub fn record(text: &str) -> Result<Vec<String>, &'static str> {
    let mut rest = text.lines().find(|line| !line.is_empty()).ok_or("EOF")?;
    let mut fields = Vec::new();
    loop {
        let Some(mut quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err("bare \" in non-quoted field");
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        loop {
            let Some((text, after)) = quoted.split_once('"') else {
                return Err("extraneous or missing \" in quoted-field");
            };
            field.push_str(text);
            if let Some(after) = after.strip_prefix('"') {
                field.push('"');
                quoted = after;
                continue;
            }
            fields.push(field);
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None if after.is_empty() => return Ok(fields),
                None => return Err("extraneous or missing \" in quoted-field"),
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::record;

    #[test]
    fn records() {
        let cases: &[(&str, &[&str])] = &[
            ("a,b=c", &["a", "b=c"]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"say \"\"hi\"\"\"", &["say \"hi\""]),
            ("a,", &["a", ""]),
            ("\"\"", &[""]),
        ];
        for (text, fields) in cases {
            assert_eq!(record(text).unwrap(), *fields, "{text}");
        }
        for text in ["", "a\"b", "\"a", "\"a\"b"] {
            assert!(record(text).is_err(), "{text}");
        }
    }
}
