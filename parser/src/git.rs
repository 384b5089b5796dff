//! Git repositories as sources of ADD and as build contexts: `https://host/repo.git?tag=v1#ref:subdir` (D18.40 to D18.43).

use crate::boolean::boolean;

/// A repository, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitReference {
    /// What git is given: the URL without query and fragment.
    pub remote: String,
    /// A branch, a tag, a full ref or a commit; empty for the default branch.
    pub reference: String,
    /// Without slashes at its ends; empty for the whole repository.
    pub subdir: String,
    /// The commit that `reference` must stand for, or the beginning of its hash.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    /// Files get the commit's time instead of that of the checkout.
    pub commit_time: bool,
    /// `checksum` is the commit to fetch, whatever `reference` has become.
    pub fetch_by_commit: bool,
}

/// Texts are BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitReferenceError {
    #[error("query {0:?} has no value")]
    NoValue(String),
    #[error("query {0:?} has multiple values")]
    Repeated(String),
    #[error("unexpected query {0:?}: there are {known}", known = KEYS.join(", "))]
    UnknownKey(String),
    #[error("invalid {key} value: {value:?}")]
    InvalidValue { key: String, value: String },
    #[error("{key} conflicts: {first:?} vs {second:?}")]
    Conflict { key: &'static str, first: String, second: String },
    #[error("branch conflicts with tag")]
    BranchAndTag,
    #[error("fetch-by-commit needs a full commit hash as checksum")]
    NoCommit,
}

const KEYS: [&str; 10] =
    ["ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit"];

impl GitReference {
    /// Parses what [`SourceKind::of`](crate::source::SourceKind::of) calls git.
    pub fn parse(text: &str) -> Result<GitReference, GitReferenceError> {
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = before.split_once('?').unwrap_or((before, ""));
        let mut this = GitReference { remote: remote.to_owned(), ..GitReference::default() };
        let fragment = decode(fragment, false);
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        this.reference = reference.to_owned();
        this.subdir = clean(subdir);
        this.query(query)?;
        if this.fetch_by_commit && !this.checksum.as_deref().is_some_and(is_commit) {
            return Err(GitReferenceError::NoCommit);
        }
        Ok(this)
    }

    /// A build context: also `github.com/…` without a scheme, which is a path anywhere else (D19.4). `None`: no git.
    pub fn of_context(text: &str) -> Option<Result<GitReference, GitReferenceError>> {
        if text.starts_with("github.com/") {
            return Some(GitReference::parse(&format!("https://{text}")));
        }
        let is_git = crate::source::SourceKind::of(text) == crate::source::SourceKind::Git;
        is_git.then(|| GitReference::parse(text))
    }

    /// Whether git reaches it through ssh.
    pub fn is_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }

    fn query(&mut self, query: &str) -> Result<(), GitReferenceError> {
        use GitReferenceError as Error;
        let (mut tag, mut branch): (Option<String>, Option<String>) = (None, None);
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key, true), decode(value, true));
            if !KEYS.contains(&key.as_str()) {
                return Err(Error::UnknownKey(key));
            }
            if seen.contains(&key) {
                return Err(Error::Repeated(key));
            }
            let invalid = || Error::InvalidValue { key: key.clone(), value: value.clone() };
            let flag = || match value.as_str() {
                "" => Ok(true),
                value => boolean(value).ok_or_else(invalid),
            };
            if value.is_empty() && !matches!(key.as_str(), "keep-git-dir" | "submodules" | "fetch-by-commit") {
                return Err(Error::NoValue(key));
            }
            match key.as_str() {
                "ref" => agree("ref", &mut self.reference, &value)?,
                "subdir" => agree("subdir", &mut self.subdir, &clean(&value))?,
                "tag" => tag = Some(qualified("refs/tags/", &value)),
                "branch" => branch = Some(qualified("refs/heads/", &value)),
                "checksum" | "commit" => {
                    let mut checksum = self.checksum.take().unwrap_or_default();
                    agree("checksum", &mut checksum, &value)?;
                    self.checksum = Some(checksum);
                }
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "submodules" => self.submodules = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                _ => match value.as_str() {
                    "commit" => self.commit_time = true,
                    "checkout" => {}
                    _ => return Err(invalid()),
                },
            }
            seen.push(key);
        }
        if tag.is_some() && branch.is_some() {
            return Err(Error::BranchAndTag);
        }
        match tag.or(branch) {
            Some(reference) => agree("ref", &mut self.reference, &reference),
            None => Ok(()),
        }
    }
}

