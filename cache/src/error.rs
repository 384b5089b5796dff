use oci::Digest;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot use the store's database {}: {source}{}", path.display(), database_advice(path, source))]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error(
        "the store {} was written by a newer rbuild (format {found}, this one knows {known}): use that version, or another \
         store with --root",
        path.display()
    )]
    NewerStore { path: PathBuf, found: i64, known: i64 },
    #[error("blob {expected} has the wrong content (digest {found})")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("blob {digest} has {found} bytes where {expected} were announced")]
    WrongSize { digest: Digest, expected: u64, found: u64 },
    #[error("blob {0} is not in the store")]
    NoBlob(Digest),
    #[error("blob {digest} is larger than {most} bytes")]
    TooLarge { digest: Digest, most: u64 },
    #[error("no image is called {0:?}: `rbuild images` lists them")]
    NoImage(String),
    #[error("{0:?} could mean several images: give more digits")]
    AmbiguousId(String),
    #[error("no container is called {0:?}: `rbuild ps -a` lists them")]
    NoContainer(String),
    #[error("{0:?} could mean several containers: give more digits")]
    AmbiguousContainer(String),
    #[error(
        "the container name {name:?} is already in use by {}: remove it (rbuild rm {name}) or choose another",
        id.get(..12).unwrap_or(id)
    )]
    NameInUse { name: String, id: String },
    #[error(
        "{} is not a valid document: {source} (repair it, or remove it: the store then knows no images any more)",
        path.display()
    )]
    Document { path: PathBuf, source: serde_json::Error },
    #[error(
        "{} is not a store, and not empty (it holds {found:?}): name an empty or new directory with --root or RBUILD_ROOT",
        path.display()
    )]
    NotAStore { path: PathBuf, found: String },
    #[error(
        "{} belongs to another user, who could change what is built from it: name a directory of your own, or one that is not there yet, with --root or \
         RBUILD_ROOT",
        path.display()
    )]
    NotOurs { path: PathBuf },
    #[error(
        "other users may write to the store {path}, and so change what is built from it: remove it, or, if nobody did, close it with `chmod 700 {path}`",
        path = path.display()
    )]
    OthersMayWrite { path: PathBuf },
    #[error("the store needs a home: set HOME, or name a directory with --root or RBUILD_ROOT")]
    NoHome,
}

impl Error {
    /// There is no room for what was to be written.
    pub fn is_full_disk(&self) -> bool {
        match self {
            Error::Io { source, .. } => is_full(source),
            Error::Database { source, .. } => {
                // Without room for its shared memory or its log, SQLite speaks of input and output.
                use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
                matches!(source.sqlite_error_code(), Some(DiskFull | SystemIoFailure | CannotOpen))
            }
            _ => false,
        }
    }

    /// The database is not what was written to it.
    pub(crate) fn is_damaged_database(&self) -> bool {
        matches!(self, Error::Database { source, .. } if is_damage(source))
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// For calls that give an error number.
    pub(crate) fn errno(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Error {
        let path = path.to_owned();
        move |errno| Error::Io { action, path, source: errno.into() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_full(error) => " (free some space, for instance with `rbuild prune`, or use another disk with --root)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the store must be writable: name another directory with --root or RBUILD_ROOT)"
        }
        _ => "",
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

fn database_advice(path: &Path, error: &rusqlite::Error) -> &'static str {
    if is_damage(error) {
        return " (the next rbuild that has the store to itself begins with an empty cache; images stay)";
    }
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    // Where there is no room for its log, SQLite does not say so.
    let is_full = || rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 1 << 16);
    match error.sqlite_error_code() {
        Some(code) if code == DiskFull || matches!(code, SystemIoFailure | CannotOpen) && is_full() => {
            ": no space left on device (free some space, for instance with `rbuild prune`, or use another disk with --root)"
        }
        _ => "",
    }
}
