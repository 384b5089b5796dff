//! Images by name: the store's `index.json`, an OCI image index whose descriptors carry the names.

use crate::error::{Error, Result};
use crate::lock::FileLock;
use crate::store::Store;
use oci::{Descriptor, Digest, ImageIndex};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Read;

/// The full, normalised name.
const NAME: &str = "io.containerd.image.name";
/// What OCI tools know an image of a layout by.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MAX_DOCUMENT: u64 = 16 << 20;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct StoredImage {
    /// Normalised names with tag, sorted; none for a dangling image.
    pub names: Vec<String>,
    /// Of its manifest or index.
    pub descriptor: Descriptor,
}

/// What a word of the user's stands for.
#[derive(Clone, Debug)]
pub struct Found {
    pub image: StoredImage,
    /// The name by which it was found, if it was one.
    pub name: Option<String>,
}

impl Store {
    /// All images, dangling ones too.
    pub fn images(&self) -> Result<Vec<StoredImage>> {
        Ok(collect(&self.index()?))
    }

    /// Gives an image a name; an image that had it loses it and stays, dangling.
    pub fn tag(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        self.change(|entries| {
            let is_it = |entry: &Descriptor| name_of(entry) == Some(name) && entry.digest() == descriptor.digest();
            if let Some(entry) = entries.iter_mut().find(|entry| is_it(entry)) {
                *entry = with_name(descriptor, name);
                return;
            }
            let mut nameless = Vec::new();
            entries.retain(|entry| {
                let had = name_of(entry) == Some(name);
                if had {
                    nameless.push(without_name(entry));
                }
                !had
            });
            for entry in nameless {
                if !entries.iter().any(|other| other.digest() == entry.digest()) {
                    entries.push(entry);
                }
            }
            // A name replaces the nameless entry of the same image.
            entries.retain(|entry| entry.digest() != descriptor.digest() || name_of(entry).is_some());
            entries.push(with_name(descriptor, name));
        })
    }

    /// Keeps an image without a name.
    pub fn keep(&self, descriptor: &Descriptor) -> Result<()> {
        self.change(|entries| {
            if !entries.iter().any(|entry| entry.digest() == descriptor.digest()) {
                entries.push(without_name(descriptor));
            }
        })
    }

    /// Takes a name away; the image stays. Says which image had it.
    pub fn untag(&self, name: &str) -> Result<Option<Descriptor>> {
        let mut found = None;
        self.change(|entries| {
            found = entries.iter().find(|entry| name_of(entry) == Some(name)).cloned();
            entries.retain(|entry| name_of(entry) != Some(name));
            if let Some(descriptor) = &found
                && !entries.iter().any(|entry| entry.digest() == descriptor.digest())
            {
                entries.push(without_name(descriptor));
            }
        })?;
        Ok(found)
    }

    /// Removes an image with all its names, and its blobs as far as no other image needs them and nobody relies on them.
    pub fn remove_image(&self, digest: &Digest) -> Result<()> {
        // What this process looked at to find the image counts for nothing.
        self.forget_use();
        let exclusive = self.exclusive()?;
        let mut needed = BTreeSet::new();
        let leased = self.leased(&exclusive);
        leased.iter().filter_map(|id| id.parse().ok()).for_each(|digest| self.reachable_from(&digest, &mut needed));
        for digest in self.remove_entry(digest, &needed)? {
            self.discard(&self.blob_path(&digest));
        }
        Ok(())
    }

    /// Takes an image out of the index. Gives those of its blobs that nothing needs any more.
    pub(crate) fn remove_entry(&self, digest: &Digest, needed: &BTreeSet<Digest>) -> Result<Vec<Digest>> {
        let text = digest.to_string();
        self.change(|entries| entries.retain(|entry| entry.digest().to_string() != text))?;
        let mut kept = needed.clone();
        for image in self.images()? {
            self.reachable(&image.descriptor, &mut kept);
        }
        let mut gone = BTreeSet::new();
        self.reachable_from(digest, &mut gone);
        Ok(gone.difference(&kept).copied().collect())
    }

