//! Paths of instructions, as text: nothing here looks at a file system. `..` never leaves the root.

/// The shortest equivalent path, as Go's `path.Clean` makes it: `.` and empty elements removed, `..` resolved against the text, `.`
/// for nothing.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." if elements.last().is_some_and(|last| *last != "..") => {
                elements.pop();
            }
            ".." if is_absolute => {}
            element => elements.push(element),
        }
    }
    let joined = elements.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The last element, as Go's `path.Base`: `/` for the root, `.` for nothing.
pub fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (trimmed, path) {
        ("", "") => ".",
        ("", _) => "/",
        (trimmed, _) => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// The directory that `WORKDIR new` leads to (D15.24): absolute paths as written, relative ones joined and cleaned.
pub fn workdir(current: &str, new: &str) -> String {
    let current = if current.is_empty() { "/" } else { current };
    match new {
        "" => current.to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => clean(&format!("/{current}/{relative}")),
    }
}

/// The source of a COPY or ADD in its root: absolute and cleaned (D18.11, D18.13).
pub fn source(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// The destination of a COPY or ADD: absolute and cleaned, with a trailing `/` if it means a directory (D18.18).
pub fn destination(workdir: &str, destination: &str) -> String {
    let is_directory = matches!(destination, "" | "." | "..")
        || destination.ends_with('/')
        || destination.ends_with("/.")
        || destination.ends_with("/..");
    let path = match destination.starts_with('/') {
        true => clean(destination),
        false => clean(&format!("/{workdir}/{destination}")),
    };
    if is_directory && path != "/" { path + "/" } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        let cases = [
            ("", "."),
            (".", "."),
            ("a//b/./c/../d", "a/b/d"),
            ("/../a", "/a"),
            ("../a", "../a"),
            ("a/../..", ".."),
            ("/", "/"),
            ("a/", "a"),
        ];
        for (path, expected) in cases {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!((base("/a/b/"), base("/"), base(""), base("x")), ("b", "/", ".", "x"));
    }

    #[test]
    fn workdirs() {
        let cases = [
            ("/", "a b", "/a b"),
            ("/a", "b/../c/", "/a/c"),
            ("/a", "/x/../y/", "/x/../y/"),
            ("/a", "", "/a"),
            ("", "", "/"),
            ("/a", "../../b", "/b"),
        ];
        for (current, new, expected) in cases {
            assert_eq!(workdir(current, new), expected, "{current} {new}");
        }
    }

    #[test]
    fn destinations() {
        let cases = [
            ("/w", "", "/w/"),
            ("/w", ".", "/w/"),
            ("/w", "f", "/w/f"),
            ("/w", "d/", "/w/d/"),
            ("/w", "/d/.", "/d/"),
            ("/w", "../../x", "/x"),
            ("/", "", "/"),
            ("/w/", "/", "/"),
        ];
        for (current, path, expected) in cases {
            assert_eq!(destination(current, path), expected, "{path}");
        }
        assert_eq!((source("../x/"), source("a/./b")), ("/x".into(), "/a/b".into()));
    }
}
