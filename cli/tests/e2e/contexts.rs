//! Contexts that are no directory, and named ones (D19).

use crate::harness::{Harness, Outcome, tool};
use crate::servers::{FileServer, GitServer};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

/// Builds with `input` on standard input.
fn build_from(harness: &Harness, input: &[u8], args: &[&str]) -> Outcome {
    let mut command = harness.command(&["build", "--progress=plain", "-t", "out"]);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // It may end before it has read all.
    let _ = process.stdin.take().unwrap().write_all(input);
    Outcome::of(process.wait_with_output().unwrap())
}

/// A tar with a Dockerfile, another one, an ignore file and a file of user 7.
fn tar(harness: &Harness, compression: &str) -> Vec<u8> {
    let directory = harness.context("tarred", "FROM busybox\nCOPY . /in/\n");
    std::fs::create_dir_all(directory.join("sub")).unwrap();
    std::fs::write(directory.join("sub/other"), "FROM busybox\nCOPY sub /in/\n").unwrap();
    std::fs::write(directory.join(".dockerignore"), "f\n").unwrap();
    std::fs::write(directory.join("f"), "text").unwrap();
    let file = harness.path_text("context.tar");
    let path = directory.to_str().unwrap();
    tool("tar", &["-C", path, compression, "--owner=7", "--group=8", "--sort=name", "-cf", &file, "."]);
    std::fs::read(file).unwrap()
}

fn files(harness: &Harness) -> String {
    harness.output("out", &["sh", "-c", "cd /in && find . -type f | sort | xargs stat -c '%n %u:%g' | xargs"])
}

const TARRED: &str = "./.dockerignore 7:8 ./Dockerfile 7:8 ./f 7:8 ./sub/other 7:8\n";

#[test]
fn standard_input() {
    let harness = Harness::new();
    build_from(&harness, b"FROM busybox\nRUN echo from stdin > /x\n", &["-"]).ok();
    assert_eq!(harness.output("out", &["cat", "/x"]), "from stdin\n");
    build_from(&harness, b"FROM busybox\nCOPY . /x/\n", &["-"]).ok();
    build_from(&harness, b"FROM busybox\nCOPY f /x\n", &["-"]).fails(1).says("\"/f\": not found");
    for compression in ["--no-auto-compress", "--gzip", "--xz", "--zstd", "--bzip2"] {
        let archive = tar(&harness, compression);
        build_from(&harness, &archive, &["-"]).ok();
        // No ignore file counts, and owners are the archive's (D19.6, D18.27).
        assert_eq!(files(&harness), TARRED, "{compression}");
    }
    let archive = tar(&harness, "--gzip");
    let outcome = build_from(&harness, &archive, &["-"]).ok();
    assert!(outcome.stderr.contains("CACHED"), "{}", outcome.stderr);
    build_from(&harness, &archive, &["-f", "sub/other", "-"]).ok();
    assert_eq!(files(&harness), "./other 7:8\n");
    build_from(&harness, &archive, &["-f", "../../etc/passwd", "-"]).fails(1).says("failed to read dockerfile");
    build_from(&harness, &archive[..archive.len() / 2], &["-"]).fails(1).says("standard input");
    build_from(&harness, b"", &["-"]).fails(2).says("standard input is empty");
    build_from(&harness, b"FROM busybox\n", &["-f", "-", "-"]).fails(2).says("cannot be both");
    build_from(&harness, b"FROM busybox\n", &["-f", "x", "-"]).fails(2).says("ambiguous");
}

#[test]
fn archives_as_files() {
    let harness = Harness::new();
    tar(&harness, "--zstd");
    harness.rbuild(&["build", "-t", "out", &harness.path_text("context.tar")]).ok();
    assert_eq!(files(&harness), TARRED);
    std::fs::write(harness.path("text"), "FROM busybox").unwrap();
    harness.rbuild(&["build", &harness.path_text("text")]).fails(2).says("neither a directory nor a tar archive");
}

#[test]
fn urls() {
    let (harness, server) = (Harness::new(), FileServer::start());
    server.put("/context.tgz", &tar(&harness, "--gzip"));
    let url = format!("{}/context.tgz", server.url);
    harness.rbuild(&["build", "--progress=plain", "-t", "out", &url]).ok();
    assert_eq!(files(&harness), TARRED);
    let outcome = harness.rbuild(&["build", "--progress=plain", &url]).ok();
    assert!(outcome.stderr.contains("CACHED"), "{}", outcome.stderr);
    assert_eq!(server.answers(), ["200 /context.tgz", "304 /context.tgz"]);
    // A Dockerfile is all there is in its context.
    server.put("/df", b"FROM busybox\nCOPY . /in/\n");
    harness.rbuild(&["build", "-t", "out", &format!("{}/df", server.url)]).ok();
    assert_eq!(files(&harness), "./context 0:0\n");
    harness.rbuild(&["build", &format!("{}/none", server.url)]).fails(1).says("answered 404");
    // And a Dockerfile from a URL for a directory that is here.
    let here = harness.context("here", "nonsense");
    std::fs::write(here.join("f"), "here").unwrap();
    harness.build(&here, &["-t", "out", "-f", &format!("{}/df", server.url)]).ok();
    assert_eq!(harness.output("out", &["cat", "/in/f"]), "here");
}

