//! Requests to services that are no registries: object stores, caches of CI systems.
//!
//! Bodies that are sent are in memory, so that a request can be sent again; what comes back is a stream.

use super::transport::{Failure, Outgoing, Timing, Transport, full};
use super::{Chain, next_chunk, shown};
use crate::registry::{beginning, collect, http_date, retry_after};
use bytes::Bytes;
use http::header::{AUTHORIZATION, LAST_MODIFIED};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Whoever throttles is asked more often than whoever is broken.
const ATTEMPTS: u32 = 4;
const THROTTLED_ATTEMPTS: u32 = 10;
/// Nobody's connection is slower than this many bytes a second.
const SLOWEST: u64 = 64 << 10;

/// Sends requests. Cheap to clone; clones share connections. Needs a tokio runtime with time and io. Proxies are those of the environment.
#[derive(Clone)]
pub struct Exchange {
    transport: Arc<Transport>,
}

/// No message holds the query of the URL, which may be signed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("cannot connect to {url}: {why}")]
    Connect { url: String, why: String },
    #[error("the exchange with {url} broke off: {why}")]
    Interrupted { url: String, why: String },
    #[error("{url} gave an answer that makes no sense: {why}")]
    Protocol { url: String, why: String },
}

/// An answer, of any status.
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    url: String,
    stall: Duration,
}

impl Exchange {
    /// `user_agent` is `name/version`.
    pub fn new(user_agent: &str) -> Exchange {
        Exchange::with_timing(user_agent, Timing::default())
    }

    pub fn with_timing(user_agent: &str, timing: Timing) -> Exchange {
        Exchange { transport: Arc::new(Transport::new(user_agent, timing)) }
    }

    /// Sends a request once. One that logs in (`Authorization`) is not redirected: a signature is for one URL, and a token for one service.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Reply, ExchangeError> {
        let (mut parts, body) = request.into_parts();
        let timing = self.transport.timing;
        let authorization = parts.headers.remove(AUTHORIZATION);
        let outgoing = Outgoing {
            method: parts.method,
            url: parts.uri,
            headers: parts.headers,
            redirects: authorization.is_none(),
            authorization,
            body: &|| full(body.clone()),
            insecure: false,
            patience: Some(timing.stall + Duration::from_secs(body.len() as u64 / SLOWEST)),
        };
        let (response, url) = self.transport.send(outgoing).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        Ok(Reply { status: head.status, headers: head.headers, body, url: shown(&url), stall: timing.stall })
    }

    /// How long is waited before something is tried a second time.
    pub fn backoff(&self) -> Duration {
        self.transport.timing.backoff
    }

    /// For one request: how often it is sent again.
    pub fn retry(&self) -> Retry {
        Retry { sent: 0, most: ATTEMPTS, backoff: self.transport.timing.backoff, until: None }
    }
}

/// Decides whether a request is sent again.
pub struct Retry {
    sent: u32,
    most: u32,
    backoff: Duration,
    until: Option<Instant>,
}

impl Retry {
    /// How often it is sent at most, throttling apart.
    pub fn attempts(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    /// How long it may take, with all the waiting between the attempts.
    pub fn within(mut self, limit: Duration) -> Self {
        self.until = Some(Instant::now() + limit);
        self
    }

    /// Whether a request that had this outcome is to be sent again. Waits as long as the service asks for (`Retry-After`), else twice as long each time.
    pub async fn again(&mut self, outcome: &Result<Reply, ExchangeError>) -> bool {
        self.sent += 1;
        let (most, asked) = match outcome {
            Err(ExchangeError::Protocol { .. }) => return false,
            Err(_) => (self.most, None),
            Ok(reply) => match reply.status {
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    (self.most.max(THROTTLED_ATTEMPTS), retry_after(&reply.headers))
                }
                StatusCode::NOT_IMPLEMENTED => return false,
                status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => (self.most, None),
                _ => return false,
            },
        };
        let wait = asked.unwrap_or_else(|| self.backoff * 2_u32.saturating_pow((self.sent - 1).min(5)));
        if self.sent >= most || self.until.is_some_and(|until| Instant::now() + wait > until) {
            return false;
        }
        tracing::info!(attempt = self.sent, ?wait, "retrying");
        tokio::time::sleep(wait).await;
        true
    }
}

