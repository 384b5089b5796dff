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
    harness.rbuild(&["build", "--check", path]).fails(1);
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
