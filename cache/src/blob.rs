//! Blobs: immutable bytes under their digest.

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::store::{Store, random_name};
use oci::Digest;
use oci::codec::HashingReader;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

impl Store {
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.rely_on(&digest.to_string());
        self.blob_path(digest).is_file()
    }

    /// Whether a blob's content is another one than its digest says. Such a blob is dropped, so that it is fetched or made again (R11 row 9).
    pub fn drop_if_damaged(&self, digest: &Digest) -> bool {
        let path = self.blob_path(digest);
        let read = File::open(&path).and_then(|file| {
            let mut reader = HashingReader::new(file);
            io::copy(&mut reader, &mut io::sink()).map(|_| reader.finish().1)
        });
        let is_damaged = match read {
            Ok(found) => found != *digest,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        is_damaged && self.discard(&path).is_some()
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        self.rely_on(&digest.to_string());
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(*digest)),
            opened => opened.map_err(Error::io("open the blob", &path)),
        }
    }

    /// The whole of a blob of at most `most` bytes, verified.
    pub fn read_blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = self.open_blob(digest)?;
        let length = file.metadata().map_or(0, |metadata| metadata.len().min(most));
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
        let mut file = file.take(most + 1);
        file.read_to_end(&mut bytes).map_err(Error::io("read the blob", &path))?;
        if bytes.len() as u64 > most {
            return Err(Error::TooLarge { digest: *digest, most });
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => {
                // Out of the way, so that it is fetched or made again.
                self.discard(&path);
                Err(Error::WrongDigest { expected: *digest, found })
            }
        }
    }

    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest) {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(Error::io("write", &writer.path))?;
        Ok(writer.commit(None)?.0)
    }

    /// A blob in the making.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        let path = self.path("tmp").join(random_name());
        let lock = FileLock::acquire(&path.with_extension("lock"))?;
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        Ok(BlobWriter {
            store: self.clone(),
            path,
            file,
            hasher: Sha256::new(),
            length: 0,
            committed: false,
            _lock: lock,
        })
    }
}

/// Takes bytes, hashing them; [`commit`](BlobWriter::commit) makes them a blob, dropping forgets them.
pub struct BlobWriter {
    store: Store,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    committed: bool,
    _lock: FileLock,
}

impl BlobWriter {
    /// Where the bytes are for as long as this lives and is not committed.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Digest and size of what was written, which is all.
    pub(crate) fn seal(&mut self) -> (Digest, u64) {
        (Digest::from_hasher(std::mem::take(&mut self.hasher)), self.length)
    }

    /// Puts the blob in its place. With `expected`, only if digest and size are those.
    pub fn commit(mut self, expected: Option<(Digest, u64)>) -> Result<(Digest, u64)> {
        let digest = Digest::from_hasher(std::mem::take(&mut self.hasher));
        if let Some((expected, size)) = expected {
            if expected != digest {
                return Err(Error::WrongDigest { expected, found: digest });
            }
            if size != self.length {
                return Err(Error::WrongSize { digest, expected: size, found: self.length });
            }
        }
        let place = self.store.blob_path(&digest);
        self.store.makes(&digest.to_string(), self.length);
        let renamed = fs::rename(&self.path, &place).or_else(|error| match error.kind() {
            // Somebody has put something else there.
            io::ErrorKind::IsADirectory => {
                self.store.discard(&place).map_or(Err(error), |_| fs::rename(&self.path, &place))
            }
            _ => Err(error),
        });
        renamed.map_err(Error::io("store the blob", &place))?;
        self.committed = true;
        Ok((digest, self.length))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.path);
        }
        let _ = fs::remove_file(self.path.with_extension("lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_verified() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = store.put_blob(b"content").unwrap();
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"content");
        assert!(matches!(store.read_blob(&digest, 3), Err(Error::TooLarge { .. })));
        let mut writer = store.blob_writer().unwrap();
        writer.write_all(b"other").unwrap();
        assert!(matches!(writer.commit(Some((digest, 5))), Err(Error::WrongDigest { .. })));
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
        fs::write(store.blob_path(&digest), b"CONTENT").unwrap();
        assert!(matches!(store.read_blob(&digest, 100), Err(Error::WrongDigest { .. })));
        assert!(!store.has_blob(&digest));
    }

    /// R11 row 9.
    #[test]
    fn damaged_blobs_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = store.put_blob(b"content").unwrap();
        assert!(!store.drop_if_damaged(&digest) && store.has_blob(&digest));
        fs::write(store.blob_path(&digest), b"contenu").unwrap();
        assert!(store.drop_if_damaged(&digest) && !store.has_blob(&digest));
        assert!(!store.drop_if_damaged(&digest), "there is none");
        fs::create_dir(store.blob_path(&digest)).unwrap();
        assert!(!store.has_blob(&digest));
        assert_eq!(store.put_blob(b"content").unwrap(), digest);
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"content");
    }
}
