//! Where things go (X3.C, D18.18 to D18.25).

use super::Fixture;

#[test]
fn places() {
    // Source tree, destination tree, source, destination, result or error.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, &'a str, Result<&'a [&'a str], &'a str>);
    let rows: &[Row] = &[
        // X3.19: missing destination.
        (&["f=1"], &[], "/f", "/x", Ok(&["x=1"])),
        (&["f=1"], &[], "/f", "/a/b/x", Ok(&["a/", "a/b/", "a/b/x=1"])),
        (&["f=1"], &[], "/f", "/x/", Ok(&["x/", "x/f=1"])),
        (&["f=1"], &[], "/f", "/x/.", Ok(&["x/", "x/f=1"])),
        (&["f=1"], &[], "/f", "/", Ok(&["f=1"])),
        (&["f=1"], &[], "/f", "/../../x", Ok(&["x=1"])),
        // X3.18: existing directory, also behind a link.
        (&["f=1"], &["d/"], "/f", "/d", Ok(&["d/", "d/f=1"])),
        (&["f=1"], &["d/", "l->d"], "/f", "/l", Ok(&["d/", "d/f=1", "l->d"])),
        // X3.22: replaced; a link inside the directory is replaced too.
        (&["f=1"], &["f=old"], "/f", "/f", Ok(&["f=1"])),
        (&["f=1"], &["d/f->../o", "o=old"], "/f", "/d/", Ok(&["d/", "d/f=1", "o=old"])),
        // X3.16, X3.17: links in the destination path, the last one too, also dangling.
        (&["f=1"], &["l->t", "t=old"], "/f", "/l", Ok(&["l->t", "t=1"])),
        (&["f=1"], &["l->/a/t"], "/f", "/l", Ok(&["a/", "a/t=1", "l->/a/t"])),
        (&["f=1"], &["l->/a/t"], "/f", "/l/x", Ok(&["a/", "a/t/", "a/t/x=1", "l->/a/t"])),
        (&["f=1"], &["l->../../a", "a/"], "/f", "/l/", Ok(&["a/", "a/f=1", "l->../../a"])),
        // X3.13, X3.24: contents of directories, merged.
        (&["d/f=1", "d/s/g=2"], &[], "/d", "/x", Ok(&["x/", "x/f=1", "x/s/", "x/s/g=2"])),
        (&["d/f=1", "d/e/"], &["x/f=old", "x/g=2"], "/d", "/x", Ok(&["x/", "x/e/", "x/f=1", "x/g=2"])),
        (&["d/f=1"], &["r/", "x->r"], "/d/", "/x", Ok(&["r/", "r/f=1", "x->r"])),
        (&["f=1", "d/g=2"], &[], "/", "/x", Ok(&["x/", "x/d/", "x/d/g=2", "x/f=1"])),
        (&["f=1"], &[], "/../.", "/", Ok(&["f=1"])),
        (&["d/l->f", "d/f=1"], &["x/l=old"], "/d", "/x", Ok(&["x/", "x/f=1", "x/l->f"])),
        // X3.11: a named link is followed, its own name stays; links below are copied.
        (&["l->f", "f=1"], &[], "/l", "/x/", Ok(&["x/", "x/l=1"])),
        (&["l->/d", "d/k->nowhere"], &[], "/l", "/x", Ok(&["x/", "x/k->nowhere"])),
        // Errors.
        (&["d/f=1"], &["x=1"], "/d", "/x", Err("cannot copy to non-directory: /x")),
        (&["d/f=1"], &["z/f=1"], "/d", "/z/f/", Err("mkdir /z/f: not a directory")),
        (&["d/f=1"], &["z/f=1"], "/d", "/z/f/x", Err("mkdir /z/f: not a directory")),
        (&["f=1"], &["z/f=1"], "/f", "/z/f/", Err("mkdir /z/f: not a directory")),
        (&["f=1"], &["d/f/"], "/f", "/d", Err("cannot replace to directory /d/f with file")),
        (&["d/f=1"], &["x/f/"], "/d", "/x", Err("cannot replace to directory /x/f with file")),
        (&["d/s/f=1"], &["x/s=1"], "/d", "/x", Err("cannot copy to non-directory: /x/s")),
        (&["d/s/f=1"], &["x/s->../r", "r/"], "/d", "/x", Err("cannot copy to non-directory: /x/s")),
        (&["f=1"], &[], "/x", "/", Err("\"/x\": not found")),
        (&["f=1"], &[], "/f/x", "/", Err("\"/f/x\": not found")),
        (&["l->gone"], &[], "/l", "/", Err("\"/l\": not found")),
        (&["l->l"], &[], "/l", "/", Err("/l: too many links")),
        (&["f=1"], &["l->l"], "/f", "/l", Err("/l: too many links")),
    ];
    for (source, target, from, to, want) in rows {
        let fixture = Fixture::new(source, target);
        let result = fixture.copy(from, to);
        match (result, want) {
            (Ok(_), Ok(want)) => assert_eq!(fixture.list(), *want, "{source:?} {target:?} {from} {to}"),
            (Err(error), Err(want)) => assert_eq!(error.to_string(), *want, "{source:?} {target:?} {from} {to}"),
            (got, want) => panic!("{source:?} {target:?} {from} {to}: {got:?} instead of {want:?}"),
        }
    }
}

/// D18.17, D18.21: later matches overwrite earlier ones.
#[test]
fn several_files_to_one_name() {
    let fixture = Fixture::new(&["b=2", "a=1", "c/", "c/x=3"], &[]);
    assert_eq!(fixture.copy("/[ab]", "/x").unwrap().files, 2);
    assert_eq!(fixture.list(), ["x=2"]);
    let fixture = Fixture::new(&["d1/f=1", "d2/f=2", "d3=3"], &[]);
    fixture.copy("/d*", "/x/").unwrap();
    assert_eq!(fixture.list(), ["x/", "x/d3=3", "x/f=2"]);
}

/// X3.22: other names of a replaced file keep its data.
#[test]
fn replacing_does_not_write_through() {
    let fixture = Fixture::new(&["d/f=new"], &["x/f=old"]);
    std::fs::hard_link(fixture.target("x/f"), fixture.target("other")).unwrap();
    fixture.copy("/d", "/x").unwrap();
    fixture.copy("/d/f", "/x/f").unwrap();
    assert_eq!(fixture.list(), ["other=old", "x/", "x/f=new"]);
}
