//! Containers: what a program that runs in an image has to itself.
//!
//! ```text
//! containers/ID/container.json   what it is     } documents of whoever runs it; replaced by renames
//! containers/ID/state.json       how it fares   }
//! containers/ID/name             its name, if it has one
//! containers/ID/layers           the layers that it stands on, one a line
//! containers/ID/fs work          upper and work directory of its file system
//! containers/ID/log socket       its output, and where it hears requests
//! containers/ID/remove           is there if nothing shall stay of it
//! containers/ID/lock             held as long as it runs
//! ```
//!
//! The lock says whether a container runs: it belongs to the processes that keep it running, and ends with them, however they end. Whoever
//! changes or removes a container that does not run takes the lock first.

use crate::error::{Error, Result};
use crate::layer::LayerId;
use crate::lock::{FileLock, try_lock_existing};
use crate::store::{Store, random_name};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A container's directory.
#[derive(Clone)]
pub struct ContainerDirectory {
    store: Store,
    id: String,
    path: PathBuf,
}

/// The right to run or remove a container. Its file may be handed to another process, and the lock with it.
#[derive(Debug)]
pub struct ContainerLock(File);

impl From<File> for ContainerLock {
    fn from(file: File) -> Self {
        ContainerLock(file)
    }
}

impl From<ContainerLock> for File {
    fn from(lock: ContainerLock) -> Self {
        lock.0
    }
}

/// A container to be made.
pub struct NewContainer<'a> {
    /// 64 hexadecimal digits: [`new_container_id`].
    pub id: &'a str,
    /// Letters, digits, `_`, `.` and `-`.
    pub name: Option<&'a str>,
    /// Bottom first.
    pub layers: &'a [LayerId],
    pub document: &'a [u8],
    /// Nothing of it stays once it has ended.
    pub remove: bool,
}

pub fn new_container_id() -> String {
    format!("{}{}{}", random_name(), random_name(), random_name()).chars().take(64).collect()
}

const DOCUMENT: &str = "container.json";
const STATE: &str = "state.json";
const REMOVE: &str = "remove";

impl Store {
    /// Makes a container, and holds its lock.
    pub fn create_container(&self, new: &NewContainer) -> Result<(ContainerDirectory, ContainerLock)> {
        let place = self.path("containers");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(Error::io("create", &place))?;
        let making = self.path("tmp").join(random_name());
        let _making = FileLock::acquire(&making.with_extension("lock"))?;
        let made = self.fill(new, &making).and_then(|lock| {
            // Two processes must not find the same name free.
            let mut _names = None;
            if let Some(name) = new.name {
                _names = Some(FileLock::acquire(&self.path("locks").join("containers"))?);
                let mut containers = self.containers()?.into_iter();
                if let Some(other) = containers.find(|other| other.name().as_deref() == Some(name)) {
                    return Err(Error::NameInUse { name: name.to_owned(), id: other.id });
                }
            }
            let path = place.join(new.id);
            fs::rename(&making, &path).map_err(Error::io("create", &path))?;
            Ok((ContainerDirectory { store: self.clone(), id: new.id.to_owned(), path }, lock))
        });
        if made.is_err() {
            self.discard(&making);
        }
        let _ = fs::remove_file(making.with_extension("lock"));
        made
    }

    fn fill(&self, new: &NewContainer, path: &Path) -> Result<ContainerLock> {
        for directory in [path, &path.join("fs"), &path.join("work")] {
            fs::DirBuilder::new().mode(0o755).create(directory).map_err(Error::io("create", directory))?;
        }
        // Its mode shows in the container.
        let upper = path.join("fs");
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(Error::io("set the mode of", &upper))?;
        let write = |name: &str, content: &[u8]| {
            let file = path.join(name);
            fs::write(&file, content).map_err(Error::io("write", &file))
        };
        write(DOCUMENT, new.document)?;
        write("layers", new.layers.iter().map(|layer| format!("{layer}\n")).collect::<String>().as_bytes())?;
        if let Some(name) = new.name {
            write("name", name.as_bytes())?;
        }
        if new.remove {
            write(REMOVE, b"")?;
        }
        let lock = path.join("lock");
        let file = File::create(&lock).map_err(Error::io("open the lock", &lock))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(Error::errno("lock", &lock))?;
        Ok(ContainerLock(file))
    }

