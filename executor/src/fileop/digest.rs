//! Content id of what a copy would take (D23.3, D23.4).
//!
//! It covers what the copy writes: names below each source root, types, modes, contents, link targets, device numbers and
//! extended attributes, and owners only where the copy keeps them. Never times, inodes, or a source directory's own attributes,
//! which its copy does not take over (X3.30). A directory's id is the hash of its sorted entries, so that directories are hashed on all cores.

use super::listing::Listing;
use super::path::{join, shown};
use super::recent::{self, Recent};
use super::select::{Filter, SourceRoot, select};
use super::stat::{self, Stat};
use super::statcache::StatCache;
use super::tree::open_file;
use super::walk::{Entry, Node, Visitor, walk};
use super::{Context, Error, SourceTree, xattrs};
use oci::layer::content_digest;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use solver::op::Selection;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Part of every id: a change of this format makes all of them new.
const FORMAT: &[u8] = b"rbuild content 1\n";
/// How often a file is read again that changed while it was read.
pub(crate) const ATTEMPTS: u32 = 3;

/// The content id of a selection. With `keep_owner` (stages, images) owners are part of it. Errors are those that a copy would give: a named
/// source that does not exist, a file that cannot be read. Small files that had to be read stay in `recent`.
pub fn selection_digest(
    tree: &SourceTree<'_>,
    selection: &Selection,
    cache: &StatCache,
    recent: Option<&Recent>,
    keep_owner: bool,
) -> Result<[u8; 32], Error> {
    Digester { recent, ..Digester::new(cache, keep_owner, None) }.selection(tree, selection)
}

/// As [`selection_digest`], for a tree that is read once: what is found is listed.
pub fn listed_digest(
    tree: &SourceTree<'_>,
    selection: &Selection,
    keep_owner: bool,
    listing: &Listing,
) -> Result<[u8; 32], Error> {
    Digester::new(&StatCache::new(), keep_owner, Some(listing)).selection(tree, selection)
}

impl Digester<'_> {
    fn selection(&self, tree: &SourceTree<'_>, selection: &Selection) -> Result<[u8; 32], Error> {
        let selected = select(tree, selection)?;
        let mut all = SelectionHasher::new(self.keep_owner, selected.roots.len(), self.listing);
        for root in &selected.roots {
            match root.stat.is_dir() {
                true => all.tree(&self.tree(&selected.filter, root)?),
                false => all.file(root, self.root_record(root)?),
            }
        }
        Ok(all.finish())
    }
}

/// Hashes what becomes of a selection's roots, in their order.
pub(crate) struct SelectionHasher<'a> {
    hasher: blake3::Hasher,
    listing: Option<&'a Listing>,
}

impl<'a> SelectionHasher<'a> {
    pub fn new(keep_owner: bool, roots: usize, listing: Option<&'a Listing>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(FORMAT).update(&[u8::from(keep_owner)]).update(&(roots as u64).to_le_bytes());
        SelectionHasher { hasher, listing }
    }

    pub fn tree(&mut self, digest: &[u8; 32]) {
        self.hasher.update(b"D").update(digest);
    }

    pub fn file(&mut self, root: &SourceRoot, record: Record) {
        if let Some(listing) = self.listing {
            listing.root(root, &record);
        }
        self.hasher.update(b"F");
        Record { name: root.name.clone(), ..record }.hash(&mut self.hasher);
    }

