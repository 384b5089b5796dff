//! Pulling and pushing, against a real registry.

use crate::harness::{Harness, Registry, tool};
use serde_json::Value;

/// A registry with `library/busybox` in it.
fn with_busybox(harness: &Harness) -> Registry {
    let registry = Registry::start();
    let name = format!("{}/library/busybox", registry.host);
    harness.rbuild(&["tag", "busybox", &name]).ok();
    harness.rbuild(&["push", &name]).ok();
    registry
}

#[test]
fn images_are_pushed_and_pulled() {
    let harness = Harness::new();
    let registry = Registry::start();
    let name = format!("{}/user/name:v1", registry.host);
    harness.build_text("FROM busybox\nRUN echo pushed > /x\n", &["-t", &name, "--push"]).ok();
    let manifest = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let other = Harness::empty();
    let pulled = other.rbuild(&["pull", &name]).ok();
    assert!(pulled.stdout.starts_with("sha256:"), "{}", pulled.stdout);
    assert_eq!(other.output(&name, &["cat", "/x"]), "pushed\n");
    // The store's own images are compressed on their way.
    let second = format!("{}/user/name:v2", registry.host);
    harness.build_text("FROM busybox\nRUN echo again > /x\n", &["-t", &second]).ok();
    harness.rbuild(&["push", &second]).ok();
    assert_eq!(other.output(&second, &["cat", "/x"]), "again\n", "run fetches what is missing");
}

#[test]
fn bases_come_from_a_mirror_when_a_step_needs_them() {
    let harness = Harness::new();
    let registry = with_busybox(&harness);
    let other = Harness::empty();
    let mirror = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.host
    );
    std::fs::write(other.path("registries.conf"), mirror).unwrap();
    other.build_text("FROM busybox\nENV A=b\n", &["--output", "type=cacheonly"]).ok();
    let snapshots = || std::fs::read_dir(other.path("store/snapshots")).unwrap().count();
    assert_eq!(snapshots(), 0, "a config alone needs no files");
    other.build_text("FROM busybox\nRUN echo from the mirror > /x\n", &["-t", "m"]).ok();
    assert_eq!(snapshots(), 2);
    assert_eq!(other.output("m", &["cat", "/x"]), "from the mirror\n");
    // What is known needs no registry any more; --pull asks for it.
    drop(registry);
    other.build_text("FROM busybox\nRUN echo again\n", &[]).ok();
    other.build_text("FROM busybox\nRUN echo again\n", &["--pull"]).fails(1).says("docker.io/library/busybox:latest");
}

#[test]
fn images_of_others_are_pulled_whatever_their_types() {
    let harness = Harness::new();
    let registry = Registry::start();
    let archive = harness.path_text("image.tar");
    let output = format!("type=oci,dest={archive}");
    harness.build_text("FROM busybox\nRUN echo theirs > /x\n", &["-t", "x:1", "--output", &output]).ok();
    let docker = format!("{}/docker/types:1", registry.host);
    let args = ["--insecure-policy", "copy", "--quiet", "--format=v2s2", "--dest-tls-verify=false"];
    tool("skopeo", &[&args[..], &[&format!("oci-archive:{archive}"), &format!("docker://{docker}")]].concat());
    let zstd = format!("{}/zstd/layers:1", registry.host);
    let output = format!("type=registry,compression=zstd,name={zstd}");
    harness.build_text("FROM busybox\nRUN echo theirs > /x\n", &["--output", &output]).ok();
    for name in [&docker, &zstd] {
        let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
        assert!(
            raw.contains(if *name == docker { "vnd.docker.image.rootfs.diff.tar.gzip" } else { "tar+zstd" }),
            "{raw}"
        );
        let other = Harness::empty();
        other.rbuild(&["pull", name]).ok();
        assert_eq!(other.output(name, &["cat", "/x"]), "theirs\n");
        // And as a base.
        other.build_text(&format!("FROM {name}\nRUN cat /x > /y\n"), &["-t", "on-top"]).ok();
        assert_eq!(other.output("on-top", &["cat", "/y"]), "theirs\n");
    }
}

#[test]
fn blocked_registries_are_not_asked() {
    let harness = Harness::empty();
    std::fs::write(harness.path("registries.conf"), "[[registry]]\nlocation = \"docker.io\"\nblocked = true\n")
        .unwrap();
    harness.build_text("FROM busybox\n", &[]).fails(1).says("blocked");
}

#[test]
fn missing_images_are_told_apart_from_broken_registries() {
    let harness = Harness::new();
    let registry = Registry::start();
    let name = format!("{}/user/nothing", registry.host);
    harness.rbuild(&["pull", &name]).fails(1).says("not found");
    harness.rbuild(&["push", "nothing"]).fails(1).says("no image is called");
    let host = registry.host.clone();
    drop(registry);
    harness.rbuild(&["pull", &name]).fails(1).says(&host);
}