    /// All containers, in no order.
    pub fn containers(&self) -> Result<Vec<ContainerDirectory>> {
        let place = self.path("containers");
        let entries = match fs::read_dir(&place) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("list", &place))?,
        };
        let entries = entries.flatten().filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            Some(ContainerDirectory { store: self.clone(), path: entry.path(), id })
        });
        Ok(entries.collect())
    }

    /// Finds a container by its name, its id or the first digits of that.
    pub fn find_container(&self, word: &str) -> Result<ContainerDirectory> {
        let containers = self.containers()?;
        let exact = containers.iter().find(|found| found.id == word || found.name().as_deref() == Some(word));
        if let Some(found) = exact {
            return Ok(found.clone());
        }
        let mut found: Vec<_> = containers.into_iter().filter(|found| found.id.starts_with(word)).collect();
        match (found.len(), word.is_empty()) {
            (0, _) | (_, true) => Err(Error::NoContainer(word.to_owned())),
            (1, _) => Ok(found.remove(0)),
            _ => Err(Error::AmbiguousContainer(word.to_owned())),
        }
    }

    /// The layers that containers stand on, running or not: they must stay.
    pub fn layers_of_containers(&self) -> Result<BTreeSet<LayerId>> {
        let lists =
            self.containers()?.into_iter().filter_map(|found| fs::read_to_string(found.path.join("layers")).ok());
        Ok(lists
            .flat_map(|list| list.lines().map(|line| LayerId::from_stored(line.to_owned())).collect::<Vec<_>>())
            .collect())
    }

    /// Containers of which nothing shall stay, and that nobody runs any more: their processes were killed.
    pub(crate) fn clear_dead_containers(&self) {
        for dead in self.containers().unwrap_or_default() {
            if dead.path.join(REMOVE).exists()
                && let Some(_lock) = try_lock_existing(&dead.path.join("lock"))
            {
                self.discard(&dead.path);
            }
        }
    }
}

impl ContainerDirectory {
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn name(&self) -> Option<String> {
        fs::read_to_string(self.path.join("name")).ok()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn upper(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Makes the work directory anew, as each mount needs.
    pub fn fresh_work(&self) -> Result<PathBuf> {
        let work = self.path.join("work");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).map_err(Error::io("create", &work))?;
        Ok(work)
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub fn document(&self) -> Result<Vec<u8>> {
        let path = self.path.join(DOCUMENT);
        fs::read(&path).map_err(Error::io("read", &path))
    }

    /// `None` before its first start.
    pub fn state(&self) -> Option<Vec<u8>> {
        fs::read(self.path.join(STATE)).ok()
    }

    pub fn set_state(&self, state: &[u8]) -> Result<()> {
        let (path, new) = (self.path.join(STATE), self.path.join("state.new"));
        fs::write(&new, state).map_err(Error::io("write", &new))?;
        fs::rename(&new, &path).map_err(Error::io("write", &path))
    }

    /// Whether somebody runs it.
    pub fn is_running(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// The lock, if the container does not run.
    pub fn try_lock(&self) -> Result<Option<ContainerLock>> {
        let path = self.path.join("lock");
        let file = File::options().write(true).open(&path);
        let file = file.map_err(|_| Error::NoContainer(self.id.clone()))?;
        // Somebody may just be asking whether it runs.
        for _ in 0..10 {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // It may have been removed meanwhile.
                Ok(()) if path.exists() => return Ok(Some(ContainerLock(file))),
                Ok(()) => return Err(Error::NoContainer(self.id.clone())),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(None)
    }

    /// Waits until nobody runs it.
    pub fn wait(&self) -> Result<()> {
        let path = self.path.join("lock");
        let Ok(file) = File::open(&path) else { return Ok(()) };
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared)).map_err(Error::errno("lock", &path))
    }

    /// Removes it. The lock is released by the caller, after this.
    pub fn remove(&self, _lock: &ContainerLock) {
        self.store.discard(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(
        store: &Store,
        id: &str,
        name: Option<&str>,
        remove: bool,
    ) -> Result<(ContainerDirectory, ContainerLock)> {
        let layers = [LayerId::from_stored("layer-1".to_owned())];
        store.create_container(&NewContainer { id, name, layers: &layers, document: b"{}", remove })
    }

    #[test]
    fn names_are_unique_and_ids_may_be_short() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let id = new_container_id();
        assert_eq!(id.len(), 64);
        let (container, lock) = create(&store, "aab1", Some("web"), false).unwrap();
        create(&store, "aac2", None, false).unwrap();
        assert!(matches!(create(&store, "ddd", Some("web"), false), Err(Error::NameInUse { .. })));
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        for word in ["web", "aab1", "aab"] {
            assert_eq!(store.find_container(word).unwrap().id(), "aab1");
        }
        assert!(matches!(store.find_container("aa"), Err(Error::AmbiguousContainer(_))));
        assert!(matches!(store.find_container(""), Err(Error::NoContainer(_))));
        container.remove(&lock);
        drop(lock);
        assert!(matches!(store.find_container("web"), Err(Error::NoContainer(_))));
        create(&store, "ddd", Some("web"), false).unwrap();
    }

    #[test]
    fn what_runs_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (container, lock) = create(&store, "a", None, false).unwrap();
        assert!(container.is_running() && container.try_lock().unwrap().is_none());
        drop(lock);
        assert!(!container.is_running() && container.try_lock().unwrap().is_some());
        container.wait().unwrap();
    }

    #[test]
    fn opening_a_store_clears_only_dead_containers_of_which_nothing_shall_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (running, lock) = create(&store, "a", None, true).unwrap();
        let (dead, _) = create(&store, "b", None, true).unwrap();
        let (kept, _) = create(&store, "c", None, false).unwrap();
        Store::open(directory.path()).unwrap();
        assert!(running.path().exists() && !dead.path().exists() && kept.path().exists());
        assert_eq!(store.layers_of_containers().unwrap().len(), 1);
        drop(lock);
        Store::open(directory.path()).unwrap();
        assert!(!running.path().exists());
    }
}
