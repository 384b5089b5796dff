//! ADD of what is not here: URLs and repositories (D18.39 to D18.46).

use crate::harness::{Harness, is_root, tool};
use crate::servers::{FileServer, GitServer, SshServer};

fn steps_run(stderr: &str) -> bool {
    !stderr.contains("CACHED")
}

#[test]
fn a_url_becomes_a_file() {
    let (harness, server) = (Harness::new(), FileServer::start());
    server.put("/a/file%20name.txt?v=1", b"one");
    let url = format!("{}/a/file%20name.txt?v=1", server.url);
    let dockerfile =
        format!("FROM busybox\nADD [\"{url}\", \"/dst/\"]\nADD --chmod=644 --chown=1:33 [\"{url}\", \"/x\"]\n");
    harness.build_text(&dockerfile, &["-t", "url"]).ok();
    let shown = harness.output("url", &["stat", "-c", "%n %a %u:%g %Y %s", "/dst/file name.txt", "/x"]);
    assert_eq!(shown, "/dst/file name.txt 600 0:0 784111777 3\n/x 644 1:33 784111777 3\n");
    assert_eq!(server.answers(), ["200 /a/file%20name.txt?v=1"], "one source, whatever takes it");

    // Asked about again, not sent again.
    let outcome = harness.build_text(&dockerfile, &["-t", "url"]).ok();
    assert!(outcome.stderr.contains("CACHED"), "{}", outcome.stderr);
    assert_eq!(server.answers(), ["304 /a/file%20name.txt?v=1"]);

    server.put("/a/file%20name.txt?v=1", b"two!");
    harness.build_text(&dockerfile, &["-t", "url"]).ok();
    assert_eq!(harness.output("url", &["cat", "/x"]), "two!");
    server.remove("/a/file%20name.txt?v=1");
    harness.build_text(&dockerfile, &[]).fails(1).says("answered 404 Not Found").says("ADD [\"http");
}

#[test]
fn checksums_are_held_to() {
    let (harness, server) = (Harness::new(), FileServer::start());
    server.put("/file.txt", b"content");
    let sum = tool("sh", &["-c", "printf content | sha256sum | cut -d' ' -f1"]);
    let dockerfile = |sum: &str| {
        format!("FROM scratch\nARG SUM={}\nADD --checksum=sha256:$SUM {}/redirect /f\n", sum.trim(), server.url)
    };
    harness.build_text(&dockerfile(&sum), &[]).ok();
    assert_eq!(server.answers(), ["302 /redirect", "200 /file.txt"]);
    // What is known by its digest need not be asked about.
    harness.build_text(&dockerfile(&sum), &["--no-cache"]).ok();
    assert_eq!(server.answers().len(), 0);
    let wrong = "0".repeat(64);
    harness.build_text(&dockerfile(&wrong), &[]).fails(1).says(&format!(
        "digest mismatch for {}/redirect: sha256:{}",
        server.url,
        sum.trim()
    ));
    let text = |flag: &str, rest: &str| format!("FROM scratch\nADD {flag} {rest} /f\n");
    let url = format!("{}/file.txt", server.url);
    harness.build_text(&text("--checksum=sha256:12", &url), &[]).fails(1).says("invalid checksum \"sha256:12\"");
    harness
        .build_text(&text(&format!("--checksum=sha256:{wrong}"), "Dockerfile"), &[])
        .fails(1)
        .says("requires HTTP(S)");
    harness.build_text(&format!("FROM scratch\nCOPY {url} /f\n"), &[]).fails(1).says("source can't be a URL for COPY");
}

/// D18.39: downloads stay as they are unless it is asked for.
#[test]
fn downloaded_archives() {
    let (harness, server) = (Harness::new(), FileServer::start());
    let tar = harness.path_text("a.tar.gz");
    std::fs::write(harness.path("inside"), "text").unwrap();
    tool("tar", &["-C", harness.path("").to_str().unwrap(), "-czf", &tar, "--owner=7", "--group=8", "inside"]);
    server.put("/a.tar.gz", &std::fs::read(&tar).unwrap());
    let dockerfile = format!(
        "FROM busybox\nADD {0}/a.tar.gz /plain/\nADD --unpack=true {0}/a.tar.gz /unpacked/\nADD --unpack --chown=5:6 {0}/a.tar.gz /owned\n",
        server.url
    );
    harness.build_text(&dockerfile, &["-t", "tar"]).ok();
    let files = harness.output("tar", &["sh", "-c", "stat -c '%n %u:%g' /plain/* /unpacked/* /owned/*"]);
    assert_eq!(files, "/plain/a.tar.gz 0:0\n/unpacked/inside 7:8\n/owned/inside 5:6\n");
}

