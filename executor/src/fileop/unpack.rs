//! ADD of an archive (X3.I): entries are written below the destination directory and nowhere else.
//!
//! The destination directory is the root for all names, as if the extraction ran in a chroot of it (X3.74): links in it are followed within it.

use super::archive::{Archive, ArchiveEntry, MAX_NAME, decompress};
use super::error::{Context, Error, describe};
use super::make::write_all;
use super::metadata::set_xattr;
use super::path::{clean, escape, join, names, parent_and_name, shown};
use super::remove::remove;
use super::resolve::{NewDir, make_dirs, open_dir, open_dirs, resolve};
use super::select::SourceRoot;
use super::stat::{self, Time};
use super::tree::open_file;
use super::{CopySummary, Owner};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::rc::Rc;

/// Unpacks an archive into directory `to` of `destination`, which is made if it is missing (X3.70). An empty one is fine, anything else is an
/// error. `name` is for messages.
pub fn unpack(
    input: impl Read + Send,
    name: &str,
    destination: BorrowedFd<'_>,
    to: &str,
    owner: Owner,
) -> Result<CopySummary, Error> {
    let damaged = |e: io::Error| Error::Archive { archive: name.to_string(), reason: reason(&e) };
    let mut archive = Archive::new(decompress(input).map_err(damaged)?);
    match archive.next().map_err(damaged)? {
        Some(first) => unpack_entries(first, archive, name, destination, &clean(to.as_bytes()), owner),
        None => Ok(CopySummary::default()),
    }
}

pub(crate) fn try_unpack(
    root: &SourceRoot,
    destination: BorrowedFd<'_>,
    to: &[u8],
    owner: Owner,
) -> Result<Option<CopySummary>, Error> {
    let (dir, name) = root.place()?;
    let file = open_file(dir, name, &root.path)?;
    if stat::of(&file).context("stat", &root.path)?.kind != FileType::RegularFile {
        return Err(Error::Changed { path: shown(&root.path) });
    }
    unpack_file(file.as_fd(), &shown(&root.path), destination, to, owner)
}

fn unpack_file(
    file: BorrowedFd<'_>,
    name: &str,
    destination: BorrowedFd<'_>,
    to: &[u8],
    owner: Owner,
) -> Result<Option<CopySummary>, Error> {
    // What cannot be decompressed or parsed is a file like any other (X6.79).
    let Ok(input) = decompress(At { fd: file, offset: 0 }) else { return Ok(None) };
    let mut archive = Archive::new(input);
    let Ok(Some(first)) = archive.next() else { return Ok(None) };
    unpack_entries(first, archive, name, destination, to, owner).map(Some)
}

fn unpack_entries<R: Read>(
    first: ArchiveEntry,
    mut archive: Archive<R>,
    name: &str,
    destination: BorrowedFd<'_>,
    to: &[u8],
    owner: Owner,
) -> Result<CopySummary, Error> {
    let damaged = |e: io::Error| Error::Archive { archive: name.to_string(), reason: reason(&e) };
    let dir_owner = match owner {
        Owner::Keep | Owner::Root => (0, 0),
        Owner::Set(uid, gid) => (uid, gid),
    };
    let at = resolve(destination, to, true, &|_, _| true)?;
    let root = make_dirs(&at, NewDir { mode: 0o755, owner: dir_owner, time: None })?;
    let mut unpacker = Unpacker {
        root,
        prefix: at.full_path(),
        archive: name,
        owner,
        dirs: Directories::default(),
        last_parent: None,
        summary: CopySummary::default(),
        buffer: vec![0; 128 * 1024],
    };
    let mut entry = Some(first);
    while let Some(header) = entry {
        unpacker.entry(&header, &mut archive, &damaged)?;
        entry = archive.next().map_err(damaged)?;
    }
    unpacker.finish()?;
    Ok(unpacker.summary)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected end of file".to_string(),
        _ => match Errno::from_io_error(error) {
            Some(errno) => describe(errno),
            None => error.to_string(),
        },
    }
}

/// Reads a descriptor from its start, wherever its offset is.
struct At<'a> {
    fd: BorrowedFd<'a>,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = rustix::io::pread(self.fd, buffer, self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

struct Unpacker<'a> {
    root: OwnedFd,
    /// Path of `root` in the destination, for messages.
    prefix: Vec<u8>,
    archive: &'a str,
    owner: Owner,
    /// Directories with their times, which are set when nothing is written below them any more (X3.75).
    dirs: Directories,
    /// Directory of the entry before: mostly that of the next one too.
    last_parent: Option<Parent>,
    summary: CopySummary,
    buffer: Vec<u8>,
}