    pub fn finish(self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// Knows the digests of files, or finds them out.
pub(crate) struct Digester<'a> {
    cache: &'a StatCache,
    recent: Option<&'a Recent>,
    keep_owner: bool,
    /// Takes what is found.
    listing: Option<&'a Listing>,
    /// Before anything was read.
    now: SystemTime,
}

/// One entry of a directory.
pub(crate) struct Record {
    pub name: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub owner: (u32, u32),
    pub content: Content,
}

pub(crate) enum Content {
    /// Of a file's content and attributes, or of a directory's records.
    Digest([u8; 32]),
    Link(Vec<u8>),
    Device(u64),
    None,
}

impl Record {
    /// Every part has a fixed length or its length before it, so that no two lists of records hash alike.
    fn hash(&self, hasher: &mut blake3::Hasher) {
        let mut fixed = [0; 21];
        fixed[0] = self.kind;
        fixed[1..5].copy_from_slice(&self.mode.to_le_bytes());
        fixed[5..9].copy_from_slice(&self.owner.0.to_le_bytes());
        fixed[9..13].copy_from_slice(&self.owner.1.to_le_bytes());
        fixed[13..].copy_from_slice(&(self.name.len() as u64).to_le_bytes());
        hasher.update(&fixed).update(&self.name);
        match &self.content {
            Content::Digest(digest) => hasher.update(digest),
            Content::Link(target) => hasher.update(&(target.len() as u64).to_le_bytes()).update(target),
            Content::Device(rdev) => hasher.update(&rdev.to_le_bytes()),
            Content::None => hasher,
        };
    }
}

/// The records of a directory's entries, collected on any thread.
pub(crate) type Records = Mutex<Vec<Record>>;

pub(crate) fn push(records: &Records, record: Record) {
    records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
}

impl<'a> Digester<'a> {
    pub fn new(cache: &'a StatCache, keep_owner: bool, listing: Option<&'a Listing>) -> Digester<'a> {
        Digester { cache, recent: None, keep_owner, listing, now: SystemTime::now() }
    }

    /// The digest of the directory at `path` from what lies in it.
    pub fn directory_digest(&self, path: &[u8], records: &mut [Record]) -> [u8; 32] {
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(listing) = self.listing {
            listing.directory(path, records);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(records.len() as u64).to_le_bytes());
        records.iter().for_each(|record| record.hash(&mut hasher));
        *hasher.finalize().as_bytes()
    }

    fn tree(&self, filter: &Filter<'_>, root: &SourceRoot) -> Result<[u8; 32], Error> {
        let visit = TreeDigest { digester: self, root: Mutex::new(None) };
        walk(&visit, filter, root.open_dir()?, &root.path, Mutex::default())?;
        let digest = visit.root.into_inner().unwrap_or_else(PoisonError::into_inner);
        digest.ok_or_else(|| Error::Changed { path: shown(&root.path) })
    }

    /// What is remembered of a file that has not changed.
    pub fn known(&self, stat: &Stat) -> Option<[u8; 32]> {
        self.cache.get(stat)
    }

    /// Remembers the digest of a file that had `stat` before and after it was read.
    pub fn learn(&self, stat: &Stat, digest: &[u8; 32]) {
        self.cache.insert(stat, digest, self.now);
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        if self.keep_owner { (stat.uid, stat.gid) } else { (0, 0) }
    }

    /// Of a root that is no directory.
    pub fn root_record(&self, root: &SourceRoot) -> Result<Record, Error> {
        let (dir, name) = root.place()?;
        self.record(dir, name, root.stat.kind, &root.path)
    }

