//! Pushes an image of the store to a registry: blobs at the same time, then the manifest (R6.4).

use crate::error::{Error, Result};
use cache::Store;
use oci::registry::Client;
use oci::{Descriptor, Digest, ImageIndex, ImageManifest, MediaType, Reference};
use solver::event::Task;
use std::fs::File;

const MAX_DOCUMENT: u64 = 4 << 20;

/// Pushes what `descriptor` names as `reference`.
pub async fn push(
    store: &Store,
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    task: &Task,
) -> Result<()> {
    if is_index(descriptor) {
        let index: ImageIndex = document(store, &digest(descriptor)?)?;
        for manifest in index.manifests() {
            let child = reference.at_digest(digest(manifest)?);
            push_manifest(store, client, &child, manifest, task).await?;
        }
        return put(store, client, reference, descriptor).await;
    }
    push_manifest(store, client, reference, descriptor, task).await
}

async fn push_manifest(
    store: &Store,
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    task: &Task,
) -> Result<()> {
    let manifest: ImageManifest = document(store, &digest(descriptor)?)?;
    let blobs = manifest.layers().iter().chain([manifest.config()]);
    let uploads = blobs.map(|blob| push_blob(store, client, reference, blob, task));
    futures_util::future::try_join_all(uploads).await?;
    put(store, client, reference, descriptor).await
}

async fn push_blob(
    store: &Store,
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
    task: &Task,
) -> Result<()> {
    let digest = digest(blob)?;
    let (path, size) = (store.blob_path(&digest), blob.size());
    let open = move || File::open(&path);
    let mut shown = 0;
    let mut progress = |sent: u64| {
        if sent >= shown + size / 20 {
            shown = sent;
            task.status(digest.to_string(), sent, size, false);
        }
    };
    client.push_blob(reference, digest, size, &[], &open, &mut progress).await?;
    task.status(digest.to_string(), size, size, true);
    Ok(())
}

async fn put(store: &Store, client: &Client, reference: &Reference, descriptor: &Descriptor) -> Result<()> {
    let bytes = store.read_blob(&digest(descriptor)?, MAX_DOCUMENT)?;
    client.put_manifest(reference, descriptor.media_type(), bytes.into()).await?;
    Ok(())
}

fn is_index(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type(), MediaType::ImageIndex)
        || descriptor.media_type().to_string().contains("manifest.list")
}

fn document<T: serde::de::DeserializeOwned>(store: &Store, digest: &Digest) -> Result<T> {
    let bytes = store.read_blob(digest, MAX_DOCUMENT)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Export(format!("{digest} is not a valid document: {error}")))
}

fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| Error::Export(error.to_string()))
}
