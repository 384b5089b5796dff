//! What is selected: wildcards, ignore files, `--exclude`, `--parents` (X3.B, X3.E, D18.32 to D18.36, D20).

use super::{Fixture, mode, set_mode};

fn names(fixture: &Fixture) -> Vec<String> {
    fixture.list().into_iter().map(|entry| entry.split('=').next().unwrap_or_default().to_string()).collect()
}

/// X3.7 to X3.12, D18.15.
#[test]
fn wildcards() {
    let tree = &["a.c", "b.c", ".h.c", "d.c/x", "s/e.c", "s/t/f.c", "l.c->s/e.c", "a[1", "k->s"];
    for (pattern, want) in [
        ("/?.c", &["a.c", "b.c", "l.c", "x"][..]),
        ("/*.h*", &[".h.c"]),
        ("/.*", &[".h.c"]),
        ("/*/e.c", &["e.c"]),
        ("/s/*/f.c", &["f.c"]),
        ("/s/**/f.c", &["f.c"]),
        ("/**/f.c", &[]),
        ("/[^a].c", &["b.c", "l.c", "x"]),
        ("/a[[]1", &["a[1"]),
        // Through a link in the fixed part, not in the matched part.
        ("/k/*.c", &["e.c"]),
        ("/k*/*.c", &[]),
        ("/a.c/*", &[]),
        ("/nothing*", &[]),
    ] {
        let fixture = Fixture::new(tree, &[]);
        fixture.copy(pattern, "/").unwrap();
        assert_eq!(names(&fixture), want, "{pattern}");
    }
    // Nothing matched: not even the destination is made (D18.16); but the fixed part must exist.
    let fixture = Fixture::new(tree, &[]);
    assert_eq!(fixture.copy("/*.x", "/new/").unwrap().files, 0);
    assert!(fixture.list().is_empty());
    assert_eq!(fixture.copy("/gone/*", "/").unwrap_err().to_string(), "\"/gone\": not found");
    // A match that leads nowhere is missed.
    let fixture = Fixture::new(&["b1->gone"], &[]);
    assert_eq!(fixture.copy("/b*", "/").unwrap_err().to_string(), "\"/b1\": not found");
    // Without the flag a star is a star.
    let fixture = Fixture::new(&["*=star", "b"], &[]);
    let selection = solver::op::Selection { path: "/*".into(), ..fixture.selection.clone() };
    fixture.copy_selection(&selection, "/").unwrap();
    assert_eq!(names(&fixture), ["*"]);
}

/// D20.6 to D20.14.
#[test]
fn ignore_files() {
    let tree = &["a/b/f", "a/c", "a/d/e/g", "x.o", "n/x.o", "k"];
    for (ignore, path, want) in [
        (&["a"][..], "/", Ok(&["k", "n/", "n/x.o", "x.o"][..])),
        (&["*.o"], "/", Ok(&["a/", "a/b/", "a/b/f", "a/c", "a/d/", "a/d/e/", "a/d/e/g", "k", "n/", "n/x.o"])),
        (&["**/*.o"], "/n", Ok(&[])),
        (&["a", "!a/b"], "/", Ok(&["a/", "a/b/", "a/b/f", "k", "n/", "n/x.o", "x.o"])),
        (&["a", "!a/b"], "/a", Ok(&["b/", "b/f"])),
        (&["*", "!a/d/e/g"], "/", Ok(&["a/", "a/d/", "a/d/e/", "a/d/e/g"])),
        (&["*", "!**/nothing"], "/", Ok(&[])),
        (&["*"], "/", Ok(&[])),
        (&["a/**"], "/", Ok(&["a/", "k", "n/", "n/x.o", "x.o"])),
        (&["."], "/k", Ok(&["k"])),
        (&["a"], "/a", Err("\"/a\": not found (excluded by .dockerignore: pattern \"a\")")),
        (&["a"], "/a/c", Err("\"/a/c\": not found (excluded by .dockerignore: pattern \"a\")")),
        (&["a", "!a/b"], "/a/c", Err("\"/a/c\": not found (excluded by .dockerignore: pattern \"a\")")),
        (&["a", "!a/q"], "/a", Err("\"/a\": not found (excluded by .dockerignore: pattern \"a\")")),
        (&["a"], "/z", Err("\"/z\": not found")),
        (&["a"], "/a*", Ok(&[])),
        (&["a", "!a/c"], "/a*", Ok(&["c"])),
        (&["n", "k"], "/?", Ok(&["b/", "b/f", "c", "d/", "d/e/", "d/e/g"])),
    ] {
        let fixture = Fixture::new(tree, &[]).with(|f| f.ignore = ignore.to_vec());
        match (fixture.copy(path, "/"), want) {
            (Ok(_), Ok(want)) => assert_eq!(names(&fixture), want, "{ignore:?} {path}"),
            (Err(error), Err(want)) => assert_eq!(error.to_string(), want, "{ignore:?} {path}"),
            (got, want) => panic!("{ignore:?} {path}: {got:?} instead of {want:?}"),
        }
    }
    // An ignored file is not there for a link either, and an ignored link leads nowhere.
    let fixture = Fixture::new(&["secret=s", "l->secret"], &[]).with(|f| f.ignore = vec!["secret"]);
    assert!(fixture.copy("/l", "/").unwrap_err().to_string().starts_with("\"/l\": not found (excluded"));
    let fixture = Fixture::new(&["f=1", "l->f"], &[]).with(|f| f.ignore = vec!["l"]);
    let error = fixture.copy("/l", "/").unwrap_err().to_string();
    assert_eq!(error, "\"/l\": not found (excluded by .dockerignore: pattern \"l\")");
}

