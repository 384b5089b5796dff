//! Makes an image of a stack of layers: layer blobs, config, manifest, all in the store.

use crate::error::{Error, Result};
use crate::remote;
use crate::snapshot::Snapshots;
use crate::source::image::Images;
use crate::value::{Layer, LayerOrigin, Stack};
use cache::{LayerBlob, LayerRecord, Store};
use oci::codec::{Compression, Encoder, HashingReader, HashingWriter, decoder};
use oci::image::{History, ImageConfig};
use oci::layer::{Change, Marks, TarOptions, Times};
use oci::{Descriptor, DiffId, Digest, MediaType};
use rayon::prelude::*;
use serde_json::json;
use solver::event::Task;
use std::collections::{BTreeSet, HashMap};
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Marks a layer whose times are no later than this (R4.8.10).
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

#[derive(Clone, Copy, Debug)]
pub struct ImageOptions {
    /// Of new layers; those of a base stay as they are (R4.4.4).
    pub compression: Compression,
    /// Docker's media types instead of OCI's.
    pub docker_types: bool,
    /// The time of new history entries, in seconds, instead of the times at which layers were made.
    pub dated: Option<i64>,
    /// No file of a new layer has a later time (R4.8.5); those of a base stay as they are (R4.8.6).
    pub latest: Option<i64>,
}

/// An image in the store.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// Of the manifest.
    pub descriptor: Descriptor,
    pub config: Digest,
}

/// Writes an image with the layers of `stack`, all blobs of its base included.
pub async fn complete(
    snapshots: &Snapshots,
    images: &Images,
    stack: &Stack,
    config: &ImageConfig,
    base_history: usize,
    options: ImageOptions,
    task: &Task,
) -> Result<BuiltImage> {
    let base = base_layers(stack, config);
    match options.latest {
        // Written anew from its files.
        Some(_) if stack.layers().iter().skip(base).any(|layer| layer.origin.is_some()) => {
            images.unpack(snapshots, stack, task.digest(), task.sink()).await?;
            images.fetch_stack(&stack.below(base), task.digest(), task.sink()).await?;
        }
        Some(_) => images.fetch_stack(&stack.below(base), task.digest(), task.sink()).await?,
        None => images.fetch_stack(stack, task.digest(), task.sink()).await?,
    }
    if let Some(latest) = options.latest {
        let time = rfc3339(latest.saturating_mul(1_000_000_000)).replace('T', " ").replace('Z', " +0000 UTC");
        task.status(format!("rewriting layers with source-date-epoch {latest} ({time})"), 0, 0, true);
    }
    let (snapshots, stack, config) = (snapshots.clone(), stack.clone(), config.clone());
    let image = crate::error::blocking(move || build(&snapshots, &stack, config, base_history, options)).await?;
    task.status(format!("exporting manifest {}", image.descriptor.digest()), 0, 0, true);
    task.status(format!("exporting config {}", image.config), 0, 0, true);
    Ok(image)
}

fn build(
    snapshots: &Snapshots,
    stack: &Stack,
    mut config: ImageConfig,
    base_history: usize,
    options: ImageOptions,
) -> Result<BuiltImage> {
    let base = base_layers(stack, &config);
    let options_of = |index| match index >= base {
        true => options,
        false => ImageOptions { latest: None, ..options },
    };
    let layers = stack.layers().iter().enumerate();
    let known = layers.clone().map(|(index, layer)| known_layer(snapshots.store(), layer, options_of(index)));
    // Without anything to write, starting threads would take longer than all the rest.
    let layers: Vec<_> = match known.collect::<Result<Option<_>>>()? {
        Some(layers) => layers,
        None => {
            let layers: Vec<_> = layers.collect();
            let layers = layers.into_par_iter().map(|(index, layer)| image_layer(snapshots, layer, options_of(index)));
            layers.collect::<Result<_>>()?
        }
    };
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let times: Vec<Option<i64>> = layers.iter().map(|layer| layer.created).collect();
    fill_history(&mut config, base_history, &times, options.dated);
    let descriptors: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
    write_documents(snapshots.store(), &config, &descriptors, options.docker_types)
}

/// How many layers at the bottom of `stack` are those of the image that `config` was made from: it still names them.
fn base_layers(stack: &Stack, config: &ImageConfig) -> usize {
    let layers = stack.layers().iter().zip(&config.rootfs.diff_ids);
    layers
        .take_while(|(layer, diff_id)| match layer.origin.as_deref() {
            Some(LayerOrigin::Image(origin)) => origin.diff_id == **diff_id,
            _ => false,
        })
        .count()
}

