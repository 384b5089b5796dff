//! Unpacking a layer tar into an overlayfs upper directory.
//!
//! The archive is hostile. Nothing is written outside the destination: see the `resolve` module. The rules (spec X4.30 to
//! X4.44) where they are not what one expects:
//!
//! - A whiteout only concerns lower layers: it never removes what this layer brings, before or after it. A directory
//!   of this layer whose path is also whited out becomes opaque, or the lower directory would shine through.
//! - Only this layer's own directory is looked at for parents and symlinks. A missing parent is made with the metadata
//!   that it has in the layers below.
//! - A hard link to a file of a lower layer copies that file up first.
//! - Directory times are set at the very end.

use super::dir::{self, join};
use super::metadata::Target;
use super::resolve::{Obstacle, Resolver, clean, is_whiteout, parent_and_name, remove};
use super::tar::{Entry, EntryKind, TarReader};
use super::{Error, Marks, shown};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// As the store is mounted.
    pub marks: Marks,
    /// The user namespace maps one id: files of others become its own.
    pub single_id: bool,
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplySummary {
    pub entries: u64,
    /// Content written.
    pub bytes: u64,
    /// What had to be left out, one sentence each. At most a hundred.
    pub warnings: Vec<String>,
}

const MAX_WARNINGS: usize = 100;

/// Unpacks an uncompressed layer tar into `destination`, an empty upper directory; `lower` shows the merged layers below,
/// `None` if there are none. The tar is read to the end of the stream, so that a hashing reader has seen all of it.
///
/// After an error, part of the layer has been written, and the destination is to be thrown away (X4.43).
pub fn apply(
    tar: impl Read,
    destination: BorrowedFd<'_>,
    lower: Option<BorrowedFd<'_>>,
    options: ApplyOptions,
) -> Result<ApplySummary, Error> {
    let mut tar = TarReader::new(tar);
    let mut unpacker = Unpacker {
        root: destination,
        resolver: Resolver::new(destination),
        layer: Layer {
            lower,
            opaque: options.marks.opaque(),
            single_id: options.single_id,
            directories: BTreeMap::new(),
            summary: ApplySummary::default(),
        },
        opaque_root: false,
    };
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(entry, &mut tar)?;
    }
    tar.drain()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    resolver: Resolver<'a>,
    layer: Layer<'a>,
    opaque_root: bool,
}

/// What is known of the layer besides its files.
struct Layer<'a> {
    lower: Option<BorrowedFd<'a>>,
    opaque: &'static CStr,
    single_id: bool,
    /// Times to be set at the end, by real path.
    directories: BTreeMap<Vec<u8>, Times>,
    summary: ApplySummary,
}

type Times = ((i64, u32), Option<(i64, u32)>);

