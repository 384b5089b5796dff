//! Writing what a build found and made to a remote cache.

use super::layer::{check, fetch, is_checked, layer_blob};
use super::ledger::Entries;
use super::{CachedLayer, RemoteCaches};
use crate::error::{Error, Result, blocking};
use crate::export::image::step_blob;
use crate::snapshot::Snapshots;
use crate::source::image::Images;
use crate::value::{Layer, LayerOrigin, Stack};
use cache::remote::mounts::MountRecord;
use cache::remote::{BUILDKIT_LIMIT, CachedBlob, Export, ExportedStep, Remote, StepResult, Transport, inline_value};
use cache::{LayerId, Store};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci::codec::Compression;
use oci::{Descriptor, Digest};
use rayon::prelude::*;
use solver::event::{EventSink, Task};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// How many blobs go up at the same time, at most.
const UPLOADS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExportOptions {
    /// Layers of all steps, not just those of the result (R7.5.3).
    pub all: bool,
    /// `None`: as layers were written for an image, else gzip.
    pub compression: Option<Compression>,
    /// Also of layers that came from a remote cache.
    pub force: bool,
    /// Directories of `RUN --mount=type=cache` too.
    pub mounts: bool,
}

/// A step's layer for the cache.
struct Prepared {
    result: StepResult,
    blob: CachedBlob,
    /// The layer's own cache, if the blob is there as it is wanted.
    lies_at: Option<Arc<LayerOrigin>>,
}

/// Writes the cache. `None` if there was nothing to write (R7.6.17), or nothing lists what was written.
pub async fn export(
    caches: &RemoteCaches,
    snapshots: &Snapshots,
    results: &[&Stack],
    remote: &Remote,
    options: ExportOptions,
    task: &Task,
) -> Result<Option<Descriptor>> {
    const PREPARING: &str = "preparing build cache for export";
    task.status(PREPARING, 0, 0, false);
    let entries = caches.ledger.as_ref().map(|ledger| ledger.so_far()).unwrap_or_default();
    let of_results: HashSet<&LayerId> =
        results.iter().flat_map(|stack| stack.layers()).map(|layer| &layer.id).collect();
    let tops = entries.steps().filter_map(|(_, stack, _)| stack.layers().last());
    let wanted: BTreeMap<LayerId, Layer> = tops
        .filter(|layer| options.all || of_results.contains(&layer.id))
        .map(|layer| (layer.id.clone(), layer.clone()))
        .collect();
    let mut prepared = prepare(snapshots, wanted, options, task).await?;
    task.status(PREPARING, 0, 0, true);
    let store = snapshots.store();
    let blobs: BTreeMap<Digest, &Prepared> = prepared.values().map(|layer| (layer.blob.digest, layer)).collect();
    let uploads = stream::iter(blobs.values().map(|layer| upload(store, layer, remote, task)));
    let uploaded: Vec<_> = uploads.buffer_unordered(UPLOADS).try_collect().await?;
    let lost: HashSet<Digest> = uploaded.into_iter().flatten().collect();
    prepared.retain(|_, layer| !lost.contains(&layer.blob.digest));
    let mounts = match options.mounts {
        true => super::mounts::export(caches, store, remote, task).await?,
        false => vec![],
    };
    if prepared.is_empty() && mounts.is_empty() {
        task.status("skipping cache export for empty result", 0, 0, true);
        return Ok(None);
    }
    let published = document(snapshots, &entries, &prepared, mounts).publish(remote.wants_annotations())?;
    if published.config.len() > BUILDKIT_LIMIT {
        let size = published.config.len();
        task.status(format!("the cache's document has {size} bytes: BuildKit would not read it"), 0, 0, true);
    }
    let config = Digest::of(&published.config);
    task.status(format!("writing config {config}"), 0, 0, false);
    let listed = remote.publish(&published).await?;
    task.status(format!("writing config {config}"), 0, 0, true);
    if let Some(listed) = &listed {
        task.status(format!("writing cache image manifest {}", listed.digest()), 0, 0, true);
    }
    Ok(listed)
}

