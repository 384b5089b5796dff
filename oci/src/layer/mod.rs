//! Layers: from an overlayfs *upper directory* to a tar and back.
//!
//! A layer that was built lives on disk as the upper directory of the overlay mount in which the step ran. There, a
//! deletion is a character device 0:0 (a whiteout), and a directory that hides everything below it has the xattr
//! `trusted.overlay.opaque` (or `user.overlay.opaque`, when the mount was made in a user namespace) set to `y`.
//! In a tar, a deletion of `dir/x` is an empty file `dir/.wh.x`, and an opaque directory holds `.wh..wh..opq`.
//!
//! - [`diff`] compares an upper directory with what was below it and lists the [`Change`]s, sorted;
//! - [`write_tar`] writes changes as the layer's tar, byte for byte as BuildKit does, so that diff ids agree;
//! - [`compare`] says what differs between two layers;
//! - [`content_id`] hashes changes, leaving out times that only say when the step ran;
//! - [`apply`] unpacks a (foreign, hostile) layer tar into an empty upper directory;
//! - [`tar_from_directory`] and [`copy_tree`] export a whole merged tree, [`tar_from_trees`] several.

mod apply;
mod attributes;
mod compare;
mod content;
mod copy;
mod diff;
mod digest;
pub mod dir;
mod header;
mod metadata;
mod resolve;
mod sparse;
mod tar;
mod times;
mod tree;
mod walk;
mod write;

pub use apply::{ApplyOptions, ApplySummary, apply};
pub use compare::{Aspect, Comparison, Difference, Side, compare};
pub use content::{ContentTimes, KnownDigests, content_id, empty_content_id};
pub use copy::{CopySummary, copy_tree};
pub use diff::diff;
pub use digest::{LARGE, content_digest};
pub use times::Times;
pub use tree::{NamedTree, check_disjoint, tar_from_directory, tar_from_disjoint_trees, tar_from_trees};
pub use walk::{Changes, Marks};
pub use write::{TarOptions, TarSummary, write_tar};

pub(crate) use header::{Header, TypeFlag, padding};
pub(crate) use resolve::clean;
pub use resolve::{remove, remove_while};
pub(crate) use tar::{EntryKind, TarReader};

use std::io;

/// One entry of a layer: something added, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Relative to the root, without leading or trailing slash; any bytes but NUL.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, which may be negative, and nanoseconds.
    pub mtime: (i64, u32),
    /// The raw value of the xattr `security.capability`.
    pub capability: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// A further name of an earlier entry of the same layer, whose path this is.
    HardLink {
        to: Vec<u8>,
    },
    Device {
        /// Character device if true, else block device.
        char: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
    /// The path, which exists below, is deleted with everything under it.
    Whiteout,
}

/// Why a layer could not be read, written or compared. Paths are relative to the layer's root and escaped for display.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: String, source: io::Error },
    #[error(
        "directory {path} was renamed by overlayfs (overlay.redirect): the store must be mounted with redirect_dir=off"
    )]
    Redirected { path: String },
    #[error("short write copying file {path}: its size changed from {expected} bytes while it was read")]
    SizeChanged { path: String, expected: u64 },
    #[error("cannot overwrite {path} from {first} with {second} when split option is disabled")]
    Overlap { path: String, first: String, second: String },
    #[error("cannot write the tar: {0}")]
    Output(io::Error),
    #[error("cannot read the tar: {0}")]
    Input(io::Error),
    #[error("invalid tar at byte {offset}: {reason}")]
    InvalidTar { offset: u64, reason: &'static str },
    #[error("invalid tar entry {path}: {reason}")]
    InvalidEntry { path: String, reason: String },
}

impl Error {
    fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Error::Io { action, path: shown(path), source: source.into() }
    }

    fn entry(path: &[u8], reason: impl Into<String>) -> Self {
        Error::InvalidEntry { path: shown(path), reason: reason.into() }
    }
}

/// A path for messages: control characters and bytes that are not UTF-8 are escaped (spec X6.53). The root is `/`.
pub(crate) fn shown(path: &[u8]) -> String {
    use std::fmt::Write as _;
    if path.is_empty() {
        return "/".into();
    }
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
