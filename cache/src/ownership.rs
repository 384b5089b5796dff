//! Whose a store is. What lies in it is trusted: layers become images, and root runs what they hold. So nobody else may ever have been able to write there
//! (`RBUILD_ROOT=/tmp/store`, made by somebody else beforehand), and nobody else needs to read it.

use crate::error::{Error, Result};
use rustix::fs::{Mode, chmod, stat};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Refuses a directory that others own or may write to.
pub(crate) fn check(root: &Path) -> Result<()> {
    let found = stat(root).map_err(Error::errno("look at the store", root))?;
    if found.st_uid != user() {
        return Err(Error::NotOurs { path: root.to_owned() });
    }
    match found.st_mode & 0o022 {
        0 => Ok(()),
        _ => Err(Error::OthersMayWrite { path: root.to_owned() }),
    }
}

/// Makes an existing directory, in which a store is to be made, the user's alone. What others have put there beforehand is refused.
pub(crate) fn claim(root: &Path) -> Result<()> {
    let found = match stat(root) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        found => found.map_err(Error::errno("look at the store", root))?,
    };
    if found.st_uid != user() {
        return Err(Error::NotOurs { path: root.to_owned() });
    }
    chmod(root, Mode::RWXU).map_err(Error::errno("close to others", root))?;
    for entry in fs::read_dir(root).map_err(Error::io("open the store", root))?.flatten() {
        let path = entry.path();
        if entry.metadata().map_err(Error::io("look at", &path))?.uid() != user() {
            return Err(Error::NotOurs { path });
        }
    }
    Ok(())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use crate::{Error, Store};
    use rustix::fs::{CWD, Mode, Uid, chmod};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn stores_are_closed_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        // Also one that was made beforehand, as a volume is.
        fs::create_dir(&root).unwrap();
        chmod(&root, Mode::from_raw_mode(0o777)).unwrap();
        Store::open(&root).unwrap();
        assert_eq!(mode(&root), 0o700);
        for entry in fs::read_dir(&root).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            assert_eq!(mode(&entry.path()), 0o700, "{entry:?}");
        }
        chmod(&root, Mode::from_raw_mode(0o770)).unwrap();
        assert!(matches!(Store::open(&root), Err(Error::OthersMayWrite { .. })));
        chmod(&root, Mode::from_raw_mode(0o755)).unwrap();
        Store::open(&root).unwrap();
    }

    #[test]
    fn links_are_followed_to_what_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let (root, link) = (directory.path().join("store"), directory.path().join("link"));
        std::os::unix::fs::symlink(&root, &link).unwrap();
        // It leads nowhere yet.
        assert!(Store::open(&link).is_err());
        fs::create_dir(&root).unwrap();
        assert_eq!(Store::open(&link).unwrap().root(), root.canonicalize().unwrap());
        chmod(&root, Mode::from_raw_mode(0o707)).unwrap();
        assert!(matches!(Store::open(&link), Err(Error::OthersMayWrite { .. })));
    }

    /// Only root can give files away.
    #[test]
    fn what_others_prepared_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let give = |path: &Path| {
            rustix::fs::chownat(CWD, path, Some(Uid::from_raw(1)), None, rustix::fs::AtFlags::empty()).unwrap()
        };
        fs::create_dir(&root).unwrap();
        give(&root);
        assert!(matches!(Store::open(&root), Err(Error::NotOurs { path }) if path == root));
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
        // A directory of the user's own, in which everybody could write until now.
        fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        give(&root.join("blobs"));
        assert!(matches!(Store::open(&root), Err(Error::NotOurs { path }) if path == root.join("blobs")));
        fs::remove_dir_all(&root).unwrap();
        Store::open(&root).unwrap();
        give(&root);
        assert!(matches!(Store::open(&root), Err(Error::NotOurs { .. })));
    }
}