    /// Of an entry that is no directory.
    fn record(&self, dir: BorrowedFd<'_>, name: &[u8], listed: FileType, path: &[u8]) -> Result<Record, Error> {
        let stat = stat::at(dir, name).context("stat", path)?;
        if stat.kind != listed {
            return Err(Error::Changed { path: shown(path) });
        }
        let content = match stat.kind {
            FileType::RegularFile => Content::Digest(self.file(dir, name, &stat, path)?),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).context("readlink", path)?;
                Content::Link(target.into_bytes())
            }
            _ => Content::None,
        };
        self.record_of(name, &stat, content, path)
    }

    /// `content` is that of a file or a link; what else has content tells it by its `stat`.
    pub fn record_of(&self, name: &[u8], stat: &Stat, content: Content, path: &[u8]) -> Result<Record, Error> {
        let (kind, content) = match stat.kind {
            FileType::RegularFile => (b'f', content),
            // Arrives as an empty file.
            FileType::Socket => (b'f', Content::Digest(*blake3::hash(b"").as_bytes())),
            FileType::Symlink => (b'l', content),
            FileType::Fifo => (b'p', Content::None),
            FileType::CharacterDevice => (b'c', Content::Device(stat.rdev)),
            FileType::BlockDevice => (b'b', Content::Device(stat.rdev)),
            _ => return Err(Error::Changed { path: shown(path) }),
        };
        let mode = if stat.kind == FileType::Symlink { 0 } else { stat.mode };
        Ok(Record { name: name.to_vec(), kind, mode, owner: self.owner(stat), content })
    }

    /// Of a directory below a root, from the digest of what lies in it.
    pub fn directory_record<D>(&self, dir: &mut Node<D>, digest: [u8; 32]) -> Record {
        Record {
            name: std::mem::take(&mut dir.name),
            kind: b'd',
            mode: dir.stat.mode,
            owner: self.owner(&dir.stat),
            content: Content::Digest(with_xattrs(dir.fd.as_fd(), digest)),
        }
    }

    /// A file that changes while it is read is read again, and given up if it goes on changing.
    fn file(&self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat, path: &[u8]) -> Result<[u8; 32], Error> {
        if let Some(digest) = self.known(stat) {
            return Ok(digest);
        }
        for _ in 0..ATTEMPTS {
            let file = open_file(dir, name, path)?;
            let before = stat::of(&file).context("stat", path)?;
            if before.kind != FileType::RegularFile {
                return Err(Error::Changed { path: shown(path) });
            }
            let (content, plain) = match self.recent.filter(|_| before.size <= recent::MAX_FILE) {
                Some(_) => {
                    let content = read_all(&file, before.size, path)?;
                    let digest = *blake3::hash(&content).as_bytes();
                    (Some(content), digest)
                }
                None => (None, content_digest(&file, before.size).context("read", path)?.0),
            };
            let digest = with_xattrs(file.as_fd(), plain);
            if stat::of(&file).context("stat", path)?.version() == before.version() {
                self.learn(&before, &digest);
                if let (Some(recent), Some(content)) = (self.recent, content) {
                    recent.put(&before, content, plain);
                }
                return Ok(digest);
            }
        }
        Err(Error::KeepsChanging { path: shown(path) })
    }
}

/// A small file; more than `size` bytes are not of interest, since it has changed then.
fn read_all(file: &OwnedFd, size: u64, path: &[u8]) -> Result<Vec<u8>, Error> {
    // At most a few hundred thousand.
    let mut content = vec![0; size as usize];
    let mut length = 0;
    while length < content.len() {
        match rustix::io::pread(file, &mut content[length..], length as u64) {
            Ok(0) => break,
            Ok(got) => length += got,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("read", path, errno)),
        }
    }
    content.truncate(length);
    Ok(content)
}

/// The digest of a file, with its extended attributes if it has any.
pub(crate) fn with_xattrs(file: BorrowedFd<'_>, content: [u8; 32]) -> [u8; 32] {
    let attributes = xattrs(file);
    if attributes.is_empty() {
        return content;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"xattrs").update(&content);
    for (name, value) in attributes {
        hasher.update(name.as_bytes_with_nul()).update(&(value.len() as u64).to_le_bytes()).update(&value);
    }
    *hasher.finalize().as_bytes()
}

struct TreeDigest<'a> {
    digester: &'a Digester<'a>,
    root: Mutex<Option<[u8; 32]>>,
}

