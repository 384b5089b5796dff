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
        (&tar(&[(b'0', "f", "1"), (b'V', "volume", "")]), "unhandled tar header type 86"),
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

/// An entry as bytes that no writer makes; `change` is the last to touch its header.
fn raw(kind: u8, name: &[u8], data: &[u8], change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[156] = kind;
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    change(header.as_mut_bytes());
    header.set_cksum();
    let padding = data.len().wrapping_neg() % 512;
    [header.as_bytes(), data, &vec![0; padding]].concat()
}

/// Unpacks a good file and then what is given, and tells what was wrong.
fn failure(archive: &[u8]) -> String {
    let fixture = fixture(&[&raw(b'0', b"good", b"", |_| {}), archive].concat(), &[]);
    let error = fixture.copy("/a", "/x").unwrap_err().to_string();
    error.strip_prefix("failed to unpack /a: ").unwrap_or(&error).to_string()
}

fn file(name: &str) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"1", |_| {})
}

fn extension(records: &[(&str, &str)]) -> Vec<u8> {
    raw(b'x', b"pax", pax(records).as_bytes(), |_| {})
}

#[test]
fn extension_headers_are_bounded() {
    let one = extension(&[("comment", "x")]);
    let fixture = fixture(&[one.repeat(64), file("f")].concat(), &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["f=1"]);
    for kind in [b'x', b'L', b'K', b'g'] {
        let header = raw(kind, b"x", b"", |_| {});
        assert_eq!(failure(&header.repeat(1000)), "more than 64 extension headers before one entry");
        let header = raw(kind, b"x", b"", |h| h[124..136].copy_from_slice(b"77777777777\0"));
        assert_eq!(failure(&header), "extension header of 8589934591 bytes, more than 1048576");
        let header = raw(kind, b"x", b"", |h| h[124..136].fill(0xff));
        assert_eq!(failure(&header), "negative size -1");
    }
    let large = raw(b'L', b"x", &vec![b'n'; 1 << 20], |_| {});
    assert_eq!(failure(&large.repeat(3)), "extension headers of more than 2097152 bytes before one entry");
    assert_eq!(failure(&large), "it ends after an extension header");
    // Looked up and not searched, or this would take minutes.
    let keys: Vec<String> = (0..60_000).map(|n| n.to_string()).collect();
    let records: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
    let many = extension(&records);
    let fixture = super::archives::fixture(&[many, file("f")].concat(), &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["f=1"]);
}

/// Of records with one key the last counts, a later header takes an earlier one's place, and long names win.
#[test]
fn contradictions() {
    let long = |kind, name: &str| raw(kind, b"long", name.as_bytes(), |_| {});
    let data = [
        extension(&[("path", "a1"), ("path", "a2")]),
        file("a"),
        extension(&[("path", "b1"), ("path", "")]),
        file("b"),
        extension(&[("path", "c1")]),
        extension(&[("mtime", "1")]),
        file("c"),
        extension(&[("path", "d1")]),
        long(b'L', "d2\0ignored"),
        file("d"),
        long(b'L', "e1"),
        long(b'L', "e2"),
        file("e"),
        extension(&[("size", "2")]),
        raw(b'0', b"size", b"12", |h| h[124..136].copy_from_slice(b"00000000001\0")),
    ]
    .concat();
    let fixture = fixture(&data, &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["a2=1", "b=1", "c=1", "d2=1", "e2=1", "size=12"]);
}

#[test]
fn sizes() {
    let size = |bytes: &[u8; 12]| raw(b'0', b"f", b"", |h| h[124..136].copy_from_slice(bytes));
    let base256 = |top: u8| {
        let mut bytes = [0; 12];
        (bytes[0], bytes[4]) = (0x80, top);
        size(&bytes)
    };
    let told = |text: &str| [extension(&[("size", text)]), file("f")].concat();
    for (archive, reason) in [
        // 8 EiB less one: nothing is kept free for it.
        (size(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), "unexpected end of file"),
        (base256(0x80), "bad size in header: out of range"),
        (size(&[0xff; 12]), "negative size -1"),
        (size(b"0000000-001\0"), "bad size in header: not a number"),
        (size(b"00000000009\0"), "bad size in header: not a number"),
        (told("9223372036854775807"), "unexpected end of file"),
        (told("9223372036854775808"), "bad PAX value \"9223372036854775808\""),
        (told("-1"), "negative size -1"),
        (told("0x1"), "bad PAX value \"0x1\""),
    ] {
        assert_eq!(failure(&archive), reason);
    }
    // Of what has no data the size is no matter.
    let fixture = fixture(&[raw(b'2', b"l", b"", |h| h[124..136].fill(0xff)), file("f")].concat(), &[]);
    let error = fixture.copy("/a", "/").unwrap_err().to_string();
    assert_eq!(error, "symlink /l: no such file or directory");
}

