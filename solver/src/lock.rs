//! `rbuild.lock`: which version each reference of a Dockerfile stood for when it was last looked up, so that builds take that and no other.
//!
//! - A base image's name stands for the digest of its manifest, or of its index, which holds for all platforms.
//! - A URL of ADD stands for the sha256 of its content.
//! - A branch or a tag of a repository stands for a commit.
//!
//! What says itself which version it means (a digest, `--checksum`, a commit) has no entry. The file is TOML with one line an entry,
//! sorted by name, so that a change is one line of a diff. It holds no credentials: names are without them.

use crate::op;
use oci::{Digest, Reference};
use parser::git::is_commit;
use parser::source::redacted;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;

/// Files of more bytes are no lock files.
pub const MAX_SIZE: usize = 1 << 20;

const VERSION: u32 = 1;

const HEADER: &str = "\
# Written by `rbuild lock`, which adds what is missing; `rbuild lock --update` looks everything up again.
# Builds take exactly these versions of what the Dockerfile names.
";

/// Which kind of reference an entry is for, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Image,
    Url,
    Repository,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Image, Kind::Url, Kind::Repository];

    /// The table of the file.
    fn table(self) -> &'static str {
        match self {
            Kind::Image => "images",
            Kind::Url => "urls",
            Kind::Repository => "repositories",
        }
    }
}

/// What an entry is for: a normalised image name with its tag, a URL, or a URL of a repository with `#` and the reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Something that a Dockerfile takes and that may stand for different things at different times.
#[derive(Clone, Debug, PartialEq)]
pub enum Lockable {
    Image(Reference),
    /// With what it holds of credentials.
    Url(String),
    Repository(op::Git),
}

impl Lockable {
    pub fn key(&self) -> Key {
        match self {
            Lockable::Image(reference) => Key { kind: Kind::Image, name: reference.to_string() },
            Lockable::Url(url) => Key { kind: Kind::Url, name: without_user(url) },
            Lockable::Repository(git) => {
                let remote = without_user(&git.remote);
                let name = if git.reference.is_empty() { remote } else { format!("{remote}#{}", git.reference) };
                Key { kind: Kind::Repository, name }
            }
        }
    }

    /// An image, unless its reference has a digest.
    pub(crate) fn image(reference: &Reference) -> Option<Lockable> {
        reference.digest().is_none().then(|| Lockable::Image(reference.clone()))
    }

    pub(crate) fn url(url: &str, checksum: Option<&str>) -> Option<Lockable> {
        checksum.is_none().then(|| Lockable::Url(url.to_owned()))
    }

    pub(crate) fn repository(git: &op::Git) -> Option<Lockable> {
        (git.checksum.is_none() && !is_commit(&git.reference)).then(|| Lockable::Repository(git.clone()))
    }
}

/// The entries of a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<Key, String>);

/// Why a text is no lock file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct InvalidLock {
    /// From 1.
    pub line: usize,
    pub problem: String,
}

/// The file as it is written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    #[serde(default)]
    images: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    urls: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    repositories: BTreeMap<String, Spanned<String>>,
}

impl Lock {
    pub fn parse(text: &str) -> Result<Lock, InvalidLock> {
        let invalid = |offset: usize, problem: String| InvalidLock {
            line: text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1,
            problem,
        };
        let document: Document = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            invalid(offset, error.message().to_owned())
        })?;
        if *document.version.get_ref() != VERSION {
            let problem = format!("version {} is not known, there is {VERSION}", document.version.get_ref());
            return Err(invalid(document.version.span().start, problem));
        }
        let mut lock = Lock::default();
        let tables = [document.images, document.urls, document.repositories];
        for (kind, table) in Kind::ALL.into_iter().zip(tables) {
            for (name, value) in table {
                let offset = value.span().start;
                let (name, value) =
                    entry(kind, name, value.into_inner()).map_err(|problem| invalid(offset, problem))?;
                lock.0.insert(Key { kind, name }, value);
            }
        }
        Ok(lock)
    }

    /// What a reference is held to.
    pub fn get(&self, key: &Key) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// `value`: a digest, or for a repository a commit.
    pub fn insert(&mut self, key: Key, value: String) {
        self.0.insert(key, value);
    }

    pub fn remove(&mut self, key: &Key) {
        self.0.remove(key);
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.0.iter().map(|(key, value)| (key, value.as_str()))
    }

    /// The reference with the digest that it is held to.
    pub(crate) fn held_image(&self, reference: &Reference) -> Option<Reference> {
        let digest = self.get(&Lockable::image(reference)?.key())?.parse().ok()?;
        Some(reference.with_digest(digest))
    }

    /// The checksum that a URL without one is held to.
    pub(crate) fn held_url(&self, url: &str) -> Option<String> {
        self.get(&Lockable::url(url, None)?.key()).map(str::to_owned)
    }

    /// The commit that a branch or a tag is held to.
    pub(crate) fn held_repository(&self, git: &op::Git) -> Option<String> {
        self.get(&Lockable::repository(git)?.key()).map(str::to_owned)
    }
}

