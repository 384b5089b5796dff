//! Base images: what a name stands for, and their layers, fetched when a step needs their files and not before.

use super::progress::Progress;
use crate::error::{Error, Result, blocking};
use crate::remote;
use crate::snapshot::Snapshots;
use crate::value::{ImageLayer, Layer, LayerOrigin, Stack};
use cache::{Kind, LayerId, Store};
use oci::layout::is_index;
use oci::registry::Client;
use oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, MediaType, Platform, Reference};
use solver::event::EventSink;
use solver::lower::{ImageResolver, ResolvedImage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

const MAX_DOCUMENT: u64 = 4 << 20;
const MEMO: &str = "image";

/// Finds images in the store and in registries. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    store: Store,
    client: Client,
    /// Ask the registry, whatever the store knows.
    pull: bool,
    /// What names stand for, as the registry answered: all platforms of a build see the same index, and it is asked once.
    answers: Arc<Mutex<HashMap<Reference, Answer>>>,
}

/// What a name stands for; the document is in the store.
type Answer = Arc<OnceCell<(MediaType, Digest)>>;

impl Images {
    pub fn new(store: Store, client: Client, pull: bool) -> Self {
        Images { store, client, pull, answers: Arc::default() }
    }

    /// What `reference` stands for: an image of the store, one that an earlier build resolved, or the registry's.
    async fn find(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        let memo = format!("{reference} {platform}");
        let (mut is_here, mut other_platform, mut damage) = (false, None, None);
        if let Some(digest) = reference.digest() {
            other_platform = self.pinned(reference, digest, platform)?;
            if let Some(image) = other_platform.take_if(|image| platform.matches(&image.config.platform())) {
                return Ok(image);
            }
        }
        if !self.pull {
            match self.store.find(&reference.to_string(), Some(&reference.to_string())) {
                Ok(found) => match self.stored(&found.image.descriptor, reference, platform) {
                    Ok(stored) => (is_here, other_platform) = (true, stored),
                    // The registry may have what is not here any more (R11 rows 9 and 10).
                    Err(error) => damage = Some(error),
                },
                Err(cache::Error::NoImage(_) | cache::Error::AmbiguousId(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(image) = other_platform.take_if(|image| platform.matches(&image.config.platform())) {
                return Ok(image);
            }
            if let Some(digests) = self.store.memo(MEMO, &memo)?
                && let Ok(digests) = serde_json::from_slice::<(Digest, Digest)>(&digests)
                && let Ok(config) = self.config_of(reference, &digests.0)
            {
                return Ok(ResolvedImage { manifest: digests.0, digest: digests.1, config });
            }
        }
        let image = match (self.fetch(reference, platform).await, other_platform) {
            (Ok(image), _) => image,
            // The registry has the name for no platform that fits better, or cannot be asked: what is here is meant (R9.4).
            (Err(_), Some(image)) => return Ok(image),
            (Err(_), None) if is_here => {
                return Err(Error::NoPlatform { reference: reference.to_string(), platform: platform.to_string() });
            }
            (Err(error), None) => return Err(damage.unwrap_or(error)),
        };
        let digests = serde_json::to_vec(&(image.manifest, image.digest)).unwrap_or_default();
        self.store.put_memo(MEMO, &memo, &digests)?;
        Ok(image)
    }

    /// An image that is named by its digest, whose documents are in the store: no registry can say otherwise, `--pull` or not.
    fn pinned(&self, reference: &Reference, digest: Digest, platform: &Platform) -> Result<Option<ResolvedImage>> {
        if !self.store.has_blob(&digest) {
            return Ok(None);
        }
        let bytes = self.store.read_blob(&digest, MAX_DOCUMENT)?;
        let document: Document = parse(reference, &bytes)?;
        let media_type = if document.manifests.is_some() { MediaType::ImageIndex } else { MediaType::ImageManifest };
        let found =
            self.stored(&Descriptor::new(media_type, bytes.len() as u64, digest.to_spec()), reference, platform);
        // Its config may be missing: then the registry has it.
        Ok(found.ok().flatten())
    }

    /// An image of the store; `None` if the store has it for other platforms only.
    pub fn stored(
        &self,
        descriptor: &Descriptor,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>> {
        let digest = self.digest(reference, descriptor)?;
        let manifest = match is_index(descriptor.media_type()) {
            true => {
                let index = parse_index(reference, &self.store.read_blob(&digest, MAX_DOCUMENT)?)?;
                match oci::platform::select(index.manifests(), platform) {
                    Some(selected) => self.digest(reference, selected)?,
                    None => return Ok(None),
                }
            }
            false => digest,
        };
        // An archive may have brought an index and not all that it lists.
        if !self.store.has_blob(&manifest) {
            return Ok(None);
        }
        Ok(Some(ResolvedImage { manifest, digest, config: self.config_of(reference, &manifest)? }))
    }

    /// Asks the registry, and keeps manifest and config.
    async fn fetch(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry(reference.clone()).or_default().clone()
        };
        let ask = async || -> Result<(MediaType, Digest)> {
            let (media_type, digest, bytes) = self.client.manifest(reference).await?;
            self.keep_document(reference, &bytes)?;
            Ok((media_type, digest))
        };
        let (media_type, digest) = answer.get_or_try_init(ask).await?.clone();
        let manifest = match is_index(&media_type) {
            false => digest,
            true => {
                let index = parse_index(reference, &self.store.read_blob(&digest, MAX_DOCUMENT)?)?;
                let selected = oci::platform::select(index.manifests(), platform).ok_or_else(|| Error::NoPlatform {
                    reference: reference.to_string(),
                    platform: platform.to_string(),
                })?;
                let selected = self.digest(reference, selected)?;
                if !self.store.has_blob(&selected) {
                    let (_, _, bytes) = self.client.manifest(&reference.with_digest(selected)).await?;
                    self.keep_document(reference, &bytes)?;
                }
                selected
            }
        };
        let document: ImageManifest = self.document(reference, &manifest)?;
        let config = self.digest(reference, document.config())?;
        if !self.store.has_blob(&config) {
            let bytes = self.client.fetch_blob_bytes(reference, document.config(), MAX_DOCUMENT).await?;
            self.keep_document(reference, &bytes)?;
        }
        Ok(ResolvedImage { manifest, digest, config: self.config_of(reference, &manifest)? })
    }

    fn keep_document(&self, reference: &Reference, bytes: &[u8]) -> Result<()> {
        let digest = self.store.put_blob(bytes)?;
        self.store.describe(&digest.to_string(), Kind::Regular, &format!("document of {reference}"));
        Ok(())
    }

    /// Fetches an image whole: documents and layers. Gives the descriptor of what the name stood for.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        vertex: &str,
        events: &EventSink,
    ) -> Result<Descriptor> {
        let image = self.fetch(reference, platform).await?;
        let manifest: ImageManifest = self.document(reference, &image.manifest)?;
        let layers: Vec<_> = manifest.layers().iter().collect();
        self.download(reference, &layers, vertex, events).await?;
        let size = self.store.read_blob(&image.manifest, MAX_DOCUMENT)?.len() as u64;
        let media_type = manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
        let mut descriptor = Descriptor::new(media_type, size, image.manifest.to_spec());
        descriptor.set_platform(Some(image.config.platform().to_spec()));
        Ok(descriptor)
    }

    fn config_of(&self, reference: &Reference, manifest: &Digest) -> Result<ImageConfig> {
        let manifest: ImageManifest = self.document(reference, manifest)?;
        self.document(reference, &self.digest(reference, manifest.config())?)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, reference: &Reference, digest: &Digest) -> Result<T> {
        parse(reference, &self.store.read_blob(digest, MAX_DOCUMENT)?)
    }

    fn digest(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Digest> {
        Digest::try_from(descriptor.digest())
            .map_err(|error| Error::Manifest { reference: reference.to_string(), problem: error.to_string() })
    }

    /// The layers of an image whose documents are in the store. None of them need exist as a directory.
    pub fn stack(&self, reference: &str, manifest: &Digest) -> Result<Stack> {
        let reference: Reference = reference.parse().map_err(|error: oci::reference::InvalidReference| {
            Error::Manifest { reference: reference.to_owned(), problem: error.to_string() }
        })?;
        let document: ImageManifest = self.document(&reference, manifest)?;
        let config: ImageConfig = self.config_of(&reference, manifest)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != document.layers().len() {
            let problem = format!("has {} layers where its config names {}", document.layers().len(), diff_ids.len());
            return Err(Error::Manifest { reference: reference.to_string(), problem });
        }
        let layers = document.layers().iter().enumerate().map(|(index, descriptor)| {
            let diff_id = diff_ids[index];
            let chain = oci::digest::chain_id(&diff_ids[..=index]).unwrap_or(diff_id.0);
            Layer {
                id: LayerId::of_chain(&chain),
                content: *diff_id.0.bytes(),
                origin: Some(Arc::new(LayerOrigin::Image(Box::new(ImageLayer {
                    reference: reference.clone(),
                    descriptor: descriptor.clone(),
                    diff_id,
                })))),
            }
        });
        Ok(layers.collect())
    }

    /// The config of an image whose documents are in the store.
    pub fn stored_config(&self, reference: &str, manifest: &Digest) -> Result<ImageConfig> {
        let reference: Reference = reference.parse().map_err(|error: oci::reference::InvalidReference| {
            Error::Manifest { reference: reference.to_owned(), problem: error.to_string() }
        })?;
        self.config_of(&reference, manifest)
    }

    /// Fetches the blobs of a stack that the store does not have.
    pub async fn fetch_layers(&self, stack: &Stack) -> Result<()> {
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        self.fetch_stack(stack, "", &EventSink::new(sender)).await
    }

    /// The same, at the same time, shown as a part of a vertex.
    pub async fn fetch_stack(&self, stack: &Stack, vertex: &str, events: &EventSink) -> Result<()> {
        let origins: Vec<_> = stack.layers().iter().filter_map(|layer| layer.origin.as_deref()).collect();
        self.fetch_origins(&origins, vertex, events).await
    }

    async fn fetch_origins(&self, origins: &[&LayerOrigin], vertex: &str, events: &EventSink) -> Result<()> {
        let cached = origins.iter().filter_map(|origin| match origin {
            LayerOrigin::Cached(cached) => Some(cached.as_ref()),
            LayerOrigin::Image(_) => None,
        });
        let cached: Vec<_> = cached.collect();
        let images = origins.iter().filter_map(|origin| match origin {
            LayerOrigin::Image(image) => Some(self.download_one(&image.reference, &image.descriptor, vertex, events)),
            LayerOrigin::Cached(_) => None,
        });
        let images = futures_util::future::try_join_all(images);
        futures_util::future::try_join(images, remote::fetch(&self.store, &cached, vertex, events)).await?;
        Ok(())
    }

    pub async fn unpack_quietly(&self, snapshots: &Snapshots, stack: &Stack) -> Result<()> {
        let (sender, _) = tokio::sync::mpsc::unbounded_channel();
        self.unpack(snapshots, stack, "", &EventSink::new(sender)).await
    }

    /// Makes the missing layers of a stack: fetched at the same time, unpacked from the bottom up. Others that want the same layer
    /// wait for the first.
    pub async fn unpack(&self, snapshots: &Snapshots, stack: &Stack, vertex: &str, events: &EventSink) -> Result<()> {
        let mut missing = Vec::new();
        for (index, layer) in stack.layers().iter().enumerate() {
            if let Some(origin) = &layer.origin
                && !self.store.has_layer(&layer.id)?
            {
                missing.push((index, layer.clone(), origin.clone()));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let origins: Vec<_> = missing.iter().map(|(_, _, origin)| origin.as_ref()).collect();
        self.fetch_origins(&origins, vertex, events).await?;
        for (index, layer, origin) in missing {
            let (store, snapshots, below) = (self.store.clone(), snapshots.clone(), stack.below(index));
            blocking(move || {
                let _lock = store.lock_key(blake3::hash(layer.id.to_string().as_bytes()).as_bytes())?;
                if store.has_layer(&layer.id)? {
                    return Ok(());
                }
                match origin.as_ref() {
                    LayerOrigin::Image(image) => snapshots.unpack(&layer, image, &below),
                    LayerOrigin::Cached(cached) => remote::unpack(&snapshots, &layer, cached, &below),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Fetches the blobs that the store does not have, at the same time.
    pub async fn download(
        &self,
        reference: &Reference,
        descriptors: &[&Descriptor],
        vertex: &str,
        events: &EventSink,
    ) -> Result<()> {
        let downloads = descriptors.iter().map(|descriptor| self.download_one(reference, descriptor, vertex, events));
        futures_util::future::try_join_all(downloads).await?;
        Ok(())
    }

    async fn download_one(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        vertex: &str,
        events: &EventSink,
    ) -> Result<()> {
        let digest = self.digest(reference, descriptor)?;
        if self.store.has_blob(&digest) {
            return Ok(());
        }
        let (store, key) = (self.store.clone(), *digest.bytes());
        let _lock = blocking(move || Ok(store.lock_key(&key)?)).await?;
        if self.store.has_blob(&digest) {
            return Ok(());
        }
        let total = descriptor.size();
        let mut progress = Progress::new(events, vertex, digest.to_string());
        let mut sink = oci::registry::SyncWriter(self.store.blob_writer()?);
        self.client.blob(reference, descriptor, &mut sink, &mut |current| progress.at(current, total)).await?;
        sink.0.commit(Some((digest, total)))?;
        self.store.describe(&digest.to_string(), Kind::Regular, &format!("layer of {reference}"));
        progress.done(total);
        Ok(())
    }
}

impl ImageResolver for Images {
    type Error = Error;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        self.find(reference, platform).await
    }
}

/// Enough of a document to tell an index from a manifest.
#[derive(serde::Deserialize)]
struct Document {
    manifests: Option<serde::de::IgnoredAny>,
}

fn parse_index(reference: &Reference, bytes: &[u8]) -> Result<ImageIndex> {
    oci::layout::index_from_json(bytes).map_err(|error| invalid(reference, &error))
}

fn parse<T: serde::de::DeserializeOwned>(reference: &Reference, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| invalid(reference, &error))
}

fn invalid(reference: &Reference, error: &serde_json::Error) -> Error {
    Error::Manifest { reference: reference.to_string(), problem: format!("is not valid: {error}") }
}
