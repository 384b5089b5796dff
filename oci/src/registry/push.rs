//! Uploading blobs and manifests (spec R6.4). The order, blobs before manifests before indexes, is the caller's.
//!
//! A blob goes up in one PUT. If anything breaks, the registry is asked whether it has the blob after all, and else the
//! upload begins anew in a new session: registries differ too much in what they keep of a broken one. A registry that
//! finds one PUT too large (413) gets pieces.

use super::Client;
use super::auth::percent_encoded;
use super::body::{Upload, read_chunk};
use super::error::{Action, Error, shown};
use super::request::{Ask, Persistence, Reply, Target, Turn};
use super::scope::Scope;
use crate::fetch::transport::{full, join, silence};
use crate::registries::Endpoint;
use crate::{Digest, MediaType, Reference};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use std::io::{self, Read};
use std::time::{Duration, Instant};

const UPLOAD_ATTEMPTS: u32 = 4;
/// R6.5.4: throttling has a longer budget.
const THROTTLED_ATTEMPTS: u32 = 10;
const WATCH: Duration = Duration::from_millis(100);
/// How much longer than the stall timeout a registry may take to store what it has got: some copy it whole.
const COMMIT_PATIENCE: u32 = 5;
const PIECE: usize = 8 << 20;
const MAX_PIECE: usize = 64 << 20;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// It was taken over from another repository of the same registry.
    Mounted,
    Uploaded,
}

/// How an upload that has a session fared.
enum Outcome {
    Stored,
    /// 413: one piece was too much.
    TooLarge,
}

impl Client {
    /// Whether the repository has the blob (R6.4.2).
    pub async fn has_blob(&self, reference: &Reference, digest: Digest) -> Result<bool, Error> {
        let endpoint = self.registries.origin_for(reference)?;
        self.has_blob_at(&endpoint, &blob_name(reference, digest), digest).await
    }

    /// Takes the blob over from another repository of the same registry (R6.4.3). False if that is not to be had, for
    /// whatever reason: then it must be uploaded.
    pub async fn mount_blob(&self, reference: &Reference, digest: Digest, from: &Reference) -> Result<bool, Error> {
        let endpoint = self.registries.origin_for(reference)?;
        let what = blob_name(reference, digest);
        match self.try_mount(&endpoint, &what, digest, from).await? {
            Mount::Done => Ok(true),
            Mount::Refused => Ok(false),
            Mount::Session(session) => {
                // Not needed; a registry that cannot cancel expires it.
                let cancel = Ask {
                    target: Target::Url(&session),
                    persistence: Persistence::Once,
                    ..Ask::new(&what, Action::Push, Method::DELETE, "", Scope::push(&endpoint.repository))
                };
                if let Err(error) = self.shared.send(&endpoint, &cancel).await {
                    tracing::debug!(%error, "an upload session could not be cancelled");
                }
                Ok(false)
            }
        }
    }

