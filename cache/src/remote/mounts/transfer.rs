//! A directory between a store and a remote cache.

use super::super::{Error, Remote, Result, Transport};
use super::index::Index;
use super::pack::{MOST_PACK, Packed, Packer, Unpacker};
use super::{BlobRecord, INDEX_MEDIA_TYPE, MountRecord, PACK_MEDIA_TYPE, now, tree};
use crate::blob::BlobWriter;
use crate::mount::CacheMountLease;
use crate::store::Store;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

/// How many packs move at the same time.
const AT_ONCE: usize = 4;
/// As it lies there.
const MOST_INDEX: u64 = 128 << 20;

/// What became of a directory's chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAccount {
    /// That moved, and how many there are.
    pub moved: usize,
    pub chunks: usize,
    /// All that moved.
    pub bytes: u64,
}

/// A directory that was read from a cache, and is not made yet.
pub struct FetchedMount {
    index: Index,
    /// Files that are gone with this.
    packs: Vec<BlobWriter>,
    pub account: MountAccount,
}

/// Writes a directory. `previous` is what the cache has of it. Whoever calls holds the directory's lock.
pub async fn export_mount(
    store: &Store,
    name: &str,
    directory: OwnedFd,
    previous: Option<&MountRecord>,
    remote: &Remote,
) -> Result<(MountRecord, MountAccount)> {
    let (mut known, mut there) = (None, HashSet::new());
    if let Some(previous) = previous {
        // An index that cannot be had is none: then everything moves.
        match read_index(store, previous, remote).await {
            Ok(index) => known = Some(index),
            Err(error) => tracing::info!(%error, name, "what the cache has is not known"),
        }
        let asked = stream::iter(known.iter().flat_map(|index| index.packs.clone())).map(async |pack: BlobRecord| {
            let is_there = remote.has_blob(&pack.descriptor(PACK_MEDIA_TYPE)).await?;
            Result::Ok(is_there.then_some(pack.digest))
        });
        there = asked.buffer_unordered(AT_ONCE).try_filter_map(async |digest| Ok(digest)).try_collect().await?;
    }
    let own = store.clone();
    let packed = blocking(move || {
        let entries = tree::list(directory.as_fd())?;
        let mut packer = Packer::new(&own, known.as_ref(), |pack| there.contains(&pack.digest));
        packer.add(tree::Content::new(directory.as_fd(), &entries))?;
        let mut packed = packer.finish()?;
        packed.index.entries = entries;
        Ok(packed)
    })
    .await?;
    let Packed { index, written, sent } = packed;
    let mut account = MountAccount { moved: sent.0, chunks: index.chunks.len(), bytes: sent.1 };
    let uploads = stream::iter(&written).map(async |(writer, pack): &(BlobWriter, BlobRecord)| {
        remote.write_blob(&pack.descriptor(PACK_MEDIA_TYPE), writer.path(), &mut |_| {}).await
    });
    uploads.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let encoded = index.encode()?;
    let mut writer = store.blob_writer()?;
    writer.write_all(&encoded).map_err(Error::io("write", writer.path()))?;
    let (digest, size) = writer.seal();
    let record = BlobRecord { digest, size };
    let descriptor = record.descriptor(INDEX_MEDIA_TYPE);
    if !remote.has_blob(&descriptor).await? {
        remote.write_blob(&descriptor, writer.path(), &mut |_| {}).await?;
        account.bytes += size;
    }
    Ok((MountRecord { name: name.to_owned(), index: record, packs: index.packs, written: now() }, account))
}

/// Reads a directory.
pub async fn fetch_mount(store: &Store, record: &MountRecord, remote: &Remote) -> Result<FetchedMount> {
    let index = read_index(store, record, remote).await?;
    if let Some(pack) = index.packs.iter().find(|pack| pack.size > MOST_PACK) {
        return Err(Error::Document(format!("a pack of a cache directory has {} bytes", pack.size)));
    }
    let packs = stream::iter(&index.packs).map(|pack| fetch(store, pack, PACK_MEDIA_TYPE, remote));
    let packs: Vec<BlobWriter> = packs.buffered(AT_ONCE).try_collect().await?;
    let bytes = index.packs.iter().map(|pack| pack.size).sum::<u64>() + record.index.size;
    let account = MountAccount { moved: index.chunks.len(), chunks: index.chunks.len(), bytes };
    Ok(FetchedMount { index, packs, account })
}

impl FetchedMount {
    /// Makes what was read the content of a directory that is empty, in one step. False if there is nothing in it.
    pub fn place(&self, store: &Store, lease: &CacheMountLease) -> Result<bool> {
        if self.index.entries.len() < 2 {
            return Ok(false);
        }
        let attempt = store.begin_layer()?;
        let directory = File::open(attempt.upper()).map_err(Error::io("open", attempt.upper()))?;
        self.restore(&directory.into())?;
        std::fs::rename(attempt.upper(), lease.path()).map_err(Error::io("make", lease.path()))?;
        Ok(true)
    }

    /// Makes what was read in a directory that is empty. If that fails, what is in it is of no use.
    pub fn restore(&self, directory: &OwnedFd) -> Result<()> {
        let open = |pack: &BlobWriter| File::open(pack.path()).map_err(Error::io("open", pack.path()));
        let packs: Vec<File> = self.packs.iter().map(open).collect::<Result<_>>()?;
        tree::restore(directory.as_fd(), &self.index, Unpacker::new(&self.index, &packs))
    }
}

async fn read_index(store: &Store, record: &MountRecord, remote: &Remote) -> Result<Index> {
    if record.index.size > MOST_INDEX {
        return Err(Error::Document(format!("the index of a cache directory has {} bytes", record.index.size)));
    }
    let fetched = fetch(store, &record.index, INDEX_MEDIA_TYPE, remote).await?;
    blocking(move || {
        let bytes = std::fs::read(fetched.path()).map_err(Error::io("read", fetched.path()))?;
        Index::decode(&bytes)
    })
    .await
}

/// A blob as a file that is gone when its writer is.
async fn fetch(store: &Store, blob: &BlobRecord, media_type: &str, remote: &Remote) -> Result<BlobWriter> {
    let mut sink = oci::registry::SyncWriter(Bounded { writer: store.blob_writer()?, left: blob.size });
    remote.read_blob(&blob.descriptor(media_type), &mut sink, &mut |_| {}).await?;
    let mut writer = sink.0.writer;
    match writer.seal() {
        (digest, size) if digest == blob.digest && size == blob.size => Ok(writer),
        (found, _) => Err(crate::Error::WrongDigest { expected: blob.digest, found }.into()),
    }
}

struct Bounded {
    writer: BlobWriter,
    left: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("more bytes came than were announced"));
        }
        let written = self.writer.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|gone| Err(Error::Service { what: "a cache directory".into(), problem: gone.to_string() }))
}