/// Neither the store nor the log nor the image has the password of a URL.
#[test]
fn passwords_of_urls_stay_secret() {
    let (harness, server) = (Harness::new(), FileServer::start());
    server.put("/file.txt", b"x");
    let url = server.url.replace("http://", "http://user:hunter2@");
    let outcome =
        harness.build_text(&format!("FROM scratch\nADD {url}/file.txt /f\nADD {url}/missing /g\n"), &[]).fails(1);
    let lines: Vec<_> = outcome.stderr.lines().filter(|line| !line.contains("ADD ")).collect();
    assert!(!lines.join("\n").contains("hunter2"), "{}", outcome.stderr);
    // Nor the names of steps, where an argument brings it.
    let dockerfile = "FROM scratch\nARG URL\nADD $URL/file.txt /f\nADD [\"$URL/file.txt\", \"/g\"]\n";
    // No image: the history of one tells build arguments by their values, as BuildKit's does.
    let flags = ["-o", "type=cacheonly", "--build-arg", &format!("URL={url}")];
    let outcome = harness.build_text(dockerfile, &flags).ok();
    assert!(outcome.stderr.contains("ADD http://xxxxx@127.0.0.1"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hunter2"), "{}", outcome.stderr);
    let history = format!("FROM scratch\nADD {url}/file.txt /f\n");
    harness.build_text(&history, &["-t", "secret"]).ok();
    let found =
        std::process::Command::new("grep").args(["-rl", "hunter2", harness.path("store").to_str().unwrap()]).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
}

#[test]
fn repositories() {
    let (harness, server) = (Harness::new(), GitServer::start());
    let first = server.commit("r", &[("top", "one"), ("sub/deep/f", "deep"), ("run", "#!/bin/sh\n")]);
    server.git("r", &["tag", "-a", "-m", "x", "v1"]);
    let second = server.commit("r", &[("top", "two")]);
    let url = format!("{}/r", server.url);
    let build = |add: &str| harness.build_text(&format!("FROM busybox\nADD {add} /r/\n"), &["-t", "git"]);
    let list = || {
        harness.output(
            "git",
            &["sh", "-c", "cd /r && find . -type f | grep -v '^./.git/' | sort && cat top 2>/dev/null || true"],
        )
    };

    build(&url).ok();
    assert_eq!(list(), "./run\n./sub/deep/f\n./top\ntwo");
    assert_eq!(harness.output("git", &["stat", "-c", "%a %u:%g", "/r/top", "/r/sub"]), "644 0:0\n755 0:0\n");
    assert!(!steps_run(&build(&url).ok().stderr));
    for reference in
        ["#v1", "#refs/tags/v1", "?tag=v1", &format!("#{first}"), &format!("?ref=v1&checksum={}", &first[..10])]
    {
        build(&format!("{url}{reference}")).ok();
        assert!(list().ends_with("./top\none"), "{reference}");
    }
    build(&format!("{url}#v1:sub/deep")).ok();
    assert_eq!(list(), "./f\n");
    build(&format!("--exclude=sub --exclude=run {url}#v1")).ok();
    assert_eq!(list(), "./top\none");
    build(&format!("--keep-git-dir=true {url}#main")).ok();
    assert_eq!(
        harness.output("git", &["sh", "-c", "cat /r/.git/HEAD; ls /r/.git | grep -c FETCH_HEAD || true"]).trim(),
        format!("{second}\n0")
    );
    let config = harness.output("git", &["cat", "/r/.git/config"]);
    assert!(config.contains(&format!("url = {url}")) && !config.contains("store"), "{config}");

    // A branch that moved is taken as it is now.
    server.commit("r", &[("top", "three")]);
    assert!(steps_run(&build(&format!("{url}#main")).ok().stderr));
    assert!(list().ends_with("three"));

    build(&format!("{url}#nothing")).fails(1).says("does not contain ref nothing");
    build(&format!("{url}?x=y")).fails(1).says("unexpected query \"x\"");
    build(&format!("--checksum={second} {url}#v1")).fails(1).says(&format!("expected checksum to match {second}, got"));
    build(&format!("{url}#v1:top")).fails(1).says("invalid subdir \"top\"").says("not a directory");
    build(&format!("{}/none", server.url)).fails(1).says("cannot ask git://");
    harness
        .build_text(&format!("FROM scratch\nCOPY {url} /\n"), &[])
        .fails(1)
        .says("source can't be a git ref for COPY");
}

#[test]
fn submodules() {
    let (harness, server) = (Harness::new(), GitServer::start());
    server.commit("module", &[("inner", "m")]);
    server.commit("r", &[("top", "t")]);
    server.git("r", &["submodule", "--quiet", "add", &format!("{}/module", server.url), "lib"]);
    server.git("r", &["commit", "--quiet", "--message=module"]);
    let url = format!("{}/r", server.url);
    let list = |add: &str| {
        harness.build_text(&format!("FROM busybox\nADD {add} /r/\n"), &["-t", "git"]).ok();
        harness.output("git", &["sh", "-c", "cd /r && find . | grep -v '^./.git/' | sort | xargs"])
    };
    // Nothing says where the store keeps its repositories.
    assert_eq!(list(&url), ". ./.gitmodules ./lib ./lib/inner ./top\n");
    assert_eq!(list(&format!("{url}?submodules=false")), ". ./.gitmodules ./lib ./top\n");
    // A directory of this machine is no submodule.
    let secret = server.commit("secret", &[("inner", "s")]);
    server.commit(
        "local",
        &[(".gitmodules", &format!("[submodule \"x\"]\npath = x\nurl = {}\n", server.path("secret").display()))],
    );
    server.git("local", &["update-index", "--add", "--cacheinfo", &format!("160000,{secret},x")]);
    server.git("local", &["commit", "--quiet", "--message=module"]);
    let dockerfile = format!("FROM busybox\nADD {}/local /r/\n", server.url);
    harness.build_text(&dockerfile, &[]).fails(1).says("submodules of").says("transport 'file' not allowed");
}

/// What is configured where rbuild happens to be started, most often in the project's own repository, does not count.
#[test]
fn the_repository_that_a_build_is_started_in() {
    let (harness, server) = (Harness::new(), GitServer::start());
    server.commit("r", &[("top", "right")]);
    server.commit("project", &[("Dockerfile", &format!("FROM busybox\nADD {}/r /r/\n", server.url))]);
    let other = server.commit("other", &[("top", "wrong")]);
    server.git("project", &["remote", "add", "origin", &server.path("other").display().to_string()]);
    server.git("project", &["config", "url./nowhere.insteadOf", &server.url]);
    let mut command = harness.command(&["build", "--progress=plain", "-t", "git", "."]);
    let outcome = crate::harness::Outcome::of(command.current_dir(server.path("project")).output().unwrap()).ok();
    assert!(!outcome.stderr.contains(&other), "{}", outcome.stderr);
    assert_eq!(harness.output("git", &["cat", "/r/top"]), "right");
}

/// Keys are for those only to whom the user gave them.
#[test]
fn repositories_by_ssh() {
    if !is_root() && !std::path::Path::new("/usr/sbin/sshd").exists() {
        panic!("sshd is needed: apt-get install openssh-server");
    }
    let (harness, git, ssh) = (Harness::new(), GitServer::start(), SshServer::start());
    git.commit("r", &[("Dockerfile", "FROM busybox\nCOPY f /f\n"), ("f", "by ssh")]);
    let url = ssh.url(&git.path("r"));
    harness.context("context", &format!("FROM busybox\nADD {url} /r/\n"));
    let build = |args: &[&str]| {
        let mut command = harness.command(&["build", "--progress=plain", "-t", "ssh"]);
        crate::harness::Outcome::of(command.args(args).env("SSH_AUTH_SOCK", ssh.socket()).output().unwrap())
    };
    let context = harness.path_text("context");
    build(&[&context]).fails(1).says("Permission denied").says("--ssh default");
    build(&["--ssh=default", &context]).ok();
    assert_eq!(harness.output("ssh", &["cat", "/r/f"]), "by ssh");
    build(&["--ssh", &format!("default={}", ssh.socket().display()), &context]).ok();
    build(&[&url]).ok();
    assert_eq!(harness.output("ssh", &["cat", "/f"]), "by ssh");
    build(&["--ssh=default=/nowhere", &context]).fails(2);
}

/// A git that waits for a server ends with the build, however that ends.
#[test]
fn git_does_not_outlive_the_build() {
    let harness = Harness::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/r", silent.local_addr().unwrap());
    let context = harness.context("context", &format!("FROM scratch\nADD {url} /\n"));
    for signal in ["KILL", "INT"] {
        let mut build = harness.command(&["build", context.to_str().unwrap()]).spawn().unwrap();
        // It has asked.
        let _asked = silent.accept().unwrap();
        let git = || std::process::Command::new("pgrep").args(["-f", &url]).output().unwrap().stdout;
        assert!(!git().is_empty());
        tool("kill", &[&format!("-{signal}"), &build.id().to_string()]);
        assert!(!build.wait().unwrap().success());
        let ended = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            git().is_empty()
        });
        assert!(ended, "{signal}");
    }
}
