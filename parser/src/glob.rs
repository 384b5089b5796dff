//! Wildcards in COPY sources: Go's `filepath.Match` (D18.15).

/// A bracket that does not close, or a trailing backslash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether `text` has an unescaped `*`, `?` or `[`.
pub fn has_wildcard(text: impl AsRef<[u8]>) -> bool {
    let mut escaped = false;
    text.as_ref().iter().any(|byte| {
        let wild = !escaped && matches!(byte, b'*' | b'?' | b'[');
        escaped = !escaped && *byte == b'\\';
        wild
    })
}

/// Splits a path in front of the first element that has a wildcard (X3.7).
pub fn split_wildcard(path: &str) -> (&str, Option<&str>) {
    let mut start = 0;
    for element in path.split('/') {
        if has_wildcard(element) {
            return (&path[..start], Some(&path[start..]));
        }
        start += element.len() + 1;
    }
    (path, None)
}

/// Whether all of `path` matches: `*` and `?` stop at `/`, `[a-z]` and `[^a]` are classes, `\` makes the next character literal.
pub fn match_path(pattern: &[u8], path: &[u8]) -> Result<bool, BadPattern> {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                while pattern.get(p) == Some(&b'*') {
                    p += 1;
                }
                retry = Some((p, t));
                continue;
            }
            Some(b'?') => match path.get(t) {
                Some(byte) if *byte != b'/' => Some((p + 1, t + character_length(&path[t..]))),
                _ => None,
            },
            Some(b'[') => {
                let (length, matched) = class(&pattern[p..], path.get(t..).unwrap_or_default())?;
                match path.get(t) {
                    Some(byte) if matched && *byte != b'/' => Some((p + length, t + character_length(&path[t..]))),
                    _ => None,
                }
            }
            Some(b'\\') => match (pattern.get(p + 1).ok_or(BadPattern)?, path.get(t)) {
                (wanted, Some(byte)) if wanted == byte => Some((p + 2, t + 1)),
                _ => None,
            },
            Some(wanted) if path.get(t) == Some(wanted) => Some((p + 1, t + 1)),
            None if t == path.len() => return Ok(true),
            _ => None,
        };
        match (step, retry) {
            (Some(next), _) => (p, t) = next,
            (None, Some((after, from))) if path.get(from).is_some_and(|byte| *byte != b'/') => {
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return Ok(false),
        }
    }
}

/// The length of a class and whether it holds the first character of `text`.
fn class(pattern: &[u8], text: &[u8]) -> Result<(usize, bool), BadPattern> {
    let character = decode(text).0;
    let mut at = 1;
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    let mut first = true;
    loop {
        match pattern.get(at) {
            Some(b']') if !first => return Ok((at + 1, found != negated)),
            None => return Err(BadPattern),
            _ => {}
        }
        first = false;
        let (low, length) = class_character(&pattern[at..])?;
        at += length;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') {
            let (end, length) = class_character(pattern.get(at + 1..).ok_or(BadPattern)?)?;
            high = end;
            at += 1 + length;
        }
        found |= (low..=high).contains(&character);
    }
}

fn class_character(pattern: &[u8]) -> Result<(u32, usize), BadPattern> {
    match pattern.first() {
        None | Some(b'-' | b']') => Err(BadPattern),
        Some(b'\\') => {
            let (character, length) = decode(pattern.get(1..).filter(|rest| !rest.is_empty()).ok_or(BadPattern)?);
            Ok((character, length + 1))
        }
        Some(_) => Ok(decode(pattern)),
    }
}

fn character_length(text: &[u8]) -> usize {
    decode(text).1.max(1)
}

/// The first character and its length; a byte that is not UTF-8 is a character of its own.
fn decode(text: &[u8]) -> (u32, usize) {
    for length in 1..=text.len().min(4) {
        if let Ok(valid) = std::str::from_utf8(&text[..length])
            && let Some(character) = valid.chars().next()
        {
            return (character as u32, length);
        }
    }
    (text.first().map_or(u32::MAX, |byte| 0x11_0000 + u32::from(*byte)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_as_filepath_match() {
        for (pattern, path, matched) in [
            ("*.txt", "a.txt", true),
            ("*.txt", ".txt", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("**/f", "d/f", true),
            ("**/f", "d/e/f", false),
            ("a?c", "aéc", true),
            ("?", "/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[*]", "*", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbY", false),
            ("s??", "src", true),
            ("", "", true),
        ] {
            assert_eq!(match_path(pattern.as_bytes(), path.as_bytes()), Ok(matched), "{pattern} {path}");
        }
        for bad in ["[", "[]", "[a", "[a-]", "\\"] {
            assert_eq!(match_path(bad.as_bytes(), b"a"), Err(BadPattern), "{bad}");
        }
    }

    #[test]
    fn splits_before_the_first_wildcard() {
        assert_eq!(split_wildcard("/a/b*/c"), ("/a/", Some("b*/c")));
        assert_eq!(split_wildcard("/a/b"), ("/a/b", None));
        assert_eq!(split_wildcard(r"/a/\*"), (r"/a/\*", None));
        assert_eq!(split_wildcard("*"), ("", Some("*")));
    }

    proptest! {
        #[test]
        fn never_panics(pattern: Vec<u8>, path: Vec<u8>) {
            let _ = match_path(&pattern, &path);
        }
    }
}
