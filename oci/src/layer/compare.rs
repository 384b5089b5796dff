//! What differs between two layers that should be the same.
//!
//! Both are walked side by side, in the order of their entries. What is compared is what their tars would hold: so two layers without a
//! difference have equal diff ids.

use super::{Change, ChangeKind, Error, Times, dir, shown};
use std::cmp::Ordering;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

/// One of the layers: its changes, as [`diff`](super::diff) lists them, and where their contents are.
pub struct Side<'a, I> {
    pub changes: I,
    pub upper: BorrowedFd<'a>,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The first ones, in the order of the layer.
    pub differences: Vec<Difference>,
    pub total: usize,
    /// How many of all differ in nothing but their time.
    pub only_times: usize,
}

/// An entry that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Escaped for display.
    pub path: String,
    pub aspects: Vec<Aspect>,
}

/// In what it differs: the first layer's, then the second's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aspect {
    OnlyInFirst,
    OnlyInSecond,
    /// Such as `file` and `directory`.
    Kind(&'static str, &'static str),
    Mode(u32, u32),
    Owner((u32, u32), (u32, u32)),
    /// Seconds since 1970, as they would be written.
    Time(i64, i64),
    /// Sizes, and the first byte that is not the same.
    Content {
        sizes: (u64, u64),
        offset: u64,
    },
    /// Where a link leads.
    Target(String, String),
    Device((u32, u32), (u32, u32)),
    /// The xattr `security.capability`.
    Capability,
}

impl Difference {
    pub fn is_only_time(&self) -> bool {
        matches!(self.aspects.as_slice(), [Aspect::Time(..)])
    }
}

/// Compares two layers. Of the differences, at most `most` are told one by one.
pub fn compare<I: IntoIterator<Item = Result<Change, Error>>>(
    first: Side<'_, I>,
    second: Side<'_, I>,
    times: Times,
    most: usize,
) -> Result<Comparison, Error> {
    let (mut left, mut right) = (first.changes.into_iter(), second.changes.into_iter());
    let (mut a, mut b) = (left.next().transpose()?, right.next().transpose()?);
    let mut comparison = Comparison::default();
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(comparison),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => order(&a.path, &b.path),
        };
        let (path, aspects) = match (order, &a, &b) {
            (Ordering::Less, Some(a), _) => (&a.path, vec![Aspect::OnlyInFirst]),
            (Ordering::Greater, _, Some(b)) => (&b.path, vec![Aspect::OnlyInSecond]),
            (_, Some(a), Some(b)) => (&a.path, aspects((a, first.upper), (b, second.upper), times)?),
            _ => return Ok(comparison),
        };
        if !aspects.is_empty() {
            let difference = Difference { path: shown(path), aspects };
            comparison.total += 1;
            comparison.only_times += usize::from(difference.is_only_time());
            if comparison.differences.len() < most {
                comparison.differences.push(difference);
            }
        }
        if order != Ordering::Greater {
            a = left.next().transpose()?;
        }
        if order != Ordering::Less {
            b = right.next().transpose()?;
        }
    }
}

/// The order of a walk: a directory before its contents, names by their bytes.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|byte| *byte == b'/').cmp(b.split(|byte| *byte == b'/'))
}

