//! The two protocols of the cache service. Both know entries by a key and a version, find an entry by a part of its key's beginning, newest first, and never change one:
//! a key is reserved, its bytes are uploaded, and then it is there.
//!
//! - Version 1 is a REST service that takes the bytes itself, in ranges.
//! - Version 2 is a Twirp service (`github.actions.results.api.v1.CacheService`) with JSON, which gives signed URLs of Azure's blob storage.
//!
//! The facts are those of `@actions/cache` and of `tonistiigi/go-actions-cache`.

use super::super::object::{Object, piece, pieces};
use super::super::{Error, Progress, Result};
use super::azure;
use super::config::{GhaConfig, Version};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request, StatusCode};
use oci::Digest;
use oci::fetch::{Exchange, Reply};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path;

const TWIRP: &str = "twirp/github.actions.results.api.v1.CacheService";
const REST: &str = "_apis/artifactcache";
/// Answers are short documents.
const MOST_ANSWERED: usize = 1 << 20;
const PIECE: u64 = 8 << 20;
const AT_ONCE: usize = 4;

/// The service. What it is asked belongs to BuildKit's version of entries, so that other actions' caches are never met.
pub(super) struct Service {
    pub config: GhaConfig,
    pub exchange: Exchange,
}

/// An entry that is there.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    /// Signed: it holds a secret, for a while.
    pub url: String,
}

/// Where bytes go.
pub(super) enum Reservation {
    /// The number of the entry.
    V1(u64),
    /// A signed URL.
    V2(String),
    /// Somebody has, or had, the key.
    Taken,
}

/// The bytes of an entry.
pub(super) enum Content<'a> {
    Memory(Bytes),
    File(&'a Path, u64),
}

#[derive(Deserialize)]
struct FoundV1 {
    #[serde(rename = "cacheKey", default)]
    key: String,
    #[serde(rename = "archiveLocation", default)]
    url: String,
}

#[derive(Deserialize)]
struct FoundV2 {
    #[serde(default)]
    ok: bool,
    #[serde(alias = "signedDownloadUrl", default)]
    signed_download_url: String,
    #[serde(alias = "matchedKey", default)]
    matched_key: String,
}

#[derive(Deserialize)]
struct ReservedV1 {
    #[serde(rename = "cacheId", alias = "cacheID")]
    id: u64,
}

#[derive(Deserialize)]
struct ReservedV2 {
    #[serde(default)]
    ok: bool,
    #[serde(alias = "signedUploadUrl", default)]
    signed_upload_url: String,
}

#[derive(Deserialize)]
struct Finalized {
    #[serde(default)]
    ok: bool,
}

/// What both protocols say of failures.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    code: String,
    #[serde(alias = "msg")]
    message: String,
    #[serde(rename = "typeKey")]
    type_key: String,
}

impl Service {
    /// The newest entry whose key begins so.
    pub async fn find(&self, key: &str) -> Result<Option<Entry>> {
        let what = format!("cannot look for {key:?} in the GitHub Actions cache");
        let entry = match self.config.version {
            Version::V1 => {
                let path = format!("{REST}/cache?keys={}&version={}", encoded(key), version());
                let reply = self.ask(&what, Method::GET, &path, None).await?;
                if matches!(reply.status(), StatusCode::NO_CONTENT | StatusCode::NOT_FOUND) {
                    return Ok(None);
                }
                let found: FoundV1 = self.answer(&what, reply).await?;
                Entry { key: found.key, url: found.url }
            }
            Version::V2 => {
                let body = json!({ "key": key, "restore_keys": [key], "version": version() });
                let reply = self.twirp(&what, "GetCacheEntryDownloadURL", body).await?;
                if reply.status() == StatusCode::NOT_FOUND {
                    return Ok(None);
                }
                let found: FoundV2 = self.answer(&what, reply).await?;
                if !found.ok {
                    return Ok(None);
                }
                Entry { key: found.matched_key, url: found.signed_download_url }
            }
        };
        let is_usable = entry.key.starts_with(key) && entry.url.starts_with("http");
        Ok(Some(entry).filter(|_| is_usable))
    }

