//! The solver's [`Worker`] on this machine.

use crate::copies::{self, Ahead, Copies};
use crate::debug::Session;
use crate::error::{Error, Result, blocking, cancellable};
use crate::fileop::{self, Listing, SourceTree};
use crate::network::{BuildNetwork, DefaultNetwork};
use crate::remote::RemoteCaches;
use crate::sandbox::{Dns, ExtraHost, Launcher, Limits};
use crate::secrets::Secrets;
use crate::snapshot::Snapshots;
use crate::source::git::Repositories;
use crate::source::http::Urls;
use crate::source::image::Images;
use crate::ssh::Agents;
use crate::value::{Stack, Value};
use cache::Store;
use solver::entitlements::Devices;
use solver::event::EventSink;
use solver::key::ContentId;
use solver::op::{Exec, Op, Selection, Source};
use solver::schedule::{InputTask, OpTask, Worker, selections_id};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

/// Digests of parts of stacks.
const SELECTION: &str = "selection";

/// What a build's steps see that is no part of their keys.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// `--add-host`.
    pub extra_hosts: Vec<ExtraHost>,
    pub dns: Dns,
    pub network: DefaultNetwork,
    /// Proxy variables, by name in any case.
    pub proxies: BTreeMap<String, String>,
    /// Those that `--allow device` lets steps use.
    pub devices: Devices,
    /// Of each step.
    pub limits: Limits,
    /// How long one step may run.
    pub timeout: Option<Duration>,
    pub secrets: Secrets,
    pub agents: Agents,
    /// Cache directories of steps are not the store's but this build's own: other ones under each name. They go with
    /// [`LocalWorker::remove_scope`].
    pub cache_scope: Option<String>,
    /// A step that fails is kept for a look at it: its error is [`Error::Kept`].
    pub keep_failed: bool,
}

/// Runs ops with sandboxes and a store of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalWorker {
    pub(crate) snapshots: Snapshots,
    pub(crate) launcher: Launcher,
    pub(crate) options: Arc<WorkerOptions>,
    pub(crate) network: BuildNetwork,
    pub(crate) told_of_shared_proc: Arc<Once>,
    images: Images,
    urls: Urls,
    repositories: Repositories,
    contexts: Arc<BTreeMap<String, Value>>,
    pub(crate) remote: Arc<RemoteCaches>,
    pub(crate) ahead: Ahead,
    /// Ids of the cache directories that are this build's own.
    pub(crate) scoped: Arc<Mutex<BTreeSet<String>>>,
}

/// Where a worker's files come from.
#[derive(Clone)]
pub struct Sources {
    pub images: Images,
    pub urls: Urls,
    pub repositories: Repositories,
    /// What the client brings, by the names of [`Source::Local`].
    pub contexts: BTreeMap<String, Value>,
    pub remote: Arc<RemoteCaches>,
}

impl LocalWorker {
    pub fn new(snapshots: Snapshots, launcher: Launcher, sources: Sources, options: WorkerOptions) -> Self {
        let Sources { images, urls, repositories, contexts, remote } = sources;
        let (contexts, network, options) = (Arc::new(contexts), BuildNetwork::new(options.network), Arc::new(options));
        let ahead = Ahead::default();
        let told_of_shared_proc = Arc::new(Once::new());
        LocalWorker {
            snapshots,
            launcher: launcher.keeping_a_spare(),
            options,
            network,
            told_of_shared_proc,
            images,
            urls,
            repositories,
            contexts,
            remote,
            ahead,
            scoped: Arc::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.snapshots.store()
    }

    /// Keeps what was learned about the contexts' files for the next build.
    pub fn save_digests(&self) {
        for context in self.contexts.values() {
            let Value::Local(context) = context else { continue };
            if let Err(error) = context.digests.save(&context.digests_path) {
                tracing::debug!(%error, "file digests are not kept");
            }
        }
    }

    /// Removes the cache directories that were this build's own.
    pub fn remove_scope(&self) -> Result<()> {
        let ids = std::mem::take(&mut *self.scoped.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(self.store().take_back(&ids)?)
    }

    /// A shell's session in `stack`, as `exec` would run there. It may mount nothing.
    pub async fn session(&self, stack: &Arc<Stack>, exec: &Exec, events: &EventSink) -> Result<Session> {
        self.images.unpack_quietly(&self.snapshots, stack).await?;
        let (this, stack, step) = (self.clone(), stack.clone(), exec.clone());
        let prepared = blocking(move || this.prepare(&step, &[], &[], &stack, &|_| {})).await?;
        let network = self.network(exec.network, "", events).await;
        Ok(Session::new(self.clone(), prepared, network))
    }

    /// Sees to it that all layers of an input exist as directories.
    pub(crate) async fn materialise(&self, input: &Value, task: &OpTask<'_, Value>) -> Result<()> {
        match input {
            Value::Files(stack) => self.images.unpack(&self.snapshots, stack, &task.vertex, task.events).await,
            Value::Local(_) => Ok(()),
        }
    }

    /// The digest of selected files that the store or a remote cache remembers.
    async fn known_selection(&self, selection: &blake3::Hash) -> Result<Option<ContentId>> {
        let memo = self.store().memo(SELECTION, &selection.to_hex())?;
        if let Some(digest) = memo.and_then(|memo| memo.try_into().ok()) {
            self.remote.note_selection(selection.as_bytes(), &digest);
            return Ok(Some(ContentId(digest)));
        }
        let Some(digest) = self.remote.selection(selection.as_bytes()).await.map(ContentId) else { return Ok(None) };
        self.remember_selection(selection, &digest)?;
        Ok(Some(digest))
    }

    fn remember_selection(&self, selection: &blake3::Hash, digest: &ContentId) -> Result<()> {
        self.remote.note_selection(selection.as_bytes(), &digest.0);
        Ok(self.store().put_memo(SELECTION, &selection.to_hex(), &digest.0)?)
    }

    pub(crate) fn copies(&self) -> Copies<'_> {
        Copies { snapshots: &self.snapshots }
    }
}

impl Worker for LocalWorker {
    type Value = Value;
    type Error = Error;

