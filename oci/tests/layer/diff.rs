use crate::tree::{Tree, content_id, diff, is_root, short, write_tar};
use oci::layer::{ChangeKind, ContentTimes, Marks};
use rustix::fs::FileType;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, UNIX_EPOCH};

fn changes(upper: &Tree, lower: &Tree) -> Vec<String> {
    short(&diff(upper.fd(), Some(lower.fd())).unwrap())
}

/// X4.1, X4.11, X4.12
#[test]
fn everything_is_new_over_nothing() {
    let upper = Tree::new();
    upper.dir("b/c").file("b.txt", "x").file("b/z", "1").symlink("a", "b/z").link("zz", "b/z");
    upper.file("B", "").node("pipe", FileType::Fifo, 0);
    let _socket = UnixListener::bind(upper.path("socket")).unwrap();
    let found = short(&diff(upper.fd(), None).unwrap());
    assert_eq!(found, ["f B", "l a -> b/z", "d b", "d b/c", "f b/z", "f b.txt", "p pipe", "h zz = b/z"]);
}

/// X4.2, X4.10
#[test]
fn a_whiteout_counts_if_the_path_exists_below() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("d").file("d/gone", "").file("d/kept", "");
    upper.dir("d").whiteout("d/gone").whiteout("d/never").whiteout("nor");
    assert_eq!(changes(&upper, &lower), ["d d", "- d/gone"]);
    assert!(diff(upper.fd(), None).unwrap().iter().all(|c| c.path == b"d"));
}

/// X4.4, X4.5
#[test]
fn an_opaque_directory_becomes_explicit_whiteouts() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("d/sub/deep").file("d/a", "").file("d/same", "s").file("d/sub/x", "").dir("d/kept").file("d/kept/y", "");
    upper.dir("d/kept").file("d/b", "new").file("d/same", "s").file("d/kept/z", "");
    upper.opaque("d").dir("fresh").opaque("fresh");
    let expected = ["d d", "- d/a", "f d/b", "d d/kept", "- d/kept/y", "f d/kept/z", "- d/sub", "d fresh"];
    assert_eq!(changes(&upper, &lower), expected);
}

/// X4.7, X4.8
#[test]
fn an_entry_that_is_equal_below_is_no_change() {
    type Edit = fn(&Tree);
    let table: [(&str, Edit, bool); 10] = [
        ("nothing", |_| {}, false),
        ("content, same time, no nanoseconds", |t| _ = t.file("d/f", "B"), true),
        ("content, same time with nanoseconds", |t| _ = t.file("d/n", "B").time("d/n", 1000, 7), true),
        ("nanoseconds", |t| _ = t.time("d/f", 1000, 1), true),
        ("seconds", |t| _ = t.time("d/f", 1001, 0), true),
        ("mode", |t| _ = t.mode("d/f", 0o600), true),
        ("size", |t| _ = t.file("d/f", "AA"), true),
        ("link target", |t| _ = t.remove("d/l").symlink("d/l", "g"), true),
        ("time of a directory", |t| _ = t.time("d", 9, 9), false),
        ("mode of a directory", |t| _ = t.mode("d", 0o700), true),
    ];
    for (name, edit, changed) in table {
        let (upper, lower) = (Tree::new(), Tree::new());
        for tree in [&upper, &lower] {
            tree.dir("d").file("d/f", "A").file("d/n", "A").time("d/n", 1000, 7).symlink("d/l", "f");
        }
        edit(&upper);
        assert_eq!(!changes(&upper, &lower).is_empty(), changed, "{name}");
    }
}

/// X4.9
#[test]
fn replacing_a_directory_by_a_file_and_back() {
    let (upper, lower) = (Tree::new(), Tree::new());
    lower.dir("a").file("a/x", "").file("b", "");
    upper.file("a", "").dir("b").file("b/x", "");
    assert_eq!(changes(&upper, &lower), ["f a", "d b", "f b/x"]);
}

/// X4.6
#[test]
fn a_redirected_directory_is_an_error() {
    let upper = Tree::new();
    upper.dir("d").xattr("d", "user.overlay.redirect", b"/e");
    assert!(diff(upper.fd(), None).unwrap_err().to_string().contains("redirect_dir=off"));
    // Where the kernel uses others, a step may have made it.
    let plain = oci::layer::diff(upper.fd(), None, Marks::Trusted, &|_| false).unwrap();
    assert!(plain.into_iter().all(|change| change.is_ok()));
}

/// X4.7: a capability is compared; X4.18: other xattrs are not.
#[test]
fn capabilities_are_compared() {
    const CAPABILITY: &[u8] = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let (upper, lower) = (Tree::new(), Tree::new());
    for tree in [&upper, &lower] {
        tree.file("f", "").file("g", "");
    }
    upper.xattr("f", "user.note", b"x");
    assert_eq!(changes(&upper, &lower), [""; 0]);
    if is_root() {
        upper.xattr("g", "security.capability", CAPABILITY);
        let found = diff(upper.fd(), Some(lower.fd())).unwrap();
        assert_eq!(short(&found), ["f g"]);
        assert_eq!(found[0].capability.as_deref(), Some(CAPABILITY));
    }
}

