//! Images of the store as archives, and back.

use crate::error::{Error, Result};
use cache::Store;
pub use oci::archive::ArchiveOptions;
use oci::archive::{ArchiveImage, BlobSink};
use oci::{Descriptor, Digest};
use std::io::{self, Read, Write};
use std::path::Path;

struct StoreSink<'a>(&'a Store);

impl BlobSink for StoreSink<'_> {
    fn put(&mut self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut writer = self.0.blob_writer().map_err(io::Error::other)?;
        let length = io::copy(content, &mut writer)?;
        writer.commit(expected.map(|digest| (digest, length))).map_err(io::Error::other)
    }
}

/// Writes images as an OCI layout in a tar.
pub fn write(
    store: &Store,
    images: &[(Vec<String>, Descriptor)],
    options: &ArchiveOptions,
    out: &mut impl Write,
) -> Result<()> {
    oci::archive::write_oci(&archive_images(images), &|digest| open(store, digest), options, out)
        .map_err(|error| failed(store, &error))
}

/// Adds images to an OCI layout, made if it is missing.
pub fn write_directory(
    store: &Store,
    images: &[(Vec<String>, Descriptor)],
    options: &ArchiveOptions,
    directory: &Path,
) -> Result<()> {
    oci::archive::write_directory(&archive_images(images), &|digest| open(store, digest), options, directory)
        .map_err(|error| failed(store, &error))
}

/// A blob that is not what it should be is dropped.
fn failed(store: &Store, error: &oci::archive::Error) -> Error {
    use oci::archive::Error::{DigestMismatch, SizeMismatch};
    match error {
        DigestMismatch { expected: digest, .. } | SizeMismatch { digest, .. } if store.drop_if_damaged(digest) => {
            Error::DamagedBlob(*digest)
        }
        error => Error::Export(error.to_string()),
    }
}

fn archive_images(images: &[(Vec<String>, Descriptor)]) -> Vec<ArchiveImage> {
    let images = images.iter();
    images.map(|(names, descriptor)| ArchiveImage { names: names.clone(), manifest: descriptor.clone() }).collect()
}

fn open(store: &Store, digest: &Digest) -> io::Result<(u64, Box<dyn Read>)> {
    let file = std::fs::File::open(store.blob_path(digest))?;
    Ok((file.metadata()?.len(), Box::new(file)))
}

/// Reads an archive's images into the store. They have no names in it yet.
pub fn read(store: &Store, archive: impl Read + Send) -> Result<Vec<ArchiveImage>> {
    use oci::archive::Error::Io;
    oci::archive::read_tar(archive, &mut StoreSink(store)).map_err(|error| match error {
        Io { action: "store", source, .. } => Error::write(format!("an image to {}", store.root().display()))(source),
        error => Error::Export(error.to_string()),
    })
}
