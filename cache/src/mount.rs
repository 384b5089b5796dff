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
    /// It was not there yet.
    pub is_new: bool,
    /// Nobody else uses it.
    is_alone: bool,
    lock: FileLock,
}

impl CacheMountLease {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing is in it, and nobody else uses it.
    pub fn is_vacant(&self) -> bool {
        self.is_alone && fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Under which its usage is kept.
    pub fn id(&self) -> String {
        id_of(&self.path)
    }
}

impl Store {
    /// The directory of cache `id`, made where it is missing. May wait for other users.
    pub fn cache_mount(&self, id: &str, sharing: Sharing) -> Result<CacheMountLease> {
        self.cache_mount_with(id, sharing, |_| Ok(()))
    }

    /// As [`cache_mount`](Store::cache_mount). Before others may use the directory too, `prepare` gives it its first content, if it is new or there is none.
    pub fn cache_mount_with<E: From<Error>>(
        &self,
        id: &str,
        sharing: Sharing,
        prepare: impl FnOnce(&CacheMountLease) -> std::result::Result<(), E>,
    ) -> std::result::Result<CacheMountLease, E> {
        let lease = self.lease_mount(id, sharing)?;
        if lease.is_new || lease.is_vacant() {
            prepare(&lease)?;
        }
        if sharing == Sharing::Shared && lease.is_alone {
            lease.lock.share()?;
        }
        Ok(lease)
    }

    /// The directory of cache `id` alone, if it is there and nobody uses it.
    pub fn idle_cache_mount(&self, id: &str) -> Result<Option<CacheMountLease>> {
        let path = self.mount_path(id, 0);
        let Some(lock) = FileLock::try_acquire(&lock_path(&path))? else { return Ok(None) };
        Ok(path.exists().then_some(CacheMountLease { path, is_new: false, is_alone: true, lock }))
    }

    fn mount_path(&self, id: &str, number: usize) -> PathBuf {
        let name = blake3::hash(id.as_bytes()).to_hex();
        match number {
            0 => self.path("mounts").join(name.as_str()),
            number => self.path("mounts").join(format!("{name}.{number}")),
        }
    }

    fn lease_mount(&self, id: &str, sharing: Sharing) -> Result<CacheMountLease> {
        let path = |number| self.mount_path(id, number);
        match sharing {
            Sharing::Shared => match FileLock::try_acquire(&lock_path(&path(0)))? {
                Some(lock) => self.use_mount(path(0), lock, true),
                None => self.use_mount(path(0), FileLock::acquire_shared(&lock_path(&path(0)))?, false),
            },
            Sharing::Locked => self.use_mount(path(0), FileLock::acquire(&lock_path(&path(0)))?, true),
            Sharing::Private => {
                for number in 0.. {
                    if let Some(lock) = FileLock::try_acquire(&lock_path(&path(number)))? {
                        return self.use_mount(path(number), lock, true);
                    }
                }
                unreachable!("some directory is free")
            }
        }
    }

    fn use_mount(&self, path: PathBuf, lock: FileLock, is_alone: bool) -> Result<CacheMountLease> {
        self.rely_on(&id_of(&path));
        let is_new = !path.exists();
        if is_new {
            fs::create_dir_all(&path).map_err(Error::io("create the cache directory", &path))?;
        }
        Ok(CacheMountLease { path, is_new, is_alone, lock })
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

    /// Who comes while a directory gets its first content waits, and finds it.
    #[test]
    fn first_content_is_made_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let made = std::sync::atomic::AtomicUsize::new(0);
        let prepare = |lease: &CacheMountLease| {
            made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert!(store.idle_cache_mount("/c").unwrap().is_none());
            std::thread::yield_now();
            fs::write(lease.path().join("first"), "x").map_err(Error::io("write", lease.path()))
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lease = store.cache_mount_with("/c", Sharing::Shared, prepare).unwrap();
                    assert!(lease.path().join("first").exists());
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        let idle = store.idle_cache_mount("/c").unwrap().unwrap();
        fs::remove_file(idle.path().join("first")).unwrap();
        assert!(idle.is_vacant() && store.idle_cache_mount("/other").unwrap().is_none());
    }
}
