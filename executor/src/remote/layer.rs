//! Layers that a remote cache has, and this machine not yet.

use super::import::Source;
use crate::error::{Error, Result, blocking};
use crate::snapshot::Snapshots;
use crate::source::progress::Progress;
use crate::value::{Layer, LayerOrigin, Stack};
use cache::remote::{CachedBlob, Id, StepResult, Transport};
use cache::{LayerBlob, LayerId, ResultRecord, Store};
use oci::DiffId;
use oci::codec::{Compression, Encoder, HashingReader, decoder};
use solver::event::EventSink;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// A step's layer, as a remote cache knows it.
#[derive(Debug)]
pub struct CachedLayer {
    pub key: Id,
    pub result: StepResult,
    pub source: Arc<Source>,
}

/// Layers that were promised and cannot be had. The step that wants them is not to blame: progress shows it as cancelled.
#[derive(Debug, thiserror::Error)]
#[error("{}: context canceled", problem.as_deref().unwrap_or("a remote cache knows these steps without their files"))]
pub struct Unavailable {
    /// What is wrong; nothing if the cache never claimed to have the files.
    pub(super) problem: Option<String>,
    /// Caches that are of no use any more, by position.
    pub(super) sources: Vec<usize>,
    /// Steps, with the positions of their caches.
    pub(super) steps: Vec<(usize, Id)>,
}

impl CachedLayer {
    /// The layer on top of `below`.
    pub(crate) fn on(self, below: &Stack) -> Layer {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"rbuild cached layer 1");
        hasher.update(&below.content().0);
        hasher.update(&self.result.content);
        // Layers of equal content may differ in times, and so in their blobs.
        if let Some(blob) = &self.result.blob {
            hasher.update(blob.diff_id.0.bytes());
        }
        let (id, content) = (LayerId::of_cached(hasher.finalize().as_bytes()), self.result.content);
        Layer { id, content, origin: Some(Arc::new(LayerOrigin::Cached(Box::new(self)))) }
    }

    pub(crate) fn unavailable(&self, problem: Option<String>) -> Unavailable {
        let problem = problem.map(|problem| match &self.result.blob {
            Some(blob) => format!("layer {} of {}: {problem}", blob.digest, self.source.name),
            None => problem,
        });
        Unavailable { problem, sources: vec![], steps: vec![(self.source.index, self.key)] }
    }

    /// Where the blob cannot be had, it may be the cache that cannot.
    fn failed(&self, error: &cache::remote::Error) -> Unavailable {
        let mut unavailable = self.unavailable(Some(error.to_string()));
        if matches!(error, cache::remote::Error::Registry(error) if error.is_unreachable()) {
            unavailable.sources.push(self.source.index);
        }
        unavailable
    }
}

/// What `error` itself, rather than its cause, says of layers that cannot be had.
pub(super) fn unavailable<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Unavailable> {
    match error.downcast_ref::<Error>() {
        Some(Error::Unavailable(unavailable)) => Some(unavailable),
        Some(_) => None,
        None => error.downcast_ref(),
    }
}

/// Fetches the blobs that the store does not have, at the same time. All that cannot be had are told together.
pub(crate) async fn fetch(store: &Store, layers: &[&CachedLayer], vertex: &str, events: &EventSink) -> Result<()> {
    let mut missing: Option<Unavailable> = None;
    for fetched in
        futures_util::future::join_all(layers.iter().map(|layer| fetch_one(store, layer, vertex, events))).await
    {
        match fetched {
            Ok(()) => {}
            Err(Error::Unavailable(one)) => {
                let all = missing.get_or_insert_with(|| Unavailable { problem: None, sources: vec![], steps: vec![] });
                all.problem = all.problem.take().or(one.problem);
                all.sources.extend(one.sources);
                all.steps.extend(one.steps);
            }
            Err(error) => return Err(error),
        }
    }
    missing.map_or(Ok(()), |missing| Err(missing.into()))
}

async fn fetch_one(store: &Store, layer: &CachedLayer, vertex: &str, events: &EventSink) -> Result<()> {
    let blob = layer.result.blob.as_ref().ok_or_else(|| layer.unavailable(None))?;
    if store.has_blob(&blob.digest) {
        return Ok(());
    }
    let (own, key) = (store.clone(), *blob.digest.bytes());
    let _lock = blocking(move || Ok(own.lock_key(&key)?)).await?;
    if store.has_blob(&blob.digest) {
        return Ok(());
    }
    let mut progress = Progress::new(events, vertex, blob.digest.to_string());
    // What is written beyond the announced size would fill the disk of whoever believes a hostile server.
    let mut sink = oci::registry::SyncWriter(Bounded { writer: store.blob_writer()?, left: blob.size });
    let mut shown = |current| progress.at(current, blob.size);
    let read = layer.source.remote.read_blob(&blob.descriptor(), &mut sink, &mut shown).await;
    read.map_err(|error| layer.failed(&error))?;
    match sink.0.writer.commit(Some((blob.digest, blob.size))) {
        Ok(_) => {}
        Err(error @ (cache::Error::WrongDigest { .. } | cache::Error::WrongSize { .. })) => {
            return Err(layer.unavailable(Some(error.to_string())).into());
        }
        Err(error) => return Err(error.into()),
    }
    progress.done(blob.size);
    Ok(())
}

