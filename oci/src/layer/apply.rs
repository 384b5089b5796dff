//! Unpacks a layer's tar into an upper directory (X4.30 to X4.44).
//!
//! The archive is hostile. Every name is resolved inside the destination by the kernel (`openat2`, RESOLVE_IN_ROOT), the last
//! component is never followed, and nothing is set on what a name may have become meanwhile: files through their descriptor,
//! everything else below the descriptor of its parent directory.

use super::error::Error;
use super::{CAPABILITY, OPAQUE};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Overlay marks go into `user.overlay.*`: needed inside a user namespace.
    pub userxattr: bool,
    /// Only one id is mapped: files of others become its own, which is told in a warning.
    pub single_id: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ApplySummary {
    /// Bytes of file content.
    pub size: u64,
    /// What was left out, and why.
    pub warnings: Vec<String>,
}

/// A PAX header or long name larger than this is an attack.
const MAX_EXTENSION: u64 = 1 << 20;

/// Unpacks `tar` into the empty directory `destination`, which lies over the merged tree `lower`.
pub fn apply(
    tar: &mut impl Read,
    destination: BorrowedFd,
    lower: Option<BorrowedFd>,
    options: &ApplyOptions,
) -> Result<ApplySummary, Error> {
    let mut unpack = Unpack {
        destination,
        lower,
        options,
        summary: ApplySummary::default(),
        created: HashSet::new(),
        directory_times: BTreeMap::new(),
        parent: None,
    };
    let mut archive = ::tar::Archive::new(Bounded { inner: tar });
    for entry in archive.entries().map_err(Error::Archive)? {
        unpack.entry(&mut entry.map_err(Error::Archive)?)?;
    }
    unpack.set_directory_times()?;
    // What follows the end of the archive belongs to the digest (X4.44).
    io::copy(&mut archive.into_inner().inner, &mut io::sink()).map_err(Error::Archive)?;
    Ok(unpack.summary)
}

/// Keeps the archive's reader apart from ours, so that the rest can be read after it.
struct Bounded<R> {
    inner: R,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer)
    }
}

struct Unpack<'a> {
    destination: BorrowedFd<'a>,
    lower: Option<BorrowedFd<'a>>,
    options: &'a ApplyOptions,
    summary: ApplySummary,
    /// Paths that this very layer has unpacked: its own whiteouts do not concern them (X4.33).
    created: HashSet<Vec<u8>>,
    /// Set at the very end, since unpacking below a directory changes its time.
    directory_times: BTreeMap<Vec<u8>, Timestamps>,
    /// The parent of the last entry: archives list siblings together.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

/// What a header says of an entry.
struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

type TarEntry<'a, R> = ::tar::Entry<'a, R>;

