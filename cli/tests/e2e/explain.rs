//! `--explain` and `--no-cache-filter`: why steps run, and steps that are made to.

use crate::harness::{Harness, Outcome};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const TEXT: &str = "FROM busybox AS build\n\
                    ARG VERSION=1\n\
                    ENV MODE=fast\n\
                    COPY src /src\n\
                    RUN cat /src/main $VERSION_FILE > /out; echo $VERSION >> /out\n\
                    FROM busybox\n\
                    COPY --from=build /out /out\n\
                    RUN --mount=type=bind,source=run,target=/run-me sh /run-me/it\n";

fn context(harness: &Harness) -> PathBuf {
    let context = harness.context("context", TEXT);
    fs::create_dir_all(context.join("src")).unwrap();
    fs::create_dir_all(context.join("run")).unwrap();
    fs::write(context.join("src/main"), "main\n").unwrap();
    fs::write(context.join("src/other"), "other\n").unwrap();
    fs::write(context.join("run/it"), "echo ran\n").unwrap();
    context
}

fn explain(harness: &Harness, context: &Path, flags: &[&str]) -> Value {
    let outcome = harness.build(context, &[&["--explain=json"], flags].concat());
    parse(&outcome)
}

#[track_caller]
fn parse(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", outcome.stdout, outcome.stderr))
}

/// The instruction of each step that ran, and its reasons as `reason` or `reason detail`.
fn reasons(document: &Value) -> Vec<(String, String)> {
    let steps = document["steps"].as_array().unwrap().iter().map(|step| {
        let name = step["name"].as_str().unwrap().split_once("] ").unwrap().1;
        let instruction = name.split_once(' ').unwrap().0.to_owned();
        let reasons: Vec<_> = step["reasons"].as_array().unwrap().iter().map(told).collect();
        (instruction, reasons.join(", "))
    });
    steps.collect()
}

fn told(reason: &Value) -> String {
    let detail = match reason["reason"].as_str().unwrap() {
        "text-changed" => format!("{}/{}", reason["words"][0]["old"], reason["words"][0]["new"]),
        "variables-changed" => {
            let variable = &reason["variables"][0];
            format!("{} {} {}", variable["kind"], variable["name"], variable["change"])
        }
        "files-changed" => {
            let files = reason["changes"]["files"].as_array().unwrap().iter();
            let files: Vec<_> = files.map(|file| format!("{} {}", file["change"], file["path"])).collect();
            format!("{}: {}", reason["from"], files.join("; "))
        }
        "image-changed" => format!("{}/{}", reason["old"], reason["new"]),
        "input-changed" => reason["name"].to_string(),
        "forced" => reason["flag"].to_string(),
        _ => String::new(),
    };
    format!("{} {detail}", reason["reason"].as_str().unwrap()).replace('"', "").trim_end().to_owned()
}

fn owned(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned())).collect()
}

#[test]
fn first_builds_and_builds_in_which_nothing_runs() {
    let harness = Harness::new();
    let context = context(&harness);
    let first = explain(&harness, &context, &[]);
    assert_eq!((&first["outcome"], &first["cached"], &first["ran"]), (&"succeeded".into(), &0.into(), &4.into()));
    assert!(reasons(&first).iter().all(|(_, reason)| reason == "first-build"), "{first:#}");
    assert_eq!(first["steps"][0]["stage"], "build");
    assert_eq!(first["steps"][0]["line"], 4);
    assert!(first["steps"][0]["seconds"].as_f64().unwrap() >= 0.0);
    let records = || fs::read_dir(harness.path("store/builds")).unwrap().count();
    let before = records();
    let second = explain(&harness, &context, &[]);
    assert_eq!((&second["cached"], &second["ran"]), (&4.into(), &0.into()));
    // Whoever has not asked in time can still be told.
    assert_eq!(second["last"]["steps"], first["steps"]);
    harness
        .build(&context, &["--explain"])
        .ok()
        .says("no step ran: 4 were cached\nwhy 4 steps ran in the last build, ");
    assert_eq!(records(), before, "it is the same build");
    // Another context with another name for the same has no earlier build, and needs none.
    let copy = harness.path("elsewhere");
    assert!(std::process::Command::new("cp").args(["-r"]).args([&context, &copy]).status().unwrap().success());
    let elsewhere = explain(&harness, &copy, &[]);
    assert_eq!((&elsewhere["cached"], &elsewhere["ran"]), (&4.into(), &0.into()));
}

