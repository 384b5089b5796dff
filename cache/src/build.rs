//! Records of recent builds, and lists of files that their steps took.
//!
//! `builds/ID_DOCKERFILE_BUILD_FINGERPRINT` is a record: which Dockerfile and which build of it, as hashes, so that finding the last build of something is reading
//! a directory's names; what the fingerprint says is the writer's business. `builds/files/HASH` is a list of files. What both hold is the
//! writer's own. Nothing else depends on them: they may be deleted at any time.

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::store::{Store, random_name};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// R7.7.11.
const MOST_BUILDS: usize = 50;
const MOST_FILE_LISTS: usize = 400;
const MOST_FILE_LIST_BYTES: u64 = 64 << 20;
/// Of a record or a list.
const MOST_BYTES: u64 = 32 << 20;

/// Names a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildEntry {
    /// Sorts by time.
    pub id: String,
    /// The same for builds of the same Dockerfile.
    pub dockerfile: String,
    /// The same for builds of the same.
    pub build: String,
    /// The same for builds that need not be told apart.
    pub fingerprint: String,
}

impl BuildEntry {
    fn parse(name: &str) -> Option<BuildEntry> {
        let mut parts = name.split('_').map(str::to_owned);
        let entry = BuildEntry {
            id: parts.next()?,
            dockerfile: parts.next()?,
            build: parts.next()?,
            fingerprint: parts.next()?,
        };
        parts.next().is_none().then_some(entry)
    }

    fn name(&self) -> String {
        [&self.id, &self.dockerfile, &self.build, &self.fingerprint].map(String::as_str).join("_")
    }
}

impl Store {
    fn builds_directory(&self) -> PathBuf {
        self.path("builds")
    }

