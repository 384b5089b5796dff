//! HTTP for everything that is fetched: `transport` and `tls` move requests, for registries as for others. [`Downloader`] is for files at plain URLs,
//! [`Exchange`] for services with a protocol of their own.

mod download;
mod exchange;
mod tls;
pub(crate) mod transport;

pub use download::{Answer, DownloadError, Downloaded, Downloader, Validators};
pub use exchange::{Exchange, ExchangeError, Reply, Retry};
pub use transport::Timing;

use bytes::Bytes;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

/// An error with its causes, leaving out those that the text before already ends with, and the HTTP library's own
/// frames, which say nothing ("client error (Connect)").
pub(crate) struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        let mut next = Some(self.0);
        while let Some(error) = next {
            next = error.source();
            let own = error.to_string();
            let is_frame = error.is::<hyper_util::client::legacy::Error>() && next.is_some();
            if !is_frame && !text.contains(&own) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(&own);
            }
        }
        f.write_str(&text)
    }
}

/// A URL that may be shown: without user info and query.
pub(crate) fn shown(url: &Uri) -> String {
    let host = url.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
    match (url.scheme_str(), host) {
        (Some(scheme), Some(host)) => format!("{scheme}://{host}{}", url.path()),
        _ => url.path().to_owned(),
    }
}

/// The next piece of a body; `None` at its end. An error if nothing comes for `stall`.
pub(crate) async fn next_chunk(body: &mut Incoming, stall: Duration) -> io::Result<Option<Bytes>> {
    loop {
        match tokio::time::timeout(stall, body.frame()).await {
            Err(_) => return Err(transport::silence(stall)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(io::Error::other(error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6.2.18.
    #[test]
    fn shown_urls_keep_secrets() {
        let url: Uri = "https://user:pass@r.example:5000/v2/a/blobs/x?token=secret".parse().unwrap();
        assert_eq!(shown(&url), "https://r.example:5000/v2/a/blobs/x");
    }
}
