//! Takes things out of the cache: when the user says so, and by itself within a budget.
//!
//! A step of a collection has the store to itself for some milliseconds. It looks at what there is and at what others rely on, decides, forgets the
//! records (R7.7.7), and moves the data to `trash/`; deleting, which takes long, happens when others may go on. Killed at any moment, it leaves either
//! data that a lease of the dead names, or trash: both are cleared by those who come later.
//!
//! A full disk may have no room for forgetting. Then the data goes first: a record without data counts for nothing, and is forgotten later.

use crate::error::Result;
use crate::inventory::{CacheRecord, Roots, Seen};
use crate::lease::Exclusive;
use crate::lock::FileLock;
use crate::measure::measure;
use crate::mount;
use crate::policy::{Budget, Policy};
use crate::store::Store;
use crate::usage::{Kind, Used, now};
use oci::Digest;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

/// How many records go in a step.
const STEP: usize = 64;
/// Milliseconds between collections that nothing makes necessary.
const PERIOD: i64 = 3_600_000;
/// What a collection after a build may take of the user's time; on a disk that is short of space, each build has to do more.
const PATIENCE: Duration = Duration::from_millis(300);
const PATIENCE_WHEN_SHORT: Duration = Duration::from_secs(3);

/// What was moved away.
struct Removed {
    record: CacheRecord,
    trash: Vec<OsString>,
}

impl Store {
    /// Removes what the policy says; tells each record, its size being the bytes that became free. This process must rely on nothing.
    pub fn prune(&self, policy: &Policy, roots: Roots, mut told: impl FnMut(&CacheRecord)) -> Result<()> {
        self.forget_use();
        let _one = FileLock::acquire(&self.path("locks/collect"))?;
        // Also what others had no time for: the caps are about the disk.
        self.empty_trash_while(&|| true);
        let always = || true;
        loop {
            ignore_full(self.measure_layers(&always).and_then(|()| self.measure_directories(&always)))?;
            let removed = self.step(policy, roots, STEP)?;
            if removed.is_empty() {
                break;
            }
            for mut removed in removed {
                removed.record.size = self.delete_measured(&removed.trash, &always)?;
                told(&removed.record);
            }
        }
        ignore_full(self.forget_what_is_gone())?;
        self.clear_old_locks();
        self.keep_ballast();
        self.set_tally(roots, true)
    }

