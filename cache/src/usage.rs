//! When what was used last, and what it is.
//!
//! Uses are written at the end of a command, but for those that were just written ([`GRAIN`]). One lookup tells whether the same things were used together
//! within the hour ([`FRESH`]): so a build that finds everything cached writes nothing. What is never asked for again keeps the time at which it
//! was made. Times are milliseconds since 1970.

use crate::error::Result;
use crate::layer::LayerId;
use crate::store::Store;
use rusqlite::{Connection, OptionalExtension};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// For how long the same set of things need not be written again.
const FRESH: i64 = 3_600_000;
/// How far apart uses of one thing are that are both written.
const GRAIN: i64 = 60_000;

/// Of the ids of repositories that sources are fetched into.
pub(crate) const GIT: &str = "git-";
/// Of the ids, and of the names, of remembered digests of a context's files.
pub(crate) const DIGESTS: &str = "digests-";

/// What kind of thing the cache keeps (R7.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What a step made, and files of base images.
    Regular,
    /// What is known of a context's files.
    LocalSource,
    GitCheckout,
    CacheMount,
    /// What goes last: images without a name.
    Internal,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Regular, Kind::LocalSource, Kind::GitCheckout, Kind::CacheMount, Kind::Internal];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Regular => "regular",
            Kind::LocalSource => "source.local",
            Kind::GitCheckout => "source.git.checkout",
            Kind::CacheMount => "exec.cachemount",
            Kind::Internal => "internal",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// What a command has used and made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Used {
    /// Bytes of new layers and blobs.
    pub made: u64,
    /// This was used within the hour already: nothing was written.
    pub is_fresh: bool,
}

impl Store {
    /// Says what something is, for those who look at what the cache holds. Written with its use.
    pub fn describe(&self, id: &str, kind: Kind, text: &str) {
        self.lease().state().described.insert(id.to_owned(), (kind.name(), text.to_owned()));
    }

    pub fn describe_layer(&self, id: &LayerId, kind: Kind, text: &str) {
        self.describe(&id.to_string(), kind, text);
    }

    /// The repository that a remote is fetched into. `remote` is shown: it must hold no password.
    pub fn git_repository(&self, id: &[u8; 32], remote: &str) -> PathBuf {
        let name = hex::encode(&id[..16]);
        let id = format!("{GIT}{name}");
        self.rely_on(&id);
        self.describe(&id, Kind::GitCheckout, &format!("git repository of {remote}"));
        self.path("git").join(name)
    }

    /// Where digests of the files of a context are remembered.
    pub fn file_digests(&self, context: &Path) -> PathBuf {
        let key: String = oci::Digest::of(context.as_os_str().as_encoded_bytes()).hex().chars().take(32).collect();
        let name = format!("{DIGESTS}{key}");
        self.rely_on(&name);
        self.describe(&name, Kind::LocalSource, &format!("digests of files in {}", context.display()));
        self.path(&name)
    }

    /// At the end of a command: writes what was used, and relies on nothing any more.
    pub fn end_use(&self) -> Result<Used> {
        let mut state = self.lease().state();
        let now = now();
        let is_known = |connection: &Connection| {
            let mut known = connection.prepare_cached("SELECT at FROM stamped WHERE ids = ?")?;
            known.query_row((state.sum,), |row| row.get::<_, i64>(0)).optional()
        };
        let mut used = Used { made: state.made, is_fresh: state.ids.is_empty() };
        if !used.is_fresh {
            let at = self.database().with(is_known)?;
            used.is_fresh = state.made == 0 && at.is_some_and(|at| (at..at + FRESH).contains(&now));
        }
        if !used.is_fresh {
            self.database().change(|connection| {
                let mut stamp = connection.prepare_cached(
                    "INSERT INTO usage (id, last_used, uses) VALUES (?1, ?2, 1)
                     ON CONFLICT (id) DO UPDATE SET last_used = ?2, uses = uses + 1 WHERE last_used NOT BETWEEN ?3 AND ?2",
                )?;
                for id in &state.ids {
                    stamp.execute((id, now, now - GRAIN))?;
                }
                let mut describe = connection.prepare_cached(
                    "UPDATE usage SET kind = ?2, description = ?3 WHERE id = ?1
                     AND (kind IS NOT ?2 OR description IS NOT ?3)",
                )?;
                for (id, (kind, text)) in &state.described {
                    describe.execute((id, kind, text))?;
                }
                connection.execute("DELETE FROM stamped WHERE at NOT BETWEEN ? AND ?", (now - FRESH, now))?;
                connection
                    .prepare_cached("INSERT OR REPLACE INTO stamped (ids, at) VALUES (?, ?)")?
                    .execute((state.sum, now))?;
                Ok(())
            })?;
        }
        state.end();
        Ok(used)
    }

    /// Relies on nothing any more: for commands whose uses do not count.
    pub(crate) fn forget_use(&self) {
        self.lease().state().end();
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(store: &Store, id: &str) -> Option<(i64, i64, Option<String>)> {
        let row = |connection: &Connection| {
            connection
                .query_row("SELECT last_used, uses, description FROM usage WHERE id = ?", (id,), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
        };
        store.database().with(row).unwrap()
    }

    #[test]
    fn uses_are_written_once_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let used = |ids: &[&str]| {
            ids.iter().for_each(|id| store.rely_on(id));
            store.end_use().unwrap()
        };
        assert!(store.end_use().unwrap().is_fresh, "nothing was used");
        assert!(!used(&["a", "b"]).is_fresh);
        assert!(used(&["b", "a"]).is_fresh, "the same set");
        assert!(!used(&["a"]).is_fresh, "another set");
        assert_eq!(usage(&store, "a").unwrap().1, 1, "its last use is fresh");
        let back = "UPDATE usage SET last_used = last_used - 4000000; UPDATE stamped SET at = at - 4000000;";
        store.database().with(|connection| connection.execute_batch(back)).unwrap();
        store.describe("a", Kind::Regular, "RUN x");
        assert!(!used(&["a", "b"]).is_fresh);
        let (last, uses, description) = usage(&store, "a").unwrap();
        assert!(now() - last < 100_000);
        assert_eq!((uses, description.as_deref()), (2, Some("RUN x")));
        let sets = store
            .database()
            .with(|connection| connection.query_row("SELECT count(*) FROM stamped", (), |row| row.get::<_, i64>(0)));
        assert_eq!(sets.unwrap(), 1, "old sets go");
    }
}