/// A whole commit hash, SHA-1 or SHA-256.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Fragment and query may both say it, if they say the same.
fn agree(key: &'static str, have: &mut String, value: &str) -> Result<(), GitReferenceError> {
    if !have.is_empty() && have != value {
        return Err(GitReferenceError::Conflict { key, first: have.clone(), second: value.to_owned() });
    }
    value.clone_into(have);
    Ok(())
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn clean(subdir: &str) -> String {
    let path = crate::path::clean(&format!("/{subdir}"));
    path.trim_start_matches('/').to_owned()
}

/// Percent-decoding, and `+` as a blank in queries. What is malformed, or no UTF-8 then, stays as it is.
pub fn decode(text: &str, is_query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |at: usize| tail.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (b'+', ..) if is_query => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> GitReference {
        GitReference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// D18.41.
    #[test]
    fn fragments() {
        for (text, remote, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", "", ""),
            ("https://h/r.git#v1", "https://h/r.git", "v1", ""),
            ("https://u:p@h/r.git#a/b:c/./d/", "https://u:p@h/r.git", "a/b", "c/d"),
            ("https://h/r.git#:sub", "https://h/r.git", "", "sub"),
            ("https://h/r.git#x:../../y", "https://h/r.git", "x", "y"),
            ("git@h:o/r.git#v1:d", "git@h:o/r.git", "v1", "d"),
            ("git@h:o/r?ref=x", "git@h:o/r", "x", ""),
            ("ssh://git@h:22/r#main", "ssh://git@h:22/r", "main", ""),
            ("https://h/r.git?tag=v1&subdir=a%2Fb", "https://h/r.git", "refs/tags/v1", "a/b"),
            ("https://h/r.git?branch=refs/heads/x", "https://h/r.git", "refs/heads/x", ""),
            ("https://h/r.git?ref=x#x:y", "https://h/r.git", "x", "y"),
        ] {
            let git = parsed(text);
            assert_eq!((git.remote.as_str(), git.reference.as_str(), git.subdir.as_str()), (remote, reference, subdir));
        }
        assert!(parsed("git@h:o/r").is_ssh() && parsed("ssh://h/r").is_ssh() && !parsed("https://h/r.git").is_ssh());
    }

    #[test]
    fn queries() {
        let git = parsed("https://h/r.git?keep-git-dir&submodules=0&checksum=abc&mtime=commit");
        assert_eq!((git.keep_git_dir, git.submodules, git.commit_time), (Some(true), Some(false), true));
        assert_eq!(git.checksum.as_deref(), Some("abc"));
        let commit = "0123456789012345678901234567890123456789";
        assert!(parsed(&format!("https://h/r.git?fetch-by-commit=true&commit={commit}")).fetch_by_commit);
        for (query, message) in [
            ("x=y", "unexpected query \"x\""),
            ("ref=", "query \"ref\" has no value"),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("tag=a&branch=b", "branch conflicts with tag"),
            ("ref=a&tag=b", "ref conflicts: \"a\" vs \"refs/tags/b\""),
            ("ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("subdir=a#x:b", "subdir conflicts: \"b\" vs \"a\""),
            ("checksum=a&commit=b", "checksum conflicts: \"a\" vs \"b\""),
            ("keep-git-dir=maybe", "invalid keep-git-dir value: \"maybe\""),
            ("mtime=now", "invalid mtime value: \"now\""),
            ("fetch-by-commit&commit=abc", "fetch-by-commit needs"),
        ] {
            let error = GitReference::parse(&format!("https://h/r.git?{query}")).unwrap_err().to_string();
            assert!(error.starts_with(message), "{query}: {error}");
        }
    }

    #[test]
    fn contexts() {
        let git = GitReference::of_context("github.com/a/b#main").unwrap().unwrap();
        assert_eq!((git.remote.as_str(), git.reference.as_str()), ("https://github.com/a/b", "main"));
        assert!(GitReference::of_context("https://h/x.tar.gz").is_none());
        assert!(GitReference::of_context("./git@h:x").is_none());
    }
}