    pub async fn reserve(&self, key: &str) -> Result<Reservation> {
        let what = format!("cannot reserve {key:?} in the GitHub Actions cache");
        let body = json!({ "key": key, "version": version() });
        let reply = match self.config.version {
            Version::V1 => self.ask(&what, Method::POST, &format!("{REST}/caches"), Some(body)).await?,
            Version::V2 => self.twirp(&what, "CreateCacheEntry", body).await?,
        };
        if !reply.status().is_success() {
            let (status, refusal) = refusal(reply).await;
            let says_so = refusal.code == "already_exists"
                || refusal.type_key.contains("AlreadyExists")
                || refusal.message.to_ascii_lowercase().contains("already exists");
            return match status == StatusCode::CONFLICT || says_so {
                true => Ok(Reservation::Taken),
                false => Err(self.refused(what, status, &refusal)),
            };
        }
        match self.config.version {
            Version::V1 => Ok(Reservation::V1(self.answer::<ReservedV1>(&what, reply).await?.id)),
            Version::V2 => {
                let reserved: ReservedV2 = self.answer(&what, reply).await?;
                match reserved.ok && !reserved.signed_upload_url.is_empty() {
                    true => Ok(Reservation::V2(reserved.signed_upload_url)),
                    false => Ok(Reservation::Taken),
                }
            }
        }
    }

    /// Uploads what a key was reserved for, and makes it an entry.
    pub async fn fill(
        &self,
        key: &str,
        reservation: &Reservation,
        content: &Content<'_>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let what = format!("cannot save {key:?} in the GitHub Actions cache");
        let size = content.size();
        match reservation {
            Reservation::Taken => Ok(()),
            Reservation::V1(id) => {
                let path = format!("{REST}/caches/{id}");
                let uploads = pieces(size, PIECE).map(|(from, length)| {
                    let (what, path) = (&what, &path);
                    async move {
                        let bytes = content.piece(from, length).await?;
                        let range = format!("bytes {from}-{}/*", from + length - 1);
                        let reply = self.send(what, || {
                            Ok(self
                                .request(Method::PATCH, path)
                                .header("content-type", "application/octet-stream")
                                .header("content-range", &range)
                                .body(bytes.clone()))
                        });
                        self.succeeded(what, reply.await?).await?;
                        Result::Ok(length)
                    }
                });
                let mut uploads = futures_util::stream::iter(uploads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
                let mut done = 0;
                while let Some(length) = uploads.try_next().await? {
                    done += length;
                    progress(done);
                }
                let reply = self.ask(&what, Method::POST, &path, Some(json!({ "size": size }))).await?;
                self.succeeded(&what, reply).await
            }
            Reservation::V2(url) => {
                azure::upload(self, &what, url, content, progress).await?;
                // Numbers of 64 bits are texts in the JSON of protocol buffers.
                let body = json!({ "key": key, "size_bytes": size.to_string(), "version": version() });
                let reply = self.twirp(&what, "FinalizeCacheEntryUpload", body).await?;
                let finalized: Finalized = self.answer(&what, reply).await?;
                let problem = "the service did not take what was uploaded".to_owned();
                if finalized.ok { Ok(()) } else { Err(Error::Service { what, problem }) }
            }
        }
    }

    async fn twirp(&self, what: &str, method: &str, body: Value) -> Result<Reply> {
        self.ask(what, Method::POST, &format!("{TWIRP}/{method}"), Some(body)).await
    }

    async fn ask(&self, what: &str, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
        let text = body.map(|body| Bytes::from(body.to_string()));
        self.send(what, || {
            let mut request = self.request(method.clone(), path);
            if text.is_some() {
                request = request.header("content-type", "application/json");
            }
            Ok(request.body(text.clone().unwrap_or_default()))
        })
        .await
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let accept = match self.config.version {
            Version::V1 => "application/json;api-version=6.0-preview.1",
            Version::V2 => "application/json",
        };
        Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.config.url))
            .header("accept", accept)
            .header("authorization", self.config.token.authorization())
    }

    /// Sends a request until it has an answer that counts.
    pub async fn send(&self, what: &str, make: impl Fn() -> Result<http::Result<Request<Bytes>>>) -> Result<Reply> {
        let failed = |problem: String| Error::Service { what: what.to_owned(), problem };
        if self.config.token.has_expired() {
            return Err(failed(EXPIRED.to_owned()));
        }
        let mut retry = self.exchange.retry().within(self.config.timeout);
        loop {
            // The builder's error does not show the header that is wrong.
            let request = make()?.map_err(|error| failed(format!("the request cannot be made: {error}")))?;
            let outcome = self.exchange.send(request).await;
            if !retry.again(&outcome).await {
                return outcome.map_err(|error| failed(error.to_string()));
            }
        }
    }

    async fn answer<T: serde::de::DeserializeOwned>(&self, what: &str, reply: Reply) -> Result<T> {
        let failed = |problem: String| Error::Service { what: what.to_owned(), problem };
        if !reply.status().is_success() {
            let (status, refusal) = refusal(reply).await;
            return Err(self.refused(what.to_owned(), status, &refusal));
        }
        let body = reply.bytes(MOST_ANSWERED).await.map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body)
            .map_err(|error| failed(format!("the service's answer makes no sense (line {})", error.line())))
    }

    pub async fn succeeded(&self, what: &str, reply: Reply) -> Result<()> {
        if reply.status().is_success() {
            return Ok(());
        }
        let (status, refusal) = refusal(reply).await;
        Err(self.refused(what.to_owned(), status, &refusal))
    }

    fn refused(&self, what: String, status: StatusCode, refusal: &Refusal) -> Error {
        let told = match (refusal.code.as_str(), refusal.message.as_str()) {
            ("", "") => status.to_string(),
            ("", message) => format!("{status}: {message}"),
            (code, message) => format!("{status}: {code} {message}"),
        };
        let advice = match status {
            StatusCode::UNAUTHORIZED => " (the token is not accepted; it is valid for the time of its job only)",
            StatusCode::FORBIDDEN => " (the token may not do this for its branch)",
            StatusCode::TOO_MANY_REQUESTS => " (too many requests for this repository; try later)",
            _ => "",
        };
        Error::Service { what, problem: format!("{told}{advice}") }
    }
}

