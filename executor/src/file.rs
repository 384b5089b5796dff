//! Runs a `File` op: COPY, ADD, WORKDIR and here-documents on a draft over its first input, which then becomes a layer.

use crate::copies::{AheadCopy, Copied};
use crate::error::{Error, Result, cancellable};
use crate::fileop::{self, Account, BookWriter, CopyRequest, Listing, Owner, SourceTree, View};
use crate::snapshot::{Draft, Snapshots};
use crate::users;
use crate::value::Value;
use crate::worker::LocalWorker;
use solver::key::ContentId;
use solver::op::{self, File, FileAction};
use solver::schedule::OpTask;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

impl LocalWorker {
    pub(crate) async fn file(&self, file: &File, task: &OpTask<'_, Value>) -> Result<Value> {
        for input in task.inputs {
            self.materialise(input, task).await?;
        }
        let (this, file, adopt) = (self.clone(), file.clone(), task.adopt);
        let (inputs, contributions) = (task.inputs.to_vec(), task.contributions.to_vec());
        let ahead = self.ahead.take(&task.vertex, task.contributions);
        cancellable(move |cancelled| {
            let Some(Value::Files(below)) = inputs.first() else { return Err(Error::WrongInput) };
            let has_files = !below.layers().is_empty();
            let draft = if has_files { this.snapshots.draft(below)? } else { this.snapshots.plain()? };
            let (copied, into) = (Copied::default(), None);
            let (file, inputs) = (&file, inputs.as_slice());
            let step = FileStep {
                worker: &this,
                file,
                inputs,
                has_files,
                ahead,
                cancelled,
                draft,
                is_behind: false,
                copied,
                into,
                unpacked: false,
                adopt,
            };
            step.run(&contributions)
        })
        .await
    }
}

/// A file step on its way.
struct FileStep<'a> {
    worker: &'a LocalWorker,
    file: &'a File,
    inputs: &'a [Value],
    /// Whether there is something below; if not, no users are known.
    has_files: bool,
    /// The step's only copy, if it was made ahead.
    ahead: Option<AheadCopy>,
    cancelled: &'a AtomicBool,
    draft: Draft,
    /// Something was moved into the layer that the draft's view may not show.
    is_behind: bool,
    copied: Copied,
    /// The directory whose files' digests are known.
    into: Option<Vec<u8>>,
    /// Something was an archive.
    unpacked: bool,
    /// Earlier layers may be made use of.
    adopt: bool,
}

impl FileStep<'_> {
    fn run(mut self, contributions: &[ContentId]) -> Result<Value> {
        for action in &self.file.actions {
            if std::mem::take(&mut self.is_behind) {
                self.worker.snapshots.refresh(&mut self.draft)?;
            }
            match action {
                FileAction::Mkdir(mkdir) => {
                    let owner = match mkdir.owner.as_str() {
                        "" => (0, 0),
                        owner => users::owner(self.draft.root.as_fd(), owner).map_err(Error::Owner)?,
                    };
                    fileop::mkdir(self.draft.root.as_fd(), &mkdir.path, owner, mkdir.time)?;
                }
                FileAction::Mkfile(mkfile) => {
                    fileop::mkfile(self.draft.root.as_fd(), &mkfile.path, mkfile.data.as_bytes(), mkfile.mode)?;
                }
                FileAction::Copy(copy) => self.copy(copy)?,
            }
        }
        self.copied.check(contributions)?;
        self.copied.keep_listings(self.worker.store(), contributions);
        if !self.unpacked {
            // A copy is found without them (D23.3).
            self.draft.leave_out_times();
        }
        let stack = self.worker.snapshots.commit_knowing(self.draft, self.adopt, self.into.as_deref())?;
        if let (Some(into), Some(layer), Some(Value::Local(context))) =
            (self.into, stack.layers().last(), self.inputs.get(1))
        {
            self.worker.copies().remember(self.file, context, &layer.id, into)?;
        }
        Ok(Value::Files(Arc::new(stack)))
    }

    fn copy(&mut self, copy: &op::Copy) -> Result<()> {
        let (snapshots, owner) = (&self.worker.snapshots, self.owner(copy)?);
        let (stage, layer) = (snapshots.stage()?, self.draft.layer()?);
        let view;
        let (source, context) = match self.inputs.get(copy.from) {
            Some(Value::Local(context)) => (context.source.tree(), Some(context)),
            Some(Value::Files(stack)) => {
                view = snapshots.view(&stack.ids())?;
                (SourceTree { root: view.as_fd(), ignore: None, ignore_name: "", cancelled: None }, None)
            }
            None => return Err(Error::WrongInput),
        };
        // A layer has one book, so only the digests of a single copy are written down.
        let booked = context.filter(|_| self.file.actions.len() == 1);
        let previous =
            booked.filter(|_| self.adopt).and_then(|context| self.worker.copies().previous(self.file, context));
        let book = booked.and_then(|_| BookWriter::create(&stage.digests()).ok());
        let mut listing = Listing::default();
        let request = CopyRequest {
            source: SourceTree { cancelled: Some(self.cancelled), ..source },
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
                listing: Some(&listing),
            }),
        };
        let mut view = DraftView { snapshots, draft: &mut self.draft };
        let (summary, has_book, stage) = match &mut self.ahead {
            Some((ahead, staged, listed)) => {
                let summary = fileop::place_staged(&request, &mut view, staged, &ahead.root)?;
                listing = std::mem::take(listed);
                (summary, true, &*ahead)
            }
            None => {
                let summary = fileop::copy(&request, &mut view)?;
                (summary, book.is_some_and(|book| book.finish().is_ok()), &stage)
            }
        };
        if has_book && summary.into.is_some() {
            self.draft.take_digests(stage);
            self.into = summary.into;
        }
        self.is_behind = summary.is_behind;
        self.unpacked |= summary.unpacked;
        if summary.digest.is_some() {
            self.copied.add(copy.from, summary.digest, listing);
        }
        Ok(())
    }

    fn owner(&self, copy: &op::Copy) -> Result<Owner> {
        match &copy.chown {
            Some(owner) if !self.has_files && !users::is_numeric(owner) => {
                Err(Error::Owner(users::UserError::NoFiles(owner.clone())))
            }
            Some(owner) => {
                let (uid, gid) = users::owner(self.draft.root.as_fd(), owner).map_err(Error::Owner)?;
                Ok(Owner::Set(uid, gid))
            }
            None if copy.keep_owner => Ok(Owner::Keep),
            None => Ok(Owner::Root),
        }
    }
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