/// Writes config and manifest.
fn write_documents(
    store: &Store,
    config: &ImageConfig,
    layers: &[&Descriptor],
    docker_types: bool,
) -> Result<BuiltImage> {
    let config_bytes = serde_json::to_vec(config).map_err(|error| Error::Export(error.to_string()))?;
    let config_digest = store.put_blob(&config_bytes)?;
    let (manifest_type, config_type) = match docker_types {
        false => (MediaType::ImageManifest.to_string(), MediaType::ImageConfig.to_string()),
        true => (
            "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
            "application/vnd.docker.container.image.v1+json".to_owned(),
        ),
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": config_digest, "size": config_bytes.len()},
        "layers": layers,
    });
    // Members in a fixed order: annotations are kept in a map that has none.
    let bytes = oci::layout::to_json(&manifest);
    let digest = store.put_blob(&bytes)?;
    let mut descriptor = Descriptor::new(MediaType::from(manifest_type.as_str()), bytes.len() as u64, digest.to_spec());
    descriptor.set_platform(Some(config.platform().to_spec()));
    Ok(BuiltImage { descriptor, config: config_digest })
}

/// Makes an image of a stack, all of whose blobs are in the store, with one more layer: what differs in an upper directory, but for the paths in `left_out`.
/// The config is complete but for the layers.
pub fn with_changes(
    snapshots: &Snapshots,
    stack: &Stack,
    upper: &Path,
    left_out: &BTreeSet<Vec<u8>>,
    mut config: ImageConfig,
) -> Result<BuiltImage> {
    let options = ImageOptions { compression: Compression::None, docker_types: false, dated: None, latest: None };
    let mut layers = Vec::with_capacity(stack.layers().len() + 1);
    for layer in stack.layers() {
        layers.push(image_layer(snapshots, layer, options)?);
    }
    let upper = crate::mount::open_directory(upper)?;
    let lower = if stack.layers().is_empty() { None } else { Some(snapshots.view(&stack.ids())?) };
    let changes = oci::layer::diff(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), snapshots.marks(), &|_| false)?;
    let changes = changes.filter(|change| change.as_ref().map_or(true, |change| !left_out.contains(&change.path)));
    let blob = write_changes(snapshots.store(), changes, upper.as_fd(), options)?;
    let descriptor = Descriptor::new(options.compression.media_type(false), blob.size, blob.digest.to_spec());
    layers.push(ImageLayer { descriptor, diff_id: blob.diff_id, created: None });
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let descriptors: Vec<_> = layers.iter().map(|layer| &layer.descriptor).collect();
    write_documents(snapshots.store(), &config, &descriptors, options.docker_types)
}

/// Makes a one-layer image of a root file system's tar, compressed or not.
pub fn import(store: &Store, tar: impl std::io::Read + Send, mut config: ImageConfig) -> Result<BuiltImage> {
    let mut tar = HashingReader::new(decoder(tar).map_err(Error::ReadLayer)?);
    let mut blob = store.blob_writer()?;
    std::io::copy(&mut tar, &mut blob).map_err(Error::ReadLayer)?;
    let (_, diff_id, size) = tar.finish();
    if size == 0 {
        return Err(Error::Export("the tar is empty".into()));
    }
    let (digest, _) = blob.commit(Some((diff_id, size)))?;
    check_tar(store, &digest)?;
    config.rootfs.diff_ids = vec![DiffId(diff_id)];
    fill_history(&mut config, 0, &[None], None);
    let layer = Descriptor::new(Compression::None.media_type(false), size, digest.to_spec());
    write_documents(store, &config, &[&layer], false)
}

/// Finds out now, not when a step needs the files, that something else was given.
fn check_tar(store: &Store, digest: &Digest) -> Result<()> {
    let mut archive = tar::Archive::new(store.open_blob(digest)?);
    let mut entries = archive.entries().map_err(Error::ReadLayer)?;
    match entries.next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Error::Export(format!("this is not a tar: {error}"))),
        None => Err(Error::Export("this is not a tar: it has no entries".into())),
    }
}

/// The config of an image that is no build's result: this machine's platform, and Dockerfile instructions in `changes`.
pub fn changed_config(changes: &[String], message: &str) -> std::result::Result<ImageConfig, String> {
    let text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    let dockerfile = parser::parse(&format!("FROM scratch\n{text}"))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut config = solver::lower::config_of(&dockerfile).map_err(|error| error.to_string())?;
    config.history = vec![History { comment: Some(message.to_owned()), ..Default::default() }];
    Ok(config)
}

struct ImageLayer {
    descriptor: Descriptor,
    diff_id: DiffId,
    /// Nanoseconds; a base's layers have their times in its history.
    created: Option<i64>,
}

