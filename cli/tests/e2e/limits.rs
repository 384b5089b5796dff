//! What a step may use up, and for how long.

use crate::harness::{Harness, is_root, wait_until};
use std::path::PathBuf;
use std::process::Command;

/// Groups inside of `parent`, in all hierarchies.
fn groups(parent: &str) -> Vec<PathBuf> {
    let output =
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{parent}/*")]).output();
    String::from_utf8_lossy(&output.unwrap().stdout).lines().map(PathBuf::from).collect()
}

#[test]
fn processes_have_the_limits_that_the_flags_say() {
    let harness = Harness::new();
    let dockerfile =
        "FROM busybox\nRUN echo $(ulimit -Sn):$(ulimit -Hn) $(df -k /dev/shm | awk 'NR == 2 {print $2}')\n";
    let flags = ["--ulimit", "nofile=100:200", "--shm-size", "1m"];
    harness.build_text(dockerfile, &flags).ok().says("100:200 1024");
    harness.build_text(dockerfile, &[]).ok().says("CACHED");
    harness.build_text(dockerfile, &["--ulimit", "nofiles=1"]).fails(2).says("did you mean nofile?");
    harness.build_text(dockerfile, &["--shm-size", "big"]).fails(2).says("--shm-size");
    harness.build_text(dockerfile, &["--memory", "1g", "--memory-swap", "1m"]).fails(2).says("sum of memory and swap");
}

#[test]
fn a_step_that_takes_too_long_is_ended() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN echo begun; sleep 1000\n";
    harness.build_text(text, &["--timeout", "300ms"]).fails(1).says("did not complete within 300ms").says("begun");
    harness.build_text(text, &["--timeout", "soon"]).fails(2).says("such as 90s");
}

#[test]
fn control_groups_hold_steps_and_are_removed() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let flags = ["--memory", "64m", "--pids-limit", "50", "--cpu-quota", "50000", "--cpuset-cpus", "0"];
    let text = "FROM busybox\nRUN a=x; while true; do a=$a$a; done\n";
    harness.build_text(text, &flags).fails(1).says("did not complete successfully: cannot allocate memory");
    // The group is the root of what the step sees, and it sees one processor.
    let text = "FROM busybox\nRUN ! grep rbuild- /proc/self/cgroup && test $(nproc) = 1\n";
    harness.build_text(text, &flags).ok();
    let bomb = "FROM busybox\nRUN f() { f | f & }; f; sleep 0.3; echo survived\n";
    harness.build_text(bomb, &["--pids-limit", "40"]).ok().says("survived");
}

#[test]
fn groups_end_with_their_step_however_it_ends() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let parent = format!("e2e-{}", std::process::id());
    let flags = ["--pids-limit", "50", "--cgroup-parent", &format!("/{parent}")];
    harness.build_text("FROM busybox\nRUN true\n", &flags).ok();
    assert_eq!(groups(&parent), Vec::<PathBuf>::new());
    let context = harness.context("killed", "FROM busybox\nRUN sleep 1000\n");
    let mut build = harness.command(&["build", context.to_str().unwrap()]).args(flags).spawn().unwrap();
    wait_until("a group is there", || !groups(&parent).is_empty());
    build.kill().unwrap();
    build.wait().unwrap();
    wait_until("the group is gone", || groups(&parent).is_empty());
    let found = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &parent]).output().unwrap();
    for group in String::from_utf8_lossy(&found.stdout).lines() {
        std::fs::remove_dir(group).unwrap();
    }
}

#[test]
fn who_may_not_make_groups_is_told_so() {
    if is_root() {
        return;
    }
    let harness = Harness::new();
    let outcome = harness.build_text("FROM busybox\nRUN true\n", &["--memory", "64m"]);
    // With a delegated group it works.
    if outcome.code != Some(0) {
        outcome.fails(1).says("limiting memory").says("run");
    }
}