/// Directory that an entry is made in.
struct Parent {
    /// In the archive.
    name: Vec<u8>,
    /// Canonical, below the root of the archive.
    path: Vec<u8>,
    dir: OwnedFd,
}

/// Directories with their times. Each is kept once, however often and through whatever links the archive names it, and each name of a path
/// is kept once: so that what they take grows no faster than what is made on disk.
#[derive(Default)]
struct Directories {
    /// Each after the one that it lies in.
    list: Vec<Directory>,
    /// Place in `list` by the directory above (`None`: the root) and the name.
    index: HashMap<(Option<usize>, Rc<[u8]>), usize>,
}

struct Directory {
    above: Option<usize>,
    name: Rc<[u8]>,
    /// `None` for those that only others lie in.
    times: Option<Timestamps>,
}

impl Directories {
    fn insert(&mut self, path: &[u8], times: Timestamps) {
        let mut at = None;
        for name in names(path) {
            let name: Rc<[u8]> = name.into();
            at = Some(*self.index.entry((at, name.clone())).or_insert_with(|| {
                self.list.push(Directory { above: at, name, times: None });
                self.list.len() - 1
            }));
        }
        if let Some(at) = at {
            self.list[at].times = Some(times);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &Timestamps)> {
        self.list.iter().filter_map(|directory| {
            let times = directory.times.as_ref()?;
            let up = std::iter::successors(Some(directory), |below| below.above.map(|at| &self.list[at]));
            let mut names: Vec<&[u8]> = up.map(|directory| &*directory.name).collect();
            names.reverse();
            Some((names.join(&b'/'), times))
        })
    }
}

impl Unpacker<'_> {
    fn entry(
        &mut self,
        entry: &ArchiveEntry,
        data: &mut impl Read,
        damaged: &impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let path = self.confine(&entry.path, b"", false).ok_or_else(|| self.breakout(entry, "is outside of"))?;
        if path.is_empty() {
            // The destination itself keeps its attributes.
            return Ok(());
        }
        let device = self.device(entry, &path)?;
        let (parent, name) = parent_and_name(&path);
        let at = self.parent(parent)?;
        let dir = &at.dir;
        let full = join(&self.prefix, &path);
        let is_dir = entry.kind == b'5';
        let (merged, replaced) = match stat::at(dir, name) {
            Ok(old) if old.is_dir() && is_dir => (true, false),
            Ok(_) => {
                remove(dir.as_fd(), name, &full)?;
                (false, true)
            }
            Err(Errno::NOENT) => (false, false),
            Err(errno) => return Err(Error::io("stat", &full, errno)),
        };
        match entry.kind {
            b'0' => self.file(entry, data, (dir, name, &full), damaged)?,
            b'5' => {
                if !merged {
                    rustix::fs::mkdirat(dir, name, Mode::from(0o700)).context("mkdir", &full)?;
                }
                let made = open_dir(dir, name, &full)?;
                self.attributes(entry, made.as_fd(), &full)?;
                self.dirs.insert(&join(&at.path, name), times(entry));
            }
            b'1' => self.hard_link(entry, dir, name, &full)?,
            b'2' => {
                if self.confine(&entry.link, parent, true).is_none() {
                    return Err(self.breakout(entry, "links out of"));
                }
                rustix::fs::symlinkat(entry.link.as_slice(), dir, name).context("symlink", &full)?;
                self.attributes_at(entry, dir, name, &full)?;
            }
            b'3' | b'4' | b'6' => {
                let kind = match entry.kind {
                    b'3' => FileType::CharacterDevice,
                    b'4' => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                match rustix::fs::mknodat(dir, name, kind, Mode::from(entry.mode & 0o777), device) {
                    Ok(()) => self.attributes_at(entry, dir, name, &full)?,
                    // A user namespace has no devices (X3.75).
                    Err(Errno::PERM) if kind != FileType::Fifo => return Ok(()),
                    Err(errno) => return Err(Error::io("mknod", &full, errno)),
                }
            }
            other => return Err(self.broken(format!("unhandled tar header type {other}"))),
        }
        if !is_dir {
            self.summary.files += 1;
        }
        // What was replaced may have been a link that the directory's name leads through.
        self.last_parent = (!replaced).then_some(at);
        Ok(())
    }

    /// The number of a device; 0 for what is none.
    fn device(&self, entry: &ArchiveEntry, path: &[u8]) -> Result<u64, Error> {
        if !matches!(entry.kind, b'3' | b'4') {
            return Ok(0);
        }
        let (major, minor) = entry.device;
        let broken = |why| self.broken(format!("device {major}:{minor} {}: {why}", shown(&join(&self.prefix, path))));
        // An overlay would take it for the mark of a removed file.
        if entry.kind == b'3' && entry.device == (0, 0) {
            return Err(broken("it would be a whiteout"));
        }
        // The kernel cuts off higher bits, and so would make another device: of 4096:0 a whiteout.
        match (u32::try_from(major), u32::try_from(minor)) {
            (Ok(major @ ..=0xfff), Ok(minor @ ..=0xf_ffff)) => Ok(rustix::fs::makedev(major, minor)),
            _ => Err(broken("it is out of range")),
        }
    }

    /// Path of `name` seen from directory `from`, or nothing if `..` leads out of the root. Absolute names start at the root, but those of
    /// links, which are joined as text (X3.74), at `from`.
    fn confine(&self, name: &[u8], from: &[u8], joined: bool) -> Option<Vec<u8>> {
        let mut path = if joined { from.to_vec() } else { Vec::new() };
        // As text, before anything is taken away: `a/../../b` leaves, `/../b` does not.
        let absolute = !joined && name.first() == Some(&b'/');
        for element in names(name) {
            match element {
                b"." => {}
                b".." if path.is_empty() => {
                    if !absolute {
                        return None;
                    }
                }
                b".." => path.truncate(parent_and_name(&path).0.len()),
                element => super::path::push(&mut path, element),
            }
        }
        Some(path)
    }

    /// Opens the directory of an entry, made 0755 root where an archive does not name it.
    fn parent(&mut self, name: &[u8]) -> Result<Parent, Error> {
        if let Some(last) = self.last_parent.take()
            && last.name == name
        {
            return Ok(last);
        }
        let at = resolve(self.root.as_fd(), name, true, &|_, _| true).map_err(|e| self.prefixed(e))?;
        let path = at.full_path();
        // Through links to directories each entry could go deeper than the one before.
        if path.len() > MAX_NAME {
            return Err(self.broken(format!("a directory's path of {} bytes, more than {MAX_NAME}", path.len())));
        }
        let new = NewDir { mode: 0o755, owner: (0, 0), time: None };
        let dir = make_dirs(&at, new).map_err(|e| self.prefixed(e))?;
        Ok(Parent { name: name.to_vec(), path, dir })
    }

    fn file(
        &mut self,
        entry: &ArchiveEntry,
        data: &mut impl Read,
        (dir, name, full): (&OwnedFd, &[u8], &[u8]),
        damaged: &impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::from(entry.mode & 0o777)).context("open", full)?;
        match &entry.sparse {
            None => self.write(&file, data, full, damaged)?,
            Some(sparse) => {
                // Its holes cost the archive nothing and everybody else their time: an image holds them as zeros.
                let free = rustix::fs::fstatvfs(&file).context("statfs", full)?;
                if sparse.size > free.f_bavail.saturating_mul(free.f_frsize) {
                    return Err(self.broken(format!(
                        "{} has {} bytes, mostly holes, which is more than the disk could hold",
                        shown(full),
                        sparse.size
                    )));
                }
                // First, so that no data is written of a file that is too large.
                rustix::fs::ftruncate(&file, sparse.size).context("truncate", full)?;
                for (offset, length) in &sparse.pieces {
                    rustix::fs::seek(&file, SeekFrom::Start(*offset)).context("seek", full)?;
                    self.write(&file, &mut data.by_ref().take(*length), full, damaged)?;
                }
            }
        }
        self.attributes(entry, file.as_fd(), full)?;
        rustix::fs::futimens(&file, &times(entry)).context("utimes", full)
    }

