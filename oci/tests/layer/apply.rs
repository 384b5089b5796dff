use crate::tree::{Tree, diff, is_root, short, write_tar};
use oci::layer::{ApplyOptions, ApplySummary, Error, Marks, TarOptions, apply};
use rustix::fs::FileType;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// The marks that a test can set and see without being root.
const OPTIONS: ApplyOptions = ApplyOptions { marks: Marks::User, single_id: false };

/// A tar made entry by entry, with any names. Owned by the user who runs the test.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(mut self, kind: u8, path: &str, link: &str, content: &str) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.as_old_mut().linkflag = [kind];
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_mtime(1000);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(b'0', path, "", content)
    }

    fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", "")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, "")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, "")
    }

    fn pax(self, key: &str, value: &str) -> Self {
        let rest = key.len() + value.len() + 3;
        let len = (rest..).find(|len| len.to_string().len() + rest == *len).unwrap();
        self.entry(b'x', "PaxHeaders.0/x", "", &format!("{len} {key}={value}\n"))
    }

    fn apply(&self, upper: &Tree, lower: Option<&Tree>) -> Result<ApplySummary, Error> {
        let tar = [self.0.as_slice(), &[0; 1024]].concat();
        apply(tar.as_slice(), upper.fd(), lower.map(Tree::fd), OPTIONS)
    }

    /// The upper directory after unpacking over nothing.
    fn unpack(&self) -> Tree {
        let upper = Tree::new();
        self.apply(&upper, None).unwrap();
        upper
    }

    fn error(&self) -> String {
        self.apply(&Tree::new(), None).unwrap_err().to_string()
    }
}

fn content(tree: &Tree, name: &str) -> String {
    fs::read_to_string(tree.path(name)).unwrap()
}

