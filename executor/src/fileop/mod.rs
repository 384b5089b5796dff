//! File operations: COPY, ADD, WORKDIR and here-documents (spec X3, D18).
//!
//! A source tree and a destination are directory descriptors; nothing is known about where they are on the host. All paths
//! are resolved inside them (`resolve`). `copy` finds the source roots of a selection (`select`), works out where each goes, and
//! walks them on all cores (`walk`) while `tree` puts a copy together, which `place` then moves to its destination. `digest` computes what a copy would
//! take without copying, from what `statcache` remembers; `book` keeps what a copy took. `unpack` takes ADD's archives apart. The calls are synchronous: they
//! belong on blocking threads.

mod archive;
mod book;
mod copy;
mod data;
mod digest;
mod error;
mod listing;
mod make;
mod metadata;
mod path;
mod place;
mod recent;
mod remove;
mod resolve;
mod select;
mod stat;
pub mod statcache;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod walk;

#[doc(hidden)]
pub use archive::read_all as read_archive;
pub use archive::{is_archive, newest};
pub use book::{Book, BookWriter, Previous};
pub use copy::{copy, place_staged, stage};
pub use digest::{listed_digest, selection_digest};
pub use error::Error;
pub use listing::{Listing, changes};
pub use make::{mkdir, mkfile};
pub use parser::ignore::PatternMatcher;
pub use recent::Recent;
pub use tree::Account;
pub use unpack::unpack;

pub(crate) use error::{Context, describe};
pub(crate) use metadata::xattrs;
pub(crate) use path::base_name;
pub(crate) use resolve::{open_dirs as open_directory, resolve};
pub(crate) use stat::of as stat_of;
pub(crate) use tree::open_file;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Timestamps};
use solver::op::{Chmod, Selection};
use std::sync::atomic::AtomicBool;

/// Opens the regular file `name` of a directory for reading; a link is an error.
pub fn open_regular(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Error> {
    let file = open_file(directory, name.as_bytes(), name.as_bytes())?;
    match stat_of(&file).context("stat", name.as_bytes())?.kind {
        FileType::RegularFile => Ok(file),
        _ => Err(Error::Changed { path: name.to_owned() }),
    }
}

/// Where files are copied from. Ignored files do not exist (D20.14).
#[derive(Clone, Copy)]
pub struct SourceTree<'a> {
    pub root: BorrowedFd<'a>,
    pub ignore: Option<&'a PatternMatcher>,
    /// Name of the file that `ignore` was read from, for messages (D22.4).
    pub ignore_name: &'a str,
    /// Set when a walk over it should end as soon as it can.
    pub cancelled: Option<&'a AtomicBool>,
}

/// Who owns what a copy makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As in the source; directories that are made on the way belong to 0:0. For stages and images (X3.25).
    Keep,
    /// 0:0, whoever owns the files of a build context; entries of an archive that is unpacked keep their numbers (X3.71).
    Root,
    /// This user and group: `--chown`.
    Set(u32, u32),
}

/// The file system that is written, as an overlay shows it. Trees are moved into the layer below it, which it does not notice by itself.
pub trait View {
    fn root(&self) -> BorrowedFd<'_>;

    /// Makes it show what is in the layer.
    fn refresh(&mut self) -> Result<(), Error>;
}

/// A directory without an overlay shows everything at once.
pub struct Plain<'a>(pub BorrowedFd<'a>);

impl View for Plain<'_> {
    fn root(&self) -> BorrowedFd<'_> {
        self.0
    }

    fn refresh(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

pub struct CopyRequest<'a> {
    pub source: SourceTree<'a>,
    /// Root of the layer that takes the changes.
    pub layer: BorrowedFd<'a>,
    /// An empty directory on the layer's file system, where trees are put together.
    pub staging: BorrowedFd<'a>,
    pub selection: &'a Selection,
    /// Absolute path in the destination; one that ends in `/` or `/.` is a directory (D18.18).
    pub to: &'a str,
    pub owner: Owner,
    pub chmod: Option<&'a Chmod>,
    /// Unpack a source that is a tar archive (X3.69).
    pub unpack: bool,
    /// Of a source that may change while it is read.
    pub account: Option<Account<'a>>,
}

/// A directory that was copied ahead of its step.
pub struct Staged {
    pub summary: CopySummary,
    /// Of the source.
    times: Timestamps,
    parents: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Entries that are no directories.
    pub files: u64,
    /// Of regular files.
    pub bytes: u64,
    /// With an account: of exactly what was copied, as [`selection_digest`] gives it.
    pub digest: Option<[u8; 32]>,
    /// The canonical path of the directory that the only source, or what lies in it, was copied into.
    pub into: Option<Vec<u8>>,
    /// The view has to be refreshed before it is used again.
    pub is_behind: bool,
    /// A source was an archive, whose entries' times are content of it.
    pub unpacked: bool,
}
