//! Archives and image layouts: what we write is read back by us and by skopeo; what others write is read; damaged and
//! hostile ones are refused.

use oci::archive::{ArchiveImage, ArchiveOptions, BlobSink, Error, read, read_tar, write_directory, write_oci};
use oci::{Descriptor, Digest, MediaType, layout};
use oci_spec::image::DescriptorBuilder;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

/// Blobs in memory.
#[derive(Default, Clone, PartialEq, Debug)]
struct Store(BTreeMap<Digest, Vec<u8>>);

impl BlobSink for Store {
    fn put(&mut self, expected: Option<Digest>, reader: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        let digest = Digest::of(&bytes);
        if expected.is_some_and(|expected| expected != digest) {
            return Err(io::Error::other("digest mismatch"));
        }
        let size = bytes.len() as u64;
        self.0.insert(digest, bytes);
        Ok((digest, size))
    }
}

impl Store {
    fn add(&mut self, media_type: MediaType, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        self.0.insert(digest, bytes.to_vec());
        let builder = DescriptorBuilder::default().media_type(media_type).digest(digest.to_spec());
        builder.size(bytes.len() as u64).build().unwrap()
    }

    fn source(&self) -> impl Fn(&Digest) -> io::Result<(u64, Box<dyn Read>)> + '_ {
        |digest| {
            let bytes = self.0.get(digest).ok_or(io::ErrorKind::NotFound)?.clone();
            Ok((bytes.len() as u64, Box::new(io::Cursor::new(bytes)) as _))
        }
    }

    /// A one-layer image for an architecture.
    fn image(&mut self, architecture: &str) -> Descriptor {
        let layer_bytes = vec![0; 1024];
        let layer = self.add(MediaType::ImageLayer, &layer_bytes);
        let config = json!({"architecture": architecture, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer_bytes)]}});
        let config = self.add(MediaType::ImageConfig, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": [layer]});
        self.add(MediaType::ImageManifest, manifest.to_string().as_bytes())
    }

    fn index(&mut self, manifests: &[&Descriptor]) -> Descriptor {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.add(MediaType::ImageIndex, index.to_string().as_bytes())
    }
}

fn named(names: &[&str], manifest: &Descriptor) -> ArchiveImage {
    ArchiveImage { names: names.iter().map(|&name| name.to_owned()).collect(), manifest: manifest.clone() }
}

fn write(store: &Store, images: &[ArchiveImage], docker: bool) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let options = ArchiveOptions { docker, created: Some("2024-01-02T03:04:05Z".into()) };
    write_oci(images, &store.source(), &options, &mut out)?;
    Ok(out)
}

fn entries(tar: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        found.insert(entry.path().unwrap().display().to_string(), (entry.header().mode().unwrap(), content));
    }
    found
}

const NAMES: [&str; 2] = ["docker.io/library/app:1.0", "localhost:5000/team/app:latest"];

/// R5.9.2 to R5.9.5
#[test]
fn the_form_of_an_archive() {
    let mut store = Store::default();
    let manifest = store.image("amd64");
    let out = write(&store, &[named(&NAMES, &manifest)], true).unwrap();
    assert_eq!(out, write(&store, &[named(&NAMES, &manifest)], true).unwrap(), "equal bytes");
    let entries = entries(&out);
    let modes: Vec<(&str, u32)> = entries.iter().map(|(path, (mode, _))| (path.as_str(), *mode)).collect();
    assert_eq!(modes[..2], [("blobs/", 0o755), ("blobs/sha256/", 0o755)]);
    assert_eq!(modes[5..], [("index.json", 0o644), ("manifest.json", 0o644), ("oci-layout", 0o444)]);
    assert!(modes[2..5].iter().all(|(path, mode)| path.starts_with("blobs/sha256/") && *mode == 0o444));

    let index: Value = serde_json::from_slice(&entries["index.json"].1).unwrap();
    let annotations: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|manifest| &manifest["annotations"]).collect();
    let expected = |name: &str, tag: &str| {
        json!({"io.containerd.image.name": name, "org.opencontainers.image.created": "2024-01-02T03:04:05Z",
            "org.opencontainers.image.ref.name": tag})
    };
    assert_eq!(annotations, [&expected(NAMES[0], "1.0"), &expected(NAMES[1], "latest")]);
    let docker: Value = serde_json::from_slice(&entries["manifest.json"].1).unwrap();
    assert_eq!(docker[0]["RepoTags"], json!(["app:1.0", "localhost:5000/team/app:latest"]));
    assert!(docker[0]["Layers"][0].as_str().unwrap().starts_with("blobs/sha256/5f70bf18"));

    let nameless = write(&store, &[named(&[], &manifest)], true).unwrap();
    let docker: Value = serde_json::from_slice(&self::entries(&nameless)["manifest.json"].1).unwrap();
    assert_eq!(docker[0]["RepoTags"], Value::Null);
}