fn is_whiteout(tree: &Tree, name: &str) -> bool {
    tree.path(name).symlink_metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn is_opaque(tree: &Tree, name: &str) -> bool {
    let mut value = [0; 8];
    rustix::fs::lgetxattr(tree.path(name), "user.overlay.opaque", &mut value[..]).is_ok_and(|len| &value[..len] == b"y")
}

#[test]
fn a_layer_survives_a_round_trip() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("d").file("d/gone", "").dir("opaque/sub").file("gone", "");
    upper.dir("d").whiteout("d/gone").dir("opaque").opaque("opaque").whiteout("gone");
    upper.file("d/f", "content").mode("d/f", 0o4711).time("d/f", 1_234_567, 0).file(b"odd \xff\n", "x");
    upper.symlink("d/l", "../nowhere").link("z", "d/f").node("pipe", FileType::Fifo, 0);
    upper.dir(format!("{}/{}", "n".repeat(200), "m".repeat(255))).time("n".repeat(200), 77, 0);
    if is_root() {
        upper.node("dev", FileType::BlockDevice, rustix::fs::makedev(8, 1));
        upper.xattr("d/f", "security.capability", b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        rustix::fs::chown(upper.path("d"), Some(rustix::fs::Uid::from_raw(3_000_000)), None).unwrap();
    }
    let changes = diff(upper.fd(), Some(lower.fd())).unwrap();
    let mut tar = Vec::new();
    write_tar(&changes, upper.fd(), &TarOptions::default(), &mut tar).unwrap();

    let again = Tree::new();
    let summary = apply(tar.as_slice(), again.fd(), Some(lower.fd()), OPTIONS).unwrap();
    assert_eq!((summary.entries, summary.warnings), (changes.len() as u64, vec![]));
    let mut expected = changes;
    for change in &mut expected {
        change.mtime.1 = 0;
    }
    assert_eq!(diff(again.fd(), Some(lower.fd())).unwrap(), expected);
}

/// X4.34, X4.36: nothing is written outside, whatever the names.
#[test]
fn hostile_paths_stay_inside() {
    let outside = Tree::new();
    outside.file("victim", "untouched");
    let victim = outside.path("victim").display().to_string();
    let dir = outside.path("").display().to_string();
    let up = "../".repeat(12);
    let tree = Archive::default()
        .file("../../escape", "1")
        .file("/abs", "2")
        .symlink("s", &dir)
        .file("s/victim", "inside")
        .symlink("dots", &up)
        .file("dots/up", "3")
        .symlink("loop-a", "loop-b")
        .symlink("late", "made/later")
        .file("late/f", "4")
        .symlink("same", ".")
        .file("same/same", "5")
        .unpack();
    assert_eq!(content(&outside, "victim"), "untouched");
    assert_eq!(fs::read_dir(outside.path("")).unwrap().count(), 1);
    assert_eq!(content(&tree, victim.trim_start_matches('/')), "inside");
    for (name, text) in [("escape", "1"), ("abs", "2"), ("up", "3"), ("made/later/f", "4"), ("same", "5")] {
        assert_eq!(content(&tree, name), text);
    }
    let cycle = Archive::default().symlink("a", "b").symlink("b", "a").file("a/f", "");
    assert!(cycle.error().contains("enter the parent directory of a/f"), "{}", cycle.error());
}

/// X4.38
#[test]
fn hard_links_stay_inside() {
    let outside = Tree::new();
    outside.file("victim", "untouched");
    let victim = outside.path("victim").display().to_string();
    let dir = outside.path("").display().to_string();
    assert!(Archive::default().link("h", &victim).error().contains("does not exist"));
    assert!(Archive::default().symlink("s", &dir).link("h", "s/victim").error().contains("does not exist"));
    assert!(Archive::default().link("h", "../../etc/passwd").error().contains("does not exist"));
    assert!(Archive::default().dir("d").link("h", "d").error().contains("is a directory"));
    assert!(Archive::default().file("f", "").link("f", "./f").error().contains("is itself"));
    // A link to a symlink links the symlink, and writing the mode does not go through it.
    let tree = Archive::default().symlink("s", &victim).link("h", "s").unpack();
    assert!(tree.path("h").symlink_metadata().unwrap().is_symlink());
    assert_eq!(outside.path("victim").metadata().unwrap().nlink(), 1);
}

/// X4.38: a link into a lower layer copies the file up.
#[test]
fn a_hard_link_to_a_lower_file_copies_it_up() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("d").mode("d", 0o750).file("d/f", "below").mode("d/f", 0o600);
    Archive::default().link("h", "d/f").apply(&upper, Some(&lower)).unwrap();
    assert_eq!(content(&upper, "h"), "below");
    assert_eq!(upper.path("h").metadata().unwrap().ino(), upper.path("d/f").metadata().unwrap().ino());
    assert_eq!(upper.path("d").metadata().unwrap().mode() & 0o7777, 0o750);
    let hidden = Archive::default().file("d/.wh.f", "").link("h", "d/f").apply(&Tree::new(), Some(&lower));
    assert!(hidden.unwrap_err().to_string().contains("deleted by this layer"));
}

/// X4.30, X4.32, X4.33
#[test]
fn whiteouts_concern_lower_layers_only() {
    let tree = Archive::default()
        .file(".wh.gone", "")
        .file("kept", "new")
        .file(".wh.kept", "")
        .file(".wh.later", "")
        .file("later", "new")
        .dir("before")
        .file("before/f", "")
        .file(".wh.before", "")
        .file(".wh.after", "")
        .dir("after")
        .file(".wh.implied", "")
        .file("implied/f", "")
        .file(".wh.gone", "")
        .unpack();
    assert!(is_whiteout(&tree, "gone"));
    assert_eq!((content(&tree, "kept"), content(&tree, "later")), ("new".into(), "new".into()));
    for name in ["before", "after", "implied"] {
        assert!(tree.path(name).is_dir() && is_opaque(&tree, name), "{name}");
    }
    assert!(tree.path("before/f").exists() && tree.path("implied/f").exists());
}

/// X6.58, X4.42, R4.3.4, R4.3.5
#[test]
fn opaque_marks_and_reserved_names() {
    let tree = Archive::default()
        .file("d/f", "")
        .file("d/.wh..wh..opq", "")
        .file("e/.wh..wh..opq", "")
        .file(".wh..wh.aufs", "")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", "")
        .unpack();
    assert!(is_opaque(&tree, "d") && is_opaque(&tree, "e"));
    assert_eq!(short(&diff(tree.fd(), None).unwrap()), ["d d", "f d/f", "d e"]);
    for name in [".wh.", "d/.wh.", ".wh...", ".wh.."] {
        let error = Archive::default().file(name, "").error();
        assert!(error.contains("invalid whiteout name"), "{name}: {error}");
    }
}