#[test]
fn what_changed_is_told() {
    let harness = Harness::new();
    let context = context(&harness);
    let path = |name: &str| context.join(name);
    let edit = |old: &str, new: &str| {
        let text = fs::read_to_string(path("Dockerfile")).unwrap();
        assert!(text.contains(old));
        fs::write(path("Dockerfile"), text.replace(old, new)).unwrap();
    };
    explain(&harness, &context, &[]);
    let check = |flags: &[&str], expected: &[(&str, &str)]| {
        assert_eq!(reasons(&explain(&harness, &context, flags)), owned(expected));
    };
    // Early cutoff: the result is the same.
    edit("> /out;", "> /out &&");
    check(&[], &[("RUN", "text-changed $VERSION_FILE > /out; echo $VERSION/$VERSION_FILE > /out && echo $VERSION")]);
    edit("MODE=fast", "MODE=slow");
    check(&[], &[("RUN", "variables-changed env MODE changed")]);
    check(
        &["--build-arg", "VERSION=2"],
        &[
            ("RUN", "variables-changed arg VERSION changed"),
            ("COPY", "files-changed stage build: changed /out"),
            ("RUN", "input-changed [stage-1 2/3] COPY --from=build /out /out"),
        ],
    );
    check(&[], &[]);
    // Files.
    fs::write(path("src/new"), "").unwrap();
    fs::remove_file(path("src/other")).unwrap();
    check(
        &[],
        &[
            ("COPY", "files-changed the context: added /src/new; removed /src/other"),
            ("RUN", "input-changed [build 2/3] COPY src /src"),
        ],
    );
    fs::set_permissions(path("src/new"), fs::Permissions::from_mode(0o600)).unwrap();
    check(
        &[],
        &[("COPY", "files-changed the context: mode /src/new"), ("RUN", "input-changed [build 2/3] COPY src /src")],
    );
    fs::write(path("run/it"), "echo again\n").unwrap();
    check(&[], &[("RUN", "files-changed the context: changed /run/it")]);
    edit("FROM busybox\nCOPY", "FROM busybox\nRUN true\nCOPY");
    let ran = reasons(&explain(&harness, &context, &[]));
    assert_eq!(ran[0], ("RUN".to_owned(), "new-step".to_owned()));
    // As text.
    fs::write(path("src/main"), "other\n").unwrap();
    (0..15).for_each(|index| fs::write(path(&format!("src/z{index:02}")), "").unwrap());
    let outcome = harness.rbuild(&["build", "--explain", "--progress=quiet", context.to_str().unwrap()]).ok();
    assert_eq!(outcome.stdout, "");
    let expected = "\nwhy 4 steps ran (1 was cached):\n  [build 2/3] COPY src /src\n    files of the context changed:\n      ~ /src/main\n      + /src/z00\n";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("      and 6 more\n"), "{}", outcome.stderr);
}

#[test]
fn another_base() {
    let harness = Harness::new();
    let context = context(&harness);
    let first = explain(&harness, &context, &[]);
    assert_eq!(first["ran"], 4);
    harness.build_text("FROM busybox\nRUN echo new > /new\n", &["-t", "busybox"]).ok();
    let context = self::context(&harness);
    let ran = reasons(&explain(&harness, &context, &[]));
    let (instruction, reason) = &ran[0];
    assert_eq!(instruction, "COPY");
    let names = reason.strip_prefix("image-changed docker.io/library/busybox:latest@sha256:").unwrap();
    let (old, new) = names.split_once("/docker.io/library/busybox:latest@sha256:").unwrap();
    assert!(old.len() == 64 && new.len() == 64 && old != new, "{reason}");
}

