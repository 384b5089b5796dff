//! Layers as directories and as tars (image-spec, layer.md).
//!
//! A layer that was built lives as the *upper directory* of an overlay mount: a deleted name is a character device 0:0, a directory that hides
//! what lies below it carries an `overlay.opaque` attribute. In a tar the same are a `.wh.NAME` file and, in foreign layers only, a `.wh..wh..opq`.
//!
//! - [`diff`] finds what an upper directory changes, in the order and by the equality rule of the norm (X4.1 to X4.13);
//! - [`write_tar`] writes those changes as a tar, [`content_id`] hashes them without times that a rerun would change;
//! - [`apply`] unpacks a tar, hostile or not, into an upper directory (X4.30 to X4.44);
//! - [`copy_tree`] and [`tree`] give whole file systems to the user.

mod apply;
mod content;
mod diff;
mod error;
mod export;
mod tar;

pub use apply::{ApplyOptions, ApplySummary, apply};
pub use content::content_id;
pub use diff::{diff, tree};
pub use error::Error;
pub use export::copy_tree;
pub use tar::{TarOptions, write_tar};

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Relative, without a leading or trailing slash, any bytes but NUL.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// `security.capability` in a layer, all attributes in a [`tree`].
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ChangeKind {
    Directory,
    /// Size in bytes.
    File(u64),
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
    /// The name is gone.
    Whiteout,
}

/// The bytes of all files among `changes`.
pub fn size(changes: &[Change]) -> u64 {
    let sizes = changes.iter().map(|change| match change.kind {
        ChangeKind::File(size) => size,
        _ => 0,
    });
    sizes.sum()
}

pub(crate) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
pub(crate) const CAPABILITY: &str = "security.capability";

#[cfg(test)]
mod tests;
