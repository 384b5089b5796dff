//! Trees that were made to do harm (X6.43 to X6.54).

use super::*;

/// X6.46, X6.47.
#[test]
fn sources_stay_in_their_root() {
    let outside = tempfile::tempdir().unwrap();
    super::make(outside.path(), &["secret=s"]);
    let fixture = Fixture::new(&["d/f=1"], &[]);
    let out = outside.path().to_str().unwrap();
    for (link, target) in [
        ("abs", "/etc/passwd".to_string()),
        ("rel", "../../../../../../../../etc/passwd".to_string()),
        ("leak", format!("{out}/secret")),
        ("d/dir", out.to_string()),
    ] {
        symlink(&target, fixture.source(link)).unwrap();
        let error = fixture.copy(&format!("/{link}"), "/x").unwrap_err().to_string();
        assert_eq!(error, format!("\"/{link}\": not found"));
    }
    assert!(fixture.copy("/d/dir/secret", "/x").is_err());
    fixture.copy("/d", "/x").unwrap();
    assert_eq!(fixture.list(), ["x/".to_string(), format!("x/dir->{out}"), "x/f=1".to_string()]);
    symlink("..", fixture.source("up")).unwrap();
    fixture.copy("/up/up/d/f", "/y").unwrap();
}

#[test]
fn destinations_stay_in_their_root() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let fixture = Fixture::new(&["f=1", "d/g/h=2"], &[]);
    for (at, target) in [("abs", out.to_string()), ("rel", format!("../../../../../../..{out}"))] {
        symlink(&target, fixture.target(at)).unwrap();
    }
    for (from, to) in [("/f", "/abs/f"), ("/f", "/rel/"), ("/d", "/abs"), ("/d", "/rel/x"), ("/f", "/../../../f")] {
        fixture.copy(from, to).unwrap();
    }
    assert!(list(outside.path()).is_empty());
    assert!(fixture.target(&format!(".{out}/g/h")).exists() && fixture.target("f").exists());
}

/// X6.43: names the file, unless it is not selected or ignored.
#[test]
fn unreadable_files() {
    let fixture = Fixture::new(&["d/ok=1", "d/no=2", "d/closed/f=3"], &[]);
    if is_root() {
        // Root may read everything; a file that vanishes reads the same way.
        return;
    }
    set_mode(&fixture.source("d/no"), 0);
    assert_eq!(fixture.copy("/d", "/x").unwrap_err().to_string(), "open /d/no: permission denied");
    set_mode(&fixture.source("d/closed"), 0);
    let fixture = fixture.with(|f| f.ignore = vec!["d/no"]);
    assert_eq!(fixture.copy("/d", "/x").unwrap_err().to_string(), "open /d/closed: permission denied");
    let fixture = fixture.with(|f| f.ignore = vec!["d/no", "d/closed"]);
    fixture.copy("/d", "/x").unwrap();
    set_mode(&fixture.source("d/closed"), 0o755);
}

/// X6.51 to X6.54.
#[test]
fn names() {
    let fixture = Fixture::new(&[], &[]);
    let long = [b'n'; 255];
    let all: [&[u8]; 6] = [b"new\nline", b"\xff\xfe", b"Case", b"case", &long, b"-rf *"];
    for bytes in all {
        fs::write(fixture.source.path().join(name(bytes)), bytes).unwrap();
    }
    fixture.copy("/", "/x").unwrap();
    fixture.copy("/*", "/y/").unwrap();
    for bytes in all {
        for dest in ["x", "y"] {
            assert_eq!(fs::read(fixture.target(dest).join(name(bytes))).unwrap(), bytes);
        }
    }
    fs::create_dir(fixture.target("x").join("z")).unwrap();
    fs::create_dir(fixture.target("z")).unwrap();
    fs::create_dir(fixture.target("z").join(name(b"\xff\x1b"))).unwrap();
    let source = Fixture::new(&[], &[]);
    fs::write(source.source.path().join(name(b"\xff\x1b")), "").unwrap();
    let target = fixture.target.path().join("z");
    let fixture = source.with(|f| {
        f.target = tempfile::tempdir().unwrap();
        fs::rename(&target, f.target("z")).unwrap();
    });
    let error = fixture.copy("/", "/z").unwrap_err().to_string();
    assert_eq!(error, "cannot replace to directory /z/\\xff\\u{1b} with file");
}