/// Headers of Unix v7, without any mark, blank numbers, and negative ones.
#[test]
fn header_fields() {
    if !is_root() {
        return;
    }
    let v7 = |kind, name: &[u8], data: &[u8]| {
        raw(kind, name, data, |h| {
            h[257..].fill(0);
            // Prefix and devices of later formats do not count.
            h[345..348].copy_from_slice(b"pre");
            h[108..124].fill(b' ');
            h[136..148].fill(0);
        })
    };
    let ustar = raw(b'0', b"f", b"4", |h| {
        h[257..265].copy_from_slice(b"ustar\x0000");
        h[345..348].copy_from_slice(b"pre");
        h[136..148].fill(0xff);
        h[108..116].copy_from_slice(b"\x80\0\0\0\0\x98\x96\x80");
    });
    let data = [v7(0, b"dir/", b""), v7(0, b"dir/f", b"2"), v7(b'0', b"g", b"3"), ustar].concat();
    let fixture = fixture(&data, &[]).with(|f| f.owner = Owner::Keep);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["dir/", "dir/f=2", "g=3", "pre/", "pre/f=4"]);
    let meta = fs::metadata(fixture.target("pre/f")).unwrap();
    assert_eq!((meta.uid(), meta.mtime()), (10_000_000, 0));
    assert_eq!(owner(&fixture.target("g")), (0, 0));
    let negative = raw(b'0', b"f", b"", |h| h[108..116].fill(0xff));
    let fixture = super::archives::fixture(&negative, &[]).with(|f| f.owner = Owner::Keep);
    assert_eq!(fixture.copy("/a", "/").unwrap_err().to_string(), "failed to unpack /a: owner -1 is out of range");
}

#[test]
fn names() {
    if !is_root() {
        return;
    }
    let deep = "d/".repeat(1500);
    let path = |path: &str| [extension(&[("path", path)]), file("short")].concat();
    let data = [
        raw(b'0', b"", b"1", |_| {}),
        raw(b'0', b".", b"1", |_| {}),
        raw(b'0', b"./", b"1", |_| {}),
        raw(b'5', b"/", b"", |_| {}),
        raw(b'0', b"/..", b"1", |_| {}),
        raw(b'0', b"a/..", b"1", |_| {}),
        raw(b'0', b"/../up", b"1", |_| {}),
        raw(b'0', b"b//./c/../f/", b"1", |_| {}),
        raw(b'0', b"\xff\n\x1b", b"1", |_| {}),
        raw(b'0', b".wh.x", b"1", |_| {}),
        raw(b'0', b".wh..wh..opq", b"1", |_| {}),
        raw(b'0', b"...", b"1", |_| {}),
        raw(b'0', b"zero\0rest", b"1", |_| {}),
        raw(b'0', &[b'n'; 100], b"1", |_| {}),
    ];
    let fixture = fixture(&data.concat(), &[]);
    fixture.copy("/a", "/").unwrap();
    let long = format!("{}=1", "n".repeat(100));
    let want = ["...=1", ".wh..wh..opq=1", ".wh.x=1", "\\xff\\n\\x1b=1", "b/", "b/f=1", &long, "up=1", "zero=1"];
    assert_eq!(fixture.list(), want);

    // More names than a process mostly may have descriptors; then all of it is removed.
    let fixture = super::archives::fixture(&[path(&format!("{deep}f")), path("e/f")].concat(), &[]);
    fixture.copy("/a", "/").unwrap();
    assert!(fixture.target(&format!("{deep}f")).exists());
    fs::write(fixture.source("a"), file("d")).unwrap();
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["d=1", "e/", "e/f=1"]);

    let long = "l".repeat(256);
    assert_eq!(failure(&path(&long)), format!("stat /x/{long}: file name too long"));
    assert_eq!(failure(&path(&"d/".repeat(2049))), "a name of 4098 bytes, more than 4096");
    assert_eq!(failure(&path("a\0b")), "a name contains a zero byte");
    let target = |kind, target: &str| [extension(&[("linkpath", target)]), raw(kind, b"l", b"", |_| {})].concat();
    assert_eq!(failure(&target(b'2', &"d/".repeat(2049))), "a link target of 4098 bytes, more than 4096");
    assert_eq!(failure(&target(b'1', "a\0b")), "a link target contains a zero byte");
    // Each entry would go deeper than the one before.
    let mut data = Vec::new();
    for _ in 0..3 {
        data.extend(path(&format!("l/{deep}f")));
        data.extend([extension(&[("linkpath", &format!("/l/{deep}"))]), raw(b'2', b"m", b"", |_| {})].concat());
        data.extend(path(&format!("m/{deep}f")));
    }
    assert_eq!(failure(&data), "a directory's path of 6001 bytes, more than 4096");
}

