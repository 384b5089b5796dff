//! How registries and directories list a cache: an image manifest, whose config is the document and whose layers are the blobs (R7.6.8), or an index of
//! them all (R7.6.9). What has no document may be an image with an inline cache (R7.6.11, R7.6.12).

use super::document::{Document, DocumentLayer, MAX_CONFIG};
use super::error::{Error, Result};
use super::{CONFIG_MEDIA_TYPE, Published, UNCOMPRESSED};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use oci::layout::{DOCKER_INDEX, MAX_DOCUMENT, index_from_json, is_index, to_json};
use oci::{Descriptor, Digest, ImageConfig, ImageManifest, MediaType};
use serde_json::{Value, json};

/// The member of an image config that holds an inline cache.
pub const INLINE: &str = "moby.buildkit.cache.v0";
/// Of an index, at most so many images are looked at.
const MAX_IMAGES: usize = 64;

/// How a cache is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Format {
    /// Else an index, which many registries refuse.
    pub image_manifest: bool,
    /// Docker's media types instead of OCI's.
    pub docker_types: bool,
}

impl Format {
    /// From `oci-mediatypes` and `image-manifest` (R7.5.2).
    pub fn new(oci_types: Option<bool>, image_manifest: Option<bool>) -> std::result::Result<Format, String> {
        let docker_types = !oci_types.unwrap_or(true);
        match image_manifest {
            Some(true) if docker_types => {
                Err("image-manifest=true needs OCI's media types: leave out oci-mediatypes=false".into())
            }
            given => Ok(Format { image_manifest: given.unwrap_or(!docker_types), docker_types }),
        }
    }

    /// The media type and the bytes of what lists a document and its blobs.
    pub(super) fn list(self, published: &Published) -> (MediaType, Vec<u8>) {
        let config = config_descriptor(published);
        let blobs = published.blobs.iter().map(|blob| {
            let mut blob = blob.clone();
            if self.docker_types {
                blob.set_media_type(docker_layer(blob.media_type()));
            }
            blob
        });
        if self.image_manifest {
            let media_type = MediaType::ImageManifest;
            let layers: Vec<_> = blobs.collect();
            let (kind, schema) = (media_type.to_string(), 2);
            let manifest = json!({"schemaVersion": schema, "mediaType": kind, "config": config, "layers": layers});
            return (media_type, to_json(&manifest));
        }
        let media_type = if self.docker_types { MediaType::from(DOCKER_INDEX) } else { MediaType::ImageIndex };
        let manifests: Vec<_> = blobs.chain([config]).collect();
        let index = json!({"schemaVersion": 2, "mediaType": media_type.to_string(), "manifests": manifests});
        (media_type, to_json(&index))
    }
}

pub(super) fn config_descriptor(published: &Published) -> Descriptor {
    let digest = Digest::of(&published.config);
    Descriptor::new(CONFIG_MEDIA_TYPE.into(), published.config.len() as u64, digest.to_spec())
}

fn docker_layer(media_type: &MediaType) -> MediaType {
    match media_type.as_ref() {
        "application/vnd.oci.image.layer.v1.tar" => "application/vnd.docker.image.rootfs.diff.tar".into(),
        "application/vnd.oci.image.layer.v1.tar+gzip" => "application/vnd.docker.image.rootfs.diff.tar.gzip".into(),
        "application/vnd.oci.image.layer.v1.tar+zstd" => "application/vnd.docker.image.rootfs.diff.tar.zstd".into(),
        _ => media_type.clone(),
    }
}

/// Where what a manifest names is read from.
pub(super) trait Documents: Sync {
    /// Its bytes, at most `most`, with the digest that the descriptor says.
    fn document(&self, descriptor: &Descriptor, most: u64) -> impl Future<Output = Result<Bytes>> + Send;
}

/// The caches in what a name stands for.
pub(super) async fn read(documents: &impl Documents, listed: &[u8]) -> Result<Vec<Published>> {
    match Listed::parse(listed)? {
        Listed::Cache { config, blobs } => {
            Ok(vec![Published { config: documents.document(&config, MAX_CONFIG).await?, blobs }])
        }
        Listed::Image(manifest) => Ok(inline(documents, &manifest).await?.into_iter().collect()),
        Listed::Images(images) => {
            let read = images.iter().take(MAX_IMAGES).map(async |image| {
                match Listed::parse(&documents.document(image, MAX_DOCUMENT).await?)? {
                    Listed::Image(manifest) => inline(documents, &manifest).await,
                    _ => Ok(None),
                }
            });
            Ok(futures_util::future::try_join_all(read).await?.into_iter().flatten().collect())
        }
    }
}

