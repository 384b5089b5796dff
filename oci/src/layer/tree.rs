//! A whole tree as a tar (`--output type=tar`).

use super::Error;
use super::walk::Walk;
use super::write::{TarOptions, TarSummary, Xattrs, write};
use std::io::Write;
use std::os::fd::BorrowedFd;

/// Writes everything under `root`, which is a merged tree, as a tar (spec R5.10.4): sorted, with owners, all xattrs, hard
/// links and devices. Overlayfs marks in it have no meaning.
pub fn tar_from_directory(
    root: BorrowedFd<'_>,
    options: &TarOptions,
    out: &mut impl Write,
) -> Result<TarSummary, Error> {
    let changes = Walk { tree: root, lower: None, overlay: false, is_single: &|_| false }.changes()?;
    write(changes, root, options, Xattrs::All, out)
}
