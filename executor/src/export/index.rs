//! The index over images of several platforms (R4.6.3).

use super::image::BuiltImage;
use crate::error::Result;
use cache::Store;
use oci::layout::{DOCKER_INDEX, to_json};
use oci::{Descriptor, MediaType};
use serde_json::json;

/// Writes an index of `images`, in their order (R9.7).
pub fn write(store: &Store, images: &[BuiltImage], docker_types: bool) -> Result<Descriptor> {
    let media_type = if docker_types { MediaType::from(DOCKER_INDEX) } else { MediaType::ImageIndex };
    let manifests: Vec<_> = images.iter().map(|image| &image.descriptor).collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type.to_string(), "manifests": manifests});
    let bytes = to_json(&index);
    let digest = store.put_blob(&bytes)?;
    Ok(Descriptor::new(media_type, bytes.len() as u64, digest.to_spec()))
}
