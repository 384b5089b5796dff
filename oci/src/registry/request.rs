//! One request to one endpoint: scheme, credentials, turns, and trying again (spec R6.1, R6.5).

use super::auth::{Asker, Authenticator};
use super::error::{Action, Error, shown};
use super::response::{self, error_detail, retry_after};
use super::scope::Scope;
use crate::fetch::transport::{Body, BoxError, Failure, Outgoing, Transport, empty, is_loopback};
use crate::registries::Endpoint;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// R6.1.9.
const TRANSFERS_PER_HOST: usize = 4;
const SERVER_ERRORS: u32 = 3;
const INTERRUPTIONS: u32 = 4;
/// R6.5.4: a registry that throttles is asked longer than one that is broken.
const THROTTLED: u32 = 10;
const LOGINS: u32 = 2;
/// How long a host that could not be connected to counts as unreachable, where something else already answered.
const UNREACHABLE: Duration = Duration::from_secs(60);
/// The patience with such a host.
const PROBE: Duration = Duration::from_secs(5);

/// What is common to all requests of a client.
pub(super) struct Shared {
    pub(super) transport: Transport,
    authenticator: Authenticator,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    warnings: Mutex<HashSet<String>>,
}

struct Host {
    transfers: Arc<Semaphore>,
    /// A turn besides the transfers, so that a manifest never waits for a gigabyte.
    documents: Arc<Semaphore>,
    /// `https` or `http`, once an insecure host's was found out.
    scheme: OnceCell<&'static str>,
    unreachable: Mutex<Option<(Instant, String)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Document,
    Transfer,
}

/// A request as the callers state it.
pub(super) struct Ask<'a> {
    /// For messages: the reference, perhaps with the blob.
    pub what: &'a str,
    pub action: Action,
    pub method: Method,
    pub target: Target<'a>,
    pub headers: HeaderMap,
    pub body: &'a (dyn Fn() -> Body + Sync),
    pub scope: Scope,
    pub turn: Turn,
    pub persistence: Persistence,
    /// Without a limit on how long the answer takes to begin: the caller watches.
    pub watched: bool,
}

/// How long a request is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Only a login is answered: the caller must start over.
    Once,
    /// Throttling is waited for a little, but another endpoint follows, which is asked rather.
    Brief,
    Full,
}