    /// Finds an image by its full name, the digest of its manifest or config, or the first digits of one of these.
    pub fn find(&self, word: &str, normalised: Option<&str>) -> Result<Found> {
        let images = self.images()?;
        if let Some(name) = normalised
            && let Some(image) = images.iter().find(|image| image.names.iter().any(|known| known == name))
        {
            return Ok(Found { image: image.clone(), name: Some(name.to_owned()) });
        }
        let digits = word.strip_prefix("sha256:").unwrap_or(word);
        let none = || Error::NoImage(word.to_owned());
        if digits.len() < 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut found: Vec<StoredImage> = Vec::new();
        for image in images {
            let matches = |digest: &str| digest.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(digits));
            let is_it = matches(image.descriptor.digest().as_ref())
                || self.config_digest(&image.descriptor).is_some_and(|digest| matches(&digest.to_string()));
            if is_it {
                found.push(image);
            }
        }
        match found.len() {
            0 => Err(none()),
            1 => Ok(Found { image: found.remove(0), name: None }),
            _ => Err(Error::AmbiguousId(word.to_owned())),
        }
    }

    /// The digest of an image's config, which is Docker's image id.
    pub fn config_digest(&self, manifest: &Descriptor) -> Option<Digest> {
        let digest = Digest::try_from(manifest.digest()).ok()?;
        let bytes = self.read_blob(&digest, MAX_DOCUMENT).ok()?;
        let document: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        document.get("config")?.get("digest")?.as_str()?.parse().ok()
    }

    pub(crate) fn reachable(&self, descriptor: &Descriptor, found: &mut BTreeSet<Digest>) {
        if let Ok(digest) = Digest::try_from(descriptor.digest()) {
            self.reachable_from(&digest, found);
        }
    }

    /// A document's blobs: every digest that it names. Unreadable documents name none.
    pub(crate) fn reachable_from(&self, digest: &Digest, found: &mut BTreeSet<Digest>) {
        let mut documents = vec![*digest];
        while let Some(digest) = documents.pop() {
            if !found.insert(digest) {
                continue;
            }
            let Some(document) = self.document(&digest) else { continue };
            let digest = |descriptor: &serde_json::Value| descriptor.get("digest")?.as_str()?.parse::<Digest>().ok();
            let list = |key: &str| document.get(key).and_then(|it| it.as_array()).into_iter().flatten();
            documents.extend(list("manifests").filter_map(digest));
            found.extend(list("layers").chain(document.get("config")).filter_map(digest));
        }
    }

    /// A blob that looks like a JSON document. Neither its digest nor who relies on it counts here.
    pub(crate) fn document(&self, digest: &Digest) -> Option<serde_json::Value> {
        let mut file = fs::File::open(self.blob_path(digest)).ok()?.take(MAX_DOCUMENT);
        let mut bytes = vec![0];
        file.read_exact(&mut bytes).ok().filter(|()| bytes == b"{")?;
        file.read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn index(&self) -> Result<ImageIndex> {
        let path = self.path("index.json");
        let bytes = match fs::read(&path) {
            // Somebody removed it, as it was damaged.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(oci::layout::index(Vec::new())),
            bytes => bytes.map_err(Error::io("read", &path))?,
        };
        oci::layout::index_from_json(&bytes).map_err(|source| Error::Document { path, source })
    }

    /// Reads, changes and replaces the index, one process at a time.
    fn change(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<()> {
        let _lock = FileLock::acquire(&self.path("locks").join("index"))?;
        let mut index = self.index()?;
        let mut entries = index.manifests().clone();
        change(&mut entries);
        if entries == *index.manifests() {
            return Ok(());
        }
        index.set_manifests(entries);
        let path = self.path("index.json");
        let bytes = oci::layout::to_json(&index);
        // One name, as one process at a time writes it: what a killed one left is written over.
        let temporary = self.path("tmp/index.json");
        fs::write(&temporary, bytes).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", &temporary)(error)
        })?;
        fs::rename(&temporary, &path).map_err(Error::io("write", &path))
    }
}

