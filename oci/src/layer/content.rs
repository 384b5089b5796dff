//! The content id of a layer's changes.

use super::digest::content_digest;
use super::{Change, ChangeKind, Error, dir};
use rayon::prelude::*;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that was written within the step may carry a slightly earlier time than the step's start: the kernel
/// stamps files with the time of its last tick, and network file systems with the server's clock.
const SLACK: Duration = Duration::from_secs(2);

/// Which mtimes are content.
#[derive(Clone, Copy, Debug)]
pub enum ContentTimes {
    All,
    /// Those outside of the step that made the layer, of which these are start and end. One within says only when the step ran: two runs that write the same files
    /// have the same id. One outside (`touch -d`, an unpacked archive) was meant.
    Outside(SystemTime, SystemTime),
    /// For layers of files that were copied with the times of others, which are no part of what they are found by.
    None,
}

impl ContentTimes {
    /// In seconds since 1970.
    fn left_out(self) -> RangeInclusive<i64> {
        match self {
            #[expect(clippy::reversed_empty_ranges, reason = "nothing is left out")]
            ContentTimes::All => 1..=0,
            ContentTimes::Outside(start, end) => seconds(start.checked_sub(SLACK))..=seconds(end.checked_add(SLACK)),
            ContentTimes::None => i64::MIN..=i64::MAX,
        }
    }
}

/// The content id of a layer without changes.
pub fn empty_content_id() -> [u8; 32] {
    *blake3::Hasher::new().finalize().as_bytes()
}

/// How many changes are taken together, so that their files can be read in parallel.
const BATCH: usize = 512;

/// Says the blake3 digest of a file's content where it is known, by path: such a file is not read.
pub type KnownDigests<'a> = &'a (dyn Fn(&[u8]) -> Option<[u8; 32]> + Sync);

/// A blake3 hash over every change: path, type, mode, owner, link target, device numbers, capability, content.
///
/// An mtime that counts does so to the second, which is what a layer tar keeps of it.
pub fn content_id(
    changes: impl IntoIterator<Item = Result<Change, Error>>,
    upper: BorrowedFd<'_>,
    times: ContentTimes,
    known: KnownDigests<'_>,
) -> Result<[u8; 32], Error> {
    let left_out = times.left_out();
    let mut hasher = blake3::Hasher::new();
    let mut record = Vec::new();
    let mut changes = changes.into_iter();
    loop {
        let batch = changes.by_ref().take(BATCH).collect::<Result<Vec<Change>, Error>>()?;
        if batch.is_empty() {
            return Ok(hasher.finalize().into());
        }
        let mut contents = contents(&batch, upper, known)?.into_iter();
        for change in &batch {
            record.clear();
            put_record(change, &mut contents, &left_out, &mut record);
            hasher.update(&record);
        }
    }
}

/// The digests of the files among `changes`, in order.
fn contents(changes: &[Change], upper: BorrowedFd<'_>, known: KnownDigests<'_>) -> Result<Vec<[u8; 32]>, Error> {
    let files: Vec<(&Change, Option<[u8; 32]>)> = changes
        .iter()
        .filter(|change| matches!(change.kind, ChangeKind::File { .. }))
        .map(|change| (change, known(&change.path)))
        .collect();
    let digest = |(file, known): &(&Change, Option<[u8; 32]>)| match known {
        Some(digest) => Ok(*digest),
        None => hash_file(file, upper),
    };
    let unknown = files.iter().filter(|(_, known)| known.is_none());
    let (count, total) = unknown.fold((0, 0), |(count, total), (file, _)| (count + 1, total + size(file)));
    // With few files, waking threads costs more than it brings, unless they are large.
    match count >= 64 || total >= 4 << 20 {
        true => files.par_iter().map(digest).collect(),
        false => files.iter().map(digest).collect(),
    }
}

/// Every part has a fixed length or its length before it.
fn put_record(
    change: &Change,
    contents: &mut impl Iterator<Item = [u8; 32]>,
    left_out: &RangeInclusive<i64>,
    record: &mut Vec<u8>,
) {
    put_bytes(&change.path, record);
    match &change.kind {
        ChangeKind::Directory => record.push(b'd'),
        ChangeKind::File { .. } => {
            record.push(b'f');
            record.extend(contents.next().into_iter().flatten());
        }
        ChangeKind::Symlink { target } => {
            record.push(b'l');
            put_bytes(target, record);
        }
        ChangeKind::HardLink { to } => {
            record.push(b'h');
            put_bytes(to, record);
        }
        ChangeKind::Device { char, major, minor } => {
            record.push(if *char { b'c' } else { b'b' });
            record.extend_from_slice(&major.to_le_bytes());
            record.extend_from_slice(&minor.to_le_bytes());
        }
        ChangeKind::Fifo => record.push(b'p'),
        ChangeKind::Whiteout => record.push(b'w'),
    }
    for number in [change.mode, change.uid, change.gid] {
        record.extend_from_slice(&number.to_le_bytes());
    }
    match &change.capability {
        Some(value) => {
            record.push(1);
            put_bytes(value, record);
        }
        None => record.push(0),
    }
    match left_out.contains(&change.mtime.0) {
        true => record.push(0),
        false => {
            record.push(1);
            record.extend_from_slice(&change.mtime.0.to_le_bytes());
        }
    }
}

fn size(change: &Change) -> u64 {
    match change.kind {
        ChangeKind::File { size } => size,
        _ => 0,
    }
}

fn hash_file(change: &Change, upper: BorrowedFd<'_>) -> Result<[u8; 32], Error> {
    let expected = size(change);
    if expected == 0 {
        return Ok(*blake3::hash(b"").as_bytes());
    }
    let file = dir::open_file(upper, &change.path).map_err(|e| Error::io("open", &change.path, e))?;
    match content_digest(&file, expected).map_err(|e| Error::io("read", &change.path, e))? {
        (digest, found) if found == expected => Ok(digest),
        _ => Err(Error::SizeChanged { path: super::shown(&change.path), expected }),
    }
}

fn put_bytes(bytes: &[u8], record: &mut Vec<u8>) {
    record.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    record.extend_from_slice(bytes);
}

/// Seconds since 1970, rounded down.
fn seconds(time: Option<SystemTime>) -> i64 {
    match time.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            -whole - i64::from(before.subsec_nanos() > 0)
        }
    }
}