#[test]
fn forced_steps_run_and_are_kept() {
    let harness = Harness::new();
    let text = "FROM busybox AS one\nRUN head -c 8 /dev/urandom > /random\nWORKDIR /w\nCOPY f /w/\n\
                FROM busybox AS two\nRUN head -c 8 /dev/urandom > /random\nRUN echo two > /two\n\
                FROM busybox\nCOPY --from=one /random /one\nCOPY --from=two /random /two /\nCOPY f /\n";
    let context = harness.context("context", text);
    fs::write(context.join("f"), "f\n").unwrap();
    harness.build(&context, &["-t", "i"]).ok();
    let random = || harness.output("i", &["sh", "-c", "md5sum < /one; md5sum < /random"]);
    let before = random();
    let lines: Vec<_> = before.lines().collect();
    assert_eq!(lines[0], lines[1], "equal steps are one");
    let forced = explain(&harness, &context, &["-t", "i", "--no-cache"]);
    let told = reasons(&forced);
    assert_eq!((&forced["cached"], told.len()), (&0.into(), 7), "{told:?}");
    assert!(told.iter().all(|(_, reason)| reason.starts_with("forced --no-cache")), "{told:?}");
    let after = random();
    assert_ne!(before, after, "R7.4.1");
    // Its results are there for the next one.
    let next = explain(&harness, &context, &["-t", "i"]);
    assert_eq!((&next["cached"], random()), (&7.into(), after.clone()), "R7.4.1");
    // Of one stage; the equal step of the other one is another vertex.
    let filtered = explain(&harness, &context, &["-t", "i", "--no-cache-filter", "Two"]);
    let told = reasons(&filtered);
    let forced = "forced --no-cache-filter";
    let input = format!("{forced}, input-changed [two 2/3] RUN head -c 8 /dev/urandom > /random");
    assert_eq!(told[..2], owned(&[("RUN", forced), ("RUN", &input)]));
    assert_eq!(told[2].1, "files-changed stage two: changed /random", "{told:?}");
    let (old, new) = (after.lines().collect::<Vec<_>>(), random());
    let new: Vec<_> = new.lines().collect();
    assert_eq!(old[0], new[0], "R7.4.2");
    assert_ne!(old[1], new[1]);
    assert!(filtered["steps"][0]["digest"].as_str().unwrap().ends_with("-ignorecache"), "R7.4.2");
    // All of a stage's steps, several stages, by number too.
    let filtered = explain(&harness, &context, &["--no-cache-filter", "one,1"]);
    let count =
        |stage: &str| filtered["steps"].as_array().unwrap().iter().filter(|step| step["stage"] == stage).count();
    assert_eq!((count("one"), count("two")), (3, 1), "equal steps of both are one again");
    harness.build(&context, &["--no-cache-filter", "tow"]).fails(1).says("(did you mean two?)");
    harness.build(&context, &["--no-cache-filter", "one", "--no-cache"]).fails(2);
}

#[test]
fn results_that_are_gone() {
    let harness = Harness::new();
    let context = context(&harness);
    harness.build(&context, &[]).ok();
    for entry in fs::read_dir(harness.path("store/snapshots")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("layer-") {
            fs::rename(entry.path(), harness.path(&entry.file_name().to_string_lossy())).unwrap();
        }
    }
    let told = reasons(&explain(&harness, &context, &[]));
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|(_, reason)| reason == "evicted"), "{told:?}");
}