/// X6.52, and more levels than a thread's stack or a process's descriptors would take.
#[test]
fn paths_may_be_longer_than_the_kernel_takes_at_once() {
    let upper = Tree::new();
    let name = "n".repeat(200);
    let mut at = rustix::io::dup(upper.fd()).unwrap();
    for _ in 0..60 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(at.as_fd(), "f", flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"content").unwrap();
    let changes = diff(upper.fd(), None).unwrap();
    assert_eq!(changes.len(), 61);
    assert_eq!(changes[60].path.len(), 60 * 201 + 1);
    content_id(&changes, upper.fd(), None).unwrap();
    let mut tar = Vec::new();
    write_tar(&changes, upper.fd(), &Default::default(), &mut tar).unwrap();
    assert!(tar.windows(7).any(|w| w == b"content"));
}

#[test]
fn the_content_id_leaves_out_times_within_the_window() {
    let tree = |time: i64, content: &str| {
        let tree = Tree::new();
        tree.dir("d").file("d/f", content).file("old", "").time("d/f", time, 5).time("d", time, 5);
        tree
    };
    let id = |tree: &Tree, start: u64, end: u64| {
        let changes = diff(tree.fd(), None).unwrap();
        let window = (UNIX_EPOCH + Duration::from_secs(start), UNIX_EPOCH + Duration::from_secs(end));
        content_id(&changes, tree.fd(), Some(window)).unwrap()
    };
    let first = id(&tree(5000, "x"), 4990, 5010);
    assert_eq!(first, id(&tree(6000, "x"), 5999, 6000), "only the time of the run differs");
    assert_ne!(first, id(&tree(6000, "y"), 5999, 6000), "content");
    assert_ne!(first, id(&tree(5000, "x"), 5990, 6010), "a time from before the step is content");
    assert_ne!(first, id(&tree(7000, "x"), 5990, 6010), "a time from after the step is content");
}

#[test]
fn the_content_id_does_not_depend_on_threads() {
    let tree = Tree::new();
    for dir in 0..20 {
        tree.dir(format!("d{dir}"));
        for file in 0..20 {
            tree.file(format!("d{dir}/f{file}"), &format!("{dir} {file}"));
        }
    }
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let changes = diff(tree.fd(), None).unwrap();
            let id = content_id(&changes, tree.fd(), None).unwrap();
            (changes, id)
        })
    };
    let (changes, id) = run(1);
    assert_eq!(changes.len(), 420);
    assert_eq!(run(4), (changes.clone(), id));
    let mut other = changes;
    other[1].kind = ChangeKind::Fifo;
    assert_ne!(content_id(&other, tree.fd(), None).unwrap(), id);
}

/// What is known of a file's content stands for it.
#[test]
fn known_digests_are_not_computed() {
    let tree = Tree::new();
    tree.file("known", "k").file("other", "o");
    let id = |known: &(dyn Fn(&[u8]) -> Option<[u8; 32]> + Sync)| {
        oci::layer::content_id(
            oci::layer::diff(tree.fd(), None, Marks::User, &|_| false).unwrap(),
            tree.fd(),
            ContentTimes::All,
            known,
        )
        .unwrap()
    };
    let content = *blake3::hash(b"k").as_bytes();
    assert_eq!(id(&|_| None), id(&|path| (path == b"known").then_some(content)));
    assert_ne!(id(&|_| None), id(&|path| (path == b"known").then_some([0; 32])));
}

/// A copy is found without the times of what it copies, so they are no content of it.
#[test]
fn times_can_be_left_out() {
    let id = |seconds: i64| {
        let tree = Tree::new();
        tree.file("f", "content");
        tree.time("f", seconds, 0);
        let changes = oci::layer::diff(tree.fd(), None, Marks::User, &|_| false).unwrap();
        oci::layer::content_id(changes, tree.fd(), ContentTimes::None, &|_| None).unwrap()
    };
    assert_eq!(id(1), id(1_500_000_000));
    assert_ne!(id(1), oci::layer::empty_content_id());
    let empty = Tree::new();
    let changes = oci::layer::diff(empty.fd(), None, Marks::User, &|_| false).unwrap();
    assert_eq!(
        oci::layer::content_id(changes, empty.fd(), ContentTimes::All, &|_| None).unwrap(),
        oci::layer::empty_content_id()
    );
}

/// Attributes that are no part of a layer are told all the same, also of what did not change otherwise.
#[test]
fn other_attributes_are_told() {
    // Path, name and value of one in the upper and one in the lower tree.
    type Attribute<'a> = Option<(&'a str, &'a str, &'a str)>;
    let attributes = |above: Attribute, below: Attribute| {
        let (upper, lower) = (Tree::new(), Tree::new());
        for (tree, attribute) in [(&upper, above), (&lower, below)] {
            tree.dir("d").file("d/f", "same").time("d/f", 1, 0);
            if let Some((path, name, value)) = attribute {
                tree.xattr(path, name, value.as_bytes());
            }
        }
        let mut changes = oci::layer::diff(upper.fd(), Some(lower.fd()), Marks::User, &|_| false).unwrap();
        assert_eq!(changes.by_ref().count(), 0, "no change of the layer");
        changes.other_attributes()
    };
    assert_eq!(attributes(None, None), None);
    // The kernel's own.
    assert_eq!(attributes(Some(("d", "user.overlay.origin", "x")), None), None);
    let one = |path, name, value| attributes(Some((path, name, value)), None);
    let lost = |path| attributes(None, Some((path, "user.a", "1")));
    let found = [
        one("d/f", "user.a", "1"),
        one("d/f", "user.a", "2"),
        one("d/f", "user.b", "1"),
        one("d", "user.a", "1"),
        lost("d"),
        lost("d/f"),
    ];
    for (number, digest) in found.iter().enumerate() {
        assert!(digest.is_some() && !found[..number].contains(digest), "{number}");
    }
}
