//! Other people's tools read what rbuild writes.

use crate::harness::{Harness, is_root, tool};
use serde_json::Value;

/// An image with most kinds of files.
fn build(harness: &Harness, outputs: &[&str]) {
    let dockerfile = "FROM busybox\nRUN mkdir /d && echo one > /d/f && ln /d/f /d/g && ln -s f /d/l && chmod 4755 /d/f\n\
                      RUN rm -r /d/g /tmp && echo two > /d/h\nENV A=b\nCMD [\"cat\", \"/d/h\"]\n";
    harness.build_text(dockerfile, outputs).ok();
}

#[test]
fn skopeo_reads_and_copies() {
    let harness = Harness::new();
    let archive = harness.path_text("image.tar");
    for compression in ["gzip", "zstd", "uncompressed"] {
        let output = format!("type=oci,dest={archive},compression={compression}");
        build(&harness, &["-t", "user/name:1", "--output", &output]);
        let text = tool("skopeo", &["inspect", &format!("oci-archive:{archive}")]);
        let inspected: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3, "{compression}");
        if compression == "zstd" {
            // Docker's archives know no zstd.
            continue;
        }
        let copy = format!("docker-archive:{}", harness.path_text(&format!("{compression}.tar")));
        tool("skopeo", &["--insecure-policy", "copy", "--quiet", &format!("oci-archive:{archive}"), &copy]);
    }
}

#[test]
fn umoci_unpacks() {
    let harness = Harness::new();
    let archive = harness.path_text("image.tar");
    build(&harness, &["-t", "user/name:1", "--output", &format!("type=oci,dest={archive}")]);
    let (layout, bundle) = (harness.path_text("layout"), harness.path_text("bundle"));
    tool("mkdir", &["-p", &layout]);
    tool("tar", &["-C", &layout, "-xf", &archive]);
    let image = format!("{layout}:1");
    let mut args = vec!["unpack", "--image", &image];
    if !is_root() {
        args.push("--rootless");
    }
    args.push(&bundle);
    tool("umoci", &args);
    let file = |path: &str| std::fs::read_to_string(format!("{bundle}/rootfs/{path}")).unwrap();
    assert_eq!((file("d/f"), file("d/h")), ("one\n".into(), "two\n".into()));
    assert!(!std::path::Path::new(&format!("{bundle}/rootfs/d/g")).exists());
    assert!(!std::path::Path::new(&format!("{bundle}/rootfs/tmp")).exists());
}

/// Buildah's storage and its chroot isolation want root on a machine without further set-up.
#[test]
fn buildah_loads_and_runs() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let archive = harness.path_text("image.tar");
    build(&harness, &["-t", "user/name:1", "--output", &format!("type=docker,dest={archive}")]);
    let (root, runroot) = (harness.path_text("buildah"), harness.path_text("buildah-run"));
    let storage = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let buildah = |args: &[&str]| tool("buildah", &[&storage[..], args].concat());
    let policy = harness.path_text("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
    let image = format!("docker-archive:{archive}");
    let container = buildah(&["from", "--signature-policy", &policy, &image]).lines().last().unwrap().to_owned();
    let output = buildah(&["run", "--isolation", "chroot", &container, "--", "cat", "/d/h"]);
    assert_eq!(output, "two\n");
    buildah(&["rm", &container]);
}

/// `RBUILD_TEST_DOCKER` names a command that is the docker CLI with an engine behind it.
#[test]
fn docker_loads_and_runs() {
    let Some(docker) = std::env::var_os("RBUILD_TEST_DOCKER") else { return };
    let harness = Harness::new();
    let archive = harness.path_text("image.tar");
    build(&harness, &["-t", "rbuild-test/name:1", "--output", &format!("type=docker,dest={archive}")]);
    let docker = docker.to_str().unwrap();
    let script = format!(
        "{docker} load -i {archive} && {docker} image inspect rbuild-test/name:1 && {docker} image rm rbuild-test/name:1"
    );
    let text = tool("sh", &["-c", &script]);
    assert!(text.contains("Loaded image: rbuild-test/name:1"), "{text}");
    assert!(text.contains("\"A=b\""), "{text}");
}

#[test]
fn archives_of_others_are_loaded() {
    let harness = Harness::new();
    let (ours, theirs) = (harness.path_text("ours.tar"), harness.path_text("theirs.tar"));
    build(&harness, &["-t", "user/name:1", "--output", &format!("type=oci,dest={ours}")]);
    let target = format!("docker-archive:{theirs}:other/name:2");
    tool("skopeo", &["--insecure-policy", "copy", "--quiet", &format!("oci-archive:{ours}"), &target]);
    harness.rbuild(&["load", "-i", &theirs]).ok();
    assert_eq!(harness.output("other/name:2", &[]), "two\n");
}
