//! How much room things take on the disk.
//!
//! Files of layers may be hard links that several layers share. Each file counts once, with the oldest layer that has it: measured then, and kept, as
//! layers never change. A layer that has links into others is marked: should one of these go, its own size is another, and it is measured anew.
//!
//! The rule that makes this exact: a file whose names were all found in the layers that are measured together counts with the oldest of these. One
//! with more names counts with none, as a layer that was measured earlier has it.

use crate::error::Result;
use crate::store::Store;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Directories deeper than this are not measured: each level takes a descriptor.
const DEEPEST: usize = 256;

/// A tree's files.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Bytes on the disk of what has all its names in the tree.
    pub own: u64,
    /// Files that have names elsewhere too, by device and inode: names found here, names in all, and bytes.
    linked: HashMap<(u64, u64), (u64, u64, u64)>,
    /// It was given up.
    pub is_partial: bool,
}

impl Measured {
    pub fn is_linked(&self) -> bool {
        !self.linked.is_empty()
    }

    fn add(&mut self, stat: &Stat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory || stat.st_nlink <= 1 {
            self.own += bytes;
            return;
        }
        #[allow(clippy::useless_conversion, reason = "types differ between processors")]
        let names = u64::from(stat.st_nlink);
        let found = self.linked.entry((stat.st_dev, stat.st_ino)).or_insert((0, names, bytes));
        found.0 += 1;
        if found.0 == found.1 {
            self.own += bytes;
            self.linked.remove(&(stat.st_dev, stat.st_ino));
        }
    }
}

/// Measures what lies at `path`; what cannot be read counts for nothing.
pub(crate) fn measure(path: &Path, go_on: &dyn Fn() -> bool) -> Measured {
    let mut measured = Measured::default();
    let Ok(stat) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) else { return measured };
    measured.add(&stat);
    let open = |at: &OwnedFd, name: &CString| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::openat(CWD, path, flags, Mode::empty()) else { return measured };
    let mut levels = vec![(names(&root), root)];
    while let Some((rest, directory)) = levels.last_mut() {
        let Some(name) = rest.pop() else {
            levels.pop();
            continue;
        };
        if !go_on() {
            measured.is_partial = true;
            break;
        }
        let Ok(stat) = rustix::fs::statat(&*directory, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        measured.add(&stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && levels.len() < DEEPEST
            && let Some((_, directory)) = levels.last()
            && let Ok(inner) = open(directory, &name)
        {
            levels.push((names(&inner), inner));
        }
    }
    measured
}

fn names(directory: &OwnedFd) -> Vec<CString> {
    let Ok(entries) = rustix::fs::Dir::read_from(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_owned());
    names.filter(|name| !matches!(name.as_bytes(), b"." | b"..")).collect()
}

impl Store {
    /// Measures the layers whose size is not known yet. What `go_on` keeps it from is done the next time.
    pub(crate) fn measure_layers(&self, go_on: &dyn Fn() -> bool) -> Result<()> {
        let unknown = self.database().with(|connection| {
            connection
                .prepare_cached(
                    "SELECT layer.id, layer.created FROM layer LEFT JOIN usage USING (id) WHERE usage.size IS NULL
                     ORDER BY layer.created",
                )?
                .query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut sizes = Vec::with_capacity(unknown.len());
        let mut linked: HashMap<(u64, u64), (u64, u64, u64, usize)> = HashMap::new();
        for (id, created) in unknown {
            let measured = measure(&self.path("snapshots").join(&id), go_on);
            if measured.is_partial {
                break;
            }
            for (inode, (found, names, bytes)) in &measured.linked {
                linked.entry(*inode).or_insert((0, *names, *bytes, sizes.len())).0 += found;
            }
            sizes.push((id, created, measured.own, measured.is_linked()));
        }
        for (found, names, bytes, oldest) in linked.into_values() {
            if found >= names {
                sizes[oldest].2 += bytes;
            }
        }
        if sizes.is_empty() {
            return Ok(());
        }
        self.database().change(|connection| {
            let mut put = connection.prepare_cached(
                "INSERT INTO usage (id, last_used, uses, size, linked) VALUES (?1, ?2, 0, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET size = ?3, linked = ?4",
            )?;
            for (id, created, size, is_linked) in &sizes {
                put.execute((id, created / 1_000_000, i64::try_from(*size).unwrap_or(i64::MAX), is_linked))?;
            }
            Ok(())
        })
    }

    /// Something went that others have links into.
    pub(crate) fn measure_linked_anew(&self) -> Result<()> {
        self.database().with(|connection| connection.execute("UPDATE usage SET size = NULL WHERE linked", ()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerId, LayerRecord};
    use std::fs;

    /// One megabyte a file.
    fn layer(store: &Store, created: i64, fill: impl FnOnce(&Path)) -> LayerId {
        let attempt = store.begin_layer().unwrap();
        fill(attempt.upper());
        let record = LayerRecord {
            lowers: vec![],
            lowers_content: [0; 32],
            content_id: [0; 32],
            created,
            userxattr: false,
            size: 0,
            diff_id: None,
        };
        attempt.commit(None, &record).unwrap()
    }

    fn megabytes(store: &Store, id: &LayerId) -> u64 {
        store.measure_layers(&|| true).unwrap();
        let size = |connection: &rusqlite::Connection| {
            connection.query_row("SELECT size FROM usage WHERE id = ?", (id.to_string(),), |row| row.get::<_, i64>(0))
        };
        u64::try_from(store.database().with(size).unwrap()).unwrap() >> 20
    }

    #[test]
    fn shared_files_count_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let file = |path: &Path| fs::write(path, vec![1; 1 << 20]).unwrap();
        let first = layer(&store, 1, |upper| {
            file(&upper.join("shared"));
            file(&upper.join("twice"));
            fs::hard_link(upper.join("twice"), upper.join("again")).unwrap();
        });
        assert_eq!(megabytes(&store, &first), 2);
        let link = |upper: &Path| fs::hard_link(store.layer_path(&first).join("shared"), upper.join("shared")).unwrap();
        let second = layer(&store, 2, |upper| {
            link(upper);
            file(&upper.join("own"));
        });
        assert_eq!(megabytes(&store, &second), 1);
        let third = layer(&store, 3, link);
        assert_eq!((megabytes(&store, &first), megabytes(&store, &second), megabytes(&store, &third)), (2, 1, 0));
        // Without the first, the second is the oldest that has the file.
        fs::remove_dir_all(directory.path().join("snapshots").join(first.to_string())).unwrap();
        store.database().with(|connection| connection.execute("DELETE FROM layer WHERE created = 1", ())).unwrap();
        store.measure_linked_anew().unwrap();
        assert_eq!((megabytes(&store, &second), megabytes(&store, &third)), (2, 0));
    }

    #[test]
    fn layers_that_are_measured_together() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let newer = layer(&store, 2, |upper| fs::write(upper.join("f"), vec![1; 1 << 20]).unwrap());
        let older = layer(&store, 1, |upper| {
            fs::hard_link(store.layer_path(&newer).join("f"), upper.join("f")).unwrap();
        });
        assert_eq!((megabytes(&store, &older), megabytes(&store, &newer)), (1, 0));
    }
}
