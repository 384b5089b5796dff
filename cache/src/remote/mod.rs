//! Remote caches: results of steps that builds on other machines can use (R7.5, R7.6).
//!
//! A cache is one [document](Published) and the blobs that it names. The document has BuildKit's format `cacheconfig.v0`, with members of rbuild's own that
//! other readers skip. Where both lie is a [`Transport`]'s business: registries and directories hold an image manifest, whose config is the document and whose
//! layers are the blobs (R7.6.8); object stores hold the document alone, whose layers then carry their descriptors as annotations (R7.6.3).

mod attributes;
mod contents;
mod document;
mod error;
mod gha;
mod local;
mod manifest;
pub mod mounts;
mod object;
mod registry;
mod s3;

pub use attributes::Attributes;
pub use contents::{CachedBlob, Contents, Export, ExportedStep, Id, StepResult};
pub use document::BUILDKIT_LIMIT;
pub use error::{Error, Result};
pub use gha::{GhaCache, GhaConfig};
pub use local::LocalCache;
pub use manifest::{Format, INLINE, inline_value};
pub use registry::RegistryCache;
pub use s3::{S3Cache, S3Config};

use bytes::Bytes;
use oci::Descriptor;
use std::path::Path;
use tokio::io::AsyncWrite;

/// The media type of the document.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A layer's diff id, beside a manifest's descriptor of it.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A document, and the blobs that it names.
#[derive(Clone, Debug)]
pub struct Published {
    /// `cacheconfig.v0`, as it lies there. Not looked at yet: it may be anything.
    pub config: Bytes,
    /// As a manifest describes them, with its annotations. Empty where there is no manifest: then the document's own annotations describe them.
    pub blobs: Vec<Descriptor>,
}

/// How many bytes of a blob have passed.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);

/// Where a remote cache's document and blobs lie. Several blobs are read or written at the same time; a transport that must do less at once waits by itself.
pub trait Transport: Send + Sync {
    /// What is there; nothing if there is no cache yet, and several where a name stands for images of several platforms, each with a cache of its own.
    fn published(&self) -> impl Future<Output = Result<Vec<Published>>> + Send;

    /// Whether a blob is there, and will stay for as long as one that is written now.
    fn has_blob(&self, blob: &Descriptor) -> impl Future<Output = Result<bool>> + Send;

    /// Writes a blob's bytes into `sink`. The caller checks size and digest. Another blob's failure does not end the transport.
    fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Puts a blob there, whose bytes are in a file. It may be there already.
    fn write_blob(
        &self,
        blob: &Descriptor,
        source: &Path,
        progress: Progress<'_>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Makes `published` what the cache holds from now on, in one step: its blobs are there. Gives what lists them, if anything does.
    fn publish(&self, published: &Published) -> impl Future<Output = Result<Option<Descriptor>>> + Send;

    /// Whether the document's layers must carry their descriptors, since no manifest does (R7.6.3).
    fn wants_annotations(&self) -> bool;
}

/// A remote cache of any kind.
#[derive(Clone)]
pub enum Remote {
    Registry(RegistryCache),
    Local(LocalCache),
    S3(S3Cache),
    Gha(GhaCache),
}

/// Does the same with a cache of any kind.
macro_rules! each {
    ($remote:expr, $cache:ident => $work:expr) => {
        match $remote {
            Remote::Registry($cache) => $work,
            Remote::Local($cache) => $work,
            Remote::S3($cache) => $work,
            Remote::Gha($cache) => $work,
        }
    };
}

impl Transport for Remote {
    async fn published(&self) -> Result<Vec<Published>> {
        each!(self, cache => cache.published().await)
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        each!(self, cache => cache.has_blob(blob).await)
    }

    async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        each!(self, cache => cache.read_blob(blob, sink, progress).await)
    }

    async fn write_blob(&self, blob: &Descriptor, source: &Path, progress: Progress<'_>) -> Result<()> {
        each!(self, cache => cache.write_blob(blob, source, progress).await)
    }

    async fn publish(&self, published: &Published) -> Result<Option<Descriptor>> {
        each!(self, cache => cache.publish(published).await)
    }

    fn wants_annotations(&self) -> bool {
        each!(self, cache => cache.wants_annotations())
    }
}

impl Remote {
    /// Takes a blob over from another cache where that moves no bytes. False if it does.
    pub async fn mount_blob(&self, blob: &Descriptor, from: &Remote) -> Result<bool> {
        match (self, from) {
            (Remote::Registry(here), Remote::Registry(from)) => here.mount_blob(blob, from).await,
            _ => Ok(false),
        }
    }
}
