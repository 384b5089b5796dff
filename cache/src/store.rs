//! Opening a store, and its directories.

use crate::database::Database;
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::{ballast, lock, ownership};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long the end of a command may take for tidying up.
const PATIENCE: Duration = Duration::from_millis(250);

/// A handle to a store. Cheap to clone; used from any thread.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The same, without keeping it open.
pub(crate) struct WeakStore(Weak<Inner>);

impl WeakStore {
    pub fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|inner| Store { inner })
    }
}

struct Inner {
    root: PathBuf,
    database: Database,
    lease: Lease,
    begins_anew: bool,
}

impl Store {
    /// `$RBUILD_ROOT`, else `/var/lib/rbuild` for root, else `$XDG_DATA_HOME/rbuild` or `~/.local/share/rbuild`.
    pub fn default_root(is_root: bool) -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = variable("RBUILD_ROOT") {
            return Ok(root);
        }
        if is_root {
            return Ok("/var/lib/rbuild".into());
        }
        let data = variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        data.map(|data| data.join("rbuild")).ok_or(Error::NoHome)
    }

    /// Opens the store at `root`, made if it is not there, and clears what dead processes left behind.
    pub fn open(root: &Path) -> Result<Store> {
        let is_new = !root.join("oci-layout").exists();
        if is_new {
            refuse_foreign(root)?;
            ownership::claim(root)?;
            create(root)?;
        }
        let root = root.canonicalize().map_err(Error::io("open the store", root))?;
        ownership::check(&root)?;
        let mut begins_anew = false;
        let database = Database::open(&root, |files| {
            begins_anew = true;
            throw_away(&root, files);
        })?;
        let store = Store { inner: Arc::new(Inner { root, database, lease: Lease::default(), begins_anew }) };
        store.clear_leavings()?;
        if is_new {
            store.keep_ballast();
        }
        Ok(store)
    }

    /// The same, for taking things out of the cache. Also on a full disk, where others find no room for the database.
    pub fn open_to_prune(root: &Path) -> Result<Store> {
        match Store::open(root) {
            Err(error) if error.is_full_disk() => {
                ballast::drop_ballast(root);
                Store::open(root)
            }
            opened => opened,
        }
    }

    /// The database was damaged: the cache is empty now. Images are all there.
    pub fn begins_anew(&self) -> bool {
        self.inner.begins_anew
    }

    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.inner.lease
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.inner))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    /// A directory with nothing in it: what an overlay without lower layers stands on.
    pub fn empty_directory(&self) -> PathBuf {
        self.path("empty")
    }

    /// Moves a file or directory out of the way; it is deleted when nobody waits. Gives its name in the trash.
    pub(crate) fn discard(&self, path: &Path) -> Option<OsString> {
        discard(self.root(), path)
    }

    /// Deletes what was discarded. Deleting many files slows down other work on the same file system: call it at the end. What takes longer than
    /// somebody would wait for is left to the next one.
    pub fn empty_trash(&self) {
        let end = Instant::now() + PATIENCE;
        self.empty_trash_while(&|| Instant::now() < end);
    }

    pub(crate) fn empty_trash_while(&self, go_on: &dyn Fn() -> bool) {
        let Ok(entries) = fs::read_dir(self.path("trash")) else { return };
        for entry in entries.flatten() {
            self.delete(&entry.file_name(), go_on);
        }
    }

    /// Deletes one thing of the trash, as far as `go_on` lets it.
    pub(crate) fn delete(&self, name: &OsStr, go_on: &dyn Fn() -> bool) {
        let Ok(trash) = fs::File::open(self.path("trash")) else { return };
        // Steps may have made it deeper than the standard library can delete.
        let _ = oci::layer::remove_while(trash.as_fd(), name.as_encoded_bytes(), go_on);
    }

    /// Attempts whose lock nobody holds belong to processes that are gone.
    fn clear_leavings(&self) -> Result<()> {
        let directory = self.path("tmp");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "lease") {
                self.clear_dead_lease(&path);
            } else if path.extension().is_some_and(|extension| extension == "lock")
                && let Some(_lock) = lock::try_lock_existing(&path)
            {
                self.discard(&path.with_extension(""));
                let _ = fs::remove_file(&path);
            }
        }
        self.clear_dead_containers();
        Ok(())
    }
}

fn discard(root: &Path, path: &Path) -> Option<OsString> {
    let name = format!("{}-{}", random_name(), path.file_name().unwrap_or_default().to_string_lossy());
    // Where even that fails there is nothing to be done; the next start tries again.
    fs::rename(path, root.join("trash").join(&name)).ok()?;
    Some(name.into())
}

/// A damaged database, after the layers that nothing else knows of.
fn throw_away(root: &Path, database: &[PathBuf]) {
    let layers = fs::read_dir(root.join("snapshots")).into_iter().flatten().flatten();
    for path in layers.map(|entry| entry.path()).chain(database.iter().cloned()) {
        discard(root, &path);
    }
}

