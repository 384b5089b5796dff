//! Build contexts that come as an archive: on standard input, as a file, or from a URL (D19.3, D19.5).

use crate::error::Result;
use crate::fileop::{self, Owner};
use crate::snapshot::Snapshots;
use crate::value::Stack;
use std::io::Read;
use std::os::fd::AsFd;

/// How many bytes [`is_archive`] wants to see.
pub const HEAD: usize = 1024;

/// Whether what begins with `head` is a tar or something compressed; else it is a Dockerfile.
pub fn is_archive(head: &[u8]) -> bool {
    fileop::is_archive(head)
}

/// The archive's files, with the owners that it says. Equal archives give equal stacks. `name` is for messages.
pub fn unpack(snapshots: &Snapshots, input: impl Read + Send, name: &str) -> Result<Stack> {
    let draft = snapshots.draft(&Stack::default())?;
    fileop::unpack(input, name, draft.root.as_fd(), "/", Owner::Keep)?;
    snapshots.commit(draft, true)
}