    /// The records that there are, the latest first.
    pub fn builds(&self) -> Result<Vec<BuildEntry>> {
        let directory = self.builds_directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("list", &directory))?,
        };
        let names = entries.flatten().filter_map(|entry| BuildEntry::parse(entry.file_name().to_str()?));
        let mut builds: Vec<_> = names.collect();
        builds.sort_unstable_by(|a, b| b.cmp(a));
        Ok(builds)
    }

    /// What a record holds; `None` if it is gone.
    pub fn build(&self, entry: &BuildEntry) -> Result<Option<Vec<u8>>> {
        read(&self.builds_directory().join(entry.name()))
    }

    /// Keeps a record under a new id, and drops the oldest ones beyond 50. The parts of its name are of letters and digits.
    pub fn put_build(&self, dockerfile: &str, build: &str, fingerprint: &str, content: &[u8]) -> Result<BuildEntry> {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let entry = BuildEntry {
            id: format!("{millis:012x}{}", &random_name()[..4]),
            dockerfile: dockerfile.to_owned(),
            build: build.to_owned(),
            fingerprint: fingerprint.to_owned(),
        };
        self.write(&self.builds_directory().join(entry.name()), content)?;
        for old in self.builds()?.iter().skip(MOST_BUILDS) {
            self.discard(&self.builds_directory().join(old.name()));
        }
        Ok(entry)
    }

    /// A key for hashes in records; the store's own, so that they tell nothing elsewhere. Of two processes that make it at the same time, the
    /// later one's stands.
    pub fn build_secret(&self) -> Result<[u8; 32]> {
        let path = self.builds_directory().join("secret");
        for _ in 0..2 {
            if let Some(secret) = read(&path)?.and_then(|bytes| bytes.try_into().ok()) {
                return Ok(secret);
            }
            let mut secret = [0; 32];
            // The kernel's random source does not fail once the machine is up.
            let _ = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
            self.write(&path, &secret)?;
        }
        // What was written is not there: nothing can be compared with it later, and nothing be found out from it.
        Ok([0; 32])
    }

    /// The list of files of this name; `None` if there is none.
    pub fn file_list(&self, name: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        read(&self.file_list_path(name))
    }

    /// Keeps a list of files, and drops the oldest ones beyond 400 or 64 MiB.
    pub fn put_file_list(&self, name: &[u8; 32], content: &[u8]) -> Result<()> {
        self.write(&self.file_list_path(name), content)?;
        let directory = self.builds_directory().join("files");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        let stat = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        };
        let mut lists: Vec<_> = entries.flatten().filter_map(stat).collect();
        lists.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        for (position, (_, length, path)) in lists.iter().enumerate() {
            bytes += length;
            if position >= MOST_FILE_LISTS || bytes > MOST_FILE_LIST_BYTES {
                self.discard(path);
            }
        }
        Ok(())
    }

    pub fn has_file_list(&self, name: &[u8; 32]) -> bool {
        self.file_list_path(name).exists()
    }

    fn file_list_path(&self, name: &[u8; 32]) -> PathBuf {
        self.builds_directory().join("files").join(hex::encode(name))
    }

    /// Written under `tmp/` and renamed.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = self.path("tmp").join(random_name());
        let lock = temporary.with_extension("lock");
        let _held = FileLock::acquire(&lock)?;
        let written = fs::write(&temporary, content).map_err(Error::io("write", &temporary));
        let renamed = written.and_then(|()| match fs::rename(&temporary, path) {
            // A store of an older version.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directories()?;
                fs::rename(&temporary, path).map_err(Error::io("write", path))
            }
            renamed => renamed.map_err(Error::io("write", path)),
        });
        if renamed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        let _ = fs::remove_file(&lock);
        renamed
    }

    fn make_directories(&self) -> Result<()> {
        let path = self.builds_directory().join("files");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(Error::io("create", &path))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(Error::io("read", path))?,
    };
    let mut content = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut content).map_err(Error::io("read", path))?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_builds_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.builds().unwrap(), []);
        let entries: Vec<_> = (0..53)
            .map(|index: u8| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                store.put_build("d", "b", &format!("f{index}"), &[index]).unwrap()
            })
            .collect();
        let kept = store.builds().unwrap();
        assert_eq!(kept, entries.iter().rev().take(50).cloned().collect::<Vec<_>>());
        assert_eq!(store.build(&kept[0]).unwrap().as_deref(), Some(&[52][..]));
        assert_eq!(store.build(&entries[0]).unwrap(), None, "R7.7.11");
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        // A store that an older version made, and one whose records somebody removed.
        fs::remove_dir_all(directory.path().join("builds")).unwrap();
        assert_eq!(store.builds().unwrap(), []);
        let entry = store.put_build("d", "b", "f", b"new").unwrap();
        fs::write(directory.path().join("builds/other file"), "").unwrap();
        assert_eq!(store.builds().unwrap(), [entry]);
    }

    #[test]
    fn the_secret_stays() {
        let directory = tempfile::tempdir().unwrap();
        let secret = Store::open(directory.path()).unwrap().build_secret().unwrap();
        assert_eq!(Store::open(directory.path()).unwrap().build_secret().unwrap(), secret);
        fs::write(directory.path().join("builds/secret"), "damaged").unwrap();
        assert_ne!(Store::open(directory.path()).unwrap().build_secret().unwrap(), secret);
    }

    #[test]
    fn lists_of_files_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let name = |index: usize| *blake3::hash(&index.to_le_bytes()).as_bytes();
        for index in 0..MOST_FILE_LISTS + 2 {
            store.put_file_list(&name(index), b"list").unwrap();
        }
        let count = fs::read_dir(directory.path().join("builds/files")).unwrap().count();
        assert_eq!(count, MOST_FILE_LISTS);
        assert_eq!(store.file_list(&name(MOST_FILE_LISTS + 1)).unwrap().as_deref(), Some(&b"list"[..]));
        store.put_file_list(&name(1), &vec![0; 30 << 20]).unwrap();
        for index in 2..5 {
            store.put_file_list(&name(index), &vec![0; 30 << 20]).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path().join("builds/files")).unwrap().count(), 2);
    }
}
