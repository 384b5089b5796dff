//! What a selection held, small enough to be kept: so that a later build can say which files are new.
//!
//! It is written down while a selection's digest is computed, or its copy made, directory by directory: its path, and of each entry kind, mode and owner, the first
//! 8 bytes of the digest, and name. Two listings are compared by directory, so that only what differs is taken apart.

use super::digest::{Content, Record};
use super::path::{join, parent_and_name, shown};
use super::select::SourceRoot;
use solver::trace::{Change, FileChange, FileChanges};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

const MAGIC: &[u8; 16] = b"rbuild list 0001";
/// Kind, mode, owner, digest, length of the name.
const FIXED: usize = 1 + 4 + 4 + 8 + 2;
/// Some 500,000 files. What is more is not kept at all.
const MOST_BYTES: usize = 16 << 20;
const LEVEL: i32 = 1;
/// So many paths are told, the others counted.
const MOST_TOLD: usize = 10;

/// Filled from any thread.
#[derive(Default)]
pub struct Listing(Mutex<Vec<u8>>);

impl Listing {
    /// What lies in the directory at `path`.
    pub(crate) fn directory(&self, path: &[u8], records: &[Record]) {
        let names: usize = records.iter().map(|record| record.name.len() + FIXED).sum();
        let mut block = Vec::with_capacity(names + path.len() + 8);
        block.extend_from_slice(&(path.len() as u32).to_le_bytes());
        block.extend_from_slice(path);
        block.extend_from_slice(&(names as u32).to_le_bytes());
        records.iter().for_each(|record| encode(record, &record.name, &mut block));
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One byte more than there may be says that there were too many.
        let room = (MOST_BYTES + 1).saturating_sub(bytes.len());
        bytes.extend_from_slice(&block[..block.len().min(room)]);
    }

    /// A root that is no directory.
    pub(crate) fn root(&self, root: &SourceRoot, record: &Record) {
        let (parent, name) = parent_and_name(&root.path);
        let mut entry = Vec::with_capacity(name.len() + FIXED);
        encode(record, name, &mut entry);
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(&(parent.len() as u32).to_le_bytes());
        bytes.extend_from_slice(parent);
        bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&entry);
    }

    /// What several ones say.
    pub fn all(listings: Vec<Listing>) -> Listing {
        let bytes = listings.into_iter().map(|listing| listing.0.into_inner().unwrap_or_else(PoisonError::into_inner));
        Listing(Mutex::new(bytes.reduce(|all, more| [all, more].concat()).unwrap_or_default()))
    }

    /// Packed; `None` if there is too much of it.
    pub fn pack(self) -> Option<Vec<u8>> {
        let bytes = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() > MOST_BYTES {
            return None;
        }
        Some([MAGIC.as_slice(), &zstd::bulk::compress(&bytes, LEVEL).ok()?].concat())
    }
}

fn encode(record: &Record, name: &[u8], out: &mut Vec<u8>) {
    let digest: [u8; 8] = match &record.content {
        // A directory's says no more than what is listed below it.
        Content::Digest(_) if record.kind == b'd' => [0; 8],
        Content::Digest(digest) => beginning(digest),
        Content::Link(target) => beginning(blake3::hash(target).as_bytes()),
        Content::Device(rdev) => rdev.to_le_bytes(),
        Content::None => [0; 8],
    };
    let owner = record.owner.0.wrapping_mul(65_599) ^ record.owner.1;
    out.push(record.kind);
    out.extend_from_slice(&record.mode.to_le_bytes());
    out.extend_from_slice(&owner.to_le_bytes());
    out.extend_from_slice(&digest);
    // Names have at most 255 bytes.
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name);
}

fn beginning(digest: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}

/// What became of the files of one packed listing in another; `None` if either is damaged. Paths are absolute in the tree.
pub fn changes(old: &[u8], new: &[u8]) -> Option<FileChanges> {
    let (old, new) = (unpack(old)?, unpack(new)?);
    let (old, new) = (directories(&old)?, directories(&new)?);
    let mut found: BTreeMap<Vec<u8>, (Change, u8)> = BTreeMap::new();
    let nothing = Vec::new();
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    for path in new.keys().chain(gone) {
        let (before, after) = (old.get(path).unwrap_or(&nothing), new.get(path).unwrap_or(&nothing));
        if before == after {
            continue;
        }
        let (before, after) = (entries(before)?, entries(after)?);
        for (name, entry) in &after {
            let change = match before.get(name) {
                None => Change::Added,
                Some(earlier) if earlier == entry => continue,
                Some(earlier) if (earlier.kind, earlier.digest) == (entry.kind, entry.digest) => Change::Mode,
                Some(_) => Change::Changed,
            };
            found.insert(join(path, name), (change, entry.kind));
        }
        for (name, entry) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            found.insert(join(path, name), (Change::Removed, entry.kind));
        }
    }
    // A directory that came or went is told by what lies in it.
    let is_told_below = |path: &Vec<u8>| {
        let below = join(path, b"");
        found.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below) && *next != below)
    };
    let told: Vec<_> = found
        .iter()
        .filter(|(path, (change, kind))| {
            !(*kind == b'd' && matches!(change, Change::Added | Change::Removed) && is_told_below(path))
        })
        .collect();
    let files =
        told.iter().take(MOST_TOLD).map(|(path, (change, _))| FileChange { path: shown(path), change: *change });
    Some(FileChanges { total: told.len(), files: files.collect() })
}

fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    zstd::bulk::decompress(packed.strip_prefix(MAGIC)?, MOST_BYTES).ok()
}

/// What is listed of each directory; it may be listed in several pieces.
fn directories(bytes: &[u8]) -> Option<HashMap<&[u8], Vec<&[u8]>>> {
    let mut directories: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let path = sized(&mut rest)?;
        let block = sized(&mut rest)?;
        directories.entry(path).or_default().push(block);
    }
    Some(directories)
}

fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[derive(PartialEq)]
struct Entry<'a> {
    kind: u8,
    /// Mode and owner.
    attributes: &'a [u8],
    digest: &'a [u8],
}

fn entries<'a>(blocks: &[&'a [u8]]) -> Option<BTreeMap<&'a [u8], Entry<'a>>> {
    let mut entries = BTreeMap::new();
    for block in blocks {
        let mut rest = *block;
        while !rest.is_empty() {
            let (fixed, after) = rest.split_at_checked(FIXED)?;
            let length = u16::from_le_bytes([fixed[17], fixed[18]]) as usize;
            let (name, after) = after.split_at_checked(length)?;
            entries.insert(name, Entry { kind: fixed[0], attributes: &fixed[1..9], digest: &fixed[9..17] });
            rest = after;
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::super::{SourceTree, listed_digest};
    use super::*;
    use solver::op::Selection;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn list(directory: &Path, paths: &[&str]) -> Vec<u8> {
        let root = fs::File::open(directory).unwrap();
        let tree = SourceTree { root: root.as_fd(), ignore: None, ignore_name: "", cancelled: None };
        let listings = paths.iter().map(|path| {
            let listing = Listing::default();
            let selection = Selection { wildcard: path.contains('*'), ..Selection::tree(path) };
            listed_digest(&tree, &selection, true, &listing).unwrap();
            listing
        });
        Listing::all(listings.collect()).pack().unwrap()
    }

    fn told(changes: &FileChanges) -> Vec<String> {
        changes.files.iter().map(|file| format!("{:?} {}", file.change, file.path)).collect()
    }

    #[test]
    fn what_became_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("d/deep")).unwrap();
        for name in ["a", "b", "c", "d/e", "d/deep/f"] {
            fs::write(path(name), name).unwrap();
        }
        symlink("a", path("link")).unwrap();
        let all = || list(directory.path(), &["/"]);
        let before = all();
        assert_eq!(changes(&before, &all()), Some(FileChanges::default()));
        fs::write(path("a"), "new").unwrap();
        fs::remove_file(path("b")).unwrap();
        fs::set_permissions(path("c"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(path("link")).unwrap();
        symlink("b", path("link")).unwrap();
        fs::remove_dir_all(path("d/deep")).unwrap();
        fs::create_dir_all(path("n/empty")).unwrap();
        fs::write(path("n/x\n"), "").unwrap();
        let found = changes(&before, &all()).unwrap();
        let expected = [
            "Changed /a",
            "Removed /b",
            "Mode /c",
            "Removed /d/deep/f",
            "Changed /link",
            "Added /n/empty",
            "Added /n/x\\n",
        ];
        assert_eq!(told(&found), expected);
        assert_eq!(found.total, expected.len());
        // Several selections, of files and of directories.
        let some = || list(directory.path(), &["/a", "/c*", "/d"]);
        let before = some();
        for name in ["a", "c", "d/e", "link"] {
            fs::write(path(name), "newer").unwrap();
        }
        assert_eq!(told(&changes(&before, &some()).unwrap()), ["Changed /a", "Changed /c", "Changed /d/e"]);
    }

    #[test]
    fn long_lists_are_cut_and_too_long_ones_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let before = list(directory.path(), &["/"]);
        (0..25).for_each(|index| fs::write(directory.path().join(index.to_string()), "").unwrap());
        let found = changes(&before, &list(directory.path(), &["/"])).unwrap();
        assert_eq!((found.total, found.files.len()), (25, MOST_TOLD));
        let record = || Record { name: vec![b'x'; 255], kind: b'f', mode: 0, owner: (0, 0), content: Content::None };
        let records: Vec<_> = (0..1000).map(|_| record()).collect();
        let listing = Listing::default();
        (0..100).for_each(|_| listing.directory(b"d", &records));
        assert!(listing.0.lock().unwrap().len() <= MOST_BYTES + 1);
        assert_eq!(listing.pack(), None);
    }

    #[test]
    fn damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let good = list(directory.path(), &["/"]);
        let packed = |bytes: &[u8]| [MAGIC.as_slice(), &zstd::bulk::compress(bytes, LEVEL).unwrap()].concat();
        let plain = unpack(&good).unwrap();
        let empty = packed(b"");
        for cut in 1..plain.len() {
            assert_eq!(changes(&empty, &packed(&plain[..cut])), None, "{cut}");
        }
        for bad in [&b""[..], b"other", &good[..20], &packed(&[0xff; 100])] {
            assert_eq!(changes(bad, &good), None);
        }
    }
}
