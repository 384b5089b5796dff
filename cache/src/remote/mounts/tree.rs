//! A directory as entries and a stream, and back.

use super::super::{Error, Result};
use super::index::{Entry, Index, Kind, Text};
use super::{MOST_CONTENT, MOST_ENTRIES};
use oci::layer::dir;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Statx, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Lists a directory: itself, then what is in it, parents first, names in byte order. Sockets, fifos and devices are left out: they are of no use elsewhere.
pub fn list(root: BorrowedFd<'_>) -> Result<Vec<Entry>> {
    let stat = dir::stat(root, c".").map_err(failed("look at", b""))?;
    let mut entries = vec![entry(&stat, Vec::new(), Kind::Directory)];
    let (mut names, mut content) = (HashMap::new(), 0_u64);
    let mut pending = vec![Vec::new()];
    // In order of depth, so that one directory is open at a time; sorted at the end.
    while let Some(path) = pending.pop() {
        let directory = dir::open_dir(root, &path).map_err(failed("open", &path))?;
        for name in dir::names(directory.as_fd()).map_err(failed("list", &path))? {
            let stat = dir::stat(directory.as_fd(), &name).map_err(failed("look at", &path))?;
            let path = dir::join(&path, name.to_bytes());
            let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
                FileType::Directory => {
                    pending.push(path.clone());
                    Kind::Directory
                }
                FileType::RegularFile => {
                    content = content.saturating_add(stat.stx_size);
                    Kind::File { size: stat.stx_size }
                }
                FileType::Symlink => {
                    let target = dir::read_link(directory.as_fd(), &name).map_err(failed("read the link", &path))?;
                    Kind::Symlink { target: Text::new(target) }
                }
                _ => continue,
            };
            if stat.stx_nlink > 1 && matches!(kind, Kind::File { .. }) {
                let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
                names.entry(inode).or_insert_with(Vec::new).push(path.clone());
            }
            entries.push(entry(&stat, path, kind));
            if entries.len() > MOST_ENTRIES {
                return Err(too_large(format!("more than {MOST_ENTRIES} entries")));
            }
        }
    }
    link(&mut entries, names);
    if content > MOST_CONTENT {
        return Err(too_large(format!("more than {} GiB", MOST_CONTENT >> 30)));
    }
    Ok(entries)
}

/// Sorts entries, and makes all names of a file but the first links.
fn link<K>(entries: &mut [Entry], names: HashMap<K, Vec<Vec<u8>>>) {
    // By components, so that what is in a directory follows it.
    entries.sort_unstable_by(|a, b| a.path.bytes().split(|&b| b == b'/').cmp(b.path.bytes().split(|&b| b == b'/')));
    let position: HashMap<Vec<u8>, usize> = match names.is_empty() {
        true => HashMap::new(),
        false => entries.iter().enumerate().map(|(index, entry)| (entry.path.bytes().to_vec(), index)).collect(),
    };
    for paths in names.into_values() {
        let mut positions: Vec<usize> = paths.iter().filter_map(|path| position.get(path).copied()).collect();
        positions.sort_unstable();
        let Some((&first, others)) = positions.split_first() else { continue };
        let to = entries[first].path.clone();
        for &other in others {
            entries[other].kind = Kind::HardLink { to: to.clone() };
        }
    }
}

fn entry(stat: &Statx, path: Vec<u8>, kind: Kind) -> Entry {
    Entry {
        path: Text::new(path),
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        owner: (stat.stx_uid, stat.stx_gid),
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
    }
}

/// The content of all files of a list, one after the other, exactly as long as the list says.
pub struct Content<'a> {
    root: BorrowedFd<'a>,
    entries: std::slice::Iter<'a, Entry>,
    current: Option<(File, u64)>,
}