impl Unpack<'_> {
    fn entry<R: Read>(&mut self, entry: &mut TarEntry<R>) -> Result<(), Error> {
        let Some(path) = clean(&entry.path_bytes()) else { return Ok(()) };
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let metadata = metadata(entry, &path)?;
        let (parent_path, name) = split(&path);
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&path, parent_path, hidden);
        }
        let parent = self.parent(parent_path, &path)?;
        let found = existing(&parent, name, &path)?;
        let was_whiteout = found.is_some_and(|found| found.is_whiteout);
        if let Some(found) = found
            && !(found.is_directory && kind.is_dir())
        {
            remove(parent.as_fd(), name, &path)?;
        }
        self.created.insert(path.clone());
        match kind {
            ::tar::EntryType::Directory => {
                if !found.is_some_and(|found| found.is_directory) {
                    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))
                        .map_err(Error::file("make the directory", &path))?;
                }
                let directory = open_directory(parent.as_fd(), name, &path)?;
                if was_whiteout {
                    self.set_opaque(&directory, &path)?;
                }
                self.set_owner(parent.as_fd(), name, &metadata, &path)?;
                self.set_xattrs(XattrTarget::Open(directory.as_fd()), &metadata, FileType::Directory, &path)?;
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(metadata.mode))
                    .map_err(Error::file("set the mode of", &path))?;
                self.directory_times.insert(path, metadata.times);
                return Ok(());
            }
            ::tar::EntryType::Regular | ::tar::EntryType::Continuous | ::tar::EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(Error::file("create", &path))?;
                let mut file = File::from(file);
                let size = io::copy(entry, &mut file).map_err(|source| Error::File {
                    action: "write",
                    path: path.clone(),
                    source,
                })?;
                self.summary.size += size;
                let owned = rustix::fs::fchown(&file, uid(&metadata), gid(&metadata));
                self.check_owner(owned, &metadata, &path)?;
                self.set_xattrs(XattrTarget::Open(file.as_fd()), &metadata, FileType::RegularFile, &path)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode))
                    .map_err(Error::file("set the mode of", &path))?;
                rustix::fs::futimens(&file, &metadata.times).map_err(Error::file("set the time of", &path))?;
                return Ok(());
            }
            ::tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                rustix::fs::symlinkat(&*target, &parent, name).map_err(Error::file("make the link", &path))?;
            }
            ::tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                return self.hard_link(&target, &parent, name, &path);
            }
            ::tar::EntryType::Fifo => {
                rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::from_raw_mode(metadata.mode), 0)
                    .map_err(Error::file("make the fifo", &path))?;
                chmod(parent.as_fd(), name, &metadata, &path)?;
            }
            ::tar::EntryType::Char | ::tar::EntryType::Block => {
                if !self.device(entry, &parent, name, &metadata, &path)? {
                    return Ok(());
                }
            }
            other => {
                let reason = format!("has the unknown type {:?}", other.as_byte() as char);
                return Err(Error::Entry { path, reason });
            }
        }
        self.set_owner(parent.as_fd(), name, &metadata, &path)?;
        let kind = if kind.is_symlink() { FileType::Symlink } else { FileType::Fifo };
        self.set_xattrs(XattrTarget::Named(&parent, name), &metadata, kind, &path)?;
        rustix::fs::utimensat(&parent, name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::file("set the time of", &path))
    }

    /// X4.30, X4.32, X4.33.
    fn whiteout(&mut self, path: &[u8], parent_path: &[u8], hidden: &[u8]) -> Result<(), Error> {
        if hidden == b".wh..opq" {
            let parent = self.parent(parent_path, path)?;
            let directory = open_directory(parent.as_fd(), b".", path)?;
            return self.set_opaque(&directory, path);
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(Error::Entry { path: path.to_owned(), reason: "has an invalid whiteout name".into() });
        }
        // Other names that begin so are marks of AUFS, which mean nothing here.
        if hidden.starts_with(b".wh.") || self.lower.is_none() {
            return Ok(());
        }
        let mut hidden_path = parent_path.to_owned();
        if !hidden_path.is_empty() {
            hidden_path.push(b'/');
        }
        hidden_path.extend_from_slice(hidden);
        let parent = self.parent(parent_path, path)?;
        if self.created.contains(&hidden_path) {
            // The layer's own directory of that name must not let the lower one through.
            if existing(&parent, hidden, path)?.is_some_and(|found| found.is_directory) {
                let directory = open_directory(parent.as_fd(), hidden, path)?;
                self.set_opaque(&directory, path)?;
            }
            return Ok(());
        }
        if existing(&parent, hidden, path)?.is_some() {
            remove(parent.as_fd(), hidden, path)?;
        }
        rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(Error::file("make the whiteout", path))
    }

    fn set_opaque(&self, directory: &OwnedFd, path: &[u8]) -> Result<(), Error> {
        let name = OPAQUE[usize::from(self.options.userxattr)];
        rustix::fs::fsetxattr(directory, name, b"y", XattrFlags::empty()).map_err(Error::file("mark as opaque", path))
    }

    /// X4.38: a target that lies in a lower layer is copied up first.
    fn hard_link(&mut self, target: &[u8], parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), Error> {
        let missing = || Error::Entry {
            path: path.to_owned(),
            reason: format!("is a hard link to {:?}, which is not there", String::from_utf8_lossy(target)),
        };
        let target = clean(target).ok_or_else(missing)?;
        let (directory, file) = split(&target);
        let opened = open_beneath(self.destination, directory).ok();
        let mut here = opened.filter(|directory| matches!(existing(directory, file, path), Ok(Some(_))));
        if here.is_none() {
            self.copy_up(&target, path)?;
            here = open_beneath(self.destination, directory).ok();
        }
        let directory = here.ok_or_else(missing)?;
        match rustix::fs::linkat(&directory, file, parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(missing()),
            result => result.map_err(Error::file("link", path)),
        }
    }

    fn copy_up(&mut self, target: &[u8], path: &[u8]) -> Result<(), Error> {
        let Some(lower) = self.lower else { return Ok(()) };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(source) = rustix::fs::openat2(lower, target, flags, Mode::empty(), resolve) else { return Ok(()) };
        let stat = rustix::fs::fstat(&source).map_err(Error::file("look at", target))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let (directory, name) = split(target);
        let parent = self.parent(directory, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::file("create", target))?;
        let (mut source, mut copy) = (File::from(source), File::from(copy));
        io::copy(&mut source, &mut copy).map_err(|source| Error::File {
            action: "copy",
            path: target.to_owned(),
            source,
        })?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&copy, Some(owner.0), Some(owner.1)).map_err(Error::file("set the owner of", target))?;
        let mut capability = [0; 64];
        if let Ok(length) = rustix::fs::fgetxattr(&source, CAPABILITY, &mut capability) {
            let _ = rustix::fs::fsetxattr(&copy, CAPABILITY, &capability[..length], XattrFlags::empty());
        }
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(Error::file("set the mode of", target))?;
        rustix::fs::futimens(&copy, &stat_times(&stat)).map_err(Error::file("set the time of", target))
    }

    /// Whether a device node was made: in a user namespace it cannot be (X4.41).
    fn device<R: Read>(
        &mut self,
        entry: &TarEntry<R>,
        parent: &OwnedFd,
        name: &[u8],
        metadata: &Metadata,
        path: &[u8],
    ) -> Result<bool, Error> {
        let header = entry.header();
        let kind = match header.entry_type() {
            ::tar::EntryType::Block => FileType::BlockDevice,
            _ => FileType::CharacterDevice,
        };
        let number = |read: io::Result<Option<u32>>| read.map(Option::unwrap_or_default).map_err(Error::Archive);
        let device = rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
        match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(metadata.mode), device) {
            Ok(()) => {
                chmod(parent.as_fd(), name, metadata, path)?;
                Ok(true)
            }
            Err(Errno::PERM) => {
                let path = path.escape_ascii();
                self.summary.warnings.push(format!("left out device node /{path}: not permitted without root"));
                Ok(false)
            }
            Err(errno) => Err(Error::file("make the device", path)(errno)),
        }
    }

    fn set_owner(&mut self, parent: BorrowedFd, name: &[u8], metadata: &Metadata, path: &[u8]) -> Result<(), Error> {
        let owned = rustix::fs::chownat(parent, name, uid(metadata), gid(metadata), AtFlags::SYMLINK_NOFOLLOW);
        self.check_owner(owned, metadata, path)
    }

    fn check_owner(&mut self, owned: rustix::io::Result<()>, metadata: &Metadata, path: &[u8]) -> Result<(), Error> {
        match owned {
            Err(Errno::INVAL) if self.options.single_id => {
                let path = path.escape_ascii();
                self.summary
                    .warnings
                    .push(format!("/{path} belongs to {}:{} in the image", metadata.uid, metadata.gid));
                Ok(())
            }
            owned => owned.map_err(|errno| owner_error(errno, metadata, path)),
        }
    }

    /// X4.40.
    fn set_xattrs(
        &mut self,
        target: XattrTarget,
        metadata: &Metadata,
        kind: FileType,
        path: &[u8],
    ) -> Result<(), Error> {
        for (name, value) in &metadata.xattrs {
            if name.starts_with("trusted.") || name.starts_with("user.overlay.") {
                self.summary.warnings.push(format!("left out attribute {name} of /{}", path.escape_ascii()));
                continue;
            }
            let set = match &target {
                XattrTarget::Open(file) => rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()),
                XattrTarget::Named(parent, file) => {
                    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
                    path.extend_from_slice(file);
                    rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty())
                }
            };
            let special = kind != FileType::RegularFile && kind != FileType::Directory;
            match set {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM) if special || name != CAPABILITY => {
                    self.summary.warnings.push(format!("left out attribute {name} of /{}", path.escape_ascii()));
                }
                Err(errno) => return Err(Error::file("set an attribute of", path)(errno)),
            }
        }
        Ok(())
    }

    /// The directory that an entry goes into, made where it is missing (X4.35, X4.36).
    fn parent(&mut self, directory: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
        if let Some((known, descriptor)) = &self.parent
            && known == directory
        {
            return rustix::io::fcntl_dupfd_cloexec(descriptor, 0).map_err(Error::file("open the parent of", path));
        }
        let opened = match open_beneath(self.destination, directory) {
            Err(Errno::NOENT) => {
                self.make_parents(directory, path)?;
                open_beneath(self.destination, directory)
            }
            opened => opened,
        };
        let opened = opened.map_err(Error::file("open the parent of", path))?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&opened, 0).map_err(Error::file("open the parent of", path))?;
        self.parent = Some((directory.to_owned(), copy));
        Ok(opened)
    }

    fn make_parents(&mut self, directory: &[u8], path: &[u8]) -> Result<(), Error> {
        let ends = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([directory.len()]) {
            let part = &directory[..end];
            match open_beneath(self.destination, part) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(Error::file("open the parent of", path)(errno)),
            }
            let (above, name) = split(part);
            let above = open_beneath(self.destination, above).map_err(Error::file("open the parent of", path))?;
            if existing(&above, name, part)?.is_some_and(|found| found.is_whiteout) {
                remove(above.as_fd(), name, part)?;
            }
            rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))
                .map_err(Error::file("make the directory", part))?;
            // As the same directory below has it.
            let below = self.lower.and_then(|lower| open_beneath(lower, part).ok());
            if let Some(stat) = below.and_then(|below| rustix::fs::fstat(below).ok()) {
                let metadata = Metadata {
                    mode: stat.st_mode & 0o7777,
                    uid: stat.st_uid,
                    gid: stat.st_gid,
                    times: stat_times(&stat),
                    xattrs: Vec::new(),
                };
                self.set_owner(above.as_fd(), name, &metadata, part)?;
                chmod(above.as_fd(), name, &metadata, part)?;
                self.directory_times.entry(part.to_owned()).or_insert(metadata.times);
            }
        }
        Ok(())
    }

    fn set_directory_times(&self) -> Result<(), Error> {
        for (path, times) in self.directory_times.iter().rev() {
            let (parent, name) = split(path);
            // A later entry may have replaced the directory.
            if let Ok(parent) = open_beneath(self.destination, parent) {
                match rustix::fs::utimensat(&parent, name, times, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Error::file("set the time of", path)(errno)),
                }
            }
        }
        Ok(())
    }
}

