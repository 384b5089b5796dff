use crate::tree::{Tree, diff, is_root, write_tar};
use oci::layer::{Change, ChangeKind, TarOptions, Times};
use oci::{Digest, layer};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

fn tar(upper: &Tree, lower: Option<&Tree>) -> Vec<u8> {
    let changes = diff(upper.fd(), lower.map(Tree::fd)).unwrap();
    let mut out = Vec::new();
    let summary = write_tar(&changes, upper.fd(), &TarOptions::default(), &mut out).unwrap();
    assert_eq!(summary.bytes, out.len() as u64);
    assert_eq!(summary.entries, changes.len() as u64);
    out
}

/// What GNU tar says of an archive.
fn listing(archive: &[u8]) -> String {
    let mut child = Command::new("tar")
        .args(["tvf", "-", "--numeric-owner", "--full-time", "--quoting-style=escape"])
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(archive).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

/// X4.21
#[test]
fn no_changes_give_the_well_known_empty_layer() {
    let tar = tar(&Tree::new(), None);
    assert_eq!(tar.len(), 1024);
    let digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(Digest::of(&tar).to_string(), digest);
}

/// X4.3, X4.14 to X4.16, X6.51 to X6.56
#[test]
fn gnu_tar_reads_what_we_write() {
    let (upper, lower) = (Tree::new(), Tree::new());
    let long = "l".repeat(255);
    let deep = format!("{}/{}", "d".repeat(120), "e".repeat(99));
    lower.file("gone", "");
    upper.dir(&deep).whiteout("gone").file(&long, "long").file(b"not\xffutf8", "").file("new\nline", "n");
    upper.file("suid", "s").mode("suid", 0o4755).link("tied", "suid").symlink("link", &"t".repeat(150));
    upper.time("d".repeat(120), 500, 0).file("old", "").time("old", -5, 0).file("far", "").time(
        "far",
        9_000_000_000,
        0,
    );
    let listing = listing(&tar(&upper, Some(&lower)));
    let me = format!("{}/{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let expected = [
        "---------- 0/0 0 1970-01-01 00:00:00 .wh.gone".to_owned(),
        format!("drwxr-xr-x {me} 0 1970-01-01 00:08:20 {}/", "d".repeat(120)),
        format!("drwxr-xr-x {me} 0 1970-01-01 00:08:20 {deep}/"),
        format!("-rw-r--r-- {me} 0 2255-03-14 16:00:00 far"),
        format!("lrwxrwxrwx {me} 0 1970-01-01 00:16:40 link -> {}", "t".repeat(150)),
        format!("-rw-r--r-- {me} 4 1970-01-01 00:16:40 {long}"),
        format!("-rw-r--r-- {me} 1 1970-01-01 00:16:40 new\\nline"),
        format!("-rw-r--r-- {me} 0 1970-01-01 00:16:40 not\\377utf8"),
        format!("-rw-r--r-- {me} 0 1969-12-31 23:59:55 old"),
        format!("-rwsr-xr-x {me} 1 1970-01-01 00:16:40 suid"),
        format!("hrwsr-xr-x {me} 0 1970-01-01 00:16:40 tied link to suid"),
    ];
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut found: Vec<_> = listing.lines().map(words).collect();
    let mut expected: Vec<_> = expected.iter().map(|line| words(line)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// X4.15, X4.18
#[test]
fn owners_and_capabilities_are_kept() {
    let upper = Tree::new();
    upper.file("f", "");
    let change = Change {
        path: b"f".to_vec(),
        kind: ChangeKind::File { size: 0 },
        mode: 0o755,
        uid: 2_097_151,
        gid: 4_000_000_000,
        mtime: (5, 999_999_999),
        capability: Some(b"\x01\n\0=\xff".to_vec()),
    };
    let mut out = Vec::new();
    write_tar(&[change], upper.fd(), &TarOptions::default(), &mut out).unwrap();
    assert!(listing(&out).starts_with("-rwxr-xr-x 2097151/4000000000"));
    let records = &out[512..1024];
    let sorted = [&b"42 SCHILY.xattr.security.capability=\x01\n\0=\xff\n"[..], b"18 gid=4000000000\n"].concat();
    assert!(records.starts_with(&sorted), "{:?}", String::from_utf8_lossy(records));
}

/// X4.24
#[test]
fn later_times_are_clamped() {
    let upper = Tree::new();
    upper.file("early", "").time("early", 100, 0).file("late", "").time("late", 300, 0);
    let changes = diff(upper.fd(), None).unwrap();
    let mut out = Vec::new();
    write_tar(&changes, upper.fd(), &TarOptions { times: Times::AtMost(200) }, &mut out).unwrap();
    let mut archive = tar::Archive::new(out.as_slice());
    let times: Vec<u64> = archive.entries().unwrap().map(|e| e.unwrap().header().mtime().unwrap()).collect();
    assert_eq!(times, [100, 200]);
}

/// X4.20
#[test]
fn a_file_that_changes_size_is_an_error() {
    for (size, content) in [(3, "ab"), (1, "ab"), (300_000, "ab")] {
        let upper = Tree::new();
        upper.file("dir-less", content);
        let mut changes = diff(upper.fd(), None).unwrap();
        changes[0].kind = ChangeKind::File { size };
        let error = write_tar(&changes, upper.fd(), &TarOptions::default(), &mut Vec::new()).unwrap_err();
        assert!(
            matches!(&error, layer::Error::SizeChanged { path, expected } if path == "dir-less" && *expected == size)
        );
        assert!(error.to_string().contains("short write copying file"), "{error}");
    }
}

/// X4.19
#[test]
fn a_file_named_like_a_whiteout_is_written_with_a_warning() {
    let upper = Tree::new();
    upper.file(".wh.x", "");
    let changes = diff(upper.fd(), None).unwrap();
    let summary = write_tar(&changes, upper.fd(), &TarOptions::default(), &mut Vec::new()).unwrap();
    assert_eq!(summary.warnings.len(), 1);
}

#[test]
fn large_files_arrive_whole() {
    let upper = Tree::new();
    let content: String = (0..100_000).map(|n| format!("{n:07}")).collect();
    upper.file("a", "small").file("large", &content).file("z", "after");
    let out = tar(&upper, None);
    let mut archive = tar::Archive::new(out.as_slice());
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut text = String::new();
        entry.unwrap().read_to_string(&mut text).unwrap();
        found.push(text);
    }
    assert_eq!(found, ["small".to_owned(), content, "after".to_owned()]);
}

/// R5.10.4
#[test]
fn a_tree_keeps_all_xattrs() {
    let tree = Tree::new();
    tree.dir("d").file("d/f", "x").xattr("d/f", "user.note", b"n").xattr("d", "user.overlay.opaque", b"y");
    if is_root() {
        tree.node("zero", rustix::fs::FileType::CharacterDevice, 0);
    }
    let mut out = Vec::new();
    let summary = layer::tar_from_directory(tree.fd(), &TarOptions::default(), &mut out).unwrap();
    assert_eq!(summary.entries, if is_root() { 3 } else { 2 });
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("SCHILY.xattr.user.note=n\n"));
    assert!(!text.contains("overlay"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any header is read back by another parser as it was meant.
    #[test]
    fn headers_round_trip(
        parts in prop::collection::vec(prop::collection::vec(1u8..=255, 1..120), 1..4),
        target in prop::collection::vec(1u8..=255, 1..200),
        (mode, uid, gid) in (0u32..0o10000, any::<u32>(), any::<u32>()),
        seconds in 0i64..1 << 33,
        kind in 0..5,
    ) {
        let clean = |bytes: &[u8]| bytes.iter().map(|b| match b { b'/' | b'\n' => b'_', b => *b }).collect::<Vec<_>>();
        let path = parts.iter().map(|part| clean(part)).collect::<Vec<_>>().join(&b'/');
        let target = clean(&target);
        let kind = match kind {
            0 => ChangeKind::Directory,
            1 => ChangeKind::Symlink { target: target.clone() },
            2 => ChangeKind::HardLink { to: target.clone() },
            3 => ChangeKind::Device { char: true, major: 4095, minor: 1_048_575 },
            _ => ChangeKind::File { size: 0 },
        };
        let change = Change { path: path.clone(), kind: kind.clone(), mode, uid, gid, mtime: (seconds, 1), capability: None };
        let tree = Tree::new();
        let mut out = Vec::new();
        write_tar(&[change], tree.fd(), &TarOptions::default(), &mut out).unwrap();
        prop_assert_eq!(out.len() % 512, 0);
        let mut archive = tar::Archive::new(out.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let stored = entry.path_bytes().into_owned();
        prop_assert_eq!(stored.strip_suffix(b"/").unwrap_or(&stored), path.as_slice());
        let header = entry.header();
        prop_assert_eq!(header.mode().unwrap(), mode);
        prop_assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (uid.into(), gid.into()));
        prop_assert_eq!(header.mtime().unwrap(), seconds as u64);
        if matches!(kind, ChangeKind::Symlink { .. } | ChangeKind::HardLink { .. }) {
            prop_assert_eq!(entry.link_name_bytes().unwrap().into_owned(), target);
        }
    }
}

/// R5.10, R5.10.3.
#[test]
fn trees_of_several_platforms() {
    let (one, two) = (Tree::new(), Tree::new());
    one.dir("d").file("d/x", "1").link("d/y", "d/x");
    two.dir("d").file("d/z", "2");
    let trees = [("linux/amd64", &one), ("linux/arm/v7", &two)];
    let trees = trees.map(|(name, tree)| layer::NamedTree { root: tree.fd(), name });
    let listed = |out: &[u8]| {
        let mut archive = tar::Archive::new(out);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| format!(" -> {}", link.display())).unwrap_or_default();
            format!("{}{link}", entry.path().unwrap().display())
        });
        entries.collect::<Vec<_>>()
    };
    let mut out = Vec::new();
    layer::tar_from_trees(&trees, &TarOptions::default(), &mut out).unwrap();
    let split = ["linux_amd64/", "linux_amd64/d/", "linux_amd64/d/x", "linux_amd64/d/y -> linux_amd64/d/x"];
    let more = ["linux_arm_v7/", "linux_arm_v7/d/", "linux_arm_v7/d/z"];
    assert_eq!(listed(&out), [&split[..], &more].concat());

    layer::check_disjoint(&trees).unwrap();
    let mut out = Vec::new();
    layer::tar_from_disjoint_trees(&trees, &TarOptions::default(), &mut out).unwrap();
    assert_eq!(listed(&out), ["d/", "d/x", "d/y -> d/x", "d/z"]);
    two.file("d/x", "other");
    let error = layer::check_disjoint(&trees).unwrap_err().to_string();
    assert_eq!(error, "cannot overwrite d/x from linux/amd64 with linux/arm/v7 when split option is disabled");
}
