//! The local store: blobs, layers as directories, results of steps, image names.
//!
//! ```text
//! oci-layout index.json blobs/sha256/…   a valid OCI image layout: other tools can read it in place
//! snapshots/ID/fs                        one layer's directory, never changed once it is there; files may be shared with others
//! snapshots/ID/digests                   digests of its files, where a copy made it
//! git/                                   a bare repository for each remote
//! cache.db                               layers, results, memos
//! builds/                                what recent builds were made of
//! mounts/ID                              RUN --mount=type=cache directories
//! containers/ID/…                        what programs that run in images have to themselves
//! tmp/ locks/ trash/
//! ```
//!
//! Many processes share a store, and any of them may be killed at any moment. Four rules make that safe:
//!
//! 1. Everything is written below `tmp/` and renamed to its place when it is complete.
//! 2. A record is written after what it points to.
//! 3. What is in the making is held by a file lock, which dies with its process: at the next start, unlocked leavings in `tmp/` are garbage.
//! 4. Deleting is renaming into `trash/`, emptied when nobody waits.
//!
//! Everything here is synchronous; calls that may wait ([`Store::lock_key`], [`Store::cache_mount`]) belong on a thread that may.

mod ballast;
mod blob;
mod build;
mod collect;
mod container;
mod database;
mod error;
mod filter;
mod image;
mod inventory;
mod layer;
mod lease;
mod lock;
mod measure;
mod mount;
mod ownership;
mod policy;
mod record;
pub mod remote;
mod store;
mod take_back;
mod usage;

pub use blob::BlobWriter;
pub use build::BuildEntry;
pub use container::{ContainerDirectory, ContainerLock, NewContainer, new_container_id};
pub use error::{Error, Result};
pub use filter::{Filter, InvalidFilter};
pub use image::{Found, StoredImage};
pub use inventory::{CacheRecord, Inventory, Roots};
pub use layer::{Attempt, LayerBlob, LayerId, LayerRecord};
pub use lock::KeyLock;
pub use mount::{CacheMountLease, Sharing};
pub use policy::{Budget, Caps, Disk, Policy, Space};
pub use record::{OF_LAYERS as MEMOS_OF_LAYERS, ResultRecord};
pub use store::Store;
pub use usage::{Kind, Used};
