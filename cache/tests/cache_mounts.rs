//! Directories of `RUN --mount=type=cache` in a remote cache: what moves, and what is made of it.

mod support;

use bytes::Bytes;
use cache::Store;
use cache::remote::mounts::{MountAccount, MountRecord, export_mount, fetch_mount};
use cache::remote::{Format, LocalCache, Published, Remote, Transport};
use std::fs::{self, File};
use std::path::Path;
use tempfile::TempDir;

struct Setting {
    directory: TempDir,
    /// Two machines.
    stores: [Store; 2],
    remote: Remote,
}

impl Setting {
    fn new() -> Setting {
        let directory = tempfile::tempdir().unwrap();
        let store = |name| Store::open(&directory.path().join(name)).unwrap();
        let format = Format::new(None, None).unwrap();
        let cache = LocalCache::destination(directory.path().join("cache"), "latest".into(), false, format);
        fs::create_dir(directory.path().join("mount")).unwrap();
        Setting { stores: [store("one"), store("two")], remote: Remote::Local(cache), directory }
    }

    fn mount(&self) -> std::path::PathBuf {
        self.directory.path().join("mount")
    }

    async fn export(&self, previous: Option<&MountRecord>) -> (MountRecord, MountAccount) {
        let directory = File::open(self.mount()).unwrap().into();
        let exported = export_mount(&self.stores[0], "m", directory, previous, &self.remote).await.unwrap();
        // As a cache with nothing else in it: a directory drops what nothing lists.
        let published = Published { config: Bytes::from_static(b"{}"), blobs: exported.0.descriptors() };
        self.remote.publish(&published).await.unwrap();
        exported
    }

    /// What another machine makes of it.
    async fn fetch(&self, record: &MountRecord) -> TempDir {
        let made = tempfile::tempdir().unwrap();
        let fetched = fetch_mount(&self.stores[1], record, &self.remote).await.unwrap();
        fetched.restore(&File::open(made.path()).unwrap().into()).unwrap();
        drop(fetched);
        for name in ["one", "two"] {
            let left = fs::read_dir(self.directory.path().join(name).join("tmp")).unwrap().count();
            assert_eq!(left, 0, "nothing is left in the stores");
        }
        made
    }
}

/// Bytes that do not compress, others for each seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(size).collect()
}

fn same(one: &Path, other: &Path) {
    let output =
        std::process::Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn only_what_changed_moves() {
    let setting = Setting::new();
    for number in 0..2000 {
        let path = setting.mount().join(format!("d{}", number % 17));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(format!("f{number}")), noise(number, 20_000)).unwrap();
    }
    let (first, account) = setting.export(None).await;
    assert!(account.chunks > 100 && account.moved == account.chunks && account.bytes > 40_000_000, "{account:?}");
    assert!(first.packs.len() <= 4, "{} packs", first.packs.len());
    same(&setting.mount(), setting.fetch(&first).await.path());

    // One file of many, and one that is longer: some chunks each, and the index.
    fs::write(setting.mount().join("d3/f3"), noise(9999, 20_000)).unwrap();
    fs::write(setting.mount().join("d5/f5"), noise(5, 31_234)).unwrap();
    let (second, account) = setting.export(Some(&first)).await;
    assert!((1..=8).contains(&account.moved) && account.bytes < 1_300_000, "{account:?}");
    assert_eq!(second.packs.len(), first.packs.len() + 1);
    same(&setting.mount(), setting.fetch(&second).await.path());

    // Times alone: the index.
    let touched = File::open(setting.mount().join("d3/f3")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let (third, account) = setting.export(Some(&second)).await;
    assert!(account.moved == 0 && account.bytes < 300_000, "{account:?}");

    // Nothing at all.
    let (fourth, account) = setting.export(Some(&third)).await;
    assert_eq!((account.moved, account.bytes, fourth.index), (0, 0, third.index));

    // What is deleted goes away, with the packs that were for it, in time.
    for number in 100..2000 {
        fs::remove_file(setting.mount().join(format!("d{}/f{number}", number % 17))).unwrap();
    }
    let (fifth, _) = setting.export(Some(&fourth)).await;
    let (sixth, _) = setting.export(Some(&fifth)).await;
    let size = |record: &MountRecord| record.packs.iter().map(|pack| pack.size).sum::<u64>();
    assert!(size(&sixth) < 10_000_000 && size(&fourth) > 40_000_000, "{} {}", size(&fourth), size(&sixth));
    same(&setting.mount(), setting.fetch(&sixth).await.path());
}

#[tokio::test]
async fn equal_content_is_kept_once() {
    let setting = Setting::new();
    let content = noise(7, 3_000_000);
    for number in 0..5 {
        fs::write(setting.mount().join(format!("f{number}")), &content).unwrap();
    }
    let (record, account) = setting.export(None).await;
    assert!(account.bytes < 6_000_000, "{account:?}");
    same(&setting.mount(), setting.fetch(&record).await.path());
    let empty = Setting::new();
    let (record, account) = empty.export(None).await;
    assert_eq!((record.packs.len(), account.chunks), (0, 0));
    same(&empty.mount(), empty.fetch(&record).await.path());
}

/// A pack that the cache has lost is made anew.
#[tokio::test]
async fn lost_packs_are_made_anew() {
    let setting = Setting::new();
    fs::write(setting.mount().join("f"), noise(1, 1_000_000)).unwrap();
    let (first, _) = setting.export(None).await;
    let blobs = setting.directory.path().join("cache/blobs/sha256");
    fs::remove_file(blobs.join(first.packs[0].digest.hex())).unwrap();
    let error = fetch_mount(&setting.stores[1], &first, &setting.remote).await.err().unwrap().to_string();
    assert!(error.contains(&first.packs[0].digest.to_string()), "{error}");
    let (second, account) = setting.export(Some(&first)).await;
    assert_eq!(account.moved, account.chunks);
    same(&setting.mount(), setting.fetch(&second).await.path());
    fs::remove_file(blobs.join(second.index.digest.hex())).unwrap();
    let (third, account) = setting.export(Some(&second)).await;
    assert_eq!(account.moved, account.chunks);
    same(&setting.mount(), setting.fetch(&third).await.path());
}

/// What comes from a cache is verified, whole and in its parts.
#[tokio::test]
async fn hostile_blobs_are_refused() {
    let setting = Setting::new();
    fs::write(setting.mount().join("f"), noise(1, 1_000_000)).unwrap();
    let (record, _) = setting.export(None).await;
    let path = setting.directory.path().join("cache/blobs/sha256").join(record.packs[0].digest.hex());
    let good = fs::read(&path).unwrap();
    let longer = [good.as_slice(), b"x"].concat();
    let mut flipped = good.clone();
    flipped[5000] ^= 1;
    for bad in [flipped, longer, good[..1000].to_vec()] {
        fs::write(&path, bad).unwrap();
        assert!(fetch_mount(&setting.stores[1], &record, &setting.remote).await.is_err());
    }
    let mut large = record.clone();
    large.index.size = 1 << 40;
    assert!(fetch_mount(&setting.stores[1], &large, &setting.remote).await.is_err());
}
