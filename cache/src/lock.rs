//! File locks. They belong to an open file, so they end with their process, however it ends.

use crate::error::{Error, Result};
use crate::store::Store;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An exclusive lock; released when dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Held while the op of a key runs.
#[derive(Debug)]
pub struct KeyLock {
    lock: FileLock,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while still held: whoever waits for it notices that its file is another one by then.
        let _ = std::fs::remove_file(&self.lock.path);
    }
}

impl Store {
    /// Waits until nobody else holds the lock of `key`.
    pub fn lock_key(&self, key: &[u8; 32]) -> Result<KeyLock> {
        Ok(KeyLock { lock: FileLock::acquire(&self.key_path(key))? })
    }

    /// The lock of `key`, if it is free.
    pub fn try_lock_key(&self, key: &[u8; 32]) -> Result<Option<KeyLock>> {
        Ok(FileLock::try_acquire(&self.key_path(key))?.map(|lock| KeyLock { lock }))
    }

    fn key_path(&self, key: &[u8; 32]) -> PathBuf {
        self.path("locks").join(hex::encode(key))
    }
}

impl FileLock {
    pub fn acquire(path: &Path) -> Result<FileLock> {
        loop {
            if let Some(lock) = Self::attempt(path, FlockOperation::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    pub fn try_acquire(path: &Path) -> Result<Option<FileLock>> {
        Self::attempt(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Whether somebody holds the lock of a file that may not even be there.
    pub fn is_held(path: &Path) -> bool {
        File::open(path)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
    }

    /// A shared lock: many may hold it, but nobody who holds it exclusively.
    pub fn acquire_shared(path: &Path) -> Result<FileLock> {
        loop {
            if let Some(lock) = Self::attempt(path, FlockOperation::LockShared)? {
                return Ok(lock);
            }
        }
    }

    /// Lets others share it from now on.
    pub fn share(&self) -> Result<()> {
        loop {
            match flock(&self.file, FlockOperation::LockShared) {
                Err(Errno::INTR) => continue,
                locked => return locked.map_err(Error::errno("share the lock", &self.path)),
            }
        }
    }

    /// `None` if somebody else holds it, or removed its file meanwhile.
    fn attempt(path: &Path, operation: FlockOperation) -> Result<Option<FileLock>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open the lock", path))?;
        loop {
            match flock(&file, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => continue,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(Error::errno("lock", path)(errno)),
            }
        }
        let held = file.metadata().map_err(Error::io("look at the lock", path))?;
        match std::fs::metadata(path) {
            Ok(named) if named.ino() == held.ino() => Ok(Some(FileLock { file, path: path.to_owned() })),
            _ => Ok(None),
        }
    }
}

impl FileLock {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<File> for FileLock {
    fn as_ref(&self) -> &File {
        &self.file
    }
}

/// The lock of a file that is there, if it is free.
pub(crate) fn try_lock_existing(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = store.lock_key(&[7; 32]).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let held = store.lock_key(&[7; 32]).unwrap();
        assert!(store.try_lock_key(&[7; 32]).unwrap().is_none());
        assert!(store.try_lock_key(&[8; 32]).unwrap().is_some());
        drop(held);
        assert!(store.try_lock_key(&[7; 32]).unwrap().is_some());
    }
}
