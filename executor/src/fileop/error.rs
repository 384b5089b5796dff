//! What can go wrong with files, in the words that BuildKit's users know (D22, X3).

use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A named source, absolute in its tree (X3.9).
    #[error("\"{path}\": not found")]
    NotFound { path: String },
    /// It is on disk, but an ignore file hides it (D22.4).
    #[error("\"{path}\": not found (excluded by {ignore_file}: pattern \"{pattern}\")")]
    Excluded { path: String, ignore_file: String, pattern: String },
    /// More than 255 symbolic links while one path was resolved (X3.3).
    #[error("{path}: too many links")]
    TooManyLinks { path: String },
    #[error("cannot copy to non-directory: {path}")]
    NonDirectory { path: String },
    #[error("cannot replace to directory {path} with file")]
    ReplaceDirectory { path: String },
    /// A system call failed; `path` is relative to the root that is worked on, never the host's (X3.5).
    #[error("{action} {path}: {}{}", describe(*errno), advice(action, *errno))]
    Io {
        action: &'static str,
        path: String,
        #[source]
        errno: Errno,
    },
    /// A file was exchanged for one of another type between listing and opening (X6.45).
    #[error("{path} changed while it was being read")]
    Changed { path: String },
    /// Several attempts to read a file saw several states of it.
    #[error(
        "{path} changes while it is being read, again and again; wait for what writes it, or keep it out of the context \
         with .dockerignore"
    )]
    KeepsChanging { path: String },
    /// Nobody wants the result any more.
    #[error("canceled")]
    Cancelled,
    /// The destination could not be mounted anew.
    #[error("{0}")]
    View(String),
    #[error("invalid pattern \"{pattern}\": {reason}")]
    Pattern { pattern: String, reason: String },
    /// A line of an ignore file.
    #[error("{file}: {reason}")]
    IgnoreFile { file: String, reason: String },
    #[error("invalid chmod parameter: '{spec}': {reason}")]
    Chmod { spec: String, reason: String },
    #[error("failed to read dockerfile: {reason}")]
    Dockerfile { reason: String },
    #[error("failed to read {what}: it is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    /// An archive that began well turned out to be damaged (X3.76).
    #[error("failed to unpack {archive}: {reason}")]
    Archive { archive: String, reason: String },
    /// An archive's entry names a place outside of the destination (X3.74).
    #[error("failed to unpack {archive}: {reason}")]
    Breakout { archive: String, reason: String },
}

impl Error {
    /// An error about a path below a directory, as seen from its root.
    pub(crate) fn below(self, directory: &[u8]) -> Error {
        match self {
            Error::Io {
                action: action @ ("mkdir" | "symlink" | "mknod" | "link" | "write" | "chown"),
                path,
                errno,
            } if !directory.is_empty() => Error::Io { action, path: super::path::shown(directory) + &path, errno },
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str, path: &[u8], errno: Errno) -> Error {
        Error::Io { action, path: super::path::shown(path), errno }
    }
}

/// As Go words it: lower case, without the number.
pub(crate) fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// R1.12.9.
fn advice(action: &str, errno: Errno) -> &'static str {
    match (action, errno) {
        ("chown", Errno::INVAL) => {
            " (rbuild has no such id here: without root there are those that /etc/subuid and /etc/subgid grant the user, mapped by newuidmap)"
        }
        _ => "",
    }
}

pub(crate) trait Context<T> {
    /// Names the call (`open`, `mkdir`, ...) and the path that it failed on.
    fn context(self, action: &'static str, path: &[u8]) -> Result<T, Error>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn context(self, action: &'static str, path: &[u8]) -> Result<T, Error> {
        self.map_err(|errno| Error::io(action, path, errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(Error::io("mkdir", b"z/f", Errno::NOTDIR).to_string(), "mkdir /z/f: not a directory");
        let excluded = Error::Excluded { path: "/p".into(), ignore_file: ".dockerignore".into(), pattern: "p".into() };
        assert_eq!(excluded.to_string(), "\"/p\": not found (excluded by .dockerignore: pattern \"p\")");
    }
}
