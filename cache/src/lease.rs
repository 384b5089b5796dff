//! What a process relies on, so that no collection takes it away (R7.7.5, R11 row 7).
//!
//! Two locks under `locks/`: whoever decides what goes, and moves it away, holds the `gate` alone; whoever looks for something of the store
//! holds it together with others. The `turn` stands before it, so that a stream of builds cannot keep a collection waiting for ever.
//!
//! A process says what it relies on *before* it looks whether that is there:
//!
//! - One that ends soon, as a build does that finds everything cached, just keeps the gate: a collection waits for it. That costs two locks and
//!   writes nothing.
//! - After [`SOON`] it writes what it relies on to a lease, `tmp/NAME.lease`, locks that file, and leaves the gate. Whatever it relies on from then
//!   on is added under the gate, an id a line.
//!
//! What a process makes it relies on as well, before it is renamed to its place. So a lease tells what a process that was killed may have left half
//! done, too: directories of layers that have no record, because it ended between renaming and recording, or, while it collected, between forgetting
//! and renaming. The next start finds the lease unlocked and clears them ([`Store::clear_dead_lease`]).

use crate::error::Result;
use crate::layer::LayerId;
use crate::lock::{FileLock, try_lock_existing};
use crate::store::{Store, random_name};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a collection may have to wait for a process that has written no lease.
const SOON: Duration = Duration::from_millis(20);

/// Of this process.
#[derive(Default)]
pub(crate) struct Lease {
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub ids: HashSet<String>,
    /// Identifies the set: the sum of the ids' hashes, whatever their order.
    pub sum: [u8; 32],
    /// Kinds and descriptions of what was made.
    pub described: HashMap<String, (&'static str, String)>,
    /// Bytes of what was made.
    pub made: u64,
    gate: Option<FileLock>,
    file: Option<FileLock>,
}

impl Lease {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state().end();
    }
}

impl State {
    /// Relies on nothing any more.
    pub fn end(&mut self) {
        if let Some(file) = self.file.take() {
            // Removed while it is still locked: nobody takes it for that of a dead process.
            let _ = fs::remove_file(file.path());
        }
        *self = State::default();
    }

    fn add(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        for (sum, byte) in self.sum.iter_mut().zip(blake3::hash(id.as_bytes()).as_bytes()) {
            *sum ^= byte;
        }
        true
    }

    /// Writes what is relied on, and leaves the gate. Where it cannot be written, as on a full disk, the gate is kept instead.
    fn settle(&mut self, path: impl FnOnce() -> PathBuf) {
        if self.gate.is_none() {
            return;
        }
        if self.file.is_none() {
            let ids: String = self.ids.iter().map(|id| format!("{id}\n")).collect();
            let Ok(file) = FileLock::acquire(&path()) else { return };
            let written = file.as_ref().write_all(ids.as_bytes());
            if written.is_err() {
                let _ = fs::remove_file(file.path());
                return;
            }
            self.file = Some(file);
        }
        self.gate = None;
    }
}

/// Held while it is decided what goes, and while that is moved away.
pub(crate) struct Exclusive {
    _turn: FileLock,
    _gate: FileLock,
}

impl Store {
    /// From now on no collection takes `id` away: the id of a layer, the digest of a blob, or what else usage is kept of. Whether it is there is
    /// looked at afterwards.
    pub(crate) fn rely_on(&self, id: &str) {
        let mut state = self.lease().state();
        if !state.add(id) || state.gate.is_some() {
            return;
        }
        // A store whose locks cannot be opened can hardly be collected either.
        let Ok(gate) = self.gate() else { return };
        state.gate = Some(gate);
        match &state.file {
            None => {
                let store = self.downgrade();
                let later = move || {
                    std::thread::sleep(SOON);
                    if let Some(store) = store.upgrade() {
                        store.settle();
                    }
                };
                if std::thread::Builder::new().name("lease".into()).spawn(later).is_err() {
                    state.settle(|| self.lease_path());
                }
            }
            Some(file) => {
                if writeln!(file.as_ref(), "{id}").is_ok() {
                    state.gate = None;
                }
            }
        }
    }

    /// The same of what this process makes.
    pub(crate) fn makes(&self, id: &str, bytes: u64) {
        self.rely_on(id);
        self.lease().state().made += bytes;
    }

    /// The same of a layer, which is half done until it has a record: that must be written down, however young the process is.
    pub(crate) fn makes_layer(&self, id: &LayerId, bytes: u64) {
        self.makes(&id.to_string(), bytes);
        self.settle();
    }

    fn settle(&self) {
        self.lease().state().settle(|| self.lease_path());
    }

    fn lease_path(&self) -> PathBuf {
        self.path("tmp").join(format!("{}.lease", random_name()))
    }

    fn gate(&self) -> Result<FileLock> {
        let _turn = FileLock::acquire_shared(&self.path("locks/turn"))?;
        FileLock::acquire_shared(&self.path("locks/gate"))
    }

    /// Waits until nobody is looking for anything. What this process itself relies on must be written down, or be nothing.
    pub(crate) fn exclusive(&self) -> Result<Exclusive> {
        self.settle();
        let turn = FileLock::acquire(&self.path("locks/turn"))?;
        let gate = FileLock::acquire(&self.path("locks/gate"))?;
        Ok(Exclusive { _turn: turn, _gate: gate })
    }

