//! Image references: `[host[:port]/]path[:tag][@digest]`, normalised as Docker does (spec R5.12).
//!
//! A name's first component is a host only if it looks like one: it contains a `.` or a `:`, is `localhost`, or has an
//! upper-case letter, which a path may not have. Anything else lives on `docker.io`, where single names are below
//! `library/`. A reference that has neither tag nor digest means `latest`; one that has a digest gets no default tag,
//! and where both are given the digest is what counts.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const DOCKER_HUB: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A normalised image name (spec R5.12). Has a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidReference {
    #[error("invalid reference format: the name is empty")]
    Empty,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    #[error("invalid reference format: repository name ({0}) must not be more than 255 characters")]
    TooLong(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("invalid reference format: {registry:?} is not a registry host, in {text:?}")]
    Host { registry: String, text: String },
    #[error("invalid reference format: {path:?} is not a repository name, in {text:?}")]
    Path { path: String, text: String },
    #[error("invalid tag format: {tag:?}, in {text:?}")]
    Tag { tag: String, text: String },
    #[error("invalid digest format: {digest:?} is not sha256: and 64 hexadecimal digits, in {text:?}")]
    Digest { digest: String, text: String },
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if is_id(text) {
            return Err(InvalidReference::LooksLikeId(text.to_owned()));
        }
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let parsed = digest
                    .parse()
                    .map_err(|_| InvalidReference::Digest { digest: digest.to_owned(), text: text.to_owned() })?;
                (name, Some(parsed))
            }
        };
        let (registry, rest) = split_registry(name);
        // A host's port has been split off, so that a colon can only begin the tag.
        let (path, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        if path.is_empty() {
            return Err(InvalidReference::Empty);
        }
        let registry = match registry {
            None | Some("index.docker.io") => DOCKER_HUB,
            Some(host) if is_host(host) => host,
            Some(host) => return Err(InvalidReference::Host { registry: host.to_owned(), text: text.to_owned() }),
        };
        let repository = match registry {
            DOCKER_HUB if !path.contains('/') => format!("library/{path}"),
            _ => path.to_owned(),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase(repository));
        }
        if !path.split('/').all(is_path_component) {
            return Err(InvalidReference::Path { path: path.to_owned(), text: text.to_owned() });
        }
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(InvalidReference::TooLong(repository));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Tag { tag: tag.to_owned(), text: text.to_owned() });
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host and port as they are written in names: `docker.io`, not the host that serves it.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository, without tag and digest: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same name pinned to `digest`. A tag stays, so that messages still show it.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// The same repository's content with this digest, under no tag: a child of an index, say.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Reference { tag: None, ..self.with_digest(digest) }
    }

    /// The same name with `tag` and without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        if !is_tag(tag) {
            return Err(InvalidReference::Tag { tag: tag.to_owned(), text: format!("{}:{tag}", self.name()) });
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The short form that people type: without `docker.io`, `library/` and `:latest`.
    pub fn familiar(&self) -> String {
        let mut text = match self.registry.as_str() {
            DOCKER_HUB => match self.repository.strip_prefix("library/") {
                // What looks like a host would be read as one.
                Some(name) if !name.contains('/') => name.to_owned(),
                _ if looks_like_host(self.repository.split('/').next().unwrap_or_default()) => self.name(),
                _ => self.repository.clone(),
            },
            _ => self.name(),
        };
        if let Some(tag) = &self.tag
            && (self.digest.is_some() || tag != DEFAULT_TAG)
        {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = self.digest {
            text.push_str(&format!("@{digest}"));
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (Some(first), rest),
        _ => (None, name),
    }
}

fn looks_like_host(component: &str) -> bool {
    component == "localhost" || component.bytes().any(|b| matches!(b, b'.' | b':') || b.is_ascii_uppercase())
}

/// A domain name, an IPv4 address or a bracketed IPv6 address, and perhaps a port.
fn is_host(host: &str) -> bool {
    let (address, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (Some(address), None),
            Some((address, port)) => (Some(address), Some(port.strip_prefix(':').unwrap_or("?"))),
            None => return false,
        },
        None => (None, host.split_once(':').map(|(_, port)| port)),
    };
    let host_is_valid = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split(':').next().unwrap_or_default().split('.').all(is_domain_component),
    };
    host_is_valid && port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

