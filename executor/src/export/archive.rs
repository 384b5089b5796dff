//! Images of the store as archives, and back.

use crate::error::{Error, Result};
use cache::Store;
use oci::archive::{ArchiveImage, BlobSink, BlobSource, LoadedImage};
use oci::{Descriptor, Digest};
use std::io::{self, Read, Write};

struct StoreBlobs<'a>(&'a Store);

impl BlobSource for StoreBlobs<'_> {
    fn open(&self, digest: &Digest) -> io::Result<(u64, Box<dyn Read>)> {
        let file = self.0.open_blob(digest).map_err(io::Error::other)?;
        Ok((file.metadata()?.len(), Box::new(file)))
    }
}

impl BlobSink for StoreBlobs<'_> {
    fn put(&mut self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut writer = self.0.blob_writer().map_err(io::Error::other)?;
        let length = io::copy(content, &mut writer)?;
        writer.commit(expected.map(|digest| (digest, length))).map_err(io::Error::other)
    }
}

/// Writes images as an OCI layout in a tar; with `docker` so that `docker load` reads it too.
pub fn write(store: &Store, images: &[(Vec<String>, Descriptor)], docker: bool, out: &mut impl Write) -> Result<()> {
    let images: Vec<_> = images
        .iter()
        .map(|(names, descriptor)| ArchiveImage { names: names.clone(), descriptor: descriptor.clone() })
        .collect();
    oci::archive::write(&images, docker, &StoreBlobs(store), out).map_err(|error| Error::Export(error.to_string()))
}

/// Reads an archive's images into the store. They have no names in it yet.
pub fn read(store: &Store, archive: impl Read + Send) -> Result<Vec<LoadedImage>> {
    oci::archive::read(archive, &mut StoreBlobs(store)).map_err(|error| Error::Export(error.to_string()))
}
