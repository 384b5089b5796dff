//! What can go wrong between this client and a registry. No message holds a credential or the query of a URL (R6.2.18).

use crate::Digest;

pub(super) use crate::fetch::{Chain, shown};
use crate::registries::Blocked;
use http::StatusCode;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

type Cause = Box<dyn StdError + Send + Sync>;

/// Pull and push differ in what a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pull,
    Push,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a mirror nor the registry has it. `notes` says what else happened on the way.
    #[error("{what}: not found{}", Notes(.notes))]
    NotFound { what: String, notes: Vec<String> },

    #[error("{what}: {action} access denied, repository does not exist or may require authorization{}", Detail(.detail))]
    Denied { what: String, action: Action, detail: String },

    #[error(transparent)]
    Blocked(#[from] Blocked),

    #[error(
        "{what}: cannot connect to {url}: {}; check that the registry {host} exists and can be reached from here{}",
        Chain(&**cause), Notes(notes)
    )]
    Connect { what: String, url: String, host: String, cause: Cause, notes: Vec<String> },

    /// The connection broke or fell silent, and trying again did not help.
    #[error("{what}: connection to {url} failed: {}", Chain(&**.cause))]
    Interrupted { what: String, url: String, cause: Cause },

    #[error("{what}: {url} answered {status}{}", Detail(.detail))]
    Status {
        what: String,
        url: String,
        status: StatusCode,
        /// The registry's error code, such as `MANIFEST_BLOB_UNKNOWN`, and its message.
        detail: String,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },

    #[error("{what}: {url} gave an answer that is no registry's: {why}")]
    Protocol { what: String, url: String, why: String },

    #[error("{what}: {url} sent content with digest {actual} where {expected} was asked for")]
    WrongDigest { what: String, url: String, expected: Digest, actual: Digest },

    #[error("{what}: {url} sent {actual} bytes where {expected} were announced")]
    WrongSize { what: String, url: String, expected: u64, actual: u64 },

    #[error("{what}: {size} bytes are more than the {limit} that are accepted for such a document")]
    TooLarge { what: String, size: u64, limit: u64 },

    #[error(
        "{what}: the image has a manifest of Docker's schema 1, which is no longer supported; \
         push it again with a current tool"
    )]
    Schema1 { what: String },

    #[error("{what}: unsupported digest {digest}: only sha256 is supported")]
    UnsupportedDigest { what: String, digest: String },

    /// A token server refused, or cannot be asked.
    #[error("{what}: cannot get a token from {realm}: {why}")]
    Token { what: String, realm: String, why: String },

    /// A credential helper or a credentials file failed.
    #[error("cannot read credentials for {host}: {why}")]
    Credentials { host: String, why: String },

    /// The local side of a transfer failed: the sink of a download, the source of an upload.
    #[error("{what}: {source}")]
    Local { what: String, source: io::Error },
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }

    /// No registry could be asked at all: an image that is in the local store may do instead (R6.3.15).
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Connect { .. } | Error::Interrupted { .. })
    }

    /// A manifest was refused because a blob that it names is missing (R6.4.11).
    pub fn is_blob_unknown(&self) -> bool {
        matches!(self, Error::Status { detail, .. } if detail.contains("BLOB_UNKNOWN"))
    }

    /// Whether asking the same again may succeed: broken connections, 5xx.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Error::Interrupted { .. } => true,
            Error::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }

    /// Adds what happened at other endpoints.
    pub(super) fn with_notes(mut self, more: Vec<String>) -> Self {
        match &mut self {
            Error::Connect { notes, .. } => notes.extend(more),
            Error::Status { detail, .. } | Error::Denied { detail, .. } if !more.is_empty() => {
                let separator = if detail.is_empty() { "" } else { "; " };
                detail.push_str(&format!("{separator}{}", more.join("; ")));
            }
            _ => {}
        }
        self
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Pull => "pull",
            Action::Push => "push",
        })
    }
}

/// ` (first; second)`, or nothing.
struct Notes<'a>(&'a [String]);

impl fmt::Display for Notes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0.join("; ")) }
    }
}

/// `: detail`, or nothing.
struct Detail<'a>(&'a str);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6.5.6.
    #[test]
    fn messages_are_the_fields_known_ones() {
        let not_found = |notes| Error::NotFound { what: "docker.io/library/x:1".into(), notes };
        assert_eq!(not_found(vec![]).to_string(), "docker.io/library/x:1: not found");
        assert_eq!(not_found(vec!["a".into(), "b".into()]).to_string(), "docker.io/library/x:1: not found (a; b)");
        let denied = Error::Denied { what: "r.example/x:1".into(), action: Action::Pull, detail: String::new() };
        assert_eq!(
            denied.to_string(),
            "r.example/x:1: pull access denied, repository does not exist or may require authorization"
        );
        let cause = Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let refused = Error::Connect {
            what: "r.example/x:1".into(),
            url: "https://r.example/v2/".into(),
            host: "r.example".into(),
            cause,
            notes: vec![],
        };
        let text = refused.to_string();
        assert!(text.contains("cannot connect to https://r.example/v2/: connection refused; check"), "{text}");
    }
}
