//! What runs at the same time, what waits for what, and what becomes of the rest when something fails.

use crate::harness::{Harness, Outcome, printed, wait_until};
use std::path::Path;
use std::process::{Child, Stdio};

fn start(harness: &Harness, context: &Path, flags: &[&str]) -> Child {
    let mut command = harness.command(&["build", "--progress=plain"]);
    command.args(flags).arg(context).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Outcome {
    Outcome::of(child.wait_with_output().unwrap())
}

/// Runs a command in the cache mount `/m`, in which steps of other builds see what it did.
fn in_mount(harness: &Harness, command: &str) -> Vec<String> {
    let text = format!("FROM busybox\nRUN --mount=type=cache,id=gate,target=/m {command}\n");
    let context = harness.context("gate", &text);
    printed(&harness.build(&context, &["--no-cache"]).ok())
}

/// R8.3.
#[test]
fn parallelism_is_limited() {
    let harness = Harness::new();
    // Each fails where another one runs.
    let alone = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,id=alone,target=/m mkdir /m/busy && sleep 0.1 && rmdir /m/busy && echo {name} > /{name}\n"
        )
    };
    let stages = ["a", "b", "c", "d"];
    let text: String = stages.iter().map(|name| alone(name)).collect();
    let copies: String = stages.iter().map(|name| format!("COPY --from={name} /{name} /\n")).collect();
    let context = harness.context("alone", &format!("{text}FROM busybox\n{copies}"));
    harness.build(&context, &["--max-parallelism", "1"]).ok();

    // Each waits for the other.
    let both = |name: &str, other: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,id=both,target=/m touch /m/{name} /{name}; i=0; until [ -e /m/{other} ]; do sleep 0.05; i=$((i+1)); [ $i -lt 100 ]; done\n"
        )
    };
    let text = both("a", "b") + &both("b", "a") + "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let context = harness.context("both", &text);
    harness.build(&context, &["--max-parallelism", "2"]).ok();
    std::fs::create_dir_all(harness.path("config/rbuild")).unwrap();
    let configure = |text: &str| std::fs::write(harness.path("config/rbuild/config.toml"), text).unwrap();
    configure("[build]\nmax-parallelism = 1\n");
    harness.build(&harness.path("alone"), &["--no-cache"]).ok();
    // No limit, whatever the configuration says.
    harness.build(&context, &["--no-cache", "--max-parallelism=0"]).ok();
    configure("[build]\nmax-parallelism = \"many\"\n");
    harness.build(&context, &[]).fails(2).says("max-parallelism");
    configure("");
    for wrong in ["-1", "x", "1.5", ""] {
        harness.build(&context, &[&format!("--max-parallelism={wrong}")]).fails(2).says("--max-parallelism");
    }
}

/// A step that another process runs is waited for, and run if that process is killed.
#[test]
fn a_killed_build_leaves_its_steps_to_others() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN --mount=type=cache,id=gate,target=/m echo begun >> /m/log; until [ -e /m/go ]; do sleep 0.05; done; echo done > /f\n";
    let context = harness.context("waits", text);
    let mut first = start(&harness, &context, &[]);
    wait_until("the first runs it", || in_mount(&harness, "cat /m/log 2>&1 | tail -n 1").contains(&"begun".to_owned()));
    let second = start(&harness, &context, &["-t", "second"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(in_mount(&harness, "wc -l < /m/log"), ["1"], "the second waits");
    first.kill().unwrap();
    first.wait().unwrap();
    wait_until("the second runs it", || in_mount(&harness, "wc -l < /m/log") == ["2"]);
    in_mount(&harness, "touch /m/go");
    let outcome = ended(second).ok();
    assert!(!outcome.stderr.contains("CACHED"), "{}", outcome.stderr);
    assert_eq!(harness.output("second", &["cat", "/f"]), "done\n");
}

/// The same where it fails there; and one that waits while its own build fails does not hold that up.
#[test]
fn a_failed_build_leaves_its_steps_to_others() {
    let harness = Harness::new();
    let step = "RUN --mount=type=cache,id=gate,target=/m mkdir /m/begun && until [ -e /m/go ]; do sleep 0.05; done; \
                [ -e /m/twice ] || { touch /m/twice; rmdir /m/begun; exit 3; }; echo done > /f\n";
    let context = harness.context("fails-once", &format!("FROM busybox\n{step}"));
    let first = start(&harness, &context, &[]);
    wait_until("the first runs it", || in_mount(&harness, "ls /m").contains(&"begun".to_owned()));
    let second = start(&harness, &context, &["-t", "second"]);
    // Waits for the same, and fails elsewhere.
    let text = format!(
        "FROM busybox AS waits\n{step}FROM busybox AS fails\nRUN exit 4\nFROM busybox\nCOPY --from=waits /f /\nCOPY --from=fails /etc /e\n"
    );
    let third = harness.context("fails", &text);
    harness.build(&third, &[]).fails(1).says("exit code: 4");
    in_mount(&harness, "touch /m/go");
    ended(first).fails(1).says("exit code: 3");
    ended(second).ok();
    assert_eq!(harness.output("second", &["cat", "/f"]), "done\n");
}

/// R8.2, in two processes: what stands on files that turn out to be equal runs once.
#[test]
fn equal_contents_are_built_on_once() {
    let harness = Harness::new();
    let children: Vec<_> = ["echo one > /f", "printf 'o%s\\n' ne > /f"]
        .iter()
        .enumerate()
        .map(|(number, command)| {
            let text = format!(
                "FROM busybox AS made\nRUN {command}\nFROM busybox\nCOPY --from=made /f /f\nRUN sleep 1; date +%N > /when\n"
            );
            let context = harness.context(&format!("c{number}"), &text);
            start(&harness, &context, &["-t", &format!("image{number}")])
        })
        .collect();
    let cached: usize = children.into_iter().map(|child| ended(child).ok().stderr.matches("CACHED").count()).sum();
    assert_eq!(cached, 2, "COPY and RUN, in one of them");
    assert_eq!(harness.output("image0", &["cat", "/when"]), harness.output("image1", &["cat", "/when"]));
}

/// R8.6: a failure ends the rest of its build, of which is kept what it said.
#[test]
fn a_failure_ends_the_other_steps() {
    let harness = Harness::new();
    let mount = "RUN --mount=type=cache,id=gate,target=/m";
    let text = format!(
        "FROM busybox AS slow\n{mount} echo a line; printf 'no newline'; touch /m/ready; sleep 1001.25\n\
         FROM busybox AS fails\n{mount} until [ -e /m/ready ]; do sleep 0.05; done; sleep 0.2; exit 5\n\
         FROM busybox\nCOPY --from=slow /etc /s\nCOPY --from=fails /etc /f\n"
    );
    let context = harness.context("failure", &text);
    let outcome =
        harness.build(&context, &[]).fails(1).says("exit code: 5").says("a line").says("no newline").says("CANCELED");
    assert!(!outcome.stderr.contains("COPY --from=slow /etc /s\n#"), "it never began:\n{}", outcome.stderr);
}
