//! Images of OCI layouts: the contexts `oci-layout://PATH[:TAG|@DIGEST]` (D19.7).

use super::image::Images;
use crate::error::{Error, Result};
use cache::Store;
use oci::{Descriptor, Digest, ImageIndex, ImageManifest, MediaType, Platform, Reference, layout};
use solver::lower::ResolvedImage;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Brings the image that `reference` names, by digest or else by tag, from the layout at `path` into the store, verified.
pub fn import(
    store: &Store,
    images: &Images,
    path: &Path,
    reference: &Reference,
    platform: &Platform,
) -> Result<ResolvedImage> {
    let problem = |problem: String| Error::Layout { path: path.display().to_string(), problem };
    if !path.join("oci-layout").is_file() {
        return Err(problem("this is no image layout, which is a directory with a file called oci-layout".into()));
    }
    let index = layout::read_index(path).map_err(|error| problem(error.to_string()))?;
    let tag = reference.tag().unwrap_or("latest");
    let annotated =
        |descriptor: &Descriptor, key: &str| -> Option<String> { descriptor.annotations().as_ref()?.get(key).cloned() };
    let is_wanted = |descriptor: &&Descriptor| match reference.digest() {
        Some(digest) => descriptor.digest().to_string() == digest.to_string(),
        None => annotated(descriptor, layout::REF_NAME)
            .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}"))),
    };
    // A layout with one image needs no tag.
    let only = |index: &ImageIndex| match index.manifests().as_slice() {
        [one] if reference.digest().is_none() && reference.tag().is_none() => Some(one.clone()),
        _ => None,
    };
    let found = index.manifests().iter().find(is_wanted).cloned().or_else(|| only(&index));
    let found = match (found, reference.digest()) {
        (Some(found), _) => found,
        // A digest may be that of a manifest which only an index of the layout names.
        (None, Some(digest)) if layout::blob_path(path, &digest).is_file() => {
            let size = layout::blob_path(path, &digest).metadata().map_or(0, |found| found.len());
            Descriptor::new(MediaType::ImageManifest, size, digest.to_spec())
        }
        (None, Some(digest)) => return Err(problem(format!("{digest} is not there"))),
        (None, None) => {
            let tags: Vec<_> =
                index.manifests().iter().filter_map(|found| annotated(found, layout::REF_NAME)).collect();
            let tags = if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
            return Err(problem(format!("the tag {tag} is not there; tags in the layout: {tags}")));
        }
    };
    copy(store, path, &found, platform, reference)?;
    let image = images.stored(&found, reference, platform)?;
    image.ok_or_else(|| Error::NoPlatform { reference: reference.to_string(), platform: platform.to_string() })
}

/// A document of the layout and all that it names, as far as the platform needs it.
fn copy(store: &Store, path: &Path, found: &Descriptor, platform: &Platform, reference: &Reference) -> Result<()> {
    let bytes = document(store, path, found)?;
    let malformed = |error: serde_json::Error| Error::Manifest {
        reference: reference.to_string(),
        problem: format!("is not valid: {error}"),
    };
    if layout::is_index(found.media_type()) {
        let index: ImageIndex = layout::index_from_json(&bytes).map_err(malformed)?;
        let Some(selected) = oci::platform::select(index.manifests(), platform) else { return Ok(()) };
        // No deeper: an index in an index is no image.
        if !layout::is_index(selected.media_type()) {
            copy(store, path, selected, platform, reference)?;
        }
        return Ok(());
    }
    let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(malformed)?;
    document(store, path, manifest.config())?;
    manifest.layers().iter().try_for_each(|layer| blob(store, path, layer))
}

fn document(store: &Store, path: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    blob(store, path, descriptor)?;
    Ok(store.read_blob(&digest(descriptor)?, layout::MAX_DOCUMENT)?)
}

fn blob(store: &Store, path: &Path, descriptor: &Descriptor) -> Result<()> {
    let digest = digest(descriptor)?;
    if store.has_blob(&digest) {
        return Ok(());
    }
    let place = layout::blob_path(path, &digest);
    let failed = |source| Error::Write { path: format!("the store from {}", place.display()), source };
    // Neither a device nor a pipe, which never end.
    let is_file = std::fs::metadata(&place).map_err(failed)?.is_file();
    if !is_file {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let from = File::open(&place).map_err(failed)?;
    let mut writer = store.blob_writer()?;
    io::copy(&mut from.take(descriptor.size() + 1), &mut writer).map_err(failed)?;
    writer.commit(Some((digest, descriptor.size())))?;
    Ok(())
}

fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| Error::Export(error.to_string()))
}
