//! Layers as directories.

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::store::{Store, random_name};
use oci::{DiffId, Digest};
use rusqlite::OptionalExtension;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names a layer of this store. Also a directory's name, so of letters, digits and `-` only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(String);

impl LayerId {
    /// The id of an image's layer: by the chain of diff ids that it ends, since unpacking depends on what lies below.
    pub fn of_chain(chain: &Digest) -> Self {
        LayerId(format!("chain-{}", chain.hex()))
    }

    /// The id of a step's layer that was made elsewhere: by a hash of what it is and of what is below it.
    pub fn of_cached(hash: &[u8; 32]) -> Self {
        LayerId(format!("cached-{}", hex::encode(hash)))
    }
}

impl LayerId {
    /// Whether a text could be the id of a layer.
    pub(crate) fn is_one(text: &str) -> bool {
        ["layer-", "chain-", "cached-"].iter().any(|prefix| text.starts_with(prefix)) && !text.contains(['/', '.'])
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRecord {
    /// What was below when it was made, bottom first.
    pub lowers: Vec<LayerId>,
    /// The content id of that.
    pub lowers_content: [u8; 32],
    /// The content id of the layer alone.
    pub content_id: [u8; 32],
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Which family of attributes its overlay marks are in.
    pub userxattr: bool,
    /// Bytes of file content.
    pub size: u64,
    pub diff_id: Option<DiffId>,
}

/// A layer as a blob.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerBlob {
    pub diff_id: DiffId,
    pub digest: Digest,
    pub size: u64,
}

/// A layer in the making: an upper directory, and the work directory that an overlay mount wants beside it.
pub struct Attempt {
    store: Store,
    path: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    committed: bool,
    _lock: FileLock,
}

impl Attempt {
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Where what is known of the files' digests may be kept; it goes with the layer.
    pub fn digests(&self) -> PathBuf {
        self.path.join("digests")
    }

    /// Makes the upper directory a layer: a rename, and a record after it. Without an id it gets a fresh one. If another process was
    /// faster with the same id, its layer stands.
    pub fn commit(mut self, id: Option<LayerId>, record: &LayerRecord) -> Result<LayerId> {
        let id = id.unwrap_or_else(|| LayerId(format!("layer-{}", random_name())));
        let place = self.store.path("snapshots").join(&id.0);
        // The kernel's leavings in the work directory are of no use, and a volatile one must never be mounted again.
        let _ = fs::remove_dir_all(&self.work);
        self.store.makes_layer(&id, record.size);
        match fs::rename(&self.path, &place) {
            Ok(()) => {
                self.committed = true;
                self.store.put_layer(&id, record)?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                if self.store.layer(&id)?.is_none() {
                    self.store.put_layer(&id, record)?;
                }
            }
            Err(error) => return Err(Error::io("store the layer", &place)(error)),
        }
        Ok(id)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.committed {
            self.store.discard(&self.path);
        }
        let _ = fs::remove_file(self.path.with_extension("lock"));
    }
}

impl Store {
    pub fn begin_layer(&self) -> Result<Attempt> {
        let path = self.path("tmp").join(random_name());
        let lock = FileLock::acquire(&path.with_extension("lock"))?;
        let (upper, work) = (path.join("fs"), path.join("work"));
        for directory in [&path, &upper, &work] {
            let made = fs::DirBuilder::new().mode(0o755).create(directory);
            made.map_err(Error::io("create", directory))?;
        }
        // The root directory of a layer is never an entry of it; its mode shows in containers all the same.
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(Error::io("set the mode of", &upper))?;
        Ok(Attempt { store: self.clone(), path, upper, work, committed: false, _lock: lock })
    }

    /// Where digests of a layer's files may be, if the layer's maker wrote them down.
    pub fn layer_digests(&self, id: &LayerId) -> PathBuf {
        self.path("snapshots").join(&id.0).join("digests")
    }

    /// Where a layer's files are.
    pub fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.path("snapshots").join(&id.0).join("fs")
    }

