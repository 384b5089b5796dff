//! Hostile base images, archives and contexts.

use super::build;
use crate::harness::{Harness, is_root, tool};
use std::path::Path;

/// A tar made by a shell script in a directory of its own; the script's `$1` is where it goes, `$2` a directory of the host.
fn tar(harness: &Harness, name: &str, script: &str) -> String {
    let (file, host) = (harness.path_text(&format!("{name}.tar")), harness.path_text("host"));
    let work = harness.path_text(name);
    std::fs::create_dir_all(&work).unwrap();
    let tar = "tar --owner=0 --group=0 --numeric-owner";
    tool("sh", &["-ec", &format!("cd {work}\ntar() {{ command {tar} \"$@\"; }}\n{script}"), "sh", &file, &host]);
    file
}

fn host(harness: &Harness) -> String {
    let host = harness.path_text("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(format!("{host}/file"), "theirs\n").unwrap();
    host
}

#[track_caller]
fn is_untouched(host: &str) {
    assert_eq!(std::fs::read_to_string(format!("{host}/file")).unwrap(), "theirs\n");
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 1);
}

const ARCHIVES: [(&str, &str); 4] = [
    (
        "dots",
        "mkdir a; echo evil > a/file; tar -cPf $1 --transform=\"s,^a/file,../../../../../../../../$2/dots,\" a/file",
    ),
    ("absolute", "echo evil > f; tar -cPf $1 --transform=\"s,^f,$2/absolute,\" f"),
    // A link, then a file through it.
    (
        "through",
        "ln -s $2 l; tar -cf $1 l; rm l; mkdir l; echo evil > l/file; echo evil > l/new; tar -rf $1 l/file l/new",
    ),
    // A hard link to a file of the host, then its content.
    (
        "hard",
        "mkdir -p .$2; echo x > .$2/file; ln .$2/file h; tar -cPf $1 --transform=\"s,^\\./,/,\" .$2/file h; tar --delete -f $1 $2/file || true; rm h; echo evil > h; tar -rf $1 h",
    ),
];

#[test]
fn archives_write_inside_only() {
    let harness = Harness::new();
    let host = host(&harness);
    for (name, script) in ARCHIVES {
        let tar = tar(&harness, name, script);
        // As an image, and by ADD: refused or held inside, as suits each.
        harness.rbuild(&["import", &tar, name]);
        harness.rbuild(&["run", "--rm", name, "true"]);
        is_untouched(&host);
        let context = super::context(&harness, "add", "FROM hostile\nADD evil.tar /x/\nRUN find /x\n");
        std::fs::copy(&tar, context.join("evil.tar")).unwrap();
        harness.build(&context, &[]);
        is_untouched(&host);
    }
}

/// The files that rbuild itself reads or mounts over.
#[test]
fn files_that_rbuild_reads_are_what_they_should_be() {
    let harness = Harness::new();
    let host = host(&harness);
    let passwd = |make: &str| {
        let text = format!("FROM hostile\nRUN rm /etc/passwd; {make}\nUSER someone\nRUN true\n");
        build(&harness, &text, &[]).fails(1)
    };
    passwd("mkfifo /etc/passwd").says("not a regular file");
    passwd("mkdir /etc/passwd").says("not a regular file");
    passwd("dd if=/dev/zero of=/etc/passwd bs=1M count=1 seek=11 2>/dev/null").says("exceeds");
    passwd("ln -s passwd /etc/passwd").says("unable to find user");
    std::fs::write(format!("{host}/file"), "theirs\n").unwrap();
    passwd(&format!("ln -s ../../../../../..{host}/file /etc/passwd")).says("unable to find user");
    if is_root() {
        // Opening a device does things: it is not even opened.
        let outcome = passwd("mknod /etc/passwd c 1 5");
        assert!(!outcome.stderr.contains("exceeds"), "{}", outcome.stderr);
    }
    for directory in ["proc", "dev", "sys"] {
        let script = format!("mkdir -p bin etc; cp $(command -v busybox) bin/sh; ln -s $2 {directory}; tar -cf $1 .");
        let tar = tar(&harness, directory, &script);
        harness.rbuild(&["import", &tar, directory]).ok();
        harness.build_text(&format!("FROM {directory}\nRUN true\n"), &[]).fails(1).says("not a directory in the image");
        is_untouched(&host);
    }
}

/// A directory of the user's that two hostile images are exported to, one after the other.
#[test]
fn exports_write_inside_only() {
    let harness = Harness::new();
    let host = host(&harness);
    let out = harness.path_text("out");
    let export = |steps: &str| {
        let text = format!("FROM hostile AS b\nRUN {steps}\nFROM scratch\nCOPY --from=b /o /\n");
        build(&harness, &text, &["--output", &format!("type=local,dest={out}")]).ok();
        is_untouched(&host);
    };
    export(&format!("mkdir /o; ln -s {host} /o/d; ln -s {host}/file /o/f; ln -s {host}/new /o/n"));
    export("mkdir -p /o/d; for f in d/file d/new f n; do echo evil > /o/$f; done");
    assert_eq!(std::fs::read_to_string(Path::new(&out).join("d/file")).unwrap(), "evil\n");
}
