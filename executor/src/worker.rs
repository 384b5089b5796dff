//! The solver's [`Worker`] on this machine.

use crate::error::{Error, Result, blocking};
use crate::fileop::{self, CopyRequest, Owner, SourceTree};
use crate::sandbox::Launcher;
use crate::snapshot::Snapshots;
use crate::source::digest::selection_digest;
use crate::source::git::Repositories;
use crate::source::http::Urls;
use crate::source::image::Images;
use crate::source::statcache::StatCache;
use crate::users;
use crate::value::{Stack, Value};
use cache::Store;
use solver::key::ContentId;
use solver::op::{File, FileAction, Op, Selection, Source};
use solver::schedule::{OpTask, Worker};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// What a build's steps see that is no part of their keys.
#[derive(Clone, Debug, Default)]
pub struct WorkerOptions {
    /// `--add-host`: address and name.
    pub extra_hosts: Vec<(String, String)>,
    /// Proxy variables, by name in any case.
    pub proxies: BTreeMap<String, String>,
}

/// Runs ops with sandboxes and a store of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalWorker {
    pub(crate) snapshots: Snapshots,
    pub(crate) launcher: Launcher,
    pub(crate) options: Arc<WorkerOptions>,
    images: Images,
    urls: Urls,
    repositories: Repositories,
    contexts: Arc<BTreeMap<String, Value>>,
}

/// Where a worker's files come from.
pub struct Sources {
    pub images: Images,
    pub urls: Urls,
    pub repositories: Repositories,
    /// What the client brings, by the names of [`Source::Local`].
    pub contexts: BTreeMap<String, Value>,
}

impl LocalWorker {
    pub fn new(snapshots: Snapshots, launcher: Launcher, sources: Sources, options: WorkerOptions) -> Self {
        let Sources { images, urls, repositories, contexts } = sources;
        let (contexts, options) = (Arc::new(contexts), Arc::new(options));
        LocalWorker { snapshots, launcher, options, images, urls, repositories, contexts }
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

    /// Sees to it that all layers of an input exist as directories.
    pub(crate) async fn materialise(&self, input: &Value, task: &OpTask<'_, Value>) -> Result<()> {
        match input {
            Value::Files(stack) => self.images.unpack(&self.snapshots, stack, &task.vertex, task.events).await,
            Value::Local(_) => Ok(()),
        }
    }

    async fn file(&self, file: &File, task: &OpTask<'_, Value>) -> Result<Value> {
        for input in task.inputs {
            self.materialise(input, task).await?;
        }
        let (this, file, inputs, adopt) = (self.clone(), file.clone(), task.inputs.to_vec(), task.adopt);
        blocking(move || {
            let Some(Value::Files(below)) = inputs.first() else { return Err(Error::WrongInput) };
            let draft = this.snapshots.draft(below)?;
            for action in &file.actions {
                this.action(action, &inputs, draft.root.as_fd(), below.layers().is_empty())?;
            }
            Ok(Value::Files(Arc::new(this.snapshots.commit(draft, adopt)?)))
        })
        .await
    }

    /// `is_empty`: there was nothing below, so no users are known.
    fn action(&self, action: &FileAction, inputs: &[Value], root: BorrowedFd, is_empty: bool) -> Result<()> {
        match action {
            FileAction::Mkdir(mkdir) => {
                let owner = match mkdir.owner.as_str() {
                    "" => (0, 0),
                    owner => users::owner(root, owner).map_err(Error::Owner)?,
                };
                Ok(fileop::mkdir(root, &mkdir.path, owner, None)?)
            }
            FileAction::Mkfile(mkfile) => Ok(fileop::mkfile(root, &mkfile.path, mkfile.data.as_bytes(), mkfile.mode)?),
            FileAction::Copy(copy) => {
                let owner = match &copy.chown {
                    Some(owner) if is_empty && !users::is_numeric(owner) => {
                        return Err(Error::Owner(users::UserError::NoFiles(owner.clone())));
                    }
                    Some(owner) => {
                        let (uid, gid) = users::owner(root, owner).map_err(Error::Owner)?;
                        Owner::Set(uid, gid)
                    }
                    None if copy.keep_owner => Owner::Keep,
                    None => Owner::Root,
                };
                let view;
                let source = match inputs.get(copy.from) {
                    Some(Value::Local(context)) => context.source.tree(),
                    Some(Value::Files(stack)) => {
                        view = self.snapshots.view(&stack.ids())?;
                        SourceTree { root: view.as_fd(), ignore: None, ignore_name: "" }
                    }
                    None => return Err(Error::WrongInput),
                };
                fileop::copy(&CopyRequest {
                    source,
                    destination: root,
                    selection: &copy.selection,
                    to: &copy.destination,
                    owner,
                    chmod: copy.chmod.as_ref(),
                    unpack: copy.unpack,
                })?;
                Ok(())
            }
        }
    }
}

impl Worker for LocalWorker {
    type Value = Value;
    type Error = Error;

    fn content_id(&self, value: &Value) -> ContentId {
        match value {
            Value::Files(stack) => stack.content(),
            // Contexts only count by what is selected of them.
            Value::Local(context) => ContentId(*blake3::hash(context.source.name.as_bytes()).as_bytes()),
        }
    }

    async fn selection_digest(&self, value: &Value, selections: &[Selection], with_owner: bool) -> Result<ContentId> {
        if let Value::Files(stack) = value {
            // Finding out what is selected of an image takes its files.
            self.images.unpack_quietly(&self.snapshots, stack).await?;
        }
        let (this, value, selections) = (self.clone(), value.clone(), selections.to_vec());
        blocking(move || {
            let digest = match &value {
                Value::Local(context) => {
                    selection_digest(&context.source.tree(), &selections, &context.digests, with_owner)?
                }
                Value::Files(stack) => {
                    let key = memo_key(stack, &selections, with_owner);
                    if let Some(digest) = this.store().memo("selection", &key)?.and_then(|memo| memo.try_into().ok()) {
                        return Ok(ContentId(digest));
                    }
                    let view = this.snapshots.view(&stack.ids())?;
                    let tree = SourceTree { root: view.as_fd(), ignore: None, ignore_name: "" };
                    let digest = selection_digest(&tree, &selections, &StatCache::new(), with_owner)?;
                    this.store().put_memo("selection", &key, &digest)?;
                    digest
                }
            };
            Ok(ContentId(digest))
        })
        .await
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

/// A stack's content does not change, so neither does the digest of a part of it.
fn memo_key(stack: &Stack, selections: &[Selection], with_owner: bool) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stack.content().0);
    hasher.update(&[u8::from(with_owner)]);
    hasher.update(&serde_json::to_vec(selections).unwrap_or_default());
    hasher.finalize().to_hex().to_string()
}