enum XattrTarget<'a> {
    Open(BorrowedFd<'a>),
    Named(&'a OwnedFd, &'a [u8]),
}

#[derive(Clone, Copy)]
struct Existing {
    is_directory: bool,
    is_whiteout: bool,
}

fn existing(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Option<Existing>, Error> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            Ok(Some(Existing {
                is_directory: kind == FileType::Directory,
                is_whiteout: kind == FileType::CharacterDevice && stat.st_rdev == 0,
            }))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::file("look at", path)(errno)),
    }
}

fn metadata<R: Read>(entry: &mut TarEntry<R>, path: &[u8]) -> Result<Metadata, Error> {
    let header = entry.header();
    let id = |number: io::Result<u64>| {
        let number = number.map_err(Error::Archive)?;
        u32::try_from(number)
            .map_err(|_| Error::Entry { path: path.to_owned(), reason: format!("has the id {number}") })
    };
    let mut metadata = Metadata {
        mode: header.mode().map_err(Error::Archive)? & 0o7777,
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        times: times(header.mtime().map_err(Error::Archive)? as i64, 0),
        xattrs: Vec::new(),
    };
    let mut total = 0;
    if let Some(extensions) = entry.pax_extensions().map_err(Error::Archive)? {
        for extension in extensions {
            let extension = extension.map_err(Error::Archive)?;
            total += extension.value_bytes().len() as u64;
            if total > MAX_EXTENSION {
                return Err(Error::Entry { path: path.to_owned(), reason: "has too large extended headers".into() });
            }
            let Ok(key) = extension.key() else { continue };
            let number = || extension.value().ok().and_then(|value| value.parse::<u64>().ok());
            match key {
                "uid" => metadata.uid = id(number().ok_or_else(|| bad_number(key)))?,
                "gid" => metadata.gid = id(number().ok_or_else(|| bad_number(key)))?,
                "mtime" => {
                    if let Some((seconds, nanoseconds)) = extension.value().ok().and_then(pax_time) {
                        metadata.times = times(seconds, nanoseconds);
                    }
                }
                key => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        metadata.xattrs.push((name.to_owned(), extension.value_bytes().to_owned()));
                    }
                }
            }
        }
    }
    Ok(metadata)
}

