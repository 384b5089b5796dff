//! What a step changed.

use super::Error;
use super::walk::{Changes, Marks, Walk};
use std::os::fd::BorrowedFd;

/// The changes in an overlayfs upper directory against what was below it (spec X4.1 to X4.13): sorted depth first, names
/// by their bytes, each directory before its contents.
///
/// `lower` is a directory that shows what the step saw before it ran (the merged layers below), `None` if that was
/// nothing. The rules in short:
///
/// - A whiteout counts if its path exists below. An opaque directory becomes explicit whiteouts of what vanished.
/// - An entry that is equal to the one below was only copied up and is dropped. Of a directory, mode and owner
///   count, its time does not; every directory that leads to a change is listed.
/// - Sockets are dropped. Of several names of one inode the first is the file and the others are links to it.
///
/// Only permissions, owners, times and `security.capability` are compared: other xattrs are not part of a layer.
///
/// `is_single` says of files that no other name in `upper` is a link to the same one, where that is known.
pub fn diff<'a>(
    upper: BorrowedFd<'a>,
    lower: Option<BorrowedFd<'a>>,
    marks: Marks,
    is_single: &'a (dyn Fn(&[u8]) -> bool + Sync),
) -> Result<Changes<'a>, Error> {
    Walk { tree: upper, lower, overlay: Some(marks), is_single }.changes()
}