/// Lets the resolver's errors carry the path only once it is known.
enum Failure {
    Errno(Errno),
    Error(Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::Errno(errno)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: Entry, tar: &mut TarReader<R>) -> Result<(), Error> {
        let path = clean(&entry.path);
        // Metadata of the root is never applied (X4.34).
        let Some((parent, name)) = parent_and_name(&path) else { return Ok(()) };
        if path.contains(&0) {
            return Err(Error::entry(&path, "its name contains a NUL byte"));
        }
        // AUFS kept records of its own under such names; they never create a file (R4.3.4).
        let reserved = |name: &[u8]| name.starts_with(b".wh..wh.");
        if parent.split(|&b| b == b'/').any(reserved) || reserved(name) && name != b".wh..wh..opq" {
            return Ok(());
        }
        self.layer.summary.entries += 1;
        self.enter(parent, &path)?;
        match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => self.opaque(parent),
            Some(b"" | b"." | b"..") => Err(Error::entry(&path, "invalid whiteout name")),
            Some(hidden) => self.whiteout(&entry, &path, hidden),
            None => self.create(&entry, &path, name, tar),
        }
    }

    /// Goes to a parent directory, making it and its parents where they are missing (X4.35, X4.36).
    fn enter(&mut self, parent: &[u8], path: &[u8]) -> Result<(), Error> {
        let layer = &mut self.layer;
        self.resolver
            .enter(parent, |at, name, path, obstacle| layer.make_parent(Target { dir: at, name, path }, obstacle))
            .map_err(|failure| failure.into_error(path))
    }

    fn dir(&self, path: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        self.resolver.fd().map_err(|e| Error::io("open the parent directory of", path, e))
    }

    fn opaque(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.resolver.path().is_empty() {
            // Overlayfs takes no notice of a mark on the root.
            self.opaque_root = true;
            return Ok(());
        }
        Target { dir: self.dir(path)?, name: b".", path }.set_opaque(self.layer.opaque)
    }

    /// `hidden` is gone from below. Where this layer has something of that name, that stays (X4.33).
    fn whiteout(&mut self, entry: &Entry, path: &[u8], hidden: &[u8]) -> Result<(), Error> {
        let dir = self.dir(path)?;
        let target = Target { dir, name: hidden, path };
        match mknod_whiteout(dir, hidden) {
            Ok(()) if (entry.uid, entry.gid) != (0, 0) => {
                // Nobody sees a whiteout's owner: not worth a warning.
                target.set_owner(entry.uid, entry.gid, self.layer.single_id, &mut |_| {})
            }
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => match is_directory(&self.stat(hidden, path)?) {
                true => target.set_opaque(self.layer.opaque),
                false => Ok(()),
            },
            Err(error) => Err(Error::io("make the whiteout", path, error)),
        }
    }

    fn create<R: Read>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        name: &[u8],
        tar: &mut TarReader<R>,
    ) -> Result<(), Error> {
        match entry.kind {
            EntryKind::File => {
                let file = self.make(path, name, |dir| create_file(dir, name))?;
                self.layer.summary.bytes += write_content(&file, entry, path, tar)?;
            }
            EntryKind::Directory => self.make_directory(path, name)?,
            EntryKind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(Error::entry(path, "its symlink target is not valid"));
                }
                self.make(path, name, |dir| rustix::fs::symlinkat(entry.link.as_slice(), dir, name))?;
            }
            EntryKind::Link => self.make_link(entry, path, name)?,
            EntryKind::Fifo => self.make(path, name, |dir| mknod(dir, name, FileType::Fifo, 0))?,
            EntryKind::Char | EntryKind::Block => {
                let kind = match entry.kind {
                    EntryKind::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                // Removes what is there also when no device can be made: the old entry is gone in any case.
                let made = self.make(path, name, |dir| match mknod(dir, name, kind, device) {
                    Err(Errno::PERM) => Ok(false),
                    result => result.map(|()| true),
                })?;
                if !made {
                    self.layer.summary.warn(format!("{}: a user namespace cannot have device nodes", shown(path)));
                    return Ok(());
                }
            }
            EntryKind::Other(flag) => {
                let reason = format!("its type {:?} is unknown", char::from(flag));
                return Err(Error::entry(path, reason));
            }
        }
        self.set_metadata(entry, path, name)
    }

    /// The order matters: chown drops set-id bits and capabilities (X4.39).
    fn set_metadata(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Result<(), Error> {
        let resolved = (entry.kind == EntryKind::Directory).then(|| join(&self.resolver.path(), name));
        let dir = self.resolver.fd().map_err(|e| Error::io("open the parent directory of", path, e))?;
        let target = Target { dir, name, path };
        let is_symlink = match entry.kind {
            EntryKind::Symlink => true,
            EntryKind::Link => file_type(&self.stat(name, path)?) == FileType::Symlink,
            _ => false,
        };
        let (summary, single_id) = (&mut self.layer.summary, self.layer.single_id);
        target.set_owner(entry.uid, entry.gid, single_id, &mut |warning| summary.warn(warning))?;
        let plain = matches!(entry.kind, EntryKind::File | EntryKind::Directory | EntryKind::Link) && !is_symlink;
        for (name, value) in &entry.xattrs {
            let summary = &mut self.layer.summary;
            target.set_xattr(name, value, plain, &mut |warning| summary.warn(warning))?;
        }
        if !is_symlink {
            target.set_mode(entry.mode)?;
        }
        match resolved {
            Some(resolved) => {
                self.layer.directories.insert(resolved, (entry.mtime, entry.atime));
                Ok(())
            }
            None => target.set_times(entry.mtime, entry.atime),
        }
    }

    /// Runs `create`; if something is there already, removes that and runs it again (X4.37).
    fn make<T>(
        &mut self,
        path: &[u8],
        name: &[u8],
        create: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Error> {
        let fail = |e| Error::io("create", path, e);
        match create(self.dir(path)?) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(fail),
        }
        let stat = self.stat(name, path)?;
        let dir = self.dir(path)?;
        remove(dir, name).map_err(|e| Error::io("replace", path, e))?;
        let made = create(dir).map_err(fail)?;
        if matches!(file_type(&stat), FileType::Directory | FileType::Symlink) {
            self.layer.forget_directory(&join(&self.resolver.path(), name));
            self.resolver.forget();
        }
        Ok(made)
    }

    fn make_directory(&mut self, path: &[u8], name: &[u8]) -> Result<(), Error> {
        let mkdir = |dir: BorrowedFd<'_>| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755));
        match mkdir(self.dir(path)?) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|e| Error::io("create directory", path, e)),
        }
        let stat = self.stat(name, path)?;
        if is_directory(&stat) {
            return Ok(());
        }
        self.make(path, name, mkdir)?;
        match is_whiteout(&stat) {
            true => Target { dir: self.dir(path)?, name, path }.set_opaque(self.layer.opaque),
            false => Ok(()),
        }
    }

    /// X4.38
    fn make_link(&mut self, entry: &Entry, path: &[u8], name: &[u8]) -> Result<(), Error> {
        let target = clean(&entry.link);
        let missing = |why| Error::entry(path, format!("its hard link target {} {why}", shown(&target)));
        let (target_parent, target_name) = parent_and_name(&target).ok_or_else(|| missing("is the root"))?;
        if target.contains(&0) {
            return Err(missing("is not a valid name"));
        }
        let parent = parent_and_name(path).map_or(&path[..0], |(parent, _)| parent);
        let destination = self.resolver.path();

        self.enter(target_parent, &target)?;
        if self.resolver.path() == destination && target_name == name {
            return Err(missing("is itself"));
        }
        let target_dir = rustix::io::fcntl_dupfd_cloexec(self.dir(path)?, 3)
            .map_err(|e| Error::io("open the parent directory of", &target, e))?;
        let c_name = CString::new(target_name).map_err(|_| missing("is not a valid name"))?;
        match dir::stat_if_exists(target_dir.as_fd(), &c_name).map_err(|e| Error::io("stat", &target, e))? {
            Some(stat) if is_whiteout(&stat) => return Err(missing("is deleted by this layer")),
            Some(stat) if is_directory(&stat) => return Err(missing("is a directory")),
            Some(_) => {}
            None => {
                let below = self.resolver.path();
                if !self.layer.copy_up(&below, Target { dir: target_dir.as_fd(), name: target_name, path: &target })? {
                    return Err(missing("does not exist"));
                }
            }
        }
        self.enter(parent, path)?;
        self.make(path, name, |dir| rustix::fs::linkat(&target_dir, &c_name, dir, name, AtFlags::empty()))
    }

    fn stat(&self, name: &[u8], path: &[u8]) -> Result<Statx, Error> {
        let name = CString::new(name).map_err(|_| Error::entry(path, "its name contains a NUL byte"))?;
        dir::stat(self.dir(path)?, &name).map_err(|e| Error::io("stat", path, e))
    }

    fn finish(self) -> Result<ApplySummary, Error> {
        if let (true, Some(lower)) = (self.opaque_root, self.layer.lower) {
            let lower = dir::open_dir(lower, b"").map_err(|e| Error::io("open lower directory", b"", e))?;
            for c_name in dir::names(lower.as_fd()).map_err(|e| Error::io("list lower directory", b"", e))? {
                let name = c_name.to_bytes();
                match mknod_whiteout(self.root, name) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        let stat = dir::stat(self.root, &c_name).map_err(|e| Error::io("stat", name, e))?;
                        if is_directory(&stat) {
                            Target { dir: self.root, name, path: name }.set_opaque(self.layer.opaque)?;
                        }
                    }
                    Err(error) => return Err(Error::io("make the whiteout", name, error)),
                }
            }
        }
        let mut parent: Option<(&[u8], OwnedFd)> = None;
        for (path, (mtime, atime)) in &self.layer.directories {
            let Some((parent_path, name)) = parent_and_name(path) else { continue };
            if parent.as_ref().is_none_or(|(open, _)| *open != parent_path) {
                let fd = dir::open_dir(self.root, parent_path);
                parent = Some((parent_path, fd.map_err(|e| Error::io("open directory", parent_path, e))?));
            }
            if let Some((_, dir)) = &parent {
                Target { dir: dir.as_fd(), name, path }.set_times(*mtime, *atime)?;
            }
        }
        Ok(self.layer.summary)
    }
}