#[test]
fn archives_are_read_back() {
    let mut store = Store::default();
    let (amd, arm) = (store.image("amd64"), store.image("arm64"));
    let index = store.index(&[&amd, &arm]);
    let images = [named(&NAMES, &index), named(&[], &amd)];
    let out = write(&store, &images, false).unwrap();
    let gzipped = {
        let mut encoder = oci::codec::Encoder::new(Vec::new(), oci::codec::Compression::GZIP);
        io::Write::write_all(&mut encoder, &out).unwrap();
        encoder.finish().unwrap()
    };
    for bytes in [&out, &gzipped] {
        let mut again = Store::default();
        assert_eq!(read_tar(bytes.as_slice(), &mut again).unwrap(), images);
        assert_eq!(again, store);
    }

    let dir = tempfile::tempdir().unwrap();
    tar::Archive::new(out.as_slice()).unpack(dir.path()).unwrap();
    let mut again = Store::default();
    assert_eq!(read(dir.path(), &mut again).unwrap(), images);
    assert_eq!(again, store);
}

#[test]
fn skopeo_reads_what_we_write_and_the_other_way_round() {
    let mut store = Store::default();
    let manifest = store.image("amd64");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("oci.tar"), write(&store, &[named(&NAMES[..1], &manifest)], false).unwrap()).unwrap();
    fs::write(path("docker.tar"), write(&store, &[named(&NAMES[..1], &manifest)], true).unwrap()).unwrap();
    let skopeo = |from: String, to: String| {
        let output = Command::new("skopeo").args(["copy", "--insecure-policy", &from, &to]).output().unwrap();
        assert!(output.status.success(), "{from} {to}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let shown = |name: &str| path(name).display().to_string();
    skopeo(format!("oci-archive:{}", shown("oci.tar")), format!("docker-archive:{}:app:2", shown("old.tar")));
    skopeo(format!("docker-archive:{}", shown("docker.tar")), format!("oci:{}:app:3", shown("layout")));
    let mut again = Store::default();
    let images = read(&path("old.tar"), &mut again).unwrap();
    assert_eq!(images.len(), 1);
    assert!(images[0].names == ["docker.io/library/app:2"] || images[0].names == ["app:2"], "{:?}", images[0].names);
    let stored = &again.0[&Digest::try_from(images[0].manifest.digest()).unwrap()];
    let stored: Value = serde_json::from_slice(stored).unwrap();
    assert_eq!(stored["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar");
    assert_eq!(read(&path("layout"), &mut Store::default()).unwrap()[0].names, ["app:3"]);
}

/// A tar of these files; a target after `->` makes a symlink.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        match content.strip_prefix(b"->") {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, String::from_utf8_lossy(target).as_ref()).unwrap();
            }
            None => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// R5.9.9
#[test]
fn legacy_docker_archives_get_a_manifest() {
    let (one, two) = (b"layer one".as_slice(), b"layer two".as_slice());
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(one), Digest::of(two), Digest::of(one)]}});
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{"Config": config_name, "RepoTags": ["app:1", "app:2"],
        "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"]}]);
    let files = |one: &'static [u8]| {
        tar_of(&[
            ("aa/VERSION", b"1.0"),
            ("aa/json", b"{}"),
            ("aa/layer.tar", one),
            ("bb/layer.tar", two),
            ("cc/layer.tar", b"->../aa/layer.tar"),
            (&config_name, &config),
            ("manifest.json", manifest.to_string().as_bytes()),
            ("repositories", b"{}"),
        ])
    };
    let mut store = Store::default();
    let images = read_tar(files(b"layer one").as_slice(), &mut store).unwrap();
    assert_eq!(images[0].names, ["app:1", "app:2"]);
    assert_eq!(store.0.len(), 4, "config, two layers, manifest");
    let manifest = &store.0[&Digest::try_from(images[0].manifest.digest()).unwrap()];
    let manifest: oci::ImageManifest = serde_json::from_slice(manifest).unwrap();
    let layers: Vec<String> = manifest.layers().iter().map(|layer| layer.digest().to_string()).collect();
    assert_eq!(layers, [Digest::of(one), Digest::of(two), Digest::of(one)].map(|digest| digest.to_string()));
    let again = write(&store, &images, true).unwrap();
    assert_eq!(read_tar(again.as_slice(), &mut Store::default()).unwrap()[0].manifest, images[0].manifest);

    let error = read_tar(files(b"another 1").as_slice(), &mut Store::default()).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
}

