//! Pushes an image of the store to a registry: blobs at the same time, then the manifest (R6.4).

use crate::error::{Error, Result};
use cache::Store;
use oci::codec::{Compression, Encoder, HashingReader};
use oci::layout::is_index;
use oci::registry::Client;
use oci::{Descriptor, Digest, ImageIndex, ImageManifest, Reference};
use solver::event::Task;
use std::fs::File;

const MAX_DOCUMENT: u64 = 4 << 20;

/// Pushes what `descriptor` names as `reference`. What a repository of `others` has on the same registry is taken over from there.
pub async fn push(
    store: &Store,
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    others: &[Reference],
    task: &Task,
) -> Result<()> {
    if is_index(descriptor.media_type()) {
        let index = read_index(store, descriptor)?;
        for manifest in index.manifests() {
            let child = reference.at_digest(digest(manifest)?);
            push_manifest(store, client, &child, manifest, others, task).await?;
        }
        return put(store, client, reference, descriptor).await;
    }
    push_manifest(store, client, reference, descriptor, others, task).await
}

/// The same image with every uncompressed layer compressed, as registries want them; an image without such layers is itself. What is
/// compressed is remembered by its diff id.
pub async fn compressed(store: &Store, descriptor: &Descriptor, task: &Task) -> Result<Descriptor> {
    if is_index(descriptor.media_type()) {
        return compressed_index(store, descriptor, task).await;
    }
    let document = digest(descriptor)?;
    let mut manifest: serde_json::Value = document_value(store, &document)?;
    let Some(layers) = manifest.get_mut("layers").and_then(|layers| layers.as_array_mut()) else {
        return Ok(descriptor.clone());
    };
    let mut changed = false;
    for layer in layers {
        let plain = [false, true]
            .into_iter()
            .find(|docker| layer["mediaType"] == Compression::None.media_type(*docker).as_ref());
        let (Some(docker), Some(diff_id)) =
            (plain, layer["digest"].as_str().and_then(|text| text.parse::<Digest>().ok()))
        else {
            continue;
        };
        let store = store.clone();
        task.status(format!("compressing {diff_id}"), 0, 0, false);
        let blob = crate::error::blocking(move || compress(&store, &diff_id)).await?;
        task.status(format!("compressing {diff_id}"), 0, 0, true);
        layer["mediaType"] = Compression::GZIP.media_type(docker).to_string().into();
        layer["digest"] = blob.0.to_string().into();
        layer["size"] = blob.1.into();
        changed = true;
    }
    if !changed {
        return Ok(descriptor.clone());
    }
    put_document(store, descriptor, &manifest)
}

async fn compressed_index(store: &Store, descriptor: &Descriptor, task: &Task) -> Result<Descriptor> {
    let mut index = read_index(store, descriptor)?;
    let mut manifests = Vec::with_capacity(index.manifests().len());
    for manifest in index.manifests() {
        manifests.push(Box::pin(compressed(store, manifest, task)).await?);
    }
    if *index.manifests() == manifests {
        return Ok(descriptor.clone());
    }
    index.set_manifests(manifests);
    put_document(store, descriptor, &index)
}

/// Stores a document in the place of the one that `descriptor` describes.
fn put_document(store: &Store, descriptor: &Descriptor, document: &impl serde::Serialize) -> Result<Descriptor> {
    let bytes = oci::layout::to_json(document);
    let digest = store.put_blob(&bytes)?;
    let mut changed = descriptor.clone();
    changed.set_digest(digest.to_spec());
    changed.set_size(bytes.len() as u64);
    Ok(changed)
}

fn compress(store: &Store, diff_id: &Digest) -> Result<(Digest, u64)> {
    let (namespace, key) = ("compressed", format!("{diff_id} {}", Compression::GZIP.key()));
    if let Some(memo) = store.memo(namespace, &key)?
        && let Ok((digest, size)) = serde_json::from_slice::<(Digest, u64)>(&memo)
        && store.has_blob(&digest)
    {
        return Ok((digest, size));
    }
    let failed = || Error::write(format!("a layer to {}", store.root().display()));
    let mut plain = HashingReader::new(store.open_blob(diff_id)?);
    let mut encoder = Encoder::new(store.blob_writer()?, Compression::GZIP);
    std::io::copy(&mut plain, &mut encoder).map_err(failed())?;
    let blob = encoder.finish().map_err(failed())?;
    if plain.finish().1 != *diff_id {
        store.drop_if_damaged(diff_id);
        return Err(Error::DamagedBlob(*diff_id));
    }
    let blob = blob.commit(None)?;
    store.put_memo(namespace, &key, &serde_json::to_vec(&blob).unwrap_or_default())?;
    Ok(blob)
}

fn document_value(store: &Store, digest: &Digest) -> Result<serde_json::Value> {
    document(store, digest)
}

async fn push_manifest(
    store: &Store,
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    others: &[Reference],
    task: &Task,
) -> Result<()> {
    let manifest: ImageManifest = document(store, &digest(descriptor)?)?;
    let blobs = manifest.layers().iter().chain([manifest.config()]);
    let uploads = blobs.map(|blob| push_blob(store, client, reference, blob, others, task));
    futures_util::future::try_join_all(uploads).await?;
    put(store, client, reference, descriptor).await
}

async fn push_blob(
    store: &Store,
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
    others: &[Reference],
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
    let pushed = client.push_blob(reference, digest, size, others, &open, &mut progress).await;
    // A registry says no more than that it does not want it.
    if pushed.is_err() && store.drop_if_damaged(&digest) {
        return Err(Error::DamagedBlob(digest));
    }
    pushed?;
    task.status(digest.to_string(), size, size, true);
    Ok(())
}

async fn put(store: &Store, client: &Client, reference: &Reference, descriptor: &Descriptor) -> Result<()> {
    let bytes = store.read_blob(&digest(descriptor)?, MAX_DOCUMENT)?;
    client.put_manifest(reference, descriptor.media_type(), bytes.into()).await?;
    Ok(())
}

fn read_index(store: &Store, descriptor: &Descriptor) -> Result<ImageIndex> {
    let digest = digest(descriptor)?;
    oci::layout::index_from_json(&store.read_blob(&digest, MAX_DOCUMENT)?).map_err(|error| invalid(&digest, &error))
}

fn invalid(digest: &Digest, error: &serde_json::Error) -> Error {
    Error::Export(format!("{digest} is not a valid document: {error}"))
}

fn document<T: serde::de::DeserializeOwned>(store: &Store, digest: &Digest) -> Result<T> {
    let bytes = store.read_blob(digest, MAX_DOCUMENT)?;
    serde_json::from_slice(&bytes).map_err(|error| invalid(digest, &error))
}

fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| Error::Export(error.to_string()))
}