fn is_domain_component(component: &str) -> bool {
    !component.is_empty()
        && !component.starts_with('-')
        && !component.ends_with('-')
        && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(first)
        && alphanumeric(last)
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// R5.12.1 to R5.12.4: text, normalised form, familiar form.
    #[test]
    fn normalises_as_docker_does() {
        let at = |name: &str| format!("{name}@{DIGEST}");
        let table: &[(&str, &str, &str)] = &[
            ("busybox", "docker.io/library/busybox:latest", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox"),
            ("user/name:tag", "docker.io/user/name:tag", "user/name:tag"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b"),
            ("localhost/x", "localhost/x:latest", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("quay.io/org/x", "quay.io/org/x:latest", "quay.io/org/x"),
            ("HOST/x", "HOST/x:latest", "HOST/x"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x"),
            ("[2001:db8::1]/x:t", "[2001:db8::1]/x:t", "[2001:db8::1]/x:t"),
            ("127.0.0.1:80/a/b/c", "127.0.0.1:80/a/b/c:latest", "127.0.0.1:80/a/b/c"),
            ("org/a.b_c__d---e", "docker.io/org/a.b_c__d---e:latest", "org/a.b_c__d---e"),
            (&at("busybox"), &at("docker.io/library/busybox"), &at("busybox")),
            (&at("busybox:1"), &at("docker.io/library/busybox:1"), &at("busybox:1")),
            (&at("busybox:latest"), &at("docker.io/library/busybox:latest"), &at("busybox:latest")),
        ];
        for (text, full, familiar) in table {
            let reference = parse(text);
            assert_eq!(reference.to_string(), *full);
            assert_eq!(reference.familiar(), *familiar, "{text}");
            assert_eq!(parse(full), reference, "normalising is idempotent");
            assert_eq!(parse(familiar), reference, "the familiar form means the same");
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        let long_name = "a/".repeat(128) + "b";
        let long_tag = format!("x:{}", "t".repeat(129));
        let id = "a".repeat(64);
        let table: &[(&str, &str)] = &[
            ("", "the name is empty"),
            (":tag", "the name is empty"),
            ("localhost:5000/", "the name is empty"),
            ("BusyBox", "repository name (library/BusyBox) must be lowercase"),
            ("quay.io/Org/x", "repository name (Org/x) must be lowercase"),
            (&id, "cannot specify 64-byte hexadecimal strings"),
            (&long_name, "must not be more than 255 characters"),
            ("x:", "invalid tag format"),
            ("x:-a", "invalid tag format"),
            ("x:a:b", "invalid tag format"),
            (&long_tag, "invalid tag format"),
            ("x@sha256:12", "invalid digest format"),
            ("x@sha512:12", "invalid digest format"),
            ("x@", "invalid digest format"),
            ("a//b", "is not a repository name"),
            ("-a", "is not a repository name"),
            ("a_", "is not a repository name"),
            ("a___b", "is not a repository name"),
            ("a..b", "is not a repository name"),
            ("../x", "is not a registry host"),
            ("x/../y", "is not a repository name"),
            ("a b", "is not a repository name"),
            ("x\n", "is not a repository name"),
            ("käse", "is not a repository name"),
            ("http://host/x", "is not a registry host"),
            ("a.b_c/x", "is not a registry host"),
            ("[::1/x", "is not a registry host"),
            ("[::1]x/x", "is not a registry host"),
            ("h.io:99999/x", "is not a registry host"),
            ("h.io:+80/x", "is not a registry host"),
            ("-h.io/x", "is not a registry host"),
        ];
        for (text, message) in table {
            let error = Reference::parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn pins_and_retags() {
        let digest: Digest = DIGEST.parse().unwrap();
        let pinned = parse("busybox:1").with_digest(digest);
        assert_eq!(pinned.to_string(), format!("docker.io/library/busybox:1@{DIGEST}"));
        assert_eq!(pinned.with_tag("2").unwrap().to_string(), "docker.io/library/busybox:2");
        assert!(pinned.with_tag("a/b").is_err());
        assert_eq!(parse("busybox:1").at_digest(digest).to_string(), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!(serde_json::to_value(&pinned).unwrap(), serde_json::json!(pinned.to_string()));
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "[a-zA-Z0-9:/@._\\[\\]-]{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
