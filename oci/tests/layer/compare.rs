use crate::tree::{Tree, diff};
use oci::layer::{Aspect, Comparison, Side, Times, compare};

fn compared(first: &Tree, second: &Tree, times: Times, most: usize) -> Comparison {
    let side = |tree: &Tree| diff(tree.fd(), None).unwrap().into_iter().map(Ok);
    let first = Side { changes: side(first), upper: first.fd() };
    compare(first, Side { changes: side(second), upper: second.fd() }, times, most).unwrap()
}

fn told(comparison: &Comparison) -> Vec<String> {
    let aspects = |aspects: &[Aspect]| aspects.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    comparison.differences.iter().map(|found| format!("{}: {}", found.path, aspects(&found.aspects))).collect()
}

#[test]
fn what_differs_is_told() {
    let (first, second) = (Tree::new(), Tree::new());
    for tree in [&first, &second] {
        tree.dir("d").file("d/same", "same").symlink("d/l", "x").file("d.txt", "in the order of a walk");
    }
    assert_eq!(compared(&first, &second, Times::Kept, 9), Comparison::default());
    let long = "x".repeat(200_000);
    first
        .file("d/gone", "")
        .file("content", "abcd")
        .file("long", &long)
        .file("kind", "")
        .symlink("to", "a")
        .file("mode", "");
    second
        .file("d/new", "")
        .file("content", "abXd")
        .file("long", &format!("{long}y"))
        .dir("kind")
        .symlink("to", "b")
        .file("mode", "");
    second.mode("mode", 0o600).time("mode", 2000, 0).time("d.txt", 3000, 0);
    let comparison = compared(&first, &second, Times::Kept, 9);
    let expected = [
        "content: content of 4 bytes, differs from byte 2 on",
        "d/gone: only in the first build",
        "d/new: only in the second build",
        "d.txt: modified at 1970-01-01T00:16:40Z, then at 1970-01-01T00:50:00Z",
        "kind: a file, then a directory",
        "long: content of 200000 bytes, then of 200001, differs from byte 200000 on",
        "mode: mode 644, then 600; modified at 1970-01-01T00:16:40Z, then at 1970-01-01T00:33:20Z",
        "to: leads to a, then to b",
    ];
    // Directories hold the time at which something was last put into them.
    let found: Vec<_> = told(&comparison).into_iter().filter(|line| !line.starts_with("d:")).collect();
    assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:#?}");
    assert_eq!(found.len(), expected.len());
    assert!(
        comparison.only_times >= 1
            && comparison.differences.iter().any(|found| found.path == "d.txt" && found.is_only_time())
    );
    // As they would be written with an epoch.
    let clamped = compared(&first, &second, Times::AtMost(900), 2);
    assert_eq!((clamped.differences.len(), clamped.total, clamped.only_times), (2, 7, 0));
}
