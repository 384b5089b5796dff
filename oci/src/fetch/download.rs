//! Files from plain URLs: asked for again only where they changed, and gone on with where the connection broke.

use super::transport::{Failure, Outgoing, Timing, Transport, empty};
use super::{Chain, next_chunk, shown};
use crate::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::sync::Arc;

/// How often a transfer may fail without having brought a byte.
const FRUITLESS_ATTEMPTS: u32 = 3;

/// Fetches files. Cheap to clone. Needs a tokio runtime with time and io.
#[derive(Clone)]
pub struct Downloader {
    transport: Arc<Transport>,
}

/// What a server says of a file to tell one version from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    pub etag: Option<String>,
    /// An HTTP date.
    pub last_modified: Option<String>,
}

#[derive(Debug)]
pub enum Answer {
    /// The version that is known is the current one.
    Unchanged,
    New(Downloaded),
}

/// A file that was written whole.
#[derive(Clone, Debug)]
pub struct Downloaded {
    pub digest: Digest,
    pub size: u64,
    pub validators: Validators,
}

/// No message holds the credentials or the query of the URL.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("{url} is no URL that can be fetched: {why}")]
    InvalidUrl { url: String, why: String },
    #[error("cannot connect to {url}: {why}")]
    Connect { url: String, why: String },
    #[error("the transfer of {url} broke off: {why}")]
    Interrupted { url: String, why: String },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} gave an answer that makes no sense: {why}")]
    Protocol { url: String, why: String },
    #[error("cannot store what {url} sent: {source}")]
    Local { url: String, source: io::Error },
}

impl DownloadError {
    /// Whether the same may succeed a moment later.
    fn is_temporary(&self) -> bool {
        match self {
            DownloadError::Interrupted { .. } => true,
            DownloadError::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            _ => false,
        }
    }
}

impl Downloader {
    /// `user_agent` is `name/version`. Proxies are those of the environment.
    pub fn new(user_agent: &str) -> Downloader {
        Downloader::with_timing(user_agent, Timing::default())
    }

    pub fn with_timing(user_agent: &str, timing: Timing) -> Downloader {
        Downloader { transport: Arc::new(Transport::new(user_agent, timing)) }
    }

