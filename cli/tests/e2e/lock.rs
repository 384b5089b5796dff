//! Which versions of its sources a build takes: base images are asked about once, and a lock file holds all of them.

use crate::harness::{Harness, Registry, tool};
use crate::servers::{FileServer, GitServer};
use serde_json::Value;
use std::path::Path;

/// Pushes an image for two platforms, and gives the digest of its index.
fn push(registry: &Registry, name: &str, content: &str) -> String {
    let harness = Harness::empty();
    let context = harness.context("c", "FROM scratch\nARG TARGETARCH\nCOPY f /f\nENV ARCH=$TARGETARCH\n");
    std::fs::write(context.join("f"), content).unwrap();
    let (name, metadata) = (format!("{}/{name}", registry.host), harness.path_text("metadata"));
    let flags = ["--platform=linux/amd64,linux/arm64", "-t", &name, "--push", "--metadata-file", &metadata];
    harness.build(&context, &flags).ok();
    registry.requests();
    read_json(Path::new(&metadata))["containerimage.digest"].as_str().unwrap().to_owned()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The digests of an image's layers, for this machine or another one.
fn layers(name: &str, architecture: &str) -> Vec<String> {
    let flags =
        ["inspect", "--tls-verify=false", &format!("--override-arch={architecture}"), &format!("docker://{name}")];
    let image: Value = serde_json::from_str(&tool("skopeo", &flags)).unwrap();
    image["Layers"].as_array().unwrap().iter().map(|layer| layer.as_str().unwrap().to_owned()).collect()
}

/// However many stages and platforms name it; and its layers are left where they are until a step needs files.
#[test]
fn a_base_is_resolved_once_for_a_build() {
    let (harness, registry) = (Harness::empty(), Registry::start());
    let digest = push(&registry, "a/base:v1", "one");
    let name = format!("{}/a/base:v1", registry.host);
    let blobs: Vec<String> = ["amd64", "arm64"].iter().flat_map(|arch| layers(&name, arch)).collect();
    registry.requests();
    let fetched = |requests: &[String]| {
        requests.iter().filter(|request| blobs.iter().any(|blob| request.ends_with(blob))).count()
    };
    let by_tag = |requests: &[String]| requests.iter().filter(|request| request.ends_with("/manifests/v1")).count();

    let dockerfile = format!(
        "FROM {name} AS a\nENV A=1\nFROM {name} AS b\nLABEL b=1\nFROM scratch AS files\nCOPY Dockerfile /x\n\
         FROM {name}\nLABEL c=$ARCH\nCOPY --link --from=files /x /x\n"
    );
    let context = harness.context("c", &dockerfile);
    let metadata = harness.path("metadata");
    let flags =
        ["--platform=linux/amd64,linux/arm64", "--metadata-file", metadata.to_str().unwrap(), "-o", "type=cacheonly"];
    harness.build(&context, &flags).ok();
    let requests = registry.requests();
    assert_eq!((by_tag(&requests), fetched(&requests)), (1, 0), "{requests:#?}");
    for arch in ["amd64", "arm64"] {
        let provenance = &read_json(&metadata)[format!("buildx.build.provenance/linux/{arch}")];
        let dependencies = provenance["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
        assert_eq!(dependencies.len(), 1, "{provenance}");
        assert_eq!(dependencies[0]["digest"]["sha256"], digest.strip_prefix("sha256:").unwrap());
        let uri = format!("pkg:docker/{}/a/base@v1?platform=linux%2F{arch}", registry.host);
        assert_eq!(dependencies[0]["uri"], uri);
    }

    // What is known is not asked about, unless the user says so.
    harness.build(&context, &["-o", "type=cacheonly"]).ok();
    assert_eq!(registry.requests(), [""; 0]);
    push(&registry, "a/base:v1", "two");
    harness.build(&context, &["-o", "type=cacheonly"]).ok();
    assert_eq!(registry.requests(), [""; 0]);
    harness.build(&context, &[&["--pull"], &flags[..]].concat()).ok();
    let requests = registry.requests();
    assert_eq!((by_tag(&requests), fetched(&requests)), (1, 0), "{requests:#?}");
    let now = &read_json(&metadata)["buildx.build.provenance/linux/amd64"];
    assert_ne!(
        now["buildDefinition"]["resolvedDependencies"][0]["digest"]["sha256"],
        digest.strip_prefix("sha256:").unwrap()
    );

    // A COPY from it needs its files.
    harness.build_text(&format!("FROM scratch\nCOPY --from={name} /f /f\n"), &["-o", "type=cacheonly"]).ok();
    let requests = registry.requests();
    assert_eq!(
        requests.iter().filter(|request| request.starts_with("GET") && request.contains("/blobs/")).count(),
        1,
        "{requests:#?}"
    );
}

/// What `/out` holds after a build to a directory.
fn built(harness: &Harness, context: &Path, flags: &[&str]) -> Vec<String> {
    let out = harness.path("out");
    let _ = std::fs::remove_dir_all(&out);
    harness.build(context, &[&["-o", out.to_str().unwrap()], flags].concat()).ok();
    let text = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
    vec![text("f"), text("url"), text("git/top")]
}

#[test]
fn builds_hold_to_the_lock() {
    let (harness, registry, server, git) =
        (Harness::empty(), Registry::start(), FileServer::start(), GitServer::start());
    let name = format!("{}/a/base:v1", registry.host);
    let digest = push(&registry, "a/base:v1", "one");
    server.put("/url", b"one");
    let commit = git.commit("r", &[("top", "one")]);
    let url = server.url.replace("http://", "http://user:hunter2@");
    let dockerfile =
        format!("FROM {name} AS other\nFROM {name}\nARG REF=main\nADD {url}/url /url\nADD {}/r#$REF /git/\n", git.url);
    let context = harness.context("c", &dockerfile);
    let (lock, path) = (context.join("rbuild.lock"), context.to_str().unwrap());
    harness.build(&context, &["--locked"]).fails(1).says("there is no lock file").says("rbuild lock");
    harness.rbuild(&["lock", "--check", path]).fails(1).says("there is no ");
    let printed = harness.rbuild(&["lock", path]).ok().stdout;
    assert_eq!(printed.lines().filter(|line| line.starts_with("+ ")).count(), 3, "{printed}");
    let text = std::fs::read_to_string(&lock).unwrap();
    let host = server.url.strip_prefix("http://").unwrap();
    for entry in [
        format!("\n[images]\n\"{name}\" = \"{digest}\"\n"),
        format!("\n[urls]\n\"http://{host}/url\" = \"sha256:"),
        format!("\n[repositories]\n\"{}/r#main\" = \"{commit}\"\n", git.url),
    ] {
        assert!(text.contains(&entry), "{entry}: {text}");
    }
    assert!(!text.contains("hunter2"));
    harness.rbuild(&["lock", "--check", path]).ok();
    let old = ["one"; 3].map(str::to_owned);
    assert_eq!(built(&harness, &context, &["--locked"]), old);

    // All of it moves, and nothing of it in builds, on this machine or another.
    let new_digest = push(&registry, "a/base:v1", "two");
    server.put("/url", b"two");
    git.commit("r", &[("top", "two")]);
    let other = Harness::empty();
    assert_eq!(built(&harness, &context, &["--locked", "--pull", "--no-cache"]), old);
    let metadata = other.path_text("metadata");
    let outcome = other.build(&context, &["--metadata-file", &metadata, "--locked"]);
    // A URL can only be verified.
    outcome.fails(1).says("digest mismatch for http://xxxxx@").says("expected");
    server.put("/url", b"one");
    assert_eq!(built(&other, &context, &["--locked", "--metadata-file", &metadata]), old);
    let dependencies =
        read_json(Path::new(&metadata))["buildx.build.provenance"]["buildDefinition"]["resolvedDependencies"].clone();
    let dependencies = dependencies.as_array().unwrap();
    assert_eq!(dependencies.len(), 3, "{dependencies:?}");
    assert!(dependencies.iter().any(|found| found["digest"]["sha1"] == commit.as_str()), "{dependencies:?}");
    assert!(!format!("{dependencies:?}").contains("hunter2"));
    server.put("/url", b"two");

    // It is told, and taken over when the user says so: one, or all.
    let moved = harness.rbuild(&["lock", "--check", path]).fails(1);
    assert_eq!(moved.stdout.lines().filter(|line| line.starts_with("~ ")).count(), 3, "{}", moved.stdout);
    harness.rbuild(&["lock", path]).ok();
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), text, "what is there stays");
    harness.rbuild(&["lock", &format!("--update={}/a/base", registry.host), path]).ok();
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), text.replace(&digest, &new_digest));
    assert_eq!(built(&harness, &context, &["--locked"]), ["two", "one", "one"].map(str::to_owned));
    harness.rbuild(&["lock", "--update=nothing", path]).fails(2).says("no such entry");
    harness.rbuild(&["lock", path, "--update"]).ok();
    assert_eq!(built(&harness, &context, &["--locked"]), ["two"; 3].map(str::to_owned));
    harness.rbuild(&["lock", "--check", path]).ok();
    let updated = std::fs::read_to_string(&lock).unwrap();

    // What is missing is looked up, and told.
    git.git("r", &["tag", "v2"]);
    let arg = "--build-arg=REF=v2";
    harness.build(&context, &[arg]).ok().says("WARNING: the lock file has no entry for git://").says("#v2");
    harness.build(&context, &[arg, "--locked"]).fails(1).says("no entry for git://");
    harness.rbuild(&["lock", arg, path]).ok();
    assert_eq!(std::fs::read_to_string(&lock).unwrap().lines().count(), updated.lines().count() + 1);
    harness.build(&context, &[arg, "--locked"]).ok();
    harness.build(&context, &["--locked"]).ok();
    let removed = harness.rbuild(&["lock", path]).ok().stdout;
    assert!(removed.starts_with("- git://") && removed.lines().count() == 1, "{removed}");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), updated);
}

