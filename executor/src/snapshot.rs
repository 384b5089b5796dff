//! Layers as directories: making a base's there, mounting a stack, and turning what a step wrote into a new layer.

use crate::error::{Error, Result};
use crate::fileop::{self, Book, Previous};
use crate::mount;
use crate::remote::CachedLayer;
use crate::sandbox::Privileges;
use crate::value::{ImageLayer, Layer, Stack};
use cache::{Attempt, Kind, LayerId, LayerRecord, Store};
use oci::DiffId;
use oci::codec::{HashingReader, ReadAhead, decoder};
use oci::layer::{ApplyOptions, Change, ChangeKind, ContentTimes, Marks};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Mounts stacks of a store's layers. All mounts are detached: they live as long as their descriptor and show nowhere.
#[derive(Clone)]
pub struct Snapshots {
    store: Store,
    privileges: Privileges,
    /// The store knows that its layers are of this kind.
    is_written_down: Arc<OnceLock<()>>,
}

/// A layer in the making: a fresh directory over a stack.
pub struct Draft {
    attempt: Attempt,
    below: Stack,
    /// The merged view, writable.
    pub root: OwnedFd,
    started: SystemTime,
    times_count: bool,
}

/// The directory of a layer that its book begins at: a layer may be adopted by a step that copied into another one.
const BEGINS: &str = cache::MEMOS_OF_LAYERS;
/// Who made the store's layers.
const MADE_AS: &str = "made-as";
/// When the step began that made a layer: its content id says nothing of file times since then.
const BEGAN: &str = "layer-began";
/// In place of that: no file times of the layer are content.
const TIMELESS: i64 = -1;

/// Digests of files of a layer. Those that are in it have no second name in the layer.
pub struct LayerBook {
    book: Book,
    /// Canonical path of the directory that paths in the book are relative to.
    begins: Vec<u8>,
}

impl LayerBook {
    fn open(path: &Path, begins: Vec<u8>) -> Option<LayerBook> {
        Book::open(path).map(|book| LayerBook { book, begins })
    }

    /// Of the file at `path`, relative to the layer's root.
    pub fn digest(&self, path: &[u8]) -> Option<[u8; 32]> {
        let inside = match self.begins.as_slice() {
            [] => path,
            directory => path.strip_prefix(directory)?.strip_prefix(b"/")?,
        };
        self.book.digest(inside)
    }

    /// As what a copy into the same directory can link from. `layer` is the layer's root.
    pub fn into_previous(self, layer: &OwnedFd, into: &[u8]) -> Option<Previous> {
        let root = fileop::open_directory(layer.as_fd(), &self.begins).ok()?;
        (into == self.begins).then(|| Previous::new(root, self.book))
    }
}

/// A directory beside the layers in which files are put together.
pub struct Stage {
    attempt: Attempt,
    pub root: OwnedFd,
}

impl Stage {
    /// Where the digests of its files are written down.
    pub fn digests(&self) -> PathBuf {
        self.attempt.digests()
    }
}

impl Draft {
    /// Says that files have the times of those that they were copied from, without which such a copy is found. They do not make other content then.
    pub fn leave_out_times(&mut self) {
        self.times_count = false;
    }

    /// Root of the layer's own directory, below the overlay.
    pub fn layer(&self) -> Result<OwnedFd> {
        Ok(mount::open_directory(self.attempt.upper())?)
    }

    /// Takes over what a stage knows of the digests of files that were moved here.
    pub fn take_digests(&self, stage: &Stage) {
        // Without them nothing is lost but time.
        let _ = std::fs::rename(stage.digests(), self.attempt.digests());
    }
    /// Where what is written lies on the host; for programs that want a path.
    pub fn upper(&self) -> &Path {
        self.attempt.upper()
    }

    /// A place of its own on the same file system, gone when the draft is committed or dropped.
    pub fn scratch(&self) -> &Path {
        self.attempt.work()
    }
}

