//! Which blobs an image consists of.

use super::{Error, digest_of};
use crate::layout::MAX_DOCUMENT;
use crate::{Descriptor, Digest};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

/// Indexes may list indexes; nobody needs more than two levels.
const MAX_DEPTH: usize = 8;

/// Where blobs are looked up.
pub trait Content {
    /// A manifest or index, verified; `None` if it is not there.
    fn document(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Error>;
    fn has(&mut self, digest: &Digest) -> Result<bool, Error>;
}

/// A manifest or an index, as far as it matters here.
#[derive(Deserialize)]
pub struct Document {
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

impl Document {
    pub fn parse(digest: &Digest, bytes: &[u8]) -> Result<Self, Error> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| Error::document(format!("manifest {digest}"), e))?;
        // Read as either of the two by different programs, it would be two different images (CVE-2021-41190).
        match (&document.manifests, document.config.is_some() || document.layers.is_some()) {
            (Some(_), true) => Err(Error::document(format!("manifest {digest}"), "it is both a manifest and an index")),
            (None, false) => {
                Err(Error::document(format!("manifest {digest}"), "it is neither a manifest nor an index"))
            }
            _ => Ok(document),
        }
    }
}

/// The blobs of an image with their sizes, itself included.
///
/// Archives often hold one platform of an image and the whole index. So when `partial`, manifests that an index
/// lists may be missing or incomplete, as long as one is whole; otherwise all must be there. Layers that come from elsewhere
/// ("foreign", with URLs) may always be missing.
pub fn blobs(image: &Descriptor, content: &mut impl Content, partial: bool) -> Result<BTreeMap<Digest, u64>, Error> {
    let mut walk = Walk { content, partial, seen: HashMap::new(), found: BTreeMap::new() };
    match walk.visit(image, 0)? {
        Some(what) => Err(Error::Missing { what }),
        None => Ok(walk.found),
    }
}

struct Walk<'a, C> {
    content: &'a mut C,
    partial: bool,
    /// What each manifest lacks: those that are listed again and again are visited once.
    seen: HashMap<Digest, Option<String>>,
    found: BTreeMap<Digest, u64>,
}

impl<C: Content> Walk<'_, C> {
    /// Notes the blobs of one manifest or index, or says what is missing.
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<Option<String>, Error> {
        let digest = digest_of(descriptor)?;
        if let Some(result) = self.seen.get(&digest) {
            return Ok(result.clone());
        }
        let invalid = |reason| Error::document(format!("manifest {digest}"), reason);
        if depth > MAX_DEPTH {
            return Err(invalid("indexes are nested too deeply"));
        }
        if descriptor.size() > MAX_DOCUMENT {
            return Err(invalid("it is larger than 4 MiB"));
        }
        let missing = match self.content.document(descriptor)? {
            None => Some(format!("manifest {digest}")),
            Some(bytes) => {
                let missing = match Document::parse(&digest, &bytes)? {
                    Document { manifests: Some(manifests), .. } => self.index(&manifests, depth)?,
                    document => self.manifest(document.config.iter().chain(document.layers.iter().flatten()))?,
                };
                if missing.is_none() {
                    self.found.insert(digest, bytes.len() as u64);
                }
                missing
            }
        };
        self.seen.insert(digest, missing.clone());
        Ok(missing)
    }

    fn index(&mut self, manifests: &[Descriptor], depth: usize) -> Result<Option<String>, Error> {
        let mut missing = None;
        let mut any = false;
        for manifest in manifests {
            match self.visit(manifest, depth + 1)? {
                None => any = true,
                what => missing = missing.or(what),
            }
        }
        Ok(missing.filter(|_| !(self.partial && any)))
    }

    fn manifest<'d>(&mut self, blobs: impl Iterator<Item = &'d Descriptor>) -> Result<Option<String>, Error> {
        let mut found = Vec::new();
        for blob in blobs {
            let digest = digest_of(blob)?;
            if self.content.has(&digest)? {
                found.push((digest, blob.size()));
            } else if !is_foreign(blob) {
                return Ok(Some(format!("blob {digest}")));
            }
        }
        self.found.extend(found);
        Ok(None)
    }
}

fn is_foreign(layer: &Descriptor) -> bool {
    let media_type = layer.media_type().to_string();
    media_type.contains("nondistributable") || media_type.contains("rootfs.foreign")
}
