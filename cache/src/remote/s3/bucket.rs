//! Requests to a bucket: signed, sent again where that may help, and their refusals explained.

use super::super::object::Object;
use super::super::{Error, Result};
use super::config::S3Config;
use super::credentials;
use super::error::{Refusal, refused, refused_with, unreachable};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use oci::Digest;
use oci::fetch::{Exchange, Reply};
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use serde::Deserialize;
use std::fmt::Write as _;
use std::time::SystemTime;

/// Amazon copies no more at once.
const MOST_COPIED: u64 = 5 << 30;
/// Answers to uploads and copies are short documents.
const MOST_ANSWERED: usize = 64 << 10;

pub(super) struct Bucket {
    pub config: S3Config,
    exchange: Exchange,
    signer: Signer<Credential>,
    /// Scheme, host and path before keys.
    base: String,
}

/// What is known of an object.
pub(super) struct Stat {
    pub size: u64,
    pub modified: Option<SystemTime>,
}

/// One request, as it is before it is signed.
#[derive(Default)]
struct Ask<'a> {
    method: Method,
    key: &'a str,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Initiated {
    upload_id: String,
}

#[derive(Deserialize)]
struct Copied {
    #[serde(rename = "ETag")]
    etag: String,
}

impl Bucket {
    pub fn new(config: S3Config, exchange: Exchange) -> Bucket {
        let signer = credentials::signer(&config, &exchange);
        Bucket { base: base(&config), config, exchange, signer }
    }

    pub async fn head(&self, key: &str) -> Result<Option<Stat>> {
        let reply = self.send(&Ask { method: Method::HEAD, key, ..Ask::default() }).await?;
        match reply.status() {
            StatusCode::OK => {
                let size = reply.header("content-length").and_then(|size| size.parse().ok()).unwrap_or(0);
                Ok(Some(Stat { size, modified: reply.last_modified() }))
            }
            // Whoever may not list a bucket is told 403 of what is not there. If it is more than that, writing will tell.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(None),
            _ => Err(refused(&self.config, self.what("look for", key), reply).await),
        }
    }

    /// The whole of a small object, if it is there.
    pub async fn get(&self, key: &str, most: usize) -> Result<Option<Bytes>> {
        let what = || self.what("read", key);
        let reply = self.send(&Ask { key, ..Ask::default() }).await?;
        if reply.status() == StatusCode::OK {
            return reply.bytes(most).await.map(Some).map_err(|error| unreachable(what(), &error));
        }
        let (status, refusal) = (reply.status(), Refusal::parse(&reply.beginning().await));
        if status == StatusCode::NOT_FOUND && refusal.code != "NoSuchBucket" {
            return Ok(None);
        }
        Err(refused_with(&self.config, what(), status, &refusal))
    }

    pub async fn put(&self, key: &str, body: Bytes, content_type: &str) -> Result<()> {
        let headers = vec![("content-type", content_type.to_owned())];
        let reply = self.send(&Ask { method: Method::PUT, key, headers, body, ..Ask::default() }).await?;
        match reply.status() {
            status if status.is_success() => Ok(()),
            _ => Err(refused(&self.config, self.what("write", key), reply).await),
        }
    }

    /// Makes an object new, so that it counts as young.
    pub async fn touch(&self, key: &str, size: u64) -> Result<()> {
        let source = ("x-amz-copy-source", format!("/{}/{}", self.config.bucket, encoded(key)));
        if size <= MOST_COPIED {
            // A copy onto itself must change something: to replace what there is by the same does.
            let headers = vec![
                source,
                ("x-amz-metadata-directive", "REPLACE".to_owned()),
                ("content-type", super::BLOB_TYPE.to_owned()),
            ];
            let ask = Ask { method: Method::PUT, key, headers, ..Ask::default() };
            return self.document::<Copied>(&ask, "renew").await.map(drop);
        }
        let upload = self.begin(key).await?;
        let copy = async {
            let mut tags = Vec::new();
            for (index, (from, length)) in super::super::object::pieces(size, MOST_COPIED).enumerate() {
                let range = ("x-amz-copy-source-range", format!("bytes={from}-{}", from + length - 1));
                let query = format!("partNumber={}&uploadId={}", index + 1, encoded_whole(&upload));
                let ask =
                    Ask { method: Method::PUT, key, query, headers: vec![source.clone(), range], ..Ask::default() };
                tags.push(self.document::<Copied>(&ask, "renew").await?.etag);
            }
            self.complete(key, &upload, &tags).await
        };
        let copied = copy.await;
        if copied.is_err() {
            self.abort(key, &upload).await;
        }
        copied
    }

