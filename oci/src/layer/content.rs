//! The content id of a layer: equal for layers that a user of the image could not tell apart.

use super::error::Error;
use super::tar::open_file;
use super::{Change, ChangeKind};
use rayon::prelude::*;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Clocks of file systems tick coarsely: a file written at the start of a step may carry a time a little before it.
const SLACK: Duration = Duration::from_secs(2);

/// Hashes `changes`, whose files lie in `upper`. A time counts only if it lies outside of `window`, the time in which the step
/// ran: times that a program set on purpose count, "written just now" does not.
pub fn content_id(
    changes: &[Change],
    upper: BorrowedFd,
    window: Option<(SystemTime, SystemTime)>,
) -> Result<[u8; 32], Error> {
    let window = window.map(|(start, end)| (seconds(start - SLACK), seconds(end + SLACK)));
    let hashes: Result<Vec<_>, Error> = changes.par_iter().map(|change| entry(change, upper, window)).collect();
    let mut hasher = blake3::Hasher::new();
    for hash in hashes? {
        hasher.update(hash.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes())
}

fn entry(change: &Change, upper: BorrowedFd, window: Option<(i64, i64)>) -> Result<blake3::Hash, Error> {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&change.path);
    let (kind, detail) = match &change.kind {
        ChangeKind::Directory => ("directory", Vec::new()),
        ChangeKind::File(size) => ("file", size.to_le_bytes().to_vec()),
        ChangeKind::Symlink(target) => ("symlink", target.clone()),
        ChangeKind::HardLink(first) => ("link", first.clone()),
        ChangeKind::Device { block, major, minor } => ("device", format!("{block} {major} {minor}").into_bytes()),
        ChangeKind::Fifo => ("fifo", Vec::new()),
        ChangeKind::Whiteout => ("whiteout", Vec::new()),
    };
    field(kind.as_bytes());
    field(&detail);
    for number in [change.mode, change.uid, change.gid] {
        field(&number.to_le_bytes());
    }
    let time = change.mtime.0;
    if window.is_none_or(|(start, end)| !(start..=end).contains(&time)) {
        field(&time.to_le_bytes());
    }
    for (name, value) in &change.xattrs {
        field(name);
        field(value);
    }
    if let ChangeKind::File(size) = change.kind
        && size > 0
    {
        let file = open_file(upper, &change.path)?;
        hasher.update_reader(file).map_err(|source| Error::File {
            action: "read",
            path: change.path.clone(),
            source,
        })?;
    }
    Ok(hasher.finalize())
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
