//! "Did you mean": the nearest of a list of known words (D22.1).

/// The candidate whose Levenshtein distance to `value` is smallest, if that is 1 or 2. `None` when a candidate equals the
/// value: then the mistake is elsewhere.
pub fn closest<I>(candidates: I, value: &str) -> Option<String>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut best: Option<(usize, String)> = None;
    for candidate in candidates {
        let candidate = candidate.as_ref();
        if candidate == value {
            return None;
        }
        if candidate.len().abs_diff(value.len()) > 8 {
            continue; // a character has at most 4 bytes: farther than 2 edits
        }
        let distance = strsim::levenshtein(candidate, value);
        if distance <= 2 && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, candidate.to_owned()));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// As [`closest`], but upper and lower case are the same, and the answer is in lower case if the value is.
/// The candidates are upper-case words.
pub fn closest_keyword(candidates: &[&str], value: &str) -> Option<String> {
    let found = closest(candidates, &value.to_uppercase())?;
    Some(if value.chars().any(char::is_uppercase) { found } else { found.to_lowercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_within_two_edits() {
        assert_eq!(closest(["mount", "network"], "mont"), Some("mount".into()));
        assert_eq!(closest(["mount", "network"], "mnut"), Some("mount".into()));
        assert_eq!(closest(["mount"], "mo"), None);
        assert_eq!(closest(["mount", "mont"], "mount"), None);
        assert_eq!(closest(Vec::<String>::new(), "x"), None);
    }

    #[test]
    fn keywords_follow_the_case_of_the_input() {
        assert_eq!(closest_keyword(&["ENTRYPOINT", "ENV"], "FNTRYPOINT"), Some("ENTRYPOINT".into()));
        assert_eq!(closest_keyword(&["ENTRYPOINT", "ENV"], "entripoint"), Some("entrypoint".into()));
    }
}