    /// What living processes rely on.
    pub(crate) fn leased(&self, exclusive: &Exclusive) -> HashSet<String> {
        self.leased_but_by(exclusive, None)
    }

    /// What living processes rely on, but for this one.
    pub(crate) fn leased_by_others(&self, exclusive: &Exclusive) -> HashSet<String> {
        let own = self.lease().state().file.as_ref().map(|file| file.path().to_owned());
        self.leased_but_by(exclusive, own.as_deref())
    }

    fn leased_but_by(&self, _: &Exclusive, own: Option<&Path>) -> HashSet<String> {
        let mut leased = HashSet::new();
        for path in self.leases().into_iter().filter(|path| Some(path.as_path()) != own) {
            if try_lock_existing(&path).is_none() {
                let text = fs::read_to_string(&path).unwrap_or_default();
                leased.extend(text.lines().map(str::to_owned));
            }
        }
        leased
    }

    fn leases(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("tmp")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "lease")).collect()
    }

    /// Writes down what is going to be removed, so that what stays of it is cleared should this process be killed. Without room for that,
    /// it is removed all the same.
    pub(crate) fn condemn<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Option<Condemned> {
        let file = FileLock::acquire(&self.lease_path()).ok()?;
        let text: String = ids.map(|id| format!("{id}\n")).collect();
        let _ = file.as_ref().write_all(text.as_bytes());
        Some(Condemned(file))
    }

    /// Clears what a process left that was killed: directories of layers without a record.
    pub(crate) fn clear_dead_lease(&self, path: &Path) {
        if try_lock_existing(path).is_none() {
            return;
        }
        // It may have been on the point of being locked: leases are made under the gate only. Its lock must not be held while the gate is waited for.
        let Ok(exclusive) = self.exclusive() else { return };
        let leased = self.leased(&exclusive);
        let Some(_lock) = try_lock_existing(path) else { return };
        let mut is_clear = true;
        // The last line may be half an id: it is that of no directory then.
        for id in fs::read_to_string(path).unwrap_or_default().lines().filter(|id| LayerId::is_one(id)) {
            let place = self.path("snapshots").join(id);
            match self.is_recorded(id) {
                Ok(true) => {}
                Ok(false) if !leased.contains(id) => drop(self.discard(&place)),
                // Somebody makes the same, or only looks for it: the next start knows more.
                _ => is_clear &= !place.exists(),
            }
        }
        if is_clear {
            let _ = fs::remove_file(path);
        }
    }
}

/// A lease of what goes: it keeps nobody from anything, as it is read by nobody until its process has died.
pub(crate) struct Condemned(FileLock);

impl Drop for Condemned {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerRecord;

    fn record() -> LayerRecord {
        LayerRecord {
            lowers: vec![],
            lowers_content: [0; 32],
            content_id: [0; 32],
            created: 0,
            userxattr: false,
            size: 0,
            diff_id: None,
        }
    }

    #[test]
    fn leases_hold_what_is_relied_on() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        store.rely_on("a");
        // Waits until the lease is written.
        let exclusive = other.exclusive().unwrap();
        assert!(other.leased(&exclusive).contains("a"));
        drop(exclusive);
        store.rely_on("b");
        let exclusive = other.exclusive().unwrap();
        assert_eq!(other.leased(&exclusive), ["a", "b"].map(str::to_owned).into());
        drop(exclusive);
        store.lease().state().end();
        let exclusive = other.exclusive().unwrap();
        assert!(other.leased(&exclusive).is_empty());
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_ends_soon_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.rely_on("a");
        assert!(store.lease().state().file.is_none());
        store.lease().state().end();
        store.exclusive().unwrap();
    }

    /// R11 row 3, R7.7.7: killed between renaming and recording, or between forgetting and renaming.
    #[test]
    fn layers_without_a_record_go_with_their_process() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let kept = store.begin_layer().unwrap().commit(None, &record()).unwrap();
        let place = |id: &str| directory.path().join("snapshots").join(id);
        fs::create_dir_all(place("layer-half")).unwrap();
        fs::create_dir_all(place("layer-other")).unwrap();
        let dead = directory.path().join("tmp/x.lease");
        fs::write(&dead, format!("{kept}\nlayer-half\nsha256:0\n../../etc\nlayer-oth")).unwrap();
        let again = Store::open(directory.path()).unwrap();
        assert!(!dead.exists() && !place("layer-half").exists());
        assert!(place("layer-other").exists());
        assert!(again.has_layer(&LayerId::from_stored(kept.to_string())).unwrap());
    }

    /// A process may be killed before it would have written a lease of what it only looks for.
    #[test]
    fn who_makes_a_layer_has_a_lease() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let id = LayerId::from_stored("layer-1".into());
        store.makes_layer(&id, 0);
        assert_eq!(store.leases().len(), 1);
    }

    #[test]
    fn what_a_living_process_makes_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.rely_on("layer-half");
        fs::create_dir_all(directory.path().join("snapshots/layer-half")).unwrap();
        let dead = directory.path().join("tmp/x.lease");
        fs::write(&dead, "layer-half\n").unwrap();
        Store::open(directory.path()).unwrap();
        assert!(directory.path().join("snapshots/layer-half").exists());
        // It only looked for it: what is left goes after it has ended.
        store.lease().state().end();
        Store::open(directory.path()).unwrap();
        assert!(!dead.exists() && !directory.path().join("snapshots/layer-half").exists());
    }
}
