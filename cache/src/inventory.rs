//! What the cache holds: everything but images that have names, containers, and what is small.

use crate::error::{Error, Result};
use crate::lease::Exclusive;
use crate::lock::FileLock;
use crate::measure::measure;
use crate::mount;
use crate::policy::Disk;
use crate::store::Store;
use crate::usage::{DIGESTS, GIT, Kind, now};
use oci::{DiffId, Digest};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One thing that the cache holds. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRecord {
    /// Of a layer, a blob's digest, or `mount-`, `git-` or `digests-` and a name.
    pub id: String,
    pub kind: Kind,
    /// The layers below, bottom first.
    pub lowers: Vec<String>,
    /// Bytes on the disk that nothing older has.
    pub size: u64,
    pub created: i64,
    pub last_used: i64,
    /// How often it was used, as far as that was written.
    pub uses: u64,
    /// What it is, for people.
    pub description: String,
    /// An image with a name or a container has it too (R7.7.6).
    pub shared: bool,
    /// Somebody relies on it, or on something that stands on it.
    pub in_use: bool,
}

impl CacheRecord {
    /// It changes with each use.
    pub fn is_mutable(&self) -> bool {
        [mount::PREFIX, GIT, DIGESTS].iter().any(|prefix| self.id.starts_with(prefix))
    }

    /// What it stands on directly.
    pub fn parent(&self) -> Option<&str> {
        self.lowers.last().map(String::as_str)
    }
}

/// Images that others than the store know to be needed: what they are reached from, by digest of a manifest or index.
pub type Roots<'a> = &'a dyn Fn(&Store) -> Vec<Digest>;

/// What the cache holds, and what it does not.
pub struct Inventory {
    pub records: Vec<CacheRecord>,
    /// Bytes of blobs of images with names: not the cache's.
    pub images: u64,
}

/// What was seen at one moment, while nobody looked for anything.
pub(crate) struct Seen {
    pub records: Vec<CacheRecord>,
    pub images: u64,
    /// Blobs that must stay whatever becomes of the image that has them.
    pub needed: BTreeSet<Digest>,
}

/// A row of `usage`.
#[derive(Default)]
struct Usage {
    last_used: Option<i64>,
    uses: u64,
    size: Option<u64>,
    kind: Option<Kind>,
    description: Option<String>,
}

impl Store {
    /// What the cache holds, measured.
    pub fn inventory(&self, roots: Roots) -> Result<Inventory> {
        self.measure_layers(&|| true)?;
        self.measure_directories(&|| true)?;
        self.forget_use();
        let exclusive = self.exclusive()?;
        let Seen { records, images, .. } = self.see(&exclusive, roots)?;
        Ok(Inventory { records, images })
    }