/// What an image that ends with `stack` says of its steps: the value of [`cache::remote::INLINE`]; nothing if it has no layers of steps. Where the image's
/// layers do not have the times of the steps' files, nobody can check the content ids.
pub fn inline(
    caches: &RemoteCaches,
    snapshots: &Snapshots,
    stack: &Stack,
    has_other_times: bool,
) -> Result<Option<serde_json::Value>> {
    let entries = caches.ledger.as_ref().map(|ledger| ledger.so_far()).unwrap_or_default();
    let mut positions = HashMap::new();
    for (position, layer) in stack.layers().iter().enumerate() {
        positions.entry(&layer.id).or_insert(position);
    }
    let mut steps = Vec::new();
    for (key, stack, inputs) in entries.steps() {
        let Some(top) = stack.layers().last() else { continue };
        let chain = stack.layers().iter().map(|layer| positions.get(&layer.id).copied()).collect::<Option<Vec<_>>>();
        let known = match &chain {
            Some(_) => known(snapshots, top)?,
            None => None,
        };
        let chain = chain.filter(|_| known.is_some()).unwrap_or_default();
        // How the image's layers are compressed is the image's business.
        let mut result = StepResult { codec: None, ..known.unwrap_or_else(|| content_alone(snapshots, top)) };
        result.started = result.started.filter(|_| !has_other_times);
        steps.push(ExportedStep { key: *key, result, chain, inputs, output: stack.content().0 });
    }
    if steps.iter().all(|step| step.chain.is_empty()) {
        return Ok(None);
    }
    let export = Export { steps, selections: entries.selections, ..Export::default() };
    Ok(Some(inline_value(&export.inline()?)))
}

/// What is known of a layer beside its blob; nothing if it is not there.
fn known(snapshots: &Snapshots, layer: &Layer) -> Result<Option<StepResult>> {
    match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) => Ok(Some(cached.result.clone())),
        Some(LayerOrigin::Image(_)) => Ok(None),
        None => Ok(snapshots.store().layer(&layer.id)?.map(|record| StepResult {
            content: layer.content,
            created: record.created,
            started: snapshots.began(&layer.id).unwrap_or_default(),
            single_owner: snapshots.has_single_owner(),
            codec: None,
            blob: None,
        })),
    }
}

fn content_alone(snapshots: &Snapshots, layer: &Layer) -> StepResult {
    let single_owner = match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) => cached.result.single_owner,
        _ => snapshots.has_single_owner(),
    };
    StepResult { content: layer.content, created: 0, started: None, single_owner, codec: None, blob: None }
}

/// Fetches the layers of a result that an output needs and only remote caches have. With `files` they become directories.
pub async fn make_ready(
    images: &Images,
    snapshots: &Snapshots,
    stack: &Stack,
    files: bool,
    events: &EventSink,
) -> Result<()> {
    let cached = stack.layers().iter().filter_map(|layer| match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) => Some((layer.clone(), cached.as_ref())),
        _ => None,
    });
    let cached: Vec<_> = cached.collect();
    let store = snapshots.store();
    let is_ready = |(layer, cached): &(Layer, &CachedLayer)| match files {
        true => store.has_layer(&layer.id).unwrap_or(false),
        false => is_checked(store, layer, cached).unwrap_or(false),
    };
    if cached.iter().all(is_ready) {
        return Ok(());
    }
    let task = events.start("fetching layers from remote caches");
    let layers: Vec<_> = cached.iter().map(|(_, cached)| *cached).collect();
    fetch(store, &layers, task.digest(), events).await?;
    if files {
        images.unpack(snapshots, stack, task.digest(), events).await?;
    } else {
        let (snapshots, stack) = (snapshots.clone(), stack.clone());
        blocking(move || {
            stack.layers().par_iter().try_for_each(|layer| match layer.origin.as_deref() {
                Some(LayerOrigin::Cached(cached)) => check(snapshots.store(), layer, cached),
                _ => Ok(()),
            })
        })
        .await?;
    }
    task.done();
    Ok(())
}

async fn prepare(
    snapshots: &Snapshots,
    wanted: BTreeMap<LayerId, Layer>,
    options: ExportOptions,
    task: &Task,
) -> Result<BTreeMap<LayerId, Prepared>> {
    // Those that are to be compressed anew must be here.
    let compression = options.compression.unwrap_or(Compression::GZIP);
    let recompressed = |cached: &CachedLayer| options.force && cached.result.codec.as_ref() != Some(&compression.key());
    let fetched = wanted.values().filter_map(|layer| match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) if cached.result.blob.is_some() && recompressed(cached) => {
            Some(cached.as_ref())
        }
        _ => None,
    });
    fetch(snapshots.store(), &fetched.collect::<Vec<_>>(), task.digest(), task.sink()).await?;
    let snapshots = snapshots.clone();
    blocking(move || {
        let prepare =
            |(id, layer): (LayerId, Layer)| Ok(prepare_one(&snapshots, &layer, options)?.map(|done| (id, done)));
        let prepared: Result<Vec<_>> = wanted.into_par_iter().map(prepare).collect();
        Ok(prepared?.into_iter().flatten().collect())
    })
    .await
}

