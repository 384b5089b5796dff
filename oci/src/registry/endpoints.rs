//! Asking several endpoints in turn, and what to say when none has it.
//!
//! A mirror's "not found" is no answer yet, since the registry behind it may know more. If that one cannot be reached,
//! "not found" is what the caller needs to hear: within seconds, and with the other failure as a note.

use super::error::Error;
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

    /// Called before `endpoint` is asked: an error if that would only take time.
    pub(super) async fn worthwhile(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        if !self.failures.iter().any(|(_, error)| error.is_not_found()) {
            return Ok(());
        }
        match self.shared.reaches(endpoint).await {
            Ok(()) => Ok(()),
            Err(why) => {
                let mut notes = self.notes();
                notes.push(why);
                Err(Error::NotFound { what: self.what.to_owned(), notes })
            }
        }
    }

    pub(super) fn failed(&mut self, endpoint: &'a Endpoint, error: Error) {
        tracing::debug!(host = endpoint.host, %error, "endpoint failed");
        self.failures.push((endpoint, error));
    }

    /// The error for the whole. There is always an endpoint, hence a last failure.
    pub(super) fn into_error(mut self) -> Error {
        let Some((endpoint, last)) = self.failures.pop() else {
            return Error::NotFound { what: self.what.to_owned(), notes: Vec::new() };
        };
        let missing_elsewhere = self.failures.iter().any(|(_, error)| error.is_not_found());
        if last.is_unreachable() && missing_elsewhere {
            let mut notes = self.notes();
            notes.push(format!("{}: {last}", endpoint.host));
            return Error::NotFound { what: self.what.to_owned(), notes };
        }
        // Where all say the same, nothing needs to be added.
        let notes = if last.is_not_found() {
            self.failures.retain(|(_, error)| !error.is_not_found());
            self.notes()
        } else {
            self.notes()
        };
        last.with_notes(notes)
    }

    fn notes(&self) -> Vec<String> {
        let note = |(endpoint, error): &(&Endpoint, Error)| match error {
            Error::NotFound { .. } => format!("mirror {} does not have it", endpoint.host),
            error => format!("mirror {}: {error}", endpoint.host),
        };
        self.failures.iter().map(note).collect()
    }
}