    /// Uploads a blob of `size` bytes. `open` gives its bytes from the beginning, each time that it is called; they
    /// are read on a blocking thread and checked against `digest`. `progress` is told how many bytes have been sent; the
    /// number falls when the upload begins anew.
    pub async fn upload_blob<R: Read + Send + 'static>(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
        open: &(dyn Fn() -> io::Result<R> + Send + Sync),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        let endpoint = self.registries.origin_for(reference)?;
        self.upload_at(&endpoint, &blob_name(reference, digest), digest, size, None, open, progress).await
    }

    /// All of the above, in the order that moves the fewest bytes: see whether the blob is there, mount it from the
    /// first of `mount_from` that has it, upload it.
    pub async fn push_blob<R: Read + Send + 'static>(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
        mount_from: &[Reference],
        open: &(dyn Fn() -> io::Result<R> + Send + Sync),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Pushed, Error> {
        let endpoint = self.registries.origin_for(reference)?;
        let what = blob_name(reference, digest);
        if self.has_blob_at(&endpoint, &what, digest).await? {
            return Ok(Pushed::Present);
        }
        let mut session = None;
        for from in mount_from {
            match self.try_mount(&endpoint, &what, digest, from).await? {
                Mount::Done => return Ok(Pushed::Mounted),
                // 202 opens an upload, which is used rather than left behind.
                Mount::Session(opened) => {
                    session = Some(opened);
                    break;
                }
                Mount::Refused => {}
            }
        }
        self.upload_at(&endpoint, &what, digest, size, session, open, progress).await?;
        Ok(Pushed::Uploaded)
    }

    /// Puts a manifest or an index under the reference's tag, or, if it has none, under its digest (R6.4.6, R6.4.7).
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let endpoint = self.registries.origin_for(reference)?;
        let what = reference.to_string();
        let digest = Digest::of(&bytes);
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            return Err(Error::WrongDigest { what, url: "the local store".into(), expected, actual: digest });
        }
        let path = match reference.tag() {
            Some(tag) => format!("manifests/{tag}"),
            None => format!("manifests/{digest}"),
        };
        let ask = |method| Ask::new(&what, Action::Push, method, &path, Scope::push(&endpoint.repository));
        let mut headers = HeaderMap::new();
        let content_type = HeaderValue::from_str(media_type.as_ref()).map_err(|_| Error::Local {
            what: what.clone(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "the media type cannot stand in a header"),
        })?;

        headers.insert(http::header::ACCEPT, content_type.clone());
        let reply = self.shared.send(&endpoint, &Ask { headers, ..ask(Method::HEAD) }).await?;
        let present = reply.header("docker-content-digest").is_some_and(|text| text == digest.to_string());
        if reply.status() == StatusCode::OK && present {
            return Ok(digest);
        }
        drop(reply);

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        let body = || full(bytes.clone());
        let reply = self.shared.send(&endpoint, &Ask { headers, body: &body, ..ask(Method::PUT) }).await?;
        match reply.status() {
            status if status.is_success() => Ok(digest),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(reply.into_error().await),
            _ => Err(explain_media_type(reply.into_status_error().await, media_type)),
        }
    }

    async fn has_blob_at(&self, endpoint: &Endpoint, what: &str, digest: Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let ask = Ask::new(what, Action::Push, Method::HEAD, &path, Scope::push(&endpoint.repository));
        let reply = self.shared.send(endpoint, &ask).await?;
        match reply.status() {
            StatusCode::OK => Ok(true),
            // Some registries know no HEAD here; the upload will tell.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            _ => Err(reply.into_error().await),
        }
    }

    async fn try_mount(
        &self,
        endpoint: &Endpoint,
        what: &str,
        digest: Digest,
        from: &Reference,
    ) -> Result<Mount, Error> {
        let source = self.registries.origin_for(from)?;
        if source.host != endpoint.host || source.repository == endpoint.repository {
            return Ok(Mount::Refused);
        }
        let repository = percent_encoded(&source.repository);
        let path = format!("blobs/uploads/?mount={}&from={repository}", percent_encoded(&digest.to_string()));
        let scope = Scope::push(&endpoint.repository).and(&Scope::pull(&source.repository));
        let ask = Ask::new(what, Action::Push, Method::POST, &path, scope);
        let reply = match self.shared.send(endpoint, &ask).await {
            Ok(reply) => reply,
            // No token for the other repository.
            Err(Error::Denied { .. } | Error::Token { .. }) => return Ok(Mount::Refused),
            Err(error) => return Err(error),
        };
        Ok(match reply.status() {
            StatusCode::CREATED => Mount::Done,
            StatusCode::ACCEPTED => Mount::Session(location(&reply)?),
            _ => Mount::Refused,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what an upload consists of")]
    async fn upload_at<R: Read + Send + 'static>(
        &self,
        endpoint: &Endpoint,
        what: &str,
        digest: Digest,
        size: u64,
        mut session: Option<Uri>,
        open: &(dyn Fn() -> io::Result<R> + Send + Sync),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Error> {
        let mut failures = 0;
        let mut in_pieces = false;
        loop {
            let opened = match session.take() {
                Some(session) => Ok(session),
                None => self.open_session(endpoint, what).await,
            };
            let done = match opened {
                Err(error) => Err(error),
                Ok(session) if in_pieces => {
                    self.send_pieces(endpoint, what, digest, size, session, open, progress).await
                }
                Ok(session) => self.send_whole(endpoint, what, digest, size, session, open, progress).await,
            };
            let error = match done {
                Ok(Outcome::Stored) => return Ok(()),
                Ok(Outcome::TooLarge) => {
                    in_pieces = true;
                    continue;
                }
                Err(error) => error,
            };
            failures += 1;
            let throttled = matches!(&error, Error::Status { status: StatusCode::TOO_MANY_REQUESTS, .. });
            let budget = if throttled { THROTTLED_ATTEMPTS } else { UPLOAD_ATTEMPTS };
            if !error.is_temporary() || failures >= budget {
                return Err(error);
            }
            let wait = match &error {
                Error::Status { retry_after: Some(wait), .. } => *wait,
                _ => self.shared.backoff(failures - 1),
            };
            self.shared.wait(what, &error.to_string(), wait).await;
            // The answer may have been lost rather than the blob.
            if self.has_blob_at(endpoint, what, digest).await? {
                return Ok(());
            }
        }
    }

    async fn open_session(&self, endpoint: &Endpoint, what: &str) -> Result<Uri, Error> {
        let scope = Scope::push(&endpoint.repository);
        let reply =
            self.shared.send(endpoint, &Ask::new(what, Action::Push, Method::POST, "blobs/uploads/", scope)).await?;
        match reply.status() {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::OK => location(&reply),
            StatusCode::NOT_FOUND => Err(reply.into_status_error().await),
            _ => Err(reply.into_error().await),
        }
    }

    /// R6.4.4.
    #[expect(clippy::too_many_arguments, reason = "what an upload consists of")]
    async fn send_whole<R: Read + Send + 'static>(
        &self,
        endpoint: &Endpoint,
        what: &str,
        digest: Digest,
        size: u64,
        session: Uri,
        open: &(dyn Fn() -> io::Result<R> + Send + Sync),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Outcome, Error> {
        let target = with_digest(&session, digest, what)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let upload = Upload::default();
        let body = || upload.body(open(), digest, size);
        let ask = Ask {
            target: Target::Url(&target),
            headers,
            body: &body,
            turn: Turn::Transfer,
            persistence: Persistence::Once,
            watched: size > 0,
            ..Ask::new(what, Action::Push, Method::PUT, "", Scope::push(&endpoint.repository))
        };
        let sending = self.watch(&upload, what, &target, size, self.shared.send(endpoint, &ask), progress);
        let sent = sending.await;
        if let Some(source) = upload.take_failure() {
            return Err(Error::Local { what: format!("{what}: cannot upload the blob"), source });
        }
        finished(sent?, false).await
    }

    /// Waits for an upload, as long as bytes go out or, once all are, the registry may be storing them.
    async fn watch(
        &self,
        upload: &Upload,
        what: &str,
        url: &Uri,
        size: u64,
        sending: impl Future<Output = Result<Reply, Error>>,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Reply, Error> {
        let stall = self.shared.transport.timing.stall;
        let mut sending = std::pin::pin!(sending);
        let mut ticks = tokio::time::interval(WATCH);
        // Nothing is awaited before the first byte: there may be a turn to wait for. Connecting has its own limit.
        let (mut last, mut moved) = (0, None::<Instant>);
        loop {
            tokio::select! {
                biased;
                reply = &mut sending => {
                    progress(upload.sent());
                    return reply;
                }
                _ = ticks.tick() => {}
            }
            let sent = upload.sent();
            if sent != last {
                (last, moved) = (sent, Some(Instant::now()));
                progress(sent);
            }
            let patience = if sent >= size { stall * COMMIT_PATIENCE } else { stall };
            if moved.is_some_and(|moved| moved.elapsed() > patience) {
                let cause = silence(patience).into();
                return Err(Error::Interrupted { what: what.to_owned(), url: shown(url), cause });
            }
        }
    }

    /// R6.4.5.
    #[expect(clippy::too_many_arguments, reason = "what an upload consists of")]
    async fn send_pieces<R: Read + Send + 'static>(
        &self,
        endpoint: &Endpoint,
        what: &str,
        digest: Digest,
        size: u64,
        mut session: Uri,
        open: &(dyn Fn() -> io::Result<R> + Send + Sync),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Outcome, Error> {
        let local = |source| Error::Local { what: format!("{what}: cannot upload the blob"), source };
        let mut reader = open().map_err(local)?;
        let mut limit = PIECE;
        let mut offset = 0;
        while offset < size {
            let read = move || {
                let piece = read_chunk(&mut reader, limit);
                (reader, piece)
            };
            let (returned, piece) = tokio::task::spawn_blocking(read).await.map_err(|error| local(error.into()))?;
            reader = returned;
            let piece = piece.map_err(local)?;
            let end = offset + piece.len() as u64;
            if piece.is_empty() || end > size {
                return Err(local(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the blob has not {size} bytes"),
                )));
            }
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            let range = HeaderValue::try_from(format!("{offset}-{}", end - 1));
            headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
            let body = || full(piece.clone());
            let ask = Ask {
                target: Target::Url(&session),
                headers,
                body: &body,
                turn: Turn::Transfer,
                persistence: Persistence::Once,
                ..Ask::new(what, Action::Push, Method::PATCH, "", Scope::push(&endpoint.repository))
            };
            let reply = self.shared.send(endpoint, &ask).await?;
            if !reply.status().is_success() {
                return Err(reply.into_error().await);
            }
            if let Some(minimum) = reply.header("oci-chunk-min-length").and_then(|text| text.parse::<usize>().ok()) {
                limit = minimum.clamp(PIECE, MAX_PIECE);
            }
            session = location(&reply)?;
            offset = end;
            progress(offset);
        }
        let target = with_digest(&session, digest, what)?;
        let ask = Ask {
            target: Target::Url(&target),
            persistence: Persistence::Once,
            ..Ask::new(what, Action::Push, Method::PUT, "", Scope::push(&endpoint.repository))
        };
        finished(self.shared.send(endpoint, &ask).await?, true).await
    }
}

enum Mount {
    Done,
    Session(Uri),
    Refused,
}

async fn finished(reply: Reply, in_pieces: bool) -> Result<Outcome, Error> {
    match reply.status() {
        status if status.is_success() => Ok(Outcome::Stored),
        StatusCode::PAYLOAD_TOO_LARGE if !in_pieces => Ok(Outcome::TooLarge),
        // Not the repository is missing but the session.
        StatusCode::NOT_FOUND => Err(reply.into_status_error().await),
        _ => Err(reply.into_error().await),
    }
}

fn blob_name(reference: &Reference, digest: Digest) -> String {
    format!("{}@{digest}", reference.name())
}

fn location(reply: &Reply) -> Result<Uri, Error> {
    let text = reply.header(LOCATION.as_str()).ok_or_else(|| reply.protocol_error("no Location for the upload"))?;
    join(&reply.url, text).map_err(|why| reply.protocol_error(why))
}

/// The location may have a query, which belongs to it.
fn with_digest(location: &Uri, digest: Digest, what: &str) -> Result<Uri, Error> {
    let separator = if location.query().is_some() { '&' } else { '?' };
    let text = format!("{location}{separator}digest={}", percent_encoded(&digest.to_string()));
    text.parse().map_err(|_| Error::Protocol {
        what: what.to_owned(),
        url: shown(location),
        why: "bad location of the upload".into(),
    })
}

/// A registry that does not know a type says so in many ways; the way out is the same.
fn explain_media_type(mut error: Error, media_type: &MediaType) -> Error {
    if let Error::Status { status, detail, .. } = &mut error
        && media_type.to_string().starts_with("application/vnd.oci.")
        && (*status == StatusCode::UNSUPPORTED_MEDIA_TYPE
            || ["MANIFEST_INVALID", "UNSUPPORTED"].iter().any(|code| detail.contains(code)))
    {
        detail.push_str(&format!(
            " (if the registry does not know {media_type}, push with oci-mediatypes=false and --provenance=false)"
        ));
    }
    error
}
