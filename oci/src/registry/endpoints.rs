//! Asking several endpoints in turn, and what to say when none has it.
//!
//! A mirror's "not found" is no answer yet, since the registry behind it may know more. If that one cannot be reached,
//! "not found" is what the caller needs to hear: within seconds, and with the other failure as a note.

use super::error::{Chain, Error};
use super::request::Shared;
use crate::registries::Endpoint;

/// The failures so far, of the endpoints of one reference.
pub(super) struct Attempts<'a> {
    shared: &'a Shared,
    what: &'a str,
    failures: Vec<(&'a Endpoint, Error)>,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(shared: &'a Shared, what: &'a str) -> Self {
        Attempts { shared, what, failures: Vec::new() }
    }

    /// Asked before each endpoint: false if asking it would only take time, which counts as its failure.
    pub(super) async fn worthwhile(&mut self, endpoint: &'a Endpoint) -> bool {
        if !self.failures.iter().any(|(_, error)| error.is_not_found()) {
            return true;
        }
        match self.shared.reaches(endpoint, self.what).await {
            Ok(()) => true,
            Err(error) => {
                self.failed(endpoint, error);
                false
            }
        }
    }

    pub(super) fn failed(&mut self, endpoint: &'a Endpoint, error: Error) {
        tracing::debug!(host = endpoint.host, %error, "endpoint failed");
        self.failures.push((endpoint, error));
    }

    /// The error for the whole: that of the last endpoint, which is the registry itself, with the others' as notes.
    pub(super) fn into_error(mut self) -> Error {
        let not_found = |notes| Error::NotFound { what: self.what.to_owned(), notes };
        let missing_somewhere = self.failures.iter().any(|(_, error)| error.is_not_found());
        match self.failures.last() {
            None => return not_found(Vec::new()),
            Some((_, last)) if last.is_unreachable() && missing_somewhere => {
                return not_found(self.failures.iter().map(note).collect());
            }
            Some((_, last)) if last.is_not_found() => {
                // Where all say the same, nothing needs to be added.
                let notes = self.failures.iter().filter(|(_, error)| !error.is_not_found()).map(note).collect();
                return not_found(notes);
            }
            Some(_) => {}
        }
        match self.failures.pop() {
            None => Error::NotFound { what: self.what.to_owned(), notes: Vec::new() },
            Some((_, last)) => last.with_notes(self.failures.iter().map(note).collect()),
        }
    }
}

fn note((endpoint, error): &(&Endpoint, Error)) -> String {
    let kind = if endpoint.is_mirror() { "mirror " } else { "" };
    match error {
        Error::NotFound { .. } => format!("{kind}{} does not have it", endpoint.host),
        Error::Connect { url, cause, .. } => {
            format!("{kind}{}: cannot connect to {url}: {}", endpoint.host, Chain(&**cause))
        }
        error => format!("{kind}{}: {error}", endpoint.host),
    }
}
