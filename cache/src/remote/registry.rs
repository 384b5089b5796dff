//! Caches in registries.

use super::error::{Error, Result};
use super::manifest::{self, Documents, Format};
use super::{Progress, Published, Transport};
use bytes::Bytes;
use oci::registry::Client;
use oci::{Descriptor, Digest, Reference};
use std::fs::File;
use std::io::Cursor;
use std::path::Path;
use tokio::io::AsyncWrite;

/// A cache under a name of a registry.
#[derive(Clone)]
pub struct RegistryCache {
    client: Client,
    reference: Reference,
    format: Format,
}

impl RegistryCache {
    pub fn new(client: Client, reference: Reference, format: Format) -> Self {
        RegistryCache { client, reference, format }
    }

    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Takes a blob over from another repository of the same registry (R6.4.3). False if that is not to be had.
    pub async fn mount_blob(&self, blob: &Descriptor, from: &RegistryCache) -> Result<bool> {
        Ok(self.client.mount_blob(&self.reference, digest(blob)?, &from.reference).await?)
    }
}

impl Documents for RegistryCache {
    async fn document(&self, descriptor: &Descriptor, most: u64) -> Result<Bytes> {
        if is_manifest(descriptor) {
            return Ok(self.client.manifest(&self.reference.with_digest(digest(descriptor)?)).await?.2);
        }
        Ok(self.client.fetch_blob_bytes(&self.reference, descriptor, most).await?)
    }
}

impl Transport for RegistryCache {
    async fn published(&self) -> Result<Vec<Published>> {
        match self.client.manifest(&self.reference).await {
            Ok((_, _, listed)) => manifest::read(self, &listed).await,
            Err(error) if error.is_not_found() => Ok(vec![]),
            Err(error) => Err(error.into()),
        }
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.client.has_blob(&self.reference, digest(blob)?).await?)
    }

    async fn read_blob(
        &self,
        blob: &Descriptor,
        mut sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        Ok(self.client.blob(&self.reference, blob, &mut sink, progress).await?)
    }

    async fn write_blob(&self, blob: &Descriptor, source: &Path, progress: Progress<'_>) -> Result<()> {
        let source = source.to_owned();
        let open = move || File::open(&source);
        self.client.push_blob(&self.reference, digest(blob)?, blob.size(), &[], &open, progress).await?;
        Ok(())
    }

    async fn publish(&self, published: &Published) -> Result<Option<Descriptor>> {
        let config = manifest::config_descriptor(published);
        let bytes = published.config.clone();
        let open = move || Ok(Cursor::new(bytes.clone()));
        self.client.push_blob(&self.reference, digest(&config)?, config.size(), &[], &open, &mut |_| {}).await?;
        let (media_type, bytes) = self.format.list(published);
        let size = bytes.len() as u64;
        let digest = self.client.put_manifest(&self.reference, &media_type, bytes.into()).await?;
        Ok(Some(Descriptor::new(media_type, size, digest.to_spec())))
    }

    fn wants_annotations(&self) -> bool {
        false
    }
}

fn is_manifest(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().as_ref();
    media_type.contains("manifest") || media_type.contains("index")
}

pub(super) fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|error| Error::Document(error.to_string()))
}