/// X6.52: paths longer than the kernel takes, and deeper than a stack.
#[test]
fn deep_trees() {
    let fixture = Fixture::new(&["d/"], &[]);
    let mut dir = fs::File::open(fixture.source("d")).unwrap();
    let part = "p".repeat(100);
    for _ in 0..120 {
        rustix::fs::mkdirat(&dir, &part, rustix::fs::Mode::from(0o755)).unwrap();
        dir = super::super::resolve::open_dir(&dir, part.as_bytes(), b"").unwrap().into();
    }
    rustix::fs::openat(&dir, "f", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o644.into()).unwrap();
    assert_eq!(fixture.copy("/d", "/x").unwrap().files, 1);
    // Once more, into what is there now.
    assert_eq!(fixture.copy("/d", "/x").unwrap().files, 1);
    let path = format!("/x{}", format!("/{part}").repeat(120));
    assert_eq!(fixture.copy("/d", &path).unwrap().files, 1);
}

/// X3.3: a link back up in a tree is copied, not walked.
#[test]
fn cycles() {
    let fixture = Fixture::new(&["d/l->.", "d/s/up->../..", "d/s/f=1"], &[]);
    fixture.copy("/d", "/x").unwrap();
    assert_eq!(fixture.list(), ["x/", "x/l->.", "x/s/", "x/s/f=1", "x/s/up->../.."]);
}

/// Wide directories are split among threads.
#[test]
fn many_files() {
    let fixture = Fixture::new(&["d/s/"], &[]);
    for at in 0..1000 {
        fs::write(fixture.source(&format!("d/s/{at}")), at.to_string()).unwrap();
    }
    assert_eq!(fixture.copy("/d", "/x").unwrap().files, 1000);
    for at in 0..1000 {
        assert_eq!(fs::read_to_string(fixture.target(&format!("x/s/{at}"))).unwrap(), at.to_string());
    }
}

/// X6.45: a directory that is exchanged for a link while it is copied leads nowhere else.
#[test]
fn directories_exchanged_for_links() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "secret").unwrap();
    let fixture = Fixture::new(&["d/sub/f=own", "other/x"], &[]);
    let (real, aside) = (fixture.source("d/sub"), fixture.source("aside"));
    let stop = AtomicBool::new(false);
    let mut copies = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&real, &aside).unwrap();
                symlink(outside.path(), &real).unwrap();
                fs::remove_file(&real).unwrap();
                fs::rename(&aside, &real).unwrap();
            }
        });
        for round in 0..300 {
            for path in ["/d", "/d/sub/f", "/d/sub", "/*/sub"] {
                let to = format!("/t{round}{}/", path.replace(['/', '*'], "_"));
                copies += usize::from(fixture.copy(path, &to).is_ok());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(copies > 0);
    let copied = fixture.list();
    assert!(copied.iter().all(|entry| !entry.contains("secret")), "{copied:?}");
    assert!(copied.iter().any(|entry| entry.contains("f=own")));
}

/// Whoever has given up need not wait for the rest of a large context.
#[test]
fn cancelled_copies_end() {
    let fixture = Fixture::new(&["d/f", "e/f"], &[]);
    let root = fs::File::open(fixture.source.path()).unwrap();
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let tree = SourceTree { root: root.as_fd(), ignore: None, ignore_name: "", cancelled: Some(&cancelled) };
    let cache = crate::fileop::statcache::StatCache::new();
    let digest = crate::fileop::selection_digest(&tree, &Selection::tree("/"), &cache, None, false);
    assert!(matches!(digest, Err(Error::Cancelled)));
}
