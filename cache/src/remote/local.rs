//! Caches in directories, as OCI image layouts (R7.6.10). Several processes may write to one at the same time.
//!
//! Blobs are written below `ingest/` and renamed. `index.json` changes under the lock that buildx takes too. Who writes blobs that nothing names yet holds
//! `ingest/lock` together with others; who deletes what nothing names holds it alone.

use super::error::{Error, Result};
use super::manifest::{self, Documents, Format};
use super::registry::digest;
use super::{Progress, Published, Transport};
use crate::lock::FileLock;
use crate::store::random_name;
use bytes::Bytes;
use oci::codec::HashingWriter;
use oci::layout::{self, REF_NAME};
use oci::{Descriptor, Digest, MediaType};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncWrite, AsyncWriteExt};

const CHUNK: usize = 256 << 10;

/// A cache in a directory.
#[derive(Clone)]
pub struct LocalCache {
    directory: PathBuf,
    tag: String,
    /// What to read instead of the tag.
    digest: Option<Digest>,
    format: Format,
    /// Delete what nothing names after writing.
    reset: bool,
    /// Held from the first blob that is written until the cache is published.
    writing: Arc<Mutex<Option<FileLock>>>,
}

impl LocalCache {
    pub fn source(directory: PathBuf, tag: String, digest: Option<Digest>) -> Self {
        let format = Format { image_manifest: true, docker_types: false };
        LocalCache { directory, tag, digest, format, reset: false, writing: Arc::default() }
    }

    pub fn destination(directory: PathBuf, tag: String, reset: bool, format: Format) -> Self {
        LocalCache { directory, tag, digest: None, format, reset, writing: Arc::default() }
    }

    fn ingest(&self) -> PathBuf {
        self.directory.join("ingest")
    }

    /// The directory, made if it is missing, and the right to write to it.
    fn begin(&self) -> Result<()> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.is_none() {
            layout::init(&self.directory).map_err(|error| self.broken(&error))?;
            let ingest = self.ingest();
            fs::create_dir_all(&ingest).map_err(Error::io("create", &ingest))?;
            *writing = Some(FileLock::acquire_shared(&ingest.join("lock"))?);
        }
        Ok(())
    }

    fn broken(&self, error: &oci::archive::Error) -> Error {
        Error::Service { what: self.directory.display().to_string(), problem: error.to_string() }
    }

    /// What `tag` stands for; nothing if there is no such tag or no directory.
    fn tagged(&self) -> Result<Option<Digest>> {
        let index = layout::read_index(&self.directory).map_err(|error| self.broken(&error))?;
        let has_tag = |descriptor: &&Descriptor| {
            descriptor.annotations().as_ref().and_then(|annotations| annotations.get(REF_NAME)) == Some(&self.tag)
        };
        index.manifests().iter().find(has_tag).map(digest).transpose()
    }

    fn read(&self, digest: &Digest, most: u64) -> Result<Vec<u8>> {
        let path = layout::blob_path(&self.directory, digest);
        let mut bytes = Vec::new();
        let file = open(&path, digest)?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        if bytes.len() as u64 > most {
            return Err(Error::Document(format!("{digest} has more than the {most} bytes that are read")));
        }
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(crate::Error::WrongDigest { expected: *digest, found }.into()),
        }
    }

    /// Copies a blob of `size` bytes to its place, unless it is there.
    fn put(&self, digest: Digest, size: u64, mut source: impl Read) -> Result<()> {
        let place = layout::blob_path(&self.directory, &digest);
        if place.metadata().is_ok_and(|found| found.len() == size) {
            return Ok(());
        }
        let temporary = self.ingest().join(random_name());
        let copied = (|| {
            let mut writer = HashingWriter::new(File::create_new(&temporary)?);
            io::copy(&mut source, &mut writer)?;
            writer.flush()?;
            let (_, found, length) = writer.finish();
            if (found, length) != (digest, size) {
                return Err(io::Error::other(format!("its content has digest {found} and {length} bytes")));
            }
            fs::rename(&temporary, &place)
        })();
        copied.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", &place)(error)
        })
    }

    fn publish_here(&self, published: &Published) -> Result<Descriptor> {
        self.begin()?;
        let config = manifest::config_descriptor(published);
        self.put(digest(&config)?, config.size(), published.config.as_ref())?;
        let (media_type, bytes) = self.format.list(published);
        let listed = Digest::of(&bytes);
        self.put(listed, bytes.len() as u64, bytes.as_slice())?;
        let descriptor = Descriptor::new(media_type, bytes.len() as u64, listed.to_spec());
        let lock = FileLock::acquire(&self.directory.join("index.json.lock"))?;
        let mut index = layout::read_index(&self.directory).map_err(|error| self.broken(&error))?;
        let mut named = descriptor.clone();
        named.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), self.tag.clone())])));
        layout::put(&mut index, named);
        layout::write_index(&self.directory, &index).map_err(|error| self.broken(&error))?;
        drop(lock);
        *self.writing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.reset {
            self.delete_unnamed()?;
        }
        Ok(descriptor)
    }

    /// Unless somebody else is writing.
    fn delete_unnamed(&self) -> Result<()> {
        let Some(_lock) = FileLock::try_acquire(&self.ingest().join("lock"))? else { return Ok(()) };
        let index = layout::read_index(&self.directory).map_err(|error| self.broken(&error))?;
        let mut named = BTreeSet::new();
        let mut open: Vec<Descriptor> = index.manifests().clone();
        while let Some(descriptor) = open.pop() {
            let digest = digest(&descriptor)?;
            let is_list = |media_type: &MediaType| {
                let media_type = media_type.as_ref();
                media_type.contains("manifest") || media_type.contains("index")
            };
            if named.insert(digest)
                && is_list(descriptor.media_type())
                && let Ok(bytes) = self.read(&digest, layout::MAX_DOCUMENT)
                && let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes)
            {
                let lists = ["manifests", "layers"].into_iter().filter_map(|name| value[name].as_array()).flatten();
                let descriptors = lists.chain([&value["config"]]);
                open.extend(descriptors.filter_map(|descriptor| serde_json::from_value(descriptor.clone()).ok()));
            }
        }
        let blobs = self.directory.join("blobs/sha256");
        let entries = fs::read_dir(&blobs).map_err(Error::io("list", &blobs))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = format!("sha256:{}", name.to_string_lossy()).parse::<Digest>();
            if digest.is_ok_and(|digest| !named.contains(&digest)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

fn open(path: &Path, digest: &Digest) -> Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(*digest)),
        opened => opened.map_err(Error::io("open", path)),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) if gone.is_panic() => std::panic::resume_unwind(gone.into_panic()),
        Err(gone) => Err(Error::Service { what: "a thread ended early".into(), problem: gone.to_string() }),
    }
}