impl Visitor for TreeDigest<'_> {
    type Dir = Records;

    fn enter(&self, _: &Node<Records>, _: &[u8], _: bool) -> Result<Records, Error> {
        Ok(Mutex::default())
    }

    fn entries(&self, dir: &Node<Records>, entries: &[Entry]) -> Result<(), Error> {
        let mut records = Vec::with_capacity(entries.len());
        for Entry { name, kind } in entries {
            records.push(self.digester.record(dir.fd.as_fd(), name, *kind, &join(&dir.path, name))?);
        }
        dir.data.lock().unwrap_or_else(PoisonError::into_inner).append(&mut records);
        Ok(())
    }

    fn leave(&self, dir: &mut Node<Records>) -> Result<(), Error> {
        let records = dir.data.get_mut().unwrap_or_else(PoisonError::into_inner);
        if dir.lazy && records.is_empty() {
            return Ok(());
        }
        let digest = self.digester.directory_digest(&dir.path, records);
        let record = self.digester.directory_record(dir, digest);
        match &dir.parent {
            Some(parent) => push(&parent.data, record),
            None => *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use tempfile::TempDir;

    /// One of each kind.
    fn tree() -> TempDir {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        fs::create_dir_all(dir.join("d/s")).unwrap();
        fs::create_dir(dir.join("d/empty")).unwrap();
        for (name, text) in [("a.c", "a"), ("b.c", "b"), ("d/f", "f"), ("d/s/g", "g"), ("d/log", "l")] {
            fs::write(dir.join(name), text).unwrap();
        }
        symlink("f", dir.join("d/l")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("d/pipe"), FileType::Fifo, 0o644.into(), 0).unwrap();
        tmp
    }

    fn select(path: &str) -> Selection {
        Selection { path: path.into(), wildcard: path.contains('*'), exclude: Vec::new(), parents: None }
    }

    fn digest_with(dir: &Path, selection: &Selection, ignore: &[&str], cache: &StatCache) -> Result<[u8; 32], Error> {
        let root = fs::File::open(dir).unwrap();
        let ignore = super::super::PatternMatcher::new(ignore).unwrap();
        let tree =
            SourceTree { root: root.as_fd(), ignore: Some(&ignore), ignore_name: ".dockerignore", cancelled: None };
        selection_digest(&tree, selection, cache, None, false)
    }

    fn digest(dir: &Path, path: &str) -> [u8; 32] {
        digest_with(dir, &select(path), &[], &StatCache::new()).unwrap()
    }

    /// D23.3, D23.4: what counts and what does not, by selection.
    #[test]
    fn what_counts() {
        type Change = fn(&Path);
        let changes: &[(&str, Change, &[&str])] = &[
            ("content", |d| fs::write(d.join("d/f"), "F").unwrap(), &["/", "/d", "/d/f", "/d/l"]),
            (
                "mode",
                |d| fs::set_permissions(d.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap(),
                &["/", "/d", "/d/f", "/d/l"],
            ),
            ("name", |d| fs::rename(d.join("d/f"), d.join("d/ff")).unwrap(), &["/", "/d"]),
            ("new file", |d| fs::write(d.join("d/s/new"), "").unwrap(), &["/", "/d", "/d/s"]),
            ("new match", |d| fs::write(d.join("z.c"), "").unwrap(), &["/", "/*.c"]),
            ("new elsewhere", |d| fs::write(d.join("z.h"), "").unwrap(), &["/"]),
            (
                "directory mode",
                |d| fs::set_permissions(d.join("d/s"), fs::Permissions::from_mode(0o700)).unwrap(),
                &["/", "/d"],
            ),
            (
                "link target",
                |d| {
                    fs::remove_file(d.join("d/l")).unwrap();
                    symlink("s/g", d.join("d/l")).unwrap()
                },
                &["/", "/d", "/d/l"],
            ),
            (
                "type",
                |d| {
                    fs::remove_file(d.join("d/pipe")).unwrap();
                    fs::write(d.join("d/pipe"), "").unwrap()
                },
                &["/", "/d"],
            ),
            ("empty directory", |d| fs::remove_dir(d.join("d/empty")).unwrap(), &["/", "/d"]),
            (
                "rewritten",
                |d| {
                    let p = d.join("d/f");
                    fs::remove_file(&p).unwrap();
                    fs::write(p, "f").unwrap()
                },
                &[],
            ),
            (
                "mtime",
                |d| {
                    let file = fs::File::options().write(true).open(d.join("d/f")).unwrap();
                    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
                },
                &[],
            ),
        ];
        for (what, change, counts) in changes {
            for path in ["/", "/d", "/d/f", "/d/l", "/d/s", "/*.c", "/a.c"] {
                if *what == "name" && matches!(path, "/d/f" | "/d/l") {
                    continue;
                }
                let tmp = tree();
                let before = digest(tmp.path(), path);
                change(tmp.path());
                let changed = digest(tmp.path(), path) != before;
                assert_eq!(changed, counts.contains(&path), "{what} for {path}");
            }
        }
        // Another copy of the same tree has the same id.
        assert_eq!(digest(tree().path(), "/"), digest(tree().path(), "/"));
        assert_ne!(digest(tree().path(), "/a.c"), digest(tree().path(), "/b.c"));
    }

    #[test]
    fn ignored_and_excluded_files_do_not_count() {
        let tmp = tree();
        let cache = StatCache::new();
        let exclude = Selection { exclude: vec!["**/log".into()], ..select("/") };
        let parents = Selection { parents: Some("/".into()), ..select("/d/s") };
        let cases = [(select("/"), &["**/log"][..]), (exclude, &[]), (parents, &[]), (select("/"), &["d/*", "!d/s"])];
        let ids =
            || cases.clone().map(|(selection, ignore)| digest_with(tmp.path(), &selection, ignore, &cache).unwrap());
        let before = ids();
        fs::write(tmp.path().join("d/log"), "more").unwrap();
        assert_eq!(ids(), before);
        fs::write(tmp.path().join("d/s/g"), "more").unwrap();
        assert!(ids().iter().zip(before).all(|(a, b)| *a != b));
        // The same errors as a copy.
        let error = digest_with(tmp.path(), &select("/gone"), &[], &cache).unwrap_err().to_string();
        assert_eq!(error, "\"/gone\": not found");
        let error = digest_with(tmp.path(), &select("/d/f"), &["d"], &cache).unwrap_err().to_string();
        assert_eq!(error, "\"/d/f\": not found (excluded by .dockerignore: pattern \"d\")");
        digest_with(tmp.path(), &select("/gone*"), &[], &cache).unwrap();
    }

    /// Owners count for stages and images only; changing them needs root.
    #[test]
    fn owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tmp = tree();
        let id = |keep| {
            let root = fs::File::open(tmp.path()).unwrap();
            let tree = SourceTree { root: root.as_fd(), ignore: None, ignore_name: "", cancelled: None };
            selection_digest(&tree, &select("/"), &StatCache::new(), None, keep).unwrap()
        };
        let before = (id(false), id(true));
        std::os::unix::fs::chown(tmp.path().join("d/f"), Some(7), None).unwrap();
        assert_eq!(id(false), before.0);
        assert_ne!(id(true), before.1);
    }

    /// A remembered file is not read; a changed one is.
    #[test]
    fn remembers() {
        let tmp = tree();
        let stat = stat::of(fs::File::open(tmp.path().join("d/f")).unwrap()).unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        let cache = StatCache::new();
        let honest = digest_with(tmp.path(), &select("/d/f"), &[], &cache).unwrap();
        assert_eq!(cache.get(&stat), None, "too young to be remembered");
        cache.insert(&stat, &[1; 32], later);
        let remembered = digest_with(tmp.path(), &select("/d/f"), &[], &cache).unwrap();
        assert_ne!(remembered, honest);
        let file = fs::File::options().write(true).open(tmp.path().join("d/f")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(digest_with(tmp.path(), &select("/d/f"), &[], &cache).unwrap(), honest);
    }
}