fn aspects(
    (a, upper_a): (&Change, BorrowedFd<'_>),
    (b, upper_b): (&Change, BorrowedFd<'_>),
    times: Times,
) -> Result<Vec<Aspect>, Error> {
    let mut aspects = Vec::new();
    match (&a.kind, &b.kind) {
        (ChangeKind::File { size: first }, ChangeKind::File { size: second }) => {
            let sizes = (*first, *second);
            let offset = content(&a.path, upper_a, upper_b).map_err(|error| Error::io("compare", &a.path, error))?;
            aspects.extend(offset.map(|offset| Aspect::Content { sizes, offset }));
        }
        (ChangeKind::Symlink { target: first }, ChangeKind::Symlink { target: second })
        | (ChangeKind::HardLink { to: first }, ChangeKind::HardLink { to: second }) => {
            if first != second {
                aspects.push(Aspect::Target(shown(first), shown(second)));
            }
        }
        (
            ChangeKind::Device { char, major, minor },
            ChangeKind::Device { char: other_char, major: other_major, minor: other_minor },
        ) if char == other_char => {
            let devices = ((*major, *minor), (*other_major, *other_minor));
            if devices.0 != devices.1 {
                aspects.push(Aspect::Device(devices.0, devices.1));
            }
        }
        // All whiteouts look the same.
        (ChangeKind::Whiteout, ChangeKind::Whiteout) => return Ok(aspects),
        (first, second) if name(first) == name(second) => {}
        (first, second) => return Ok(vec![Aspect::Kind(name(first), name(second))]),
    }
    if a.mode != b.mode {
        aspects.push(Aspect::Mode(a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        aspects.push(Aspect::Owner((a.uid, a.gid), (b.uid, b.gid)));
    }
    if a.capability != b.capability {
        aspects.push(Aspect::Capability);
    }
    let (first, second) = (times.of(a.mtime.0), times.of(b.mtime.0));
    if first != second {
        aspects.push(Aspect::Time(first, second));
    }
    Ok(aspects)
}

fn name(kind: &ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Directory => "directory",
        ChangeKind::File { .. } => "file",
        ChangeKind::Symlink { .. } => "symbolic link",
        ChangeKind::HardLink { .. } => "hard link",
        ChangeKind::Device { char: true, .. } => "character device",
        ChangeKind::Device { char: false, .. } => "block device",
        ChangeKind::Fifo => "fifo",
        ChangeKind::Whiteout => "deletion",
    }
}

/// The first byte that two files do not have in common; `None` if they are equal.
fn content(path: &[u8], first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let (mut first, mut second) = (dir::open_file(first, path)?, dir::open_file(second, path)?);
    let (one, other) = (first.metadata()?, second.metadata()?);
    // Copies of the same file of a context share their content.
    if (one.dev(), one.ino()) == (other.dev(), other.ino()) {
        return Ok(None);
    }
    let (mut a, mut b) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    let mut offset = 0;
    loop {
        let (read_a, read_b) = (fill(&mut first, &mut a)?, fill(&mut second, &mut b)?);
        let common = a[..read_a].iter().zip(&b[..read_b]).take_while(|(a, b)| a == b).count();
        offset += common as u64;
        if common < read_a.max(read_b) {
            return Ok(Some(offset));
        }
        if read_a < a.len() {
            return Ok(None);
        }
    }
}

/// Less than the buffer holds only at the end.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Aspect::OnlyInFirst => write!(f, "only in the first build"),
            Aspect::OnlyInSecond => write!(f, "only in the second build"),
            Aspect::Kind(first, second) => write!(f, "a {first}, then a {second}"),
            Aspect::Mode(first, second) => write!(f, "mode {first:o}, then {second:o}"),
            Aspect::Owner(first, second) => write!(f, "owner {}:{}, then {}:{}", first.0, first.1, second.0, second.1),
            Aspect::Time(first, second) => write!(f, "modified at {}, then at {}", time(*first), time(*second)),
            Aspect::Content { sizes: (first, second), offset } if first == second => {
                write!(f, "content of {first} bytes, differs from byte {offset} on")
            }
            Aspect::Content { sizes: (first, second), offset } => {
                write!(f, "content of {first} bytes, then of {second}, differs from byte {offset} on")
            }
            Aspect::Target(first, second) => write!(f, "leads to {first}, then to {second}"),
            Aspect::Device(first, second) => {
                write!(f, "device {}:{}, then {}:{}", first.0, first.1, second.0, second.1)
            }
            Aspect::Capability => write!(f, "security.capability"),
        }
    }
}

/// To the second.
fn time(seconds: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| seconds.to_string())
}