impl<'a> Content<'a> {
    pub fn new(root: BorrowedFd<'a>, entries: &'a [Entry]) -> Self {
        Content { root, entries: entries.iter(), current: None }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((file, left)) = &mut self.current {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                if most == 0 && *left > 0 {
                    return Ok(0);
                }
                let count = file.read(&mut buffer[..most])?;
                if count == 0 && *left > 0 {
                    return Err(io::Error::other("a file became shorter while it was read"));
                }
                *left -= count as u64;
                if count > 0 {
                    return Ok(count);
                }
                self.current = None;
            }
            let Some(entry) = self.entries.next() else { return Ok(0) };
            if let Kind::File { size: size @ 1.. } = entry.kind {
                self.current = Some((dir::open_file(self.root, entry.path.bytes())?, size));
            }
        }
    }
}

/// Makes what an index describes in an empty directory. Owners that the user namespace has no ids for stay those of the process.
pub fn restore(root: BorrowedFd<'_>, index: &Index, mut content: impl Read) -> Result<()> {
    let mut parent = Parent { root, path: Vec::new(), fd: None };
    let mut directories = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    for entry in &index.entries {
        let path = entry.path.bytes();
        if path.is_empty() {
            directories.push(entry);
            continue;
        }
        if !path.split(|&b| b == b'/').all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0)) {
            return Err(Error::Document("the index of a cache directory names an entry outside of it".into()));
        }
        let (above, name) = dir::split(path);
        let at = parent.of(above).map_err(failed("open", above))?;
        match &entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(at, name, Mode::RWXU).map_err(failed("make", path))?;
                directories.push(entry);
                continue;
            }
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(target.bytes(), at, name).map_err(failed("make", path))?;
            }
            Kind::HardLink { to } => {
                let (above, first) = dir::split(to.bytes());
                let from = dir::open_dir(root, above).map_err(failed("open", above))?;
                // The other name has mode, owner and time.
                let linked = rustix::fs::linkat(&from, first, at, name, AtFlags::empty());
                linked.map_err(failed("link", path))?;
                continue;
            }
            Kind::File { size } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR);
                let mut file = File::from(file.map_err(failed("make", path))?);
                let mut left = *size;
                while left > 0 {
                    let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let problem = |error: io::Error| failed_io("write", path, &error);
                    let count = content.read(&mut buffer[..most]).map_err(problem)?;
                    if count == 0 {
                        return Err(Error::Document("the index of a cache directory has too little content".into()));
                    }
                    file.write_all(&buffer[..count]).map_err(problem)?;
                    left -= count as u64;
                }
            }
        }
        finish(at, name, entry)?;
    }
    // From within outwards: what is made in a directory changes its time, and it may be one that cannot be written to.
    for entry in directories.into_iter().rev() {
        let (above, name) = dir::split(entry.path.bytes());
        let name = if name.is_empty() { b"." } else { name };
        let at = dir::open_dir(root, above).map_err(failed("open", above))?;
        finish(at.as_fd(), name, entry)?;
    }
    Ok(())
}

/// Owner, mode and time, in this order: a new owner takes special bits away.
fn finish(at: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<()> {
    let path = entry.path.bytes();
    let (uid, gid) = entry.owner;
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Error::Document("the index of a cache directory names an owner that cannot be".into()));
    }
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match rustix::fs::chownat(at, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
        // Without the ids.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(failed("set the owner of", path)(errno)),
    }
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        let mode = Mode::from_raw_mode(entry.mode & 0o7777);
        rustix::fs::chmodat(at, name, mode, AtFlags::empty()).map_err(failed("set the mode of", path))?;
    }
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.min(999_999_999).into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the times of", path))
}

/// The directory that entries are made in: the same for many in a row.
struct Parent<'a> {
    root: BorrowedFd<'a>,
    path: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl Parent<'_> {
    fn of(&mut self, path: &[u8]) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.fd.is_none() || self.path != path {
            self.fd = Some(dir::open_dir(self.root, path)?);
            self.path = path.to_vec();
        }
        Ok(self.fd.as_ref().map_or(self.root, |fd| fd.as_fd()))
    }
}

fn failed(action: &'static str, path: &[u8]) -> impl Fn(Errno) -> Error {
    move |errno| failed_io(action, path, &errno.into())
}

