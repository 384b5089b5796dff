//! Reading what registries answer: bounded bodies, error documents, `Retry-After`.

use crate::fetch::next_chunk;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use hyper::body::Incoming;
use serde::Deserialize;
use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// R6.5.5. Error documents longer than this are cut.
pub(super) const MAX_ERROR_BODY: usize = 4096;
/// R6.5.4.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A whole body of at most `limit` bytes. More is an error of the kind `FileTooLarge`.
pub(crate) async fn collect(mut body: Incoming, limit: usize, stall: Duration) -> io::Result<Bytes> {
    let mut collected = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body, stall).await? {
        if collected.len() + chunk.len() > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

/// The first bytes of a body, for a message.
pub(crate) async fn beginning(mut body: Incoming, stall: Duration) -> Bytes {
    let mut collected = BytesMut::new();
    while collected.len() < MAX_ERROR_BODY {
        match next_chunk(&mut body, stall).await {
            Ok(Some(chunk)) => collected.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    collected.truncate(MAX_ERROR_BODY);
    collected.freeze()
}

/// R6.5.5: code and message of each error, or the text as it is, in one line without control characters.
pub(super) fn error_detail(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<ErrorDocument>(body) {
        Ok(document) => {
            let entry = |error: &ErrorEntry| match (error.code.as_str(), error.message.as_str()) {
                (code, "") => code.to_owned(),
                ("", message) => message.to_owned(),
                (code, message) => format!("{code}: {message}"),
            };
            document.errors.iter().map(entry).collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // What a registry says goes to a terminal.
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR_BODY).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long the registry asks to wait: seconds or a date, at most a minute.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    Some(OffsetDateTime::parse(text, &Rfc2822).ok()?.into())
}

/// Whether a local limit, not the connection, ended a transfer.
pub(super) fn is_too_large(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge && StdError::source(error).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6.5.5.
    #[test]
    fn error_documents_become_one_line() {
        for (body, text) in [
            (r#"{"errors":[{"code":"DENIED","message":"no\nway","detail":{}}]}"#, "DENIED: no way"),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, "A; b"),
            ("<html>\n  \u{1b}[31mbusy</html>", "<html> [31mbusy</html>"),
            ("", ""),
        ] {
            assert_eq!(error_detail(body.as_bytes()), text);
        }
        assert_eq!(error_detail(&[b'x'; 9000]).len(), MAX_ERROR_BODY);
    }

    /// R6.5.4.
    #[test]
    fn waits_as_long_as_it_is_told_within_reason() {
        let parse = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(parse("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(parse("Fri, 06 Nov 2893 08:49:37 GMT"), Some(MAX_RETRY_AFTER));
        assert_eq!(parse("soon"), None);
    }
}
