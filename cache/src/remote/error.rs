use oci::Digest;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with a remote cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Registry(#[from] oci::registry::Error),
    #[error(transparent)]
    Store(#[from] crate::Error),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} is not in the cache")]
    NoBlob(Digest),
    /// A service that is no registry refused, or could not be asked.
    #[error("{what}: {problem}")]
    Service { what: String, problem: String },
    #[error("invalid cache document: {0}")]
    Document(String),
}

impl Error {
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }
}