impl Snapshots {
    pub fn new(store: Store, privileges: Privileges) -> Self {
        Snapshots { store, privileges, is_written_down: Arc::default() }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Layers have the owners and marks that could be had when they were made. Whoever has other ids must not take them for its own, nor results that
    /// were made of them.
    pub fn check_fitness(&self) -> Result<()> {
        let own = self.privileges.describe();
        match self.store.memo(MADE_AS, "")? {
            Some(made_as) if made_as != own.as_bytes() => Err(Error::OtherIds {
                root: self.store.root().to_owned(),
                made_as: String::from_utf8_lossy(&made_as).into_owned(),
                own,
            }),
            _ => Ok(()),
        }
    }

    fn begin(&self) -> Result<Attempt> {
        if self.is_written_down.get().is_none() {
            self.check_fitness()?;
            self.store.put_memo(MADE_AS, "", self.privileges.describe().as_bytes())?;
            let _ = self.is_written_down.set(());
        }
        Ok(self.store.begin_layer()?)
    }

    /// The merged, read-only view of a stack whose layers are all there.
    pub fn view(&self, layers: &[LayerId]) -> Result<OwnedFd> {
        let paths: Vec<_> = layers.iter().map(|id| self.store.layer_path(id)).collect();
        Ok(mount::overlay(&paths, None, &self.store.empty_directory(), self.privileges)?)
    }

    /// A writable view over `below`; [`commit`](Snapshots::commit) keeps what was written, dropping forgets it.
    pub fn draft(&self, below: &Stack) -> Result<Draft> {
        let attempt = self.begin()?;
        let root = self.mount(&attempt, below)?;
        Ok(Draft { attempt, below: below.clone(), root, started: SystemTime::now(), times_count: true })
    }

    /// An empty directory that can be moved from into any draft.
    pub fn stage(&self) -> Result<Stage> {
        let attempt = self.begin()?;
        let root = mount::open_directory(attempt.upper())?;
        Ok(Stage { attempt, root })
    }

    /// Makes the draft's view see what was written below it, behind its back.
    pub fn refresh(&self, draft: &mut Draft) -> Result<()> {
        if draft.below.layers().is_empty() {
            return Ok(());
        }
        self.remount(draft)
    }

    /// Mounts the draft's view once more: a mount ends with the sandbox that it was moved into. That must have ended.
    pub fn remount(&self, draft: &mut Draft) -> Result<()> {
        // The old mount must be gone first, and a work directory is used once.
        draft.root = mount::open_directory(draft.attempt.upper())?;
        let work = draft.attempt.work();
        std::fs::remove_dir_all(work).and_then(|()| std::fs::create_dir(work)).map_err(Error::write("a layer"))?;
        draft.root = self.mount(&draft.attempt, &draft.below)?;
        Ok(())
    }

    fn mount(&self, attempt: &Attempt, below: &Stack) -> Result<OwnedFd> {
        self.mount_over(&below.ids(), attempt.upper(), attempt.work())
    }

    /// The writable view of layers, bottom first, with an upper directory and a fresh work directory.
    pub fn mount_over(&self, layers: &[LayerId], upper: &Path, work: &Path) -> Result<OwnedFd> {
        let paths: Vec<_> = layers.iter().map(|id| self.store.layer_path(id)).collect();
        Ok(mount::overlay(&paths, Some((upper, work)), &self.store.empty_directory(), self.privileges)?)
    }

    /// An empty file system that is written without an overlay in between: for files that rbuild makes itself, as an overlay
    /// would take device 0:0 for the mark of a deleted file.
    pub fn plain(&self) -> Result<Draft> {
        let attempt = self.begin()?;
        let root = mount::open_directory(attempt.upper())?;
        Ok(Draft { attempt, below: Stack::default(), root, started: SystemTime::now(), times_count: true })
    }

    /// A stack of one layer that stands on nothing, if it is still there.
    pub fn stack_of(&self, id: &LayerId) -> Result<Option<Stack>> {
        let record = self.store.layer(id)?;
        let layer = record.map(|record| Layer { id: id.clone(), content: record.content_id, origin: None });
        Ok(layer.map(|layer| Stack::default().with(layer)))
    }

    /// Makes what was written a layer on top of what was below.
    ///
    /// With `adopt`, an earlier layer over equal content that has the same content stands in for the new one, so that
    /// everything after it stays cached and the image's digest stays the same.
    pub fn commit(&self, draft: Draft, adopt: bool) -> Result<Stack> {
        let lower = self.lower(&draft.below)?;
        self.commit_over(draft, lower, adopt, None)
    }

    /// The same. `copied_into` is a directory whose files' digests the draft has with it.
    pub fn commit_knowing(&self, draft: Draft, adopt: bool, copied_into: Option<&[u8]>) -> Result<Stack> {
        let lower = self.lower(&draft.below)?;
        self.commit_over(draft, lower, adopt, copied_into)
    }

    /// The same, with the view of what is below, so that it can be made while something else is waited for.
    pub fn commit_over(
        &self,
        draft: Draft,
        lower: Option<OwnedFd>,
        adopt: bool,
        copied_into: Option<&[u8]>,
    ) -> Result<Stack> {
        let Draft { attempt, below, root, started, times_count } = draft;
        let book = copied_into.and_then(|begins| LayerBook::open(&attempt.digests(), begins.to_vec()));
        let known = |path: &[u8]| book.as_ref()?.digest(path);
        let is_single = |path: &[u8]| known(path).is_some();
        // The overlay must be gone before its upper directory becomes a lower one.
        drop(root);
        let upper = mount::open_directory(attempt.upper())?;
        let mut size = 0;
        let mut diff = oci::layer::diff(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), self.marks(), &is_single)?;
        let changes = diff.by_ref().inspect(|change| {
            if let Ok(Change { kind: ChangeKind::File { size: bytes }, .. }) = change {
                size += bytes;
            }
        });
        let ended = SystemTime::now();
        let times = if times_count { ContentTimes::Outside(started, ended) } else { ContentTimes::None };
        let content = oci::layer::content_id(changes, upper.as_fd(), times, &known)?;
        let content = match diff.other_attributes() {
            Some(attributes) => *blake3::hash(&[content, attributes].concat()).as_bytes(),
            None => content,
        };
        let earlier = if adopt { self.store.layer_with_content(below.content().0, content)? } else { None };
        let id = match earlier {
            Some(id) => id,
            None => {
                let id = attempt.commit(None, &self.record(&below, content, ended, size, None))?;
                let began = if times_count { nanoseconds(started) } else { TIMELESS };
                self.store.put_memo(BEGAN, &id.to_string(), &began.to_le_bytes())?;
                if let Some(book) = &book {
                    self.store.put_memo(BEGINS, &id.to_string(), &book.begins)?;
                }
                id
            }
        };
        Ok(below.with(Layer { id, content, origin: None }))
    }

