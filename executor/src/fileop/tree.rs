//! Puts a copy of one source root together in an empty directory, its directories and files on all cores. `place` then moves it to where it belongs.
//!
//! Where the copy keeps an [`Account`], it computes the digest of exactly what it wrote, whatever happens to the source meanwhile; and a file
//! that is as it was when an earlier build copied it is linked from that copy, without being opened.

use super::CopySummary;
use super::book::{Block, BookWriter, Previous, PreviousDir};
use super::data::{DataCopier, Source, Target};
use super::digest::{self, ATTEMPTS, Content, Digester, Record, Records};
use super::error::{Context, Error};
use super::listing::Listing;
use super::make::write_all;
use super::metadata::Attributes;
use super::path::{join, parent_and_name, shown};
use super::recent::Recent;
use super::resolve::{open_dir, open_dirs};
use super::select::{Filter, SourceRoot};
use super::stat::{self, Stat};
use super::statcache::StatCache;
use super::walk::{Entry, Node, Visitor, walk};
use oci::layer::{LARGE, content_digest};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A directory, a name in it, and the whole path for messages and for links.
pub(crate) type Place<'a> = (BorrowedFd<'a>, &'a [u8], &'a [u8]);

/// What is known of a source that may change while it is read, and where what is learned goes.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    pub digests: &'a StatCache,
    /// Small files that were read a moment ago.
    pub recent: Option<&'a Recent>,
    /// Owners count, as in [`selection_digest`](super::selection_digest).
    pub keep_owner: bool,
    /// An earlier copy of the same.
    pub previous: Option<&'a Previous>,
    /// Takes the digests of the copied files.
    pub book: Option<&'a BookWriter>,
    /// Takes what was copied.
    pub listing: Option<&'a Listing>,
}

pub(crate) struct TreeCopy<'a> {
    /// What paths of copies are relative to.
    root: BorrowedFd<'a>,
    attributes: Attributes<'a>,
    account: Option<Account<'a>>,
    digester: Option<Digester<'a>>,
    /// Where a file with several names was first copied to, by device and inode (X3.35).
    links: Mutex<HashMap<(u64, u64), Arc<FirstCopy>>>,
    data: DataCopier,
    files: AtomicU64,
    bytes: AtomicU64,
    digest: Mutex<Option<[u8; 32]>>,
}

/// Locked while it is being copied; then the path and the digest of the copy.
type FirstCopy = Mutex<Option<(Vec<u8>, Option<[u8; 32]>)>>;

/// The copy of a directory.
pub(crate) struct TargetDir {
    path: Vec<u8>,
    /// Not there yet for a directory that counts only if something below it does (X3.45).
    fd: OnceLock<OwnedFd>,
    making: Mutex<()>,
    records: Records,
    block: Mutex<Block>,
    previous: OnceLock<Option<PreviousDir>>,
}

impl TargetDir {
    fn new(path: Vec<u8>, fd: OnceLock<OwnedFd>) -> TargetDir {
        let (making, records, block) = (Mutex::default(), Mutex::default(), Mutex::default());
        TargetDir { path, fd, making, records, block, previous: OnceLock::new() }
    }
}

/// What a file's copy turned out to hold.
struct Copied {
    stat: Stat,
    /// With extended attributes; `None` without an account.
    digest: Option<[u8; 32]>,
    /// The content's alone, if there are no extended attributes.
    plain: Option<[u8; 32]>,
}

