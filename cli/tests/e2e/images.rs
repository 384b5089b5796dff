//! Images of the store: names, lists, archives.

use crate::harness::{Harness, tool};
use serde_json::Value;

#[test]
fn names_come_and_go() {
    let harness = Harness::new();
    harness.build_text("FROM busybox\nRUN echo x > /x\n", &["-t", "user/one:1", "-t", "user/two"]).ok();
    let list = harness.rbuild(&["images"]).ok().stdout;
    assert!(list.contains("user/one") && list.contains("user/two") && list.contains("busybox"), "{list}");
    harness.rbuild(&["tag", "user/one:1", "localhost:5000/other:x"]).ok();
    assert_eq!(harness.inspect("user/one:1")["Id"], harness.inspect("localhost:5000/other:x")["Id"]);
    let id = harness.inspect("user/two")["Id"].as_str().unwrap().trim_start_matches("sha256:")[..12].to_owned();
    assert_eq!(harness.inspect(&id)["RepoTags"].as_array().unwrap().len(), 3);
    harness.rbuild(&["rmi", &id]).fails(1).says("several names");
    for name in ["user/one:1", "user/two", "localhost:5000/other:x"] {
        harness.rbuild(&["rmi", name]).ok();
    }
    harness.rbuild(&["inspect", "user/two"]).fails(1).says("no image is called");
    // What was built is still cached, and what others need is still there.
    assert_eq!(harness.output("busybox", &["echo", "alive"]), "alive\n");
    let again = harness.build_text("FROM busybox\nRUN echo x > /x\n", &["-t", "user/two"]).ok();
    assert!(again.stderr.contains("CACHED"));
}

#[test]
fn the_store_is_an_image_layout() {
    let harness = Harness::new();
    harness.build_text("FROM busybox\nRUN echo x > /x\n", &["-t", "laid-out:1"]).ok();
    let store = harness.path_text("store");
    let index: Value = serde_json::from_slice(&std::fs::read(harness.path("store/index.json")).unwrap()).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    let copy = format!("oci:{}", harness.path_text("copy"));
    tool("skopeo", &["--insecure-policy", "copy", "--quiet", &format!("oci:{store}:1"), &copy]);
}

#[test]
fn archives_are_saved_and_loaded() {
    let harness = Harness::new();
    harness.build_text("FROM busybox\nRUN echo kept > /x\n", &["-t", "kept"]).ok();
    let archive = harness.path_text("kept.tar");
    harness.rbuild(&["save", "-o", &archive, "kept", "busybox"]).ok();
    let other = Harness::empty();
    let loaded = other.rbuild(&["load", "-i", &archive]).ok().stdout;
    assert!(loaded.contains("Loaded image: kept:latest"), "{loaded}");
    assert_eq!(other.output("kept", &["cat", "/x"]), "kept\n");
    assert_eq!(other.inspect("kept")["Id"], harness.inspect("kept")["Id"]);
    // What is no archive changes nothing.
    std::fs::write(&archive, "not an archive").unwrap();
    other.rbuild(&["load", "-i", &archive]).fails(1);
    assert_eq!(other.output("kept", &["cat", "/x"]), "kept\n");
}

#[test]
fn imports_are_checked() {
    let harness = Harness::empty();
    let file = harness.path_text("file");
    std::fs::write(&file, "this is text").unwrap();
    harness.rbuild(&["import", &file, "text"]).fails(1);
    harness.rbuild(&["import", "--change", "RUN x", &file, "text"]).fails(2).says("RUN cannot be a change");
    harness.rbuild(&["import", "nowhere.tar", "text"]).fails(2).says("nowhere.tar");
}