impl Layer<'_> {
    fn make_parent(&mut self, target: Target<'_>, obstacle: Obstacle) -> Result<(), Failure> {
        let hidden = matches!(obstacle, Obstacle::Whiteout);
        if hidden {
            remove(target.dir, target.name)?;
        }
        rustix::fs::mkdirat(target.dir, target.name, Mode::from_raw_mode(0o755))?;
        if hidden {
            target.set_opaque(self.opaque)?;
        } else if let Some(lower) = self.lower
            && let Ok(below) = dir::open_dir(lower, target.path)
        {
            // Its mtime is overwritten by what is put into it, hence at the end.
            let stat = dir::stat(below.as_fd(), c".")?;
            self.copy_metadata(below.as_fd(), b".", &stat, target)?;
            self.directories.insert(target.path.to_vec(), (mtime(&stat), None));
            return Ok(());
        }
        target.set_mode(0o755)?;
        Ok(())
    }

    /// Copies a file of the layers below to the same place in this one; false if there is none.
    fn copy_up(&mut self, parent: &[u8], target: Target<'_>) -> Result<bool, Error> {
        let Some(lower) = self.lower else { return Ok(false) };
        let Ok(below) = dir::open_dir(lower, parent) else { return Ok(false) };
        let below = below.as_fd();
        let name = CString::new(target.name).map_err(|_| Error::entry(target.path, "its name contains a NUL byte"))?;
        let fail = |e| Error::io("copy up", target.path, e);
        let Some(stat) = dir::stat_if_exists(below, &name).map_err(fail)? else { return Ok(false) };
        match file_type(&stat) {
            FileType::RegularFile => {
                let mut from = dir::open_file(below, target.name).map_err(fail)?;
                let mut to = create_file(target.dir, target.name).map_err(fail)?;
                std::io::copy(&mut from, &mut to).map_err(|e| Error::io("copy up", target.path, e))?;
            }
            FileType::Symlink => {
                let link = dir::read_link(below, &name).map_err(fail)?;
                rustix::fs::symlinkat(link.as_slice(), target.dir, target.name).map_err(fail)?;
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                let device = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
                mknod(target.dir, target.name, kind, device).map_err(fail)?;
            }
            _ => return Ok(false),
        }
        self.copy_metadata(below, target.name, &stat, target)?;
        target.set_times(mtime(&stat), None)?;
        Ok(true)
    }

    /// Everything but the times.
    fn copy_metadata(
        &mut self,
        from: BorrowedFd<'_>,
        name: &[u8],
        stat: &Statx,
        target: Target<'_>,
    ) -> Result<(), Error> {
        let (owner, single_id) = ((stat.stx_uid.into(), stat.stx_gid.into()), self.single_id);
        target.set_owner(owner.0, owner.1, single_id, &mut |warning| self.summary.warn(warning))?;
        let plain = matches!(file_type(stat), FileType::RegularFile | FileType::Directory);
        let xattrs = dir::xattrs(from, name).map_err(|e| Error::io("read the xattrs of lower", target.path, e))?;
        for (name, value) in xattrs {
            let name = name.to_bytes();
            if !name.starts_with(b"trusted.") && !dir::is_overlay_mark(name) {
                target.set_xattr(name, &value, plain, &mut |warning| self.summary.warn(warning))?;
            }
        }
        match file_type(stat) {
            FileType::Symlink => Ok(()),
            _ => target.set_mode(stat.stx_mode.into()),
        }
    }

    /// A removed directory and those in it get no times.
    fn forget_directory(&mut self, path: &[u8]) {
        self.directories.remove(path);
        let below = join(path, b"");
        let inside: Vec<_> = self
            .directories
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .cloned()
            .collect();
        for path in inside {
            self.directories.remove(&path);
        }
    }
}

