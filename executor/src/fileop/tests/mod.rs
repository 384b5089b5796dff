//! Copies between plain directories, told in a small notation: `d/` is a directory, `f=text` a file, `l->target` a link.

mod archives;
mod destination;
mod hostile;
mod metadata;
mod repeat;
mod selection;

use super::{CopyRequest, CopySummary, Error, Owner, PatternMatcher, Plain, SourceTree, copy};
use solver::op::{Chmod, Selection};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Owners can be set and seen.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whom copies belong to where a test does not care.
pub fn me() -> Owner {
    Owner::Set(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

pub fn make(dir: &Path, entries: &[&str]) {
    for entry in entries {
        let (name, content) = match (entry.split_once("->"), entry.split_once('=')) {
            (Some((name, target)), _) => {
                parent_of(&dir.join(name));
                symlink(target, dir.join(name)).unwrap();
                continue;
            }
            (None, Some(split)) => split,
            (None, None) => (*entry, ""),
        };
        let path = dir.join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            parent_of(&path);
            fs::write(path, content).unwrap();
        }
    }
}

fn parent_of(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
}

/// All entries below `dir` in the notation of `make`, sorted; other types are named by their letter.
pub fn list(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(rel) = pending.pop() {
        for entry in fs::read_dir(dir.join(&rel)).unwrap() {
            let entry = entry.unwrap();
            let rel = rel.join(entry.file_name());
            let name = rel.as_os_str().as_bytes().escape_ascii().to_string();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.push(format!("{name}/"));
                pending.push(rel);
            } else if kind.is_symlink() {
                found.push(format!("{name}->{}", fs::read_link(entry.path()).unwrap().display()));
            } else if kind.is_file() {
                let content = fs::read(entry.path()).unwrap();
                found.push(format!("{name}={}", content.escape_ascii()));
            } else {
                found.push(format!("{name} special"));
            }
        }
    }
    found.sort();
    found
}

pub struct Fixture {
    pub source: TempDir,
    pub target: TempDir,
    pub ignore: Vec<&'static str>,
    pub selection: Selection,
    pub owner: Owner,
    pub chmod: Option<Chmod>,
    pub unpack: bool,
}

impl Fixture {
    pub fn new(source: &[&str], target: &[&str]) -> Fixture {
        let fixture = Fixture {
            source: tempfile::tempdir().unwrap(),
            target: tempfile::tempdir().unwrap(),
            ignore: Vec::new(),
            selection: Selection { path: String::new(), wildcard: false, exclude: Vec::new(), parents: None },
            owner: me(),
            chmod: None,
            unpack: false,
        };
        make(fixture.source.path(), source);
        make(fixture.target.path(), target);
        fixture
    }

    pub fn with(mut self, change: impl FnOnce(&mut Fixture)) -> Fixture {
        change(&mut self);
        self
    }

    /// Copies `path`, with wildcards if it has any.
    pub fn copy(&self, path: &str, to: &str) -> Result<CopySummary, Error> {
        let mut selection = self.selection.clone();
        selection.path = path.to_string();
        selection.wildcard = path.contains(['*', '?', '[']);
        self.copy_selection(&selection, to)
    }

    pub fn copy_selection(&self, selection: &Selection, to: &str) -> Result<CopySummary, Error> {
        let ignore = PatternMatcher::new(&self.ignore).unwrap();
        let source = fs::File::open(self.source.path()).unwrap();
        let target = fs::File::open(self.target.path()).unwrap();
        let staging = tempfile::tempdir().unwrap();
        let staging = fs::File::open(staging.path()).unwrap();
        let request = CopyRequest {
            source: SourceTree {
                root: source.as_fd(),
                ignore: (!self.ignore.is_empty()).then_some(&ignore),
                ignore_name: ".dockerignore",
                cancelled: None,
            },
            layer: target.as_fd(),
            staging: staging.as_fd(),
            selection,
            to,
            owner: self.owner,
            chmod: self.chmod.as_ref(),
            unpack: self.unpack,
            account: None,
        };
        copy(&request, &mut Plain(target.as_fd()))
    }

    pub fn source(&self, path: &str) -> PathBuf {
        self.source.path().join(path)
    }

    pub fn target(&self, path: &str) -> PathBuf {
        self.target.path().join(path)
    }

    pub fn list(&self) -> Vec<String> {
        list(self.target.path())
    }
}

pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

pub fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
