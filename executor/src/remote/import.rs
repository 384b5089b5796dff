//! Reading what remote caches know.

use super::layer::Unavailable;
use cache::remote::mounts::MountRecord;
use cache::remote::{Contents, Error, Id, Remote, Result, StepResult, Transport};
use futures_util::FutureExt;
use futures_util::future::{Shared, join_all};
use solver::event::EventSink;
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::AbortHandle;

/// A cache to read.
pub struct ImportSource {
    /// What progress calls it: a reference, a path.
    pub name: String,
    pub remote: Remote,
    /// Directories of `RUN --mount=type=cache` are taken from it (`cache-mounts=true`).
    pub mounts: bool,
}

/// A cache that is read.
pub struct Source {
    /// Its position among the sources.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) remote: Remote,
    pub(super) mounts: bool,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

type Loaded = Arc<Vec<(Arc<Source>, Contents)>>;

pub(super) struct Imports {
    loading: Shared<Pin<Box<dyn Future<Output = Loaded> + Send>>>,
    tasks: Vec<AbortHandle>,
    dropped: Mutex<Dropped>,
}

#[derive(Default)]
struct Dropped {
    steps: HashSet<(usize, Id)>,
    sources: HashSet<usize>,
}

impl Imports {
    /// Reads all sources at the same time. One that cannot be read is told about, and is none (R7.5.4).
    pub fn start(sources: Vec<ImportSource>, events: &EventSink) -> Imports {
        let mut tasks = Vec::new();
        let reading = sources.into_iter().enumerate().map(|(index, ImportSource { name, remote, mounts })| {
            let (source, events) = (Arc::new(Source { index, name, remote, mounts }), events.clone());
            let reading = tokio::spawn(async move {
                let task = events.start(format!("importing cache manifest from {}", source.name));
                match read(&source.remote).await {
                    Ok(read) => {
                        if read.is_empty() {
                            task.status("there is no cache yet", 0, 0, true);
                        }
                        task.done();
                        read.into_iter().map(|contents| (source.clone(), contents)).collect()
                    }
                    Err(error) => {
                        task.failed(format!("{error}; the build goes on without this cache"));
                        vec![]
                    }
                }
            });
            tasks.push(reading.abort_handle());
            reading
        });
        // The order is that of the sources.
        let reading = join_all(reading.collect::<Vec<_>>());
        let loading = async move { Arc::new(reading.await.into_iter().flatten().flatten().collect()) };
        let loading: Pin<Box<dyn Future<Output = Loaded> + Send>> = Box::pin(loading);
        Imports { loading: loading.shared(), tasks, dropped: Mutex::default() }
    }

    pub async fn ready(&self) {
        self.loading.clone().await;
    }

    /// The first that has the files, else the first that knows the content. Nothing as long as the documents are not there.
    pub fn result(&self, key: &Id, fits: impl Fn(&StepResult) -> bool) -> Option<(Arc<Source>, StepResult)> {
        let loaded = self.loading.peek()?;
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        let is_dropped = |source: usize| dropped.sources.contains(&source) || dropped.steps.contains(&(source, *key));
        let mut found = None;
        for (source, contents) in loaded.iter() {
            let Some(result) = contents.results.get(key) else { continue };
            if !fits(result) || is_dropped(source.index) {
                continue;
            }
            if result.blob.is_some() {
                return Some((source.clone(), result.clone()));
            }
            found.get_or_insert_with(|| (source.clone(), result.clone()));
        }
        found
    }

    pub fn selection(&self, selection: &Id) -> Option<Id> {
        self.loading.peek()?.iter().find_map(|(_, contents)| contents.selections.get(selection).copied())
    }

    /// Who wrote a directory last.
    pub fn mount(&self, name: &str) -> Option<(Arc<Source>, MountRecord)> {
        let loaded = self.loading.peek()?;
        let of_source = |(source, contents): &'_ (Arc<Source>, Contents)| {
            let mount = contents.mounts.iter().find(|mount| mount.name == name).filter(|_| source.mounts)?;
            Some((source.clone(), mount.clone()))
        };
        loaded.iter().filter_map(of_source).max_by_key(|(_, mount)| mount.written)
    }

    /// Knows these steps no more. False if it did not before.
    pub fn discard(&self, unavailable: &Unavailable, events: &EventSink) -> bool {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        for source in &unavailable.sources {
            is_news |= dropped.sources.insert(*source);
        }
        for step in &unavailable.steps {
            is_news |= dropped.steps.insert(*step);
        }
        if let Some(problem) = unavailable.problem.as_ref().filter(|_| is_news) {
            let task = events.start("giving up on layers of remote caches");
            task.failed(format!("{problem}; what needs them runs without this cache"));
        }
        is_news
    }
}

impl Drop for Imports {
    /// What no step waited for is of no use any more.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn read(remote: &Remote) -> Result<Vec<Contents>> {
    let published = remote.published().await?;
    let parsed = tokio::task::spawn_blocking(move || published.iter().map(Contents::read).collect());
    parsed.await.map_err(|gone| Error::Document(gone.to_string()))?
}
