use super::*;
use crate::codec::HashingWriter;
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

const PLAIN: ApplyOptions = ApplyOptions { userxattr: false, single_id: false };

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn changes(upper: &Path, lower: Option<&Path>) -> Vec<Change> {
    let lower = lower.map(open);
    diff(open(upper).as_fd(), lower.as_ref().map(AsFd::as_fd)).unwrap()
}

fn names(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| {
            let mark = if change.kind == ChangeKind::Whiteout { "-" } else { "" };
            format!("{mark}{}", String::from_utf8_lossy(&change.path))
        })
        .collect()
}

fn tar_of(changes: &[Change], upper: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_tar(changes, open(upper).as_fd(), &TarOptions::default(), &mut bytes).unwrap();
    bytes
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_step_without_changes_is_the_empty_layer() {
    let directory = tempfile::tempdir().unwrap();
    let mut out = HashingWriter::new(Vec::new());
    write_tar(&changes(directory.path(), None), open(directory.path()).as_fd(), &TarOptions::default(), &mut out)
        .unwrap();
    let (_, digest, length) = out.finish();
    assert_eq!(length, 1024);
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(digest.to_string(), empty, "X4.21");
}

#[test]
fn only_what_differs_is_listed_with_its_ancestors() {
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for root in [&upper, &lower] {
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir_all(root.path().join("untouched")).unwrap();
        fs::write(root.path().join("a/same"), "same").unwrap();
        let time = rustix::fs::Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, root.path().join("a/same"), &times, rustix::fs::AtFlags::empty())
            .unwrap();
    }
    fs::write(upper.path().join("a/b/new"), "new").unwrap();
    assert_eq!(names(&changes(upper.path(), Some(lower.path()))), ["a", "a/b", "a/b/new"], "X4.8, X4.10");
}

#[test]
fn whiteouts_and_opaque_directories_become_explicit() {
    if !is_root() {
        return;
    }
    let (upper, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let whiteout = |name: &str| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(open(upper.path()), name, kind, Mode::empty(), 0).unwrap();
    };
    fs::write(lower.path().join("gone"), "").unwrap();
    whiteout("gone");
    whiteout("never-was");
    fs::create_dir_all(lower.path().join("d/old-directory/deep")).unwrap();
    fs::write(lower.path().join("d/old"), "").unwrap();
    fs::create_dir_all(upper.path().join("d")).unwrap();
    fs::write(upper.path().join("d/new"), "").unwrap();
    let d = open(&upper.path().join("d"));
    rustix::fs::fsetxattr(&d, OPAQUE[0], b"y", rustix::fs::XattrFlags::empty()).unwrap();
    let found = changes(upper.path(), Some(lower.path()));
    assert_eq!(names(&found), ["d", "d/new", "-d/old", "-d/old-directory", "-gone"], "X4.2, X4.4");
    assert_eq!(names(&changes(upper.path(), None)), ["d", "d/new"], "X4.5");
}

#[test]
fn other_tools_read_what_is_written() {
    let upper = tempfile::tempdir().unwrap();
    let root = upper.path();
    let long = "x".repeat(255);
    let deep = format!("{}/{}", "d".repeat(90), "e".repeat(90));
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("file"), "deep").unwrap();
    fs::write(root.join(&long), "long name").unwrap();
    fs::write(root.join("ünïcode"), "utf-8").unwrap();
    fs::write(root.join("setuid"), "s").unwrap();
    fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("setuid"), root.join("twin")).unwrap();
    symlink("t".repeat(150), root.join("link")).unwrap();
    let found = changes(root, None);
    let tar = root.with_extension("tar");
    fs::write(&tar, tar_of(&found, root)).unwrap();
    let listing = std::process::Command::new("tar").arg("tvf").arg(&tar).output().unwrap();
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(listing.status.success(), "{}", String::from_utf8_lossy(&listing.stderr));
    for expected in [long.as_str(), &format!("{deep}/file"), "-rwsr-xr-x", "twin link to setuid", &"t".repeat(150)] {
        assert!(text.contains(expected), "{expected} not in {text}");
    }
    fs::remove_file(tar).unwrap();
}