impl Reply {
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Without its query.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|value| !value.is_empty())
    }

    pub fn last_modified(&self) -> Option<SystemTime> {
        http_date(self.header(LAST_MODIFIED.as_str())?)
    }

    /// The whole body, of at most `limit` bytes.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, ExchangeError> {
        let url = self.url;
        collect(self.body, limit, self.stall).await.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => ExchangeError::Protocol { url, why: error.to_string() },
            _ => ExchangeError::Interrupted { url, why: Chain(&error).to_string() },
        })
    }

    /// The first few kilobytes of the body, for a message.
    pub async fn beginning(self) -> Bytes {
        beginning(self.body, self.stall).await
    }

    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ExchangeError> {
        next_chunk(&mut self.body, self.stall)
            .await
            .map_err(|error| ExchangeError::Interrupted { url: self.url.clone(), why: Chain(&error).to_string() })
    }
}

fn failed(failure: Failure) -> ExchangeError {
    match failure {
        Failure::Connect { url, cause } => ExchangeError::Connect { url: shown(&url), why: Chain(&*cause).to_string() },
        Failure::Interrupted { url, cause } => {
            ExchangeError::Interrupted { url: shown(&url), why: Chain(&*cause).to_string() }
        }
        Failure::Protocol { url, why } => ExchangeError::Protocol { url: shown(&url), why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (answer, mut stream) in answers.iter().zip(listener.incoming().flatten()) {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                assert!(lines.take_while(|line| !line.is_empty()).count() > 0);
                stream.write_all(answer.replace('\n', "\r\n").as_bytes()).unwrap();
            }
        });
        format!("http://{address}/a?secret")
    }

    fn exchange() -> Exchange {
        Exchange::with_timing("test/1", Timing { backoff: Duration::from_millis(1), ..Timing::default() })
    }

    async fn ask(url: &str, limit: Duration) -> Result<Reply, ExchangeError> {
        let exchange = exchange();
        let mut retry = exchange.retry().within(limit);
        loop {
            let outcome = exchange.send(Request::get(url).body(Bytes::new()).unwrap()).await;
            if !retry.again(&outcome).await {
                return outcome;
            }
        }
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again() {
        let url = server(&[
            "HTTP/1.1 503 Slow Down\nContent-Length: 0\nRetry-After: 0\nConnection: close\n\n",
            "",
            "HTTP/1.1 500 Oops\nContent-Length: 0\nConnection: close\n\n",
            "HTTP/1.1 200 OK\nContent-Length: 4\nConnection: close\n\nbody",
        ]);
        let reply = ask(&url, Duration::from_secs(60)).await.unwrap();
        assert_eq!(reply.bytes(4).await.unwrap(), "body");
        let url = server(&["HTTP/1.1 404 No\nContent-Length: 0\nConnection: close\n\n", "HTTP/1.1 200 OK\n\n"]);
        assert_eq!(ask(&url, Duration::from_secs(60)).await.unwrap().status(), StatusCode::NOT_FOUND);
        let busy = "HTTP/1.1 429 Busy\nContent-Length: 0\nRetry-After: 30\nConnection: close\n\n";
        assert_eq!(ask(&server(Box::leak(Box::new([busy]))), Duration::from_secs(5)).await.unwrap().status(), 429);
    }

    #[tokio::test]
    async fn whoever_logs_in_is_not_redirected() {
        let moved = "HTTP/1.1 307 Moved\nLocation: http://127.0.0.1:1/\nContent-Length: 0\nConnection: close\n\n";
        let url = server(Box::leak(Box::new([moved, moved])));
        let request = Request::get(&url).header(AUTHORIZATION, "Bearer x").body(Bytes::new()).unwrap();
        assert_eq!(exchange().send(request).await.ok().unwrap().status(), StatusCode::TEMPORARY_REDIRECT);
        let error = exchange().send(Request::get(&url).body(Bytes::new()).unwrap()).await.err().unwrap().to_string();
        assert!(error.contains("cannot connect to http://127.0.0.1:1/"), "{error}");
    }
}
