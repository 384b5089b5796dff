//! `type=gha`: a cache in the service of GitHub Actions (R7.6.14), with BuildKit's keys: `buildkit-blob-1-<digest>` for a blob,
//! `index-<scope>-1-<hash of the branch>#<number>` for a document.
//!
//! Entries never change, so each document is a new entry with the next number, and the newest counts. A token may read the caches of several branches, its own
//! and those that it comes from: an import reads them all.

mod azure;
mod config;
mod service;
mod token;

pub use config::GhaConfig;

use super::object::read;
use super::{Error, Progress, Published, Result, Transport};
use bytes::Bytes;
use config::Listing;
use http::Request;
use oci::fetch::Exchange;
use oci::{Descriptor, Digest};
use serde::Deserialize;
use service::{Content, Entry, Reservation, Service, Stored, encoded};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use tokio::sync::{Mutex, OnceCell};

const BLOB_PREFIX: &str = "buildkit-blob-1-";
/// Documents that are larger are no caches.
const MOST_DOCUMENT: u64 = 64 << 20;
/// How often whoever has reserved the next number is waited for, before it counts as dead.
const RIVAL_WAITS: u32 = 8;
/// Of GitHub's API.
const PAGE: usize = 100;
const MOST_PAGES: usize = 200;

/// The cache service. Cheap to clone.
#[derive(Clone)]
pub struct GhaCache {
    shared: Arc<Shared>,
}

struct Shared {
    service: Service,
    /// The keys of all blobs, where GitHub's API may be asked.
    listed: OnceCell<Option<HashSet<String>>>,
}

impl GhaCache {
    /// Asks nobody anything yet.
    pub fn new(config: GhaConfig, exchange: Exchange) -> GhaCache {
        let service = Service { config, exchange };
        GhaCache { shared: Arc::new(Shared { service, listed: OnceCell::new() }) }
    }

    fn service(&self) -> &Service {
        &self.shared.service
    }

    fn index_key(&self, branch: &str) -> String {
        let hash = Digest::of(branch.as_bytes()).hex();
        format!("index-{}-1-{}", self.service().config.scope, &hash[..8])
    }

    /// One listing instead of a question for each blob, of which GitHub allows few.
    async fn listed(&self) -> Option<&HashSet<String>> {
        let listing = self.service().config.listing.as_ref()?;
        let list = async || match self.list(listing).await {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::warn!(%error, "the keys of the cache are not listed");
                None
            }
        };
        self.shared.listed.get_or_init(list).await.as_ref()
    }

    async fn list(&self, listing: &Listing) -> Result<HashSet<String>> {
        #[derive(Deserialize)]
        struct Page {
            actions_caches: Vec<Key>,
        }
        #[derive(Deserialize)]
        struct Key {
            key: String,
        }
        let what = "cannot list the caches of the repository";
        let failed = |problem: String| Error::Service { what: what.to_owned(), problem };
        let mut keys = HashSet::new();
        for branch in self.service().config.token.readable() {
            for page in 1..=MOST_PAGES {
                let url = format!(
                    "{}/repos/{}/actions/caches?key={BLOB_PREFIX}&ref={}&per_page={PAGE}&page={page}",
                    listing.api,
                    listing.repository,
                    encoded(branch)
                );
                let make = || {
                    Ok(Request::get(&url)
                        .header("accept", "application/vnd.github+json")
                        .header("authorization", format!("Bearer {}", listing.token))
                        .body(Bytes::new()))
                };
                let reply = self.service().send(what, make).await?;
                if !reply.status().is_success() {
                    return Err(failed(reply.status().to_string()));
                }
                let body = reply.bytes(4 << 20).await.map_err(|error| failed(error.to_string()))?;
                let page: Page =
                    serde_json::from_slice(&body).map_err(|_| failed("the answer makes no sense".into()))?;
                let count = page.actions_caches.len();
                keys.extend(page.actions_caches.into_iter().map(|key| key.key));
                if count < PAGE {
                    break;
                }
            }
        }
        Ok(keys)
    }

    async fn read(
        &self,
        key: &str,
        entry: Entry,
        digest: Digest,
        most: u64,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        let object = Stored { service: self.service(), key, entry: Mutex::new(entry), digest };
        read(&object, most, sink, progress).await
    }

    async fn of_branch(&self, branch: &str) -> Result<Option<Published>> {
        // With the sign before the number: another scope's name may go on from here.
        let key = format!("{}#", self.index_key(branch));
        let Some(entry) = self.service().find(&key).await? else { return Ok(None) };
        let mut config = Vec::new();
        let name = Digest::of(key.as_bytes());
        match self.read(&key, entry, name, MOST_DOCUMENT, &mut config, &mut |_| {}).await {
            Ok(()) => Ok(Some(Published { config: config.into(), blobs: Vec::new() })),
            // Evicted this very moment.
            Err(Error::NoBlob(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Transport for GhaCache {
    async fn published(&self) -> Result<Vec<Published>> {
        let branches = self.service().config.token.readable();
        let found =
            futures_util::future::try_join_all(branches.into_iter().map(|branch| self.of_branch(branch))).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let key = blob_key(blob);
        match self.listed().await {
            Some(keys) => Ok(keys.contains(&key)),
            None => Ok(self.service().find(&key).await?.is_some()),
        }
    }

    async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        let digest = Digest::try_from(blob.digest()).map_err(|error| Error::Document(error.to_string()))?;
        let key = blob_key(blob);
        let entry = self.service().find(&key).await?.ok_or(Error::NoBlob(digest))?;
        self.read(&key, entry, digest, blob.size(), sink, progress).await
    }

    async fn write_blob(&self, blob: &Descriptor, source: &Path, progress: Progress<'_>) -> Result<()> {
        let key = blob_key(blob);
        let reservation = self.service().reserve(&key).await?;
        // Whoever has the key has the same bytes.
        self.service().fill(&key, &reservation, &Content::File(source, blob.size()), progress).await
    }

    async fn publish(&self, published: &Published) -> Result<Option<Descriptor>> {
        let what = || "cannot save the index in the GitHub Actions cache".to_owned();
        let Some(branch) = self.service().config.token.writable() else {
            let problem =
                "the token may only read caches: a run for a pull request from a fork, for instance, cannot write any";
            return Err(Error::Service { what: what(), problem: problem.to_owned() });
        };
        let base = self.index_key(branch);
        let content = Content::Memory(published.config.clone());
        let mut waits = 0;
        let mut next = 0;
        loop {
            let newest = self.service().find(&format!("{base}#")).await?;
            let number = newest.as_ref().and_then(|entry| entry.key.rsplit_once('#')?.1.parse::<u64>().ok());
            next = number.map_or(0, |number| number.saturating_add(1)).max(next).max(1);
            loop {
                let key = format!("{base}#{next}");
                let reservation = self.service().reserve(&key).await?;
                if !matches!(reservation, Reservation::Taken) {
                    self.service().fill(&key, &reservation, &content, &mut |_| {}).await?;
                    return Ok(None);
                }
                if waits < RIVAL_WAITS {
                    // Somebody writes one now: what comes after it is newer.
                    tokio::time::sleep(self.service().exchange.backoff() * 2).await;
                    waits += 1;
                    break;
                }
                // Whoever reserved it died before it was there.
                next = next.saturating_add(1);
            }
        }
    }

    fn wants_annotations(&self) -> bool {
        true
    }
}

fn blob_key(blob: &Descriptor) -> String {
    format!("{BLOB_PREFIX}{}", blob.digest())
}
