//! Images as single files: OCI archives (a tar of an image layout) and what `docker save` writes.
//!
//! - [`write_oci`] writes an OCI archive, readable by Docker too if asked; [`write_directory`] the same as a directory;
//! - [`read`] takes the images out of an archive or layout directory, storing their blobs through a [`BlobSink`].

mod directory;
mod docker;
mod graph;
mod read;
mod write;

pub use directory::write_directory;
pub use read::{read, read_tar};
pub use write::{ArchiveOptions, write_oci};

use crate::{Descriptor, Digest, layer};
use std::fmt::Display;
use std::io::{self, Read};

/// An image in an archive.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveImage {
    /// Normalised names with tag when written; as they were stored when read.
    pub names: Vec<String>,
    /// Of a manifest or an index.
    pub manifest: Descriptor,
}

/// Takes the blobs of an archive that is being read.
pub trait BlobSink {
    /// Stores what `reader` gives, and returns its digest and size. If a digest is expected, a blob with another one must
    /// not be kept, and is an error.
    fn put(&mut self, expected: Option<Digest>, reader: &mut dyn Read) -> io::Result<(Digest, u64)>;
}

/// Gives the blobs for an archive that is being written: size and content, or an error of kind `NotFound`.
pub type BlobSource<'a> = dyn Fn(&Digest) -> io::Result<(u64, Box<dyn Read>)> + 'a;

/// Why an archive or image layout could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {what}: {source}")]
    Io { action: &'static str, what: String, source: io::Error },
    #[error("cannot read the archive: {0}")]
    Tar(#[from] layer::Error),
    #[error("this is neither an OCI archive nor a docker archive: it has no index.json and no manifest.json")]
    NotAnImage,
    #[error("invalid {what}: {reason}")]
    InvalidDocument { what: String, reason: String },
    #[error("the archive lacks {what}, which its image needs")]
    Missing { what: String },
    #[error("blob {expected} is corrupt: its content has digest {found}")]
    DigestMismatch { expected: Digest, found: Digest },
    #[error("blob {digest} is corrupt: it has {found} bytes instead of {expected}")]
    SizeMismatch { digest: Digest, expected: u64, found: u64 },
}

impl Error {
    pub(crate) fn io(action: &'static str, what: impl Display, source: io::Error) -> Self {
        Error::Io { action, what: what.to_string(), source }
    }

    pub(crate) fn document(what: impl Display, reason: impl Display) -> Self {
        Error::InvalidDocument { what: what.to_string(), reason: reason.to_string() }
    }
}

/// The digest of a descriptor. Others than sha256 are refused.
fn digest_of(descriptor: &Descriptor) -> Result<Digest, Error> {
    Digest::try_from(descriptor.digest()).map_err(|e| Error::document("descriptor", e))
}
