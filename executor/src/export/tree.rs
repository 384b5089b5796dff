//! A result's files, without an image around them.

use crate::error::{Error, Result};
use crate::snapshot::Snapshots;
use crate::value::Stack;
use oci::layer::TarOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// Copies the files into a directory, made if it is missing; owners become the caller's.
pub fn to_directory(snapshots: &Snapshots, stack: &Stack, directory: &Path) -> Result<()> {
    let view = snapshots.view(&stack.ids())?;
    oci::layer::copy_tree(view.as_fd(), directory)?;
    Ok(())
}

/// Writes the files as a tar, with owners, attributes and devices.
pub fn to_tar(snapshots: &Snapshots, stack: &Stack, out: &mut impl Write) -> Result<()> {
    let view = snapshots.view(&stack.ids())?;
    oci::layer::tar_from_directory(view.as_fd(), &TarOptions::default(), out)?;
    out.flush().map_err(Error::write("the tar"))
}
