//! OCI image layouts: a directory with `oci-layout`, `index.json` and `blobs/sha256/…` (image-spec, image-layout.md).
//!
//! Names are annotations of the index's descriptors: `io.containerd.image.name` is the whole name, and
//! `org.opencontainers.image.ref.name` its tag (spec R5.9.4). An image with two names is listed twice.

use crate::archive::Error;
use crate::{Descriptor, Digest, ImageIndex, MediaType};
use oci_spec::image::ImageIndexBuilder;
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The content of the file `oci-layout`.
pub const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

pub const IMAGE_NAME: &str = "io.containerd.image.name";
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub const CREATED: &str = "org.opencontainers.image.created";

/// What Docker calls an index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The longest manifest, index or config that is read.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Makes `dir` an image layout, if it is none yet: its directories and the file `oci-layout`.
pub fn init(dir: &Path) -> Result<(), Error> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| Error::io("create directory", blobs.display(), e))?;
    match read_document(&dir.join("oci-layout"))? {
        None => replace(dir, "oci-layout", OCI_LAYOUT.as_bytes()),
        Some(bytes) => {
            let value: Value = serde_json::from_slice(&bytes).map_err(|e| Error::document("oci-layout", e))?;
            match value["imageLayoutVersion"].as_str() {
                Some(version) if version.starts_with("1.") => Ok(()),
                version => Err(Error::document("oci-layout", format!("unknown image layout version {version:?}"))),
            }
        }
    }
}

/// The path of a blob in a layout.
pub fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

/// Reads `index.json`; an empty index if there is none.
pub fn read_index(dir: &Path) -> Result<ImageIndex, Error> {
    match read_document(&dir.join("index.json"))? {
        None => Ok(index(Vec::new())),
        Some(bytes) => index_from_json(&bytes).map_err(|e| Error::document("index.json", e)),
    }
}

/// Replaces `index.json` in one step.
pub fn write_index(dir: &Path, index: &ImageIndex) -> Result<(), Error> {
    replace(dir, "index.json", &to_json(index))
}

/// Whether it is a list of manifests, OCI's or Docker's.
pub fn is_index(media_type: &MediaType) -> bool {
    matches!(media_type, MediaType::ImageIndex) || media_type.as_ref() == DOCKER_INDEX
}

/// An index of these descriptors.
pub fn index(manifests: Vec<Descriptor>) -> ImageIndex {
    ImageIndexBuilder::default()
        .schema_version(oci_spec::image::SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests)
        .build()
        .expect("an index needs no more than a version and manifests")
}

/// The descriptor under which an index lists `manifest` by the name `name`, which is normalised and has a tag.
/// `created` is RFC 3339.
pub fn named(manifest: &Descriptor, name: Option<&str>, created: Option<&str>) -> Descriptor {
    let mut annotations = manifest.annotations().clone().unwrap_or_default();
    if let Some(name) = name {
        annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
        annotations.insert(REF_NAME.to_owned(), tag(name).to_owned());
    }
    if let Some(created) = created {
        annotations.insert(CREATED.to_owned(), created.to_owned());
    }
    let mut descriptor = manifest.clone();
    descriptor.set_annotations((!annotations.is_empty()).then_some(annotations));
    descriptor
}

/// Adds a descriptor to an index in the place of what had its name: the same full name, or, where one of the two has
/// none, the same tag (spec R5.9.1).
pub fn put(index: &mut ImageIndex, descriptor: Descriptor) {
    let annotation = |descriptor: &Descriptor, key| descriptor.annotations().as_ref()?.get(key).cloned();
    let same = |other: &Descriptor| match (annotation(&descriptor, IMAGE_NAME), annotation(other, IMAGE_NAME)) {
        (Some(new), Some(old)) => new == old,
        _ => match (annotation(&descriptor, REF_NAME), annotation(other, REF_NAME)) {
            (Some(new), Some(old)) => new == old,
            (None, None) => descriptor.digest() == other.digest(),
            _ => false,
        },
    };
    let mut manifests = index.manifests().clone();
    manifests.retain(|other| !same(other));
    manifests.push(descriptor);
    index.set_manifests(manifests);
}

/// The tag of a name, `latest` if it has none.
pub(crate) fn tag(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

/// JSON whose bytes depend on the content alone: annotations, which `oci_spec` keeps in hash maps, are sorted, all other
/// members stay in the order of their types (spec R4.6.1).
pub fn to_json(document: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(document).unwrap_or_default();
    sort_annotations(&mut value);
    rename_platforms(&mut value, |(ours, norm)| (ours, norm));
    value.to_string().into_bytes()
}

/// An index from its bytes.
pub fn index_from_json(bytes: &[u8]) -> Result<ImageIndex, serde_json::Error> {
    let mut value = serde_json::from_slice(bytes)?;
    rename_platforms(&mut value, |(ours, norm)| (norm, ours));
    serde_json::from_value(value)
}

/// How `oci_spec` calls members of a descriptor's platform, and how the norm does.
const PLATFORM_MEMBERS: [(&str, &str); 2] = [("os_version", "os.version"), ("os_features", "os.features")];

fn rename_platforms(document: &mut Value, direction: fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let manifests = document.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten();
    for platform in manifests.filter_map(|manifest| manifest.get_mut("platform")?.as_object_mut()) {
        for (from, to) in PLATFORM_MEMBERS.map(direction) {
            if let Some(value) = platform.remove(from) {
                platform.insert(to.to_owned(), value);
            }
        }
    }
}

fn sort_annotations(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(sort_annotations),
        Value::Object(members) => {
            for (key, member) in members.iter_mut() {
                match member {
                    Value::Object(annotations) if key == "annotations" => annotations.sort_keys(),
                    member => sort_annotations(member),
                }
            }
        }
        _ => {}
    }
}

/// A file of bounded size; `None` if there is none.
pub(crate) fn read_document(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(|e| Error::io("open", path.display(), e))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path.display(), e))?;
    match bytes.len() as u64 > MAX_DOCUMENT {
        true => Err(Error::document(path.display(), "it is larger than 4 MiB")),
        false => Ok(Some(bytes)),
    }
}

fn replace(dir: &Path, name: &str, content: &[u8]) -> Result<(), Error> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".{name}.{}.{unique}", std::process::id()));
    let written = fs::File::create_new(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, dir.join(name)));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", dir.join(name).display(), error)
    })
}
