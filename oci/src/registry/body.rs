//! Request bodies out of blocking readers.

use crate::Digest;
use crate::fetch::transport::Body;
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

const CHUNK: usize = 64 << 10;
/// Chunks that wait for the network.
const AHEAD: usize = 4;

/// A blob's upload as its watcher sees it.
#[derive(Clone, Default)]
pub(super) struct Upload {
    sent: Arc<AtomicU64>,
    /// Why the local side gave up. The connection only shows that it was cut.
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Upload {
    /// Bytes that the connection has taken so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The bytes of a reader, read on a blocking thread. They must be `size` bytes with this digest: the last piece is
    /// held back until that is known, so that wrong bytes never make a whole upload.
    pub(super) fn body<R: Read + Send + 'static>(&self, opened: io::Result<R>, digest: Digest, size: u64) -> Body {
        let (chunks, mut received) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
        self.sent.store(0, Ordering::Relaxed);
        let (sent, failure) = (self.sent.clone(), self.failure.clone());
        tokio::task::spawn_blocking(move || {
            let done = opened.and_then(|reader| feed(reader, digest, size, &chunks));
            if let Err(error) = done {
                let cut = io::Error::new(error.kind(), "the blob could not be read");
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Nobody may be listening any more.
                let _ = chunks.blocking_send(Err(cut));
            }
        });
        let stream = futures_util::stream::poll_fn(move |context| {
            received.poll_recv(context).map(|next| {
                next.map(|chunk| {
                    chunk.map(|bytes| {
                        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        Frame::data(bytes)
                    })
                })
            })
        });
        StreamBody::new(stream).boxed_unsync()
    }
}

fn feed(mut reader: impl Read, digest: Digest, size: u64, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut hasher = Sha256::new();
    let mut total = 0_u64;
    let mut held: Option<Bytes> = None;
    loop {
        let chunk = read_chunk(&mut reader, CHUNK)?;
        total += chunk.len() as u64;
        hasher.update(&chunk);
        let at_end = chunk.is_empty();
        if total > size || (at_end && total < size) {
            return Err(invalid(format!("the blob has {total} bytes or more where {size} were announced")));
        }
        if at_end {
            let actual = Digest::from_hasher(hasher.clone());
            if actual != digest {
                return Err(invalid(format!("the stored blob is damaged: its digest is {actual}, not {digest}")));
            }
        }
        // A closed channel means that the request has ended; its result says how.
        if let Some(bytes) = held.take()
            && chunks.blocking_send(Ok(bytes)).is_err()
        {
            return Ok(());
        }
        if at_end {
            return Ok(());
        }
        held = Some(chunk);
    }
}

/// Up to `limit` bytes; fewer only at the end.
pub(super) fn read_chunk(reader: &mut impl Read, limit: usize) -> io::Result<Bytes> {
    let mut chunk = Vec::with_capacity(limit);
    reader.by_ref().take(limit as u64).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