fn collect(index: &ImageIndex) -> Vec<StoredImage> {
    let mut images: Vec<StoredImage> = Vec::new();
    for entry in index.manifests() {
        let name = name_of(entry).map(str::to_owned);
        match images.iter_mut().find(|image| image.descriptor.digest() == entry.digest()) {
            Some(image) => image.names.extend(name),
            None => images.push(StoredImage { names: name.into_iter().collect(), descriptor: without_name(entry) }),
        }
    }
    for image in &mut images {
        image.names.sort();
    }
    images
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(NAME).map(String::as_str)
}

fn with_name(descriptor: &Descriptor, name: &str) -> Descriptor {
    let mut entry = without_name(descriptor);
    let mut annotations: HashMap<String, String> = entry.annotations().clone().unwrap_or_default();
    annotations.insert(NAME.into(), name.into());
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    annotations.insert(REF_NAME.into(), tag.into());
    entry.set_annotations(Some(annotations));
    entry
}

fn without_name(descriptor: &Descriptor) -> Descriptor {
    let mut entry = descriptor.clone();
    let mut annotations = entry.annotations().clone().unwrap_or_default();
    annotations.remove(NAME);
    annotations.remove(REF_NAME);
    entry.set_annotations((!annotations.is_empty()).then_some(annotations));
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::MediaType;

    fn image(store: &Store, text: &str) -> Descriptor {
        let config = store.put_blob(format!("config of {text}").as_bytes()).unwrap();
        let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":[],"x":"{text}"}}"#);
        let digest = store.put_blob(manifest.as_bytes()).unwrap();
        Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest.to_spec())
    }

    #[test]
    fn names_move_and_images_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (one, two) = (image(&store, "one"), image(&store, "two"));
        store.tag("docker.io/library/a:1", &one).unwrap();
        store.tag("docker.io/library/b:1", &one).unwrap();
        store.tag("docker.io/library/a:1", &two).unwrap();
        let names = |digest: &Descriptor| {
            let images = store.images().unwrap();
            images.into_iter().find(|image| image.descriptor.digest() == digest.digest()).map(|image| image.names)
        };
        assert_eq!(names(&one).unwrap(), ["docker.io/library/b:1"]);
        assert_eq!(names(&two).unwrap(), ["docker.io/library/a:1"]);
        store.untag("docker.io/library/b:1").unwrap();
        assert_eq!(names(&one), Some(vec![]), "dangling");
        store.tag("docker.io/library/c:1", &one).unwrap();
        assert_eq!(store.images().unwrap().len(), 2);
        assert!(store.find("nope", Some("docker.io/library/nope:latest")).is_err());
        let id = store.config_digest(&two).unwrap();
        assert_eq!(store.find(&id.hex()[..12], None).unwrap().image.descriptor.digest(), two.digest());
    }

    #[test]
    fn removing_an_image_leaves_what_others_need() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (one, two) = (image(&store, "one"), image(&store, "two"));
        store.tag("a:1", &one).unwrap();
        store.tag("b:1", &two).unwrap();
        let config = store.config_digest(&one).unwrap();
        store.remove_image(&Digest::try_from(one.digest()).unwrap()).unwrap();
        assert!(!store.has_blob(&config));
        assert!(store.config_digest(&two).is_some_and(|digest| store.has_blob(&digest)));
        assert_eq!(store.images().unwrap().len(), 1);
    }

    #[test]
    fn writers_in_parallel_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let store = &store;
                scope.spawn(move || {
                    let other = Store::open(store.root()).unwrap();
                    other.tag(&format!("image:{number}"), &image(&other, &number.to_string())).unwrap();
                });
            }
        });
        assert_eq!(store.images().unwrap().len(), 8);
    }
}
