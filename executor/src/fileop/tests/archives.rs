//! ADD of archives (X3.I, X6.78, X6.79).

use super::{Fixture, Owner, is_root, list, mode, owner, set_mode};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use tar::{Builder, EntryType, Header};

/// Entries as (type, name, link or content).
fn tar(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        // By hand: `set_path` refuses what these tests are about.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::new(*kind));
        header.set_mode(if *kind == b'5' { 0o750 } else { 0o640 });
        header.set_uid(21);
        header.set_gid(22);
        header.set_mtime(1_000_000);
        let data = if matches!(kind, b'1' | b'2') {
            header.set_link_name_literal(content).unwrap();
            ""
        } else {
            content
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn fixture(archive: &[u8], target: &[&str]) -> Fixture {
    let fixture = Fixture::new(&[], target).with(|f| f.unpack = true);
    fs::write(fixture.source("a"), archive).unwrap();
    fixture
}

const PLAIN: &[(u8, &str, &str)] = &[(b'5', "d/", ""), (b'0', "d/f", "one"), (b'2', "d/l", "f"), (b'1', "h", "d/f")];
const UNPACKED: [&str; 4] = ["d/", "d/f=one", "d/l->f", "h=one"];

/// X3.69, X3.70.
#[test]
fn compressions() {
    let plain = tar(PLAIN);
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    // Two gzip members are one stream.
    let members = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    for (name, data) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("members", members),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(plain.as_slice(), 1).unwrap()),
    ] {
        let fixture = fixture(&data, &[]).with(|f| f.owner = if is_root() { Owner::Keep } else { f.owner });
        let summary = fixture.copy("/a", "/").unwrap();
        assert_eq!(fixture.list(), UNPACKED, "{name}");
        assert_eq!((summary.files, summary.bytes), (3, 3), "{name}");
    }
    // No archives: copied, as everything is without the flag.
    for data in [b"".as_slice(), b"text", &gzip(b"text"), &[0; 2048], b"PK\x03\x04", &gzip(b"text")[..8], &plain[..300]]
    {
        let fixture = fixture(data, &[]);
        fixture.copy("/a", "/x").unwrap();
        assert_eq!(fs::read(fixture.target("x")).unwrap(), data);
    }
    let fixture = fixture(&plain, &[]).with(|f| f.unpack = false);
    fixture.copy("/a", "/x").unwrap();
    assert_eq!(fs::read(fixture.target("x")).unwrap(), plain);
}

/// X3.70 to X3.73, X3.75.
#[test]
fn attributes_and_merging() {
    // Directories that an archive implies belong to root.
    if !is_root() {
        return;
    }
    let archive = tar(&[
        (b'g', "pax_global_header", "12 comment=x\n"),
        (b'5', "./", ""),
        (b'0', "new/deep/f", "1"),
        (b'5', "merge", ""),
        (b'0', "merge/f", "2"),
        (b'5', "was-file", ""),
        (b'0', "was-dir", "3"),
        (b'0', "was-link", "4"),
        (b'5', "link-to-dir", ""),
        (b'0', ".wh.gone", ""),
        (b'0', "/abs", "5"),
        (b'0', "through/f", "6"),
        (b'6', "pipe", ""),
        (b'2', "absolute", "/etc/passwd"),
    ]);
    let target = [
        "x/merge/old=o",
        "x/was-file=f",
        "x/was-dir/sub/f",
        "x/was-link->elsewhere",
        "x/elsewhere=keep",
        "x/link-to-dir->merge",
        "x/through->merge",
    ];
    let fixture = fixture(&archive, &target).with(|f| f.chmod = Some(solver::op::Chmod::Octal(0)));
    set_mode(&fixture.target("x"), 0o711);
    fixture.copy("/a", "/x").unwrap();
    assert_eq!(
        list(&fixture.target("x")),
        [
            ".wh.gone=",
            "abs=5",
            "absolute->/etc/passwd",
            "elsewhere=keep",
            "link-to-dir/",
            "merge/",
            "merge/f=6",
            "merge/old=o",
            "new/",
            "new/deep/",
            "new/deep/f=1",
            "pipe special",
            "through->merge",
            "was-dir=3",
            "was-file/",
            "was-link=4",
        ]
    );
    assert_eq!((mode(&fixture.target("x")), mode(&fixture.target("x/merge"))), (0o711, 0o750));
    assert_eq!((mode(&fixture.target("x/new")), mode(&fixture.target("x/merge/f"))), (0o755, 0o640));
    for path in ["x/merge", "x/merge/f", "x/absolute", "x/pipe"] {
        assert_eq!(fs::symlink_metadata(fixture.target(path)).unwrap().mtime(), 1_000_000, "{path}");
    }
    {
        let fixture = super::archives::fixture(&archive, &[]).with(|f| f.owner = Owner::Keep);
        fixture.copy("/a", "/y").unwrap();
        for (path, want) in [("y", (0, 0)), ("y/new", (0, 0)), ("y/new/deep/f", (21, 22)), ("y/absolute", (21, 22))] {
            assert_eq!(owner(&fixture.target(path)), want, "{path}");
        }
        let fixture = fixture.with(|f| f.owner = Owner::Set(7, 8));
        fixture.copy("/a", "/z").unwrap();
        for (path, want) in [("z", (7, 8)), ("z/new", (0, 0)), ("z/new/deep/f", (7, 8)), ("z/absolute", (7, 8))] {
            assert_eq!(owner(&fixture.target(path)), want, "{path}");
        }
    }
}