    pub fn disk(&self) -> Result<Disk> {
        let stat = rustix::fs::statvfs(self.root()).map_err(Error::errno("look at the disk of", self.root()))?;
        Ok(Disk {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// Measures cache directories and repositories, which change.
    pub(crate) fn measure_directories(&self, go_on: &dyn Fn() -> bool) -> Result<()> {
        let mut sizes = Vec::new();
        for (id, path) in self.directories() {
            let measured = measure(&path, go_on);
            if measured.is_partial {
                break;
            }
            sizes.push((id, changed(&path), i64::try_from(measured.own).unwrap_or(i64::MAX)));
        }
        if sizes.is_empty() {
            return Ok(());
        }
        self.database().change(|connection| {
            let mut put = connection.prepare_cached(
                "INSERT INTO usage (id, last_used, uses, size) VALUES (?1, ?2, 0, ?3)
                 ON CONFLICT (id) DO UPDATE SET size = ?3 WHERE size IS NOT ?3",
            )?;
            sizes.iter().try_for_each(|size| put.execute((&size.0, size.1, size.2)).map(drop))
        })
    }

    fn directories(&self) -> Vec<(String, PathBuf)> {
        let list = |directory: &str, prefix: &'static str| {
            let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
            let entries = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
            entries.map(move |entry| (format!("{prefix}{}", entry.file_name().to_string_lossy()), entry.path()))
        };
        list("mounts", mount::PREFIX).chain(list("git", GIT)).collect()
    }

    /// Where a record's data is. `None` for an image.
    pub(crate) fn place(&self, id: &str) -> PathBuf {
        if let Some(name) = id.strip_prefix(mount::PREFIX) {
            self.path("mounts").join(name)
        } else if let Some(name) = id.strip_prefix(GIT) {
            self.path("git").join(name)
        } else if id.starts_with(DIGESTS) {
            self.path(id)
        } else if let Some(hex) = id.strip_prefix("sha256:") {
            self.path("blobs/sha256").join(hex)
        } else {
            self.path("snapshots").join(id)
        }
    }

    pub(crate) fn see(&self, exclusive: &Exclusive, roots: Roots) -> Result<Seen> {
        let leased = self.leased(exclusive);
        let containers = self.layers_of_containers()?;
        let containers: HashSet<String> = containers.iter().map(ToString::to_string).collect();
        let mut usage = self.all_usage()?;
        let images = self.images()?;
        let (named, dangling): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| !image.names.is_empty());

        let mut of_names = BTreeSet::new();
        named.iter().for_each(|image| self.reachable(&image.descriptor, &mut of_names));
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        let relied_on = leased.iter().filter_map(|id| id.parse().ok()).chain(roots(self));
        relied_on.for_each(|digest| self.reachable_from(&digest, &mut needed));

        let mut records = self.layers(&mut usage, &leased, &containers, &of_names)?;
        let mut sizes = self.blob_sizes()?;
        let images = of_names.iter().filter_map(|digest| sizes.remove(digest)).map(|(size, _)| size).sum();
        for image in dangling {
            let Ok(digest) = Digest::try_from(image.descriptor.digest()) else { continue };
            let mut blobs = BTreeSet::new();
            self.reachable_from(&digest, &mut blobs);
            let created = changed(&self.blob_path(&digest));
            let in_use = needed.contains(&digest);
            let size = blobs.iter().filter_map(|digest| sizes.remove(digest)).map(|(size, _)| size).sum();
            let usage = usage.remove(&digest.to_string()).unwrap_or_default();
            records.push(CacheRecord {
                kind: Kind::Internal,
                size,
                in_use,
                ..usage.record(digest.to_string(), created, "image without a name")
            });
        }
        for (digest, (size, created)) in sizes {
            let id = digest.to_string();
            let usage = usage.remove(&id).unwrap_or_default();
            let in_use = needed.contains(&digest);
            records.push(CacheRecord { size, in_use, ..usage.record(id, created, "blob that no image has") });
        }
        for (id, path) in self.directories() {
            let is_mount = id.starts_with(mount::PREFIX);
            let (kind, what) = match is_mount {
                true => (Kind::CacheMount, "directory of RUN --mount=type=cache"),
                false => (Kind::GitCheckout, "git repository"),
            };
            let usage = usage.remove(&id).unwrap_or_default();
            let is_locked = is_mount && FileLock::is_held(&mount::lock_path(&path));
            let in_use = is_locked || leased.contains(&id);
            // R7.7.10: what somebody is changing has no size.
            let size = if in_use { 0 } else { usage.size.unwrap_or(0) };
            records.push(CacheRecord { kind, size, in_use, ..usage.record(id, changed(&path), what) });
        }
        for entry in fs::read_dir(self.root()).map_err(Error::io("list", self.root()))?.flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if id.starts_with(DIGESTS)
                && let Ok(metadata) = entry.metadata()
            {
                let usage = usage.remove(&id).unwrap_or_default();
                let size = metadata.blocks() * 512;
                let record = usage.record(id, milliseconds(&metadata), "digests of a context's files");
                // A build that has it open goes on with it.
                records.push(CacheRecord { kind: Kind::LocalSource, size, ..record });
            }
        }
        records.sort_by(|a, b| (a.last_used, &a.id).cmp(&(b.last_used, &b.id)).reverse());
        Ok(Seen { records, images, needed })
    }

