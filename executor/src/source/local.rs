//! Directories of the client: the build context and named contexts (D19, D20).

use crate::fileop::{Context, Error, SourceTree, describe, resolve, stat_of};
use parser::IgnoreFile;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Far above any Dockerfile or ignore file that someone wrote.
pub const MAX_TEXT: u64 = 16 << 20;

/// A context directory, read in place.
#[derive(Debug)]
pub struct LocalSource {
    pub root: OwnedFd,
    /// `context`, or the name of a named context.
    pub name: String,
    pub ignore: Option<IgnoreFile>,
    /// Name of the file that `ignore` came from; `.dockerignore` if there is none.
    pub ignore_name: String,
}

impl LocalSource {
    /// Opens a context. Its ignore file is `DOCKERFILE.dockerignore` beside `dockerfile`, else `.dockerignore` in the context's root (D20.1);
    /// named contexts have no Dockerfile (D19.11).
    pub fn open(path: &Path, name: &str, dockerfile: Option<&Path>) -> Result<LocalSource, Error> {
        let root = open_root(path)?;
        let mut found = None;
        if let Some(dockerfile) = dockerfile
            && let Some(file) = dockerfile.file_name()
        {
            let mut beside = file.to_owned();
            beside.push(".dockerignore");
            let dir = match dockerfile.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            };
            // A Dockerfile that is not in a directory of its own, such as one from standard input, has none beside it.
            if let Ok(dir) = open_root(dir) {
                found = read_text(dir.as_fd(), beside.as_bytes())?
                    .map(|text| (text, beside.to_string_lossy().into_owned()));
            }
        }
        let default = ".dockerignore".to_string();
        if found.is_none() {
            found = read_text(root.as_fd(), default.as_bytes())?.map(|text| (text, default.clone()));
        }
        let (ignore, ignore_name) = match found {
            Some((text, file)) => (parse_ignore(&text, &file)?, file),
            None => (None, default),
        };
        Ok(LocalSource { root, name: name.to_string(), ignore, ignore_name })
    }

    pub fn tree(&self) -> SourceTree<'_> {
        SourceTree {
            root: self.root.as_fd(),
            ignore: self.ignore.as_ref().map(IgnoreFile::matcher),
            ignore_name: &self.ignore_name,
            cancelled: None,
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Io {
        action: "open",
        path: path.display().to_string(),
        errno,
    })
}

/// A file without patterns ignores nothing.
fn parse_ignore(text: &[u8], file: &str) -> Result<Option<IgnoreFile>, Error> {
    let parsed = IgnoreFile::parse(&String::from_utf8_lossy(text))
        .map_err(|reason| Error::IgnoreFile { file: file.to_string(), reason: reason.to_string() })?;
    Ok((!parsed.patterns().is_empty()).then_some(parsed))
}

/// A small file inside a root, links followed within it; `None` if there is none.
fn read_text(root: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let at = resolve(root, name, true, &|_, _| true)?;
    if !at.exists() {
        return Ok(None);
    }
    let (Some(dir), FileType::RegularFile) = (&at.parent, at.stat.kind) else {
        let errno = if at.stat.is_dir() { Errno::ISDIR } else { Errno::INVAL };
        return Err(Error::io("read", name, errno));
    };
    let file = crate::fileop::open_file(dir, crate::fileop::base_name(&at.path), name)?;
    if stat_of(&file).context("stat", name)?.kind != FileType::RegularFile {
        return Err(Error::io("read", name, Errno::INVAL));
    }
    read_bounded(&std::fs::File::from(file), name).map(Some)
}