impl ApplySummary {
    fn warn(&mut self, warning: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        }
    }
}

impl Failure {
    fn into_error(self, path: &[u8]) -> Error {
        match self {
            Failure::Error(error) => error,
            Failure::Errno(errno) => Error::io("enter the parent directory of", path, errno),
        }
    }
}

fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Writes an entry's content and gives its stored length. Gaps of a sparse file stay holes.
fn write_content<R: Read>(file: &File, entry: &Entry, path: &[u8], tar: &mut TarReader<R>) -> Result<u64, Error> {
    let fail = |e| Error::io("write", path, e);
    let whole = [super::sparse::Segment { offset: 0, len: entry.size }];
    let segments = match &entry.sparse {
        Some(segments) => {
            file.set_len(entry.size).map_err(fail)?;
            segments.as_slice()
        }
        None => &whole,
    };
    let mut written = 0;
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.len);
        while left > 0 {
            let part = tar.fill()?;
            let count = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(Error::entry(path, "its content is shorter than its size"));
            }
            file.write_all_at(&part[..count], offset).map_err(fail)?;
            tar.consume(count);
            offset += count as u64;
            left -= count as u64;
        }
        written += segment.len;
    }
    Ok(written)
}

fn mknod(dir: BorrowedFd<'_>, name: &[u8], kind: FileType, device: u64) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
}

fn mknod_whiteout(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn is_directory(stat: &Statx) -> bool {
    file_type(stat) == FileType::Directory
}

fn mtime(stat: &Statx) -> (i64, u32) {
    (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec)
}
