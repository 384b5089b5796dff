//! Several processes over one store.

use crate::harness::Harness;
use std::process::Stdio;

#[test]
fn two_builds_at_once_share_a_store() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox\nRUN sleep 1; date +%N > /when\nRUN cat /when > /copy\n");
    let start = |name: &str| {
        harness
            .command(&["build", "--progress=plain", "-t", name, context.to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children = [start("first"), start("second"), start("third")];
    let mut cached = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        cached += text.matches("CACHED").count();
    }
    assert_eq!(cached, 4, "each step ran once, in one of them");
    let when = |name: &str| harness.output(name, &["cat", "/when"]);
    assert_eq!(when("first"), when("second"));
    assert_eq!(when("first"), when("third"));
}

#[test]
fn many_different_builds_at_once() {
    let harness = Harness::new();
    let children: Vec<_> = (0..8)
        .map(|number| {
            let context = harness.context(&format!("c{number}"), &format!("FROM busybox\nRUN echo {number} > /n\n"));
            let name = format!("image{number}");
            let child = harness
                .command(&["build", "--progress=plain", "-t", &name, context.to_str().unwrap()])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            (name, number, child)
        })
        .collect();
    for (name, number, child) in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(harness.output(&name, &["cat", "/n"]), format!("{number}\n"));
    }
}
