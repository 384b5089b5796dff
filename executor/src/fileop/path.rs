//! Paths are bytes: relative to a root, cleaned, without a leading `/`; the root itself is empty.

use std::fmt::Write;

/// Lexically cleaned as if joined to `/`: `.` and empty elements go, `..` stops at the root (D18.11).
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => out.truncate(parent_and_name(&out).0.len()),
            name => push(&mut out, name),
        }
    }
    out
}

pub(crate) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 1 + name.len());
    out.extend_from_slice(path);
    push(&mut out, name);
    out
}

/// The elements of a cleaned path.
pub(crate) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty())
}

/// Splits off the last element of a cleaned path.
pub(crate) fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn base_name(path: &[u8]) -> &[u8] {
    parent_and_name(path).1
}

/// What is left of `path` below `parent`, both cleaned: empty when they are equal.
pub(crate) fn below<'p>(path: &'p [u8], parent: &[u8]) -> Option<&'p [u8]> {
    if parent.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(parent)? {
        b"" => Some(b""),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// A path for messages, absolute in its root: bytes that are no printable UTF-8 are escaped (X6.53), so that a hostile
/// name cannot write on the terminal.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    if path.first() != Some(&b'/') {
        out.push('/');
    }
    escape(path, &mut out);
    out
}

pub(crate) fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if c.is_control() => {
                    let _ = write!(out, "\\u{{{:x}}}", c as u32);
                }
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            let _ = write!(out, "\\x{b:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_stops_at_the_root() {
        for (path, cleaned) in [
            ("/", ""),
            (".", ""),
            ("", ""),
            ("/a//b/./c/../d/", "a/b/d"),
            ("../../x", "x"),
            ("/a/../../../b", "b"),
            ("a/..", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
    }

    #[test]
    fn below_compares_elements() {
        assert_eq!(below(b"a/b", b"a"), Some(&b"b"[..]));
        assert_eq!(below(b"a", b"a"), Some(&b""[..]));
        assert_eq!(below(b"ab", b"a"), None);
        assert_eq!(below(b"ab", b""), Some(&b"ab"[..]));
    }

    #[test]
    fn shown_escapes() {
        assert_eq!(shown(b"a\n\x1b[1m\xff\xc3\xa4"), "/a\\n\\u{1b}[1m\\xff\u{e4}");
    }
}
