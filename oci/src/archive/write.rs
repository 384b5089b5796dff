//! Writes images as a tar: the same images give the same bytes.

use super::{Error, NAME, REF_NAME};
use crate::{Descriptor, Digest, ImageIndex, ImageManifest};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};

/// An image of an archive.
#[derive(Clone, Debug)]
pub struct ArchiveImage {
    /// Full names with tag; one without a name is there too.
    pub names: Vec<String>,
    pub descriptor: Descriptor,
}

/// Gives the bytes of blobs.
pub trait BlobSource {
    /// Size and content.
    fn open(&self, digest: &Digest) -> io::Result<(u64, Box<dyn Read>)>;
}

const MAX_DOCUMENT: u64 = 16 << 20;

/// Writes an OCI layout; with `docker` also the `manifest.json` that `docker load` reads.
pub fn write(images: &[ArchiveImage], docker: bool, blobs: &dyn BlobSource, out: &mut impl Write) -> Result<(), Error> {
    let mut found = BTreeMap::new();
    let mut docker_images = Vec::new();
    for image in images {
        collect(&image.descriptor, blobs, &mut found)?;
        if docker {
            docker_images.push(docker_image(image, blobs)?);
        }
    }
    let mut files: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    for digest in found.keys() {
        files.insert(format!("blobs/sha256/{}", digest.hex()), None);
    }
    files.insert("oci-layout".into(), Some(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files.insert("index.json".into(), Some(to_json(&index(images))));
    if docker {
        files.insert("manifest.json".into(), Some(to_json(&docker_images)));
    }
    let mut builder = ::tar::Builder::new(out);
    for directory in ["blobs/", "blobs/sha256/"] {
        append(&mut builder, directory, 0o755, ::tar::EntryType::Directory, 0, io::empty())?;
    }
    for (name, content) in files {
        match content {
            Some(content) => {
                let size = content.len() as u64;
                append(&mut builder, &name, 0o644, ::tar::EntryType::Regular, size, content.as_slice())?;
            }
            None => {
                let hex = name.trim_start_matches("blobs/sha256/");
                let digest = format!("sha256:{hex}").parse().map_err(|_| Error::Missing(name.clone()))?;
                let (size, content) = open(blobs, &digest)?;
                append(&mut builder, &name, 0o444, ::tar::EntryType::Regular, size, content)?;
            }
        }
    }
    builder.finish().map_err(Error::Write)
}

fn append(
    builder: &mut ::tar::Builder<impl Write>,
    name: &str,
    mode: u32,
    kind: ::tar::EntryType,
    size: u64,
    content: impl Read,
) -> Result<(), Error> {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    builder.append_data(&mut header, name, content).map_err(Error::Write)
}

/// One entry for each name (R5.9.4, R5.9.5).
fn index(images: &[ArchiveImage]) -> serde_json::Value {
    let mut manifests = Vec::new();
    for image in images {
        if image.names.is_empty() {
            manifests.push(image.descriptor.clone());
        }
        for name in &image.names {
            let mut descriptor = image.descriptor.clone();
            let mut annotations: HashMap<String, String> = descriptor.annotations().clone().unwrap_or_default();
            annotations.insert(NAME.into(), name.clone());
            let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("latest", |(_, tag)| tag);
            annotations.insert(REF_NAME.into(), tag.into());
            descriptor.set_annotations(Some(annotations));
            manifests.push(descriptor);
        }
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    // By way of a sorted map: the annotations of a descriptor are in no order.
    sorted(json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}))
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(members) => {
            let members: BTreeMap<_, _> = members.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            serde_json::Value::Object(members.into_iter().collect())
        }
        serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn docker_image(image: &ArchiveImage, blobs: &dyn BlobSource) -> Result<serde_json::Value, Error> {
    let manifest: ImageManifest = document(&image.descriptor, blobs)?;
    let path = |descriptor: &Descriptor| -> Result<String, Error> {
        Ok(format!("blobs/sha256/{}", digest(descriptor)?.hex()))
    };
    let layers: Vec<String> = manifest.layers().iter().map(path).collect::<Result<_, _>>()?;
    // Docker wants names as its users write them.
    let familiar =
        |name: &String| name.parse::<crate::Reference>().map_or_else(|_| name.clone(), |name| name.familiar());
    let tags: Vec<String> = image.names.iter().map(familiar).collect();
    Ok(json!({"Config": path(manifest.config())?, "RepoTags": tags, "Layers": layers}))
}

/// The blobs of an image, by way of its documents.
fn collect(descriptor: &Descriptor, blobs: &dyn BlobSource, found: &mut BTreeMap<Digest, ()>) -> Result<(), Error> {
    if found.insert(digest(descriptor)?, ()).is_some() {
        return Ok(());
    }
    if is_index(descriptor) {
        let index: ImageIndex = document(descriptor, blobs)?;
        return index.manifests().iter().try_for_each(|manifest| collect(manifest, blobs, found));
    }
    let manifest: ImageManifest = document(descriptor, blobs)?;
    for blob in manifest.layers().iter().chain([manifest.config()]) {
        found.insert(digest(blob)?, ());
    }
    Ok(())
}

pub(super) fn is_index(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().to_string();
    media_type.contains("image.index") || media_type.contains("manifest.list")
}

fn document<T: serde::de::DeserializeOwned>(descriptor: &Descriptor, blobs: &dyn BlobSource) -> Result<T, Error> {
    let digest = digest(descriptor)?;
    let mut bytes = Vec::new();
    open(blobs, &digest)?.1.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(Error::Read)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::Invalid { name: digest.to_string(), reason: error.to_string() })
}

fn open(blobs: &dyn BlobSource, digest: &Digest) -> Result<(u64, Box<dyn Read>), Error> {
    blobs.open(digest).map_err(|error| Error::Store { name: digest.to_string(), reason: error.to_string() })
}

fn digest(descriptor: &Descriptor) -> Result<Digest, Error> {
    Digest::try_from(descriptor.digest())
        .map_err(|error| Error::Invalid { name: "a descriptor".into(), reason: error.to_string() })
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
