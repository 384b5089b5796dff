//! What a source of COPY or ADD is, after expansion (D18.6, D18.7, D18.40). The same words name build contexts (D19.4, D19.7).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Git,
    Http,
    Local,
}

impl SourceKind {
    pub fn of(source: &str) -> SourceKind {
        let is_http = source.starts_with("http://") || source.starts_with("https://");
        match () {
            () if is_git(source, is_http) => SourceKind::Git,
            () if is_http => SourceKind::Http,
            () => SourceKind::Local,
        }
    }

    /// Why COPY cannot take such a source.
    pub fn refused_by_copy(self) -> Option<&'static str> {
        match self {
            SourceKind::Git => Some("source can't be a git ref for COPY"),
            SourceKind::Http => Some("source can't be a URL for COPY"),
            SourceKind::Local => None,
        }
    }
}

/// A URL without its credentials, for logs, names and errors: a user name may be a token too.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) if user != "git" => format!("{scheme}://xxxxx@{host}{}", &rest[authority.len()..]),
        _ => url.to_owned(),
    }
}

/// Name of the file that a URL brings: the last element of its path, decoded (D18.44).
pub fn url_file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default().split_once('/').map_or("", |(_, path)| path);
    let name = crate::git::decode(path.trim_end_matches('/'), false);
    match name.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name if name.contains('\0') => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn is_git(source: &str, is_http: bool) -> bool {
    if source.starts_with("./") || source.starts_with("../") {
        return false;
    }
    if is_http {
        let path = source.split(['?', '#']).next().unwrap_or(source);
        return path.ends_with(".git");
    }
    source.starts_with("git://") || source.starts_with("ssh://") || is_scp_like(source)
}

/// `user@host:path`.
fn is_scp_like(source: &str) -> bool {
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    is_name(user) && is_name(host) && !path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let cases = [
            ("git://h/r", SourceKind::Git),
            ("ssh://git@h/r", SourceKind::Git),
            ("git@github.com:a/b", SourceKind::Git),
            ("https://h/r.git", SourceKind::Git),
            ("https://h/r.git#v1:sub", SourceKind::Git),
            ("https://h/r.git?tag=v1", SourceKind::Git),
            ("https://h/x.tar.gz", SourceKind::Http),
            ("http://h/", SourceKind::Http),
            ("github.com/x/y", SourceKind::Local),
            ("./git@h:x", SourceKind::Local),
            ("a/b", SourceKind::Local),
        ];
        for (source, kind) in cases {
            assert_eq!(SourceKind::of(source), kind, "{source}");
        }
        assert_eq!(redacted("https://u:p@ss@h:1/x?y#z"), "https://xxxxx@h:1/x?y#z");
        assert_eq!(redacted("ssh://git@h/a:b@c"), "ssh://git@h/a:b@c");
        for (url, name) in [
            ("https://h/a/b.tar.gz?x=y/z#f", "b.tar.gz"),
            ("https://h/a%20b", "a b"),
            ("https://h/a/", "a"),
            ("https://h/x%2fy", "y"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/..", "__unnamed__"),
            ("https://h/a%00", "__unnamed__"),
        ] {
            assert_eq!(url_file_name(url), name, "{url}");
        }
        assert_eq!(SourceKind::of("https://h/f").refused_by_copy(), Some("source can't be a URL for COPY"));
    }
}