    /// Begins an upload in parts; gives its id.
    pub async fn begin(&self, key: &str) -> Result<String> {
        let headers = vec![("content-type", super::BLOB_TYPE.to_owned())];
        let ask = Ask { method: Method::POST, key, query: "uploads=".into(), headers, ..Ask::default() };
        Ok(self.document::<Initiated>(&ask, "write").await?.upload_id)
    }

    /// Uploads a part, counted from 1; gives its tag.
    pub async fn part(&self, key: &str, upload: &str, number: usize, body: Bytes) -> Result<String> {
        let query = format!("partNumber={number}&uploadId={}", encoded_whole(upload));
        let reply = self.send(&Ask { method: Method::PUT, key, query, body, ..Ask::default() }).await?;
        if !reply.status().is_success() {
            return Err(refused(&self.config, self.what("write", key), reply).await);
        }
        let tag = reply.header("etag").map(str::to_owned);
        tag.ok_or_else(|| self.nonsense("write", key, "a part has no tag"))
    }

    /// Makes the parts an object.
    pub async fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Result<()> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for (index, tag) in tags.iter().enumerate() {
            let (number, tag) = (index + 1, quick_xml::escape::escape(tag.as_str()));
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = format!("uploadId={}", encoded_whole(upload));
        let headers = vec![("content-type", "application/xml".to_owned())];
        let ask = Ask { method: Method::POST, key, query, headers, body: body.into() };
        self.document::<Copied>(&ask, "write").await.map(drop)
    }

    /// Forgets an upload, whose parts would be paid for.
    pub async fn abort(&self, key: &str, upload: &str) {
        let query = format!("uploadId={}", encoded_whole(upload));
        let aborted = self.send(&Ask { method: Method::DELETE, key, query, ..Ask::default() }).await;
        if let Err(error) = aborted {
            tracing::debug!(%error, "an upload could not be aborted");
        }
    }

    /// Sends a request that a short document answers. Some begin with 200 before the store knows whether it will succeed: then the document is a refusal.
    async fn document<T: serde::de::DeserializeOwned>(&self, ask: &Ask<'_>, action: &str) -> Result<T> {
        let what = || self.what(action, ask.key);
        let mut left = self.config.attempts;
        loop {
            let reply = self.send(ask).await?;
            if !reply.status().is_success() {
                return Err(refused(&self.config, what(), reply).await);
            }
            let body = reply.bytes(MOST_ANSWERED).await.map_err(|error| unreachable(what(), &error))?;
            if let Ok(document) = quick_xml::de::from_str(&String::from_utf8_lossy(&body)) {
                return Ok(document);
            }
            let refusal = Refusal::parse(&body);
            left = left.saturating_sub(1);
            if refusal.code.is_empty() {
                return Err(self.nonsense(action, ask.key, "the answer is no document that is expected here"));
            }
            if left == 0 || !matches!(refusal.code.as_str(), "InternalError" | "SlowDown" | "RequestTimeout") {
                return Err(refused_with(&self.config, what(), StatusCode::OK, &refusal));
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Reply> {
        let what = || self.what(verb(&ask.method), ask.key);
        let mut retry = self.exchange.retry().attempts(self.config.attempts);
        loop {
            let request = self.signed(ask).await.map_err(|problem| Error::Service { what: what(), problem })?;
            let outcome = self.exchange.send(request).await;
            if !retry.again(&outcome).await {
                return outcome.map_err(|error| unreachable(what(), &error));
            }
        }
    }

    async fn signed(&self, ask: &Ask<'_>) -> std::result::Result<Request<Bytes>, String> {
        let mut url = format!("{}{}", self.base, encoded(ask.key));
        if !ask.query.is_empty() {
            let _ = write!(url, "?{}", ask.query);
        }
        let url: Uri = url.parse().map_err(|error| format!("the URL is not valid: {error}"))?;
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        // Whatever changes the body on its way is found by the store.
        request = request.header("x-amz-content-sha256", Digest::of(&ask.body).hex());
        let request = request.body(()).map_err(|error| error.to_string())?;
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, None).await.map_err(|error| no_credentials(&error))?;
        Ok(Request::from_parts(parts, ask.body.clone()))
    }

    pub fn what(&self, action: &str, key: &str) -> String {
        format!("cannot {action} s3://{}/{key}", self.config.bucket)
    }

    fn nonsense(&self, action: &str, key: &str, problem: &str) -> Error {
        Error::Service { what: self.what(action, key), problem: problem.to_owned() }
    }
}

/// An object of a bucket, to be read.
pub(super) struct Stored<'a> {
    pub bucket: &'a Bucket,
    pub key: String,
    pub digest: Digest,
}

impl Object for Stored<'_> {
    async fn open(&self, from: u64) -> Result<Reply> {
        let headers = if from > 0 { vec![("range", format!("bytes={from}-"))] } else { Vec::new() };
        let reply = self.bucket.send(&Ask { key: &self.key, headers, ..Ask::default() }).await?;
        match reply.status() {
            status if status.is_success() => Ok(reply),
            StatusCode::NOT_FOUND => Err(Error::NoBlob(self.digest)),
            _ => Err(refused(&self.bucket.config, self.what(), reply).await),
        }
    }

