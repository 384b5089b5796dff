//! Resolving names and fetching content (spec R6.3).

use super::endpoints::Attempts;
use super::error::{Action, Error, shown};
use super::request::{Ask, Persistence, Reply, Turn};
use super::scope::Scope;
use super::{Client, MAX_MANIFEST};
use crate::fetch::next_chunk;
use crate::fetch::transport::{Outgoing, empty};
use crate::registries::Endpoint;
use crate::{Descriptor, Digest, MediaType, Reference};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// R6.3.1.
const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, */*";
/// R6.3.9: how often a transfer may break without having brought a byte.
const FRUITLESS_ATTEMPTS: u32 = 3;

/// What a reference means at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub digest: Digest,
    pub media_type: MediaType,
    pub size: u64,
    /// Who said so.
    pub endpoint: Endpoint,
}

impl Resolved {
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.size, self.digest.to_spec())
    }
}

/// A download on its way: what has come and been written.
struct Ingest<'a> {
    what: &'a str,
    digest: Digest,
    size: u64,
    hasher: Sha256,
    offset: u64,
}

/// Where a blob's bytes come from.
enum Source<'a> {
    Endpoint(&'a Endpoint),
    /// A URL of the descriptor itself, which gets no credentials (R6.3.7).
    Foreign(&'a Uri),
}

/// A failed attempt, and whether the rest may be asked for.
struct Broken {
    error: Error,
    resumable: bool,
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken { error, resumable: false }
    }
}

impl Client {
    /// Digest, media type and size of what `reference` names. With a digest: that it exists.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let what = reference.to_string();
        let endpoints = self.registries.endpoints_for(reference)?;
        let mut attempts = Attempts::new(&self.shared, &what);
        for endpoint in &endpoints {
            if !attempts.worthwhile(endpoint).await {
                continue;
            }
            match self.resolve_at(endpoint, reference, &what).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => attempts.failed(endpoint, error),
            }
        }
        Err(attempts.into_error())
    }

    /// A manifest or an index, verified: its media type, its digest, its bytes as they are. At most
    /// [`MAX_MANIFEST`] bytes.
    pub async fn manifest(&self, reference: &Reference) -> Result<(MediaType, Digest, Bytes), Error> {
        let what = reference.to_string();
        let endpoints = self.registries.endpoints_for(reference)?;
        let mut attempts = Attempts::new(&self.shared, &what);
        for endpoint in &endpoints {
            if !attempts.worthwhile(endpoint).await {
                continue;
            }
            match self.manifest_at(endpoint, reference, &what).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => attempts.failed(endpoint, error),
            }
        }
        Err(attempts.into_error())
    }

    /// Streams a blob of `reference`'s repository into `sink`, and verifies size and digest. `progress` is told how
    /// many bytes have come in all. After an error, what the sink has got must be thrown away, unless the error is one
    /// of the connection ([`Error::is_unreachable`]): then it is a beginning for [`Client::resume_blob`].
    pub async fn blob<W: AsyncWrite + Unpin + Send>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut W,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        self.resume_blob(reference, descriptor, Sha256::new(), 0, sink, progress).await
    }

    /// As [`Client::blob`], of which the first `offset` bytes are there already and have gone into `hasher` (R6.3.10).
    pub async fn resume_blob<W: AsyncWrite + Unpin + Send>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        hasher: Sha256,
        offset: u64,
        sink: &mut W,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        let what = blob_name(reference, descriptor);
        let mut ingest = Ingest { hasher, offset, ..Ingest::new(&what, descriptor)? };
        for url in foreign_urls(descriptor) {
            match self.blob_from(&Source::Foreign(&url), true, &mut ingest, sink, progress).await {
                Err(error) if ingest.may_go_on(&error) => tracing::debug!(%error, "foreign url failed"),
                done => return done,
            }
        }
        let endpoints = self.registries.endpoints_for(reference)?;
        let mut attempts = Attempts::new(&self.shared, &what);
        for (index, endpoint) in endpoints.iter().enumerate() {
            if !attempts.worthwhile(endpoint).await {
                continue;
            }
            let last = index + 1 == endpoints.len();
            match self.blob_from(&Source::Endpoint(endpoint), last, &mut ingest, sink, progress).await {
                Err(error) if ingest.may_go_on(&error) => attempts.failed(endpoint, error),
                done => return done,
            }
        }
        Err(attempts.into_error())
    }

    /// A small blob as a whole, such as a config: an error before anything is asked if it is larger than `max`.
    pub async fn fetch_blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        max: u64,
    ) -> Result<Bytes, Error> {
        let what = blob_name(reference, descriptor);
        if descriptor.size() > max {
            return Err(Error::TooLarge { what, size: descriptor.size(), limit: max });
        }
        let endpoints = self.registries.endpoints_for(reference)?;
        let mut attempts = Attempts::new(&self.shared, &what);
        for (index, endpoint) in endpoints.iter().enumerate() {
            if !attempts.worthwhile(endpoint).await {
                continue;
            }
            let last = index + 1 == endpoints.len();
            // Each endpoint begins anew, so that one that lies does not spoil the next one's answer.
            let mut ingest = Ingest::new(&what, descriptor)?;
            let mut bytes = Vec::new();
            match self.blob_from(&Source::Endpoint(endpoint), last, &mut ingest, &mut bytes, &mut |_| {}).await {
                Ok(()) => return Ok(bytes.into()),
                Err(error) => attempts.failed(endpoint, error),
            }
        }
        Err(attempts.into_error())
    }

    async fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference, what: &str) -> Result<Resolved, Error> {
        let path = manifest_path(reference);
        let reply = self.shared.send(endpoint, &self.ask_manifest(Method::HEAD, endpoint, what, &path)).await?;
        match (reply.status(), reference.digest()) {
            (StatusCode::OK, _) => {
                if let Some(resolved) = from_headers(&reply, reference, endpoint)? {
                    return Ok(resolved);
                }
            }
            (StatusCode::NOT_FOUND, Some(digest)) => {
                drop(reply);
                return self.resolve_blob_at(endpoint, digest, what).await;
            }
            // R6.3.1, and R6.3.4: the answer to a HEAD holds no words.
            (StatusCode::METHOD_NOT_ALLOWED | StatusCode::FORBIDDEN, _) => {}
            _ => return Err(reply.into_error().await),
        }
        drop(reply);
        let (media_type, digest, bytes) = self.manifest_at(endpoint, reference, what).await?;
        Ok(Resolved { digest, media_type, size: bytes.len() as u64, endpoint: endpoint.clone() })
    }

    /// R6.3.3.
    async fn resolve_blob_at(&self, endpoint: &Endpoint, digest: Digest, what: &str) -> Result<Resolved, Error> {
        let path = format!("blobs/{digest}");
        let scope = Scope::pull(&endpoint.repository);
        let ask =
            Ask { persistence: persistence(endpoint), ..Ask::new(what, Action::Pull, Method::HEAD, &path, scope) };
        let reply = self.shared.send(endpoint, &ask).await?;
        if reply.status() != StatusCode::OK {
            return Err(reply.into_error().await);
        }
        let size = content_length(&reply).ok_or_else(|| reply.protocol_error("no Content-Length"))?;
        let media_type = reply.content_type().unwrap_or_else(|| "application/octet-stream".into());
        Ok(Resolved { digest, media_type: media_type.as_str().into(), size, endpoint: endpoint.clone() })
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        what: &str,
    ) -> Result<(MediaType, Digest, Bytes), Error> {
        let path = manifest_path(reference);
        let reply = self.shared.send(endpoint, &self.ask_manifest(Method::GET, endpoint, what, &path)).await?;
        if reply.status() != StatusCode::OK {
            return Err(reply.into_error().await);
        }
        check_size(what, content_length(&reply))?;
        let content_type = reply.content_type();
        // Of another algorithm: the name that was asked for, or nothing, is what is checked.
        let announced = reply.header(DOCKER_CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
        let url = shown(&reply.url);
        let bytes = reply.bytes(MAX_MANIFEST).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = reference.digest().or(announced).filter(|expected| *expected != actual) {
            return Err(Error::WrongDigest { what: what.to_owned(), url, expected, actual });
        }
        let media_type = media_type(content_type.as_deref(), &bytes).map_err(|why| Error::Protocol {
            what: what.to_owned(),
            url,
            why,
        })?;
        reject_schema1(what, &media_type)?;
        Ok((media_type, actual, bytes))
    }

    fn ask_manifest<'a>(&self, method: Method, endpoint: &Endpoint, what: &'a str, path: &'a str) -> Ask<'a> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let scope = Scope::pull(&endpoint.repository);
        Ask { headers, persistence: persistence(endpoint), ..Ask::new(what, Action::Pull, method, path, scope) }
    }

    /// All that is missing, over as many connections as it takes.
    async fn blob_from<W: AsyncWrite + Unpin + Send>(
        &self,
        source: &Source<'_>,
        last: bool,
        ingest: &mut Ingest<'_>,
        sink: &mut W,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        let mut fruitless = 0;
        loop {
            let before = ingest.offset;
            let Err(Broken { error, resumable }) = self.blob_once(source, last, ingest, sink, progress).await else {
                return Ok(());
            };
            fruitless = if ingest.offset > before { 1 } else { fruitless + 1 };
            if !resumable || fruitless >= FRUITLESS_ATTEMPTS {
                return Err(error);
            }
            self.shared.wait(ingest.what, &error.to_string(), self.shared.backoff(fruitless - 1)).await;
        }
    }

    async fn blob_once<W: AsyncWrite + Unpin + Send>(
        &self,
        source: &Source<'_>,
        last: bool,
        ingest: &mut Ingest<'_>,
        sink: &mut W,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Broken> {
        // All there already: only the digest is left to check.
        let nothing_missing = ingest.offset == ingest.size && ingest.size > 0;
        let mut reply = match nothing_missing {
            true => return Ok(ingest.verify("what was stored before")?),
            false => self.open_blob(source, last, ingest).await?,
        };
        let url = shown(&reply.url);
        // A server that does not do ranges sends all from the beginning (R6.3.9).
        let mut skip = if reply.status() == StatusCode::OK { ingest.offset } else { 0 };
        let announced = content_length(&reply);
        let expected = ingest.size - ingest.offset + skip;
        if let Some(actual) = announced.filter(|announced| *announced != expected) {
            return Err(Error::WrongSize { what: ingest.what.to_owned(), url, expected, actual }.into());
        }
        let stall = self.shared.transport.timing.stall;
        loop {
            let mut chunk = match next_chunk(reply.response.body_mut(), stall).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(error) => return Err(ingest.interrupted(url, error)),
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            // At most the chunk's own length.
            bytes::Buf::advance(&mut chunk, skipped as usize);
            let total = ingest.offset + chunk.len() as u64;
            if total > ingest.size {
                let what = ingest.what.to_owned();
                return Err(Error::WrongSize { what, url, expected: ingest.size, actual: total }.into());
            }
            if chunk.is_empty() {
                continue;
            }
            sink.write_all(&chunk).await.map_err(|source| ingest.local(source))?;
            ingest.hasher.update(&chunk);
            ingest.offset = total;
            progress(total);
        }
        if ingest.offset < ingest.size {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended too early");
            return Err(ingest.interrupted(url, error));
        }
        sink.flush().await.map_err(|source| ingest.local(source))?;
        Ok(ingest.verify(&url)?)
    }

    async fn open_blob(&self, source: &Source<'_>, last: bool, ingest: &Ingest<'_>) -> Result<Reply, Error> {
        let mut headers = HeaderMap::new();
        if ingest.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", ingest.offset));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let reply = match source {
            Source::Endpoint(endpoint) => {
                let path = format!("blobs/{}", ingest.digest);
                let scope = Scope::pull(&endpoint.repository);
                let persistence = if last { Persistence::Full } else { Persistence::Brief };
                let ask = Ask {
                    headers,
                    persistence,
                    turn: Turn::Transfer,
                    ..Ask::new(ingest.what, Action::Pull, Method::GET, &path, scope)
                };
                self.shared.send(endpoint, &ask).await?
            }
            Source::Foreign(url) => {
                let patience = Some(self.shared.transport.timing.stall);
                let outgoing = Outgoing {
                    method: Method::GET,
                    url: (*url).clone(),
                    headers,
                    authorization: None,
                    body: &empty,
                    insecure: false,
                    redirects: true,
                    patience,
                };
                let sent = self.shared.transport.send(outgoing).await;
                let (response, url) = sent.map_err(|failure| self.shared.failed(failure, ingest.what))?;
                Reply::foreign(ingest.what, response, url, self.shared.transport.timing.stall)
            }
        };
        match reply.status() {
            StatusCode::OK => Ok(reply),
            StatusCode::PARTIAL_CONTENT if ingest.offset > 0 => {
                let start = reply.header(CONTENT_RANGE.as_str()).and_then(range_start);
                match start {
                    Some(start) if start == ingest.offset => Ok(reply),
                    _ => Err(reply.protocol_error(format!("not the range from {} on", ingest.offset))),
                }
            }
            status if status.is_success() => Err(reply.protocol_error(format!("unexpected status {status}"))),
            _ => Err(reply.into_error().await),
        }
    }
}

impl<'a> Ingest<'a> {
    fn new(what: &'a str, descriptor: &Descriptor) -> Result<Self, Error> {
        let digest = Digest::try_from(descriptor.digest())
            .map_err(|_| Error::UnsupportedDigest { what: what.to_owned(), digest: descriptor.digest().to_string() })?;
        Ok(Ingest { what, digest, size: descriptor.size(), hasher: Sha256::new(), offset: 0 })
    }

    fn verify(&self, url: &str) -> Result<(), Error> {
        let actual = Digest::from_hasher(self.hasher.clone());
        if actual == self.digest {
            return Ok(());
        }
        Err(Error::WrongDigest { what: self.what.to_owned(), url: url.to_owned(), expected: self.digest, actual })
    }

    /// Whether another endpoint can continue: not when wrong bytes are in the sink, or the sink failed.
    fn may_go_on(&self, error: &Error) -> bool {
        match error {
            Error::Local { .. } => false,
            Error::WrongDigest { .. } => false,
            Error::WrongSize { .. } => self.offset == 0,
            _ => true,
        }
    }

    fn interrupted(&self, url: String, error: io::Error) -> Broken {
        let error = Error::Interrupted { what: self.what.to_owned(), url, cause: error.into() };
        Broken { error, resumable: true }
    }

    fn local(&self, source: io::Error) -> Broken {
        Error::Local { what: format!("{}: cannot store the blob", self.what), source }.into()
    }
}

fn blob_name(reference: &Reference, descriptor: &Descriptor) -> String {
    format!("{}@{}", reference.name(), descriptor.digest())
}

/// Mirrors have the registry behind them.
fn persistence(endpoint: &Endpoint) -> Persistence {
    if endpoint.is_mirror() { Persistence::Brief } else { Persistence::Full }
}

/// A digest counts more than a tag (R5.12.4).
fn manifest_path(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("manifests/{digest}"),
        (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
    }
}

/// R6.3.2. `None` if the headers do not tell all, so that the manifest itself must.
fn from_headers(reply: &Reply, reference: &Reference, endpoint: &Endpoint) -> Result<Option<Resolved>, Error> {
    let size = content_length(reply);
    check_size(&reply.what, size)?;
    let digest = reply.header(DOCKER_CONTENT_DIGEST).and_then(|text| text.parse::<Digest>().ok());
    let media_type = reply.content_type().filter(|text| is_manifest_type(text));
    let (Some(digest), Some(size), Some(media_type)) = (digest, size, media_type) else {
        return Ok(None);
    };
    if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
        let url = shown(&reply.url);
        return Err(Error::WrongDigest { what: reply.what.clone(), url, expected, actual: digest });
    }
    let media_type = MediaType::from(media_type.as_str());
    reject_schema1(&reply.what, &media_type)?;
    Ok(Some(Resolved { digest, media_type, size, endpoint: endpoint.clone() }))
}

fn content_length(reply: &Reply) -> Option<u64> {
    reply.header(CONTENT_LENGTH.as_str())?.parse().ok()
}

fn check_size(what: &str, size: Option<u64>) -> Result<(), Error> {
    let limit = MAX_MANIFEST as u64;
    match size.filter(|size| *size > limit) {
        Some(size) => Err(Error::TooLarge { what: what.to_owned(), size, limit }),
        None => Ok(()),
    }
}

/// `bytes 100-199/200` is 100.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// Not one of the types that file servers give to everything.
fn is_manifest_type(content_type: &str) -> bool {
    !matches!(content_type, "application/json" | "application/octet-stream" | "text/plain" | "text/html")
}

fn media_type(content_type: Option<&str>, bytes: &[u8]) -> Result<MediaType, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        media_type: Option<String>,
        schema_version: Option<u64>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline =
        serde_json::from_slice(bytes).map_err(|error| format!("the manifest is not valid JSON: {error}"))?;
    if let Some(content_type) = content_type.filter(|text| is_manifest_type(text)) {
        return Ok(content_type.into());
    }
    // An OCI manifest need not say what it is.
    Ok(match (outline.media_type, outline.schema_version, outline.manifests) {
        (_, Some(1), _) => "application/vnd.docker.distribution.manifest.v1+json".into(),
        (Some(media_type), ..) => media_type.as_str().into(),
        (None, _, Some(_)) => MediaType::ImageIndex,
        (None, ..) => MediaType::ImageManifest,
    })
}

/// R6.3.6.
fn reject_schema1(what: &str, media_type: &MediaType) -> Result<(), Error> {
    if media_type.to_string().starts_with("application/vnd.docker.distribution.manifest.v1+") {
        return Err(Error::Schema1 { what: what.to_owned() });
    }
    Ok(())
}

/// R6.3.7.
fn foreign_urls(descriptor: &Descriptor) -> Vec<Uri> {
    let urls = descriptor.urls().iter().flatten().filter_map(|text| text.parse::<Uri>().ok());
    urls.filter(|url| matches!(url.scheme_str(), Some("http" | "https"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_tell_its_own_type() {
        let docker = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;
        for (content_type, bytes, expected) in [
            (Some("application/vnd.oci.image.index.v1+json"), "{}", "application/vnd.oci.image.index.v1+json"),
            (Some("text/plain"), docker, "application/vnd.docker.distribution.manifest.v2+json"),
            (None, r#"{"manifests":[]}"#, "application/vnd.oci.image.index.v1+json"),
            (None, r#"{"layers":[]}"#, "application/vnd.oci.image.manifest.v1+json"),
            (None, r#"{"schemaVersion":1}"#, "application/vnd.docker.distribution.manifest.v1+json"),
        ] {
            assert_eq!(media_type(content_type, bytes.as_bytes()).unwrap().to_string(), expected);
        }
        assert!(media_type(None, b"<html>").is_err());
        let schema1 = MediaType::from("application/vnd.docker.distribution.manifest.v1+prettyjws");
        assert!(reject_schema1("x", &schema1).is_err());
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(range_start("bytes 100-199/200"), Some(100));
        assert_eq!(range_start("bytes */200"), None);
        assert_eq!(range_start("100-199"), None);
    }
}
