//! Writing images into an image layout directory, beside what is there already (spec R5.9.1).

use super::graph;
use super::write::{Source, check};
use super::{ArchiveImage, ArchiveOptions, BlobSource, Error};
use crate::codec::HashingReader;
use crate::{Digest, layout};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// The tag of an image without a name.
const DEFAULT_TAG: &str = "latest";

/// Adds images to the layout at `dir`, which is made where it is missing: blobs that are not there yet, then `index.json`, whose entry of the same
/// name is replaced. Every blob's size and digest are checked on the way (R5.9.8).
pub fn write_directory(
    images: &[ArchiveImage],
    blobs: &BlobSource<'_>,
    options: &ArchiveOptions,
    dir: &Path,
) -> Result<(), Error> {
    layout::init(dir)?;
    let mut source = Source(blobs);
    for image in images {
        for (digest, size) in graph::blobs(&image.manifest, &mut source, false)? {
            copy_blob(blobs, &digest, size, dir)?;
        }
    }
    let created = options.created.as_deref();
    let mut index = layout::read_index(dir)?;
    for image in images {
        for name in &image.names {
            layout::put(&mut index, layout::named(&image.manifest, Some(name), created));
        }
        if image.names.is_empty() {
            let mut descriptor = layout::named(&image.manifest, None, created);
            let mut annotations = descriptor.annotations().clone().unwrap_or_default();
            annotations.insert(layout::REF_NAME.to_owned(), DEFAULT_TAG.to_owned());
            descriptor.set_annotations(Some(annotations));
            layout::put(&mut index, descriptor);
        }
    }
    layout::write_index(dir, &index)
}

fn copy_blob(blobs: &BlobSource<'_>, digest: &Digest, size: u64, dir: &Path) -> Result<(), Error> {
    let path = layout::blob_path(dir, digest);
    if path.metadata().is_ok_and(|found| found.len() == size) {
        return Ok(());
    }
    let (_, reader) = blobs(digest).map_err(|e| Error::io("open", format!("blob {digest}"), e))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let copied = (|| {
        let failed = |e| Error::io("write", temporary.display(), e);
        let mut reader = HashingReader::new(reader.take(size.saturating_add(1)));
        let mut file = fs::File::create(&temporary).map_err(failed)?;
        io::copy(&mut reader, &mut file).map_err(failed)?;
        let (_, found, found_size) = reader.finish();
        check(digest, size, found, found_size)?;
        fs::rename(&temporary, &path).map_err(failed)
    })();
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied
}
