//! Digests of files remembered by what `stat` says, so that an unchanged context is not read again.
//!
//! The rule is git's: a file with the same device, inode, size, mtime and ctime has the same content, *unless* it was changed in the
//! same tick of the file system's clock in which it was read. Entries that young are not remembered at all; the next build reads them
//! once more. The ctime also moves when a mode or an extended attribute does, so the digest may cover attributes too.
//!
//! On disk a cache is one file: a header, records sorted by (device, inode), and a checksum of all before it. It is searched in place. Whatever is
//! wrong with it, it is an empty cache: nothing but time is lost.

use super::stat::Stat;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const MAGIC: &[u8; 16] = b"rbuild stat 0001";
/// dev, ino, size, mtime s, ctime s: 8 bytes each; mtime ns, ctime ns: 4 bytes each; digest.
const RECORD: usize = 5 * 8 + 2 * 4 + 32;
const CHECKSUM: usize = 32;
/// About 84 MB.
const MAX_RECORDS: usize = 1 << 20;
/// FAT keeps times in units of two seconds; nothing in use is coarser.
const RACY: Duration = Duration::from_secs(2);

type Key = [u8; RECORD - 32];

#[derive(Default)]
pub struct StatCache {
    /// Records as on disk.
    stored: Vec<u8>,
    /// One bit a stored record: used since it was loaded.
    used: Vec<AtomicU64>,
    added: Mutex<HashMap<(u64, u64), [u8; RECORD]>>,
}

impl StatCache {
    pub fn new() -> StatCache {
        StatCache::default()
    }

    /// A missing, damaged or foreign file gives an empty cache.
    pub fn load(path: &Path) -> StatCache {
        let mut data = match read_bounded(path) {
            Ok(data) => data,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(path = %path.display(), %error, "stat cache not read");
                }
                return StatCache::default();
            }
        };
        let body = data.len().saturating_sub(CHECKSUM);
        let sound = body >= MAGIC.len()
            && (body - MAGIC.len()).is_multiple_of(RECORD)
            && data.starts_with(MAGIC)
            && checksum(&data[..body]) == data[body..];
        if !sound {
            tracing::debug!(path = %path.display(), "stat cache is damaged, starting a new one");
            return StatCache::default();
        }
        data.truncate(body);
        data.drain(..MAGIC.len());
        let words = (data.len() / RECORD).div_ceil(64);
        StatCache { stored: data, used: (0..words).map(|_| AtomicU64::new(0)).collect(), added: Mutex::default() }
    }

    /// Writes the file anew if anything was added, by rename. With more than a million records those go that were not used.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        if added.is_empty() {
            return Ok(());
        }
        let (mut used, mut unused): (Vec<&[u8]>, Vec<&[u8]>) = (Vec::new(), Vec::new());
        for (at, record) in self.stored.chunks_exact(RECORD).enumerate() {
            if !added.contains_key(&identity(record)) {
                let was_used = self.used[at / 64].load(Ordering::Relaxed) & (1 << (at % 64)) != 0;
                if was_used { used.push(record) } else { unused.push(record) }
            }
        }
        used.extend(added.values().map(<[u8; RECORD]>::as_slice));
        used.truncate(MAX_RECORDS);
        unused.truncate(MAX_RECORDS - used.len());
        used.append(&mut unused);
        used.sort_unstable_by_key(|record| identity(record));

        let mut data = Vec::with_capacity(MAGIC.len() + used.len() * RECORD + CHECKSUM);
        data.extend_from_slice(MAGIC);
        used.iter().for_each(|record| data.extend_from_slice(record));
        data.extend_from_slice(&checksum(&data));
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&data)?;
        file.persist(path)?;
        Ok(())
    }

    pub(crate) fn get(&self, stat: &Stat) -> Option<[u8; 32]> {
        let (key, id) = (key(stat), (stat.dev, stat.ino));
        self.stored_digest(&key, id).or_else(|| {
            let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            digest_if(added.get(&id)?, &key)
        })
    }

    fn stored_digest(&self, key: &Key, id: (u64, u64)) -> Option<[u8; 32]> {
        let count = self.stored.len() / RECORD;
        let record = |at: usize| &self.stored[at * RECORD..(at + 1) * RECORD];
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if identity(record(middle)) < id { low = middle + 1 } else { high = middle }
        }
        if low == count {
            return None;
        }
        let found = digest_if(record(low), key)?;
        self.used[low / 64].fetch_or(1 << (low % 64), Ordering::Relaxed);
        Some(found)
    }

    /// Remembers a digest of a file that had `stat` both before and after it was read, where `now` is a time before that.
    pub(crate) fn insert(&self, stat: &Stat, digest: &[u8; 32], now: SystemTime) {
        if is_racy(stat, now) {
            return;
        }
        let mut record = [0; RECORD];
        record[..RECORD - 32].copy_from_slice(&key(stat));
        record[RECORD - 32..].copy_from_slice(digest);
        self.added.lock().unwrap_or_else(PoisonError::into_inner).insert((stat.dev, stat.ino), record);
    }
}

