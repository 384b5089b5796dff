//! Images in a file: OCI layouts as a tar, and what `docker save` writes, now and in former times (R5.9).

mod read;
mod write;

pub use read::{BlobSink, LoadedImage, read};
pub use write::{ArchiveImage, BlobSource, write};

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    #[error("{name} in the archive is not valid: {reason}")]
    Invalid { name: String, reason: String },
    #[error("the archive is neither an OCI layout nor a docker archive: it has no index.json and no manifest.json")]
    Unknown,
    #[error("the archive names {0}, which is not in it")]
    Missing(String),
    #[error("cannot store {name}: {reason}")]
    Store { name: String, reason: String },
}

/// Where containerd and docker put an image's full name.
pub(crate) const NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[cfg(test)]
mod tests;
