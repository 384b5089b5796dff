//! Owners, modes, times, attributes, special files (X3.D, D18.25 to D18.29).

use super::{Fixture, Owner, is_root, me, mode, owner, set_mode};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use solver::op::Chmod;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

fn set_times(path: &Path, seconds: i64) {
    let time = |tv_nsec| Timespec { tv_sec: seconds, tv_nsec };
    let times = Timestamps { last_access: time(111), last_modification: time(222) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn mtime(path: &Path) -> (i64, i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

/// X3.29 to X3.32: times everywhere; mode of entries, not of the destination itself.
#[test]
fn modes_and_times() {
    let fixture = Fixture::new(&["d/f=1", "d/s/g=2", "d/l->f", "d/old/"], &["x/old/"]);
    for (path, mode, seconds) in [
        ("d/f", 0o4711, 1000),
        ("d/s/g", 0o640, -5),
        ("d/s", 0o1777, 2000),
        ("d/old", 0o2750, 3000),
        ("d", 0o700, 4000),
    ] {
        set_mode(&fixture.source(path), mode);
        set_times(&fixture.source(path), seconds);
    }
    set_times(&fixture.source("d/l"), 5000);
    set_mode(&fixture.target("x"), 0o711);
    fixture.copy("/d", "/x").unwrap();
    fixture.copy("/d", "/new").unwrap();
    for dest in ["x", "new"] {
        for (path, want, seconds) in
            [("f", 0o4711, 1000), ("s/g", 0o640, -5), ("s", 0o1777, 2000), ("old", 0o2750, 3000)]
        {
            let path = fixture.target(&format!("{dest}/{path}"));
            assert_eq!((mode(&path), mtime(&path)), (want, (seconds, 222)), "{}", path.display());
        }
        assert_eq!(mtime(&fixture.target(&format!("{dest}/l"))), (5000, 222));
        assert_eq!(mtime(&fixture.target(dest)), (4000, 222));
    }
    assert_eq!((mode(&fixture.target("x")), mode(&fixture.target("new"))), (0o711, 0o755));
    assert_eq!(fs::metadata(fixture.target("x/f")).unwrap().atime_nsec(), 111);
}

/// X3.15, X3.27, X3.28, X3.33.
#[test]
fn chmod() {
    for (spec, f, x, d, parent) in [
        (Chmod::Octal(0o640), 0o640, 0o640, 0o640, 0o640),
        (Chmod::Octal(0o7755), 0o7755, 0o7755, 0o7755, 0o755),
        (Chmod::Symbolic("u=rwX,go=rX".into()), 0o644, 0o755, 0o755, 0o755),
        (Chmod::Symbolic("g+w".into()), 0o660, 0o770, 0o770, 0o755),
    ] {
        let fixture = Fixture::new(&["t/f", "t/x", "t/d/", "t/l->f"], &["old/"]).with(|f| f.chmod = Some(spec.clone()));
        for (path, mode) in [("t/f", 0o640), ("t/x", 0o750), ("t/d", 0o750)] {
            set_mode(&fixture.source(path), mode);
        }
        set_mode(&fixture.target("old"), 0o711);
        fixture.copy("/t", "/old").unwrap();
        // Others than root cannot write into an unsearchable directory.
        if is_root() {
            fixture.copy("/t/f", "/p/q/f").unwrap();
            fixture.copy("/t", "/new").unwrap();
            for path in ["new", "p", "p/q"] {
                assert_eq!(mode(&fixture.target(path)), parent, "{spec:?} {path}");
            }
        }
        for (path, want) in [("f", f), ("x", x), ("d", d)] {
            assert_eq!(mode(&fixture.target(&format!("old/{path}"))), want, "{spec:?} {path}");
        }
        assert_eq!(mode(&fixture.target("old/l")), 0o777);
        assert_eq!(mode(&fixture.target("old")), 0o711);
    }
}

/// X3.25, X3.30 to X3.34, D18.24, D18.25. Owners need root.
#[test]
fn owners() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(&["d/f=1", "d/s/g=2", "d/l->f"], &["x/s/", "x/keep"]);
    for path in ["d", "d/f", "d/s", "d/s/g", "d/l"] {
        std::os::unix::fs::lchown(fixture.source(path), Some(11), Some(12)).unwrap();
    }
    set_mode(&fixture.source("d/f"), 0o6755);
    for path in ["x", "x/s", "x/keep"] {
        std::os::unix::fs::lchown(fixture.target(path), Some(5), Some(6)).unwrap();
    }
    let fixture = fixture.with(|f| f.owner = Owner::Keep);
    fixture.copy("/d", "/x").unwrap();
    fixture.copy("/d", "/n/m").unwrap();
    for (path, want) in [
        ("x", (5, 6)),
        ("x/keep", (5, 6)),
        ("x/s", (11, 12)),
        ("x/f", (11, 12)),
        ("x/l", (11, 12)),
        ("n", (0, 0)),
        ("n/m", (0, 0)),
        ("n/m/s/g", (11, 12)),
    ] {
        assert_eq!(owner(&fixture.target(path)), want, "{path}");
    }
    let fixture = fixture.with(|f| f.owner = Owner::Set(7, 8));
    fixture.copy("/d", "/x").unwrap();
    fixture.copy("/d", "/o/m").unwrap();
    for (path, want) in
        [("x", (5, 6)), ("x/s", (7, 8)), ("x/l", (7, 8)), ("x/keep", (5, 6)), ("o", (7, 8)), ("o/m", (7, 8))]
    {
        assert_eq!(owner(&fixture.target(path)), want, "{path}");
    }
    // chown comes before chmod (X3.26).
    assert_eq!(mode(&fixture.target("o/m/f")), 0o6755);
}

/// X3.35: links within one source, not across.
#[test]
fn hard_links() {
    let fixture = Fixture::new(&["d/a=data", "d/s/t/", "d/one=1"], &["x/b=old"]);
    for name in ["d/b", "d/s/c", "d/s/t/d"] {
        fs::hard_link(fixture.source("d/a"), fixture.source(name)).unwrap();
    }
    let summary = fixture.copy("/d", "/x").unwrap();
    assert_eq!((summary.files, summary.bytes), (5, 5));
    let inode = |path: &str| fs::metadata(fixture.target(path)).unwrap().ino();
    for name in ["x/b", "x/s/c", "x/s/t/d"] {
        assert_eq!(inode(name), inode("x/a"), "{name}");
    }
    assert_eq!(fs::metadata(fixture.target("x/a")).unwrap().nlink(), 4);
    fixture.copy("/d/[ab]", "/y/").unwrap();
    assert_ne!(inode("y/a"), inode("y/b"));
}

/// X3.37. `user.` attributes need a file system that has them; most have.
#[test]
fn extended_attributes() {
    let fixture = Fixture::new(&["d/f=1", "d/s/"], &[]);
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(fixture.source(path), name, value, rustix::fs::XattrFlags::empty())
    };
    if set("d/f", "user.note", b"text").is_err() {
        return;
    }
    set("d/f", "user.overlay.opaque", b"y").unwrap();
    set("d/s", "user.empty", b"").unwrap();
    fixture.copy("/d", "/x").unwrap();
    let get = |path: &str, name: &str| {
        let mut value = [0; 64];
        rustix::fs::getxattr(fixture.target(path), name, &mut value[..]).map(|n| value[..n].to_vec())
    };
    assert_eq!(get("x/f", "user.note").unwrap(), b"text");
    assert_eq!(get("x/s", "user.empty").unwrap(), b"");
    assert!(get("x/f", "user.overlay.opaque").is_err());
    if is_root() {
        // A capability survives the chown before it (X6.49).
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set("d/f", "security.capability", &capability).unwrap();
        let fixture = fixture.with(|f| f.owner = Owner::Set(7, 8));
        fixture.copy("/d", "/y").unwrap();
        let mut value = [0; 64];
        let got = rustix::fs::getxattr(fixture.target("y/f"), "security.capability", &mut value[..]).unwrap();
        assert_eq!(value[..got], capability);
    }
}

/// X3.39, X3.40, X6.40 to X6.42: nothing is opened.
#[test]
fn special_files() {
    let fixture = Fixture::new(&["d/"], &[]);
    let node = |name: &str, kind, rdev| {
        rustix::fs::mknodat(CWD, fixture.source(name), kind, Mode::from(0o640), rdev).unwrap();
        set_mode(&fixture.source(name), 0o640);
    };
    node("d/pipe", FileType::Fifo, 0);
    let _socket = std::os::unix::net::UnixListener::bind(fixture.source("d/sock")).unwrap();
    set_mode(&fixture.source("d/sock"), 0o751);
    if is_root() {
        node("d/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("d/loop", FileType::BlockDevice, rustix::fs::makedev(7, 99));
    }
    fixture.copy("/d", "/x").unwrap();
    fixture.copy("/d/pipe", "/pipe").unwrap();
    fixture.copy("/d/pipe", "/pipe").unwrap();
    let kind = |path: &str| {
        let meta = fs::symlink_metadata(fixture.target(path)).unwrap();
        (FileType::from_raw_mode(meta.mode()), meta.mode() & 0o7777, meta.rdev())
    };
    assert_eq!(kind("x/pipe"), (FileType::Fifo, 0o640, 0));
    assert_eq!(kind("pipe"), (FileType::Fifo, 0o640, 0));
    assert_eq!(kind("x/sock"), (FileType::RegularFile, 0o751, 0));
    if is_root() {
        assert_eq!(kind("x/null"), (FileType::CharacterDevice, 0o640, rustix::fs::makedev(1, 3)));
        assert_eq!(kind("x/loop"), (FileType::BlockDevice, 0o640, rustix::fs::makedev(7, 99)));
    }
    assert_ne!(me(), Owner::Keep);
}