    /// Fetches `url` into `file`, which is empty, unless the version with the validators `known` is still the current one. Redirects are
    /// followed; `authorization`, a header's value that stands before a user and password in the URL, goes to the URL's own host only, as they do.
    /// `progress` is told the bytes so far, and of how many.
    pub async fn get(
        &self,
        url: &str,
        authorization: Option<&str>,
        known: Option<&Validators>,
        file: &File,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<Answer, DownloadError> {
        let mut transfer = Transfer::new(url, file)?;
        if let Some(value) = authorization {
            let value = HeaderValue::from_str(value);
            let why = "what it is to be sent to log in is no header".to_owned();
            transfer.authorization =
                Some(value.map_err(|_| DownloadError::InvalidUrl { url: transfer.shown.clone(), why })?);
        }
        let mut fruitless = 0;
        loop {
            let before = transfer.written;
            let error = match self.attempt(&mut transfer, known, progress).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            fruitless = if transfer.written > before { 0 } else { fruitless + 1 };
            if !error.is_temporary() || fruitless >= FRUITLESS_ATTEMPTS {
                return Err(error);
            }
            tracing::info!(url = transfer.shown, %error, "retrying");
            tokio::time::sleep(self.transport.timing.backoff * 2_u32.pow(fruitless)).await;
        }
    }

    async fn attempt(
        &self,
        transfer: &mut Transfer<'_>,
        known: Option<&Validators>,
        progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
    ) -> Result<Answer, DownloadError> {
        let outgoing = Outgoing {
            method: Method::GET,
            url: transfer.url.clone(),
            headers: transfer.headers(known),
            authorization: transfer.authorization.clone(),
            body: &empty,
            insecure: false,
            redirects: true,
            patience: Some(self.transport.timing.stall),
        };
        let (mut response, from) = self.transport.send(outgoing).await.map_err(failed)?;
        let url = shown(&from);
        let validators =
            Validators { etag: header(&response, &ETAG), last_modified: header(&response, &LAST_MODIFIED) };
        match response.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Unchanged),
            // Some servers name the tag and ignore the condition.
            StatusCode::OK if known.is_some_and(|known| known.etag.is_some() && known.etag == validators.etag) => {
                return Ok(Answer::Unchanged);
            }
            StatusCode::OK => transfer.restart(validators)?,
            StatusCode::PARTIAL_CONTENT if transfer.written > 0 => {
                let start = header(&response, &CONTENT_RANGE).and_then(|text| range_start(&text));
                if start != Some(transfer.written) {
                    let why = format!("not the range from {} on", transfer.written);
                    return Err(DownloadError::Protocol { url, why });
                }
            }
            // What was there is not there any more in this form: from the beginning.
            StatusCode::RANGE_NOT_SATISFIABLE if transfer.written > 0 => {
                transfer.restart(Validators::default())?;
                return Err(DownloadError::Interrupted { url, why: "the rest could not be had".into() });
            }
            status => return Err(DownloadError::Status { url, status }),
        }
        let length = header(&response, &CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let total = length.map(|length| transfer.written.saturating_add(length));
        loop {
            match next_chunk(response.body_mut(), self.transport.timing.stall).await {
                Ok(Some(chunk)) => {
                    transfer.write(&chunk)?;
                    progress(transfer.written, total);
                }
                Ok(None) => break,
                Err(error) => return Err(DownloadError::Interrupted { url, why: Chain(&error).to_string() }),
            }
        }
        if total.is_some_and(|total| total != transfer.written) {
            return Err(DownloadError::Interrupted { url, why: "the answer ended too early".into() });
        }
        Ok(Answer::New(Downloaded {
            digest: Digest::from_hasher(transfer.hasher.clone()),
            size: transfer.written,
            validators: transfer.validators.clone(),
        }))
    }
}

/// What has come so far.
struct Transfer<'a> {
    url: Uri,
    authorization: Option<HeaderValue>,
    shown: String,
    file: &'a File,
    hasher: Sha256,
    written: u64,
    /// Of the version that `written` bytes are of.
    validators: Validators,
}

impl<'a> Transfer<'a> {
    fn new(url: &str, file: &'a File) -> Result<Self, DownloadError> {
        let (url, authorization) = split_credentials(url)?;
        let (shown, hasher) = (shown(&url), Sha256::new());
        Ok(Transfer { url, authorization, shown, file, hasher, written: 0, validators: Validators::default() })
    }

    fn headers(&self, known: Option<&Validators>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The file as it is, not as the server would like to send it.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut add = |name, value: &Option<String>| {
            let value = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
            headers.extend(value.map(|value| (name, value)));
        };
        if self.written == 0 {
            if let Some(known) = known {
                add(IF_NONE_MATCH, &known.etag);
                if known.etag.is_none() {
                    add(IF_MODIFIED_SINCE, &known.last_modified);
                }
            }
            return headers;
        }
        // Only what is certainly the same version may be put behind what has come: a weak tag does not say so (RFC 9110, 13.1.5).
        let strong = self.validators.etag.clone().filter(|etag| !etag.starts_with("W/"));
        if let Some(version) = strong.or_else(|| self.validators.last_modified.clone()) {
            add(IF_RANGE, &Some(version));
            add(RANGE, &Some(format!("bytes={}-", self.written)));
        }
        headers
    }

    fn restart(&mut self, validators: Validators) -> Result<(), DownloadError> {
        self.validators = validators;
        if self.written > 0 {
            (self.written, self.hasher) = (0, Sha256::new());
            let mut file = self.file;
            file.set_len(0).and_then(|()| file.rewind()).map_err(|source| self.local(source))?;
        }
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), DownloadError> {
        let mut file = self.file;
        file.write_all(chunk).map_err(|source| self.local(source))?;
        self.hasher.update(chunk);
        self.written += chunk.len() as u64;
        Ok(())
    }

