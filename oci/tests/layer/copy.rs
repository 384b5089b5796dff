use crate::tree::{Tree, diff, short};
use oci::layer::{Times, copy_tree};
use rustix::fs::FileType;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// R5.10.1
#[test]
fn a_tree_is_copied_with_modes_and_times() {
    let (from, to) = (Tree::new(), Tree::new());
    from.dir("d/e").file("d/f", "content").mode("d/f", 0o4750).symlink("l", "d/f").link("h", "d/f");
    from.node("pipe", FileType::Fifo, 0).mode("d/e", 0o1555).time("d/e", 42, 0).time("d", 43, 0);
    let summary = copy_tree(from.fd(), &to.path("new/dest"), Times::Kept).unwrap();
    assert_eq!((summary.files, summary.bytes, summary.skipped), (2, 7, vec!["pipe".to_owned()]));
    let mut expected = diff(from.fd(), None).unwrap();
    expected.retain(|change| change.path != b"pipe");
    let copied = fs::File::open(to.path("new/dest")).unwrap();
    assert_eq!(diff(std::os::fd::AsFd::as_fd(&copied), None).unwrap(), expected);
}

/// R5.10.1, R5.10.2
#[test]
fn what_is_there_is_replaced_and_never_followed() {
    let (from, to, outside) = (Tree::new(), Tree::new(), Tree::new());
    outside.file("victim", "untouched").dir("dir");
    from.file("f", "new").dir("d").file("d/x", "new").dir("was-file").file("was-dir", "new").dir("s").file("s/f", "1");
    to.dir("d").file("d/old", "kept").file("was-file", "").dir("was-dir/deep").file("was-dir/deep/f", "");
    to.symlink("f", &outside.path("victim").display().to_string());
    to.symlink("s", &outside.path("dir").display().to_string());
    copy_tree(from.fd(), &to.path(""), Times::All(77)).unwrap();
    let found = short(&diff(to.fd(), None).unwrap());
    assert_eq!(found, ["d d", "f d/old", "f d/x", "f f", "d s", "f s/f", "f was-dir", "d was-file"]);
    assert_eq!(fs::read_to_string(outside.path("victim")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(outside.path("dir")).unwrap().count(), 0);
    // R4.8.8.
    assert!(["f", "d", "d/x"].iter().all(|path| to.path(path).metadata().unwrap().mtime() == 77));
}
