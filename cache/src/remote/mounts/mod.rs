//! Directories of `RUN --mount=type=cache` in a remote cache (`cache-mounts=true`).
//!
//! The content of a directory's files, one after the other in the order of their paths, is a stream that is cut into *chunks* where its content says so (FastCDC):
//! what changes in one place leaves the chunks elsewhere as they are, also where bytes are put in or taken away. A chunk is known by its hash, compressed with
//! zstd, and lies with others in a *pack*, so that there are few blobs. An *index* lists the entries (path, type, mode, owner, time, size), the chunks that the stream
//! consists of, and where each lies. All that is known of an entry but its content is in the index alone, so that files that were only touched move nothing else.
//!
//! The cache's document names index and packs ([`MountRecord`]) in a member that other readers skip; where there is a manifest, they are layers of it with media
//! types of their own, so that whoever collects garbage there keeps them.
//!
//! - Written is what a build's steps mounted, and what changed of it: chunks that the cache has are not sent again. A directory that is gone from the build stays in
//!   the cache until it has not been written for [`KEPT`]. A pack of which little is still used is not used any more, so that what is deleted goes away.
//! - Read is a directory whose place here is empty, when the first step mounts it. What is here counts as newer than what is elsewhere, always.
//!
//! What comes from a cache is hostile: entries are made below the directory through descriptors, nothing follows a link, chunks are verified, and all sizes are bounded.

mod index;
mod pack;
mod transfer;
mod tree;

pub use transfer::{FetchedMount, MountAccount, export_mount, fetch_mount};

use oci::{Descriptor, Digest, MediaType};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const INDEX_MEDIA_TYPE: &str = "application/vnd.rbuild.cache-mount.index.v1+zstd";
pub const PACK_MEDIA_TYPE: &str = "application/vnd.rbuild.cache-mount.pack.v1+zstd";

/// How long a directory stays in a cache that no build writes it to.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Directories with more content are not written, and not read.
pub const MOST_CONTENT: u64 = 8 << 30;
/// Of entries, likewise.
const MOST_ENTRIES: usize = 2_000_000;

/// A directory in a remote cache's document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountRecord {
    /// What tells the directory from others: its id, and what its first content, mode and owner come from.
    pub name: String,
    pub index: BlobRecord,
    #[serde(default)]
    pub packs: Vec<BlobRecord>,
    /// Seconds since 1970.
    pub written: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    pub digest: Digest,
    pub size: u64,
}

impl BlobRecord {
    fn descriptor(&self, media_type: &str) -> Descriptor {
        Descriptor::new(MediaType::from(media_type), self.size, self.digest.to_spec())
    }
}

impl MountRecord {
    /// Of all its blobs.
    pub fn descriptors(&self) -> Vec<Descriptor> {
        let packs = self.packs.iter().map(|pack| pack.descriptor(PACK_MEDIA_TYPE));
        packs.chain([self.index.descriptor(INDEX_MEDIA_TYPE)]).collect()
    }

    /// Whether it was written lately enough to be kept.
    pub fn is_current(&self) -> bool {
        now().saturating_sub(self.written) <= KEPT.as_secs()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
