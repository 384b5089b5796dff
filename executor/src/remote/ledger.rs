//! What a build found and made, for caches that are written at its end.

use crate::value::{Stack, Value};
use cache::remote::Id;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
    /// Directories of `RUN --mount=type=cache` that steps mounted, and their ids. They stay when the build begins again: what has run does not run again.
    mounts: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone, Default)]
pub(super) struct Entries {
    inputs: HashMap<Id, Vec<Id>>,
    results: BTreeMap<Id, Arc<Stack>>,
    pub selections: BTreeMap<Id, Id>,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn mount(&self, name: &str, id: &str) {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), id.to_owned());
    }

    pub fn mounts(&self) -> BTreeMap<String, String> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn inputs(&self, key: &Id, inputs: &[Value]) {
        let ids = inputs.iter().map(|input| input.content().0).collect();
        self.entries().inputs.insert(*key, ids);
    }

    pub fn result(&self, key: &Id, stack: &Arc<Stack>) {
        self.entries().results.insert(*key, stack.clone());
    }

    pub fn selection(&self, selection: &Id, digest: &Id) {
        self.entries().selections.insert(*selection, *digest);
    }

    pub fn clear(&self) {
        *self.entries() = Entries::default();
    }

    pub fn so_far(&self) -> Entries {
        self.entries().clone()
    }
}

impl Entries {
    /// Key, result, and the content ids of the inputs of each step, by key.
    pub fn steps(&self) -> impl Iterator<Item = (&Id, &Arc<Stack>, Vec<Id>)> {
        self.results.iter().map(|(key, stack)| {
            // A step that was not looked up, for want of permission, still stands on what is below its layer.
            let below = || vec![stack.below(stack.layers().len().saturating_sub(1)).content().0];
            (key, stack, self.inputs.get(key).cloned().unwrap_or_else(below))
        })
    }
}