#[test]
fn an_index_may_hold_one_platform_only() {
    let mut store = Store::default();
    let (amd, arm) = (store.image("amd64"), store.image("arm64"));
    let index = store.index(&[&amd, &arm]);
    let out = write(&store, &[named(&NAMES, &index)], false).unwrap();
    let without = |missing: &[&Descriptor]| {
        let entries = entries(&out);
        let gone: Vec<String> = missing.iter().map(|d| d.digest().to_string().replace("sha256:", "")).collect();
        let kept: Vec<(&str, &[u8])> = entries
            .iter()
            .filter(|(path, _)| !path.ends_with('/') && !gone.iter().any(|hex| path.ends_with(hex)))
            .map(|(path, (_, content))| (path.as_str(), content.as_slice()))
            .collect();
        read_tar(tar_of(&kept).as_slice(), &mut Store::default())
    };
    assert_eq!(without(&[&arm]).unwrap().len(), 1);
    for missing in [&[&amd, &arm][..], &[&index]] {
        let error = without(missing).unwrap_err();
        assert!(matches!(&error, Error::Missing { what } if what.starts_with("manifest sha256:")), "{error}");
    }
    store.0.remove(&Digest::try_from(arm.digest()).unwrap());
    assert!(matches!(write(&store, &[named(&NAMES, &index)], false), Err(Error::Missing { .. })));
}

/// `docker load` of an engine without OCI layouts gets what it can run; the archive has all.
#[test]
fn an_index_is_saved_whole_and_docker_finds_its_own() {
    let host = oci::Platform::host();
    let mut store = Store::default();
    let with_platform = |mut manifest: Descriptor, platform: &oci::Platform| {
        manifest.set_platform(Some(platform.to_spec()));
        manifest
    };
    let own = with_platform(store.image("own"), &host);
    let other = with_platform(store.image("other"), &oci::Platform::new("linux", "quantum"));
    let both = store.index(&[&other, &own]);
    let foreign = store.index(&[&other]);
    let out = write(&store, &[named(&NAMES, &both), named(&[], &foreign)], true).unwrap();
    let entries = entries(&out);
    let docker: Value = serde_json::from_slice(&entries["manifest.json"].1).unwrap();
    assert_eq!(docker.as_array().unwrap().len(), 1);
    let config = docker[0]["Config"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&entries[config].1).contains("\"own\""));
    let mut read = Store::default();
    assert_eq!(read_tar(out.as_slice(), &mut read).unwrap()[0].manifest.digest(), both.digest());
    assert_eq!(read, store);
}

/// R5.9.1.
#[test]
fn directories_are_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("layout");
    let mut store = Store::default();
    let (one, two) = (store.image("amd64"), store.image("arm64"));
    let index = store.index(&[&one, &two]);
    let write = |store: &Store, image: ArchiveImage| {
        write_directory(&[image], &store.source(), &ArchiveOptions::default(), &dir)
    };
    write(&store, named(&[NAMES[0]], &one)).unwrap();
    write(&store, named(&[], &two)).unwrap();
    write(&store, named(&[NAMES[0]], &index)).unwrap();
    let entries: Vec<_> = layout::read_index(&dir).unwrap().manifests().clone();
    let tag = |entry: &Descriptor| entry.annotations().as_ref().unwrap()[layout::REF_NAME].clone();
    assert_eq!(entries.iter().map(tag).collect::<Vec<_>>(), ["latest", "1.0"]);
    assert_eq!(entries[1].digest(), index.digest());
    let mut read_back = Store::default();
    assert_eq!(read(&dir, &mut read_back).unwrap().len(), 2);
    assert_eq!(read_back, store);
    assert_eq!(fs::read_dir(dir.join("blobs/sha256")).unwrap().count(), store.0.len(), "no temporary files");

    let third = store.image("riscv64");
    let layer = Digest::of(&[0; 1024]);
    fs::remove_file(layout::blob_path(&dir, &layer)).unwrap();
    store.0.insert(layer, vec![1; 1024]);
    assert!(matches!(write(&store, named(&[], &third)), Err(Error::DigestMismatch { .. })));
    assert_eq!(layout::read_index(&dir).unwrap().manifests().len(), 2);
}