impl<'a> TreeCopy<'a> {
    pub fn new(root: BorrowedFd<'a>, attributes: Attributes<'a>, account: Option<Account<'a>>) -> TreeCopy<'a> {
        TreeCopy {
            root,
            attributes,
            account,
            digester: account.map(|account| Digester::new(account.digests, account.keep_owner, account.listing)),
            links: Mutex::default(),
            data: DataCopier::default(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            digest: Mutex::default(),
        }
    }

    pub fn summary(&self) -> CopySummary {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        CopySummary { files, bytes, ..CopySummary::default() }
    }

    /// Copies what a directory holds into an empty one that is the copy's root (X3.13). Gives its digest, with an account.
    pub fn directory(&self, root: &SourceRoot, filter: &Filter<'_>, dir: OwnedFd) -> Result<Option<[u8; 32]>, Error> {
        walk(self, filter, root.open_dir()?, &root.path, TargetDir::new(Vec::new(), OnceLock::from(dir)))?;
        Ok(*self.digest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies one entry that is no directory into one that is the copy's root, as far as the account is concerned.
    pub fn entry(&self, from: Place<'_>, kind: FileType, to: Place<'_>) -> Result<Option<Record>, Error> {
        let dir = TargetDir::new(Vec::new(), OnceLock::new());
        let record = self.entry_in(from, kind, to, &dir)?;
        if let Some(book) = self.account.and_then(|account| account.book) {
            book.add(b"", dir.block.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(record)
    }

    fn entry_in(
        &self,
        from: Place<'_>,
        kind: FileType,
        to: Place<'_>,
        dir: &TargetDir,
    ) -> Result<Option<Record>, Error> {
        let (stat, content) = match kind {
            FileType::RegularFile => {
                let copied = self.file(from, to, dir)?;
                if let (Some(plain), Some(_)) = (copied.plain, self.account.and_then(|account| account.book)) {
                    dir.block.lock().unwrap_or_else(PoisonError::into_inner).push(to.1, plain);
                }
                (copied.stat, copied.digest.map_or(Content::None, Content::Digest))
            }
            FileType::Symlink => {
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                let target = rustix::fs::readlinkat(from.0, from.1, Vec::new()).context("readlink", from.2)?;
                replacing(to, || rustix::fs::symlinkat(&target, to.0, to.1), "symlink")?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
                (stat, Content::Link(target.into_bytes()))
            }
            FileType::Socket => {
                // What it was bound to is gone: an empty file with the same permissions (X3.39).
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                create(to, stat.mode)?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
                (stat, Content::None)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                // Never opened (X6.40, X6.42).
                let stat = stat::at(from.0, from.1).context("stat", from.2)?;
                if stat.kind == FileType::CharacterDevice && stat.rdev == 0 {
                    // In a layer this is the mark of a deleted file.
                    return Err(Error::io("mknod", to.2, Errno::PERM));
                }
                let mode = Mode::from(stat.mode & 0o777);
                replacing(to, || rustix::fs::mknodat(to.0, to.1, stat.kind, mode, stat.rdev), "mknod")?;
                self.attributes.apply_at(to.0, to.1, &stat, to.2)?;
                (stat, Content::None)
            }
            _ => return Err(Error::Changed { path: shown(from.2) }),
        };
        if stat.kind != kind {
            return Err(Error::Changed { path: shown(from.2) });
        }
        self.files.fetch_add(1, Ordering::Relaxed);
        let digester = self.digester.as_ref();
        digester.map(|digester| digester.record_of(from.1, &stat, content, from.2)).transpose()
    }

    fn file(&self, from: Place<'_>, to: Place<'_>, dir: &TargetDir) -> Result<Copied, Error> {
        if let Some(linked) = self.link_unchanged(from, to, dir) {
            return Ok(linked);
        }
        let source = open_file(from.0, from.1, from.2)?;
        let stat = stat::of(&source).context("stat", from.2)?;
        if stat.kind != FileType::RegularFile {
            return Err(Error::Changed { path: shown(from.2) });
        }
        if stat.nlink < 2 {
            return self.file_data(&source, stat, from.2, to);
        }
        let first = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(links.entry((stat.dev, stat.ino)).or_default())
        };
        // Held while the first one is written, so that the others find all of it.
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        match first.as_ref() {
            Some((path, digest)) => {
                let (parent, name) = parent_and_name(path);
                let parent = open_dirs(self.root, parent)?;
                replacing(to, || rustix::fs::linkat(&parent, name, to.0, to.1, AtFlags::empty()), "link")?;
                Ok(Copied { stat, digest: *digest, plain: None })
            }
            None => {
                let copied = self.file_data(&source, stat, from.2, to)?;
                *first = Some((to.2.to_vec(), copied.digest));
                // Not to be linked from by a later copy, in which its names may be files of their own.
                Ok(Copied { plain: None, ..copied })
            }
        }
    }

    /// Links the earlier copy of a file, if that is what a copy would be: the same content, known by its `stat`, with the same attributes.
    fn link_unchanged(&self, from: Place<'_>, to: Place<'_>, dir: &TargetDir) -> Option<Copied> {
        let previous = self.account?.previous?;
        let previous = dir.previous.get_or_init(|| previous.directory(&dir.path)).as_ref()?;
        let wanted = previous.block.get(to.1)?;
        let stat = stat::at(from.0, from.1).ok()?;
        if stat.kind != FileType::RegularFile || stat.nlink > 1 {
            return None;
        }
        let digest = self.digester.as_ref()?.known(&stat).filter(|digest| digest == wanted)?;
        let old = stat::at(&previous.fd, to.1).ok()?;
        let is_same = old.kind == FileType::RegularFile
            && (old.size, old.mtime) == (stat.size, stat.mtime)
            && old.mode == self.attributes.mode_of(&stat).ok()?
            && (old.uid, old.gid) == self.attributes.owner_of(&stat);
        if !is_same {
            return None;
        }
        // Whatever speaks against it, there is the copy.
        rustix::fs::linkat(&previous.fd, to.1, to.0, to.1, AtFlags::empty()).ok()?;
        self.bytes.fetch_add(stat.size, Ordering::Relaxed);
        Some(Copied { stat, digest: Some(digest), plain: Some(digest) })
    }

    /// Copies data and attributes. With an account, a file that changes meanwhile is copied again, and given up if it goes on changing.
    fn file_data(&self, source: &OwnedFd, mut stat: Stat, path: &[u8], to: Place<'_>) -> Result<Copied, Error> {
        for _ in 0..ATTEMPTS {
            let target = create(to, self.attributes.mode_of(&stat)?)?;
            let from = Source { fd: source.as_fd(), path, dev: stat.dev, size: stat.size, blocks: stat.blocks };
            let into = Target { fd: target.as_fd(), path: to.2 };
            let Some(digester) = &self.digester else {
                let copied = self.data.copy(&from, &into)?;
                self.bytes.fetch_add(copied, Ordering::Relaxed);
                if copied != stat.size {
                    tracing::warn!(path = shown(path), "shrank while it was being copied");
                }
                self.attributes.apply(source.as_fd(), &stat, target.as_fd(), to.2)?;
                return Ok(Copied { stat, digest: None, plain: None });
            };
            let read = self.account.and_then(|account| account.recent?.take(&stat));
            let known = if read.is_some() { None } else { digester.known(&stat) };
            let content = match (read, known) {
                (Some((content, digest)), _) => {
                    write_all(&target, &content, to.2)?;
                    digest
                }
                (None, Some(digest)) => {
                    self.data.copy(&from, &into)?;
                    digest
                }
                (None, None) if stat.size < LARGE => self.data.copy_hashing(&from, &into)?,
                (None, None) => {
                    self.data.copy(&from, &into)?;
                    // Of the copy: that is what must be known.
                    content_digest(&target, stat.size).context("read", to.2)?.0
                }
            };
            let has_xattrs = self.attributes.apply(source.as_fd(), &stat, target.as_fd(), to.2)?;
            let digest = match known {
                None if has_xattrs => digest::with_xattrs(source.as_fd(), content),
                _ => content,
            };
            let after = stat::of(source).context("stat", path)?;
            if after.version() == stat.version() {
                digester.learn(&stat, &digest);
                self.bytes.fetch_add(stat.size, Ordering::Relaxed);
                return Ok(Copied { stat, digest: Some(digest), plain: (!has_xattrs).then_some(digest) });
            }
            stat = after;
        }
        Err(Error::KeepsChanging { path: shown(path) })
    }

    /// The copy of `node`, made now if it was not, with the parents that were put off.
    fn target<'n>(&self, node: &'n Node<TargetDir>) -> Result<BorrowedFd<'n>, Error> {
        if let Some(fd) = node.data.fd.get() {
            return Ok(fd.as_fd());
        }
        let mut missing = vec![node];
        let mut above = node.parent.as_deref();
        let mut fd = loop {
            match above {
                Some(dir) => match dir.data.fd.get() {
                    Some(fd) => break fd,
                    None => missing.push(dir),
                },
                // The root has one.
                None => return Err(Error::Changed { path: shown(&node.path) }),
            }
            above = above.and_then(|dir| dir.parent.as_deref());
        };
        for dir in missing.into_iter().rev() {
            let _making = dir.data.making.lock().unwrap_or_else(PoisonError::into_inner);
            if dir.data.fd.get().is_none() {
                let _ = dir.data.fd.set(make_dir(fd.as_fd(), &dir.name, &dir.data.path)?);
            }
            fd = dir.data.fd.get().unwrap_or(fd);
        }
        Ok(fd.as_fd())
    }
}

impl Visitor for TreeCopy<'_> {
    type Dir = TargetDir;

    fn enter(&self, parent: &Node<TargetDir>, name: &[u8], lazy: bool) -> Result<TargetDir, Error> {
        let path = join(&parent.data.path, name);
        let fd = OnceLock::new();
        if !lazy {
            let _ = fd.set(make_dir(self.target(parent)?, name, &path)?);
        }
        Ok(TargetDir::new(path, fd))
    }

    fn entries(&self, dir: &Node<TargetDir>, entries: &[Entry]) -> Result<(), Error> {
        let target = self.target(dir)?;
        let mut records = Vec::with_capacity(entries.len());
        for Entry { name, kind } in entries {
            let (from, to) = (join(&dir.path, name), join(&dir.data.path, name));
            let place = (dir.fd.as_fd(), name.as_slice(), from.as_slice());
            records.extend(self.entry_in(place, *kind, (target, name, &to), &dir.data)?);
        }
        dir.data.records.lock().unwrap_or_else(PoisonError::into_inner).append(&mut records);
        Ok(())
    }

    /// Attributes of directories come last: writing below would change their times, and a mode may forbid to write.
    fn leave(&self, dir: &mut Node<TargetDir>) -> Result<(), Error> {
        let Some(target) = dir.data.fd.get() else { return Ok(()) };
        if dir.parent.is_some() {
            self.attributes.apply(dir.fd.as_fd(), &dir.stat, target.as_fd(), &dir.data.path)?;
        }
        if let Some(book) = self.account.and_then(|account| account.book) {
            let block = std::mem::take(dir.data.block.get_mut().unwrap_or_else(PoisonError::into_inner));
            book.add(&dir.data.path, block);
        }
        if let Some(digester) = &self.digester {
            let records = dir.data.records.get_mut().unwrap_or_else(PoisonError::into_inner);
            let digest = digester.directory_digest(&dir.path, records);
            let record = digester.directory_record(dir, digest);
            match &dir.parent {
                Some(parent) => digest::push(&parent.data.records, record),
                None => *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest),
            }
        }
        Ok(())
    }
}

/// A directory in a copied tree: made, or there already (two filters may lead to it), but no link to one (X3.23).
fn make_dir(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    match rustix::fs::mkdirat(parent, name, Mode::from(0o700)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(parent, name, path),
        Err(errno) => Err(Error::io("mkdir", path, errno)),
    }
}

/// A new, empty file.
pub(crate) fn create(to: Place<'_>, mode: u32) -> Result<OwnedFd, Error> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(to, || rustix::fs::openat(to.0, to.1, flags, Mode::from(mode & 0o777)), "open")
}

/// Makes an entry; one that is in the way is removed first, so that other names of it keep the old data (X3.22).
pub(crate) fn replacing<T>(
    to: Place<'_>,
    make: impl Fn() -> rustix::io::Result<T>,
    action: &'static str,
) -> Result<T, Error> {
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.context(action, to.2),
    }
    if stat::at(to.0, to.1).context("stat", to.2)?.is_dir() {
        return Err(Error::ReplaceDirectory { path: shown(to.2) });
    }
    rustix::fs::unlinkat(to.0, to.1, AtFlags::empty()).context("remove", to.2)?;
    make().context(action, to.2)
}

/// Opens a regular file for reading, without waiting for a fifo's other end if it has become one. Leaves its atime alone where
/// that is allowed: a build that only reads should not write an inode for each file.
pub(crate) fn open_file(dir: impl AsFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    let dir = dir.as_fd();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()).context("open", path),
        opened => opened.context("open", path),
    }
}
