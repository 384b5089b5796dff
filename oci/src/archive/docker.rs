//! What `docker save` wrote before it wrote OCI layouts, and other programs still do (spec R5.9.9): a `manifest.json` that
//! names a config and layer tars by path. There is no manifest in it; one is made here, with the tars as layers.

use super::{ArchiveImage, BlobSink, Error};
use crate::codec::Compression;
use crate::layer::shown;
use crate::{Descriptor, Digest, ImageConfig, MediaType, layout};
use oci_spec::image::{DescriptorBuilder, ImageManifestBuilder, SCHEMA_VERSION};
use serde::Deserialize;
use std::collections::HashMap;

/// The files of an archive that may be layers or configs.
#[derive(Default)]
pub struct Files {
    pub stored: HashMap<Vec<u8>, Stored>,
    /// From path to cleaned path.
    pub links: HashMap<Vec<u8>, Vec<u8>>,
    /// Blobs that look like JSON.
    pub documents: HashMap<Digest, Vec<u8>>,
}

pub struct Stored {
    pub digest: Digest,
    pub size: u64,
    /// The first four bytes.
    pub magic: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// Whether a file of the archive is worth storing before `manifest.json`, which comes last, has been seen.
pub fn may_be_blob(path: &[u8]) -> bool {
    let ends = [&b".tar"[..], b".tar.gz", b".tgz", b".tar.zst", b".json"];
    path.starts_with(b"sha256:") || ends.iter().any(|end| path.ends_with(end))
}

/// A config is named for its digest.
pub fn expected_digest(path: &[u8]) -> Option<Digest> {
    let path = std::str::from_utf8(path).ok()?;
    let hex = path.strip_suffix(".json")?;
    format!("sha256:{hex}").parse().ok()
}

/// The images of a `manifest.json`. Their new manifests are stored too.
pub fn images(manifest: &[u8], files: &Files, sink: &mut dyn BlobSink) -> Result<Vec<ArchiveImage>, Error> {
    let entries: Vec<Entry> = serde_json::from_slice(manifest).map_err(|e| Error::document("manifest.json", e))?;
    entries.into_iter().map(|entry| image(entry, files, sink)).collect()
}

fn image(entry: Entry, files: &Files, sink: &mut dyn BlobSink) -> Result<ArchiveImage, Error> {
    let config = files.find(&entry.config)?;
    let layers: Vec<(&Stored, Compression)> = entry
        .layers
        .iter()
        .flatten()
        .map(|path| files.find(path).map(|stored| (stored, stored.compression())))
        .collect::<Result<_, _>>()?;
    check_diff_ids(&entry.config, files.documents.get(&config.digest), &layers)?;

    let layers = layers.iter().map(|(stored, compression)| stored.descriptor(compression.media_type(false)));
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config.descriptor(MediaType::ImageConfig))
        .layers(layers.collect::<Vec<_>>())
        .build()
        .map_err(|e| Error::document("manifest.json", e))?;
    let bytes = layout::to_json(&manifest);
    let (digest, size) =
        sink.put(Some(Digest::of(&bytes)), &mut bytes.as_slice()).map_err(|e| Error::io("store", "a manifest", e))?;
    let manifest = Stored { digest, size, magic: Vec::new() }.descriptor(MediaType::ImageManifest);
    Ok(ArchiveImage { names: entry.repo_tags.unwrap_or_default(), manifest })
}

/// The config says which layers there must be, and for plain tars what their digests are.
fn check_diff_ids(name: &str, config: Option<&Vec<u8>>, layers: &[(&Stored, Compression)]) -> Result<(), Error> {
    let invalid = |reason: String| Error::document(format!("image config {name}"), reason);
    let bytes = config.ok_or_else(|| invalid("it is not a JSON object, or too large".into()))?;
    let config: ImageConfig = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        return Err(invalid(format!("it has {} layers, manifest.json has {}", diff_ids.len(), layers.len())));
    }
    for (diff_id, (stored, compression)) in diff_ids.iter().zip(layers) {
        if *compression == Compression::None && diff_id.0 != stored.digest {
            return Err(Error::DigestMismatch { expected: diff_id.0, found: stored.digest });
        }
    }
    Ok(())
}

impl Files {
    fn find(&self, path: &str) -> Result<&Stored, Error> {
        let mut at = crate::layer::clean(path.as_bytes());
        for _ in 0..8 {
            if let Some(stored) = self.stored.get(&at) {
                return Ok(stored);
            }
            match self.links.get(&at) {
                Some(target) => at = target.clone(),
                None => break,
            }
        }
        Err(Error::Missing { what: shown(path.as_bytes()) })
    }
}

impl Stored {
    fn compression(&self) -> Compression {
        match self.magic.as_slice() {
            [0x1f, 0x8b, 0x08, ..] => Compression::GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::ZSTD,
            _ => Compression::None,
        }
    }

    fn descriptor(&self, media_type: MediaType) -> Descriptor {
        DescriptorBuilder::default()
            .media_type(media_type)
            .digest(self.digest.to_spec())
            .size(self.size)
            .build()
            .expect("a descriptor needs no more than media type, digest and size")
    }
}
