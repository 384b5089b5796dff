//! "did you mean" (D22.1).

/// The candidate nearest to `value`, at one or two edits; none if `value` is a candidate itself.
pub fn closest<'a>(candidates: impl IntoIterator<Item = &'a str>, value: &str) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = strsim::levenshtein(candidate, value);
        if distance == 0 {
            return None;
        }
        if distance <= 2 && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn suggests_within_two_edits() {
        assert_eq!(closest(["build", "test"], "bulid").as_deref(), Some("build"));
        assert_eq!(closest(["build", "test"], "build"), None);
        assert_eq!(closest(["build"], "xyz"), None);
    }
}
