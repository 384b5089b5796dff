//! HTTP/1.1 over TCP, TLS and proxies. HTTP/2 is left out on purpose: one connection a transfer is faster for large
//! blobs (R6.1.8).

use super::tls::Tls;
use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::legacy::{self, Client};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// R6.1.10.
const MAX_REDIRECTS: usize = 10;
const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(120);
const IDLE_CONNECTIONS: usize = 4;

/// How long things may take (R6.1.8). There is no total timeout.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub connect: Duration,
    /// Without a byte in either direction.
    pub stall: Duration,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { connect: Duration::from_secs(30), stall: Duration::from_secs(60), backoff: Duration::from_secs(1) }
    }
}

pub(crate) struct Transport {
    verified: Client<Connector, Body>,
    unverified: Client<Connector, Body>,
    proxies: Arc<Matcher>,
    user_agent: HeaderValue,
    pub(crate) timing: Timing,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing was sent.
    Connect { url: Uri, cause: BoxError },
    /// The connection broke, or nothing came.
    Interrupted { url: Uri, cause: BoxError },
    /// The other side does not speak the protocol.
    Protocol { url: Uri, why: String },
}

/// A request that can be sent again: to where it is redirected.
pub(crate) struct Outgoing<'a> {
    pub method: Method,
    pub url: Uri,
    pub headers: HeaderMap,
    pub authorization: Option<HeaderValue>,
    /// Makes the body anew for each attempt.
    pub body: &'a (dyn Fn() -> Body + Sync),
    /// Certificates of the URL's own host are not verified.
    pub insecure: bool,
    /// Whether redirects are followed; if not, they are the answer.
    pub redirects: bool,
    /// How long the response may take to begin; `None` where the caller watches the progress.
    pub patience: Option<Duration>,
}

impl Transport {
    pub(crate) fn new(user_agent: &str, timing: Timing) -> Self {
        Self::with_proxies(user_agent, timing, Tls::new(), Matcher::from_env())
    }

    #[cfg(test)]
    fn with_tls(user_agent: &str, timing: Timing, tls: Tls) -> Self {
        Self::with_proxies(user_agent, timing, tls, Matcher::from_env())
    }

    fn with_proxies(user_agent: &str, timing: Timing, tls: Tls, proxies: Matcher) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timing.connect));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let proxies = Arc::new(proxies);
        let tls = Arc::new(tls);
        let client = |verify| {
            let connector = Connector {
                tcp: tcp.clone(),
                tls: tls.clone(),
                proxies: proxies.clone(),
                verify,
                patience: timing.connect + TLS_HANDSHAKE,
            };
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(connector)
        };
        Transport {
            verified: client(true),
            unverified: client(false),
            proxies,
            user_agent: HeaderValue::from_str(user_agent)
                .ok()
                .filter(|value| !value.is_empty())
                .unwrap_or_else(|| HeaderValue::from_static("rbuild")),
            timing,
        }
    }

    /// Sends a request and follows redirects. `Authorization` goes only to the first URL's own host (R6.1.10).
    /// The URL of the answer comes with it.
    pub(crate) async fn send(&self, outgoing: Outgoing<'_>) -> Result<(Response<Incoming>, Uri), Failure> {
        let mut url = outgoing.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let same_origin = origin(&url) == origin(&outgoing.url);
            let mut request = Request::new((outgoing.body)());
            *request.method_mut() = outgoing.method.clone();
            *request.uri_mut() = url.clone();
            *request.headers_mut() = outgoing.headers.clone();
            request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
            if let Some(authorization) = outgoing.authorization.as_ref().filter(|_| same_origin) {
                let mut authorization = authorization.clone();
                authorization.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, authorization);
            }
            if url.scheme_str() == Some("http")
                && let Some(proxy) = proxy_for(&self.proxies, &url)
                && let Some(authorization) = proxy.basic_auth()
            {
                request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
            }
            let client = if outgoing.insecure && same_origin { &self.unverified } else { &self.verified };
            let response = match outgoing.patience {
                None => client.request(request).await,
                Some(patience) => {
                    match tokio::time::timeout(self.timing.connect + patience, client.request(request)).await {
                        Ok(response) => response,
                        Err(_) => return Err(Failure::Interrupted { url, cause: silence(patience).into() }),
                    }
                }
            };
            let response = response.map_err(|error| failure(url.clone(), error))?;
            tracing::debug!(method = %outgoing.method, url = %super::shown(&url), status = %response.status(), "registry");
            match redirect_target(&url, &response).filter(|_| outgoing.redirects) {
                Some(Ok(target)) => url = target,
                Some(Err(why)) => return Err(Failure::Protocol { url, why }),
                None => return Ok((response, url)),
            }
        }
        Err(Failure::Protocol { url: outgoing.url, why: format!("more than {MAX_REDIRECTS} redirects") })
    }

    /// Whether a TCP connection to the host of `url` can be had within `patience`. Behind a proxy always true: there
    /// it is the proxy that finds out.
    pub(crate) async fn reaches(&self, url: &Uri, patience: Duration) -> io::Result<()> {
        let Some(host) = url.host().filter(|_| proxy_for(&self.proxies, url).is_none()) else {
            return Ok(());
        };
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
        let host = host.trim_matches(['[', ']']);
        match tokio::time::timeout(patience, TcpStream::connect((host, port))).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting takes too long")),
        }
    }
}

