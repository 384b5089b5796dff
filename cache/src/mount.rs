//! Directories of `RUN --mount=type=cache` (X2.17 to X2.29).

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::store::Store;
use std::fs;
use std::path::{Path, PathBuf};

/// Of the ids of cache directories.
pub(crate) const PREFIX: &str = "mount-";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All users at once.
    Shared,
    /// One user; others get directories of their own.
    Private,
    /// One user; others wait.
    Locked,
}

/// The use of a cache directory; ends when dropped, or with the process.
pub struct CacheMountLease {
    path: PathBuf,
    /// Nothing was in it yet.
    pub is_new: bool,
    _lock: FileLock,
}

impl CacheMountLease {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Under which its usage is kept.
    pub fn id(&self) -> String {
        id_of(&self.path)
    }
}

impl Store {
    /// The directory of cache `id`, made where it is missing. May wait for other users.
    pub fn cache_mount(&self, id: &str, sharing: Sharing) -> Result<CacheMountLease> {
        let name = blake3::hash(id.as_bytes()).to_hex();
        let path = |number: usize| match number {
            0 => self.path("mounts").join(name.as_str()),
            number => self.path("mounts").join(format!("{name}.{number}")),
        };
        match sharing {
            Sharing::Shared => self.use_mount(path(0), FileLock::acquire_shared(&lock_path(&path(0)))?),
            Sharing::Locked => self.use_mount(path(0), FileLock::acquire(&lock_path(&path(0)))?),
            Sharing::Private => {
                for number in 0.. {
                    if let Some(lock) = FileLock::try_acquire(&lock_path(&path(number)))? {
                        return self.use_mount(path(number), lock);
                    }
                }
                unreachable!("some directory is free")
            }
        }
    }

    fn use_mount(&self, path: PathBuf, lock: FileLock) -> Result<CacheMountLease> {
        self.rely_on(&id_of(&path));
        let is_new = !path.exists();
        if is_new {
            fs::create_dir_all(&path).map_err(Error::io("create the cache directory", &path))?;
        }
        Ok(CacheMountLease { path, is_new, _lock: lock })
    }
}

fn id_of(path: &Path) -> String {
    format!("{PREFIX}{}", path.file_name().unwrap_or_default().to_string_lossy())
}

pub(crate) fn lock_path(path: &Path) -> PathBuf {
    path.with_extension(match path.extension() {
        Some(number) => format!("{}.lock", number.to_string_lossy()),
        None => "lock".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_decides_who_gets_which_directory() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = store.cache_mount("/c", Sharing::Shared).unwrap();
        assert!(first.is_new);
        let second = store.cache_mount("/c", Sharing::Shared).unwrap();
        assert_eq!(first.path(), second.path());
        let private = store.cache_mount("/c", Sharing::Private).unwrap();
        assert_ne!(private.path(), first.path());
        let other = store.cache_mount("/c", Sharing::Private).unwrap();
        assert_ne!(other.path(), private.path());
        drop((first, second));
        let locked = store.cache_mount("/c", Sharing::Locked).unwrap();
        assert!(!locked.is_new);
        assert_ne!(store.cache_mount("/c", Sharing::Private).unwrap().path(), locked.path());
    }
}
