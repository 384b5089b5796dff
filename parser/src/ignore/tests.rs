use super::*;

fn excluded(file: &str, path: &str) -> bool {
    IgnoreFile::parse(file).unwrap().matcher().is_excluded(path.as_bytes())
}

#[test]
fn lines_become_patterns() {
    let text = "\u{feff}# comment\r\n #x\r\n\n  a//b/./c/../d/  \n! /x/ \n/y\n/\n!\n";
    let lines: Vec<String> = text.strip_prefix('\u{feff}').unwrap().split('\n').filter_map(pattern_of_line).collect();
    assert_eq!(lines, ["#x", "a/b/d", "!x", "y", "/", "!"]);
    assert_eq!(IgnoreFile::parse(text).unwrap_err().to_string(), "illegal exclusion pattern: \"!\"");
    assert_eq!(IgnoreFile::parse("\u{feff}a\n").unwrap().patterns(), ["a"]);
    assert!(matches!(IgnoreFile::parse("a[").unwrap_err(), IgnoreError::BadPattern { .. }));
    assert!(IgnoreFile::parse("a\\").is_err());
}

#[test]
fn patterns_match_as_documented() {
    let cases = [
        // (file, path, excluded)
        ("foo", "foo", true),
        ("foo", "foo/a/b", true),
        ("foo", "x/foo", false),
        ("foo", "foobar", false),
        ("/foo", "foo", true),
        ("foo/", "foo", true),
        ("**/foo", "foo", true),
        ("**/foo", "a/b/foo", true),
        ("**/foo", "a/xfoo", false),
        ("**foo", "a/xfoo", true),
        ("**.o", "a/b.o", true),
        ("**.o", "b.o", true),
        ("**/*.pyc", "a/b/c.pyc", true),
        ("**/*.pyc", "c.pyc", true),
        ("*.md", "README.md", true),
        ("*.md", "docs/README.md", false),
        ("*/*.md", "docs/README.md", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("a**b", "ab", true),
        ("a**b", "ax/b", true),
        ("a**b", "axb", false),
        ("foo/**", "foo", false),
        ("foo/**", "foo/a", true),
        ("foo/**", "foo/a/b", true),
        ("foo/b**", "foo/bar/x", true),
        ("**", "a", true),
        ("**", "a/b", true),
        ("*", "a/b", true),
        ("*", ".git/config", true),
        (".", "a", false),
        ("/", "a", false),
        ("../x", "x", false),
        ("fo?", "foo", true),
        ("fo?", "fo/", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        (r"\*", "*", true),
        (r"\*", "x", false),
        ("a.c", "abc", false),
        ("a+(b)|c{1}$^", "a+(b)|c{1}$^", true),
        ("FOO", "foo", false),
        (" #x", "#x", true),
        ("**/x/**/*.rs", "a/x/b/c/d.rs", true),
        ("**/x/**/*.rs", "x/d.rs", true),
        ("**/x/**/*.rs", "y/d.rs", false),
    ];
    for (file, path, expected) in cases {
        assert_eq!(excluded(file, path), expected, "{file:?} {path}");
    }
}

#[test]
fn the_last_matching_pattern_decides() {
    let cases = [
        ("a\n!a/b", "a", true),
        ("a\n!a/b", "a/b", false),
        ("a\n!a/b", "a/b/c", false),
        ("a\n!a/b", "a/c", true),
        ("!a/b\na", "a/b", true),
        ("*\n!src\nsrc/*.tmp", "src/main.rs", false),
        ("*\n!src\nsrc/*.tmp", "src/x.tmp", true),
        ("*.md\n!README.md", "README.md", false),
        ("a\n!a/b\na/b/c", "a/b/c/d", true),
        ("**\n!**/*.go", "x/y.go", false),
        ("node_modules\n!node_modules/keep", "node_modules/keep/x/y", false),
    ];
    for (file, path, expected) in cases {
        assert_eq!(excluded(file, path), expected, "{file:?} {path}");
    }
}

#[test]
fn walking_down_agrees_with_asking_for_whole_paths() {
    let matcher = PatternMatcher::new(["a", "!a/b", "**/*.o", "!keep.o", "x/*/z", "!x/y/z/w"]).unwrap();
    for path in ["a", "a/b", "a/b/c.o", "a/c/d", "keep.o", "x/y/z", "x/y/z/w", "x/y/z/v", "q/r.o"] {
        let mut state = matcher.root_state();
        let mut last = false;
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            (last, state) = matcher.step(&state, &path.as_bytes()[..at]);
        }
        assert_eq!(last, matcher.is_excluded(path.as_bytes()), "{path}");
    }
}

#[test]
fn pruning_keeps_directories_that_a_negation_may_reach() {
    let below =
        |patterns: &[&str], path: &str| PatternMatcher::new(patterns).unwrap().may_reinclude_below(path.as_bytes());
    assert!(!below(&["a"], "a"));
    assert!(below(&["a", "!a/b"], "a"));
    assert!(!below(&["a", "!a/b"], "a/c"));
    assert!(!below(&["a", "!ab/c"], "a"));
    assert!(!below(&["a", "!a"], "a"));
    assert!(below(&["*", "!**/x"], "q/r"));
    assert!(below(&["*", "!a/*/x"], "a/b"));
    assert!(below(&["*", "!a/*/x"], "a"));
    assert!(!below(&["*", "!a/*/x"], "b"));
    assert!(below(&["*", "!a/**"], "a"));
    assert!(below(&["*", "!a/**"], "a/b"));
    assert!(!below(&["*", "!a/**"], "b"));
    assert!(below(&["*", "!ab*/x"], "abc"));
}

#[test]
fn the_deciding_pattern_can_be_named() {
    let matcher = PatternMatcher::new(["*.log", "dir", "!dir/keep"]).unwrap();
    assert_eq!(matcher.deciding_pattern(b"x.log"), Some("*.log"));
    assert_eq!(matcher.deciding_pattern(b"dir/a"), Some("dir"));
    assert_eq!(matcher.deciding_pattern(b"dir/keep"), Some("!dir/keep"));
    assert_eq!(matcher.deciding_pattern(b"other"), None);
    assert!(matcher.has_negations() && !matcher.is_empty());
}

#[test]
fn paths_are_bytes() {
    let matcher = PatternMatcher::new(["a?/*.x", "**/é"]).unwrap();
    assert!(matcher.is_excluded(b"a\xff/\xfe.x"));
    assert!(matcher.is_excluded("b/é".as_bytes()));
    assert!(!matcher.is_excluded(b"b/\xff"));
}
