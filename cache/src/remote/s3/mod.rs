//! `type=s3`: a cache in an object store (R7.6.15). The document is the object `<prefix><manifests_prefix><name>`, a blob
//! `<prefix><blobs_prefix><digest>`, as BuildKit lays them out.
//!
//! Blobs up to the size of a part are written by one request, larger ones in parts, which go up at the same time and become an object at the end. What is in memory
//! is bounded by the number of requests with a body at a time (`upload_parallelism`).

mod bucket;
mod config;
mod credentials;
mod error;

pub use config::S3Config;

use super::object::{piece, pieces, read};
use super::{Error, Progress, Published, Result, Transport};
use bucket::{Bucket, Stored};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use oci::fetch::Exchange;
use oci::{Descriptor, Digest};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::AsyncWrite;
use tokio::sync::{Semaphore, SemaphorePermit};

const BLOB_TYPE: &str = "application/octet-stream";
const PART: u64 = 8 << 20;
/// Amazon takes no more parts.
const MOST_PARTS: u64 = 10_000;
/// Documents that are larger are no caches.
const MOST_DOCUMENT: usize = 64 << 20;

/// An object store. Cheap to clone.
#[derive(Clone)]
pub struct S3Cache {
    bucket: Arc<Bucket>,
    uploads: Arc<Semaphore>,
}

impl S3Cache {
    /// Asks nobody anything yet. The environment may hold the credentials.
    pub fn new(config: S3Config, exchange: Exchange) -> S3Cache {
        let uploads = Arc::new(Semaphore::new(config.upload_parallelism));
        S3Cache { bucket: Arc::new(Bucket::new(config, exchange)), uploads }
    }

    fn blob_key(&self, digest: &Digest) -> String {
        let config = &self.bucket.config;
        format!("{}{}{digest}", config.prefix, config.blobs_prefix)
    }

    fn document_key(&self, name: &str) -> String {
        let config = &self.bucket.config;
        format!("{}{}{name}", config.prefix, config.manifests_prefix)
    }

    /// The semaphore is never closed, which is the only way to have none.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.uploads.acquire().await.ok()
    }

    async fn write_parts(&self, key: &str, source: &Path, size: u64, progress: Progress<'_>) -> Result<()> {
        let upload = self.bucket.begin(key).await?;
        let written = async {
            let mut tags = Vec::new();
            let part_size = PART.max(size.div_ceil(MOST_PARTS));
            let mut running: FuturesUnordered<_> = pieces(size, part_size)
                .enumerate()
                .map(|(index, (from, length))| {
                    let upload = &upload;
                    async move {
                        // Before the bytes are read: what waits costs no memory.
                        let _turn = self.turn().await;
                        let bytes = piece(source, from, length).await?;
                        let tag = self.bucket.part(key, upload, index + 1, bytes).await?;
                        Result::Ok((index, length, tag))
                    }
                })
                .collect();
            tags.resize(running.len(), String::new());
            let mut done = 0;
            while let Some(part) = running.next().await {
                let (index, length, tag) = part?;
                done += length;
                progress(done);
                tags[index] = tag;
            }
            self.bucket.complete(key, &upload, &tags).await
        };
        let written = written.await;
        if written.is_err() {
            self.bucket.abort(key, &upload).await;
        }
        written
    }
}

impl Transport for S3Cache {
    async fn published(&self) -> Result<Vec<Published>> {
        let Some(name) = self.bucket.config.names.first() else { return Ok(Vec::new()) };
        let config = self.bucket.get(&self.document_key(name), MOST_DOCUMENT).await?;
        Ok(config.map(|config| Published { config, blobs: Vec::new() }).into_iter().collect())
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let key = self.blob_key(&digest_of(blob)?);
        let Some(stat) = self.bucket.head(&key).await? else { return Ok(false) };
        if stat.size != blob.size() {
            return Ok(false);
        }
        let age = stat.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age > self.bucket.config.touch_refresh) {
            self.bucket.touch(&key, stat.size).await?;
        }
        Ok(true)
    }

    async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        let digest = digest_of(blob)?;
        let object = Stored { bucket: &self.bucket, key: self.blob_key(&digest), digest };
        read(&object, blob.size(), sink, progress).await
    }

    async fn write_blob(&self, blob: &Descriptor, source: &Path, progress: Progress<'_>) -> Result<()> {
        let (key, size) = (self.blob_key(&digest_of(blob)?), blob.size());
        if size > PART {
            return self.write_parts(&key, source, size, progress).await;
        }
        let _turn = self.turn().await;
        self.bucket.put(&key, piece(source, 0, size).await?, BLOB_TYPE).await?;
        progress(size);
        Ok(())
    }

    async fn publish(&self, published: &Published) -> Result<Option<Descriptor>> {
        for name in &self.bucket.config.names {
            self.bucket.put(&self.document_key(name), Bytes::clone(&published.config), "application/json").await?;
        }
        Ok(None)
    }

    fn wants_annotations(&self) -> bool {
        true
    }
}

fn digest_of(blob: &Descriptor) -> Result<Digest> {
    Digest::try_from(blob.digest()).map_err(|error| Error::Document(error.to_string()))
}