/// A layer of an image, whose blob is written if it is not there.
fn image_layer(snapshots: &Snapshots, layer: &Layer, options: ImageOptions) -> Result<ImageLayer> {
    if let Some(known) = known_layer(snapshots.store(), layer, options)? {
        return Ok(known);
    }
    if let (Some(LayerOrigin::Cached(cached)), None) = (layer.origin.as_deref(), options.latest) {
        let blob = remote::layer_blob(snapshots.store(), layer, cached, options.compression)?;
        return Ok(written(&blob, cached.result.created, options));
    }
    let record = record(snapshots.store(), layer)?;
    let blob = write_layer(snapshots, layer, &record, options)?;
    snapshots.store().put_layer_blob(&layer.id, &codec(options), &blob)?;
    Ok(written(&blob, record.created, options))
}

/// The blob of a step's layer that is here as a directory, written unless it was before.
pub(crate) fn step_blob(snapshots: &Snapshots, layer: &Layer, compression: Compression) -> Result<LayerBlob> {
    let options = ImageOptions { compression, docker_types: false, dated: None, latest: None };
    if let Some(blob) = snapshots.store().layer_blob(&layer.id, &codec(options))? {
        return Ok(blob);
    }
    let blob = write_layer(snapshots, layer, &record(snapshots.store(), layer)?, options)?;
    snapshots.store().put_layer_blob(&layer.id, &codec(options), &blob)?;
    Ok(blob)
}

/// The same, if there is nothing to write.
fn known_layer(store: &Store, layer: &Layer, options: ImageOptions) -> Result<Option<ImageLayer>> {
    if let (Some(LayerOrigin::Image(origin)), None) = (layer.origin.as_deref(), options.latest) {
        let mut descriptor = origin.descriptor.clone();
        let media_type = family(descriptor.media_type().as_ref(), options.docker_types);
        descriptor.set_media_type(media_type);
        return Ok(Some(ImageLayer { descriptor, diff_id: origin.diff_id, created: None }));
    }
    let Some(blob) = store.layer_blob(&layer.id, &codec(options))? else { return Ok(None) };
    let created = match layer.origin.as_deref() {
        Some(LayerOrigin::Cached(cached)) => cached.result.created,
        _ => record(store, layer)?.created,
    };
    Ok(Some(written(&blob, created, options)))
}

fn record(store: &Store, layer: &Layer) -> Result<LayerRecord> {
    store
        .layer(&layer.id)?
        .ok_or_else(|| Error::Export(format!("layer {} has left the store while it was exported", layer.id)))
}

/// How a layer's files became its blob.
fn codec(options: ImageOptions) -> String {
    let compression = options.compression.key();
    match options.latest {
        Some(latest) => format!("{compression} until {latest}"),
        None => compression,
    }
}

fn written(blob: &LayerBlob, created: i64, options: ImageOptions) -> ImageLayer {
    let media_type = options.compression.media_type(options.docker_types);
    let mut descriptor = Descriptor::new(media_type, blob.size, blob.digest.to_spec());
    // Docker's documents have no annotations (R4.6.2).
    if let (Some(latest), false) = (options.latest, options.docker_types) {
        descriptor.set_annotations(Some(HashMap::from([(REWRITTEN.to_owned(), latest.to_string())])));
    }
    ImageLayer { descriptor, diff_id: blob.diff_id, created: Some(created) }
}

/// Tar, digest, compression and digest again, in one pass.
fn write_layer(snapshots: &Snapshots, layer: &Layer, record: &LayerRecord, options: ImageOptions) -> Result<LayerBlob> {
    let upper = crate::mount::open_directory(&snapshots.store().layer_path(&layer.id))?;
    let lower = if record.lowers.is_empty() { None } else { Some(snapshots.view(&record.lowers)?) };
    let book = snapshots.book(&layer.id);
    let marks = if record.userxattr { Marks::User } else { Marks::Trusted };
    let is_single = |path: &[u8]| book.as_ref().is_some_and(|book| book.digest(path).is_some());
    let changes = oci::layer::diff(upper.as_fd(), lower.as_ref().map(AsFd::as_fd), marks, &is_single)?;
    write_changes(snapshots.store(), changes, upper.as_fd(), options)
}

fn write_changes(
    store: &Store,
    changes: impl IntoIterator<Item = std::result::Result<Change, oci::layer::Error>>,
    upper: BorrowedFd,
    options: ImageOptions,
) -> Result<LayerBlob> {
    let times = options.latest.map_or(Times::Kept, Times::AtMost);
    let blob = store.blob_writer()?;
    let encoder = Encoder::new(blob, options.compression);
    let mut tar = BufWriter::with_capacity(256 * 1024, HashingWriter::new(encoder));
    oci::layer::write_tar(changes, upper, &TarOptions { times }, &mut tar)?;
    let failed = || Error::write(format!("a layer to {}", store.root().display()));
    tar.flush().map_err(failed())?;
    let hashing = tar.into_inner().map_err(|error| failed()(error.into_error()))?;
    let (encoder, diff_id, _) = hashing.finish();
    let blob = encoder.finish().map_err(failed())?;
    let (digest, size) = blob.commit(None)?;
    Ok(LayerBlob { diff_id: DiffId(diff_id), digest, size })
}