pub(crate) fn silence(patience: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no data for {} s", patience.as_secs()))
}

pub(crate) fn empty() -> Body {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Hosts that are this machine by their very name: they speak plain http (R6.1.2) and need no proxy.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority.host().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `reference` as seen from `base` (RFC 3986, 5.2): registries answer uploads with relative locations too.
pub(crate) fn join(base: &Uri, reference: &str) -> Result<Uri, String> {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map(|a| a.as_str()).unwrap_or_default();
    let reference = reference.split('#').next().unwrap_or_default();
    let absolute = if reference.starts_with("http://") || reference.starts_with("https://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{authority}{}{reference}", base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{reference}")
    };
    let url: Uri = absolute.parse().map_err(|error| format!("bad location: {error}"))?;
    match url.host() {
        Some(host) if !host.is_empty() => Ok(url),
        _ => Err("bad location: no host".into()),
    }
}

pub(crate) fn origin(url: &Uri) -> (Option<&str>, Option<&str>, u16) {
    let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
    (url.scheme_str(), url.host(), url.port_u16().unwrap_or(default))
}

fn redirect_target(url: &Uri, response: &Response<Incoming>) -> Option<Result<Uri, String>> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !redirects {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    Some(join(url, location))
}

fn failure(url: Uri, error: legacy::Error) -> Failure {
    if error.is_connect() {
        return Failure::Connect { url, cause: error.into() };
    }
    Failure::Interrupted { url, cause: error.into() }
}

fn proxy_for(proxies: &Matcher, url: &Uri) -> Option<hyper_util::client::proxy::matcher::Intercept> {
    let loopback = url.authority().is_some_and(|authority| is_loopback(authority.as_str()));
    if loopback { None } else { proxies.intercept(url) }
}

/// Opens connections: TCP or a proxy's tunnel, and TLS in it.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Arc<Tls>,
    proxies: Arc<Matcher>,
    verify: bool,
    patience: Duration,
}

impl Connector {
    async fn connect(self, url: Uri) -> Result<Stream, BoxError> {
        let proxy = proxy_for(&self.proxies, &url);
        if let Some(scheme) = proxy.as_ref().and_then(|proxy| proxy.uri().scheme_str())
            && scheme != "http"
        {
            return Err(
                format!("a proxy that speaks {scheme} is set in the environment; only http is supported").into()
            );
        }
        if url.scheme_str() == Some("http") {
            let target = proxy.as_ref().map_or(&url, |proxy| proxy.uri());
            let stream = call(self.tcp, target.clone()).await?;
            return Ok(Stream { inner: MaybeHttpsStream::Http(stream), proxied: proxy.is_some() });
        }
        let host = url.authority().map(|authority| authority.to_string()).unwrap_or_default();
        let (tls, verify) = (self.tls, self.verify);
        let config = tokio::task::spawn_blocking(move || tls.config(&host, verify)).await??;
        let inner = match proxy {
            None => call(HttpsConnector::from((self.tcp, config)), url).await?,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp);
                if let Some(authorization) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(authorization.clone());
                }
                call(HttpsConnector::from((tunnel, config)), url).await?
            }
        };
        Ok(Stream { inner, proxied: false })
    }
}

async fn call<S>(mut service: S, url: Uri) -> Result<S::Response, BoxError>
where
    S: tower_service::Service<Uri>,
    S::Error: Into<BoxError>,
{
    std::future::poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into)?;
    service.call(url).await.map_err(Into::into)
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let patience = connector.patience;
            match tokio::time::timeout(patience, connector.connect(url)).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting takes too long").into()),
            }
        })
    }
}

