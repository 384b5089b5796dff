use super::*;
use crate::{Descriptor, Digest, MediaType};
use std::collections::HashMap;
use std::io::Read;

#[derive(Default)]
struct Memory(HashMap<Digest, Vec<u8>>);

impl Memory {
    fn add(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.0.insert(digest, bytes.to_vec());
        digest
    }
}

impl BlobSource for Memory {
    fn open(&self, digest: &Digest) -> io::Result<(u64, Box<dyn Read>)> {
        let bytes = self.0.get(digest).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok((bytes.len() as u64, Box::new(io::Cursor::new(bytes))))
    }
}

impl BlobSink for Memory {
    fn put(&mut self, expected: Option<Digest>, content: &mut dyn Read) -> io::Result<(Digest, u64)> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let digest = self.add(&bytes);
        match expected {
            Some(expected) if expected != digest => Err(io::Error::other("wrong digest")),
            _ => Ok((digest, bytes.len() as u64)),
        }
    }
}

fn image(blobs: &mut Memory) -> Descriptor {
    let (layer, config) = (blobs.add(b"layer"), blobs.add(b"{}"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
        "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":5}}]}}"#
    );
    let digest = blobs.add(manifest.as_bytes());
    Descriptor::new(MediaType::ImageManifest, manifest.len() as u64, digest.to_spec())
}

#[test]
fn archives_round_trip() {
    let mut blobs = Memory::default();
    let descriptor = image(&mut blobs);
    let names = vec!["docker.io/user/name:latest".to_owned(), "localhost:5000/x:1".to_owned()];
    for docker in [false, true] {
        let images = [ArchiveImage { names: names.clone(), descriptor: descriptor.clone() }];
        let (mut bytes, mut again) = (Vec::new(), Vec::new());
        write(&images, docker, &blobs, &mut bytes).unwrap();
        write(&images, docker, &blobs, &mut again).unwrap();
        assert!(bytes == again, "the same images give the same bytes");
        let mut sink = Memory::default();
        let loaded = read(bytes.as_slice(), &mut sink).unwrap();
        assert_eq!(loaded[0].names, names);
        assert_eq!(loaded[0].descriptor.digest(), descriptor.digest());
        assert_eq!(sink.0.len(), 3);
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn former_docker_archives_get_a_manifest() {
    let manifest = br#"[{"Config":"abc.json","RepoTags":["busybox:1"],"Layers":["l1/layer.tar"]}]"#;
    let files: [(&str, &[u8]); 4] = [
        ("abc.json", b"{\"os\":\"linux\"}"),
        ("l1/layer.tar", b"tar"),
        ("l1/VERSION", b"1.0"),
        ("manifest.json", manifest),
    ];
    let mut sink = Memory::default();
    let loaded = read(tar_of(&files).as_slice(), &mut sink).unwrap();
    assert_eq!(loaded[0].names, ["busybox:1"]);
    let digest = Digest::try_from(loaded[0].descriptor.digest()).unwrap();
    let document: crate::ImageManifest = serde_json::from_slice(&sink.0[&digest]).unwrap();
    assert_eq!(document.layers()[0].media_type().to_string(), "application/vnd.oci.image.layer.v1.tar");
}

#[test]
fn damaged_archives_are_refused() {
    let name = format!("blobs/sha256/{}", Digest::of(b"right").hex());
    let index: &[u8] = br#"{"schemaVersion":2,"manifests":[]}"#;
    let wrong = tar_of(&[(&name, b"wrong"), ("index.json", index)]);
    assert!(matches!(read(wrong.as_slice(), &mut Memory::default()), Err(Error::Store { .. })));
    let missing = tar_of(&[("manifest.json", br#"[{"Config":"gone.json","RepoTags":null,"Layers":[]}]"#)]);
    assert!(matches!(read(missing.as_slice(), &mut Memory::default()), Err(Error::Missing(_))));
    assert!(matches!(read(tar_of(&[("x", b"y")]).as_slice(), &mut Memory::default()), Err(Error::Unknown)));
    assert!(read(&b"no tar at all, and far too short"[..], &mut Memory::default()).is_err());
}
