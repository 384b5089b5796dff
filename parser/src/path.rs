//! Paths as text, cleaned as Go's `path.Clean` does. No file system is asked.

/// The shortest equal path: no `.`, no `..` where it can be resolved, no double slashes; empty becomes `.`.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if absolute => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// The working directory after `WORKDIR new` (D15.24): an absolute path is used as given, a relative one joined and cleaned.
pub fn workdir(current: &str, new: &str) -> String {
    if new.starts_with('/') {
        return new.to_owned();
    }
    if new.is_empty() {
        return if current.is_empty() { "/".to_owned() } else { current.to_owned() };
    }
    clean(&format!("/{current}/{new}"))
}

/// The destination of a COPY (D18.18): below the working directory, cleaned, `..` clamped at `/`. A trailing `/` is kept, and one is
/// put where the text means a directory: empty, `.`, or ending in `/.`.
pub fn destination(workdir: &str, text: &str) -> String {
    let is_directory = text.is_empty() || text.ends_with('/') || text == "." || text.ends_with("/.");
    let joined = if text.starts_with('/') { text.to_owned() } else { format!("/{workdir}/{text}") };
    let mut cleaned = clean(&joined);
    if is_directory && !cleaned.ends_with('/') {
        cleaned.push('/');
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/../d", "a/b/d"),
            ("/../x", "/x"),
            ("../x", "../x"),
            ("a/../..", ".."),
            ("/a/b/", "/a/b"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn working_directories_join() {
        assert_eq!(workdir("/w", "rel"), "/w/rel");
        assert_eq!(workdir("", "rel"), "/rel");
        assert_eq!(workdir("/w", "../x"), "/x");
        assert_eq!(workdir("/w", "/a/b/../"), "/a/b/../");
        assert_eq!(workdir("/w", ""), "/w");
        assert_eq!(workdir("/w/", "."), "/w");
    }

    #[test]
    fn destinations_keep_their_slash() {
        for (text, expected) in
            [("x", "/w/x"), ("x/", "/w/x/"), ("", "/w/"), (".", "/w/"), ("/a/.", "/a/"), ("/", "/"), ("../../x", "/x")]
        {
            assert_eq!(destination("/w", text), expected, "{text}");
        }
    }
}