impl Documents for LocalCache {
    async fn document(&self, descriptor: &Descriptor, most: u64) -> Result<Bytes> {
        let (this, digest) = (self.clone(), digest(descriptor)?);
        blocking(move || Ok(this.read(&digest, most)?.into())).await
    }
}

impl Transport for LocalCache {
    async fn published(&self) -> Result<Vec<Published>> {
        let this = self.clone();
        let listed = blocking(move || match this.digest.map_or_else(|| this.tagged(), |digest| Ok(Some(digest)))? {
            Some(digest) => this.read(&digest, layout::MAX_DOCUMENT).map(Some),
            None => Ok(None),
        });
        match listed.await? {
            Some(listed) => manifest::read(self, &listed).await,
            None => Ok(vec![]),
        }
    }

    async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let path = layout::blob_path(&self.directory, &digest(blob)?);
        self.begin()?;
        Ok(path.metadata().is_ok_and(|found| found.len() == blob.size()))
    }

    async fn read_blob(
        &self,
        blob: &Descriptor,
        sink: &mut (dyn AsyncWrite + Send + Unpin),
        progress: Progress<'_>,
    ) -> Result<()> {
        let digest = digest(blob)?;
        let path = layout::blob_path(&self.directory, &digest);
        let mut file = open(&path, &digest)?;
        let (mut chunk, mut done) = (vec![0; CHUNK], 0);
        loop {
            let count = file.read(&mut chunk).map_err(Error::io("read", &path))?;
            if count == 0 {
                return Ok(());
            }
            done += count as u64;
            if done > blob.size() {
                return Err(crate::Error::WrongSize { digest, expected: blob.size(), found: done }.into());
            }
            sink.write_all(&chunk[..count]).await.map_err(Error::io("copy", &path))?;
            progress(done);
        }
    }

    async fn write_blob(&self, blob: &Descriptor, source: &Path, progress: Progress<'_>) -> Result<()> {
        let (this, digest, size, source) = (self.clone(), digest(blob)?, blob.size(), source.to_owned());
        blocking(move || {
            this.begin()?;
            this.put(digest, size, File::open(&source).map_err(Error::io("open", &source))?)
        })
        .await?;
        progress(size);
        Ok(())
    }

    async fn publish(&self, published: &Published) -> Result<Option<Descriptor>> {
        let (this, published) = (self.clone(), published.clone());
        blocking(move || this.publish_here(&published).map(Some)).await
    }

    fn wants_annotations(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { image_manifest: true, docker_types: false };

    fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    /// A cache of one blob with this content.
    async fn write(cache: &LocalCache, directory: &Path, content: &str) -> Result<()> {
        let source = directory.join(random_name());
        fs::write(&source, content).unwrap();
        let digest = Digest::of(content.as_bytes());
        let blob = Descriptor::new(MediaType::ImageLayer, content.len() as u64, digest.to_spec());
        cache.write_blob(&blob, &source, &mut |_| {}).await?;
        assert!(cache.has_blob(&blob).await?);
        let config = format!("{{\"records\":[{{\"digest\":\"{digest}\"}}]}}");
        cache.publish(&Published { config: config.into(), blobs: vec![blob] }).await?;
        Ok(())
    }

    fn blobs(directory: &Path) -> usize {
        fs::read_dir(directory.join("cache/blobs/sha256")).unwrap().count()
    }

    #[test]
    fn a_cache_is_read_by_tag_and_by_digest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let read = |tag: &str, digest| {
            let cache = LocalCache::source(path.clone(), tag.to_owned(), digest);
            let published = run(cache.published())?;
            Ok::<_, Error>(published.into_iter().map(|p| (p.blobs[0].digest().to_string(), cache.clone())).next())
        };
        assert!(read("latest", None).unwrap().is_none(), "there is no directory");
        let destination = |tag: &str, reset| LocalCache::destination(path.clone(), tag.to_owned(), reset, FORMAT);
        run(write(&destination("latest", false), directory.path(), "one")).unwrap();
        run(write(&destination("other", false), directory.path(), "two")).unwrap();
        assert!(read("third", None).unwrap().is_none());
        let (blob, cache) = read("other", None).unwrap().unwrap();
        assert_eq!(blob, Digest::of(b"two").to_string());
        let mut bytes = oci::registry::SyncWriter(Vec::new());
        let descriptor = Descriptor::new(MediaType::ImageLayer, 3, Digest::of(b"two").to_spec());
        run(cache.read_blob(&descriptor, &mut bytes, &mut |_| {})).unwrap();
        assert_eq!(bytes.0, b"two");
        let listed = cache.tagged().unwrap();
        run(write(&destination("other", false), directory.path(), "three")).unwrap();
        assert_eq!(read("other", None).unwrap().unwrap().0, Digest::of(b"three").to_string());
        assert_eq!(read("other", listed).unwrap().unwrap().0, Digest::of(b"two").to_string());
        assert_eq!(blobs(directory.path()), 9);
        run(write(&destination("latest", true), directory.path(), "four")).unwrap();
        assert_eq!(blobs(directory.path()), 6, "what nothing names is deleted");
        assert!(read("other", None).unwrap().is_some());
        let damaged = layout::blob_path(&path, &cache_tag(&path));
        fs::write(damaged, "{}").unwrap();
        assert!(read("latest", None).err().unwrap().to_string().contains("wrong content"));
    }

    fn cache_tag(path: &Path) -> Digest {
        LocalCache::source(path.to_owned(), "latest".into(), None).tagged().unwrap().unwrap()
    }

    #[test]
    fn writers_do_not_lose_each_others_tags() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let (path, directory) = (&path, directory.path());
                scope.spawn(move || {
                    let cache = LocalCache::destination(path.clone(), format!("t{writer}"), writer % 2 == 0, FORMAT);
                    run(write(&cache, directory, &format!("content {writer}"))).unwrap();
                });
            }
        });
        for writer in 0..8 {
            let cache = LocalCache::source(path.clone(), format!("t{writer}"), None);
            assert_eq!(run(cache.published()).unwrap().len(), 1);
        }
        assert_eq!(blobs(directory.path()), 24);
    }
}
