//! Remote caches in a build: what they know is found by the [index](crate::index) after the store, and what the build found or made is written to them.
//!
//! - [`import`] reads the documents while the build begins. The first step that the store does not know waits for them, and no other.
//! - [`layer`] is a layer that only such a cache has. Its content id is all that the keys of later steps need, so a build can be hits from end to end with
//!   nothing fetched. Its blob is fetched when a step or an output needs the files.
//! - If that fails, or the cache knows no more than the content id, the build drops these records and is solved again without them: [`RemoteCaches::discard`].
//! - [`mounts`] are the directories of `RUN --mount=type=cache`.
//! - [`ledger`] remembers what a build found and made, and [`mod@export`] writes it.

mod export;
mod import;
mod layer;
mod ledger;
mod mounts;

pub use export::{ExportOptions, export, inline, make_ready};
pub use import::{ImportSource, Source};
pub use layer::{CachedLayer, Unavailable};
pub(crate) use layer::{fetch, layer_blob, unpack};

use crate::snapshot::Snapshots;
use crate::value::{Stack, Value};
use cache::remote::{Id, StepResult};
use import::Imports;
use ledger::Ledger;
use solver::event::EventSink;
use std::error::Error as StdError;
use std::sync::Arc;

/// The remote caches of a build; none, by default.
#[derive(Default)]
pub struct RemoteCaches {
    imports: Option<Imports>,
    ledger: Option<Ledger>,
    /// Of the files that are made here.
    single_owner: bool,
}

impl RemoteCaches {
    /// Begins to read the documents of `sources`. With `collects`, what the build finds and makes is remembered for [`export`].
    pub fn new(sources: Vec<ImportSource>, collects: bool, snapshots: &Snapshots, events: &EventSink) -> Self {
        RemoteCaches {
            imports: (!sources.is_empty()).then(|| Imports::start(sources, events)),
            ledger: collects.then(Ledger::default),
            single_owner: snapshots.has_single_owner(),
        }
    }

    /// Waits until the documents are there.
    pub(crate) async fn ready(&self) {
        if let Some(imports) = &self.imports {
            imports.ready().await;
        }
    }

    /// What the documents that are there know of a step.
    pub(crate) fn result(&self, key: &Id) -> Option<(Arc<Source>, StepResult)> {
        // Files that all have one owner are wrong where others can be had.
        self.imports.as_ref()?.result(key, |result| self.single_owner || !result.single_owner)
    }

    /// The digest of selected files, if a document knows it.
    pub(crate) async fn selection(&self, selection: &Id) -> Option<Id> {
        let imports = self.imports.as_ref()?;
        imports.ready().await;
        imports.selection(selection)
    }

    pub(crate) fn note_inputs(&self, key: &Id, inputs: &[Value]) {
        if let Some(ledger) = &self.ledger {
            ledger.inputs(key, inputs);
        }
    }

    pub(crate) fn note_result(&self, key: &Id, stack: &Arc<Stack>) {
        if let Some(ledger) = &self.ledger {
            ledger.result(key, stack);
        }
    }

    pub(crate) fn note_selection(&self, selection: &Id, digest: &Id) {
        if let Some(ledger) = &self.ledger {
            ledger.selection(selection, digest);
        }
    }

    /// Whether the build failed because of layers that a cache promised and cannot give: they are promised no more, and the build is worth trying again.
    pub fn discard(&self, error: &(dyn StdError + 'static), events: &EventSink) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(unavailable) = layer::unavailable(error) {
                let is_news = self.imports.as_ref().is_some_and(|imports| imports.discard(unavailable, events));
                if let Some(ledger) = self.ledger.as_ref().filter(|_| is_news) {
                    ledger.clear();
                }
                return is_news;
            }
            next = error.source();
        }
        false
    }
}