/// Whether the file might change again without its times telling.
fn is_racy(stat: &Stat, now: SystemTime) -> bool {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (now, window) = (i128::from(now.as_secs()), i128::from(RACY.as_secs()));
    // A ctime ahead of the clock is as bad as a young one; an mtime may be anything that someone has set.
    i128::from(stat.ctime.seconds) >= now - window || (i128::from(stat.mtime.seconds) - now).abs() <= window
}

fn key(stat: &Stat) -> Key {
    let mut key = [0; RECORD - 32];
    let words = [stat.dev, stat.ino, stat.size, stat.mtime.seconds.cast_unsigned(), stat.ctime.seconds.cast_unsigned()];
    for (slot, word) in key.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    key[40..44].copy_from_slice(&stat.mtime.nanoseconds.to_le_bytes());
    key[44..48].copy_from_slice(&stat.ctime.nanoseconds.to_le_bytes());
    key
}

fn identity(record: &[u8]) -> (u64, u64) {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (word(0), word(8))
}

fn digest_if(record: &[u8], key: &Key) -> Option<[u8; 32]> {
    let digest = record.strip_prefix(key)?;
    digest.try_into().ok()
}

fn checksum(data: &[u8]) -> [u8; 32] {
    *blake3::hash(data).as_bytes()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let limit = MAGIC.len() + MAX_RECORDS * RECORD + CHECKSUM;
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > limit as u64 {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(limit as u64).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(ino: u64, seconds: i64) -> Stat {
        let file = tempfile::tempfile().unwrap();
        let mut stat = super::super::stat_of(&file).unwrap();
        stat.ino = ino;
        for time in [&mut stat.mtime, &mut stat.ctime] {
            time.seconds = seconds;
            time.nanoseconds = 1;
        }
        stat
    }

    fn filled(count: u64) -> StatCache {
        let cache = StatCache::new();
        for ino in 0..count {
            cache.insert(&stat(ino, 5), &[ino.to_le_bytes()[0]; 32], SystemTime::now());
        }
        cache
    }

    #[test]
    fn round_trip() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(100).save(&path).unwrap();
        let cache = StatCache::load(&path);
        for ino in 0..100 {
            assert_eq!(cache.get(&stat(ino, 5)), Some([ino.to_le_bytes()[0]; 32]), "{ino}");
            assert_eq!(cache.get(&stat(ino, 6)), None, "{ino}");
        }
        assert_eq!(cache.get(&stat(100, 5)), None);
        // A changed file takes the place of the old record; others stay.
        cache.insert(&stat(7, 9), &[200; 32], SystemTime::now());
        cache.save(&path).unwrap();
        let cache = StatCache::load(&path);
        assert_eq!((cache.get(&stat(7, 5)), cache.get(&stat(7, 9))), (None, Some([200; 32])));
        assert!(cache.get(&stat(8, 5)).is_some());
        assert_eq!(cache.stored.len(), 100 * RECORD);
    }

    #[test]
    fn damage_is_an_empty_cache() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("cache");
        filled(3).save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        for bad in [&good[..good.len() - 1], &good[..20], b"", &flipped, b"something else entirely"] {
            std::fs::write(&path, bad).unwrap();
            assert!(StatCache::load(&path).stored.is_empty());
        }
        assert!(StatCache::load(&tmp.path().join("missing")).stored.is_empty());
    }

    /// What was written in the same moment in which it was read is not trusted.
    #[test]
    fn racy_files_are_not_remembered() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (seconds, racy) in [(997, false), (998, true), (1000, true), (5000, true), (1, false)] {
            assert_eq!(is_racy(&stat(1, seconds), now), racy, "{seconds}");
        }
        let mut dated_ahead = stat(1, 1);
        dated_ahead.mtime.seconds = 1 << 40;
        assert!(!is_racy(&dated_ahead, now));
    }
}
