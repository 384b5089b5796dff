//! What a build took from elsewhere, and which version of it: for whoever asks what an image was made of.

use parser::source::redacted;
use solver::op::{Git, Source};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// One version of a source (R12.12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Without credentials.
    pub uri: String,
    /// Of the digest: `sha256`, or `sha1` for most commits.
    pub algorithm: &'static str,
    /// In hexadecimal digits.
    pub digest: String,
}

/// Those of one build, each once. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Materials(Arc<Mutex<BTreeSet<Material>>>);

impl Materials {
    pub fn note(&self, material: Material) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(material);
    }

    pub fn list(&self) -> Vec<Material> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// How a URL or a repository is named, without credentials; `None` for other sources.
pub fn uri(source: &Source) -> Option<String> {
    match source {
        Source::Http { url, .. } => Some(redacted(url)),
        Source::Git(git) => Some(git_uri(git)),
        _ => None,
    }
}

pub(super) fn git_uri(git: &Git) -> String {
    let remote = redacted(&git.remote);
    if git.reference.is_empty() { remote } else { format!("{remote}#{}", git.reference) }
}
