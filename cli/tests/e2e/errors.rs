//! Bad input: a clear error, the right exit code, a store that goes on working.

use crate::harness::{Harness, Outcome, binary, is_root};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[track_caller]
fn still_works(harness: &Harness) {
    harness.build_text("FROM busybox\nRUN echo still works\n", &[]).ok();
}

#[test]
fn a_missing_dockerfile() {
    let harness = Harness::new();
    std::fs::create_dir(harness.path("empty")).unwrap();
    let outcome = harness.build(&harness.path("empty"), &[]).fails(1);
    outcome.says("failed to read dockerfile: open Dockerfile: no such file or directory").says("-f");
    harness.build(&harness.path("empty"), &["-f", "other"]).fails(1).says("open other");
    harness.build(&harness.path("nowhere"), &[]).fails(2).says("no such file or directory");
    still_works(&harness);
}

#[test]
fn an_unknown_instruction() {
    let harness = Harness::new();
    let outcome = harness.build_text("FROM busybox\nCOPPY a /\nRUNN b\n", &[]).fails(1);
    outcome.says(" 2 | >>> COPPY a /\n     |     ^^^^^").says("unknown instruction: RUNN (did you mean RUN?)").says(
        "error[UnknownInstruction]: failed to solve: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)",
    );
}

#[test]
fn flags_that_are_not_there_are_named() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox\n");
    harness.build(&context, &["--taget", "x"]).fails(2).says("--target");
}

#[test]
fn a_copy_of_a_missing_file() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox\nCOPY missing.log /\n");
    harness.build(&context, &[]).fails(1).says("\"/missing.log\": not found").says(">>> COPY missing.log /");
    std::fs::write(context.join("missing.log"), "here, but ignored").unwrap();
    std::fs::write(context.join(".dockerignore"), "*.log\n").unwrap();
    harness
        .build(&context, &[])
        .fails(1)
        .says("\"/missing.log\": not found (excluded by .dockerignore: pattern \"*.log\")");
    still_works(&harness);
}

#[test]
fn an_unknown_base_image() {
    let harness = Harness::new();
    let outcome = harness.build_text("FROM bussybox\n", &[]).fails(1);
    outcome
        .says("failed to resolve source metadata for docker.io/library/bussybox:latest")
        .says("(did you mean busybox?)");
    let registry = crate::harness::Registry::start();
    let name = format!("FROM {}/nothing/here\n", registry.host);
    harness.build_text(&name, &[]).fails(1).says("not found");
}

#[test]
fn a_registry_that_is_down() {
    let harness = Harness::new();
    let started = Instant::now();
    harness.build_text("FROM 127.0.0.1:1/x\n", &[]).fails(1).says("127.0.0.1:1").says("onnect");
    assert!(started.elapsed() < Duration::from_secs(30));
    still_works(&harness);
}

#[test]
fn a_step_that_fails() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nRUN true\nRUN for i in 1 2 3; do echo line $i; done; \\\n    exit 42\nRUN true\n";
    let outcome = harness.build_text(dockerfile, &["-t", "never"]).fails(1);
    outcome
        .says("did not complete successfully: exit code: 42")
        .says(" 3 | >>> RUN for")
        .says(" 4 | >>>     exit 42")
        .says("line 3\n------");
    assert!(!harness.rbuild(&["images"]).ok().stdout.contains("never"));
    harness.build_text("FROM busybox\nRUN nosuchprogram\n", &[]).fails(1).says("exit code: 127");
    harness
        .build_text("FROM busybox\nRUN [\"nosuchprogram\"]\n", &[])
        .fails(1)
        .says("executable file not found in $PATH");
    still_works(&harness);
}

#[test]
fn paths_that_leave_the_context_stay_inside() {
    let harness = Harness::new();
    std::fs::write(harness.path("outside"), "secret").unwrap();
    let context = harness.context("c", "FROM busybox\nCOPY ../outside /f\n");
    harness.build(&context, &[]).fails(1).says("\"/outside\": not found");
    std::os::unix::fs::symlink("../outside", context.join("link")).unwrap();
    let context = harness.context("c", "FROM busybox\nCOPY link /f\n");
    harness.build(&context, &[]).fails(1).says("not found");
    std::os::unix::fs::symlink("/etc/passwd", context.join("passwd")).unwrap();
    let context = harness.context("c", "FROM busybox\nCOPY passwd /f\n");
    harness.build(&context, &[]).fails(1).says("not found");
}

#[test]
fn unknown_stages_and_targets() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox AS build\nRUN true\nFROM busybox AS final\n");
    let outcome = harness.build(&context, &["--target", "biuld"]).fails(1);
    outcome.says("target stage \"biuld\" could not be found (did you mean build?)");
    harness.build_text("FROM busybox\nCOPY --from=later / /\nFROM busybox AS later\n", &["--target", "later"]).ok();
    let later = "FROM busybox AS first\nCOPY --from=later /bin /b\nFROM busybox AS later\n";
    harness
        .build_text(later, &["--target", "first"])
        .fails(1)
        .says("it needs to be defined before current stage \"first\"");
}

/// Root alone can make a small file system.
#[test]
fn a_full_disk() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let small = harness.path_text("small");
    std::fs::create_dir(&small).unwrap();
    let context = harness.context("big", "FROM scratch\nCOPY file /file\n");
    std::fs::write(context.join("file"), vec![1; 12 << 20]).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=10m tmpfs {small} && cd {} && \
         {binary} --root {small}/store build --progress=plain -t big .; echo code $?; \
         printf 'FROM scratch\\nCOPY Dockerfile /\\n' > Dockerfile; \
         {binary} --root {small}/store build --progress=plain -t small . ; echo code $?",
        context.display(),
        binary = binary().display()
    );
    // In a mount namespace of its own, so that nothing stays mounted.
    let output = harness.command(&[]).output().map(|_| ()).and_then(|()| {
        std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).output()
    });
    let output = output.unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("no space left on device") || text.contains("No space left on device"), "{text}");
    assert!(text.contains("code 1\n") && text.contains("code 0\n"), "{text}");
}

#[test]
fn the_end_of_a_failed_step_is_shown_however_much_it_said() {
    let harness = Harness::new();
    let build = |end: &str| {
        let said = "yes $(seq 100) | head -c 5000000; echo the $((1 + 1)) words";
        let context = harness.context("context", &format!("FROM busybox\nRUN {said}{end}\n"));
        let mut command = harness.command(&["build", "--progress=plain", context.to_str().unwrap()]);
        // By size alone: what the speed lets through depends on the machine.
        Outcome::of(command.env("BUILDKIT_STEP_LOG_MAX_SPEED", "-1").output().unwrap())
    };
    build("; exit 3").fails(1).says("[output clipped, log limit 2MiB reached]").says("the 2 words");
    assert!(!build("").ok().stderr.contains("the 2 words"), "R1.11.9: only of what fails");
}

#[test]
fn debugging_messages_do_not_wait_for_the_display() {
    let harness = Harness::new();
    let context = harness.context("context", "FROM busybox\nRUN echo a step\n");
    for progress in ["plain", "rawjson"] {
        let flags = ["-D", "build", "--no-cache", "--progress", progress, context.to_str().unwrap()];
        // Without root, the network of a step says something.
        harness.rbuild(&flags).ok();
    }
}