/// Beside the Dockerfile; in a context that is no directory, too.
#[test]
fn where_lock_files_lie() {
    let (harness, registry, git) = (Harness::empty(), Registry::start(), GitServer::start());
    let name = format!("{}/a/base:v1", registry.host);
    push(&registry, "a/base:v1", "one");
    let context = harness.context("c", "FROM scratch\n");
    std::fs::create_dir(context.join("docker")).unwrap();
    let file = context.join("docker/dev.Dockerfile");
    std::fs::write(&file, format!("FROM {name}\n")).unwrap();
    let (path, file) = (context.to_str().unwrap(), file.to_str().unwrap());
    harness.rbuild(&["lock", "-f", file, path]).ok();
    let text = std::fs::read_to_string(context.join("docker/dev.Dockerfile.lock")).unwrap();
    assert!(!context.join("rbuild.lock").exists());
    harness.rbuild(&["lock", file, "--check"]).ok();

    git.commit("r", &[("Dockerfile", &format!("FROM {name}\n")), ("rbuild.lock", &text)]);
    push(&registry, "a/base:v1", "two");
    for (flags, context) in [(&["-f", file][..], path), (&[], &format!("{}/r", git.url))] {
        let out = harness.path("out");
        let args = [&["build", "--locked", "-o", out.to_str().unwrap()], flags, &[context]].concat();
        harness.rbuild(&args).ok();
        assert_eq!(std::fs::read_to_string(out.join("f")).unwrap(), "one", "{context}");
        std::fs::remove_dir_all(&out).unwrap();
    }
    // No Dockerfile of standard input has one.
    let script = "printf 'FROM %s\\n' \"$2\" | \"$1\" build --locked -f - \"$3\"";
    harness.script(script, &[&name, path]).fails(1).says("there is no lock file");
    harness.rbuild(&["lock", "-f", "-", path]).fails(2);
}

