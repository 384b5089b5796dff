//! Directories of `RUN --mount=type=cache` in remote caches: fetched when the first step mounts one that is empty here, written when the build is done.

use super::RemoteCaches;
use crate::error::{Error, Result, blocking};
use cache::remote::mounts::{FetchedMount, MountAccount, MountRecord, export_mount, fetch_mount};
use cache::remote::{Contents, Remote, Transport};
use cache::{CacheMountLease, Store};
use solver::event::Task;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

/// How long others' use of a directory is waited for, before it is left out.
const PATIENCE: Duration = Duration::from_secs(30);
const WATCH: Duration = Duration::from_millis(200);

impl RemoteCaches {
    /// Notes that a step mounts the directory `name`, which people know as `id`.
    pub(crate) fn note_mount(&self, name: &str, id: &str) {
        if let Some(ledger) = &self.ledger {
            ledger.mount(name, id);
        }
    }

    /// Gives a directory its content from the cache that wrote it last, if there is one. What goes wrong is told, and no more: the step runs without. To be
    /// called on a thread that may wait.
    pub(crate) fn fill_mount(
        &self,
        store: &Store,
        name: &str,
        id: &str,
        lease: &CacheMountLease,
        note: &dyn Fn(String),
    ) -> bool {
        let Some(imports) = &self.imports else { return false };
        let fetch = async {
            imports.ready().await;
            let (source, record) = imports.mount(name)?;
            let fetched = fetch_mount(store, &record, &source.remote).await;
            Some((source.name.clone(), fetched))
        };
        let Some((source, fetched)) = tokio::runtime::Handle::current().block_on(fetch) else { return false };
        let placed =
            fetched.and_then(|fetched: FetchedMount| Ok(fetched.place(store, lease)?.then_some(fetched.account)));
        match placed {
            Ok(None) => false,
            Ok(Some(MountAccount { chunks, bytes, .. })) => {
                note(format!("cache mount {id}: {chunks} chunks, {} from {source}\n", megabytes(bytes)));
                true
            }
            Err(error) => {
                note(format!("warning: cache mount {id} could not be fetched from {source}: {error}\n"));
                false
            }
        }
    }
}

/// Writes the directories that the build's steps mounted. Others that the cache has stay for some time.
pub(super) async fn export(
    caches: &RemoteCaches,
    store: &Store,
    remote: &Remote,
    task: &Task,
) -> Result<Vec<MountRecord>> {
    let mut previous = BTreeMap::new();
    match remote.published().await {
        Ok(published) => {
            // One that is no cache has no directories.
            for mount in
                published.iter().filter_map(|one| Contents::read(one).ok()).flat_map(|contents| contents.mounts)
            {
                newest(&mut previous, mount);
            }
        }
        Err(error) => tracing::info!(%error, "the directories that the cache has are not known"),
    }
    let mut mounts = Vec::new();
    for (name, id) in caches.ledger.as_ref().map(|ledger| ledger.mounts()).unwrap_or_default() {
        let status = format!("cache mount {id}");
        task.status(&status, 0, 0, false);
        let Some(lease) = idle(store, &name).await? else {
            task.status(format!("{status}: left out, as another build uses it"), 0, 0, true);
            continue;
        };
        let directory = File::open(lease.path())
            .map_err(|source| Error::Write { path: lease.path().display().to_string(), source })?;
        match export_mount(store, &name, directory.into(), previous.get(&name), remote).await {
            Ok((record, MountAccount { moved, chunks, bytes })) => {
                task.status(format!("{status}: {moved} of {chunks} chunks, {}", megabytes(bytes)), 0, 0, true);
                previous.remove(&name);
                mounts.push(record);
            }
            // One that is too large, for instance: the rest of the cache is of use without it.
            Err(error) => task.status(format!("{status}: left out: {error}"), 0, 0, true),
        }
        task.status(&status, 0, 0, true);
    }
    for mount in previous.into_values().filter(MountRecord::is_current) {
        let mut is_whole = true;
        for blob in mount.descriptors() {
            is_whole = is_whole && remote.has_blob(&blob).await?;
        }
        if is_whole {
            mounts.push(mount);
        }
    }
    mounts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mounts)
}

/// Keeps of two records of a directory the one that was written last.
pub(super) fn newest(mounts: &mut BTreeMap<String, MountRecord>, mount: MountRecord) {
    let is_older = mounts.get(&mount.name).is_some_and(|known| known.written >= mount.written);
    if !is_older {
        mounts.insert(mount.name.clone(), mount);
    }
}

/// The directory, when nobody uses it any more.
async fn idle(store: &Store, name: &str) -> Result<Option<CacheMountLease>> {
    let begun = tokio::time::Instant::now();
    loop {
        let (own, name) = (store.clone(), name.to_owned());
        if let Some(lease) = blocking(move || Ok(own.idle_cache_mount(&name)?)).await? {
            return Ok(Some(lease));
        }
        if begun.elapsed() >= PATIENCE {
            return Ok(None);
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes}B"),
        1000..1_000_000 => format!("{:.1}kB", bytes as f64 / 1e3),
        _ => format!("{:.1}MB", bytes as f64 / 1e6),
    }
}