struct Stream {
    inner: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Requests name the whole URL, since a proxy reads them.
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, buffers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6.1.2.
    #[test]
    fn loopback_is_told_by_its_name() {
        for host in ["localhost", "localhost:5000", "LOCALHOST:1", "127.0.0.1", "127.8.9.1:80", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "example.com:127", "[::2]:5000", "10.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    /// Answers requests on a loopback port, over TLS with a certificate of its own for localhost.
    fn tls_server() -> u16 {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        use std::io::{Read as _, Write as _};
        let pem = include_bytes!("../../tests/registry_support/localhost.pem");
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream);
                if stream.read(&mut [0; 4096]).is_ok() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        port
    }

    async fn get(transport: &Transport, url: &str, insecure: bool) -> Result<StatusCode, BoxError> {
        let outgoing = Outgoing {
            method: Method::GET,
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            authorization: None,
            body: &empty,
            insecure,
            redirects: true,
            patience: Some(Duration::from_secs(5)),
        };
        match transport.send(outgoing).await {
            Ok((response, _)) => Ok(response.status()),
            Err(Failure::Connect { cause, .. } | Failure::Interrupted { cause, .. }) => Err(cause),
            Err(Failure::Protocol { why, .. }) => Err(why.into()),
        }
    }

    /// R6.1.3, R6.1.4, R6.1.6.
    #[tokio::test]
    async fn certificates_are_verified_unless_told_otherwise() {
        let port = tls_server();
        let url = format!("https://localhost:{port}/v2/");
        let directory = tempfile::tempdir().unwrap();
        let tls = || Tls::with_directories(vec![directory.path().to_owned()]);
        let transport = || Transport::with_tls("test", Timing::default(), tls());
        let text = get(&transport(), &url, false).await.unwrap_err();
        let text = super::super::Chain(&*text).to_string();
        assert!(text.contains("certificate"), "{text}");
        assert_eq!(get(&transport(), &url, true).await.unwrap(), StatusCode::OK);
        let own = directory.path().join(format!("localhost:{port}"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("ca.crt"), include_bytes!("../../tests/registry_support/localhost.pem")).unwrap();
        assert_eq!(get(&transport(), &url, false).await.unwrap(), StatusCode::OK);
        // The name counts even so.
        let other = format!("127.0.0.1:{port}");
        std::fs::rename(&own, directory.path().join(&other)).unwrap();
        let error = get(&transport(), &format!("https://{other}/"), false).await.unwrap_err();
        let text = super::super::Chain(&*error).to_string();
        assert!(text.contains("not valid for"), "{text}");
    }

    /// R6.1.6.
    #[tokio::test]
    async fn a_host_that_speaks_no_tls_is_told_from_one_that_is_not_trusted() {
        use crate::registry::wants_plain_http;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plain = format!("localhost:{}", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let transport = Transport::new("test", Timing::default());
        let cause = get(&transport, &format!("https://{plain}/"), true).await.unwrap_err();
        assert!(wants_plain_http(&cause, &plain), "{cause:?}");
        let cause = get(&transport, &format!("https://localhost:{}/", tls_server()), false).await.unwrap_err();
        assert!(!wants_plain_http(&cause, "localhost"), "{cause:?}");
        let cause = get(&transport, &format!("https://localhost:{closed}/"), true).await.unwrap_err();
        assert!(wants_plain_http(&cause, "localhost"), "{cause:?}");
        assert!(!wants_plain_http(&cause, "localhost:1"), "{cause:?}");
    }

    /// A proxy is asked for the whole URL, and for a tunnel.
    #[tokio::test]
    async fn proxies_are_used() {
        use std::io::{BufRead as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = format!("http://user:pass@{}", listener.local_addr().unwrap());
        let (lines, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut head = String::new();
                for line in
                    io::BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty())
                {
                    head.push_str(&line.to_ascii_lowercase());
                    head.push('\n');
                }
                let _ = lines.send(head);
                let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
        let matcher = Matcher::builder().all(proxy).no("direct.example").build();
        let transport = Transport::with_proxies("test", Timing::default(), Tls::new(), matcher);
        assert_eq!(get(&transport, "http://r.example/v2/", false).await.unwrap(), StatusCode::NO_CONTENT);
        let head = seen.recv().unwrap();
        assert!(head.starts_with("get http://r.example/v2/ http/1.1\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic "), "{head}");
        // 204 is not what a tunnel opens with.
        get(&transport, "https://r.example/v2/", true).await.unwrap_err();
        let head = seen.recv().unwrap();
        assert!(head.starts_with("connect r.example:443 http/1.1\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic "), "{head}");
        assert!(proxy_for(&transport.proxies, &"http://localhost:5000/".parse().unwrap()).is_none());
        assert!(proxy_for(&transport.proxies, &"http://direct.example/".parse().unwrap()).is_none());
    }

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, expected) in [
            ("/v2/a/u?state=s", "https://r.example:5000/v2/a/u?state=s"),
            ("http://other.example/u", "http://other.example/u"),
            ("//other.example/u", "https://other.example/u"),
            ("id?state=s#f", "https://r.example:5000/v2/a/blobs/uploads/id?state=s"),
            ("?state=s", "https://r.example:5000/v2/a/blobs/uploads/?state=s"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), expected);
        }
        assert!(join(&base, "http://").is_err());
        assert!(join(&base, "/a b").is_err());
    }
}
