//! ADD of an archive (X3.I): entries are written below the destination directory and nowhere else.
//!
//! The destination directory is the root for all names, as if the extraction ran in a chroot of it (X3.74): links in it are followed within it.

use super::archive::{Archive, ArchiveEntry, decompress};
use super::error::{Context, Error, describe};
use super::make::write_all;
use super::metadata::set_xattr;
use super::path::{clean, escape, join, names, parent_and_name, shown};
use super::remove::remove;
use super::resolve::{NewDir, make_dirs, open_dir, resolve};
use super::select::SourceRoot;
use super::stat::{self, Time};
use super::tree::open_file;
use super::{CopySummary, Owner};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::io::{self, Read};

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
        dirs: Vec::new(),
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
    dirs: Vec<(Vec<u8>, Timestamps)>,
    /// Directory of the entry before, by its name in the archive: mostly that of the next one too.
    last_parent: Option<(Vec<u8>, OwnedFd)>,
    summary: CopySummary,
    buffer: Vec<u8>,
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
        let (parent, name) = parent_and_name(&path);
        let dir = self.parent(parent)?;
        let full = join(&self.prefix, &path);
        let is_dir = entry.kind == b'5';
        let merged = match stat::at(&dir, name) {
            Ok(old) if old.is_dir() && is_dir => true,
            Ok(_) => {
                remove(dir.as_fd(), name, &full)?;
                false
            }
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(Error::io("stat", &full, errno)),
        };
        match entry.kind {
            b'0' => self.file(entry, data, (&dir, name, &full), damaged)?,
            b'5' => {
                if !merged {
                    rustix::fs::mkdirat(&dir, name, Mode::from(0o700)).context("mkdir", &full)?;
                }
                let made = open_dir(&dir, name, &full)?;
                self.attributes(entry, made.as_fd(), &full)?;
                self.dirs.push((path.clone(), times(entry)));
            }
            b'1' => self.hard_link(entry, &dir, name, &full)?,
            b'2' => {
                if self.confine(&entry.link, parent, true).is_none() {
                    return Err(self.breakout(entry, "links out of"));
                }
                rustix::fs::symlinkat(entry.link.as_slice(), &dir, name).context("symlink", &full)?;
                self.attributes_at(entry, &dir, name, &full)?;
            }
            b'3' | b'4' | b'6' => {
                let kind = match entry.kind {
                    b'3' => FileType::CharacterDevice,
                    b'4' => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let dev = rustix::fs::makedev(entry.device.0, entry.device.1);
                match rustix::fs::mknodat(&dir, name, kind, Mode::from(entry.mode & 0o777), dev) {
                    Ok(()) => self.attributes_at(entry, &dir, name, &full)?,
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
        self.last_parent = Some((parent.to_vec(), dir));
        Ok(())
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
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, Error> {
        if let Some((last, fd)) = self.last_parent.take()
            && last == path
        {
            return Ok(fd);
        }
        let at = resolve(self.root.as_fd(), path, true, &|_, _| true).map_err(|e| self.prefixed(e))?;
        make_dirs(&at, NewDir { mode: 0o755, owner: (0, 0), time: None }).map_err(|e| self.prefixed(e))
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
        loop {
            let got = match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(damaged(e)),
            };
            write_all(&file, &self.buffer[..got], full)?;
            self.summary.bytes += got as u64;
        }
        self.attributes(entry, file.as_fd(), full)?;
        rustix::fs::futimens(&file, &times(entry)).context("utimes", full)
    }

    fn hard_link(&self, entry: &ArchiveEntry, dir: &OwnedFd, name: &[u8], full: &[u8]) -> Result<(), Error> {
        // Its target is a name of the archive, wherever the link is.
        let target = self.confine(&entry.link, b"", true).ok_or_else(|| self.breakout(entry, "links out of"))?;
        let (parent, target_name) = parent_and_name(&target);
        let at = resolve(self.root.as_fd(), parent, true, &|_, _| true)?;
        let linked = match at.exists() {
            true => rustix::fs::linkat(&at.node, target_name, dir, name, AtFlags::empty()),
            false => Err(Errno::NOENT),
        };
        linked.map_err(|errno| {
            self.broken(format!("link {} {}: {}", shown(&join(&self.prefix, &target)), shown(full), describe(errno)))
        })
    }

    fn owner(&self, entry: &ArchiveEntry) -> Result<(Option<Uid>, Option<Gid>), Error> {
        let id = |id: u64| match u32::try_from(id) {
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
        for (path, times) in &self.dirs {
            let at = resolve(self.root.as_fd(), path, false, &|_, _| true)?;
            // A later entry may have replaced it.
            if at.exists() && at.stat.is_dir() {
                let dir = open_dir(&at.node, b".", path)?;
                rustix::fs::futimens(&dir, times).context("utimes", &join(&self.prefix, path))?;
            }
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