    /// What is known of a layer's files, if its maker wrote it down.
    pub fn book(&self, layer: &LayerId) -> Option<LayerBook> {
        let begins = self.store.memo(BEGINS, &layer.to_string()).ok()??;
        LayerBook::open(&self.store.layer_digests(layer), begins)
    }

    /// When the step began that made a layer, in nanoseconds since 1970, if that is known; -1 if no times of the layer are content.
    pub fn began(&self, layer: &LayerId) -> Result<Option<i64>> {
        let began = self.store.memo(BEGAN, &layer.to_string())?;
        Ok(began.and_then(|began| began.try_into().ok()).map(i64::from_le_bytes))
    }

    /// Unpacks an image's layer from its blob on top of `below`, verified against its diff id.
    pub fn unpack(&self, layer: &Layer, origin: &ImageLayer, below: &Stack) -> Result<()> {
        let digest = oci::Digest::try_from(origin.descriptor.digest())
            .map_err(|error| Error::Manifest { reference: origin.reference.to_string(), problem: error.to_string() })?;
        let unpacked = self.unpack_blob(&digest, origin.diff_id, below)?;
        let record = self.record(below, layer.content, SystemTime::now(), unpacked.bytes, Some(origin.diff_id));
        unpacked.attempt.commit(Some(layer.id.clone()), &record)?;
        let text = format!("unpacked layer of {}", origin.reference);
        self.store.describe_layer(&layer.id, Kind::Regular, &text);
        Ok(())
    }