pub(super) enum Target<'a> {
    /// Below `/v2/<repository>/`: `manifests/latest`.
    Path(&'a str),
    /// Where an upload session lives.
    Url(&'a Uri),
}

/// An answer, whatever its status. Holds its turn until dropped.
pub(super) struct Reply {
    pub what: String,
    pub action: Action,
    pub response: Response<Incoming>,
    pub url: Uri,
    #[expect(dead_code, reason = "held, not read")]
    turn: Option<OwnedSemaphorePermit>,
    stall: Duration,
}

impl<'a> Ask<'a> {
    pub(super) fn new(what: &'a str, action: Action, method: Method, path: &'a str, scope: Scope) -> Self {
        Ask {
            what,
            action,
            method,
            target: Target::Path(path),
            headers: HeaderMap::new(),
            body: &empty,
            scope,
            turn: Turn::Document,
            persistence: Persistence::Full,
            watched: false,
        }
    }
}

impl Shared {
    pub(super) fn new(transport: Transport, authenticator: Authenticator) -> Self {
        Shared { transport, authenticator, hosts: Mutex::default(), warnings: Mutex::default() }
    }

    pub(super) async fn send(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Reply, Error> {
        let host = self.host(&endpoint.host);
        let turn = host.turn(ask.turn).await;
        let scheme = self.scheme(endpoint, &host).await;
        let url = match ask.target {
            Target::Url(url) => url.clone(),
            Target::Path(path) => endpoint_url(scheme, endpoint, path).map_err(|why| Error::Protocol {
                what: ask.what.to_owned(),
                url: endpoint.host.clone(),
                why,
            })?,
        };
        // An upload session on another host gets no credentials (R6.1.10).
        let own_host = url.scheme_str() == Some(scheme)
            && url.authority().is_some_and(|authority| authority.as_str().eq_ignore_ascii_case(&endpoint.host));
        let asker = Asker {
            what: ask.what,
            action: ask.action,
            host: &endpoint.host,
            repository: &endpoint.repository,
            scope: &ask.scope,
            secure: scheme == "https" && !endpoint.insecure,
            insecure: endpoint.insecure,
        };
        let persistent = ask.persistence == Persistence::Full;
        let throttling_limit = match ask.persistence {
            Persistence::Once => 0,
            Persistence::Brief => 2,
            Persistence::Full => THROTTLED,
        };
        let (mut logins, mut throttled, mut server_errors, mut interruptions) = (0, 0, 0, 0);
        loop {
            let authorization = if own_host { self.authenticator.header(&self.transport, &asker).await? } else { None };
            let sent = self
                .transport
                .send(Outgoing {
                    method: ask.method.clone(),
                    url: url.clone(),
                    headers: ask.headers.clone(),
                    authorization: authorization.clone(),
                    body: ask.body,
                    insecure: endpoint.insecure,
                    redirects: true,
                    patience: (!ask.watched).then_some(self.transport.timing.stall),
                })
                .await;
            let (response, answered) = match sent {
                Ok(answer) => answer,
                Err(Failure::Interrupted { .. }) if persistent && interruptions < INTERRUPTIONS => {
                    // Most often an idle connection that the other side has closed: at once, then more slowly.
                    let wait = match interruptions {
                        0 => Duration::from_millis(50),
                        n => self.backoff(n - 1),
                    };
                    interruptions += 1;
                    self.wait(ask.what, "connection broke", wait).await;
                    continue;
                }
                Err(failure) => return Err(self.failed(failure, ask.what)),
            };
            self.show_warnings(response.headers());
            let status = response.status();
            match status {
                StatusCode::UNAUTHORIZED if own_host && logins < LOGINS => {
                    logins += 1;
                    if self.authenticator.challenged(&asker, response.headers(), authorization.as_ref()).await {
                        drain(response, self.transport.timing.stall).await;
                        continue;
                    }
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT if throttled < throttling_limit => {
                    let wait = retry_after(response.headers()).unwrap_or_else(|| self.backoff(throttled.min(5)));
                    throttled += 1;
                    drain(response, self.transport.timing.stall).await;
                    self.wait(ask.what, status.as_str(), wait).await;
                    continue;
                }
                _ if status.is_server_error()
                    && status != StatusCode::NOT_IMPLEMENTED
                    && persistent
                    && server_errors < SERVER_ERRORS =>
                {
                    let wait = retry_after(response.headers()).unwrap_or_else(|| self.backoff(server_errors));
                    server_errors += 1;
                    drain(response, self.transport.timing.stall).await;
                    self.wait(ask.what, status.as_str(), wait).await;
                    continue;
                }
                _ => {}
            }
            return Ok(Reply {
                what: ask.what.to_owned(),
                action: ask.action,
                response,
                url: answered,
                turn: Some(turn),
                stall: self.transport.timing.stall,
            });
        }
    }

    /// Whether the endpoint's host can be connected to at all, with little patience and a memory: asked where a mirror
    /// has answered already, so that an unreachable origin costs seconds, and those once.
    pub(super) async fn reaches(&self, endpoint: &Endpoint, what: &str) -> Result<(), Error> {
        let host = self.host(&endpoint.host);
        let scheme = if is_loopback(&endpoint.host) { "http" } else { "https" };
        let Ok(url) = endpoint_url(scheme, endpoint, "") else {
            return Ok(());
        };
        let failed = |why: String| self.failed(Failure::Connect { url: url.clone(), cause: why.into() }, what);
        if let Some((since, why)) = lock(&host.unreachable).as_ref()
            && since.elapsed() < UNREACHABLE
        {
            return Err(failed(why.clone()));
        }
        match self.transport.reaches(&url, PROBE.min(self.transport.timing.connect)).await {
            Ok(()) => Ok(()),
            // An insecure host without a port may listen on the other one.
            Err(_) if endpoint.insecure => Ok(()),
            Err(error) => {
                *lock(&host.unreachable) = Some((Instant::now(), error.to_string()));
                Err(failed(error.to_string()))
            }
        }
    }

    pub(super) fn failed(&self, failure: Failure, what: &str) -> Error {
        let what = what.to_owned();
        match failure {
            Failure::Connect { url, cause } => Error::Connect {
                what,
                host: url.host().unwrap_or_default().to_owned(),
                url: shown(&url),
                cause,
                notes: Vec::new(),
            },
            Failure::Interrupted { url, cause } => Error::Interrupted { what, url: shown(&url), cause },
            Failure::Protocol { url, why } => Error::Protocol { what, url: shown(&url), why },
        }
    }

    /// The wait before another attempt, `done` of them having been made: 1, 2, 4 s, a tenth more or less.
    pub(super) fn backoff(&self, done: u32) -> Duration {
        let wait = self.transport.timing.backoff * 2_u32.saturating_pow(done.min(6));
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        wait.mul_f64(0.9 + 0.2 * f64::from(clock.subsec_micros() % 1000) / 1000.0)
    }

    pub(super) async fn wait(&self, what: &str, why: &str, wait: Duration) {
        tracing::info!(what, why, ?wait, "retrying");
        tokio::time::sleep(wait).await;
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let new = || {
            Arc::new(Host {
                transfers: Arc::new(Semaphore::new(TRANSFERS_PER_HOST)),
                documents: Arc::new(Semaphore::new(1)),
                scheme: OnceCell::new(),
                unreachable: Mutex::new(None),
            })
        };
        lock(&self.hosts).entry(name.to_owned()).or_insert_with(new).clone()
    }

    /// R6.1.2, R6.1.6.
    async fn scheme(&self, endpoint: &Endpoint, host: &Host) -> &'static str {
        if is_loopback(&endpoint.host) {
            return "http";
        }
        if !endpoint.insecure {
            return "https";
        }
        let probe = || async {
            let Ok(url) = format!("https://{}/v2/", endpoint.host).parse::<Uri>() else {
                return "https";
            };
            let outgoing = Outgoing {
                method: Method::GET,
                url,
                headers: HeaderMap::new(),
                authorization: None,
                body: &empty,
                insecure: true,
                redirects: true,
                patience: Some(self.transport.timing.stall),
            };
            match self.transport.send(outgoing).await {
                Err(Failure::Connect { cause, .. }) if wants_plain_http(&cause, &endpoint.host) => "http",
                _ => "https",
            }
        };
        host.scheme.get_or_init(probe).await
    }

    fn show_warnings(&self, headers: &HeaderMap) {
        for warning in headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()) {
            if let Some(text) = warning.strip_prefix("299 - ")
                && lock(&self.warnings).insert(text.to_owned())
            {
                tracing::warn!(text, "the registry warns");
            }
        }
    }
}

impl Host {
    async fn turn(&self, turn: Turn) -> OwnedSemaphorePermit {
        // The semaphores are never closed, which is the only way to fail.
        let acquire = |semaphore: &Arc<Semaphore>| semaphore.clone().acquire_owned();
        loop {
            let acquired = match turn {
                Turn::Transfer => acquire(&self.transfers).await,
                Turn::Document => tokio::select! {
                    biased;
                    permit = acquire(&self.transfers) => permit,
                    permit = acquire(&self.documents) => permit,
                },
            };
            if let Ok(permit) = acquired {
                return permit;
            }
        }
    }
}

impl Reply {
    /// The answer of a host that is no registry: it has no turns to wait for.
    pub(super) fn foreign(what: &str, response: Response<Incoming>, url: Uri, stall: Duration) -> Self {
        Reply { what: what.to_owned(), action: Action::Pull, response, url, turn: None, stall }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok().map(str::trim).filter(|value| !value.is_empty())
    }

    /// The media type without its parameters.
    pub(super) fn content_type(&self) -> Option<String> {
        let value = self.header(CONTENT_TYPE.as_str())?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// The whole body, of a document that may have `limit` bytes.
    pub(super) async fn bytes(self, limit: usize) -> Result<Bytes, Error> {
        let (what, url) = (self.what, shown(&self.url));
        response::collect(self.response.into_body(), limit, self.stall).await.map_err(|error| {
            if response::is_too_large(&error) {
                let limit = limit as u64;
                return Error::TooLarge { what, size: limit + 1, limit };
            }
            Error::Interrupted { what, url, cause: error.into() }
        })
    }

    /// The error that this reply stands for, with what its body says (R6.5.5, R6.5.6).
    pub(super) async fn into_error(self) -> Error {
        let (status, action) = (self.status(), self.action);
        if !matches!(status, StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.into_status_error().await;
        }
        let what = self.what;
        let detail = error_detail(&response::beginning(self.response.into_body(), self.stall).await);
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { what, notes: Vec::new() },
            _ => Error::Denied { what, action, detail },
        }
    }

    /// This reply's error, even for 401 and 404 the plain status: where those do not mean that something is missing.
    pub(super) async fn into_status_error(self) -> Error {
        let (status, retry_after) = (self.status(), retry_after(self.response.headers()));
        let (what, url) = (self.what, shown(&self.url));
        let detail = error_detail(&response::beginning(self.response.into_body(), self.stall).await);
        Error::Status { what, url, status, detail, retry_after }
    }

    pub(super) fn protocol_error(&self, why: impl Into<String>) -> Error {
        Error::Protocol { what: self.what.clone(), url: shown(&self.url), why: why.into() }
    }
}

/// `/v2/<repository>/<path>`, for mirrors with the registry that they stand for (R6.1.5).
fn endpoint_url(scheme: &str, endpoint: &Endpoint, path: &str) -> Result<Uri, String> {
    let mut url = format!("{scheme}://{}/v2/{}/{path}", endpoint.host, endpoint.repository);
    if let Some(origin) = &endpoint.mirror_of {
        url.push(if path.contains('?') { '&' } else { '?' });
        url.push_str("ns=");
        url.push_str(origin);
    }
    url.parse().map_err(|error| format!("{error}"))
}

/// Reads a short body to its end, so that the connection can serve again.
async fn drain(response: Response<Incoming>, stall: Duration) {
    let _ = response::beginning(response.into_body(), stall.min(Duration::from_secs(5))).await;
}

/// R6.1.6: the other side spoke no TLS, did not finish the handshake, or was not there and no port says where it is.
pub(crate) fn wants_plain_http(cause: &BoxError, host: &str) -> bool {
    let has_port = host.parse::<http::uri::Authority>().is_ok_and(|authority| authority.port().is_some());
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&**cause);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return matches!(error, rustls::Error::InvalidMessage(_));
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::ConnectionRefused => return !has_port,
                io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => return true,
                _ => {}
            }
            // An `io::Error` hides what it wraps from `source`, but shows that one's own source.
            if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return matches!(inner, rustls::Error::InvalidMessage(_));
            }
            if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
                next = Some(inner);
                continue;
            }
        }
        next = error.source();
    }
    false
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
