//! The database behind records: SQLite, which several processes may use at once and which survives kill -9.
//!
//! It holds nothing that cannot be made again. One that is damaged is thrown away, with all that only it tells the meaning of, and an empty one takes its
//! place: at once if that shows when it is opened, else at the next start, for which a file is left. Since it must not go from under those who have
//! it open, everybody holds `locks/database` with others, and who throws it away holds it alone.

use crate::error::{Error, Result};
use crate::lock::FileLock;
use rusqlite::{Connection, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FORMAT: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE layer (
        id TEXT PRIMARY KEY,
        lowers TEXT NOT NULL,
        lowers_content BLOB NOT NULL,
        content BLOB NOT NULL,
        created INTEGER NOT NULL,
        userxattr INTEGER NOT NULL,
        size INTEGER NOT NULL,
        diff_id TEXT
    ) WITHOUT ROWID;
    CREATE INDEX layer_content ON layer (lowers_content, content);
    CREATE TABLE layer_blob (
        layer TEXT NOT NULL,
        codec TEXT NOT NULL,
        diff_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (layer, codec)
    ) WITHOUT ROWID;
    CREATE TABLE result (key BLOB PRIMARY KEY, layer TEXT NOT NULL, note TEXT) WITHOUT ROWID;
    CREATE TABLE memo (
        namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (namespace, key)
    ) WITHOUT ROWID;
";

/// What came after the first format; made in older stores too. Times are milliseconds since 1970, sizes bytes on the disk.
const ADDED: &str = "
    CREATE TABLE IF NOT EXISTS usage (
        id TEXT PRIMARY KEY,
        last_used INTEGER NOT NULL,
        uses INTEGER NOT NULL,
        size INTEGER,
        linked INTEGER NOT NULL DEFAULT 0,
        kind TEXT,
        description TEXT
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stamped (ids BLOB PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tally (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        total INTEGER NOT NULL,
        kept INTEGER NOT NULL,
        collected INTEGER NOT NULL
    );
";

/// What a database consists of; last what says that it is damaged.
const FILES: [&str; 5] = ["cache.db-wal", "cache.db-shm", "cache.db-journal", "cache.db", "cache.db-damaged"];

pub(crate) struct Database {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// After the connection: it is closed by then.
    _open: FileLock,
}

impl Database {
    /// Opens the database of the store at `root`. `throw_away` takes the files of a damaged one; nobody else uses the store then.
    pub fn open(root: &Path, mut throw_away: impl FnMut(&[PathBuf])) -> Result<Self> {
        let (path, lock) = (root.join("cache.db"), root.join("locks/database"));
        let mut patience = 50;
        loop {
            let open = FileLock::acquire_shared(&lock)?;
            let damage = match connect(&path) {
                Err(error) if error.is_damaged_database() => error,
                connected => return Ok(Database { connection: Mutex::new(connected?), path, _open: open }),
            };
            drop(open);
            if let Some(_alone) = FileLock::try_acquire(&lock)? {
                // Somebody else may have been faster.
                if connect(&path).is_err_and(|error| error.is_damaged_database()) {
                    throw_away(&FILES.map(|name| root.join(name)));
                }
                continue;
            }
            // Those who have found the damage as well are soon out of the way, those who work with the store are not.
            if patience == 0 {
                return Err(damage);
            }
            patience -= 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs a short piece of work on the connection.
    pub fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|source| self.failed(source))
    }

    /// The same as one transaction, which is undone where the work fails.
    pub fn change<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let change = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit().map(|()| done)
        };
        change(&mut connection).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        let error = Error::Database { path: self.path.clone(), source };
        if error.is_damaged_database() {
            // Without it, the next one finds the damage by itself, or never meets it.
            let _ = std::fs::write(mark(&self.path), "");
        }
        error
    }
}

fn mark(path: &Path) -> PathBuf {
    path.with_extension("db-damaged")
}

fn connect(path: &Path) -> Result<Connection> {
    let failed = |source| Error::Database { path: path.to_owned(), source };
    if mark(path).exists() || path.is_dir() {
        return Err(failed(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            None,
        )));
    }
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(60)).map_err(failed)?;
    let format = |connection: &Connection| {
        connection.query_row("PRAGMA user_version", (), |row| row.get::<_, i64>(0)).map_err(failed)
    };
    let found = format(&connection)?;
    if found == 0 {
        let journal = if can_share_memory(path) { "WAL" } else { "DELETE" };
        connection.pragma_update(None, "journal_mode", journal).map_err(failed)?;
    }
    if found < FORMAT {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        if format(&transaction)? == 0 {
            transaction.execute_batch(SCHEMA).map_err(failed)?;
        }
        if format(&transaction)? < FORMAT {
            transaction.execute_batch(ADDED).map_err(failed)?;
            transaction.pragma_update(None, "user_version", FORMAT).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
    }
    // A power cut may lose the last records, never break the file.
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    match format(&connection)? {
        found if found > FORMAT => {
            let path = path.parent().unwrap_or(path).to_owned();
            Err(Error::NewerStore { path, found, known: FORMAT })
        }
        _ => Ok(connection),
    }
}

/// What the write-ahead log needs. Network file systems do not have it. Where blocks are smaller than pages, SQLite gets only the last block of each page
/// before it writes to the page: on a full disk the kernel would end the process with SIGBUS then (R11 row 2).
fn can_share_memory(path: &Path) -> bool {
    const PAGE: i64 = 4096;
    const NFS: i64 = 0x6969;
    const NINE_P: i64 = 0x0102_1997;
    const VIRTIOFS: i64 = 0x6573_5546;
    const SMB: i64 = 0xff53_4d42;
    let directory = path.parent().unwrap_or(path);
    match rustix::fs::statfs(directory) {
        Ok(stat) => ![NFS, NINE_P, VIRTIOFS, SMB].contains(&stat.f_type) && stat.f_bsize >= PAGE,
        Err(_) => false,
    }
}