#[test]
fn replaced_entries() {
    if !is_root() {
        return;
    }
    // The last one of a name wins, also over a directory that earlier ones lie in.
    let entries = [
        (b'0', "f", "old"),
        (b'0', "f", "new"),
        (b'0', "d/f", "1"),
        (b'5', "d", ""),
        (b'0', "d", "2"),
        (b'0', "e/f", "3"),
        (b'5', "e", ""),
        (b'2', "e", "."),
        (b'0', "e/through", "4"),
        (b'5', "g/h", ""),
        (b'0', "g", "5"),
        (b'5', "g/", ""),
        (b'5', "twice", ""),
        (b'5', "twice", ""),
        (b'2', "up/l", ".."),
        // It removes the link that it came through; what follows is not through it.
        (b'0', "up/l/up", "6"),
    ];
    let fixture = fixture(&tar(&entries), &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["d=2", "e->.", "f=new", "g/", "through=4", "twice/", "up=6"]);
    for name in ["g", "twice"] {
        assert_eq!(fs::metadata(fixture.target(name)).unwrap().mtime(), 1_000_000, "{name}");
    }
    let entries = [&entries[14..], &[(b'0', "up/l/again", "7")]].concat();
    let fixture = super::archives::fixture(&tar(&entries), &[]);
    let error = fixture.copy("/a", "/x").unwrap_err().to_string();
    assert_eq!(error, "mkdir /x/up: not a directory");
}

/// Nothing of them reaches what lies outside.
#[test]
fn links() {
    let outside = tempfile::tempdir().unwrap();
    super::make(outside.path(), &["secret=s"]);
    let out = outside.path().to_str().unwrap();
    let denied = "operation not permitted";
    for (entries, reason) in [
        (&[(b'0', "h", "1"), (b'1', "h", "h")][..], "link /x/h /x/h: no such file or directory".to_string()),
        (&[(b'1', "h", "h")], "link /x/h /x/h: no such file or directory".into()),
        (&[(b'5', "d", ""), (b'1', "h", "d")], format!("link /x/d /x/h: {denied}")),
        (&[(b'1', "h", ".")], "link /x /x/h: no such file or directory".into()),
        (&[(b'1', "h", "")], "link /x /x/h: no such file or directory".into()),
        (&[(b'2', "l", out), (b'1', "h", "l/secret")], "link /x/l/secret /x/h: no such file or directory".into()),
        (&[(b'1', "h", &format!("{out}/secret"))], format!("link /x{out}/secret /x/h: no such file or directory")),
        (&[(b'2', "l", "l"), (b'0', "l/f", "")], "l: too many links".into()),
    ] {
        let error = failure(&tar(entries));
        assert!(error.ends_with(&reason), "{error}");
    }
    // A hard link to a link is one to the link itself.
    let secret = format!("{out}/secret");
    let entries =
        [(b'2', "l", secret.as_str()), (b'1', "h", "l"), (b'0', "l", "x"), (b'2', "r", "h"), (b'0', "h", "y")];
    let fixture = fixture(&tar(&entries[..2]), &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), [format!("h->{secret}"), format!("l->{secret}")]);
    fs::write(fixture.source("a"), tar(&entries)).unwrap();
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fixture.list(), ["h=y", "l=x", "r->h"]);
    assert_eq!(list(outside.path()), ["secret=s"]);
    assert_eq!(fs::metadata(outside.path().join("secret")).unwrap().nlink(), 1);
}

