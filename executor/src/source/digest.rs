//! Content id of what a copy would take (D23.3, D23.4).
//!
//! It covers what the copy writes: names below each source root, types, modes, contents, link targets, device numbers and
//! extended attributes, and owners only where the copy keeps them. Never times, inodes, or a source directory's own attributes,
//! which its copy does not take over (X3.30). A directory's id is the hash of its sorted entries, so that directories are hashed on all cores.

use super::statcache::StatCache;
use crate::fileop::{
    self, Context, Entry, Error, Filter, Node, SourceTree, Stat, Visitor, join, open_file, shown, stat_at, stat_of,
    walk, xattrs,
};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use solver::op::Selection;
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Part of every id: a change of this format makes all of them new.
const FORMAT: &[u8] = b"rbuild content 1\n";
/// From this size on, one file is hashed on all cores.
const LARGE: u64 = 16 << 20;

/// The content id of `selections`, in their order. With `keep_owner` (stages, images) owners are part of it. Errors are those that a copy would
/// give: a named source that does not exist, a file that cannot be read.
pub fn selection_digest(
    tree: &SourceTree<'_>,
    selections: &[Selection],
    cache: &StatCache,
    keep_owner: bool,
) -> Result<[u8; 32], Error> {
    let mut all = blake3::Hasher::new();
    all.update(FORMAT);
    all.update(&[u8::from(keep_owner)]);
    let digester = Digester { cache, keep_owner, now: SystemTime::now() };
    for selection in selections {
        let selected = fileop::select(tree, selection)?;
        all.update(&(selected.roots.len() as u64).to_le_bytes());
        for root in &selected.roots {
            if root.stat.is_dir() {
                all.update(b"D");
                all.update(&digester.tree(&selected.filter, root)?);
                continue;
            }
            let (dir, name) = root.place()?;
            let record = digester.record(dir, name, root.stat.kind, &root.path)?;
            all.update(b"F");
            Record { name: root.name.clone(), ..record }.hash(&mut all);
        }
    }
    Ok(*all.finalize().as_bytes())
}

struct Digester<'a> {
    cache: &'a StatCache,
    keep_owner: bool,
    /// Before anything was read.
    now: SystemTime,
}

/// One entry of a directory.
struct Record {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    content: Content,
}

enum Content {
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

impl Digester<'_> {
    fn tree(&self, filter: &Filter<'_>, root: &fileop::SourceRoot) -> Result<[u8; 32], Error> {
        let visit = TreeDigest { digester: self, root: Mutex::new(None) };
        walk(&visit, filter, root.open_dir()?, &root.path, Mutex::default())?;
        let digest = visit.root.into_inner().unwrap_or_else(PoisonError::into_inner);
        digest.ok_or_else(|| Error::Changed { path: shown(&root.path) })
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        if self.keep_owner { (stat.uid, stat.gid) } else { (0, 0) }
    }

    /// Of an entry that is no directory.
    fn record(&self, dir: BorrowedFd<'_>, name: &[u8], listed: FileType, path: &[u8]) -> Result<Record, Error> {
        let stat = stat_at(dir, name).context("stat", path)?;
        if stat.kind != listed {
            return Err(Error::Changed { path: shown(path) });
        }
        let (kind, content) = match stat.kind {
            FileType::RegularFile => (b'f', Content::Digest(self.file(dir, name, &stat, path)?)),
            // Arrives as an empty file.
            FileType::Socket => (b'f', Content::Digest(*blake3::hash(b"").as_bytes())),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).context("readlink", path)?;
                (b'l', Content::Link(target.into_bytes()))
            }
            FileType::Fifo => (b'p', Content::None),
            FileType::CharacterDevice => (b'c', Content::Device(stat.rdev)),
            FileType::BlockDevice => (b'b', Content::Device(stat.rdev)),
            _ => return Err(Error::Changed { path: shown(path) }),
        };
        let mode = if stat.kind == FileType::Symlink { 0 } else { stat.mode };
        Ok(Record { name: name.to_vec(), kind, mode, owner: self.owner(&stat), content })
    }

    fn file(&self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat, path: &[u8]) -> Result<[u8; 32], Error> {
        if let Some(digest) = self.cache.get(stat) {
            return Ok(digest);
        }
        let file = open_file(dir, name, path)?;
        let before = stat_of(&file).context("stat", path)?;
        if before.kind != FileType::RegularFile {
            return Err(Error::Changed { path: shown(path) });
        }
        let digest = with_xattrs(file.as_fd(), content_digest(file.as_fd(), before.size, path)?);
        let after = stat_of(&file).context("stat", path)?;
        let version = |s: &Stat| (s.dev, s.ino, s.size, s.mtime, s.ctime);
        // The digest is of what was read in any case (X6.44); it is only not worth remembering.
        if version(&before) == version(&after) && version(stat) == version(&before) {
            self.cache.insert(stat, &digest, self.now);
        }
        Ok(digest)
    }
}

fn with_xattrs(file: BorrowedFd<'_>, content: [u8; 32]) -> [u8; 32] {
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

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; 128 * 1024]);
}

fn content_digest(file: BorrowedFd<'_>, size: u64, path: &[u8]) -> Result<[u8; 32], Error> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    let mut hash = |buffer: &mut [u8], parallel: bool| {
        loop {
            let got = match rustix::io::pread(file, &mut *buffer, at) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::io("read", path, errno)),
            };
            at += got as u64;
            match parallel {
                true => hasher.update_rayon(&buffer[..got]),
                false => hasher.update(&buffer[..got]),
            };
            // A file shorter than the buffer has been read to its end: saves a call for nearly every file.
            if at == size && got < buffer.len() {
                return Ok(());
            }
        }
    };
    if size < LARGE {
        SCRATCH.with_borrow_mut(|buffer| hash(buffer, false))?;
    } else {
        // Its own buffer: while it waits for others, this thread may hash another file.
        hash(&mut vec![0; 4 << 20], true)?;
    }
    Ok(*hasher.finalize().as_bytes())
}

struct TreeDigest<'a> {
    digester: &'a Digester<'a>,
    root: Mutex<Option<[u8; 32]>>,
}

impl Visitor for TreeDigest<'_> {
    type Dir = Mutex<Vec<Record>>;

    fn enter(&self, _: &Node<Self::Dir>, _: &[u8], _: bool) -> Result<Self::Dir, Error> {
        Ok(Mutex::default())
    }

    fn entries(&self, dir: &Node<Self::Dir>, entries: &[Entry]) -> Result<(), Error> {
        let mut records = Vec::with_capacity(entries.len());
        for Entry { name, kind } in entries {
            records.push(self.digester.record(dir.fd.as_fd(), name, *kind, &join(&dir.path, name))?);
        }
        dir.data.lock().unwrap_or_else(PoisonError::into_inner).append(&mut records);
        Ok(())
    }

    fn leave(&self, dir: &mut Node<Self::Dir>) -> Result<(), Error> {
        let records = dir.data.get_mut().unwrap_or_else(PoisonError::into_inner);
        if dir.lazy && records.is_empty() {
            return Ok(());
        }
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(records.len() as u64).to_le_bytes());
        records.iter().for_each(|record| record.hash(&mut hasher));
        let digest = *hasher.finalize().as_bytes();
        let Some(parent) = &dir.parent else {
            *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
            return Ok(());
        };
        let record = Record {
            name: std::mem::take(&mut dir.name),
            kind: b'd',
            mode: dir.stat.mode,
            owner: self.digester.owner(&dir.stat),
            content: Content::Digest(with_xattrs(dir.fd.as_fd(), digest)),
        };
        parent.data.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        Ok(())
    }
}
