//! File operations: COPY, ADD, WORKDIR and here-documents (spec X3, D18).
//!
//! A source tree and a destination are directory descriptors; nothing is known about where they are on the host. All paths
//! are resolved inside them (`resolve`). `copy` finds the source roots of a selection (`select`), works out where each goes, and
//! walks them on all cores (`walk`) while `tree` writes entries. `unpack` takes ADD's archives apart. The calls are synchronous: they
//! belong on blocking threads.

mod archive;
mod copy;
mod data;
mod error;
mod make;
mod metadata;
mod path;
mod remove;
mod resolve;
mod select;
mod stat;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod walk;

#[doc(hidden)]
pub use archive::read_all as read_archive;
pub use copy::copy;
pub use error::Error;
pub use make::{mkdir, mkfile};
pub use parser::ignore::PatternMatcher;
pub use unpack::unpack;

pub(crate) use error::{Context, describe};
pub(crate) use metadata::xattrs;
pub(crate) use path::{base_name, join, shown};
pub(crate) use resolve::resolve;
pub(crate) use select::{Filter, SourceRoot, select};
pub(crate) use stat::{Stat, at as stat_at, of as stat_of};
pub(crate) use tree::open_file;
pub(crate) use walk::{Entry, Node, Visitor, walk};

use rustix::fd::BorrowedFd;
use solver::op::{Chmod, Selection};

/// Where files are copied from. Ignored files do not exist (D20.14).
#[derive(Clone, Copy)]
pub struct SourceTree<'a> {
    pub root: BorrowedFd<'a>,
    pub ignore: Option<&'a PatternMatcher>,
    /// Name of the file that `ignore` was read from, for messages (D22.4).
    pub ignore_name: &'a str,
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

pub struct CopyRequest<'a> {
    pub source: SourceTree<'a>,
    /// Root of the file system that is written.
    pub destination: BorrowedFd<'a>,
    pub selection: &'a Selection,
    /// Absolute path in `destination`; one that ends in `/` or `/.` is a directory (D18.18).
    pub to: &'a str,
    pub owner: Owner,
    pub chmod: Option<&'a Chmod>,
    /// Unpack a source that is a tar archive (X3.69).
    pub unpack: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySummary {
    /// Entries that are no directories.
    pub files: u64,
    /// Of regular files.
    pub bytes: u64,
}