#[test]
fn an_opaque_root_deletes_all_that_was_below() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("d").file("d/old", "").file("f", "");
    Archive::default().file("d/new", "").file(".wh..wh..opq", "").apply(&upper, Some(&lower)).unwrap();
    assert!(is_whiteout(&upper, "f") && is_opaque(&upper, "d"));
    assert_eq!(short(&diff(upper.fd(), Some(lower.fd())).unwrap()), ["d d", "f d/new", "- d/old", "- f"]);
}

/// X4.37
#[test]
fn the_last_entry_of_a_name_counts() {
    let tree = Archive::default()
        .dir("a")
        .file("a/sub/f", "")
        .file("a", "file now")
        .file("b", "")
        .dir("b")
        .file("b/f", "")
        .symlink("c", "b")
        .dir("c")
        .file("c/g", "")
        .file("f", "long content")
        .file("f", "short")
        .symlink("f2", "f")
        .file("f2", "not through the link")
        .dir("b")
        .unpack();
    let found = short(&diff(tree.fd(), None).unwrap());
    assert_eq!(found, ["f a", "d b", "f b/f", "d c", "f c/g", "f f", "f f2"]);
    assert_eq!(content(&tree, "f"), "short");
    let file_as_parent = Archive::default().file("p", "").file("p/f", "").error();
    assert!(file_as_parent.contains("Not a directory"), "{file_as_parent}");
}

/// X4.35
#[test]
fn missing_parents_look_like_the_lower_ones() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("opt/app").mode("opt/app", 0o1770).time("opt/app", 4321, 9).xattr("opt/app", "user.k", b"v");
    Archive::default().file("opt/app/f", "").file("new/f", "").apply(&upper, Some(&lower)).unwrap();
    let app = upper.path("opt/app").metadata().unwrap();
    assert_eq!((app.mode() & 0o7777, app.mtime(), app.mtime_nsec()), (0o1770, 4321, 9));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(upper.path("opt/app"), "user.k", &mut value[..]), Ok(1));
    assert_eq!(upper.path("new").metadata().unwrap().mode() & 0o7777, 0o755);
}

/// X4.39, X6.56
#[test]
fn times_are_kept_within_bounds() {
    let tree = Archive::default()
        .pax("mtime", "77.123456789")
        .file("nanos", "")
        .pax("mtime", "-5")
        .file("before", "")
        .pax("mtime", "99999999999")
        .file("after", "")
        .dir("d")
        .file("d/f", "")
        .unpack();
    let time = |name| tree.path(name).metadata().map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
    assert_eq!(time("nanos"), (77, 123_456_789));
    assert_eq!((time("before"), time("after")), ((0, 0), (0, 0)));
    assert_eq!(time("d"), (1000, 0), "set after the content was written");
}

/// X4.40
#[test]
fn xattrs_of_overlayfs_are_not_taken_from_images() {
    let archive = Archive::default()
        .pax("SCHILY.xattr.user.overlay.redirect", "/etc")
        .dir("d")
        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        .dir("e")
        .pax("SCHILY.xattr.user.note", "fine\n=")
        .file("f", "");
    let upper = Tree::new();
    let summary = archive.apply(&upper, None).unwrap();
    assert_eq!(summary.warnings.len(), 2, "{:?}", summary.warnings);
    for name in ["d", "e"] {
        let mut list = [0; 64];
        assert_eq!(rustix::fs::llistxattr(upper.path(name), &mut list[..]), Ok(0));
    }
    let mut value = [0; 16];
    let len = rustix::fs::lgetxattr(upper.path("f"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"fine\n=");
}

/// X4.42 to X4.44
#[test]
fn damaged_archives_are_refused() {
    let good = Archive::default().file("f", "content").0;
    let run = |tar: &[u8]| apply(tar, Tree::new().fd(), None, OPTIONS);
    assert!(run(&good[..700]).unwrap_err().to_string().contains("ends within a file"));
    assert!(run(&good[..300]).unwrap_err().to_string().contains("ends within a header"));
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(run(&flipped).unwrap_err().to_string().contains("checksum"));
    assert!(Archive::default().entry(b'Z', "f", "", "").error().contains("unknown"));
    assert!(Archive::default().pax("uid", "x").file("f", "").error().contains("invalid value"));
    assert!(Archive::default().pax("uid", "4294967295").file("f", "").error().contains("not a valid pair of ids"));
    assert!(Archive::default().pax("path", "a\0b").file("f", "").error().contains("malformed"));
    let mut huge = tar::Header::new_ustar();
    huge.set_entry_type(tar::EntryType::XHeader);
    huge.set_size(1 << 33);
    huge.set_cksum();
    assert!(run(huge.as_bytes()).unwrap_err().to_string().contains("larger than 1 MiB"));
    assert_eq!(run(b"").unwrap().entries, 0, "no bytes at all are an empty layer (R4.4.7)");

    struct Count<'a>(&'a [u8], usize);
    impl std::io::Read for Count<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let read = std::io::Read::read(&mut self.0, buffer)?;
            self.1 += read;
            Ok(read)
        }
    }
    let long = [good, vec![0; 1024], vec![7; 1_000_000]].concat();
    let mut count = Count(&long, 0);
    assert_eq!(apply(&mut count, Tree::new().fd(), None, OPTIONS).unwrap().entries, 1);
    assert_eq!(count.1, long.len());
}