#[test]
fn failures() {
    let harness = Harness::new();
    let context = harness.context("context", "FROM busybox\nRUN true\nRUN exit 3\nRUN after\n");
    for (round, expected) in [("first", "first-build"), ("second", "failed-before")] {
        let outcome = harness.build(&context, &["--explain=json"]).fails(1);
        let document = parse(&outcome);
        assert_eq!((&document["outcome"], &document["not_reached"]), (&"failed".into(), &1.into()), "{round}");
        let last = document["steps"].as_array().unwrap().last().unwrap();
        assert_eq!((&last["state"], last["reasons"][0]["reason"].as_str()), (&"failed".into(), Some(expected)));
    }
    for mode in ["plain", "rawjson", "quiet"] {
        let flags = ["build", "--explain", "--progress", mode, context.to_str().unwrap()];
        let outcome = harness.rbuild(&flags).fails(1);
        let text =
            "\nwhy 1 step ran (1 was cached, 1 not reached):\n  [3/4] RUN exit 3 (failed)\n    it failed last time\n";
        assert!(outcome.stderr.contains(text), "{mode}: {}", outcome.stderr);
    }
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN true\nRUN exit 0\nRUN echo after\n").unwrap();
    let told = reasons(&explain(&harness, &context, &[]));
    assert_eq!(told[0].1, "text-changed RUN exit 3/RUN exit 0");
    assert_eq!(told[1].1, "unfinished-before", "there is nothing to compare its inputs with");
    // What is wrong with the Dockerfile itself is no build.
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUNN\n").unwrap();
    let outcome = harness.build(&context, &["--explain=json"]).fails(1);
    assert_eq!(outcome.stdout, "");
}

#[test]
fn where_the_document_goes() {
    let harness = Harness::new();
    let context = harness.context("context", "FROM busybox\nRUN true\n");
    for flags in [&["--quiet"][..], &["-o", "-"]] {
        harness.build(&context, &[&["--explain=json"], flags].concat()).fails(2).says("dest=FILE");
    }
    let file = harness.path_text("why.json");
    let outcome = harness.build(&context, &["--quiet", &format!("--explain=json,dest={file}")]).ok();
    assert!(outcome.stdout.starts_with("sha256:"), "{}", outcome.stdout);
    let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(reasons(&document), owned(&[("RUN", "first-build")]));
    harness.build(&context, &["--explain=yaml"]).fails(2).says("invalid --explain \"yaml\"");
    harness.build(&context, &["--explain=json,dest=/nowhere/file"]).ok().says("warning: --explain: ");
}

/// Records hold no values of variables and no secrets.
#[test]
fn records_hold_no_values() {
    let harness = Harness::new();
    let text = "FROM busybox\nARG TOKEN\nCOPY f /$TOKEN\nRUN --mount=type=secret,id=s,env=S echo $TOKEN $S\n";
    let context = harness.context("context", text);
    fs::write(context.join("f"), "").unwrap();
    let mut command =
        harness.command(&["build", "--explain", "--build-arg", "TOKEN=hunter2", "--secret", "id=s,env=SECRET"]);
    let outcome = Outcome::of(command.arg(&context).env("SECRET", "hunter3").output().unwrap()).ok();
    let block = outcome.stderr.split("\nwhy ").nth(1).unwrap();
    assert!(block.contains("all of them\n    first build") && !block.contains("hunter"), "{block}");
    for entry in fs::read_dir(harness.path("store/builds")).unwrap().flatten() {
        if let Ok(content) = fs::read(entry.path()) {
            let unpacked = zstd::decode_all(content.as_slice()).unwrap_or(content);
            let text = String::from_utf8_lossy(&unpacked);
            assert!(!text.contains("hunter"), "{text}");
        }
    }
}

/// Records are a help; a build goes well without them.
#[test]
fn damaged_records_are_passed_over() {
    let harness = Harness::new();
    let context = context(&harness);
    harness.build(&context, &[]).ok();
    let builds = harness.path("store/builds");
    for entry in fs::read_dir(&builds).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::write(entry.path(), "damaged").unwrap();
    }
    fs::write(context.join("src/main"), "new\n").unwrap();
    let told = reasons(&explain(&harness, &context, &[]));
    assert_eq!(told[0], ("COPY".to_owned(), "first-build".to_owned()));
    fs::remove_dir_all(&builds).unwrap();
    fs::write(context.join("src/main"), "newer\n").unwrap();
    let told = reasons(&explain(&harness, &context, &[]));
    assert_eq!(told[0], ("COPY".to_owned(), "first-build".to_owned()));
}