#[test]
fn lock_files_that_are_none() {
    let harness = Harness::empty();
    let context = harness.context("c", "FROM scratch\nCOPY Dockerfile /\n");
    let (lock, path) = (context.join("rbuild.lock"), context.to_str().unwrap());
    for (text, problem) in [
        ("version = 1\n<<<<<<< HEAD\n".to_owned(), "rbuild.lock: line 2"),
        ("version = 9\n".to_owned(), "line 1: version 9 is not known"),
        ("#".repeat(2 << 20), "larger than 1024 KiB"),
    ] {
        std::fs::write(&lock, &text).unwrap();
        harness.build(&context, &[]).fails(1).says(problem);
        harness.rbuild(&["lock", path]).fails(1).says(problem);
    }
    // Written anew, whatever it was; a link is replaced and not followed.
    harness.rbuild(&["lock", "--update", path]).ok();
    harness.build(&context, &["--locked"]).ok();
    std::fs::remove_file(&lock).unwrap();
    let victim = harness.path("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &lock).unwrap();
    harness.build(&context, &[]).fails(1).says("rbuild.lock");
    harness.rbuild(&["lock", "--update", path]).ok();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert!(lock.symlink_metadata().unwrap().is_file());
    harness.build(&context, &["--locked"]).ok();
}
