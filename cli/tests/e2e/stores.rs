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

/// A file that changes after its digest was computed: the image has what the key says, never the one under the name of the other (X6.44).
#[test]
fn contexts_that_change_during_a_build() {
    let harness = Harness::new();
    let dockerfile =
        |nonce: u32| format!("FROM busybox\nRUN echo {nonce}; while [ ! -e /m/go ]; do sleep 0.05; done\nCOPY . /c/\n");
    for round in 0..2 {
        // In the second round the copy is known, and is not made ahead.
        let text = dockerfile(round).replace("RUN", "RUN --mount=type=cache,id=gate,target=/m");
        let context = harness.context("changing", &text);
        std::fs::write(context.join("f"), "before").unwrap();
        let mut build = harness.command(&["build", "--progress=plain", "-t", "changing", context.to_str().unwrap()]);
        let mut build = build.stderr(std::process::Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        std::fs::write(context.join("f"), format!("during {round}")).unwrap();
        let go = "FROM busybox\nRUN --mount=type=cache,id=gate,target=/m touch /m/go\n";
        harness.build_text(go, &["--no-cache"]).ok();
        let output = build.wait().unwrap();
        assert!(output.success());
        let found = harness.output("changing", &["cat", "/c/f"]);
        assert!(found == "before" || found == format!("during {round}"), "{found}");
        if found == "before" {
            // What was seen then is kept under its own name.
            harness.build(&context, &["-t", "changing"]).ok();
            assert_eq!(harness.output("changing", &["cat", "/c/f"]), format!("during {round}"));
        }
        harness.build_text("FROM busybox\nRUN --mount=type=cache,id=gate,target=/m rm /m/go\n", &["--no-cache"]).ok();
        let again = harness.build(&context, &["-t", "changing"]).ok();
        assert!(again.stderr.contains("COPY . /c/\n") && again.stderr.contains("CACHED"), "{}", again.stderr);
        std::fs::write(context.join("f"), "before").unwrap();
        harness.build(&context, &["-t", "changing"]).ok();
        assert_eq!(harness.output("changing", &["cat", "/c/f"]), "before");
    }
}

/// One that never holds still is told, not guessed at.
#[test]
fn files_that_never_hold_still() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let harness = Harness::new();
    let context = harness.context("busy", "FROM busybox\nCOPY . /c/\n");
    let file = context.join("log");
    std::fs::write(&file, vec![0; 32 << 20]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(&file).unwrap();
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                file.write_all_at(&count.to_le_bytes(), count % 1000).unwrap();
            }
        });
        // On a busy machine the writer may pause for long enough once.
        let told = (0..10).map(|_| harness.build(&context, &["--no-cache"])).find(|outcome| outcome.code != Some(0));
        stop.store(true, Ordering::Relaxed);
        told.expect("noticed").fails(1).says("/log changes while it is being read").says(".dockerignore");
    });
    harness.build(&context, &[]).ok();
}
