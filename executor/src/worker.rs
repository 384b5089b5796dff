//! The solver's [`Worker`] on this machine.

use crate::copies::{Ahead, Copies};
use crate::error::{Error, Result, cancellable};
use crate::fileop::statcache::StatCache;
use crate::fileop::{self, Account, BookWriter, CopyRequest, Owner, SourceTree, Staged, View};
use crate::sandbox::Launcher;
use crate::snapshot::{Draft, Snapshots, Stage};
use crate::source::git::Repositories;
use crate::source::http::Urls;
use crate::source::image::Images;
use crate::users;
use crate::value::{Stack, Value};
use cache::Store;
use solver::key::ContentId;
use solver::op::{self, File, FileAction, Input, Op, Selection, Source};
use solver::schedule::{InputTask, OpTask, Worker, selections_id};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

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
    pub(crate) ahead: Ahead,
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
        LocalWorker { snapshots, launcher, options, images, urls, repositories, contexts, ahead: Ahead::default() }
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
        let (this, file) = (self.clone(), file.clone());
        let step = FileStep {
            inputs: task.inputs.to_vec(),
            contributions: task.contributions.to_vec(),
            adopt: task.adopt,
            ahead: self.ahead.take(&task.vertex, task.contributions),
        };
        cancellable(move |cancelled| this.write_files(&file, step, cancelled)).await
    }

    fn write_files(&self, file: &File, step: FileStep, cancelled: &AtomicBool) -> Result<Value> {
        let Some(Value::Files(below)) = step.inputs.first() else { return Err(Error::WrongInput) };
        let mut draft = match below.layers().is_empty() {
            true => self.snapshots.plain()?,
            false => self.snapshots.draft(below)?,
        };
        let mut copied = Copied::default();
        for (number, action) in file.actions.iter().enumerate() {
            if std::mem::take(&mut copied.is_behind) {
                self.snapshots.refresh(&mut draft)?;
            }
            match action {
                FileAction::Mkdir(mkdir) => {
                    let owner = match mkdir.owner.as_str() {
                        "" => (0, 0),
                        owner => users::owner(draft.root.as_fd(), owner).map_err(Error::Owner)?,
                    };
                    fileop::mkdir(draft.root.as_fd(), &mkdir.path, owner, None)?;
                }
                FileAction::Mkfile(mkfile) => {
                    fileop::mkfile(draft.root.as_fd(), &mkfile.path, mkfile.data.as_bytes(), mkfile.mode)?;
                }
                FileAction::Copy(copy) => {
                    let is_only = number == 0 && file.actions.len() == 1;
                    self.copy(file, copy, &step, &mut draft, is_only, &mut copied, cancelled)?;
                }
            }
        }
        crate::copies::check(&copied.digests, &step.contributions)?;
        let stack = self.snapshots.commit_knowing(draft, step.adopt, copied.into.as_deref())?;
        if let (Some(into), Some(layer), Some(Value::Local(context))) =
            (copied.into, stack.layers().last(), step.inputs.get(1))
        {
            self.copies().remember(file, context, &layer.id, into)?;
        }
        Ok(Value::Files(Arc::new(stack)))
    }

    /// `is_only`: the step does nothing else.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, used here and nowhere else")]
    fn copy(
        &self,
        file: &File,
        copy: &op::Copy,
        step: &FileStep,
        draft: &mut Draft,
        is_only: bool,
        copied: &mut Copied,
        cancelled: &AtomicBool,
    ) -> Result<()> {
        // Nothing was below, so no users are known.
        let is_empty = matches!(step.inputs.first(), Some(Value::Files(below)) if below.layers().is_empty());
        let owner = match &copy.chown {
            Some(owner) if is_empty && !users::is_numeric(owner) => {
                return Err(Error::Owner(users::UserError::NoFiles(owner.clone())));
            }
            Some(owner) => {
                let (uid, gid) = users::owner(draft.root.as_fd(), owner).map_err(Error::Owner)?;
                Owner::Set(uid, gid)
            }
            None if copy.keep_owner => Owner::Keep,
            None => Owner::Root,
        };
        let input = step.inputs.get(copy.from);
        let (stage, layer) = (self.snapshots.stage()?, draft.layer()?);
        let view;
        let (source, context) = match input {
            Some(Value::Local(context)) => (context.source.tree(), Some(context)),
            Some(Value::Files(stack)) => {
                view = self.snapshots.view(&stack.ids())?;
                (SourceTree { root: view.as_fd(), ignore: None, ignore_name: "", cancelled: None }, None)
            }
            None => return Err(Error::WrongInput),
        };
        let previous = context.filter(|_| is_only).and_then(|context| self.copies().previous(file, context));
        let book = context.filter(|_| is_only).and_then(|_| BookWriter::create(&stage.digests()).ok());
        let request = CopyRequest {
            source: SourceTree { cancelled: Some(cancelled), ..source },
            layer: layer.as_fd(),
            staging: stage.root.as_fd(),
            selection: &copy.selection,
            to: &copy.destination,
            owner,
            chmod: copy.chmod.as_ref(),
            unpack: copy.unpack,
            account: context.map(|context| Account {
                digests: &context.digests,
                recent: Some(&context.recent),
                keep_owner: false,
                previous: previous.as_ref(),
                book: book.as_ref(),
            }),
        };
        let (summary, has_book, stage) = match &step.ahead {
            Some((ahead, staged)) => {
                let mut view = DraftView { snapshots: &self.snapshots, draft: &mut *draft };
                (fileop::place_staged(&request, &mut view, staged, &ahead.root)?, true, ahead)
            }
            None => {
                let mut view = DraftView { snapshots: &self.snapshots, draft: &mut *draft };
                let summary = fileop::copy(&request, &mut view)?;
                (summary, book.is_some_and(|book| book.finish().is_ok()), &stage)
            }
        };
        if has_book && let Some(into) = &summary.into {
            draft.take_digests(stage);
            copied.into = Some(into.clone());
        }
        copied.is_behind = summary.is_behind;
        if let Some(digest) = summary.digest {
            copied.digests.entry(copy.from).or_default().push(digest);
        }
        Ok(())
    }

    pub(crate) fn copies(&self) -> Copies<'_> {
        Copies { snapshots: &self.snapshots }
    }
}