fn bad_number(key: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the extended header's {key} is not a number"))
}

/// `1700000000.5` as seconds and nanoseconds.
fn pax_time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok()?, digits.parse().ok()?))
}

/// X4.39: times outside of 1970 to 2262 become 1970.
fn times(seconds: i64, nanoseconds: i64) -> Timestamps {
    let seconds = if (0..=9_223_372_036).contains(&seconds) { seconds } else { 0 };
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn stat_times(stat: &rustix::fs::Stat) -> Timestamps {
    times(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Confined to the root; `None` for the root itself, whose entry is ignored (X4.34).
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A directory inside `root`, symlinks resolved inside it.
fn open_beneath(root: BorrowedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn open_directory(parent: BorrowedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::file("open", path))
}

/// Removes an entry with all below it.
fn remove(parent: BorrowedFd, name: &[u8], path: &[u8]) -> Result<(), Error> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        result => return result.map_err(Error::file("remove", path)),
    }
    let directory = open_directory(parent, name, path)?;
    for entry in rustix::fs::Dir::read_from(&directory).map_err(Error::file("list", path))? {
        let entry = entry.map_err(Error::file("list", path))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(directory.as_fd(), name, path)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(Error::file("remove", path))
}

fn uid(metadata: &Metadata) -> Option<Uid> {
    Some(Uid::from_raw(metadata.uid))
}

fn gid(metadata: &Metadata) -> Option<Gid> {
    Some(Gid::from_raw(metadata.gid))
}

fn owner_error(errno: Errno, metadata: &Metadata, path: &[u8]) -> Error {
    if errno != Errno::INVAL {
        return Error::file("set the owner of", path)(errno);
    }
    let reason = format!(
        "belongs to {}:{}, which this user namespace does not map: give the user a larger range in /etc/subuid and \
         /etc/subgid",
        metadata.uid, metadata.gid
    );
    Error::Entry { path: path.to_owned(), reason }
}

/// For what has no descriptor of its own and is known to be no symlink: it was just made.
fn chmod(parent: BorrowedFd, name: &[u8], metadata: &Metadata, path: &[u8]) -> Result<(), Error> {
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
        .map_err(Error::file("set the mode of", path))
}