    fn write(
        &mut self,
        file: &OwnedFd,
        data: &mut impl Read,
        full: &[u8],
        damaged: &impl Fn(io::Error) -> Error,
    ) -> Result<(), Error> {
        loop {
            let got = match data.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged(e)),
            };
            write_all(file, &self.buffer[..got], full)?;
            self.summary.bytes += got as u64;
        }
    }

    fn hard_link(&self, entry: &ArchiveEntry, dir: &OwnedFd, name: &[u8], full: &[u8]) -> Result<(), Error> {
        // Its target is a name of the archive, wherever the link is.
        let target = self.confine(&entry.link, b"", true).ok_or_else(|| self.breakout(entry, "links out of"))?;
        let (parent, target_name) = parent_and_name(&target);
        let at = resolve(self.root.as_fd(), parent, true, &|_, _| true).map_err(|e| self.prefixed(e))?;
        let linked = match at.exists() {
            true => rustix::fs::linkat(&at.node, target_name, dir, name, AtFlags::empty()),
            false => Err(Errno::NOENT),
        };
        linked.map_err(|errno| {
            let target = if target.is_empty() { self.prefix.clone() } else { join(&self.prefix, &target) };
            self.broken(format!("link {} {}: {}", shown(&target), shown(full), describe(errno)))
        })
    }

    fn owner(&self, entry: &ArchiveEntry) -> Result<(Option<Uid>, Option<Gid>), Error> {
        let id = |id: i64| match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.broken(format!("owner {id} is out of range"))),
        };
        let (uid, gid) = match self.owner {
            Owner::Set(uid, gid) => (uid, gid),
            Owner::Keep | Owner::Root => (id(entry.uid)?, id(entry.gid)?),
        };
        Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }

    fn attributes(&self, entry: &ArchiveEntry, fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Error> {
        let (uid, gid) = self.owner(entry)?;
        rustix::fs::fchown(fd, uid, gid).context("chown", path)?;
        rustix::fs::fchmod(fd, Mode::from(entry.mode)).context("chmod", path)?;
        for (name, value) in &entry.xattrs {
            if let Ok(name) = CString::new(name.as_slice())
                && super::metadata::is_copied(name.as_bytes())
            {
                set_xattr(fd, &name, value, path);
            }
        }
        Ok(())
    }

    /// Of what is not opened.
    fn attributes_at(&self, entry: &ArchiveEntry, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let (uid, gid) = self.owner(entry)?;
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).context("chown", path)?;
        if entry.kind != b'2' {
            rustix::fs::chmodat(dir, name, Mode::from(entry.mode), AtFlags::empty()).context("chmod", path)?;
        }
        rustix::fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).context("utimes", path)
    }

    fn finish(&self) -> Result<(), Error> {
        for (path, times) in self.dirs.iter() {
            let dir = match open_dirs(self.root.as_fd(), &path) {
                Ok(dir) => dir,
                // A later entry has replaced it.
                Err(Error::Io { errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => continue,
                Err(error) => return Err(self.prefixed(error)),
            };
            let dir = open_dir(&dir, b".", &path).map_err(|e| self.prefixed(e))?;
            rustix::fs::futimens(&dir, times).context("utimes", &join(&self.prefix, &path))?;
        }
        Ok(())
    }

    fn broken(&self, reason: String) -> Error {
        Error::Archive { archive: self.archive.to_string(), reason }
    }

    fn breakout(&self, entry: &ArchiveEntry, how: &str) -> Error {
        let quoted = |bytes: &[u8]| {
            let mut text = String::from("\"");
            escape(bytes, &mut text);
            text + "\""
        };
        let mut reason = quoted(&entry.path);
        if !entry.link.is_empty() {
            reason += &format!(" -> {}", quoted(&entry.link));
        }
        Error::Breakout { archive: self.archive.to_string(), reason: format!("{reason} {how} {}", shown(&self.prefix)) }
    }

    /// An error about a path below the unpacked directory, as seen from the destination.
    fn prefixed(&self, error: Error) -> Error {
        match error {
            Error::Io { action, path, errno } if !self.prefix.is_empty() => {
                Error::Io { action, path: shown(&self.prefix) + &path, errno }
            }
            other => other,
        }
    }
}

/// Times outside of what every file system can hold become the epoch.
fn times(entry: &ArchiveEntry) -> Timestamps {
    let bound = |(seconds, nanoseconds): (i64, u32)| {
        if (0..=i64::MAX / 1_000_000_000).contains(&seconds) { (seconds, nanoseconds) } else { (0, 0) }
    };
    let modified = bound(entry.mtime);
    let accessed = entry.atime.map_or(modified, |atime| bound(atime).max(modified));
    let timespec = |(seconds, nanoseconds)| Time { seconds, nanoseconds }.timespec();
    Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_kept_once() {
        let time = |seconds| {
            let time = Time { seconds, nanoseconds: 0 }.timespec();
            Timestamps { last_access: time, last_modification: time }
        };
        let mut dirs = Directories::default();
        for seconds in 0..1000 {
            dirs.insert(b"a/b", time(seconds));
            dirs.insert(b"a/b/c/d", time(seconds));
        }
        dirs.insert(b"", time(1));
        assert_eq!((dirs.list.len(), dirs.index.len()), (4, 4));
        let found: Vec<_> = dirs.iter().map(|(path, times)| (path, times.last_modification.tv_sec)).collect();
        assert_eq!(found, [(b"a/b".to_vec(), 999), (b"a/b/c/d".to_vec(), 999)]);
    }
}