/// A character device 0:0 in a layer removes the file of its name, and the kernel cuts large numbers down to it.
#[test]
fn devices() {
    let device = |kind, major: &[u8; 8], minor: &[u8; 8]| {
        raw(kind, b"n", b"", |h| {
            h[329..337].copy_from_slice(major);
            h[337..345].copy_from_slice(minor);
        })
    };
    let zero = b"0000000\0";
    assert_eq!(failure(&device(b'3', zero, zero)), "device 0:0 /x/n: it would be a whiteout");
    assert_eq!(failure(&device(b'3', &[0; 8], &[0; 8])), "device 0:0 /x/n: it would be a whiteout");
    let out_of_range = |device: &str| format!("device {device} /x/n: it is out of range");
    assert_eq!(failure(&device(b'3', b"0010000\0", zero)), out_of_range("4096:0"));
    assert_eq!(failure(&device(b'3', zero, b"4000000\0")), out_of_range("0:1048576"));
    assert_eq!(failure(&device(b'4', &[0xff; 8], zero)), out_of_range("-1:0"));
    assert_eq!(failure(&device(b'3', b"x000000\0", zero)), "bad major in header: not a number");
    // In old headers there are no numbers.
    let old = raw(b'3', b"n", b"", |h| h[257..].fill(0));
    assert_eq!(failure(&old), "device 0:0 /x/n: it would be a whiteout");
    let fixture = fixture(&device(b'3', b"0000001\0", b"0000003\0"), &[]);
    fixture.copy("/a", "/").unwrap();
    // In a user namespace there are none.
    if let Ok(meta) = fs::symlink_metadata(fixture.target("n")) {
        assert_eq!(meta.rdev(), rustix::fs::makedev(1, 3));
    }
}

/// A field of a GNU sparse header.
fn octal(field: &mut [u8], value: u64) {
    field.copy_from_slice(format!("{value:0width$o}\0", width = field.len() - 1).as_bytes());
}

fn old_sparse(pieces: &[(u64, u64)], size: u64, data: &[u8]) -> Vec<u8> {
    let write = |fields: &mut [u8], pieces: &[(u64, u64)]| {
        for (field, (offset, length)) in fields.chunks_mut(24).zip(pieces) {
            octal(&mut field[..12], *offset);
            octal(&mut field[12..], *length);
        }
    };
    let (first, rest) = pieces.split_at(pieces.len().min(4));
    let mut entry = raw(b'S', b"f", data, |h| {
        write(&mut h[386..482], first);
        h[482] = u8::from(!rest.is_empty());
        octal(&mut h[483..495], size);
    });
    let mut blocks = Vec::new();
    let count = rest.chunks(21).len();
    for (at, pieces) in rest.chunks(21).enumerate() {
        let mut block = [0; 512];
        write(&mut block[..504], pieces);
        block[504] = u8::from(at + 1 < count);
        blocks.extend(block);
    }
    entry.splice(512..512, blocks);
    entry
}

