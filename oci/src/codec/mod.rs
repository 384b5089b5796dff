//! Compressing and decompressing blobs, and hashing them on the way.
//!
//! - [`Encoder`] compresses what is written to it, on several threads, into bytes that do not depend on their number.
//! - [`decoder`] finds out by itself how a stream is compressed. [`ReadAhead`] lets it run on a thread of its own.
//! - [`HashingWriter`] and [`HashingReader`] compute digest and length of what passes through.

mod decode;
mod encode;
mod gzip;
mod hash;
mod zstd_frame;

pub use decode::{ReadAhead, decoder};
pub use encode::Encoder;
pub use hash::{HashingReader, HashingWriter};

use crate::MediaType;

/// How a layer blob is compressed. Equal input, compression and library versions give equal bytes (spec R4.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    /// Levels 0 to 12; beyond 9 they are libdeflate's, slow and slightly smaller.
    Gzip {
        level: u32,
    },
    /// Levels 1 to 22.
    Zstd {
        level: i32,
    },
}

impl Compression {
    /// The default of builds (spec X4.26).
    pub const GZIP: Self = Compression::Gzip { level: 6 };
    pub const ZSTD: Self = Compression::Zstd { level: 3 };

    /// Names everything that decides the bytes that a codec writes: what compressed layers are remembered by. Raise the version when
    /// the bytes change, with a library or with the block size.
    pub fn key(self) -> String {
        match self {
            Compression::None => "tar".into(),
            Compression::Gzip { level } => format!("gzip-{level}-v2"),
            Compression::Zstd { level } => format!("zstd-{level}-v2"),
        }
    }

    /// The media type of a layer in this compression, of the OCI or the Docker family (spec R4.5).
    pub fn media_type(self, docker: bool) -> MediaType {
        MediaType::from(match (self, docker) {
            (Compression::None, false) => "application/vnd.oci.image.layer.v1.tar",
            (Compression::Gzip { .. }, false) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Compression::Zstd { .. }, false) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Compression::None, true) => "application/vnd.docker.image.rootfs.diff.tar",
            (Compression::Gzip { .. }, true) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Compression::Zstd { .. }, true) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        })
    }
}
