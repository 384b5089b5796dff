//! Objects that are read in one stream and written in pieces.

use super::{Error, Progress, Result};
use bytes::Bytes;
use http::StatusCode;
use oci::fetch::Reply;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// How often a stream may break without having brought a byte.
const FRUITLESS: u32 = 3;

/// Something that can be read from any byte on.
pub(super) trait Object: Sync {
    /// Asks for the object from `from` on; retries are its own.
    fn open(&self, from: u64) -> impl Future<Output = Result<Reply>> + Send;

    /// What the object is called in errors.
    fn what(&self) -> String;
}

/// Writes an object of at most `most` bytes into `sink`. A stream that breaks is gone on with where it broke.
pub(super) async fn read(
    object: &impl Object,
    most: u64,
    sink: &mut (dyn AsyncWrite + Send + Unpin),
    progress: Progress<'_>,
) -> Result<()> {
    let failed = |problem: String| Error::Service { what: object.what(), problem };
    let (mut written, mut fruitless) = (0_u64, 0);
    loop {
        let mut reply = object.open(written).await?;
        let is_right = match reply.status() {
            StatusCode::OK => written == 0,
            StatusCode::PARTIAL_CONTENT => {
                let range = reply.header("content-range").and_then(|range| range.strip_prefix("bytes "));
                range.and_then(|range| range.split('-').next()?.parse().ok()) == Some(written)
            }
            _ => false,
        };
        if !is_right {
            return Err(failed(format!(
                "answered {} where the bytes from {written} on were asked for",
                reply.status()
            )));
        }
        let length = reply.header("content-length").and_then(|length| length.parse::<u64>().ok());
        let (before, end) = (written, length.map(|length| written.saturating_add(length)));
        let broken = loop {
            match reply.chunk().await {
                Ok(None) if end.is_some_and(|end| written < end) => break "the answer ended too early".to_owned(),
                Ok(None) => {
                    sink.flush().await.map_err(|error| failed(format!("cannot be stored: {error}")))?;
                    return Ok(());
                }
                Ok(Some(bytes)) => {
                    written += bytes.len() as u64;
                    if written > most {
                        return Err(failed(format!("has more than the {most} bytes that it should have")));
                    }
                    sink.write_all(&bytes).await.map_err(|error| failed(format!("cannot be stored: {error}")))?;
                    progress(written);
                }
                Err(error) => break error.to_string(),
            }
        };
        fruitless = if written > before { 0 } else { fruitless + 1 };
        if fruitless >= FRUITLESS {
            return Err(failed(broken));
        }
        tracing::info!(problem = broken, written, "reading on");
    }
}

/// A piece of a file, in memory.
pub(super) async fn piece(path: &Path, from: u64, length: u64) -> Result<Bytes> {
    let path = path.to_owned();
    let read = move || {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, from));
        read.map_err(Error::io("read the blob", &path)).map(|()| Bytes::from(bytes))
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|gone| Err(Error::Service { what: "reading a blob".into(), problem: gone.to_string() }))
}

/// Where pieces of `size` begin, and how long each is.
pub(super) fn pieces(total: u64, size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..total.div_ceil(size)).map(move |index| (index * size, size.min(total - index * size)))
}