    fn put_layer(&self, id: &LayerId, record: &LayerRecord) -> Result<()> {
        let lowers: Vec<&str> = record.lowers.iter().map(|lower| lower.0.as_str()).collect();
        self.database().with(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO layer
                     (id, lowers, lowers_content, content, created, userxattr, size, diff_id)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute((
                    &id.0,
                    lowers.join(" "),
                    record.lowers_content,
                    record.content_id,
                    record.created,
                    record.userxattr,
                    i64::try_from(record.size).unwrap_or(i64::MAX),
                    record.diff_id.map(|diff_id| diff_id.to_string()),
                ))
        })?;
        Ok(())
    }

    /// A layer's record, if the layer is there.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerRecord>> {
        self.rely_on(&id.0);
        let record = self.database().with(|connection| {
            connection
                .prepare_cached(
                    "SELECT lowers, lowers_content, content, created, userxattr, size, diff_id FROM layer WHERE id = ?",
                )?
                .query_row((&id.0,), |row| {
                    let lowers: String = row.get(0)?;
                    Ok(LayerRecord {
                        lowers: lowers.split_whitespace().map(|lower| LayerId(lower.to_owned())).collect(),
                        lowers_content: row.get(1)?,
                        content_id: row.get(2)?,
                        created: row.get(3)?,
                        userxattr: row.get(4)?,
                        size: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                        diff_id: parsed(row.get(6)?).map(DiffId),
                    })
                })
                .optional()
        })?;
        Ok(record.filter(|_| self.layer_path(id).exists()))
    }

    pub(crate) fn is_recorded(&self, id: &str) -> Result<bool> {
        self.database().with(|connection| connection.prepare_cached("SELECT 1 FROM layer WHERE id = ?")?.exists((id,)))
    }

    pub fn has_layer(&self, id: &LayerId) -> Result<bool> {
        Ok(self.layer(id)?.is_some())
    }

    /// An earlier layer of the same content, made over the same content.
    pub fn layer_with_content(&self, lowers_content: [u8; 32], content_id: [u8; 32]) -> Result<Option<LayerId>> {
        let ids = self.database().with(|connection| {
            connection
                .prepare_cached("SELECT id FROM layer WHERE lowers_content = ? AND content = ? ORDER BY created")?
                .query_map((lowers_content, content_id), |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let is_there = |id: &LayerId| {
            self.rely_on(&id.0);
            self.layer_path(id).exists() && matches!(self.is_recorded(&id.0), Ok(true))
        };
        Ok(ids.into_iter().map(LayerId).find(is_there))
    }

    /// The blob that `layer` was written as with `codec`, if it is still there.
    pub fn layer_blob(&self, layer: &LayerId, codec: &str) -> Result<Option<LayerBlob>> {
        let blob = self.database().with(|connection| {
            connection
                .prepare_cached("SELECT diff_id, digest, size FROM layer_blob WHERE layer = ? AND codec = ?")?
                .query_row((&layer.0, codec), |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
                })
                .optional()
        })?;
        Ok(blob
            .and_then(|(diff_id, digest, size)| {
                Some(LayerBlob {
                    diff_id: DiffId(diff_id.parse().ok()?),
                    digest: digest.parse().ok()?,
                    size: u64::try_from(size).ok()?,
                })
            })
            .filter(|blob| self.has_blob(&blob.digest)))
    }

    pub fn put_layer_blob(&self, layer: &LayerId, codec: &str, blob: &LayerBlob) -> Result<()> {
        self.database().with(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO layer_blob (layer, codec, diff_id, digest, size) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute((
                    &layer.0,
                    codec,
                    blob.diff_id.to_string(),
                    blob.digest.to_string(),
                    i64::try_from(blob.size).unwrap_or(i64::MAX),
                ))
        })?;
        Ok(())
    }
}

fn parsed(text: Option<String>) -> Option<Digest> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: u8) -> LayerRecord {
        LayerRecord {
            lowers: vec![LayerId("chain-1".into())],
            lowers_content: [1; 32],
            content_id: [content; 32],
            created: 5,
            userxattr: false,
            size: 9,
            diff_id: None,
        }
    }

    #[test]
    fn committed_layers_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let attempt = store.begin_layer().unwrap();
        fs::write(attempt.upper().join("f"), "x").unwrap();
        let id = attempt.commit(None, &record(2)).unwrap();
        let other = Store::open(directory.path()).unwrap();
        assert_eq!(other.layer(&id).unwrap(), Some(record(2)));
        assert_eq!(fs::read_to_string(other.layer_path(&id).join("f")).unwrap(), "x");
        assert_eq!(other.layer_with_content([1; 32], [2; 32]).unwrap(), Some(id.clone()));
        assert_eq!(other.layer_with_content([1; 32], [3; 32]).unwrap(), None);
        store.end_use().unwrap();
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        fs::remove_dir_all(store.path("snapshots").join(&id.0)).unwrap();
        assert_eq!(store.layer(&id).unwrap(), None);
    }

    #[test]
    fn the_first_of_two_equal_layers_stands() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let id = LayerId::of_chain(&Digest::of(b"base"));
        for text in ["first", "second"] {
            let attempt = store.begin_layer().unwrap();
            fs::write(attempt.upper().join("f"), text).unwrap();
            assert_eq!(attempt.commit(Some(id.clone()), &record(2)).unwrap(), id);
        }
        assert_eq!(fs::read_to_string(store.layer_path(&id).join("f")).unwrap(), "first");
    }

    #[test]
    fn leavings_of_the_dead_are_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let dead = directory.path().join("tmp/dead");
        fs::create_dir_all(dead.join("fs")).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        let alive = store.begin_layer().unwrap();
        Store::open(directory.path()).unwrap();
        assert!(!dead.exists());
        assert!(alive.upper().exists());
    }
}