fn failed_io(action: &str, path: &[u8], error: &io::Error) -> Error {
    let path = if path.is_empty() { "the cache directory".to_owned() } else { path.escape_ascii().to_string() };
    Error::Service { what: format!("cannot {action} {path}"), problem: error.to_string() }
}

fn too_large(problem: String) -> Error {
    Error::Service { what: "the cache directory is too large for a remote cache".into(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        fs::File::open(path).unwrap().into()
    }

    fn tree(path: &Path) {
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/one"), "1").unwrap();
        fs::write(path.join("a/b/two"), "22").unwrap();
        fs::write(path.join("a.b"), "").unwrap();
        fs::hard_link(path.join("a/one"), path.join("z")).unwrap();
        std::os::unix::fs::symlink("../nowhere", path.join("a/link")).unwrap();
        fs::set_permissions(path.join("a/one"), fs::Permissions::from_mode(0o6751)).unwrap();
        fs::set_permissions(path.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 7);
        fs::File::open(path.join("a/one")).unwrap().set_modified(time).unwrap();
    }

    fn index(entries: Vec<Entry>) -> Index {
        Index { entries, ..Index::new() }
    }

    #[test]
    fn trees_go_there_and_back() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(from.path());
        let root = open(from.path());
        let entries = list(root.as_fd()).unwrap();
        let paths: Vec<_> =
            entries.iter().map(|entry| String::from_utf8_lossy(entry.path.bytes()).into_owned()).collect();
        assert_eq!(paths, ["", "a", "a/b", "a/b/two", "a/link", "a/one", "a.b", "z"]);
        let mut content = Vec::new();
        Content::new(root.as_fd(), &entries).read_to_end(&mut content).unwrap();
        assert_eq!(content, b"221");
        let made = open(to.path());
        let index = index(entries);
        restore(made.as_fd(), &index, content.as_slice()).unwrap();
        assert_eq!(list(made.as_fd()).unwrap(), index.entries);
        let (one, z) = (fs::metadata(to.path().join("a/one")).unwrap(), fs::metadata(to.path().join("z")).unwrap());
        assert_eq!((one.ino(), one.mode() & 0o7777, one.mtime_nsec()), (z.ino(), 0o6751, 7));
    }

    #[test]
    fn nothing_is_made_outside() {
        let entry =
            |path: &str, kind| Entry { path: Text::Text(path.into()), kind, mode: 0o755, owner: (0, 0), mtime: (0, 0) };
        let outside = tempfile::tempdir().unwrap();
        let target = || Text::Text(outside.path().to_str().unwrap().into());
        let file = || Kind::File { size: 1 };
        let hostile: Vec<Vec<Entry>> = vec![
            vec![entry("../x", file())],
            vec![entry("/x", file())],
            vec![entry("a/../../x", file())],
            vec![entry("a\0b", file())],
            vec![entry("missing/x", file())],
            vec![entry("link", Kind::Symlink { target: target() }), entry("link/x", file())],
            vec![entry("link", Kind::Symlink { target: target() }), entry("link", file())],
            vec![
                entry("link", Kind::Symlink { target: target() }),
                entry("h", Kind::HardLink { to: Text::Text("link/x".into()) }),
            ],
            vec![entry("h", Kind::HardLink { to: Text::Text("../../../etc/passwd".into()) })],
            vec![entry("f", file()), entry("f", file())],
            vec![Entry { owner: (u32::MAX, 0), ..entry("f", file()) }],
        ];
        fs::write(outside.path().join("x"), "").unwrap();
        for (number, entries) in hostile.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let within = directory.path().join("within");
            fs::create_dir(&within).unwrap();
            let restored = restore(open(&within).as_fd(), &index(entries), &b"xx"[..]);
            assert!(restored.is_err(), "{number}");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{number}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{number}");
            assert_eq!(fs::read(outside.path().join("x")).unwrap(), b"", "{number}");
        }
    }
}
