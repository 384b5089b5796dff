//! `rbuild fmt`.

use crate::harness::Harness;
use std::os::unix::fs::PermissionsExt;

#[test]
fn files_are_formatted_in_place() {
    let harness = Harness::empty();
    let untidy = harness.path("untidy");
    std::fs::write(&untidy, "from a\nrun  x\n").unwrap();
    std::fs::set_permissions(&untidy, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("untidy", harness.path("link")).unwrap();
    let link = harness.path_text("link");

    let outcome = harness.rbuild(&["fmt", "--check", &link]).fails(1);
    assert_eq!(outcome.stdout, format!("{link}\n"));
    assert_eq!(std::fs::read_to_string(&untidy).unwrap(), "from a\nrun  x\n");

    assert_eq!(harness.rbuild(&["fmt", &link]).ok().stdout, format!("{link}\n"));
    assert_eq!(std::fs::read_to_string(&untidy).unwrap(), "FROM a\nRUN x\n");
    assert_eq!(std::fs::metadata(&untidy).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(harness.path("link").is_symlink());
    assert_eq!(harness.rbuild(&["fmt", "--check", &link]).ok().stdout, "");
}

#[test]
fn standard_input_goes_to_standard_output() {
    use std::io::Write;
    let harness = Harness::empty();
    let mut child = harness
        .command(&["fmt", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"from a").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"FROM a\n");
}

/// What cannot be formatted is left alone, and does not keep other files from it.
#[test]
fn errors_leave_files_alone() {
    let harness = Harness::empty();
    let (wrong, good, bytes) = (harness.path_text("wrong"), harness.path_text("good"), harness.path_text("bytes"));
    std::fs::write(&wrong, "from a\nfoo\n").unwrap();
    std::fs::write(&good, "from a\n").unwrap();
    std::fs::write(&bytes, b"from a\nrun \xff\n").unwrap();
    let outcome = harness.rbuild(&["fmt", &wrong, &bytes, &good]).fails(1);
    let outcome = outcome.says("wrong:2\n").says(">>> foo").says("error[UnknownInstruction]").says("invalid utf-8");
    assert_eq!(outcome.stdout, format!("{good}\n"));
    assert_eq!(std::fs::read(&wrong).unwrap(), b"from a\nfoo\n");
    assert_eq!(std::fs::read(&bytes).unwrap(), b"from a\nrun \xff\n");
    harness.rbuild(&["fmt", "/no/such/file"]).fails(2).says("there is no file /no/such/file");
}
