//! Reads image archives, compressed or not. The archive is read once, from its start: every file that may be a blob goes to the sink when it is met, and the
//! documents that say what they are come when they come.

use super::{Error, NAME, REF_NAME};
use crate::codec::{Compression, decoder};
use crate::{Descriptor, Digest, ImageIndex, MediaType};
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::io::{self, Read};

/// Takes blobs as they are found.
pub trait BlobSink {
    /// Stores a blob, and says its digest and size. With `expected`, only if its digest is that.
    fn put(&mut self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)>;
}

/// An image that an archive held.
#[derive(Clone, Debug)]
pub struct LoadedImage {
    /// As the archive gives them; perhaps none.
    pub names: Vec<String>,
    pub descriptor: Descriptor,
}

/// Documents larger than this are an attack.
const MAX_DOCUMENT: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

struct Blob {
    digest: Digest,
    size: u64,
    is_gzip: bool,
}

/// Reads an OCI layout or a docker archive.
pub fn read(archive: impl Read + Send, sink: &mut dyn BlobSink) -> Result<Vec<LoadedImage>, Error> {
    let mut archive = ::tar::Archive::new(decoder(archive).map_err(Error::Read)?);
    let mut blobs: HashMap<String, Blob> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let (mut index, mut docker) = (None, None);
    for entry in archive.entries().map_err(Error::Read)? {
        let mut entry = entry.map_err(Error::Read)?;
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        match entry.header().entry_type() {
            ::tar::EntryType::Symlink | ::tar::EntryType::Link => {
                let target = String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned();
                let from = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let hard = entry.header().entry_type() == ::tar::EntryType::Link;
                links.insert(name.clone(), clean(&if hard { target } else { format!("{from}/{target}") }));
            }
            ::tar::EntryType::Regular => match name.as_str() {
                "index.json" => index = Some(document(&name, &mut entry)?),
                "manifest.json" => docker = Some(document(&name, &mut entry)?),
                "oci-layout" | "repositories" => {}
                _ => {
                    let blob = store(&name, &mut entry, sink)?;
                    blobs.insert(name, blob);
                }
            },
            _ => {}
        }
    }
    let index: Option<ImageIndex> = index.map(|bytes| parse("index.json", &bytes)).transpose()?;
    let docker: Option<Vec<DockerImage>> = docker.map(|bytes| parse("manifest.json", &bytes)).transpose()?;
    match (index, docker) {
        (Some(index), docker) if !index.manifests().is_empty() => Ok(from_index(&index, docker.as_deref())),
        (_, Some(images)) => images.iter().map(|image| from_docker(image, &blobs, &links, sink)).collect(),
        (Some(_), None) => Ok(Vec::new()),
        (None, None) => Err(Error::Unknown),
    }
}

fn store(name: &str, entry: &mut impl Read, sink: &mut dyn BlobSink) -> Result<Blob, Error> {
    let expected = match name.strip_prefix("blobs/sha256/") {
        Some(hex) => Some(format!("sha256:{hex}").parse().map_err(|error: crate::digest::InvalidDigest| {
            Error::Invalid { name: name.to_owned(), reason: error.to_string() }
        })?),
        None => None,
    };
    let mut magic = [0; 2];
    let mut length = 0;
    while length < 2 {
        match entry.read(&mut magic[length..]).map_err(Error::Read)? {
            0 => break,
            read => length += read,
        }
    }
    let mut content = io::Read::chain(&magic[..length], entry);
    let (digest, size) = sink
        .put(expected, &mut content)
        .map_err(|error| Error::Store { name: name.to_owned(), reason: error.to_string() })?;
    Ok(Blob { digest, size, is_gzip: magic == [0x1f, 0x8b] })
}

fn from_index(index: &ImageIndex, docker: Option<&[DockerImage]>) -> Vec<LoadedImage> {
    let mut images: Vec<LoadedImage> = Vec::new();
    for descriptor in index.manifests() {
        let annotation = |key: &str| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        // A bare tag is no name, but `skopeo copy … oci-archive:FILE:NAME` writes whole names there.
        let name = annotation(NAME).or_else(|| annotation(REF_NAME).filter(|name| name.contains(['/', ':'])));
        let mut plain = descriptor.clone();
        plain.set_annotations(None);
        match images.iter_mut().find(|image| image.descriptor.digest() == descriptor.digest()) {
            Some(image) => image.names.extend(name),
            None => images.push(LoadedImage { names: name.into_iter().collect(), descriptor: plain }),
        }
    }
    // `docker save` may name its images only here.
    if let ([image], Some([docker])) = (images.as_mut_slice(), docker)
        && image.names.is_empty()
    {
        image.names = docker.repo_tags.clone().unwrap_or_default();
    }
    images
}

/// Makes a manifest for an image that had none.
fn from_docker(
    image: &DockerImage,
    blobs: &HashMap<String, Blob>,
    links: &HashMap<String, String>,
    sink: &mut dyn BlobSink,
) -> Result<LoadedImage, Error> {
    let find = |path: &String| {
        let name = clean(path);
        let name = links.get(&name).unwrap_or(&name);
        blobs.get(name).ok_or_else(|| Error::Missing(path.clone()))
    };
    let config = find(&image.config)?;
    let layers: Vec<_> = image
        .layers
        .iter()
        .flatten()
        .map(|path| {
            let blob = find(path)?;
            let compression = if blob.is_gzip { Compression::GZIP } else { Compression::None };
            let media_type = compression.media_type(false);
            Ok(json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size}))
        })
        .collect::<Result<_, Error>>()?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": layers,
    });
    let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    let (digest, size) = sink
        .put(None, &mut bytes.as_slice())
        .map_err(|error| Error::Store { name: "the manifest".into(), reason: error.to_string() })?;
    Ok(LoadedImage {
        names: image.repo_tags.clone().unwrap_or_default(),
        descriptor: Descriptor::new(MediaType::ImageManifest, size, digest.to_spec()),
    })
}

fn document(name: &str, entry: &mut impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    entry.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(Error::Read)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::Invalid {
            name: name.to_owned(),
            reason: format!("it is larger than {MAX_DOCUMENT} bytes"),
        });
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Invalid { name: name.to_owned(), reason: error.to_string() })
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
