//! Writing OCI archives.

use super::graph::{self, Content, Document};
use super::{ArchiveImage, BlobSource, Error, digest_of};
use crate::codec::HashingReader;
use crate::layer::{Header, TypeFlag, padding};
use crate::layout::{self, MAX_DOCUMENT};
use crate::{Descriptor, Digest, Platform, platform};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

#[derive(Clone, Debug, Default)]
pub struct ArchiveOptions {
    /// Add the `manifest.json` that `docker load` wants. Of an index it names the image for this machine, if there is one: the file can name no
    /// index, and an engine that reads OCI layouts takes the whole from `index.json`.
    pub docker: bool,
    /// For `org.opencontainers.image.created`: RFC 3339, to the second.
    pub created: Option<String>,
}

/// Writes images with all their blobs as a tar of an image layout (spec R5.9.2 to R5.9.5): entries sorted by name, no
/// owners, no times, so that equal images give equal bytes. Every blob's size and digest are checked on the way (R5.9.8).
pub fn write_oci(
    images: &[ArchiveImage],
    blobs: &BlobSource<'_>,
    options: &ArchiveOptions,
    out: &mut impl Write,
) -> Result<(), Error> {
    let mut source = Source(blobs);
    let mut all = BTreeMap::new();
    for image in images {
        all.append(&mut graph::blobs(&image.manifest, &mut source, false)?);
    }
    let docker = match options.docker {
        true => Some(docker_manifest(images, &mut source)?),
        false => None,
    };

    let mut tar = Tar { out };
    tar.header("blobs/", TypeFlag::Directory, 0o755, 0)?;
    tar.header("blobs/sha256/", TypeFlag::Directory, 0o755, 0)?;
    for (digest, size) in &all {
        tar.header(&format!("blobs/sha256/{}", digest.hex()), TypeFlag::Regular, 0o444, *size)?;
        tar.blob(blobs, digest, *size)?;
    }
    tar.file("index.json", 0o644, &layout::to_json(&index(images, options)))?;
    if let Some(docker) = docker {
        tar.file("manifest.json", 0o644, &docker)?;
    }
    tar.file("oci-layout", 0o444, layout::OCI_LAYOUT.as_bytes())?;
    tar.write(&[0; 1024])
}

/// One descriptor for each name (R5.9.4), one without a name for an image that has none (R5.9.5).
fn index(images: &[ArchiveImage], options: &ArchiveOptions) -> crate::ImageIndex {
    let created = options.created.as_deref();
    let mut manifests = Vec::new();
    for image in images {
        match image.names.is_empty() {
            true => manifests.push(layout::named(&image.manifest, None, created)),
            false => {
                manifests.extend(image.names.iter().map(|name| layout::named(&image.manifest, Some(name), created)));
            }
        }
    }
    layout::index(manifests)
}

fn docker_manifest(images: &[ArchiveImage], source: &mut Source<'_>) -> Result<Vec<u8>, Error> {
    let path = |descriptor: &Descriptor| Ok::<_, Error>(format!("blobs/sha256/{}", digest_of(descriptor)?.hex()));
    let mut entries = Vec::new();
    for image in images {
        let Some(document) = for_this_machine(&image.manifest, source)? else { continue };
        let Some(config) = &document.config else { continue };
        let layers: Vec<String> = document.layers.iter().flatten().map(path).collect::<Result<_, _>>()?;
        let names: Vec<&str> = image.names.iter().map(|name| familiar(name)).collect();
        entries.push(json!({
            "Config": path(config)?,
            "RepoTags": if names.is_empty() { json!(null) } else { json!(names) },
            "Layers": layers,
        }));
    }
    Ok(json!(entries).to_string().into_bytes())
}

/// An image's manifest; of an index the one for this machine.
fn for_this_machine(descriptor: &Descriptor, source: &mut Source<'_>) -> Result<Option<Document>, Error> {
    let mut read = |descriptor: &Descriptor| {
        let bytes = source.document(descriptor)?.unwrap_or_default();
        Document::parse(&digest_of(descriptor)?, &bytes)
    };
    let document = read(descriptor)?;
    match &document.manifests {
        Some(manifests) => platform::select(manifests, &Platform::host()).map(&mut read).transpose(),
        None => Ok(Some(document)),
    }
}

/// The short form of a name, as Docker shows it.
fn familiar(name: &str) -> &str {
    match name.strip_prefix("docker.io/") {
        Some(rest) => rest.strip_prefix("library/").unwrap_or(rest),
        None => name,
    }
}

pub(super) struct Source<'a>(pub(super) &'a BlobSource<'a>);

impl Content for Source<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
        let digest = digest_of(descriptor)?;
        let reader = match (self.0)(&digest) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(|e| Error::io("open", format!("blob {digest}"), e))?.1,
        };
        let mut bytes = Vec::new();
        reader
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read", format!("blob {digest}"), e))?;
        check(&digest, descriptor.size(), Digest::of(&bytes), bytes.len() as u64)?;
        Ok(Some(bytes))
    }

    fn has(&mut self, digest: &Digest) -> Result<bool, Error> {
        match (self.0)(digest) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", format!("blob {digest}"), error)),
        }
    }
}

pub(super) fn check(digest: &Digest, size: u64, found: Digest, found_size: u64) -> Result<(), Error> {
    if size != found_size {
        return Err(Error::SizeMismatch { digest: *digest, expected: size, found: found_size });
    }
    if *digest != found {
        return Err(Error::DigestMismatch { expected: *digest, found });
    }
    Ok(())
}

struct Tar<'a, W> {
    out: &'a mut W,
}

impl<W: Write> Tar<'_, W> {
    fn header(&mut self, name: &str, kind: TypeFlag, mode: u32, size: u64) -> Result<(), Error> {
        let mut block = Vec::new();
        Header { mode, size, ..Header::new(name.as_bytes(), kind) }.write(&mut block);
        self.write(&block)
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), Error> {
        self.header(name, TypeFlag::Regular, mode, content.len() as u64)?;
        self.write(content)?;
        self.write(&vec![0; padding(content.len() as u64)])
    }

    fn blob(&mut self, blobs: &BlobSource<'_>, digest: &Digest, size: u64) -> Result<(), Error> {
        let (_, reader) = blobs(digest).map_err(|e| Error::io("open", format!("blob {digest}"), e))?;
        // One byte more than the header has promised would show that there is too much.
        let mut reader = HashingReader::new(reader.take(size.saturating_add(1)));
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
        loop {
            let read = match reader.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(|e| Error::io("read", format!("blob {digest}"), e))?,
            };
            if read == 0 {
                break;
            }
            self.write(&buffer[..read])?;
        }
        let (_, found, found_size) = reader.finish();
        check(digest, size, found, found_size)?;
        self.write(&vec![0; padding(size)])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(|e| Error::io("write", "the archive", e))
    }
}
