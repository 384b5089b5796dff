//! Removing what a process made for itself and needs no more.

use crate::error::Result;
use crate::lock::FileLock;
use crate::mount;
use crate::store::Store;
use std::collections::BTreeSet;
use std::fs;

impl Store {
    /// Removes layers that this process made, of which no result is recorded, and cache directories, unless others have come to rely on them. `ids`:
    /// those of layers and of [cache directories](crate::CacheMountLease::id).
    pub fn take_back(&self, ids: &BTreeSet<String>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let exclusive = self.exclusive()?;
        let leased = self.leased_by_others(&exclusive);
        let mut gone = Vec::new();
        for id in ids.iter().map(String::as_str).filter(|id| !leased.contains(*id)) {
            if self.is_result(id)? {
                continue;
            }
            let place = self.place(id);
            let lock = match id.starts_with(mount::PREFIX) {
                true => match FileLock::try_acquire(&mount::lock_path(&place))? {
                    Some(lock) => Some(lock),
                    None => continue,
                },
                false => None,
            };
            if self.discard(&place).is_some() {
                gone.push(id);
                if let Some(lock) = lock {
                    let _ = fs::remove_file(lock.path());
                }
            }
        }
        self.forget(&gone)
    }

    fn is_result(&self, layer: &str) -> Result<bool> {
        self.database().with(|connection| {
            connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM result WHERE layer = ?)")?
                .query_row((layer,), |row| row.get(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerRecord, ResultRecord, Sharing};

    #[test]
    fn what_others_have_come_to_know_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (store, other) = (Store::open(directory.path()).unwrap(), Store::open(directory.path()).unwrap());
        let record = LayerRecord {
            lowers: vec![],
            lowers_content: [0; 32],
            content_id: [0; 32],
            created: 0,
            userxattr: false,
            size: 0,
            diff_id: None,
        };
        let layers: Vec<_> = (0..3).map(|_| store.begin_layer().unwrap().commit(None, &record).unwrap()).collect();
        store.record(&[1; 32], &ResultRecord { layer: layers[0].clone(), note: None }).unwrap();
        other.rely_on(&layers[1].to_string());
        let mount = store.cache_mount("x", Sharing::Shared).unwrap();
        let (path, id) = (mount.path().to_owned(), mount.id());
        let mut ids: BTreeSet<String> = layers.iter().map(ToString::to_string).collect();
        ids.insert(id);
        store.take_back(&ids).unwrap();
        assert!(path.exists(), "in use");
        drop(mount);
        store.take_back(&ids).unwrap();
        let left: Vec<_> = layers.iter().map(|id| store.has_layer(id).unwrap()).collect();
        assert_eq!((left, path.exists()), (vec![true, true, false], false));
        assert_eq!(fs::read_dir(directory.path().join("mounts")).unwrap().count(), 0);
    }
}