/// X3.43 to X3.45, D18.32, D18.33.
#[test]
fn exclude() {
    let tree = &["a/1.md", "a/b/2.md", "a/b/c", "r.md", "s.c"];
    for (exclude, path, want) in [
        (&["*.md"][..], "/a", &["b/", "b/2.md", "b/c"][..]),
        (&["**/*.md"], "/a", &["b/", "b/c"]),
        (&["a/1.md"], "/a", &["1.md", "b/", "b/2.md", "b/c"]),
        (&["b"], "/a", &["1.md"]),
        (&["*", "!b/c"], "/a", &["b/", "b/c"]),
        (&["**"], "/a", &[]),
        (&["*.md"], "/[rs]*", &["s.c"]),
        (&["*.md"], "/r.md", &[]),
    ] {
        let fixture =
            Fixture::new(tree, &[]).with(|f| f.selection.exclude = exclude.iter().map(ToString::to_string).collect());
        fixture.copy(path, "/").unwrap();
        assert_eq!(names(&fixture), want, "{exclude:?} {path}");
    }
    // A directory whose content is all excluded still gives an empty destination.
    let fixture = Fixture::new(tree, &[]).with(|f| f.selection.exclude = vec!["**".into()]);
    fixture.copy("/a", "/x").unwrap();
    assert_eq!(names(&fixture), ["x/"]);
    // Parents of what is re-included are like their sources.
    let fixture = Fixture::new(tree, &[]).with(|f| f.selection.exclude = vec!["b".into(), "!b/c".into()]);
    set_mode(&fixture.source("a/b"), 0o751);
    fixture.copy("/a", "/").unwrap();
    assert_eq!((names(&fixture), mode(&fixture.target("b"))), (vec!["1.md".into(), "b/".into(), "b/c".into()], 0o751));
}

/// X3.46 to X3.48, D18.34 to D18.36.
#[test]
fn parents() {
    let tree = &["a/b/c=1", "a/b/d/e=2", "a/x.c=3", "z/b/c=4", "l->a", "a/k->b"];
    for (pivot, path, want) in [
        ("/", "/a/b/c", Ok(&["d/", "d/a/", "d/a/b/", "d/a/b/c"][..])),
        ("/a", "/a/b/c", Ok(&["d/", "d/b/", "d/b/c"])),
        ("/", "/a/b", Ok(&["d/", "d/a/", "d/a/b/", "d/a/b/c", "d/a/b/d/", "d/a/b/d/e"])),
        ("/a", "/a", Ok(&["d/", "d/b/", "d/b/c", "d/b/d/", "d/b/d/e", "d/k->b", "d/x.c"])),
        ("/", "/*/b/c", Ok(&["d/", "d/a/", "d/a/b/", "d/a/b/c", "d/z/", "d/z/b/", "d/z/b/c"])),
        ("/", "/**/e", Ok(&["d/", "d/a/", "d/a/b/", "d/a/b/d/", "d/a/b/d/e"])),
        ("/", "/**/*.c", Ok(&["d/", "d/a/", "d/a/x.c"])),
        ("/", "/a/d*", Ok(&["d/"])),
        ("/[az]", "/[az]/b/c", Ok(&["d/", "d/b/", "d/b/c"])),
        ("/gone", "/gone/*", Ok(&["d/"])),
        // Below the pivot links are copied; the pivot itself may be one.
        ("/", "/a/k", Ok(&["d/", "d/a/", "d/a/k->b"])),
        ("/l", "/l/b/c", Ok(&["d/", "d/b/", "d/b/c"])),
        ("/", "/l/b/c", Err("\"/l/b/c\": not found")),
        ("/", "/a/none", Err("\"/a/none\": not found")),
        ("/gone", "/gone/x", Err("\"/gone/x\": not found")),
        ("/a/x.c", "/a/x.c/y", Err("\"/a/x.c/y\": not found")),
    ] {
        let fixture = Fixture::new(tree, &[]).with(|f| f.selection.parents = Some(pivot.to_string()));
        match (fixture.copy(path, "/d"), want) {
            (Ok(_), Ok(want)) => assert_eq!(names(&fixture), want, "{pivot} {path}"),
            (Err(error), Err(want)) => assert_eq!(error.to_string(), want, "{pivot} {path}"),
            (got, want) => panic!("{pivot} {path}: {got:?} instead of {want:?}"),
        }
    }
    // Parents are like their sources, the destination is not; excludes count from the pivot.
    let fixture = Fixture::new(tree, &[]).with(|f| {
        f.selection.parents = Some("/".into());
        f.selection.exclude = vec!["a/b/d".into()];
    });
    set_mode(&fixture.source("a"), 0o711);
    fixture.copy("/a/b", "/d/").unwrap();
    assert_eq!(names(&fixture), ["d/", "d/a/", "d/a/b/", "d/a/b/c"]);
    assert_eq!((mode(&fixture.target("d")), mode(&fixture.target("d/a"))), (0o755, 0o711));
}