fn prepare_one(snapshots: &Snapshots, layer: &Layer, options: ExportOptions) -> Result<Option<Prepared>> {
    let store = snapshots.store();
    let Some(mut result) = known(snapshots, layer)? else { return Ok(None) };
    let compression = options.compression.unwrap_or(Compression::GZIP);
    let (blob, compression) = match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) => {
            let Some(blob) = &cached.result.blob else { return Ok(None) };
            if !options.force || cached.result.codec == Some(compression.key()) {
                return Ok(Some(Prepared { blob: blob.clone(), result, lies_at: layer.origin.clone() }));
            }
            (layer_blob(store, layer, cached, compression)?, compression)
        }
        _ => {
            let compression = match options.compression {
                Some(compression) => compression,
                None => written_compression(store, &layer.id)?.unwrap_or(compression),
            };
            (step_blob(snapshots, layer, compression)?, compression)
        }
    };
    let media_type = compression.media_type(false);
    let blob = CachedBlob { digest: blob.digest, size: blob.size, media_type, diff_id: blob.diff_id };
    result.codec = Some(compression.key());
    Ok(Some(Prepared { result, blob, lies_at: None }))
}

/// The compression that a layer was written with for an image.
fn written_compression(store: &Store, layer: &LayerId) -> Result<Option<Compression>> {
    for compression in [Compression::GZIP, Compression::ZSTD] {
        if store.layer_blob(layer, &compression.key())?.is_some() {
            return Ok(Some(compression));
        }
    }
    Ok(None)
}

/// Puts a blob into the cache, unless it is there. Gives its digest if it cannot be had.
async fn upload(store: &Store, layer: &Prepared, remote: &Remote, task: &Task) -> Result<Option<Digest>> {
    let (descriptor, digest, size) = (layer.blob.descriptor(), layer.blob.digest, layer.blob.size);
    if remote.has_blob(&descriptor).await? {
        return Ok(None);
    }
    let status = format!("writing layer {digest}");
    task.status(&status, 0, size, false);
    if let Some(LayerOrigin::Cached(cached)) = layer.lies_at.as_deref() {
        if remote.mount_blob(&descriptor, &cached.source.remote).await? {
            task.status(&status, size, size, true);
            return Ok(None);
        }
        match fetch(store, &[cached], task.digest(), task.sink()).await {
            Ok(()) => {}
            Err(Error::Unavailable(problem)) => {
                task.status(format!("left out: {problem}"), 0, 0, true);
                return Ok(Some(digest));
            }
            Err(error) => return Err(error),
        }
    }
    let mut shown = 0;
    let mut progress = |sent: u64| {
        if sent >= shown + size / 20 {
            shown = sent;
            task.status(&status, sent, size, false);
        }
    };
    remote.write_blob(&descriptor, &store.blob_path(&digest), &mut progress).await?;
    task.status(&status, size, size, true);
    Ok(None)
}

fn document(
    snapshots: &Snapshots,
    entries: &Entries,
    prepared: &BTreeMap<LayerId, Prepared>,
    mounts: Vec<MountRecord>,
) -> Export {
    let positions: HashMap<&LayerId, usize> = prepared.keys().enumerate().map(|(index, id)| (id, index)).collect();
    let steps = entries.steps().filter_map(|(key, stack, inputs)| {
        let top = stack.layers().last()?;
        let (result, chain) = match prepared.get(&top.id) {
            Some(layer) => {
                let chain = stack.layers().iter().filter_map(|layer| positions.get(&layer.id).copied());
                (layer.result.clone(), chain.collect())
            }
            None => (content_alone(snapshots, top), vec![]),
        };
        Some(ExportedStep { key: *key, result, chain, inputs, output: stack.content().0 })
    });
    let blobs = prepared.values().map(|layer| (layer.blob.clone(), layer.result.created));
    Export { blobs: blobs.collect(), steps: steps.collect(), selections: entries.selections.clone(), mounts }
}
