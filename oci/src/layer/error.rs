use std::io;

/// A layer that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {}: {source}", display(.path))]
    File { action: &'static str, path: Vec<u8>, source: io::Error },
    #[error("short write copying file {}: it changed while it was read", display(.0))]
    FileChanged(Vec<u8>),
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
    #[error("cannot read the layer's archive: {0}")]
    Archive(#[source] io::Error),
    #[error("the layer's archive has an entry {} that {reason}", display(.path))]
    Entry { path: Vec<u8>, reason: String },
}

impl Error {
    pub(crate) fn file(action: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Error {
        let path = path.to_owned();
        move |errno| Error::File { action, path, source: errno.into() }
    }
}

/// Names may be any bytes, newlines included: they are shown escaped.
fn display(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}
