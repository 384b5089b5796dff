//! A build as it is kept: which build it was, how it ended, and its trace.

use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What makes two builds builds of the same thing, so that the later one can be compared with the earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The canonical path of the context's directory or archive, `-`, or its URL without credentials.
    pub context: String,
    /// As the user named it, made absolute if it is a path.
    pub dockerfile: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// As asked for; none for this machine's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// By the user.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    pub identity: Identity,
    pub outcome: Outcome,
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub completed: OffsetDateTime,
    pub trace: Trace,
}

impl Identity {
    /// The same for builds of the same Dockerfile over the same context, 16 hexadecimal digits.
    pub fn of_dockerfile(&self) -> String {
        digits(&[&self.context, &self.dockerfile])
    }

    /// The same for equal identities, 16 hexadecimal digits.
    pub fn of_build(&self) -> String {
        let mut parts = vec![self.context.as_str(), &self.dockerfile, self.target.as_deref().unwrap_or_default()];
        parts.extend(self.platforms.iter().map(String::as_str));
        digits(&parts)
    }
}

fn digits(parts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hex::encode(&hasher.finalize().as_bytes()[..8])
}