struct Bounded<W> {
    writer: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("more bytes came than were announced"));
        }
        let written = self.writer.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Makes a layer's directory from its blob, which is in the store. From then on the step's result is the store's own.
pub(crate) fn unpack(snapshots: &Snapshots, layer: &Layer, cached: &CachedLayer, below: &Stack) -> Result<()> {
    snapshots.unpack_cached(layer, cached, below).map_err(|error| match error {
        // What the cache sent is wrong, or what became of it. Anything else is wrong here.
        error if error.is_of_content() => cached.unavailable(Some(error.to_string())).into(),
        error => error,
    })?;
    let store = snapshots.store();
    if let (Some(blob), Some(codec)) = (&cached.result.blob, &cached.result.codec) {
        store.put_layer_blob(&layer.id, codec, &stored(blob))?;
    }
    Ok(store.record(&cached.key, &ResultRecord { layer: layer.id.clone(), note: None })?)
}

fn stored(blob: &CachedBlob) -> LayerBlob {
    LayerBlob { diff_id: blob.diff_id, digest: blob.digest, size: blob.size }
}

/// Verifies the fetched blob of a layer against its diff id, once.
pub(crate) fn check(store: &Store, layer: &Layer, cached: &CachedLayer) -> Result<()> {
    if !is_checked(store, layer, cached)? {
        let fetched = cached.result.blob.as_ref().ok_or_else(|| cached.unavailable(None))?;
        decode(store, cached, fetched, &mut io::sink())?;
        store.put_layer_blob(&layer.id, codec_of(cached), &stored(fetched))?;
    }
    Ok(())
}

/// Whether that was done, and the blob is still there.
pub(crate) fn is_checked(store: &Store, layer: &Layer, cached: &CachedLayer) -> Result<bool> {
    Ok(store.layer_blob(&layer.id, codec_of(cached))?.is_some())
}

fn codec_of(cached: &CachedLayer) -> &str {
    cached.result.codec.as_deref().unwrap_or("as fetched")
}

/// The tar in a fetched blob. What was written before an error is worth nothing.
fn decode(store: &Store, cached: &CachedLayer, fetched: &CachedBlob, out: &mut impl Write) -> Result<()> {
    let corrupt = |error: io::Error| Error::from(cached.unavailable(Some(error.to_string())));
    let mut tar = HashingReader::new(decoder(store.open_blob(&fetched.digest)?).map_err(corrupt)?);
    let mut chunk = vec![0; 256 << 10];
    loop {
        let count = tar.read(&mut chunk).map_err(corrupt)?;
        if count == 0 {
            break;
        }
        out.write_all(&chunk[..count]).map_err(Error::write("a layer"))?;
    }
    let (_, found, _) = tar.finish();
    if found != fetched.diff_id.0 {
        let error = Error::WrongDiffId { expected: fetched.diff_id, found: DiffId(found) };
        return Err(cached.unavailable(Some(error.to_string())).into());
    }
    Ok(())
}

/// The layer as a blob with this compression, of that which was fetched; verified against its diff id once.
pub(crate) fn layer_blob(
    store: &Store,
    layer: &Layer,
    cached: &CachedLayer,
    compression: Compression,
) -> Result<LayerBlob> {
    let codec = compression.key();
    if let Some(blob) = store.layer_blob(&layer.id, &codec)? {
        return Ok(blob);
    }
    let fetched = cached.result.blob.as_ref().ok_or_else(|| cached.unavailable(None))?;
    let is_as_wanted = match &cached.result.codec {
        Some(found) => *found == codec,
        None => {
            fetched.media_type == compression.media_type(false) || fetched.media_type == compression.media_type(true)
        }
    };
    let blob = if is_as_wanted {
        check(store, layer, cached)?;
        stored(fetched)
    } else {
        let mut encoder = Encoder::new(store.blob_writer()?, compression);
        decode(store, cached, fetched, &mut encoder)?;
        let (digest, size) = encoder.finish().map_err(Error::write("a layer"))?.commit(None)?;
        LayerBlob { diff_id: fetched.diff_id, digest, size }
    };
    store.put_layer_blob(&layer.id, &codec, &blob)?;
    Ok(blob)
}