    /// After a build: keeps the cache within its budget, if it is time to look, or if what was made is too much. A build that made nothing costs
    /// nothing here.
    pub fn collect(&self, used: Used, budget: &Budget, roots: Roots) -> Result<()> {
        if used.is_fresh {
            return Ok(());
        }
        let made = i64::try_from(used.made).unwrap_or(i64::MAX);
        let (total, kept, collected) = self.database().with(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO tally (one, total, kept, collected)
                     VALUES (1, max(?1, (SELECT coalesce(sum(size), 0) FROM layer)), 0, ?2)
                     ON CONFLICT (one) DO UPDATE SET total = total + ?1 RETURNING total, kept, collected",
                )?
                .query_row((made, now()), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
                })
        })?;
        let (total, kept) = (u64::try_from(total).unwrap_or(0), u64::try_from(kept).unwrap_or(0));
        let disk = self.disk()?;
        let caps = budget.caps(disk.size);
        // What the last collection could not help need not be tried again after each build.
        let is_more = total > kept + kept / 64;
        let is_due = !(collected..collected + PERIOD).contains(&now());
        if !(is_due || is_more && caps.are_exceeded(total, disk.free)) {
            return Ok(());
        }
        let Some(_one) = FileLock::try_acquire(&self.path("locks/collect"))? else { return Ok(()) };
        let end = Instant::now() + if disk.free < caps.min_free { PATIENCE_WHEN_SHORT } else { PATIENCE };
        let go_on = || Instant::now() < end;
        self.measure_layers(&go_on)?;
        self.measure_directories(&go_on)?;
        for policy in Policy::automatic(caps) {
            while go_on() {
                let removed = self.step(&policy, roots, STEP)?;
                if removed.is_empty() {
                    break;
                }
                for removed in removed {
                    self.delete_measured(&removed.trash, &go_on)?;
                }
                // Something may have become another one's.
                self.measure_layers(&go_on)?;
            }
        }
        self.forget_what_is_gone()?;
        self.clear_old_locks();
        self.keep_ballast();
        self.set_tally(roots, go_on())
    }

    /// One step: decides, and moves away.
    fn step(&self, policy: &Policy, roots: Roots, most: usize) -> Result<Vec<Removed>> {
        let disk = self.disk()?;
        let exclusive = self.exclusive()?;
        let Seen { records, needed, .. } = self.see(&exclusive, roots)?;
        let plan = policy.plan(&records, disk.free, now(), most);
        let ids = || plan.iter().map(|place| records[*place].id.as_str());
        let condemned = self.condemn(ids());
        ignore_full(self.forget(&ids().collect::<Vec<_>>()))?;
        let mut removed = Vec::with_capacity(plan.len());
        for place in plan {
            let record = &records[place];
            if let Some(trash) = self.move_away(&exclusive, record, &needed) {
                removed.push(Removed { record: record.clone(), trash });
            }
        }
        drop(condemned);
        Ok(removed)
    }

    /// To the trash. `None` if it could not be, or somebody uses it.
    fn move_away(&self, _: &Exclusive, record: &CacheRecord, needed: &BTreeSet<Digest>) -> Option<Vec<OsString>> {
        let place = self.place(&record.id);
        if record.kind == Kind::Internal
            && let Ok(digest) = record.id.parse()
        {
            let gone = self.remove_entry(&digest, needed).ok()?;
            return Some(gone.iter().filter_map(|digest| self.discard(&self.blob_path(digest))).collect());
        }
        if record.id.starts_with(mount::PREFIX) {
            let lock_path = mount::lock_path(&place);
            let _lock = FileLock::try_acquire(&lock_path).ok()??;
            let trash = self.discard(&place)?;
            let _ = fs::remove_file(lock_path);
            return Some(vec![trash]);
        }
        self.discard(&place).map(|trash| vec![trash])
    }

    /// Deletes from the trash. Gives the bytes that became free, if it was done.
    fn delete_measured(&self, trash: &[OsString], go_on: &dyn Fn() -> bool) -> Result<u64> {
        let (mut bytes, mut is_linked) = (0, false);
        for name in trash {
            let measured = measure(&self.path("trash").join(name), go_on);
            bytes += measured.own;
            // Where that is not known, it may be.
            is_linked |= measured.is_linked() || measured.is_partial;
            self.delete(name, go_on);
        }
        if is_linked {
            ignore_full(self.measure_linked_anew())?;
        }
        Ok(bytes)
    }

    /// Forgets records, before their data goes.
    pub(crate) fn forget(&self, ids: &[&str]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.database().change(|connection| {
            let run = |statement: &str, id: &str| connection.prepare_cached(statement)?.execute((id,)).map(drop);
            for id in ids {
                run("DELETE FROM usage WHERE id = ?", id)?;
                if id.starts_with("sha256:") {
                    run("DELETE FROM layer_blob WHERE digest = ?", id)?;
                } else {
                    run("DELETE FROM layer WHERE id = ?", id)?;
                    run("DELETE FROM layer_blob WHERE layer = ?", id)?;
                }
            }
            Ok(())
        })
    }

    /// What is left in the database of things that are not there any more.
    fn forget_what_is_gone(&self) -> Result<()> {
        let layers = self.database().with(|connection| {
            let mut all = connection.prepare("SELECT id FROM layer")?;
            all.query_map((), |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        // A layer is there before its record is, so without its directory it has gone.
        let gone: Vec<&str> = layers.iter().filter(|id| !self.place(id).exists()).map(String::as_str).collect();
        self.forget(&gone)?;
        self.database().change(|connection| {
            connection.execute_batch(
                "DELETE FROM result WHERE layer NOT IN (SELECT id FROM layer);
                 DELETE FROM usage WHERE (id GLOB 'layer-*' OR id GLOB 'chain-*' OR id GLOB 'cached-*')
                 AND id NOT IN (SELECT id FROM layer);",
            )?;
            connection
                .execute(
                    "DELETE FROM memo WHERE namespace = ? AND key NOT IN (SELECT id FROM layer)",
                    (crate::record::OF_LAYERS,),
                )
                .map(drop)
        })
    }

    /// Locks and temporary files that killed processes have left.
    fn clear_old_locks(&self) {
        for entry in fs::read_dir(self.path("locks")).into_iter().flatten().flatten() {
            let is_key = entry.file_name().len() == 64;
            if is_key && let Ok(Some(_lock)) = FileLock::try_acquire(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let age = || SystemTime::now().duration_since(entry.metadata().ok()?.modified().ok()?).ok();
            if entry.file_name().as_encoded_bytes().starts_with(b".tmp")
                && age().is_some_and(|age| age > Duration::from_secs(24 * 3600))
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn set_tally(&self, roots: Roots, is_done: bool) -> Result<()> {
        let exclusive = self.exclusive()?;
        let total: u64 = self.see(&exclusive, roots)?.records.iter().map(|record| record.size).sum();
        drop(exclusive);
        let total = i64::try_from(total).unwrap_or(i64::MAX);
        let kept = if is_done { total } else { 0 };
        let set = self.database().with(|connection| {
            connection.execute(
                "INSERT OR REPLACE INTO tally (one, total, kept, collected) VALUES (1, ?, ?, ?)",
                (total, kept, now()),
            )
        });
        ignore_full(set.map(drop))
    }
}

/// A full disk keeps from writing, but not from removing.
fn ignore_full(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_full_disk() => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Caps, Space};
    use crate::{Filter, LayerId, LayerRecord, ResultRecord, Sharing};
    use oci::{Descriptor, MediaType};
    use std::path::Path;

    const NOBODY: Roots = &|_| Vec::new();

    /// A megabyte over others, recorded as the result of `key`.
    fn layer(store: &Store, key: u8, lowers: &[&LayerId]) -> LayerId {
        let attempt = store.begin_layer().unwrap();
        fs::write(attempt.upper().join("f"), vec![key; 1 << 20]).unwrap();
        let record = LayerRecord {
            lowers: lowers.iter().map(|id| (*id).clone()).collect(),
            lowers_content: [0; 32],
            content_id: [key; 32],
            created: i64::from(key) * 1_000_000_000,
            userxattr: false,
            size: 1 << 20,
            diff_id: None,
        };
        let id = attempt.commit(None, &record).unwrap();
        store.record(&[key; 32], &ResultRecord { layer: id.clone(), note: Some(format!("RUN {key}")) }).unwrap();
        id
    }

    fn image(store: &Store, layer: &[u8]) -> Descriptor {
        let layer = store.put_blob(layer).unwrap();
        let manifest = format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#);
        let digest = store.put_blob(manifest.as_bytes()).unwrap();
        Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest.to_spec())
    }

    fn pruned(store: &Store, policy: &Policy) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        store.prune(policy, NOBODY, |record| all.push((record.id.clone(), record.size >> 20))).unwrap();
        all
    }

    fn is_clean(root: &Path) -> bool {
        ["tmp", "trash"].iter().all(|name| fs::read_dir(root.join(name)).unwrap().count() == 0)
    }

    #[test]
    fn pruning_frees_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let below = layer(&store, 1, &[]);
        let above = layer(&store, 2, &[&below]);
        store.put_memo(crate::MEMOS_OF_LAYERS, &below.to_string(), b"x").unwrap();
        assert_eq!(pruned(&store, &Policy::default()), [(above.to_string(), 1), (below.to_string(), 1)]);
        assert_eq!(store.lookup(&[1; 32]).unwrap(), None);
        assert_eq!(store.memo(crate::MEMOS_OF_LAYERS, &below.to_string()).unwrap(), None);
        store.forget_use();
        assert!(is_clean(directory.path()));
        assert!(store.inventory(NOBODY).unwrap().records.is_empty());
    }

    /// R7.7.5, R11 row 7.
    #[test]
    fn what_others_use_stays_with_all_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        let below = layer(&store, 1, &[]);
        let used = layer(&store, 2, &[&below]);
        let above = layer(&store, 3, &[&below, &used]);
        store.end_use().unwrap();
        assert!(store.lookup(&[2; 32]).unwrap().is_some());
        assert_eq!(pruned(&other, &Policy { all: true, ..Policy::default() }), [(above.to_string(), 1)]);
        assert!(store.has_layer(&used).unwrap() && store.layer_path(&below).exists());
        let in_use = |store: &Store| {
            let records = store.inventory(NOBODY).unwrap().records;
            records.iter().filter(|record| record.in_use).count()
        };
        assert_eq!(in_use(&other), 2);
        drop(store);
        assert_eq!(in_use(&other), 0);
        assert_eq!(pruned(&other, &Policy::default()).len(), 2);
    }

    #[test]
    fn files_with_several_names_become_free_with_the_last() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = layer(&store, 1, &[]);
        let attempt = store.begin_layer().unwrap();
        fs::hard_link(store.layer_path(&first).join("f"), attempt.upper().join("f")).unwrap();
        let record = LayerRecord { lowers: vec![], created: 9_000_000_000, ..store.layer(&first).unwrap().unwrap() };
        let second = attempt.commit(None, &record).unwrap();
        let sizes = |store: &Store| {
            let size = |record: CacheRecord| (record.id, record.size >> 20);
            store.inventory(NOBODY).unwrap().records.into_iter().map(size).collect::<BTreeSet<_>>()
        };
        assert_eq!(sizes(&store), [(first.to_string(), 1), (second.to_string(), 0)].into());
        let only =
            |id: &LayerId| Policy { filters: vec![Filter::parse(&format!("id={id}")).unwrap()], ..Policy::default() };
        assert_eq!(pruned(&store, &only(&first)), [(first.to_string(), 0)]);
        assert_eq!(sizes(&store), [(second.to_string(), 1)].into());
        assert_eq!(pruned(&store, &only(&second)), [(second.to_string(), 1)]);
    }

    #[test]
    fn images_with_names_stay_and_those_without_go_with_all() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (named, nameless) = (image(&store, b"layer"), image(&store, b"other layer"));
        store.tag("a:1", &named).unwrap();
        store.keep(&nameless).unwrap();
        let loose = store.put_blob(b"loose").unwrap();
        assert_eq!(pruned(&store, &Policy::default()), [(loose.to_string(), 0)]);
        let all = Policy { all: true, ..Policy::default() };
        // Somebody else knows that it is needed.
        let digest = Digest::try_from(nameless.digest()).unwrap();
        store.prune(&all, &|_| vec![digest], |record| panic!("{record:?}")).unwrap();
        assert_eq!(pruned(&store, &all), [(digest.to_string(), 0)]);
        assert_eq!(store.images().unwrap().len(), 1);
        assert_eq!(fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count(), 2);
    }

    #[test]
    fn cache_directories_stay_while_they_are_used() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        let lease = store.cache_mount("/c", Sharing::Shared).unwrap();
        fs::write(lease.path().join("f"), "x").unwrap();
        // The lease counts, whoever relies on its id.
        store.end_use().unwrap();
        assert!(pruned(&other, &Policy::default()).is_empty());
        let id = lease.id();
        drop(lease);
        assert_eq!(pruned(&other, &Policy::default()), [(id, 0)]);
        assert_eq!(fs::read_dir(directory.path().join("mounts")).unwrap().count(), 0);
        assert!(store.cache_mount("/c", Sharing::Locked).unwrap().is_new);
    }

    /// R7.7.2: a budget holds over a row of builds, and what was used last stays.
    #[test]
    fn a_budget_holds() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let budget = Budget {
            reserved: Some(Space::Bytes(0)),
            max_used: Some(Space::Bytes(5 << 20)),
            min_free: Some(Space::Bytes(0)),
        };
        let mut last = None;
        for key in 1..20 {
            last = Some(layer(&store, key, &[]));
            let used = store.end_use().unwrap();
            store.collect(used, &budget, NOBODY).unwrap();
            assert!(fs::read_dir(directory.path().join("snapshots")).unwrap().count() <= 5);
        }
        assert!(store.has_layer(&last.unwrap()).unwrap());
        store.forget_use();
        assert!(is_clean(directory.path()));
        // Not when nothing was made.
        assert_eq!(Used { made: 0, is_fresh: true }, store.end_use().unwrap());
        let caps = Caps { max_used: 1, ..Caps::default() };
        assert!(caps.are_exceeded(2, 0));
    }

    #[test]
    fn one_collection_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        layer(&store, 1, &[]);
        let used = store.end_use().unwrap();
        let other = FileLock::acquire(&directory.path().join("locks/collect")).unwrap();
        let nothing = Some(Space::Bytes(1));
        let budget = Budget { reserved: nothing, max_used: nothing, min_free: None };
        store.collect(used, &budget, NOBODY).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("snapshots")).unwrap().count(), 1);
        drop(other);
        store.collect(used, &budget, NOBODY).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("snapshots")).unwrap().count(), 0);
    }
}