#[test]
fn unpacking_gives_the_same_changes_again() {
    let (upper, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = upper.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/f"), "content").unwrap();
    fs::set_permissions(root.join("a/b/f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(root.join("a/b/f"), root.join("a/g")).unwrap();
    symlink("../a", root.join("a/up")).unwrap();
    fs::write(root.join("a/\n odd"), vec![7; 100_000]).unwrap();
    let found = changes(root, None);
    let tar = tar_of(&found, root);
    apply(&mut tar.as_slice(), open(copy.path()).as_fd(), None, &PLAIN).unwrap();
    let again = changes(copy.path(), None);
    let seconds = |changes: &[Change]| -> Vec<Change> {
        changes.iter().map(|change| Change { mtime: (change.mtime.0, 0), ..change.clone() }).collect()
    };
    assert_eq!(seconds(&again), seconds(&found));
    assert_eq!(tar_of(&again, copy.path()), tar, "X4.27");
    let id = |changes: &[Change], root: &Path| content_id(changes, open(root).as_fd(), None).unwrap();
    assert_eq!(id(&again, copy.path()), id(&found, root));
    fs::write(copy.path().join("a/b/f"), "CONTENT").unwrap();
    assert_ne!(id(&changes(copy.path(), None), copy.path()), id(&found, root));
}

#[test]
fn times_within_the_step_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "x").unwrap();
    let found = changes(directory.path(), None);
    let later: Vec<Change> =
        found.iter().map(|change| Change { mtime: (change.mtime.0 + 1, 5), ..change.clone() }).collect();
    let now = std::time::SystemTime::now();
    let id = |changes: &[Change], window| content_id(changes, open(directory.path()).as_fd(), window).unwrap();
    assert_eq!(id(&found, Some((now, now))), id(&later, Some((now, now))));
    assert_ne!(id(&found, None), id(&later, None));
}

/// A tar with one entry after the other, as given.
fn archive(entries: &[(&str, ::tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, kind, data) in entries {
        let mut header = ::tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644 | if kind.is_dir() { 0o111 } else { 0 });
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1);
        let body = if kind.is_symlink() || kind.is_hard_link() {
            header.as_mut_bytes()[157..157 + data.len()].copy_from_slice(data.as_bytes());
            ""
        } else {
            data
        };
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn hostile_archives_stay_inside() {
    use ::tar::EntryType::{Directory, Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let out = outside.path().to_str().unwrap();
    for entries in [
        vec![("../../../../../../../../tmp/rbuild-escape", Regular, "x")],
        vec![("/etc/rbuild-escape", Regular, "x")],
        vec![("l", Symlink, out), ("l/secret", Regular, "overwritten")],
        vec![("l", Symlink, "../../../../../../.."), ("l/rbuild-escape", Regular, "x")],
        vec![("d", Directory, ""), ("d", Symlink, out), ("d/secret", Regular, "x")],
    ] {
        let destination = tempfile::tempdir().unwrap();
        let _ = apply(&mut archive(&entries).as_slice(), open(destination.path()).as_fd(), None, &PLAIN);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
        assert!(!Path::new("/tmp/rbuild-escape").exists() && !Path::new("/rbuild-escape").exists());
        assert!(!Path::new("/etc/rbuild-escape").exists());
    }
    let destination = tempfile::tempdir().unwrap();
    let hard_link = archive(&[("h", Link, secret.to_str().unwrap())]);
    assert!(apply(&mut hard_link.as_slice(), open(destination.path()).as_fd(), None, &PLAIN).is_err());
}

#[test]
fn replaced_entries_and_missing_parents() {
    use ::tar::EntryType::{Directory, Regular};
    let (destination, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(lower.path().join("p")).unwrap();
    fs::set_permissions(lower.path().join("p"), fs::Permissions::from_mode(0o711)).unwrap();
    let tar = archive(&[
        ("a", Directory, ""),
        ("a/f", Regular, "1"),
        ("a", Regular, "2"),
        ("p/new", Regular, "3"),
        ("q/r/s", Regular, ""),
    ]);
    apply(&mut tar.as_slice(), open(destination.path()).as_fd(), Some(open(lower.path()).as_fd()), &PLAIN).unwrap();
    let mode = |path: &str| fs::metadata(destination.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!(fs::read_to_string(destination.path().join("a")).unwrap(), "2", "X4.37");
    assert_eq!((mode("p"), mode("q/r")), (0o711, 0o755), "X4.35");
}

#[test]
fn whiteouts_in_archives() {
    use ::tar::EntryType::{Directory, Link, Regular};
    if !is_root() {
        return;
    }
    let (destination, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(lower.path().join("gone"), "").unwrap();
    fs::write(lower.path().join("linked"), "below").unwrap();
    let tar = archive(&[
        (".wh.gone", Regular, ""),
        ("kept", Regular, "kept"),
        (".wh.kept", Regular, ""),
        (".wh.d", Regular, ""),
        ("d", Directory, ""),
        ("o/.wh..wh..opq", Regular, ""),
        ("h", Link, "linked"),
    ]);
    apply(&mut tar.as_slice(), open(destination.path()).as_fd(), Some(open(lower.path()).as_fd()), &PLAIN).unwrap();
    let gone = fs::symlink_metadata(destination.path().join("gone")).unwrap();
    assert_eq!((gone.rdev(), gone.mode() & 0o170000), (0, 0o020000));
    assert_eq!(fs::read_to_string(destination.path().join("kept")).unwrap(), "kept", "X4.33");
    assert_eq!(fs::read_to_string(destination.path().join("h")).unwrap(), "below", "X4.38");
    let opaque = |name: &str| {
        let mut value = [0; 4];
        rustix::fs::fgetxattr(open(&destination.path().join(name)), OPAQUE[0], &mut value).is_ok()
    };
    assert!(opaque("d") && opaque("o"));
}

#[test]
fn a_truncated_archive_is_an_error() {
    let tar = archive(&[("f", ::tar::EntryType::Regular, &"x".repeat(2000))]);
    let destination = tempfile::tempdir().unwrap();
    assert!(apply(&mut &tar[..1000], open(destination.path()).as_fd(), None, &PLAIN).is_err(), "X4.43");
}

#[test]
fn trees_are_copied_without_following_links() {
    let (source, destination, outside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("d")).unwrap();
    fs::write(source.path().join("d/f"), "x").unwrap();
    symlink(outside.path(), destination.path().join("d")).unwrap();
    copy_tree(open(source.path()).as_fd(), open(destination.path()).as_fd()).unwrap();
    assert_eq!(fs::read_to_string(destination.path().join("d/f")).unwrap(), "x");
    assert!(!outside.path().join("f").exists());
}