/// R4.3.9
#[test]
fn gnu_long_names_global_headers_and_old_types() {
    let long = "x".repeat(150);
    let target = "y".repeat(250);
    let tree = Archive::default()
        .entry(b'g', "global", "", "20 path=not-this-one\n")
        .entry(b'L', "././@LongLink", "", &format!("{long}\0"))
        .file("short", "content")
        .entry(b'K', "././@LongLink", "", &format!("{target}\0"))
        .symlink("l", "short")
        .entry(0, "olddir/", "", "")
        .entry(0, "oldfile", "", "o")
        .unpack();
    assert_eq!(content(&tree, &long), "content");
    assert_eq!(fs::read_link(tree.path("l")).unwrap().to_str(), Some(target.as_str()));
    assert!(tree.path("olddir").is_dir());
    assert_eq!(content(&tree, "oldfile"), "o");
}

/// What GNU tar writes is read as it was meant: long names, sparse files, hard links.
#[test]
fn archives_of_gnu_tar() {
    let from = Tree::new();
    from.dir("d").file(format!("d/{}", "l".repeat(200)), "long").file("f", "1").link("g", "f");
    let sparse = fs::File::create(from.path("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"more", 3 << 20).unwrap();
    sparse.set_len(5 << 20).unwrap();
    for n in 4..40 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"segment", n << 20).unwrap();
    }
    from.time("sparse", 1000, 0);
    let formats: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let output = std::process::Command::new("tar")
            .args(format)
            .args(["--sort=name", "-cf", "-", "-C"])
            .arg(from.path(""))
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success());
        let upper = Tree::new();
        apply(output.stdout.as_slice(), upper.fd(), Some(from.fd()), OPTIONS).unwrap();
        assert_eq!(fs::read(upper.path("sparse")).unwrap(), fs::read(from.path("sparse")).unwrap());
        assert!(upper.path("sparse").metadata().unwrap().blocks() < 1 << 14 || format.len() == 1, "{format:?}");
        assert_eq!(short(&diff(upper.fd(), None).unwrap()), short(&diff(from.fd(), None).unwrap()), "{format:?}");
    }
}

/// Deeper than there are descriptors, and removed again.
#[test]
fn very_deep_trees() {
    let deep = "d/".repeat(1100);
    let archive = Archive::default().pax("path", &format!("{deep}f")).file("f", "x");
    let archive = archive.pax("path", &format!("{deep}g")).file("g", "y").file("d/d/f", "");
    let tree = archive.unpack();
    assert_eq!(diff(tree.fd(), None).unwrap().len(), 1103);
    Archive::default().file("d", "flat").apply(&tree, None).unwrap();
    assert_eq!(short(&diff(tree.fd(), None).unwrap()), ["f d"]);
}

#[test]
fn devices_are_made_as_root() {
    if is_root() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Char);
        header.as_old_mut().name[..3].copy_from_slice(b"dev");
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(0);
        header.set_cksum();
        let upper = Tree::new();
        apply(&header.as_bytes()[..], upper.fd(), None, OPTIONS).unwrap();
        assert_eq!(short(&diff(upper.fd(), None).unwrap()), ["c dev 1:3"]);
    }
}
