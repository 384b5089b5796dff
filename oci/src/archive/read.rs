//! Reading archives and image layouts.

use super::docker::{self, Stored};
use super::graph::{self, Content};
use super::write::check;
use super::{ArchiveImage, BlobSink, Error, digest_of};
use crate::codec;
use crate::layer::{EntryKind, TarReader, clean, shown};
use crate::layout::{self, CREATED, IMAGE_NAME, MAX_DOCUMENT, REF_NAME};
use crate::{Descriptor, Digest, ImageIndex};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// How many bytes of manifests and configs of an archive are kept in memory, all in all. Others are stored as blobs, but the
/// image that needs one as its manifest is incomplete.
const MAX_DOCUMENTS: usize = 64 << 20;

/// Reads an archive file (plain, gzip or zstd) or an image layout directory, stores its blobs, and returns its images.
///
/// An index may be stored with only some of its platforms; else an image must be complete.
pub fn read(path: &Path, sink: &mut dyn BlobSink) -> Result<Vec<ArchiveImage>, Error> {
    let fail = |e| Error::io("open", path.display(), e);
    let file = File::open(path).map_err(fail)?;
    match file.metadata().map_err(fail)?.is_dir() {
        true => read_directory(path, sink),
        false => read_tar(file, sink),
    }
}

/// As [`read`], from a stream. Blobs are stored as they come, before it is known which ones belong to an image.
pub fn read_tar(reader: impl Read + Send, sink: &mut dyn BlobSink) -> Result<Vec<ArchiveImage>, Error> {
    let reader = codec::decoder(reader).map_err(|e| Error::io("read", "the archive", e))?;
    let mut tar = TarReader::new(reader);
    let mut archive = Archive::default();
    while let Some(entry) = tar.next_entry()? {
        let path = clean(&entry.path);
        match entry.kind {
            EntryKind::File => archive.file(&path, entry.size, &mut tar, sink)?,
            // Older dockers store a layer that is used twice once, and link to it.
            EntryKind::Symlink => {
                let parent = path.iter().rposition(|&b| b == b'/').map_or(&b""[..], |slash| &path[..slash]);
                let target = match entry.link.starts_with(b"/") {
                    true => clean(&entry.link),
                    false => clean(&[parent, &entry.link].join(&b'/')),
                };
                archive.files.links.insert(path, target);
            }
            EntryKind::Link => _ = archive.files.links.insert(path, clean(&entry.link)),
            _ => {}
        }
    }
    tar.drain()?;

    let index = archive.top_level.remove("index.json");
    let manifest = archive.top_level.remove("manifest.json");
    match (index, manifest) {
        (Some(index), _) => {
            let index: ImageIndex = serde_json::from_slice(&index).map_err(|e| Error::document("index.json", e))?;
            let images = images(&index);
            for image in &images {
                graph::blobs(&image.manifest, &mut archive, true)?;
            }
            Ok(images)
        }
        (None, Some(manifest)) => docker::images(&manifest, &archive.files, sink),
        (None, None) => Err(Error::NotAnImage),
    }
}

fn read_directory(dir: &Path, sink: &mut dyn BlobSink) -> Result<Vec<ArchiveImage>, Error> {
    if !dir.join("index.json").exists() {
        return Err(Error::NotAnImage);
    }
    let images = images(&layout::read_index(dir)?);
    for image in &images {
        for (digest, size) in graph::blobs(&image.manifest, &mut Directory(dir), true)? {
            let path = layout::blob_path(dir, &digest);
            let mut file = File::open(&path).map_err(|e| Error::io("open", path.display(), e))?;
            let (found, found_size) =
                sink.put(Some(digest), &mut file).map_err(|e| Error::io("store", format!("blob {digest}"), e))?;
            check(&digest, size, found, found_size)?;
        }
    }
    Ok(images)
}

