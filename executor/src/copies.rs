//! Copies of contexts before and after the step that wants them.
//!
//! A context's files are read to find out a COPY's key. If that COPY was never made before, it will have to be: so the same reading copies them too,
//! into a directory that the step only has to move to its place. If it was made before, most likely nothing changed, and nothing is
//! copied ahead; where something did, the copy made then is what unchanged files are linked from.

use crate::error::{Error, Result};
use crate::fileop::{self, Account, BookWriter, Listing, Owner, Previous, SourceTree, Staged};
use crate::mount;
use crate::snapshot::{Snapshots, Stage};
use crate::users;
use crate::value::Context;
use crate::worker::LocalWorker;
use cache::{LayerId, Store};
use serde::{Deserialize, Serialize};
use solver::key::ContentId;
use solver::op::{File, FileAction, Input, Op};
use solver::schedule::selections_id;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// The layer that a step made of a context.
const MADE: &str = "copy";
/// That a step was made, of whatever context.
const KNOWN: &str = "copy-known";

/// A copy that was made ahead, and what is in it.
pub(crate) type AheadCopy = (Stage, Staged, Listing);

/// What was copied ahead, by vertex. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Ahead(Arc<Mutex<HashMap<String, AheadCopy>>>);

impl Ahead {
    /// The copy for a vertex, if it is of what its key says.
    pub fn take(&self, vertex: &str, contributions: &[ContentId]) -> Option<AheadCopy> {
        let (stage, staged, listing) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(vertex)?;
        let digest = staged.summary.digest?;
        (contributions.get(1) == Some(&selections_id(&[digest]))).then_some((stage, staged, listing))
    }

    fn put(&self, vertex: &str, copy: AheadCopy) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex.to_owned(), copy);
    }
}

/// What a step has copied of contexts, by input, in the order of its actions.
#[derive(Default)]
pub(crate) struct Copied(BTreeMap<Input, (Vec<[u8; 32]>, Vec<Listing>)>);

impl Copied {
    pub fn add(&mut self, input: Input, digest: Option<[u8; 32]>, listing: Listing) {
        let (digests, listings) = self.0.entry(input).or_default();
        digests.extend(digest);
        listings.push(listing);
    }

    /// Whether that is what the key says: contexts may have changed since it was computed.
    pub fn check(&self, contributions: &[ContentId]) -> Result<()> {
        let is_same = |(input, (digests, _)): (&Input, &(Vec<_>, _))| {
            contributions.get(*input).is_none_or(|contribution| *contribution == selections_id(digests))
        };
        if self.0.iter().all(is_same) { Ok(()) } else { Err(Error::ContextChanged) }
    }

    /// Keeps what was copied for builds that want to know what is new.
    pub fn keep_listings(&mut self, store: &Store, contributions: &[ContentId]) {
        for (input, (_, listings)) in std::mem::take(&mut self.0) {
            if let Some(contribution) = contributions.get(input) {
                keep_listing(store, *contribution, Listing::all(listings));
            }
        }
    }
}

/// Without it, a later build cannot say which files are new; that is all.
pub(crate) fn keep_listing(store: &Store, contribution: ContentId, listing: Listing) {
    if !store.has_file_list(&contribution.0)
        && let Some(packed) = listing.pack()
    {
        let _ = store.put_file_list(&contribution.0, &packed);
    }
}

/// What the store remembers of copies.
pub(crate) struct Copies<'a> {
    pub snapshots: &'a Snapshots,
}

#[derive(Serialize, Deserialize)]
struct Made {
    layer: LayerId,
    /// The canonical path of the directory that was copied into.
    into: Vec<u8>,
}

impl Copies<'_> {
    /// Whether such a step was made before.
    fn is_known(&self, file: &File) -> bool {
        matches!(self.snapshots.store().memo(KNOWN, &key(file, None)), Ok(Some(_)))
    }

    pub fn remember(&self, file: &File, context: &Context, layer: &LayerId, into: Vec<u8>) -> Result<()> {
        let made = serde_json::to_vec(&Made { layer: layer.clone(), into }).unwrap_or_default();
        self.snapshots.store().put_memo(MADE, &key(file, Some(context)), &made)?;
        Ok(self.snapshots.store().put_memo(KNOWN, &key(file, None), b"")?)
    }

    /// The copy that the same step made of the same context, if it is still there.
    pub fn previous(&self, file: &File, context: &Context) -> Option<Previous> {
        let made = self.snapshots.store().memo(MADE, &key(file, Some(context))).ok()??;
        let made: Made = serde_json::from_slice(&made).ok()?;
        // Asked for, so that nobody takes it away while files are linked from it.
        self.snapshots.store().has_layer(&made.layer).ok().filter(|is_there| *is_there)?;
        let layer = mount::open_directory(&self.snapshots.store().layer_path(&made.layer)).ok()?;
        self.snapshots.book(&made.layer)?.into_previous(&layer, &made.into)
    }
}

/// Hashed, since a step can be long.
fn key(file: &File, context: Option<&Context>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(file).unwrap_or_default());
    if let Some(context) = context {
        hasher.update(context.digests_path.as_os_str().as_encoded_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

impl LocalWorker {
    /// Copies what a COPY of one directory of a context is going to take, if it is likely to be needed. Gives its digest.
    pub(crate) fn copy_ahead(
        &self,
        op: &Op,
        input: Input,
        context: &Context,
        vertex: &str,
        cancelled: &AtomicBool,
    ) -> Result<Option<[u8; 32]>> {
        let Op::File(file) = op else { return Ok(None) };
        let [FileAction::Copy(copy)] = file.actions.as_slice() else { return Ok(None) };
        if copy.from != input || self.copies().is_known(file) {
            return Ok(None);
        }
        let stage = self.snapshots.stage()?;
        let owner = match &copy.chown {
            None => Owner::Root,
            Some(owner) if users::is_numeric(owner) => {
                let (uid, gid) = users::owner(stage.root.as_fd(), owner).map_err(Error::Owner)?;
                Owner::Set(uid, gid)
            }
            // Names mean what the step's own file system says.
            Some(_) => return Ok(None),
        };
        let Ok(book) = BookWriter::create(&stage.digests()) else { return Ok(None) };
        let listing = Listing::default();
        let account = Account {
            digests: &context.digests,
            recent: Some(&context.recent),
            keep_owner: false,
            previous: None,
            book: Some(&book),
            listing: Some(&listing),
        };
        let tree = SourceTree { cancelled: Some(cancelled), ..context.source.tree() };
        let (digest, staged) = fileop::stage(&tree, copy, owner, account, &stage.root)?;
        if let Some(staged) = staged {
            // Without the book the layer's files are read once more, that is all.
            let _ = book.finish();
            self.ahead.put(vertex, (stage, staged, listing));
        }
        Ok(Some(digest))
    }
}