    fn local(&self, source: io::Error) -> DownloadError {
        DownloadError::Local { url: self.shown.clone(), source }
    }
}

fn failed(failure: Failure) -> DownloadError {
    match failure {
        Failure::Connect { url, cause } => DownloadError::Connect { url: shown(&url), why: Chain(&*cause).to_string() },
        Failure::Interrupted { url, cause } => {
            DownloadError::Interrupted { url: shown(&url), why: Chain(&*cause).to_string() }
        }
        Failure::Protocol { url, why } => DownloadError::Protocol { url: shown(&url), why },
    }
}

fn header(response: &Response<Incoming>, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.trim().to_owned()).filter(|value| !value.is_empty())
}

/// `bytes 5-9/10`: 5.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// Takes user and password out of a URL, and its fragment.
fn split_credentials(url: &str) -> Result<(Uri, Option<HeaderValue>), DownloadError> {
    let url = url.split('#').next().unwrap_or_default();
    let invalid = |why: String| {
        let shown = url.split('?').next().unwrap_or_default();
        let shown = shown.rsplit_once('@').map_or(shown, |(_, rest)| rest);
        DownloadError::InvalidUrl { url: shown.to_owned(), why }
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it has no scheme".into()))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    // Blanks and the like are common in hand-written URLs.
    let path: String = path
        .bytes()
        .map(|b| match b {
            b'!'..=b'~' if !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect();
    let uri: Uri = format!("{scheme}://{host}{path}").parse().map_err(|error| invalid(format!("{error}")))?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(invalid("it has no host".into()));
    }
    // A port that is none would be taken for the scheme's own.
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.is_empty() && !port.ends_with(']'));
    if port.is_some() && uri.port_u16().is_none() {
        return Err(invalid("its port is not a number up to 65535".into()));
    }
    let authorization = user.filter(|user| !user.is_empty()).and_then(|user| {
        let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
        let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(decoded(&user)))).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    Ok((uri, authorization))
}

/// Percent-decoded.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).map(|d| d as u8);
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    /// A server that gives each request, as its lines, to `answer`.
    fn server(answer: impl Fn(usize, &[String], &mut TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (count, mut stream) in listener.incoming().flatten().enumerate() {
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                answer(count, &lines, &mut stream);
            }
        });
        format!("http://{address}")
    }

    fn has(lines: &[String], wanted: &str) -> bool {
        lines.iter().any(|line| line.eq_ignore_ascii_case(wanted))
    }

    fn send(stream: &mut TcpStream, text: &str) {
        stream.write_all(text.replace('\n', "\r\n").as_bytes()).unwrap();
    }

    async fn get(url: &str, known: Option<&Validators>) -> (Result<Answer, DownloadError>, String) {
        let timing = Timing { backoff: Duration::from_millis(1), stall: Duration::from_secs(2), ..Timing::default() };
        let mut file = tempfile::tempfile().unwrap();
        let answer = Downloader::with_timing("test/1", timing).get(url, None, known, &file, &mut |_, _| {}).await;
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        (answer, text)
    }

    fn new(answer: Result<Answer, DownloadError>) -> Downloaded {
        match answer.unwrap() {
            Answer::New(downloaded) => downloaded,
            Answer::Unchanged => panic!("unchanged"),
        }
    }

    #[tokio::test]
    async fn redirects_credentials_and_validators() {
        let other = server(|_, lines, stream| {
            assert!(!lines.iter().any(|line| line.to_lowercase().starts_with("authorization")), "{lines:?}");
            send(
                stream,
                "HTTP/1.1 200 OK\nContent-Length: 4\nETag: \"v1\"\nLast-Modified: then\nConnection: close\n\nbody",
            );
        });
        let first = server(move |_, lines, stream| {
            assert!(has(lines, "authorization: Basic dTpwQA=="), "{lines:?}");
            assert!(lines[0].starts_with("GET /a%20b?q HTTP"), "{lines:?}");
            send(stream, &format!("HTTP/1.1 302 Found\nLocation: {other}/x\nContent-Length: 0\nConnection: close\n\n"));
        });
        let url = format!("{}/a b?q#f", first.replace("http://", "http://u:p%40@"));
        let (answer, text) = get(&url, None).await;
        let downloaded = new(answer);
        assert_eq!((text.as_str(), downloaded.size), ("body", 4));
        assert_eq!(downloaded.digest, Digest::of(b"body"));
        let validators = Validators { etag: Some("\"v1\"".into()), last_modified: Some("then".into()) };
        assert_eq!(downloaded.validators, validators);
    }

    #[tokio::test]
    async fn unchanged_files_are_not_fetched() {
        let url = server(|count, lines, stream| {
            assert!(has(lines, "if-none-match: \"v1\""), "{lines:?}");
            match count {
                0 => send(stream, "HTTP/1.1 304 Not Modified\nConnection: close\n\n"),
                // Ignores the condition.
                1 => send(stream, "HTTP/1.1 200 OK\nETag: \"v1\"\nContent-Length: 99\nConnection: close\n\nx"),
                _ => send(stream, "HTTP/1.1 200 OK\nETag: \"v2\"\nContent-Length: 3\nConnection: close\n\nnew"),
            }
        });
        let known = Validators { etag: Some("\"v1\"".into()), last_modified: None };
        for _ in 0..2 {
            assert!(matches!(get(&url, Some(&known)).await.0, Ok(Answer::Unchanged)));
        }
        let (answer, text) = get(&url, Some(&known)).await;
        assert_eq!((new(answer).validators.etag.unwrap(), text), ("\"v2\"".to_owned(), "new".to_owned()));
    }

    /// A transfer that breaks goes on where it was if the file is the same still, else from its beginning.
    #[tokio::test]
    async fn broken_transfers_go_on() {
        let url = server(|count, lines, stream| match count {
            0 => send(stream, "HTTP/1.1 503 Busy\nContent-Length: 0\nConnection: close\n\n"),
            1 => send(stream, "HTTP/1.1 200 OK\nETag: \"v1\"\nContent-Length: 10\nConnection: close\n\n01234"),
            2 => {
                assert!(has(lines, "range: bytes=5-") && has(lines, "if-range: \"v1\""), "{lines:?}");
                send(
                    stream,
                    "HTTP/1.1 206 Partial\nContent-Range: bytes 5-9/10\nContent-Length: 5\nConnection: close\n\n567",
                );
            }
            _ => {
                assert!(has(lines, "range: bytes=8-"), "{lines:?}");
                send(stream, "HTTP/1.1 200 OK\nETag: \"v2\"\nContent-Length: 6\nConnection: close\n\nabcdef");
            }
        });
        let (answer, text) = get(&url, None).await;
        let downloaded = new(answer);
        assert_eq!((text.as_str(), downloaded.digest), ("abcdef", Digest::of(b"abcdef")));
        assert_eq!(downloaded.validators.etag.as_deref(), Some("\"v2\""));
    }

    #[tokio::test]
    async fn failures_are_told() {
        let missing = server(|_, _, stream| send(stream, "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"));
        let error = get(&format!("{missing}/x?token=secret"), None).await.0.unwrap_err().to_string();
        assert_eq!(error, format!("{missing}/x answered 404 Not Found"));
        let cut = server(|_, _, stream| send(stream, "HTTP/1.1 200 OK\nContent-Length: 9\nConnection: close\n\n"));
        let error = get(&cut, None).await.0.unwrap_err().to_string();
        assert!(error.contains("broke off"), "{error}");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = get(&format!("http://{closed}/"), None).await.0.unwrap_err().to_string();
        assert!(error.starts_with("cannot connect to http://127.0.0.1"), "{error}");
        // Not port 80 instead.
        for port in ["99999", "8o"] {
            let error = get(&format!("http://127.0.0.1:{port}/"), None).await.0.unwrap_err().to_string();
            assert!(error.contains("is no URL that can be fetched"), "{error}");
        }
        let error = get("https://u:secret@/x", None).await.0.unwrap_err().to_string();
        assert!(error.contains("no host") || error.contains("is no URL"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        let error = get("https://u:p@secret@/f?token=secret", None).await.0.unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