enum Listed {
    Cache { config: Box<Descriptor>, blobs: Vec<Descriptor> },
    Image(Box<ImageManifest>),
    Images(Vec<Descriptor>),
}

impl Listed {
    /// By what it holds: registries and directories do not always say its type.
    fn parse(bytes: &[u8]) -> Result<Listed> {
        let value: Value = serde_json::from_slice(bytes).map_err(invalid)?;
        let is_config = |descriptor: &Descriptor| descriptor.media_type().as_ref() == CONFIG_MEDIA_TYPE;
        if value.get("manifests").is_some() {
            let mut blobs = index_from_json(bytes).map_err(invalid)?.manifests().clone();
            let Some(config) = blobs.iter().position(is_config) else {
                // Attestations are images for no platform.
                blobs.retain(|blob| {
                    blob.annotations().as_ref().is_none_or(|a| !a.contains_key("vnd.docker.reference.type"))
                });
                blobs.retain(|blob| !is_index(blob.media_type()));
                return Ok(Listed::Images(blobs));
            };
            let config = Box::new(blobs.remove(config));
            return Ok(Listed::Cache { config, blobs });
        }
        let manifest: ImageManifest = serde_json::from_value(value).map_err(invalid)?;
        match is_config(manifest.config()) {
            true => Ok(Listed::Cache { config: Box::new(manifest.config().clone()), blobs: manifest.layers().clone() }),
            false => Ok(Listed::Image(Box::new(manifest))),
        }
    }
}

/// The cache in an image's config, as if it lay alone.
async fn inline(documents: &impl Documents, manifest: &ImageManifest) -> Result<Option<Published>> {
    let config: ImageConfig =
        serde_json::from_slice(&documents.document(manifest.config(), MAX_DOCUMENT).await?).map_err(invalid)?;
    let Some(records) = config.other.get(INLINE).and_then(Value::as_str) else { return Ok(None) };
    let records = BASE64_STANDARD.decode(records).map_err(|error| Error::Document(error.to_string()))?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers().len() {
        let (layers, named) = (manifest.layers().len(), diff_ids.len());
        return Err(Error::Document(format!("the image has {layers} layers where its config names {named}")));
    }
    let mut layers = Vec::new();
    let mut blobs = Vec::new();
    for (index, (layer, diff_id)) in manifest.layers().iter().zip(diff_ids).enumerate() {
        let blob = Digest::try_from(layer.digest()).map_err(|error| Error::Document(error.to_string()))?;
        let parent = i64::try_from(index).unwrap_or(0) - 1;
        layers.push(DocumentLayer { blob, parent, annotations: None });
        let mut described = layer.clone();
        described.set_annotations(Some([(UNCOMPRESSED.to_owned(), diff_id.to_string())].into()));
        blobs.push(described);
    }
    let document = Document::parse_inline(&records, layers)?;
    let config = serde_json::to_vec(&document).map_err(invalid)?;
    Ok(Some(Published { config: config.into(), blobs }))
}

/// The value of [`INLINE`].
pub fn inline_value(records: &[u8]) -> Value {
    BASE64_STANDARD.encode(records).into()
}

fn invalid(error: serde_json::Error) -> Error {
    Error::Document(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Published {
        let blob = Descriptor::new(MediaType::ImageLayerGzip, 3, Digest::of(b"abc").to_spec());
        Published { config: Bytes::from_static(b"{}"), blobs: vec![blob] }
    }

    /// R7.5.2.
    #[test]
    fn formats_that_contradict_are_refused() {
        let format = |image_manifest, docker_types| Ok(Format { image_manifest, docker_types });
        assert_eq!(Format::new(None, None), format(true, false));
        assert_eq!(Format::new(Some(false), None), format(false, true));
        assert_eq!(Format::new(Some(true), Some(false)), format(false, false));
        assert!(Format::new(Some(false), Some(true)).is_err());
    }

    /// R7.6.8, R7.6.9.
    #[test]
    fn what_is_listed_is_found() {
        for (image_manifest, docker_types, media_type) in [
            (true, false, "application/vnd.oci.image.manifest.v1+json"),
            (false, false, "application/vnd.oci.image.index.v1+json"),
            (false, true, DOCKER_INDEX),
        ] {
            let (found, bytes) = Format { image_manifest, docker_types }.list(&published());
            assert_eq!(found.as_ref(), media_type);
            let Ok(Listed::Cache { config, blobs }) = Listed::parse(&bytes) else { panic!("{media_type}") };
            assert_eq!(*config, config_descriptor(&published()));
            assert_eq!(blobs[0].digest(), published().blobs[0].digest());
            assert_eq!(blobs[0].media_type().as_ref().contains("docker"), docker_types);
        }
    }
}