/// An entry of the file, checked and with its name normalised.
fn entry(kind: Kind, name: String, value: String) -> Result<(String, String), String> {
    match kind {
        Kind::Image => {
            let reference: Reference = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
            if reference.digest().is_some() {
                return Err(format!("{name:?} has a digest of its own"));
            }
            let digest = digest(&value)?;
            Ok((reference.to_string(), digest))
        }
        Kind::Url => digest(&value).map(|digest| (name, digest)),
        Kind::Repository if is_commit(&value) => Ok((name, value)),
        Kind::Repository => Err(format!("{value:?} is no commit: expected 40 or 64 hexadecimal digits")),
    }
}

fn digest(text: &str) -> Result<String, String> {
    let digest: Digest = text.parse().map_err(|_| format!("{text:?} is no digest: expected sha256:<64 hex digits>"))?;
    Ok(digest.to_string())
}

/// As it stands in the file.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}version = {VERSION}")?;
        for kind in Kind::ALL {
            let mut entries = self.entries().filter(|(key, _)| key.kind == kind).peekable();
            if entries.peek().is_some() {
                writeln!(f, "\n[{}]", kind.table())?;
            }
            for (key, value) in entries {
                writeln!(f, "{} = {}", quoted(&key.name), quoted(value))?;
            }
        }
        Ok(())
    }
}

/// A basic string of TOML: those of JSON, but for one character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A URL without the user and the password in it.
fn without_user(url: &str) -> String {
    redacted(url).replacen("://xxxxx@", "://", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parser::git::GitReference;

    fn git(remote: &str, reference: &str) -> Lockable {
        let text = format!("https://h/{remote}.git#{reference}");
        Lockable::Repository(crate::lower::git_op(&GitReference::parse(&text).unwrap(), None))
    }

    #[test]
    fn files_are_sorted_and_read_as_they_were_written() {
        let mut lock = Lock::default();
        let digest = format!("sha256:{}", "a".repeat(64));
        let images = ["busybox", "r.example:5000/b/c:v1", "alpine:3.20"];
        let all = images.iter().map(|name| Lockable::Image(name.parse().unwrap()));
        for lockable in all.chain([Lockable::Url("http://u:p@h/x\n\"\u{7f}\\.tar".into())]) {
            lock.insert(lockable.key(), digest.clone());
        }
        lock.insert(git("r", "main").key(), "b".repeat(40));
        lock.insert(git("r", "").key(), "c".repeat(40));
        let text = lock.to_string();
        let body = text.split_once("version = 1\n").unwrap().1.replace(&"a".repeat(64), "A");
        let expected = "\n[images]\n\"docker.io/library/alpine:3.20\" = \"sha256:A\"\n\"docker.io/library/busybox:latest\" = \"sha256:A\"\n\
                        \"r.example:5000/b/c:v1\" = \"sha256:A\"\n\n[urls]\n\"http://h/x\\n\\\"\\u007f\\\\.tar\" = \"sha256:A\"\n\n[repositories]\n";
        assert!(body.starts_with(expected), "{body}");
        assert_eq!(Lock::parse(&text), Ok(lock));
        assert_eq!(Lock::parse(&Lock::default().to_string()), Ok(Lock::default()));
    }

    #[test]
    fn names_are_normalised() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let lock = Lock::parse(&format!("version = 1\n[images]\nalpine = \"{digest}\"\n")).unwrap();
        let held = lock.held_image(&"docker.io/library/alpine:latest".parse().unwrap()).unwrap();
        assert_eq!(held.to_string(), format!("docker.io/library/alpine:latest@{digest}"));
        assert_eq!(lock.held_image(&held), None, "it says itself which one it means");
        assert_eq!(lock.held_image(&"alpine:3".parse().unwrap()), None);
    }

    #[test]
    fn what_is_wrong_is_told_by_line() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, line, problem) in [
            ("", 1, "missing field `version`"),
            ("version = 2\n", 1, "version 2 is not known"),
            ("version = 1\n\n[imagse]\n", 3, "unknown field `imagse`"),
            ("version = 1\n[images]\n\"alpine\" = 7\n", 3, "invalid type: integer"),
            ("version = 1\n[images]\n\"alpine\" = \"sha256:12\"\n", 3, "is no digest"),
            (&format!("version = 1\n[images]\n\"A B\" = \"{digest}\"\n"), 3, "invalid reference format"),
            (&format!("version = 1\n[images]\n\"a@{digest}\" = \"{digest}\"\n"), 3, "has a digest of its own"),
            ("version = 1\n[repositories]\nx = \"main\"\n", 3, "is no commit"),
            ("version = 1\n<<<<<<< HEAD\n", 2, ""),
            ("version = 1\n[urls]\na = 'x'\na = 'y'\n", 4, "duplicate key"),
        ] {
            let error = Lock::parse(text).unwrap_err();
            assert!(error.line == line && error.problem.contains(problem), "{text}: {error}");
        }
        let deep = format!("version = 1\nimages = {}", "[".repeat(100_000));
        assert!(Lock::parse(&deep).is_err());
    }
}