    /// The layers whose directory is there.
    fn layers(
        &self,
        usage: &mut HashMap<String, Usage>,
        leased: &HashSet<String>,
        containers: &HashSet<String>,
        of_names: &BTreeSet<Digest>,
    ) -> Result<Vec<CacheRecord>> {
        type Row = (String, String, i64, i64);
        let (rows, notes, blobs) = self.database().with(|connection| {
            let rows: Vec<Row> = connection
                .prepare_cached("SELECT id, lowers, created, size FROM layer")?
                .query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let pairs = |query| {
                let mut statement = connection.prepare_cached(query)?;
                let rows = statement.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            };
            let notes = pairs("SELECT layer, note FROM result WHERE note IS NOT NULL")?;
            Ok((rows, notes, pairs("SELECT layer, digest FROM layer_blob")?))
        })?;
        let notes: HashMap<String, String> = notes.into_iter().collect();
        // What images with names and containers have, and all below it.
        let mut shared = self.unpacked_layers(of_names);
        shared.extend(containers.iter().cloned());
        let has_image = |digest: &String| digest.parse().is_ok_and(|digest| of_names.contains(&digest));
        shared.extend(blobs.into_iter().filter(|(_, digest)| has_image(digest)).map(|(layer, _)| layer));
        let mut in_use: HashSet<String> = leased.union(containers).cloned().collect();
        for (id, lowers, ..) in &rows {
            for set in [&mut shared, &mut in_use] {
                if set.contains(id) {
                    set.extend(lowers.split_whitespace().map(str::to_owned));
                }
            }
        }
        let is_there = |id: &String| self.path("snapshots").join(id).exists();
        let record = |(id, lowers, created, content): Row| {
            let usage = usage.remove(&id).unwrap_or_default();
            let size = usage.size.unwrap_or_else(|| u64::try_from(content).unwrap_or(0));
            let what = notes.get(&id).map_or("layer", String::as_str);
            let (shared, in_use) = (shared.contains(&id), in_use.contains(&id));
            let lowers = lowers.split_whitespace().map(str::to_owned).collect();
            CacheRecord { size, lowers, shared, in_use, ..usage.record(id, created / 1_000_000, what) }
        };
        Ok(rows.into_iter().filter(|(id, ..)| is_there(id)).map(record).collect())
    }

    /// The ids that layers of images have where they are unpacked.
    fn unpacked_layers(&self, blobs: &BTreeSet<Digest>) -> HashSet<String> {
        let mut ids = HashSet::new();
        for digest in blobs {
            let Some(manifest) = self.document(digest) else { continue };
            let config = manifest.get("config").and_then(|config| config.get("digest")).and_then(|it| it.as_str());
            let Some(config) = config.and_then(|digest| digest.parse().ok()).and_then(|it| self.document(&it)) else {
                continue;
            };
            let diff_ids = config.get("rootfs").and_then(|rootfs| rootfs.get("diff_ids")).and_then(|it| it.as_array());
            let diff_ids = diff_ids.into_iter().flatten().filter_map(|id| id.as_str()?.parse().ok().map(DiffId));
            let diff_ids: Vec<DiffId> = diff_ids.collect();
            let chains = (1..=diff_ids.len()).filter_map(|count| oci::digest::chain_id(&diff_ids[..count]));
            ids.extend(chains.map(|chain| crate::LayerId::of_chain(&chain).to_string()));
        }
        ids
    }

    /// Size on the disk, and time, of each blob.
    fn blob_sizes(&self) -> Result<HashMap<Digest, (u64, i64)>> {
        let directory = self.path("blobs/sha256");
        let entries = fs::read_dir(&directory).map_err(Error::io("list", &directory))?;
        let blob = |entry: fs::DirEntry| {
            let digest = format!("sha256:{}", entry.file_name().to_str()?).parse().ok()?;
            let metadata = entry.metadata().ok()?;
            Some((digest, (metadata.blocks() * 512, milliseconds(&metadata))))
        };
        Ok(entries.flatten().filter_map(blob).collect())
    }

    fn all_usage(&self) -> Result<HashMap<String, Usage>> {
        self.database().with(|connection| {
            let mut all =
                connection.prepare_cached("SELECT id, last_used, uses, size, kind, description FROM usage")?;
            let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
            let rows = all.query_map((), |row| {
                let kind: Option<String> = row.get(4)?;
                let usage = Usage {
                    last_used: row.get(1)?,
                    uses: unsigned(row.get(2)?),
                    size: row.get::<_, Option<i64>>(3)?.map(unsigned),
                    kind: kind.and_then(|kind| kind.parse().ok()),
                    description: row.get(5)?,
                };
                Ok((row.get(0)?, usage))
            })?;
            rows.collect()
        })
    }
}

impl Usage {
    fn record(self, id: String, created: i64, what: &str) -> CacheRecord {
        CacheRecord {
            id,
            kind: self.kind.unwrap_or(Kind::Regular),
            lowers: Vec::new(),
            size: self.size.unwrap_or(0),
            created,
            // Clocks may have been set back.
            last_used: self.last_used.map_or(created, |used| used.max(created).min(now())),
            uses: self.uses,
            description: self.description.unwrap_or_else(|| what.to_owned()),
            shared: false,
            in_use: false,
        }
    }
}

fn changed(path: &Path) -> i64 {
    fs::symlink_metadata(path).map_or(0, |metadata| milliseconds(&metadata))
}

fn milliseconds(changed: &fs::Metadata) -> i64 {
    changed.mtime().saturating_mul(1000).saturating_add(changed.mtime_nsec() / 1_000_000)
}
