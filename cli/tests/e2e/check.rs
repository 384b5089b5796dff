//! `rbuild check`, `outline` and `targets`, `rbuild build --call`, and the warnings of a build.

use crate::harness::Harness;
use serde_json::{Value, json};

const UNTIDY: &str =
    "# check=skip=MaintainerDeprecated\nFROM busybox AS Base\nMAINTAINER x\nCOPY secret /x$NOPE\nCMD true\n";

/// A context whose ignore file leaves out `secret`.
fn untidy(harness: &Harness) -> String {
    let context = harness.context("untidy", UNTIDY);
    std::fs::write(context.join(".dockerignore"), "secret\n").unwrap();
    context.to_str().unwrap().to_owned()
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

const RULES: [&str; 4] = ["StageNameCasing", "CopyIgnoredFile", "UndefinedVar", "JSONArgsRecommended"];

#[test]
fn findings_are_drawn_or_written_for_tools() {
    let harness = Harness::new();
    let context = untidy(&harness);
    let text = harness.rbuild(&["check", &context]).ok().stdout;
    for rule in RULES {
        assert!(text.contains(&format!("warning[{rule}]: ")), "{rule}: {text}");
    }
    assert!(text.contains("4 | COPY secret /x$NOPE\n") && text.contains("^^^^^\n"), "{text}");
    assert!(text.ends_with("Dockerfile: 4 warnings\n"), "{text}");

    let document = json_of(&harness.rbuild(&["check", "--format=json", &context]).ok().stdout);
    let mut rules: Vec<_> = document["warnings"].as_array().unwrap().iter().map(|w| &w["ruleName"]).collect();
    rules.sort_by_key(|rule| RULES.iter().position(|known| *rule == known));
    assert_eq!(rules, RULES);
    let sarif = json_of(&harness.rbuild(&["check", "--format=sarif", &context]).ok().stdout);
    assert_eq!((&sarif["version"], sarif["runs"][0]["results"].as_array().unwrap().len()), (&json!("2.1.0"), 4));
    let commands = harness.rbuild(&["check", "--format=github", &context]).ok().stdout;
    assert_eq!(commands.lines().filter(|line| line.starts_with("::warning file=")).count(), 4, "{commands}");
}

/// A Dockerfile may be named itself, and need not be in a context; base images need not be there.
#[test]
fn a_file_can_be_checked_alone() {
    let harness = Harness::empty();
    let context = harness.context("alone", "FROM nowhere.invalid/image\nRUN x\n");
    let file = context.join("Dockerfile");
    let outcome = harness.rbuild(&["check", file.to_str().unwrap()]).ok();
    assert!(outcome.stdout.contains("note: nowhere.invalid/image:latest was not looked at"), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("Dockerfile: no findings\n"));
    harness.rbuild(&["check", "/no/such"]).fails(2).says("give a directory or a Dockerfile");
}

/// Checks work where nothing can be written.
#[test]
fn no_store_is_needed() {
    let harness = Harness::empty();
    let context = harness.context("unstored", "FROM busybox\nCMD x\n");
    for command in ["check", "outline", "targets"] {
        let mut command = harness.command(&[command, context.to_str().unwrap()]);
        let output = command.env("RBUILD_ROOT", "/proc/none").env("TMPDIR", "/proc/none").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn errors_fail_the_check_and_are_told_together() {
    let harness = Harness::empty();
    let context = harness.context("wrong", "FROM scratch\nRUN --mont=x y\nSTOPSIGNAL x\nCOPPY a b\n");
    let path = context.to_str().unwrap();
    let text = harness.rbuild(&["check", path]).fails(1).stdout;
    assert!(text.contains("error[UnknownFlag]") && text.contains("error[UnknownInstruction]"), "{text}");
    let document = json_of(&harness.rbuild(&["build", "--call=check,format=json", path]).fails(1).stdout);
    let message = "dockerfile parse error on line 2: unknown flag: --mont (did you mean mount?)";
    assert_eq!(document["buildError"]["message"], message);
    assert_eq!(document["buildError"]["location"], json!({"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}));
    let outcome = harness.rbuild(&["build", path]).fails(1).says("error[UnknownInstruction]");
    outcome.says(&format!("error[UnknownFlag]: failed to solve: {message}"));
}

/// All lines of an instruction are at fault, as BuildKit counts them; what is meant of them is underlined.
#[test]
fn errors_mark_the_whole_instruction() {
    let harness = Harness::empty();
    let lines = |numbers: std::ops::RangeInclusive<usize>| -> Value {
        json!({"ranges": numbers.map(|line| json!({"start": {"line": line}, "end": {"line": line}})).collect::<Vec<_>>()})
    };
    for (dockerfile, place, quoted) in [
        (
            "FROM scratch\nRUN --mont=x \\\n  y \\\n  z\n",
            lines(2..=4),
            "2 | >>> RUN --mont=x \\\n     |         ^^^^^^\n   3 | >>>   y \\\n   4 | >>>   z\n",
        ),
        ("FROM scratch\nSTOPSIGNAL \\\n  x\n", lines(2..=3), "2 | >>> STOPSIGNAL \\\n   3 | >>>   x\n     |       ^\n"),
        ("FROM \\\n  UPPER\n", lines(1..=2), "1 | >>> FROM \\\n   2 | >>>   UPPER\n     |       ^^^^^\n"),
    ] {
        let context = harness.context("lines", dockerfile);
        let outcome = harness.rbuild(&["build", "--call=check,format=json", context.to_str().unwrap()]).fails(1);
        assert_eq!(json_of(&outcome.stdout)["buildError"]["location"], place, "{dockerfile}");
        outcome.says(quoted);
        harness.build(&context, &[]).fails(1).says(quoted);
    }
}

/// Answers go to standard output, errors to standard error, and any warning is an exit code of 1.
#[test]
fn calls_answer_as_buildx_does() {
    let harness = Harness::empty();
    let clean = harness.context("clean", "FROM scratch\n");
    let clean = clean.to_str().unwrap();
    assert_eq!(harness.rbuild(&["build", "--check", clean]).ok().stdout, "Check complete, no warnings found.\n");
    let warns = harness.context("warns", "FROM scratch AS B\n");
    let warns = warns.to_str().unwrap();
    let expected = "Check complete, 1 warning has been found!\n\n\
        WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
        Stage name 'B' should be lowercase\nDockerfile:1\n--------------------\n   1 | >>> FROM scratch AS B\n     |                     ^\n   2 |     \n--------------------\n";
    for flags in [&["--check"][..], &["--call=check,format=text"], &["--call=lint"], &["--call=build", "--check=true"]]
    {
        let outcome = harness.rbuild(&[&["build"], flags, &[warns]].concat()).fails(1);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (expected, ""), "{flags:?}");
    }
    harness.rbuild(&["build", "--call=check,ignorestatus=true", warns]).ok();
    let wrong = harness.context("wrong", "FROM scratch\nFOO\n");
    let outcome = harness.rbuild(&["build", "--check", wrong.to_str().unwrap()]).fails(1);
    assert_eq!(outcome.stdout, "");
    outcome.says("failed to solve: dockerfile parse error on line 2: unknown instruction: FOO");
}

/// D21.2.
#[test]
fn warnings_can_be_errors() {
    let harness = Harness::new();
    let context = harness.context("strict", "# check=error=true\nFROM busybox\nRUN touch /ran\nCMD true\n");
    let path = context.to_str().unwrap();
    let violation = "lint violation found for rules: JSONArgsRecommended";
    harness.rbuild(&["check", path]).fails(1).says(violation);
    let outcome = harness.rbuild(&["build", "--progress=plain", path]).fails(1).says(violation);
    assert!(!outcome.stderr.contains("touch /ran"), "{}", outcome.stderr);
    harness.rbuild(&["build", "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=all", path]).ok();
    harness.rbuild(&["build", "--call=check,ignorestatus=true", path]).fails(1).says(violation);
}

#[test]
fn builds_tell_their_warnings_once() {
    let harness = Harness::new();
    let context = harness.context("warns", "FROM busybox AS Base\nCMD true\n");
    let path = context.to_str().unwrap();
    for _ in 0..2 {
        let outcome = harness.rbuild(&["build", "--progress=plain", path]).ok();
        let outcome = outcome.says("2 warnings found (rbuild check shows the lines):\n - StageNameCasing: ");
        assert_eq!(outcome.stderr.matches("JSONArgsRecommended").count(), 1, "{}", outcome.stderr);
    }
    let expanded = harness.rbuild(&["-D", "build", "--progress=plain", path]).ok();
    expanded.says("2 warnings found:\n").says(
        "(line 1)\nStage names should be lowercase\n\
         More info: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
         Dockerfile:1\n--------------------\n   1 | >>> FROM busybox AS Base\n",
    );
    let quiet = harness.rbuild(&["build", "-q", path]).ok();
    assert!(!quiet.stderr.contains("StageNameCasing"), "{}", quiet.stderr);
    let raw = harness.rbuild(&["build", "--progress=rawjson", path]).ok().stderr;
    let warnings: Vec<Value> = raw
        .lines()
        .map(json_of)
        .filter(|event| event.get("warnings").is_some())
        .map(|e| e["warnings"][0].clone())
        .collect();
    assert_eq!(warnings.len(), 2, "{raw}");
    let loading = raw.lines().map(json_of).find(|event| {
        event["vertexes"][0]["name"].as_str().is_some_and(|name| name.starts_with("[internal] load build definition"))
    });
    assert_eq!(warnings[0]["vertex"], loading.unwrap()["vertexes"][0]["digest"]);
    assert_eq!(warnings[0]["sourceInfo"]["filename"], "Dockerfile");
    assert_eq!(warnings[1]["range"], json!([{"start": {"line": 2}, "end": {"line": 2}}]));
}

#[test]
fn outlines_and_targets() {
    let harness = Harness::new();
    let dockerfile = "# VERSION to fetch\nARG VERSION=1\n# base has it all\nFROM busybox AS base\nARG VERSION\nARG DEBUG\n\
                      RUN --mount=type=secret,id=token,required --mount=type=cache,target=/c --mount=type=ssh true\n\
                      FROM --platform=$BUILDPLATFORM base\n";
    let context = harness.context("outlined", dockerfile);
    let path = context.to_str().unwrap();
    let text = harness.rbuild(&["outline", "--build-arg=DEBUG=yes", path]).ok().stdout;
    let expected = "BUILD ARG   VALUE   DESCRIPTION\nVERSION     1       to fetch\nDEBUG       yes\n\n\
                    SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault\n\nCACHE\n/c\n\n";
    assert_eq!(text, expected);
    let document = json_of(&harness.rbuild(&["outline", "--format=json", "--target=base", path]).ok().stdout);
    assert_eq!((&document["name"], &document["description"]), (&json!("base"), &json!("has it all")));
    assert_eq!(document["secrets"][0]["required"], true);
    assert_eq!(document["args"][0]["location"], json!({"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}));

    let text = harness.rbuild(&["targets", path]).ok().stdout;
    assert_eq!(text, "TARGET      DESCRIPTION\nbase        has it all\n(default)\n");
    let document = json_of(&harness.rbuild(&["build", "--call=targets,format=json", path]).ok().stdout);
    assert_eq!((&document["targets"][1]["base"], &document["targets"][1]["default"]), (&json!("base"), &json!(true)));
    assert_eq!(document["targets"][1]["platform"], "$BUILDPLATFORM");

    let text = harness.rbuild(&["build", "--call=subrequests.describe", path]).ok().stdout;
    assert!(text.starts_with("NAME "), "{text}");
    harness.rbuild(&["build", "--call=outlin", path]).fails(2).says("did you mean outline?");
}

/// A reader that goes away is no reason to panic.
#[test]
fn a_closed_standard_output_is_no_panic() {
    let harness = Harness::empty();
    let context = harness.context("closed", "FROM scratch\n");
    let mut child = harness
        .command(&["targets", context.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// A file that is no Dockerfile has an error on every line.
#[test]
fn errors_are_shown_up_to_a_number() {
    let harness = Harness::empty();
    let context = harness.context("wrong", &"nonsense\n".repeat(100));
    let outcome = harness.rbuild(&["outline", context.to_str().unwrap()]).fails(1);
    let outcome =
        outcome.says("... and 80 more errors\n").says("error[UnknownInstruction]: dockerfile parse error on line 1");
    assert_eq!(outcome.stderr.matches("error[UnknownInstruction]").count(), 20);
}