/// X3.74, X6.78: nothing lands outside, and the step fails.
#[test]
fn breakouts() {
    // Directories that an archive implies belong to root.
    if !is_root() {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    for entries in [
        &[(b'0', "../f", "x")][..],
        &[(b'0', "a/../../f", "x")],
        &[(b'5', "..", "")],
        &[(b'2', "l", "../f")],
        &[(b'2', "d/l", "../../f")],
        &[(b'1', "h", "../f")],
        &[(b'1', "d/h", "d/../../f")],
    ] {
        let all = [&[(b'0', "first", "1")], entries].concat();
        let fixture = fixture(&tar(&all), &["x/", "f=keep"]);
        let error = fixture.copy("/a", "/x").unwrap_err();
        assert!(matches!(error, super::Error::Breakout { .. }), "{entries:?}: {error}");
        let mut found = fixture.list();
        // A directory that an entry implies may be left; the step is dropped anyway.
        found.retain(|entry| entry != "x/d/");
        assert_eq!(found, ["f=keep", "x/", "x/first=1"], "{entries:?}");
    }
    // Absolute links pass as text; what is written or linked through them stays inside.
    let entries = [(b'2', "l", out), (b'0', "l/f", "x"), (b'1', "h", "l/f"), (b'2', "up", "/"), (b'0', "up/g", "y")];
    let fixture = fixture(&tar(&entries), &[]);
    fixture.copy("/a", "/x").unwrap();
    assert!(list(outside.path()).is_empty());
    assert!(fixture.target(&format!("x{out}/f")).exists() && fixture.target("x/g").exists());
    // A link of the destination that leads out of it is followed within it.
    let fixture = super::archives::fixture(&tar(&[(b'0', "l/f", "x")]), &["x/"]);
    symlink("../../..", fixture.target("x/l")).unwrap();
    fixture.copy("/a", "/x").unwrap();
    assert_eq!(fixture.list(), ["x/", "x/f=x", "x/l->../../.."]);
}

/// X3.76.
#[test]
fn damaged() {
    let long = "x".repeat(3000);
    let whole = tar(&[(b'0', "f", "1"), (b'0', "g", &long)]);
    let mut flipped = whole.clone();
    flipped[1024 + 5] ^= 1;
    for (data, reason) in [
        (&whole[..2000], "unexpected end of file"),
        (&whole[..1200], "unexpected end of file"),
        (&flipped[..], "bad header checksum"),
        (&tar(&[(b'0', "f", "1"), (b'S', "sparse", "")]), "unhandled tar header type 83"),
        (&tar(&[(b'0', "f", "1"), (b'x', "pax", "99 broken=")]), "malformed PAX header"),
        (&tar(&[(b'0', "f", "1"), (b'1', "h", "gone")]), "link /x/gone /x/h: no such file or directory"),
    ] {
        let fixture = fixture(data, &[]);
        let error = fixture.copy("/a", "/x").unwrap_err().to_string();
        assert_eq!(error, format!("failed to unpack /a: {reason}"));
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax(records: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
        out += &format!("{length} {key}={value}\n");
    }
    out
}

/// Long names, PAX records, ids and times beyond the header's fields.
#[test]
fn extensions() {
    // Directories that an archive implies belong to root.
    if !is_root() {
        return;
    }
    let long = "n".repeat(150);
    let data = tar(&[
        (b'L', "././@LongLink", &format!("{long}\0")),
        (b'0', "short", "1"),
        (
            b'x',
            "pax",
            &pax(&[
                ("path", "p\u{e4}x/f"),
                ("mtime", "1234567.25"),
                ("SCHILY.xattr.user.note", "v\n=w"),
                ("uid", "77"),
            ]),
        ),
        (b'0', "ignored", "2"),
        (b'x', "pax", &pax(&[("mtime", "-10.5")])),
        (b'0', "old", "3"),
    ]);
    let fixture = fixture(&data, &[]).with(|f| f.owner = Owner::Keep);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(
        fixture.list(),
        [format!("{long}=1"), "old=3".into(), "p\\xc3\\xa4x/".into(), "p\\xc3\\xa4x/f=2".into()]
    );
    let path = fixture.target("p\u{e4}x/f");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567, 250_000_000));
    assert_eq!((meta.uid(), meta.gid()), (77, 22));
    let mut value = [0; 16];
    if let Ok(length) = rustix::fs::getxattr(&path, "user.note", &mut value[..]) {
        assert_eq!(&value[..length], b"v\n=w");
    }
    assert_eq!(fs::metadata(fixture.target("old")).unwrap().mtime(), 0);
}