/// All layers of a manifest are of one family of types (R4.5.2).
fn family(media_type: &str, docker: bool) -> MediaType {
    let compression = if media_type.ends_with("zstd") {
        Compression::ZSTD
    } else if media_type.ends_with("gzip") {
        Compression::GZIP
    } else {
        Compression::None
    };
    let known = media_type.starts_with("application/vnd.oci.image.layer.v1")
        || media_type.starts_with("application/vnd.docker.image.rootfs.diff");
    if known { compression.media_type(docker) } else { MediaType::from(media_type) }
}

/// D16.9, D16.10, R4.7.5 to R4.7.8: entries of layers take their layer's time, the others that of the next or the last layer entry.
/// What is `dated` all takes that. The image is as old as its last entry.
fn fill_history(config: &mut ImageConfig, base_history: usize, times: &[Option<i64>], dated: Option<i64>) {
    let described = config.history.iter().filter(|entry| !entry.empty_layer).count();
    for _ in described..times.len() {
        // Bases without a history: their layers come first.
        let position = base_history.min(config.history.len());
        let comment = Some("buildkit.exporter.image.v0".to_owned());
        config.history.insert(position, History { comment, ..Default::default() });
    }
    let dated = dated.map(|seconds| rfc3339(seconds.saturating_mul(1_000_000_000)));
    if let Some(dated) = &dated {
        for entry in &mut config.history {
            entry.created.get_or_insert_with(|| dated.clone());
        }
    }
    let mut layers = times.iter();
    let mut undated = Vec::new();
    let mut last = None;
    for index in 0..config.history.len() {
        let entry = &mut config.history[index];
        let time = if entry.empty_layer { None } else { layers.next().copied().flatten() };
        if entry.created.is_some() {
            last = entry.created.clone();
            continue;
        }
        undated.push(index);
        if let Some(text) = time.map(rfc3339) {
            for index in undated.drain(..) {
                config.history[index].created = Some(text.clone());
            }
            last = Some(text);
        }
    }
    let now = || rfc3339(i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or(0));
    let last = last.or(dated).unwrap_or_else(now);
    for index in undated {
        config.history[index].created = Some(last.clone());
    }
    config.created = Some(config.history.last().and_then(|entry| entry.created.clone()).unwrap_or(last));
}

fn rfc3339(nanoseconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds.into())
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(empty_layer: bool, created: Option<&str>) -> History {
        History { empty_layer, created: created.map(str::to_owned), ..Default::default() }
    }

    #[test]
    fn entries_take_the_time_of_a_layer() {
        let history =
            vec![entry(false, Some("2020-01-01T00:00:00Z")), entry(true, None), entry(false, None), entry(true, None)];
        let mut config = ImageConfig { history, ..Default::default() };
        fill_history(&mut config, 1, &[None, Some(1_600_000_000_000_000_000)], None);
        let times: Vec<_> = config.history.iter().map(|entry| entry.created.clone().unwrap()).collect();
        let layer = "2020-09-13T12:26:40Z";
        assert_eq!(times, ["2020-01-01T00:00:00Z", layer, layer, layer]);
        assert_eq!(config.created.as_deref(), Some(layer));
    }

    /// D13.15.
    #[test]
    fn an_epoch_dates_what_is_new() {
        let history = vec![entry(false, Some("2020-01-01T00:00:00Z")), entry(true, None), entry(false, None)];
        let mut config = ImageConfig { history, ..Default::default() };
        fill_history(&mut config, 1, &[None, Some(1_600_000_000_000_000_000)], Some(86_400));
        let times: Vec<_> = config.history.iter().map(|entry| entry.created.clone().unwrap()).collect();
        let epoch = "1970-01-02T00:00:00Z";
        assert_eq!(times, ["2020-01-01T00:00:00Z", epoch, epoch]);
        assert_eq!(config.created.as_deref(), Some(epoch));
    }

    #[test]
    fn layers_without_history_get_entries() {
        let mut config = ImageConfig { history: vec![entry(false, None)], ..Default::default() };
        fill_history(&mut config, 0, &[None, Some(0)], None);
        assert_eq!(config.history.iter().filter(|entry| !entry.empty_layer).count(), 2, "D16.10");
        assert!(config.history.iter().all(|entry| entry.created.is_some()));
    }

    #[test]
    fn media_types_stay_in_one_family() {
        assert_eq!(
            family("application/vnd.docker.image.rootfs.diff.tar.gzip", false),
            Compression::GZIP.media_type(false)
        );
        assert_eq!(family("application/vnd.oci.image.layer.v1.tar", true), Compression::None.media_type(true));
        assert_eq!(family("application/x-other", false).as_ref(), "application/x-other");
    }
}