/// A directory with other things in it must not become a store: its `tmp` would be cleared. What a process that died while it made a
/// store has left is no other thing.
fn refuse_foreign(root: &Path) -> Result<()> {
    const OURS: [&str; 11] =
        ["ballast", "blobs", "snapshots", "mounts", "containers", "builds", "git", "tmp", "locks", "trash", "empty"];
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("open the store", root))?,
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let begins = ["index.", "oci-layout", "cache.db", crate::usage::DIGESTS];
    let is_ours = |name: &String| OURS.contains(&name.as_str()) || begins.iter().any(|begin| name.starts_with(begin));
    match names.into_iter().find(|name| !is_ours(name)) {
        Some(found) => Err(Error::NotAStore { path: root.to_owned(), found }),
        None => Ok(()),
    }
}

fn create(root: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for name in
        ["", "blobs/sha256", "snapshots", "mounts", "containers", "builds/files", "tmp", "locks", "trash", "empty"]
    {
        let path = root.join(name);
        builder.create(&path).map_err(Error::io("create the store's directory", &path))?;
    }
    write_new(
        &root.join("index.json"),
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
    )?;
    // Last: its presence says that the rest is there.
    write_new(&root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// Writes a file unless it is there: another process may be creating the same store.
fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let temporary = path.with_extension(format!("new-{}", random_name()));
    let written = fs::File::create(&temporary).and_then(|mut file| file.write_all(content));
    written.map_err(Error::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("write", path))
}

/// A name that nobody else chooses.
pub(crate) fn random_name() -> String {
    let mut bytes = [0; 12];
    // The kernel's random source does not fail once the machine is up.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_is_an_image_layout() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("deep/store");
        Store::open(&root).unwrap();
        Store::open(&root).unwrap();
        assert_eq!(fs::read(root.join("oci-layout")).unwrap(), br#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    #[test]
    fn other_directories_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("tmp/other.lock");
        fs::create_dir(directory.path().join("tmp")).unwrap();
        fs::write(&lock, "").unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(matches!(Store::open(directory.path()), Err(Error::NotAStore { .. })));
        assert!(lock.exists() && !directory.path().join("oci-layout").exists());
        // What a process left that died while it made a store is gone on with.
        fs::remove_file(directory.path().join("file")).unwrap();
        fs::remove_file(lock).unwrap();
        Store::open(directory.path()).unwrap();
    }

    /// A cache can be made again, images cannot.
    #[test]
    fn a_damaged_database_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (root, database) = (directory.path(), directory.path().join("cache.db"));
        let damages: [&dyn Fn(); 4] = [
            &|| fs::write(&database, vec![0; fs::metadata(&database).unwrap().len() as usize]).unwrap(),
            &|| fs::File::options().write(true).open(&database).unwrap().set_len(5000).unwrap(),
            &|| fs::remove_file(&database).and_then(|()| fs::create_dir(&database)).unwrap(),
            &|| fs::write(root.join("cache.db-damaged"), "").unwrap(),
        ];
        let blob = Store::open(root).unwrap().put_blob(b"of an image").unwrap();
        for damage in damages {
            let store = Store::open(root).unwrap();
            assert!(!store.begins_anew());
            store.put_memo("n", "k", b"v").unwrap();
            fs::create_dir_all(root.join("snapshots/layer-1/fs")).unwrap();
            drop(store);
            damage();
            let store = Store::open(root).unwrap();
            assert!(store.begins_anew() && store.has_blob(&blob));
            assert_eq!(store.memo("n", "k").unwrap(), None);
            assert_eq!(fs::read_dir(root.join("snapshots")).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_damaged_database_stays_while_it_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let failed = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None);
        let error = store.database().with(|_| Err::<(), _>(failed())).unwrap_err();
        assert!(error.to_string().contains("begins with an empty cache"), "{error}");
        assert!(Store::open(directory.path()).is_err_and(|error| error.is_damaged_database()));
        drop(store);
        std::thread::scope(|scope| {
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::open(directory.path()).unwrap())).collect();
            let anew = opened.into_iter().map(|store| store.join().unwrap().begins_anew());
            assert_eq!(anew.filter(|anew| *anew).count(), 1);
        });
    }

    #[test]
    fn what_is_missing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        Store::open(directory.path()).unwrap().file_digests(Path::new("/c"));
        fs::write(directory.path().join("digests-1"), "").unwrap();
        fs::remove_file(directory.path().join("oci-layout")).unwrap();
        fs::remove_file(directory.path().join("index.json")).unwrap();
        assert!(Store::open(directory.path()).unwrap().images().unwrap().is_empty());
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        Store::open(directory.path()).unwrap();
        let connection = rusqlite::Connection::open(directory.path().join("cache.db")).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(Store::open(directory.path()), Err(Error::NewerStore { found: 99, .. })));
    }
}