#[test]
fn sparse_files() {
    const SIZE: u64 = 40 << 20;
    let many: Vec<(u64, u64)> = (0..60).map(|n| ((n + 1) << 19, 2)).chain([(SIZE, 0)]).collect();
    let data: Vec<u8> = (0..120).map(|n| b'a' + n % 26).collect();
    let mut content = vec![0; SIZE as usize];
    for ((offset, length), piece) in many.iter().zip(data.chunks(2)) {
        content[*offset as usize..][..*length as usize].copy_from_slice(piece);
    }
    let numbers = |separator: &str| {
        let numbers: Vec<String> = many.iter().flat_map(|(a, b)| [a.to_string(), b.to_string()]).collect();
        numbers.join(separator)
    };
    let (size, count, list) = (SIZE.to_string(), many.len().to_string(), numbers(","));
    let head = |major, minor, rest: &[(&str, &str)]| {
        extension(&[&[("GNU.sparse.major", major), ("GNU.sparse.minor", minor)], rest].concat())
    };
    let other = |data: &[u8]| raw(b'0', b"GNUSparseFile.1/f", data, |_| {});
    let named = [("GNU.sparse.name", "f"), ("GNU.sparse.realsize", size.as_str())];
    let v1 = |map: &str, data: &[u8]| {
        let mut all = map.as_bytes().to_vec();
        all.resize(all.len().next_multiple_of(512), 0);
        all.extend(data);
        [head("1", "0", &named), other(&all)].concat()
    };
    let v01 = |map: &str, count: &str, data: &[u8]| {
        let records = [("GNU.sparse.size", size.as_str()), ("GNU.sparse.numblocks", count), ("GNU.sparse.map", map)];
        [extension(&[&records[..], &named[..1]].concat()), other(data)].concat()
    };
    let pairs: Vec<_> = numbers(" ").split(' ').map(str::to_string).collect();
    let mut v00 = vec![("GNU.sparse.size", size.as_str()), ("GNU.sparse.numblocks", &count)];
    for (at, number) in pairs.iter().enumerate() {
        v00.push((["GNU.sparse.offset", "GNU.sparse.numbytes"][at % 2], number));
    }
    for (version, archive) in [
        ("old", old_sparse(&many, SIZE, &data)),
        ("0.0", [extension(&v00), raw(b'0', b"f", &data, |_| {})].concat()),
        ("0.1", v01(&list, &count, &data)),
        ("1.0", v1(&format!("{count}\n{}\n", numbers("\n")), &data)),
    ] {
        let fixture = fixture(&[archive, file("next")].concat(), &[]);
        let summary = fixture.copy("/a", "/").unwrap();
        assert_eq!((summary.files, summary.bytes), (2, 121), "{version}");
        assert!(fs::read(fixture.target("f")).unwrap() == content, "{version}");
        assert!(fs::metadata(fixture.target("f")).unwrap().blocks() < SIZE / 512 / 2, "{version}");
        assert_eq!(fs::read(fixture.target("next")).unwrap(), b"1", "{version}");
    }

    let huge = i64::MAX as u64;
    let wrong = |problem: &str| format!("bad sparse map: {problem}");
    let beyond = |size: &str| wrong(&format!("it goes beyond the file's {size} bytes"));
    let mut base256 = old_sparse(&[(0, 1)], 1, b"1");
    base256[386..398].fill(0xff);
    base256[483..495].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    let mut header = Header::from_byte_slice(&base256[..512]).clone();
    header.set_cksum();
    base256[..512].copy_from_slice(header.as_bytes());
    let mut endless = old_sparse(&many[..5], SIZE, b"");
    endless[512 + 504] = 1;
    let block = endless.split_off(512);
    endless.extend(block.repeat(3000));
    for (archive, reason) in [
        (old_sparse(&[(0, 2), (1, 2)], 9, b"1234"), wrong("its pieces overlap or are out of order")),
        (old_sparse(&[(4, 2), (0, 2)], 9, b"1234"), wrong("its pieces overlap or are out of order")),
        (old_sparse(&[(8, 2)], 9, b"12"), beyond("9")),
        (old_sparse(&[(0, 2)], 9, b"123"), wrong("it is of 2 bytes, but there are 3")),
        (old_sparse(&[(0, 2)], 9, b"1"), wrong("it is of 2 bytes, but there are 1")),
        (base256, wrong("negative")),
        (endless, "sparse map of more than 1048576 bytes".into()),
        (v01("1,2,3", "2", b"12"), wrong("a piece without length")),
        (v01("1,2", "2", b"12"), wrong("it has another length than is told")),
        (v01("1,", "1", b"12"), wrong("no number")),
        (v01("-1,2", "1", b"12"), wrong("no number")),
        (v01(&format!("{huge},{huge}"), "1", b"12"), beyond(&size)),
        (v1("1\n", b""), wrong("it goes on after the file's data")),
        (v1("9223372036854775807\n", &[b'\n'; 2048]), wrong("it goes on after the file's data")),
        (v1("-1\n", b""), wrong("no number")),
        (v1(&"1".repeat(2 << 20), b""), "sparse map of more than 1048576 bytes".into()),
        ([head("2", "0", &named), other(b"")].concat(), "unknown version of sparse file".into()),
        ([extension(&[("GNU.sparse.numbytes", "1")]), other(b"")].concat(), "malformed PAX header".into()),
        (
            [head("0", "1", &[("GNU.sparse.numblocks", "0")]), raw(b'5', b"d", b"", |_| {})].concat(),
            "a sparse file that is no regular file".into(),
        ),
    ] {
        assert_eq!(failure(&archive), reason);
    }
    // What is claimed takes no room, but what no disk holds is refused.
    let fixture = fixture(&old_sparse(&[], 1 << 30, b""), &[]);
    fixture.copy("/a", "/").unwrap();
    assert_eq!(fs::metadata(fixture.target("f")).unwrap().len(), 1 << 30);
    let claimed = (1_u64 << 60).to_string();
    let records = [("GNU.sparse.size", claimed.as_str()), ("GNU.sparse.numblocks", "1"), ("GNU.sparse.map", "0,0")];
    let refused = failure(&[extension(&[&records[..], &named[..1]].concat()), other(b"")].concat());
    assert!(refused.contains("mostly holes, which is more than the disk could hold"), "{refused}");
}