const EXPIRED: &str =
    "the token of the cache service has expired: it is valid for some hours from the start of its job";

impl Content<'_> {
    pub fn size(&self) -> u64 {
        match self {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::File(_, size) => *size,
        }
    }

    pub async fn piece(&self, from: u64, length: u64) -> Result<Bytes> {
        match self {
            Content::Memory(bytes) => Ok(bytes.slice(from as usize..(from + length) as usize)),
            Content::File(path, _) => piece(path, from, length).await,
        }
    }
}

/// An entry's bytes. Its URL is asked for anew when it has expired.
pub(super) struct Stored<'a> {
    pub service: &'a Service,
    pub key: &'a str,
    pub entry: tokio::sync::Mutex<Entry>,
    pub digest: Digest,
}

impl Object for Stored<'_> {
    async fn open(&self, from: u64) -> Result<Reply> {
        let what = self.what();
        for is_last in [false, true] {
            let url = self.entry.lock().await.url.clone();
            let get = || {
                let mut request = Request::get(&url);
                if self.service.config.version == Version::V2 {
                    request = request.header("x-ms-version", azure::PROTOCOL);
                }
                if from > 0 {
                    request = request.header("range", format!("bytes={from}-"));
                }
                Ok(request.body(Bytes::new()))
            };
            let reply = self.service.send(&what, get).await?;
            match reply.status() {
                status if status.is_success() => return Ok(reply),
                StatusCode::NOT_FOUND => return Err(Error::NoBlob(self.digest)),
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED if !is_last => {
                    match self.service.find(self.key).await? {
                        Some(entry) => *self.entry.lock().await = entry,
                        None => return Err(Error::NoBlob(self.digest)),
                    }
                }
                status => return Err(Error::Service { what, problem: status.to_string() }),
            }
        }
        Err(Error::NoBlob(self.digest))
    }

    fn what(&self) -> String {
        format!("cannot read {:?} from the GitHub Actions cache", self.key)
    }
}

async fn refusal(reply: Reply) -> (StatusCode, Refusal) {
    let status = reply.status();
    let body = reply.beginning().await;
    // Some answers begin with a byte order mark.
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
    let mut refusal: Refusal = serde_json::from_slice(text).unwrap_or_default();
    for text in [&mut refusal.code, &mut refusal.message] {
        // It goes to a terminal.
        *text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    }
    (status, refusal)
}

/// The namespace of entries, which is BuildKit's.
fn version() -> String {
    hex::encode(Sha256::digest(b"|go-actionscache-1.0"))
}

pub(super) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