fn read_bounded(mut file: impl std::io::Read, name: &[u8]) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    let mut data = Vec::new();
    file.by_ref()
        .take(MAX_TEXT + 1)
        .read_to_end(&mut data)
        .map_err(|e| Error::io("read", name, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    if data.len() as u64 > MAX_TEXT {
        return Err(Error::TooLarge { what: String::from_utf8_lossy(name).into_owned(), limit: MAX_TEXT });
    }
    Ok(data)
}

/// A Dockerfile as it was found.
#[derive(Debug)]
pub struct Dockerfile {
    /// On the host: what messages name, and what an ignore file is looked for beside.
    pub path: PathBuf,
    pub data: Vec<u8>,
}

/// Reads the Dockerfile of a context: `Dockerfile` in its root, or the one that `-f` names, relative to the working directory (D19.3).
/// Where a `Dockerfile` is missing `dockerfile` is tried (D19.1). No ignore file hides it (D19.2).
pub fn read_dockerfile(context: &Path, file: Option<&Path>) -> Result<Dockerfile, Error> {
    let path = file.map_or_else(|| context.join("Dockerfile"), Path::to_path_buf);
    let tried = file.map_or_else(|| "Dockerfile".to_string(), |file| file.display().to_string());
    let missing = |errno| Error::Dockerfile { reason: format!("open {tried}: {}", describe(errno)) };
    let mut candidates = vec![path.clone()];
    if path.file_name().is_some_and(|name| name == "Dockerfile") {
        candidates.push(path.with_file_name("dockerfile"));
    }
    for path in candidates {
        match read_file(&path, file.is_some()) {
            Ok(Some(data)) => return Ok(Dockerfile { path, data }),
            Ok(None) => {}
            Err(Error::Io { errno, .. }) => return Err(missing(errno)),
            Err(error) => return Err(error),
        }
    }
    Err(missing(Errno::NOENT))
}

/// Reads the Dockerfile of a context that is no directory of the client: `name` in its root, links followed within it.
pub fn read_dockerfile_in(root: BorrowedFd<'_>, name: &str) -> Result<Vec<u8>, Error> {
    let missing = |errno| Error::Dockerfile { reason: format!("open {name}: {}", describe(errno)) };
    let is_default = name.rsplit('/').next() == Some("Dockerfile");
    let other = is_default.then(|| format!("{}dockerfile", &name[..name.len() - "Dockerfile".len()]));
    for name in std::iter::once(name).chain(other.as_deref()) {
        match read_text(root, name.as_bytes()) {
            Ok(Some(data)) => return Ok(data),
            Ok(None) => {}
            Err(Error::Io { errno, .. }) => return Err(missing(errno)),
            Err(error) => return Err(error),
        }
    }
    Err(missing(Errno::NOENT))
}

/// A small file beside another one, such as a lock file, if it is there. A link may not lead out of the directory.
pub fn read_beside(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = if path.parent().is_some_and(|parent| parent.as_os_str().is_empty()) {
        &Path::new(".").join(path)
    } else {
        path
    };
    read_file(path, false)
}

/// The same in a context that is no directory of the client.
pub fn read_optional_in(root: BorrowedFd<'_>, name: &str) -> Result<Option<Vec<u8>>, Error> {
    read_text(root, name.as_bytes())
}

/// What the user named is opened as any program would, pipes too. In a context, which may come from anywhere, a link must not lead out and a fifo
/// is not waited for.
fn read_file(path: &Path, named: bool) -> Result<Option<Vec<u8>>, Error> {
    if named {
        return match std::fs::File::open(path) {
            Ok(file) => read_bounded(file, path.as_os_str().as_bytes()).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("open", b"", Errno::from_io_error(&e).unwrap_or(Errno::IO))),
        };
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    read_text(open_root(dir)?.as_fd(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// D19.1, D19.2.
    #[test]
    fn finds_the_dockerfile() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        let text = |file: Option<&Path>| read_dockerfile(dir, file).map(|d| d.data).map_err(|e| e.to_string());
        let gone = "failed to read dockerfile: open Dockerfile: no such file or directory";
        assert_eq!(text(None), Err(gone.to_string()));
        fs::write(dir.join("dockerfile"), "lower").unwrap();
        assert_eq!(text(None).unwrap(), b"lower");
        fs::write(dir.join("Dockerfile"), "upper").unwrap();
        assert_eq!(text(None).unwrap(), b"upper");
        let other = dir.join("My.Dockerfile");
        let error = text(Some(&other)).unwrap_err();
        assert_eq!(error, format!("failed to read dockerfile: open {}: no such file or directory", other.display()));
        symlink("dockerfile", &other).unwrap();
        assert_eq!(text(Some(&other)).unwrap(), b"lower");
        // Links of a context stay in it, directories and fifos are none.
        for make in [
            (|p: &Path| symlink("/etc/passwd", p).unwrap()) as fn(&Path),
            |p| fs::create_dir(p).unwrap(),
            |p| rustix::fs::mknodat(rustix::fs::CWD, p, FileType::Fifo, Mode::from(0o600), 0).unwrap(),
        ] {
            let tmp = tempfile::tempdir().unwrap();
            make(&tmp.path().join("Dockerfile"));
            let error = read_dockerfile(tmp.path(), None).unwrap_err().to_string();
            assert!(error.starts_with("failed to read dockerfile: open Dockerfile: "), "{error}");
        }
    }

    /// D20.1 to D20.5.
    #[test]
    fn finds_the_ignore_file() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        fs::create_dir(dir.join("sub")).unwrap();
        let open = |file: &str| LocalSource::open(dir, "context", Some(&dir.join(file)));
        assert!(open("Dockerfile").unwrap().ignore.is_none());
        fs::write(dir.join(".dockerignore"), "\u{feff}#comment\r\n\r\n  a/../b/ \r\n#c\n").unwrap();
        let source = open("Dockerfile").unwrap();
        let ignore = source.ignore.as_ref().unwrap();
        assert!(ignore.matcher().is_excluded(b"b") && !ignore.matcher().is_excluded(b"#comment"));
        assert_eq!(source.ignore_name, ".dockerignore");
        fs::write(dir.join("sub/My.Dockerfile.dockerignore"), "other").unwrap();
        let source = open("sub/My.Dockerfile").unwrap();
        assert!(source.ignore.unwrap().matcher().is_excluded(b"other"));
        assert_eq!(source.ignore_name, "My.Dockerfile.dockerignore");
        fs::write(dir.join(".dockerignore"), "!").unwrap();
        let error = open("Dockerfile").unwrap_err().to_string();
        assert!(error.contains("illegal exclusion pattern: \"!\""), "{error}");
        assert!(LocalSource::open(&dir.join("nowhere"), "context", None).is_err());
    }
}