    /// Unpacks a layer that was made elsewhere, verified against its diff id and, where the ids of its files can be had, its content id.
    pub fn unpack_cached(&self, layer: &Layer, cached: &CachedLayer, below: &Stack) -> Result<()> {
        let result = &cached.result;
        let blob = result.blob.as_ref().ok_or_else(|| cached.unavailable(None))?;
        let unpacked = self.unpack_blob(&blob.digest, blob.diff_id, below)?;
        let created = UNIX_EPOCH + Duration::from_nanos(u64::try_from(result.created).unwrap_or(0));
        let times = result.started.and_then(|started| match u64::try_from(started) {
            Ok(started) => Some(ContentTimes::Outside(UNIX_EPOCH + Duration::from_nanos(started), created)),
            Err(_) => (started == TIMELESS).then_some(ContentTimes::None),
        });
        if let Some(times) = times
            && self.privileges != Privileges::SingleId
        {
            let upper = mount::open_directory(unpacked.attempt.upper())?;
            let lower = self.lower(below)?;
            let changes = oci::layer::diff(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), self.marks(), &|_| false)?;
            let found = oci::layer::content_id(changes, upper.as_fd(), times, &|_| None)?;
            if found != result.content {
                return Err(cached.unavailable(Some("its files are not those that the cache says".into())).into());
            }
        }
        let record = self.record(below, layer.content, created, unpacked.bytes, Some(blob.diff_id));
        unpacked.attempt.commit(Some(layer.id.clone()), &record)?;
        if let Some(started) = result.started {
            self.store.put_memo(BEGAN, &layer.id.to_string(), &started.to_le_bytes())?;
        }
        Ok(())
    }

    fn unpack_blob(&self, digest: &oci::Digest, diff_id: DiffId, below: &Stack) -> Result<Unpacked> {
        let unpacked = self.try_unpack_blob(digest, diff_id, below);
        // It may be that the blob is good, and what was said of it wrong.
        if unpacked.as_ref().is_err_and(Error::is_of_content) && self.store.drop_if_damaged(digest) {
            return Err(Error::DamagedBlob(*digest));
        }
        unpacked
    }

    fn try_unpack_blob(&self, digest: &oci::Digest, diff_id: DiffId, below: &Stack) -> Result<Unpacked> {
        let blob = self.store.open_blob(digest)?;
        let attempt = self.begin()?;
        let destination = mount::open_directory(attempt.upper())?;
        let lower = self.lower(below)?;
        let mut tar = HashingReader::new(ReadAhead::new(decoder(blob).map_err(Error::ReadLayer)?));
        let options = ApplyOptions { marks: self.marks(), single_id: self.privileges == Privileges::SingleId };
        let summary = oci::layer::apply(&mut tar, destination.as_fd(), lower.as_ref().map(AsFd::as_fd), options)?;
        for warning in &summary.warnings {
            tracing::debug!(layer = %digest, "{warning}");
        }
        let (_, found, _) = tar.finish();
        if found != diff_id.0 {
            return Err(Error::WrongDiffId { expected: diff_id, found: DiffId(found) });
        }
        Ok(Unpacked { attempt, bytes: summary.bytes })
    }

    /// The view of what is below a draft, if there is anything.
    pub fn lower(&self, below: &Stack) -> Result<Option<OwnedFd>> {
        if below.layers().is_empty() { Ok(None) } else { self.view(&below.ids()).map(Some) }
    }

    fn record(
        &self,
        below: &Stack,
        content_id: [u8; 32],
        created: SystemTime,
        size: u64,
        diff_id: Option<DiffId>,
    ) -> LayerRecord {
        LayerRecord {
            lowers: below.ids(),
            lowers_content: below.content().0,
            content_id,
            created: nanoseconds(created),
            userxattr: self.marks() == Marks::User,
            size,
            diff_id,
        }
    }

    /// Whether all files have one owner here, for want of other ids.
    pub fn has_single_owner(&self) -> bool {
        self.privileges == Privileges::SingleId
    }

    /// Those of the overlays that are mounted here.
    pub fn marks(&self) -> Marks {
        if self.privileges == Privileges::Root { Marks::Trusted } else { Marks::User }
    }
}

/// A layer that was unpacked and is not yet one.
struct Unpacked {
    attempt: Attempt,
    bytes: u64,
}

fn nanoseconds(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}