/// What a file step was given.
struct FileStep {
    inputs: Vec<Value>,
    contributions: Vec<ContentId>,
    adopt: bool,
    /// A copy that was made ahead.
    ahead: Option<(Stage, Staged)>,
}

/// What a file step has copied.
#[derive(Default)]
struct Copied {
    /// Of contexts, by input, in the order of the actions.
    digests: BTreeMap<Input, Vec<[u8; 32]>>,
    /// The directory whose files' digests are known.
    into: Option<Vec<u8>>,
    /// Something was moved into the layer that the draft's view may not show.
    is_behind: bool,
}

struct DraftView<'a> {
    snapshots: &'a Snapshots,
    draft: &'a mut Draft,
}

impl View for DraftView<'_> {
    fn root(&self) -> BorrowedFd<'_> {
        self.draft.root.as_fd()
    }

    fn refresh(&mut self) -> std::result::Result<(), fileop::Error> {
        self.snapshots.refresh(self.draft).map_err(|error| fileop::Error::View(error.to_string()))
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

    async fn selection_digest(&self, task: InputTask<'_, Value>) -> Result<ContentId> {
        let (this, op, vertex) = (self.clone(), task.op.clone(), task.vertex.to_owned());
        let (value, selections) = (task.value.clone(), task.selections.to_vec());
        let (input, with_owner) = (task.input, task.with_owner);
        if let Value::Files(stack) = &value {
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
                let key = memo_key(stack, &selections, with_owner);
                if let Some(digest) = this.store().memo("selection", &key)?.and_then(|memo| memo.try_into().ok()) {
                    return Ok(ContentId(digest));
                }
                let view = this.snapshots.view(&stack.ids())?;
                let tree = SourceTree { root: view.as_fd(), ignore: None, ignore_name: "", cancelled: None };
                let cache = StatCache::new();
                let digest = |selection| fileop::selection_digest(&tree, selection, &cache, None, with_owner);
                let digests = selections.iter().map(digest).collect::<std::result::Result<Vec<_>, _>>()?;
                let id = selections_id(&digests);
                this.store().put_memo("selection", &key, &id.0)?;
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

/// A stack's content does not change, so neither does the digest of a part of it.
fn memo_key(stack: &Stack, selections: &[Selection], with_owner: bool) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&stack.content().0);
    hasher.update(&[u8::from(with_owner)]);
    hasher.update(&serde_json::to_vec(selections).unwrap_or_default());
    hasher.finalize().to_hex().to_string()
}