/// The images that an index lists. One that it lists by several names is one image.
fn images(index: &ImageIndex) -> Vec<ArchiveImage> {
    let mut images: Vec<ArchiveImage> = Vec::new();
    for descriptor in index.manifests() {
        let mut annotations = descriptor.annotations().clone().unwrap_or_default();
        let full = annotations.remove(IMAGE_NAME);
        // Some programs put a whole name into the annotation for the tag; a tag alone is no name.
        let tag = annotations.remove(REF_NAME).filter(|name| name.contains([':', '/']));
        annotations.remove(CREATED);
        let name = full.or(tag);
        match images.iter_mut().find(|image| image.manifest.digest() == descriptor.digest()) {
            Some(image) => image.names.extend(name.filter(|name| !image.names.contains(name))),
            None => {
                let mut manifest = descriptor.clone();
                manifest.set_annotations((!annotations.is_empty()).then_some(annotations));
                images.push(ArchiveImage { names: name.into_iter().collect(), manifest });
            }
        }
    }
    images
}

/// What has been seen of a tar.
#[derive(Default)]
struct Archive {
    top_level: HashMap<&'static str, Vec<u8>>,
    blobs: BTreeSet<Digest>,
    files: docker::Files,
    kept: usize,
}

impl Archive {
    fn file<R: Read>(
        &mut self,
        path: &[u8],
        size: u64,
        tar: &mut TarReader<R>,
        sink: &mut dyn BlobSink,
    ) -> Result<(), Error> {
        if let Some(name) = ["index.json", "manifest.json"].into_iter().find(|name| name.as_bytes() == path) {
            if size > MAX_DOCUMENT {
                return Err(Error::document(name, "it is larger than 4 MiB"));
            }
            let mut content = Vec::new();
            tar.read_to_end(&mut content).map_err(|e| Error::io("read", name, e))?;
            self.top_level.insert(name, content);
            return Ok(());
        }
        let expected = match path.strip_prefix(b"blobs/sha256/") {
            Some(hex) => match format!("sha256:{}", String::from_utf8_lossy(hex)).parse::<Digest>() {
                Ok(digest) => Some(digest),
                Err(_) => return Ok(()),
            },
            None if docker::may_be_blob(path) => docker::expected_digest(path),
            None => return Ok(()),
        };
        let keep = size <= MAX_DOCUMENT && self.kept + size as usize <= MAX_DOCUMENTS;
        let mut head = Head { inner: tar, bytes: Vec::new(), limit: if keep { MAX_DOCUMENT as usize } else { 4 } };
        let (digest, stored) = sink.put(expected, &mut head).map_err(|e| Error::io("store", shown(path), e))?;
        let magic = head.bytes.get(..4).unwrap_or(&head.bytes).to_vec();
        check(&expected.unwrap_or(digest), size, digest, stored)?;
        if keep && head.bytes.starts_with(b"{") && !self.files.documents.contains_key(&digest) {
            self.kept += head.bytes.len();
            self.files.documents.insert(digest, head.bytes);
        }
        self.blobs.insert(digest);
        self.files.stored.insert(path.to_vec(), Stored { digest, size: stored, magic });
        Ok(())
    }
}

impl Content for Archive {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
        let digest = digest_of(descriptor)?;
        let bytes = self.files.documents.get(&digest).cloned();
        if let Some(bytes) = &bytes {
            check(&digest, descriptor.size(), digest, bytes.len() as u64)?;
        }
        Ok(bytes)
    }

    fn has(&mut self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.blobs.contains(digest))
    }
}

struct Directory<'a>(&'a Path);

impl Content for Directory<'_> {
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Error> {
        let digest = digest_of(descriptor)?;
        let bytes = layout::read_document(&layout::blob_path(self.0, &digest))?;
        if let Some(bytes) = &bytes {
            check(&digest, descriptor.size(), Digest::of(bytes), bytes.len() as u64)?;
        }
        Ok(bytes)
    }

    fn has(&mut self, digest: &Digest) -> Result<bool, Error> {
        Ok(layout::blob_path(self.0, digest).exists())
    }
}

/// Keeps the first bytes of what is read through it.
struct Head<'a, R> {
    inner: &'a mut R,
    bytes: Vec<u8>,
    limit: usize,
}

impl<R: Read> Read for Head<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        // Only what may be JSON is kept whole.
        let limit = if matches!(self.bytes.first(), None | Some(b'{')) { self.limit } else { 4 };
        let more = read.min(limit.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&buffer[..more]);
        Ok(read)
    }
}