    fn what(&self) -> String {
        self.bucket.what("read", &self.key)
    }
}

fn verb(method: &Method) -> &'static str {
    if matches!(*method, Method::GET | Method::HEAD) { "read" } else { "write" }
}

fn no_credentials(error: &reqsign_core::Error) -> String {
    if error.to_string().contains("failed to load signing credential") {
        return "there are no credentials: set access_key_id and secret_access_key, AWS_ACCESS_KEY_ID and \
                AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN"
            .to_owned();
    }
    let context = error.context().iter().filter(|context| context.starts_with("from ")).cloned();
    format!("there are no credentials: {error}{}", context.map(|from| format!(" ({from})")).collect::<String>())
}

/// Scheme, host and the path before keys. Names of buckets with dots match no certificate as part of a host's name, and addresses have no names below them.
fn base(config: &S3Config) -> String {
    let bucket = &config.bucket;
    let (scheme, rest, path_style) = match &config.endpoint_url {
        Some(url) => {
            let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
            (scheme, rest.trim_end_matches('/').to_owned(), config.use_path_style)
        }
        None => {
            let suffix = if config.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            ("https", format!("s3.{}.{suffix}", config.region), false)
        }
    };
    let host = rest.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_address = name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    match path_style || is_address || (bucket.contains('.') && scheme == "https") {
        true => format!("{scheme}://{rest}/{bucket}/"),
        false => format!("{scheme}://{bucket}.{rest}/"),
    }
}

/// A key as part of a path.
fn encoded(key: &str) -> String {
    key.split('/').map(encoded_whole).collect::<Vec<_>>().join("/")
}

fn encoded_whole(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::Attributes;
    use super::*;

    #[test]
    fn buckets_are_in_the_host_or_in_the_path() {
        let base = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().chain(&[("region", "eu-1")]);
            let mut attributes = Attributes::new(pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            super::base(&S3Config::new(&mut attributes, &|_| None).ok().unwrap())
        };
        assert_eq!(base(&[("bucket", "b")]), "https://b.s3.eu-1.amazonaws.com/");
        assert_eq!(base(&[("bucket", "b.c")]), "https://s3.eu-1.amazonaws.com/b.c/");
        let endpoint = |url| ("endpoint_url", url);
        assert_eq!(base(&[("bucket", "b"), endpoint("http://s3.test:9/")]), "http://b.s3.test:9/");
        assert_eq!(base(&[("bucket", "b"), endpoint("http://s3.test:9/x")]), "http://b.s3.test:9/x/");
        assert_eq!(base(&[("bucket", "b"), endpoint("http://127.0.0.1:9")]), "http://127.0.0.1:9/b/");
        assert_eq!(base(&[("bucket", "b"), endpoint("http://[::1]:9")]), "http://[::1]:9/b/");
        let path_style = ("use_path_style", "1");
        assert_eq!(base(&[("bucket", "b"), endpoint("https://s3.test"), path_style]), "https://s3.test/b/");
    }

    #[test]
    fn keys_are_encoded_once() {
        assert_eq!(encoded("p/sha256:ab c+%/ü"), "p/sha256%3Aab%20c%2B%25/%C3%BC");
    }
}
