//! A little room kept back for a full disk: SQLite cannot even open its file where there is none for its log and its shared memory, and without
//! records nothing can be taken out of the cache. Only a collection that the user asks for gives it up.

use crate::store::Store;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const NAME: &str = "ballast";
/// Enough to forget some hundred records.
const SIZE: u64 = 1 << 20;
/// Where less is free than this, others need it more.
const PLENTY: u64 = 8 << 20;

impl Store {
    /// Keeps the room back, if there is plenty.
    pub(crate) fn keep_ballast(&self) {
        let path = self.path(NAME);
        if path.exists() || self.disk().is_ok_and(|disk| disk.free < PLENTY) {
            return;
        }
        let filled =
            File::create(&path).and_then(|mut file| match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
                Ok(()) => Ok(()),
                // File systems that cannot reserve.
                Err(_) => file.write_all(&[0; SIZE as usize]),
            });
        if filled.is_err() {
            let _ = fs::remove_file(path);
        }
    }
}

/// Makes room in the store at `root` for its database: the ballast, and what nobody needs.
pub(crate) fn drop_ballast(root: &Path) {
    let _ = fs::remove_file(root.join(NAME));
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(crate::usage::DIGESTS.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