    fn content_id(&self, value: &Value) -> ContentId {
        value.content()
    }

    /// The topmost layer's.
    fn result_id(&self, value: &Value) -> Option<String> {
        match value {
            Value::Files(stack) => stack.layers().last().map(|layer| layer.id.to_string()),
            Value::Local(_) => None,
        }
    }

    async fn selection_digest(&self, task: InputTask<'_, Value>) -> Result<ContentId> {
        let (this, op, vertex) = (self.clone(), task.op.clone(), task.vertex.to_owned());
        let (value, selections) = (task.value.clone(), task.selections.to_vec());
        let (input, with_owner) = (task.input, task.with_owner);
        if let Value::Files(stack) = &value {
            let selection = selection_name(stack, &selections, with_owner);
            if let Some(digest) = self.known_selection(&selection).await? {
                return Ok(digest);
            }
            // Finding out what is selected of an image takes its files.
            self.images.unpack_quietly(&self.snapshots, stack).await?;
        }
        cancellable(move |cancelled| match &value {
            Value::Local(context) => {
                if let Some(digest) = this.copy_ahead(&op, input, context, &vertex, cancelled)? {
                    return Ok(selections_id(&[digest]));
                }
                // A directory's owners are not those of the files in the image, so they never count.
                let tree = SourceTree { cancelled: Some(cancelled), ..context.source.tree() };
                let digest = |selection| {
                    fileop::selection_digest(&tree, selection, &context.digests, Some(&context.recent), false)
                };
                let digests = selections.iter().map(digest).collect::<std::result::Result<Vec<_>, _>>()?;
                Ok(selections_id(&digests))
            }
            Value::Files(stack) => {
                let view = this.snapshots.view(&stack.ids())?;
                let tree = SourceTree { root: view.as_fd(), ignore: None, ignore_name: "", cancelled: None };
                let listing = Listing::default();
                let digest = |selection| fileop::listed_digest(&tree, selection, with_owner, &listing);
                let digests = selections.iter().map(digest).collect::<std::result::Result<Vec<_>, _>>()?;
                let id = selections_id(&digests);
                copies::keep_listing(this.store(), id, listing);
                this.remember_selection(&selection_name(stack, &selections, with_owner), &id)?;
                Ok(id)
            }
        })
        .await
    }

    fn is_stale(&self, error: &Error) -> bool {
        error.is_stale()
    }

    async fn run(&self, task: OpTask<'_, Value>) -> Result<Value> {
        match task.op {
            Op::Source(Source::Scratch) => Ok(Value::Files(Arc::default())),
            Op::Source(Source::Local { name }) => {
                self.contexts.get(name).cloned().ok_or_else(|| Error::NoContext(name.clone()))
            }
            Op::Source(Source::Http { url, filename, checksum }) => {
                let fetched = self.urls.fetch(url, filename, checksum.as_deref(), &task.vertex, task.events).await;
                Ok(Value::Files(Arc::new(fetched?)))
            }
            Op::Source(Source::Git(git)) => {
                let stack = self.repositories.checkout(git, &task.vertex, task.events).await?;
                Ok(Value::Files(Arc::new(stack)))
            }
            Op::Source(Source::Image { reference, manifest, .. }) => {
                let stack = self.images.stack(reference, manifest)?;
                Ok(Value::Files(Arc::new(stack)))
            }
            Op::Merge => {
                let mut layers = Vec::new();
                for input in task.inputs {
                    let Value::Files(stack) = input else { return Err(Error::WrongInput) };
                    layers.extend(stack.layers().iter().cloned());
                }
                Ok(Value::Files(Arc::new(layers.into_iter().collect::<Stack>())))
            }
            Op::File(file) => self.file(file, &task).await,
            Op::Exec(exec) => self.exec(exec, &task).await,
        }
    }
}

/// Names a part of a stack. A stack's content does not change, so neither does the digest of a part of it.
fn selection_name(stack: &Stack, selections: &[Selection], with_owner: bool) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stack.content().0);
    hasher.update(&[u8::from(with_owner)]);
    hasher.update(&serde_json::to_vec(selections).unwrap_or_default());
    hasher.finalize()
}