#[test]
fn git_repositories() {
    let (harness, server) = (Harness::new(), GitServer::start());
    server.commit(
        "r",
        &[("sub/Dockerfile", "FROM busybox\nCOPY . /in/\n"), ("sub/.dockerignore", "f"), ("sub/f", "x"), ("top", "x")],
    );
    let url = format!("{}/r#main:sub", server.url);
    harness.rbuild(&["build", "-t", "out", &url]).ok();
    assert_eq!(files(&harness), "./.dockerignore 0:0 ./Dockerfile 0:0 ./f 0:0\n");
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    let whole = format!("{}/r", server.url);
    harness.rbuild(&["build", "-t", "out", "-f", "sub/Dockerfile", keep[0], keep[1], &whole]).ok();
    assert!(files(&harness).contains("./.git/HEAD 0:0"));
    harness.rbuild(&["build", &whole]).fails(1).says("failed to read dockerfile: open Dockerfile");
    harness.rbuild(&["build", &format!("{whole}?x=y")]).fails(2).says("unexpected query");
}

fn named(harness: &Harness) -> PathBuf {
    let other = harness.path("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("f"), "from the directory").unwrap();
    std::fs::write(other.join("ignored"), "").unwrap();
    std::fs::write(other.join(".dockerignore"), "ignored").unwrap();
    other
}

/// D19.7, D19.8, D19.11.
#[test]
fn named_directories() {
    let harness = Harness::new();
    let other = named(&harness).display().to_string();
    let context = harness.context("context", "FROM busybox AS stage\nRUN echo from the stage > /f\nFROM busybox\nCOPY --from=stage / /in/\nRUN --mount=from=stage,target=/m cat /m/f > /mounted\n");
    let flag = format!("--build-context=stage={other}");
    harness.build(&context, &["-t", "out", &flag]).ok();
    assert_eq!(files(&harness), "./.dockerignore 0:0 ./f 0:0\n");
    assert_eq!(harness.output("out", &["cat", "/mounted"]), "from the directory");
    let outcome = harness.build(&context, &["-t", "out", &flag]).ok();
    assert!(outcome.stderr.contains("CACHED") && !outcome.stderr.contains("from the stage"), "{}", outcome.stderr);
    harness.build(&context, &["-t", "out"]).ok();
    assert_eq!(harness.output("out", &["cat", "/mounted"]), "from the stage\n");
    // As a base, and in place of a name that no stage has.
    let context = harness.context("context", "FROM base\nCOPY --from=files f /g\n");
    let (base, files) = (format!("--build-context=base={other}"), format!("--build-context=files={other}"));
    let tar = harness.path_text("out.tar");
    harness.build(&context, &[&base, &files, "-o", &format!("type=tar,dest={tar}")]).ok();
    assert_eq!(tool("tar", &["-tf", &tar]), ".dockerignore\nf\ng\n");
    harness.build(&context, &["--build-context=base=/nowhere"]).fails(2).says("/nowhere: no such file");
}

#[test]
fn named_images() {
    let harness = Harness::new();
    harness.build_text("FROM busybox\nENV WHO=other\nRUN echo other > /who\n", &["-t", "other"]).ok();
    let context = harness.context(
        "context",
        "FROM alpine:latest\nCOPY --from=docker.io/library/tools /who /copied\nRUN echo $WHO > /env\n",
    );
    let flags =
        ["-t", "out", "--build-context=alpine=docker-image://other", "--build-context=tools=docker-image://other"];
    harness.build(&context, &flags).ok();
    assert_eq!(harness.output("out", &["cat", "/copied", "/env"]), "other\nother\n");

    // The same from a layout that the store knows nothing of.
    let archive = harness.path_text("other.tar");
    harness.rbuild(&["save", "-o", &archive, "other"]).ok();
    std::fs::create_dir(harness.path("layout")).unwrap();
    let layout = harness.path_text("layout");
    tool("tar", &["-C", &layout, "-xf", &archive]);
    let fresh = Harness::new();
    let context = fresh.context("context", "FROM alpine\nRUN cat /who > /env && echo $WHO >> /env\n");
    for place in [layout.clone(), format!("{layout}:latest")] {
        let flag = format!("--build-context=alpine=oci-layout://{place}");
        fresh.build(&context, &["-t", "out", "--no-cache", &flag]).ok();
        assert_eq!(fresh.output("out", &["cat", "/env"]), "other\nother\n");
    }
    let flag = format!("--build-context=alpine=oci-layout://{layout}:v9");
    fresh.build(&context, &[&flag]).fails(1).says("the tag v9 is not there").says("latest");
    let flag = format!("--build-context=alpine=oci-layout://{layout}@sha256:{}", "0".repeat(64));
    fresh.build(&context, &[&flag]).fails(1).says("is not there");
}

#[test]
fn named_stages_urls_and_repositories() {
    let (harness, http, git) = (Harness::new(), FileServer::start(), GitServer::start());
    http.put("/x.txt", b"by http");
    git.commit("r", &[("sub/f", "by git")]);
    let dockerfile = "FROM busybox AS real\nRUN echo real > /f\nFROM busybox\nCOPY --from=alias f /a\nCOPY --from=http context /b\nCOPY --from=git f /c\n";
    let context = harness.context("context", dockerfile);
    let flags = [
        "-t".to_owned(),
        "out".to_owned(),
        "--build-context=alias=target:real".to_owned(),
        format!("--build-context=http={}/x.txt", http.url),
        format!("--build-context=git={}/r#main:sub", git.url),
    ];
    harness.build(&context, &flags.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    assert_eq!(harness.output("out", &["cat", "/a", "/b", "/c"]), "real\nby httpby git");
    let context = harness.context("context", "FROM busybox AS real\nFROM scratch\nCOPY --from=alias f /a\n");
    harness.build(&context, &["--build-context=alias=target:none"]).fails(1).says("there is no such stage");
}

/// X3.8: each of several directories finds what those before it have brought, also where an overlay shows the destination.
#[test]
fn wildcards_of_several_directories() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nCOPY d* /dst/\nCOPY --chmod=700 d[12]/ /etc/\nCOPY d[13] /tmp/\n";
    let context = harness.context("context", &dockerfile.replace("COPY d[13] /tmp/\n", ""));
    for (path, text) in [("d1/sub/f", "1"), ("d2/sub/g", "2"), ("d2/same", "2"), ("d1/same", "1"), ("d9", "9")] {
        let path = context.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    harness.rbuild(&["build", "-t", "several", context.to_str().unwrap()]).ok();
    let files =
        harness.output("several", &["sh", "-c", "cd /dst; find . | sort | xargs; cat same; ls /etc/sub /etc/passwd"]);
    assert_eq!(files, ". ./d9 ./same ./sub ./sub/f ./sub/g\n2/etc/passwd\n\n/etc/sub:\nf\ng\n");
    std::fs::create_dir(context.join("d3")).unwrap();
    std::fs::write(context.join("d3/sub"), "").unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let outcome = harness.rbuild(&["build", context.to_str().unwrap()]).fails(1);
    outcome.says("cannot replace to directory /dst/sub with file");
}

/// A layer that another step made of equal files is not one to take files from by this step's paths.
#[test]
fn copies_do_not_mix_up_what_they_link() {
    let harness = Harness::new();
    let context = harness.context("context", "");
    std::fs::create_dir_all(context.join("dst/dst")).unwrap();
    std::fs::write(context.join(".dockerignore"), "*Dockerfile*\n.dockerignore\n").unwrap();
    let write = |path: &str, text: &str| {
        std::fs::write(context.join(path), text).unwrap();
        for path in [path, "dst/dst", "dst"] {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000);
            std::fs::File::open(context.join(path)).unwrap().set_modified(time).unwrap();
        }
    };
    let build = |copy: &str| {
        std::fs::write(context.join("Dockerfile"), format!("FROM busybox\n{copy}\n")).unwrap();
        harness.rbuild(&["build", "-t", "linked", context.to_str().unwrap()]).ok();
    };
    // Digests of younger files are not remembered.
    let grow_old = || std::thread::sleep(std::time::Duration::from_secs(3));
    write("dst/x", "one");
    write("dst/dst/x", "two");
    grow_old();
    build("COPY dst /dst/");
    build("COPY . /");
    write("dst/x", "two");
    grow_old();
    build("COPY dst/x /elsewhere");
    build("COPY . /");
    assert_eq!(harness.output("linked", &["cat", "/dst/x"]), "two");
}

/// Ctrl-C is heard while standard input says nothing.
#[test]
fn silent_standard_input_can_be_left() {
    let harness = Harness::empty();
    let mut command = harness.command(&["build", "--progress=plain", "-"]);
    command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut String::new()).unwrap();
    crate::harness::tool("kill", &["-INT", &child.id().to_string()]);
    let input = child.stdin.take();
    for _ in 0..200 {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(130));
            return drop(input);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it goes on");
}