#[test]
fn what_is_refused() {
    let mut store = Store::default();
    let manifest = store.image("amd64");
    let layer = Digest::of(&[0; 1024]);
    let swapped = RefCell::new(store.clone());
    swapped.borrow_mut().0.insert(layer, vec![1; 1024]);
    let error = write(&swapped.borrow(), &[named(&NAMES, &manifest)], false).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == layer), "{error}");
    swapped.borrow_mut().0.insert(layer, vec![0; 1025]);
    let error = write(&swapped.borrow(), &[named(&NAMES, &manifest)], false).unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 1024, found: 1025, .. }), "{error}");

    let error = |files: &[(&str, &[u8])]| read_tar(tar_of(files).as_slice(), &mut Store::default()).unwrap_err();
    assert!(matches!(error(&[("a", b"b")]), Error::NotAnImage));
    assert!(matches!(error(&[("index.json", b"nonsense")]), Error::InvalidDocument { .. }));
    let wrong = format!("blobs/sha256/{}", "0".repeat(64));
    assert!(error(&[(&wrong, b"x"), ("index.json", b"{}")]).to_string().contains("digest mismatch"));
    let escape = json!([{"Config": "../../etc/passwd", "RepoTags": null, "Layers": []}]).to_string();
    assert!(matches!(error(&[("manifest.json", escape.as_bytes())]), Error::Missing { .. }));
    let circle = json!([{"Config": "a.json", "RepoTags": null, "Layers": []}]).to_string();
    let files: [(&str, &[u8]); 2] = [("a.json", b"->a.json"), ("manifest.json", circle.as_bytes())];
    assert!(matches!(error(&files), Error::Missing { .. }));

    let both = json!({"schemaVersion": 2, "config": manifest, "layers": [], "manifests": []});
    let both = store.add(MediaType::ImageManifest, both.to_string().as_bytes());
    assert!(
        write(&store, &[named(&[], &both)], false).unwrap_err().to_string().contains("both a manifest and an index")
    );
}

/// The member that tells Windows images apart is called as the norm has it.
#[test]
fn platforms_keep_their_versions() {
    let platform: oci::Platform = "windows(10.0.20348.1006)/amd64".parse().unwrap();
    let mut image = Store::default().image("amd64");
    image.set_platform(Some(platform.to_spec()));
    let bytes = layout::to_json(&layout::index(vec![image.clone()]));
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""os.version":"10.0.20348.1006""#), "{text}");
    assert_eq!(layout::index_from_json(&bytes).unwrap().manifests()[0], image);
}

#[test]
fn layouts_keep_one_entry_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::default();
    let (old, new) = (store.image("amd64"), store.image("arm64"));
    layout::init(dir.path()).unwrap();
    layout::init(dir.path()).unwrap();
    let mut index = layout::read_index(dir.path()).unwrap();
    assert!(index.manifests().is_empty());
    layout::put(&mut index, layout::named(&old, Some(NAMES[0]), None));
    layout::put(&mut index, layout::named(&old, Some(NAMES[1]), None));
    layout::put(&mut index, layout::named(&new, Some(NAMES[0]), None));
    layout::put(&mut index, layout::named(&new, None, None));
    layout::put(&mut index, layout::named(&new, None, None));
    layout::write_index(dir.path(), &index).unwrap();
    let read = layout::read_index(dir.path()).unwrap();
    assert_eq!(read, index);
    let digests: Vec<_> = read.manifests().iter().map(|descriptor| descriptor.digest().clone()).collect();
    assert_eq!(digests, [old.digest().clone(), new.digest().clone(), new.digest().clone()]);
    assert_eq!(fs::read_to_string(dir.path().join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "no temporary files");
    assert!(layout::blob_path(dir.path(), &Digest::of(b"")).starts_with(dir.path().join(Path::new("blobs/sha256"))));
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2"}"#).unwrap();
    assert!(layout::init(dir.path()).is_err());
}
