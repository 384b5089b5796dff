//! Contents of small files that were read to find a key, for the copy that may follow: so that these are read once too.

use super::stat::{Stat, Time};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Larger files are read again.
pub(crate) const MAX_FILE: u64 = 256 * 1024;
const MAX_TOTAL: usize = 16 << 20;

type Version = (u64, u64, u64, Time, Time);

/// At most 16 MiB.
#[derive(Default)]
pub struct Recent(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    files: HashMap<Version, (Vec<u8>, [u8; 32])>,
    total: usize,
}

impl Recent {
    /// `digest` is that of the content, which was read while the file had `stat`.
    pub(crate) fn put(&self, stat: &Stat, content: Vec<u8>, digest: [u8; 32]) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.total + content.len() <= MAX_TOTAL {
            recent.total += content.len();
            if let Some((old, _)) = recent.files.insert(stat.version(), (content, digest)) {
                recent.total -= old.len();
            }
        }
    }

    /// The content of a file in the state of `stat`, and its digest. Given once.
    pub(crate) fn take(&self, stat: &Stat) -> Option<(Vec<u8>, [u8; 32])> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = recent.files.remove(&stat.version())?;
        recent.total -= found.0.len();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_by_state() {
        let recent = Recent::default();
        let file = tempfile::tempfile().unwrap();
        let mut stat = super::super::stat_of(&file).unwrap();
        for ino in 0..100 {
            stat.ino = ino;
            recent.put(&stat, vec![1; MAX_FILE as usize], [2; 32]);
        }
        assert_eq!(recent.0.lock().unwrap().total, MAX_TOTAL);
        stat.ino = 3;
        let mut changed = stat;
        changed.mtime.nanoseconds ^= 1;
        assert!(recent.take(&changed).is_none());
        assert_eq!(recent.take(&stat).unwrap().1, [2; 32]);
        assert!(recent.take(&stat).is_none());
    }
}
