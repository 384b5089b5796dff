//! Remote caches: two stores on one machine are two machines that share nothing but the cache.

use crate::harness::{Harness, Outcome, Registry, tool};
use serde_json::Value;
use std::path::Path;

/// Two stages, and a part of the first that the second does not take.
const PROJECT: &str = "FROM busybox AS build\nWORKDIR /src\nCOPY a.txt .\nRUN cat a.txt > out && echo built > noise\n\
    FROM busybox\nRUN echo deps > /deps\nCOPY --from=build /src/out /out\nCOPY b.txt /b\nRUN cat /out /b > /all\n";

/// Another machine with the same base image.
pub fn machine(first: &Harness) -> Harness {
    let archive = first.path_text("base.tar");
    if !first.path("base.tar").exists() {
        first.rbuild(&["save", "busybox", "-o", &archive]).ok();
    }
    let harness = Harness::empty();
    harness.rbuild(&["load", "-i", &archive]).ok();
    harness
}

pub fn project(harness: &Harness) -> std::path::PathBuf {
    let context = harness.context("project", PROJECT);
    std::fs::write(context.join("a.txt"), "a\n").unwrap();
    std::fs::write(context.join("b.txt"), "b\n").unwrap();
    context
}

impl Outcome {
    /// The names of the steps that ran, without their prefixes.
    pub fn ran(&self) -> Vec<String> {
        let mut names = std::collections::BTreeMap::new();
        let mut ran = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' ')) else { continue };
            if rest.starts_with('[') && !rest.contains("internal]") {
                names.insert(number.to_owned(), rest.to_owned());
            }
            if rest.starts_with("DONE")
                && let Some((_, step)) = names.get(number).and_then(|name| name.split_once("] "))
                && !step.starts_with("FROM")
            {
                ran.push(step.to_owned());
            }
        }
        ran
    }
}

/// How many layers of steps a store has unpacked, and how many blobs it has.
fn layers(harness: &Harness) -> usize {
    let names = std::fs::read_dir(harness.path("store/snapshots")).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| !name.to_string_lossy().starts_with("chain-")).count()
}

fn blobs(harness: &Harness) -> Vec<String> {
    let entries = std::fs::read_dir(harness.path("store/blobs/sha256")).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

const NOTHING: [&str; 0] = [];

fn raw(name: &str) -> Value {
    let text = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_second_machine_runs_nothing() {
    let (first, registry) = (Harness::new(), Registry::start());
    let cache = format!("{}/cache/project", registry.host);
    let image = |n: u8| format!("{}/user/image:{n}", registry.host);
    let to = format!("type=registry,ref={cache},mode=max");
    let from = format!("type=registry,ref={cache}");
    let built =
        first.build(&project(&first), &["--cache-to", &to, "--cache-from", &from, "-t", &image(1), "--push"]).ok();
    let built =
        built.says("importing cache manifest from").says("there is no cache yet").says("exporting cache to registry");
    let built =
        built.says("preparing build cache for export").says("writing layer sha256:").says("writing config sha256:");
    assert_eq!(built.ran().len(), 7);

    // Nothing is fetched where nothing is needed.
    let second = machine(&first);
    let before = blobs(&second);
    let built = second.build(&project(&second), &["--cache-from", &from, "--output", "type=cacheonly"]).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!((layers(&second), blobs(&second).len()), (0, before.len()), "{}", built.stderr);

    // An image of the same bytes needs no files, and only layers that are in it.
    let built = second.build(&project(&second), &["--cache-from", &cache, "-t", &image(2), "--push"]).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!(layers(&second), 0);
    assert_eq!(raw(&image(1)), raw(&image(2)));
    assert_eq!(second.output(&image(2), &["cat", "/all"]), "a\nb\n");

    // A step that runs fetches what it stands on.
    let third = machine(&first);
    let context = project(&third);
    std::fs::write(context.join("b.txt"), "changed\n").unwrap();
    let built = third.build(&context, &["--cache-from", &from, "-t", "x"]).ok();
    assert_eq!(built.ran(), ["COPY b.txt /b", "RUN cat /out /b > /all"], "{}", built.stderr);
    assert_eq!(third.output("x", &["cat", "/all"]), "a\nchanged\n");
    // What was fetched is the store's own now.
    let built = third.build(&context, &[]).ok();
    assert_eq!(
        built.ran(),
        ["WORKDIR /src", "COPY a.txt .", "RUN cat a.txt > out && echo built > noise"],
        "{}",
        built.stderr
    );
}

#[test]
fn the_document_is_what_others_expect() {
    let (first, registry) = (Harness::new(), Registry::start());
    let cache = format!("{}/cache/project", registry.host);
    let metadata = first.path_text("metadata.json");
    let export = |attributes: &str, n: u8| {
        let to = format!("type=registry,ref={cache}:{n}{attributes}");
        first
            .build(&project(&first), &["--cache-to", &to, "--output", "type=cacheonly", "--metadata-file", &metadata])
            .ok();
        raw(&format!("{cache}:{n}"))
    };
    let manifest = export(",mode=max", 1);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 7);
    let layer = &manifest["layers"][0];
    assert!(layer["annotations"]["containerd.io/uncompressed"].as_str().unwrap().starts_with("sha256:"));
    assert!(layer["annotations"]["buildkit/createdat"].as_str().unwrap().ends_with('Z'));
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let metadata: Value = serde_json::from_str(&std::fs::read_to_string(metadata.clone()).unwrap()).unwrap();
    assert!(metadata["cache.manifest"]["digest"].as_str().unwrap().starts_with("sha256:"), "R7.6.18: {metadata}");
    assert_eq!(manifest, export(",mode=max", 2), "R7.6.7");
    // mode=min has what the result has.
    assert_eq!(export("", 3)["layers"].as_array().unwrap().len(), 4);
    assert_eq!(export(",compression=zstd", 4)["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    let plain = export(",compression=uncompressed", 5);
    assert_eq!(plain["layers"][0]["digest"], plain["layers"][0]["annotations"]["containerd.io/uncompressed"]);
    for (attributes, problem) in [
        ("ref=x,mode=most", "unknown mode"),
        ("mode=max", "ref is required"),
        ("ref=x,compression=estargz", "not supported yet"),
        ("ref=x,tga=y", "no attribute \"tga\""),
        ("ref=x,oci-mediatypes=false,image-manifest=true", "image-manifest=true needs"),
        ("ref=X", "invalid reference"),
    ] {
        let to = format!("type=registry,{attributes}");
        first.build(&project(&first), &["--cache-to", &to]).fails(2).says(problem);
    }
    first.build(&project(&first), &["--cache-to", "type=regstry,ref=x"]).fails(2).says("did you mean registry");
}

/// A cache that knows a build stage's content without its files spares the stage as long as nobody needs them.
#[test]
fn stages_without_files_run_when_they_are_needed() {
    let (first, directory) = (Harness::new(), tempfile::tempdir().unwrap());
    let cache = directory.path().join("cache");
    let to = format!("type=local,dest={}", cache.display());
    let from = format!("type=local,src={}", cache.display());
    first.build(&project(&first), &["--cache-to", &to]).ok();

    let second = machine(&first);
    let built = second.build(&project(&second), &["--cache-from", &from, "-t", "x"]).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!(second.output("x", &["cat", "/all"]), "a\nb\n");

    let third = machine(&first);
    let context = project(&third);
    std::fs::write(context.join("a.txt"), "changed\n").unwrap();
    let built = third.build(&context, &["--cache-from", &from, "-t", "x"]).ok();
    let mut ran = built.ran();
    ran.sort();
    let expected = [
        "COPY --from=build /src/out /out",
        "COPY a.txt .",
        "COPY b.txt /b",
        "RUN cat /out /b > /all",
        "RUN cat a.txt > out && echo built > noise",
        "WORKDIR /src",
    ];
    assert_eq!(ran, expected, "{}", built.stderr);
    assert_eq!(third.output("x", &["cat", "/all"]), "changed\nb\n");
}

#[test]
fn images_carry_their_own_cache() {
    let (first, registry) = (Harness::new(), Registry::start());
    let image = |n: u8| format!("{}/user/image:{n}", registry.host);
    first.build(&project(&first), &["--cache-to", "type=inline", "-t", &image(1), "--push"]).ok();
    first.build(&project(&first), &["--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", &image(2), "--push"]).ok();
    assert_eq!(raw(&image(1)), raw(&image(2)));
    first.build(&project(&first), &["-t", &image(3), "--push"]).ok();
    assert_ne!(raw(&image(1)), raw(&image(3)));
    let second = machine(&first);
    let built = second.build(&project(&second), &["--cache-from", &image(1), "-t", "x"]).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!(second.output("x", &["cat", "/all"]), "a\nb\n");
    // An image without a cache is none, and no mistake.
    let third = machine(&first);
    let built = third.build(&project(&third), &["--cache-from", &image(3), "-t", "x"]).ok();
    assert_eq!(built.ran().len(), 7);
    // What is built on top of an image does not have its records.
    let base = image(1);
    first.build_text(&format!("FROM {base}\nRUN echo on top > /top\n"), &["-t", &image(4), "--push"]).ok();
    let config =
        tool("skopeo", &["inspect", "--config", "--raw", "--tls-verify=false", &format!("docker://{}", image(4))]);
    assert!(!config.contains("moby.buildkit.cache.v0"));
    first.build(&project(&first), &["--cache-to", "type=inline,mode=max"]).fails(2).says("mode=max needs another type");
    first.build(&project(&first), &["--cache-from", "type=inline"]).fails(2).says("type=registry,ref=IMAGE");
}

/// R11, rows 78 and 79.
#[test]
fn caches_that_cannot_be_had_do_not_fail_builds() {
    let (harness, directory) = (Harness::new(), tempfile::tempdir().unwrap());
    let context = project(&harness);
    let built = harness.build(&context, &["--cache-from", "127.0.0.1:1/no/registry", "-t", "x"]).ok();
    built.says("ERROR").says("the build goes on without this cache");
    let broken = directory.path().join("broken");
    std::fs::create_dir_all(broken.join("blobs/sha256")).unwrap();
    std::fs::write(broken.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(broken.join("index.json"), "{").unwrap();
    let other = machine(&harness);
    let from = format!("type=local,src={}", broken.display());
    other.build(&project(&other), &["--cache-from", &from]).ok().says("the build goes on without this cache");
    // Exporting is another matter.
    let to = "type=registry,ref=127.0.0.1:1/no/registry";
    harness.build(&context, &["--cache-to", to, "-t", "kept"]).fails(1).says("exporting cache to registry failed");
    harness.inspect("kept");
    harness.build(&context, &["--cache-to", &format!("{to},ignore-error=true")]).ok();
    // What may be secret is not told.
    let to = "type=s3,bucket=b,region=r,secret_access_key=hidden,nonsense=also-hidden";
    let failed = harness.build(&context, &["--cache-to", to]).fails(2).says("of type s3");
    assert!(!failed.stderr.contains("hidden"), "{}", failed.stderr);
}

/// A warm build does not wait for a registry that never answers.
#[test]
fn warm_builds_wait_for_nobody() {
    let harness = Harness::new();
    let context = project(&harness);
    harness.build(&context, &[]).ok();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let from = format!("{}/never/answers", silent.local_addr().unwrap());
    let built = harness.build(&context, &["--cache-from", &from, "-t", "x"]).ok();
    assert_eq!(built.ran(), NOTHING);
    built.says("importing cache manifest from").says("CANCELED");
}

/// Changes the blob at a path that has this content.
type Damage = fn(&Path, &[u8]);

/// Blobs that are gone, or are not what they should be: their steps run, and the result is right.
#[test]
fn damaged_caches_are_not_believed() {
    let (first, directory) = (Harness::new(), tempfile::tempdir().unwrap());
    let cache = directory.path().join("cache");
    let from = format!("type=local,src={}", cache.display());
    first.build(&project(&first), &["--cache-to", &format!("type=local,dest={},mode=max", cache.display())]).ok();
    let index: Value = serde_json::from_str(&std::fs::read_to_string(cache.join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| cache.join("blobs/sha256").join(&digest.as_str().unwrap()["sha256:".len()..]);
    let read = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    let layers: Vec<_> = manifest["layers"].as_array().unwrap().iter().map(|layer| blob(&layer["digest"])).collect();
    let whole: Vec<_> = layers.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let damages: [(&str, Damage); 4] = [
        ("wrong content", |path, content| {
            let mut changed = content.to_vec();
            changed[20] ^= 1;
            std::fs::write(path, changed).unwrap();
        }),
        ("wrong content", |path, content| std::fs::write(path, &content[..content.len() - 1]).unwrap()),
        ("bytes where", |path, content| std::fs::write(path, [content, b"more"].concat()).unwrap()),
        ("is not in the cache", |path, _| std::fs::remove_file(path).unwrap()),
    ];
    for (said, damage) in damages {
        for (path, content) in layers.iter().zip(&whole) {
            damage(path, content);
        }
        for flags in [&["-t", "x"][..], &["--output", "type=local,dest=OUT"]] {
            let harness = machine(&first);
            let out = harness.path_text("out");
            let flags: Vec<_> = flags.iter().map(|flag| flag.replace("OUT", &out)).collect();
            let mut all = vec!["--cache-from", &from];
            all.extend(flags.iter().map(String::as_str));
            let built = harness.build(&project(&harness), &all).ok();
            built.says(said).says("what needs them runs without this cache");
            match flags[0].as_str() {
                "-t" => assert_eq!(harness.output("x", &["cat", "/all"]), "a\nb\n"),
                _ => assert_eq!(std::fs::read_to_string(harness.path("out/all")).unwrap(), "a\nb\n"),
            }
        }
        for (path, content) in layers.iter().zip(&whole) {
            std::fs::write(path, content).unwrap();
        }
    }
    // Documents that lie about what is in their layers.
    let config = blob(&manifest["config"]["digest"]);
    let mut document = read(&config);
    let records = document["records"].as_array_mut().unwrap();
    for record in records.iter_mut().filter(|record| !record["layers"].is_null()) {
        record["rbuild"]["content"] = "00".repeat(32).into();
    }
    republish(&cache, &manifest, &document);
    let harness = machine(&first);
    let out = format!("type=local,dest={}", harness.path_text("out"));
    let built = harness.build(&project(&harness), &["--cache-from", &from, "--output", &out]).ok();
    built.says("are not those that the cache says");
    assert_eq!(std::fs::read_to_string(harness.path("out/all")).unwrap(), "a\nb\n");
    // Documents that lead round in circles.
    let mut circle = document.clone();
    for record in circle["records"].as_array_mut().unwrap() {
        record["inputs"] = serde_json::json!([[{"link": 0}]]);
    }
    republish(&cache, &manifest, &circle);
    let harness = machine(&first);
    let built = harness.build(&project(&harness), &["--cache-from", &from]).ok();
    built.says("depends on itself").says("the build goes on without this cache");
}

/// Puts another document into the place of a cache's.
fn republish(cache: &Path, manifest: &Value, document: &Value) {
    let put = |bytes: &[u8]| {
        let scratch = cache.join("scratch");
        std::fs::write(&scratch, bytes).unwrap();
        let digest = tool("sha256sum", &[scratch.to_str().unwrap()])[..64].to_owned();
        std::fs::rename(scratch, cache.join("blobs/sha256").join(&digest)).unwrap();
        (format!("sha256:{digest}"), bytes.len())
    };
    let (config, config_size) = put(document.to_string().as_bytes());
    let mut manifest = manifest.clone();
    manifest["config"]["digest"] = config.into();
    manifest["config"]["size"] = config_size.into();
    let (digest, size) = put(manifest.to_string().as_bytes());
    let mut index: Value = serde_json::from_str(&std::fs::read_to_string(cache.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    std::fs::write(cache.join("index.json"), index.to_string()).unwrap();
}

/// A cache that is handed on from build to build stays whole, though no build has all of its layers.
#[test]
fn caches_are_handed_on() {
    let (first, directory) = (Harness::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let to = |name: &str| format!("type=local,dest={},mode=max", path(name));
    let from = |name: &str| format!("type=local,src={}", path(name));
    first.build(&project(&first), &["--cache-to", &to("a")]).ok();
    // Into the same directory: nothing is fetched to be written again.
    let second = machine(&first);
    let before = blobs(&second).len();
    let flags = ["--cache-from", &from("a"), "--cache-to", &to("a"), "--output", "type=cacheonly"];
    let built = second.build(&project(&second), &flags).ok();
    assert!(!built.stderr.contains("writing layer"), "{}", built.stderr);
    assert_eq!(blobs(&second).len(), before);
    // Into another one, and two at once.
    let third = machine(&first);
    let flags =
        ["--cache-from", &from("a"), "--cache-to", &to("b"), "--cache-to", &to("c"), "--output", "type=cacheonly"];
    let built = third.build(&project(&third), &flags).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!(layers(&third), 0);
    for name in ["a", "b", "c"] {
        let last = machine(&first);
        let built = last.build(&project(&last), &["--cache-from", &from(name), "-t", "x"]).ok();
        assert_eq!(built.ran(), NOTHING, "{name}: {}", built.stderr);
    }
    let config = |name: &str| {
        let inspected = tool("skopeo", &["inspect", "--raw", &format!("oci:{}:latest", path(name))]);
        serde_json::from_str::<Value>(&inspected).unwrap()["config"]["digest"].clone()
    };
    assert_eq!((config("a"), config("a")), (config("b"), config("c")));
    // The first of several sources that knows a step is taken.
    let several = machine(&first);
    let flags = ["--cache-from", &from("nothing"), "--cache-from", &from("b"), "-t", "x"];
    assert_eq!(several.build(&project(&several), &flags).ok().ran(), NOTHING);
}

/// Deleted files, opaque directories, links, owners and modes survive the way through a cache, checked by content id.
#[test]
fn layers_of_all_kinds_are_the_same_on_the_other_machine() {
    const KINDS: &str = "FROM busybox\n\
        RUN mkdir -p /d/e && echo one > /d/one && ln /d/one /d/two && ln -s one /d/three && mkfifo /d/pipe && chmod 4750 /d/one\n\
        RUN rm -r /d/e && rm /d/two && mkdir /d/e && touch -d @1000000000 /d/old && mkdir -m 1777 /sticky\n\
        RUN rm -r /d && mkdir /d && echo new > /d/new && touch /sticky/.hidden 'with space' && true > /empty\n\
        COPY --link <<END /copied/file\ntext\nEND\n\
        RUN find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -type f -newer /d/new -print > /dev/null; cat /d/new\n";
    let (first, directory) = (Harness::new(), tempfile::tempdir().unwrap());
    let path = directory.path().join("cache").display().to_string();
    let to = format!("type=local,dest={path},mode=max,compression=zstd");
    first.build_text(KINDS, &["--cache-to", &to, "-t", "x"]).ok();
    let second = machine(&first);
    let from = format!("type=local,src={path}");
    let flags = ["--cache-from", &from, "-t", "x"];
    assert_eq!(second.build_text(KINDS, &flags).ok().ran(), NOTHING);
    assert_eq!(first.inspect("x")["Id"], second.inspect("x")["Id"], "the same image without compression");
    // All layers are unpacked for a step on top of them.
    let more = format!("{KINDS}RUN ls -la /d /sticky > /list\n");
    let built = second.build_text(&more, &flags).ok();
    assert!(!built.stderr.contains("without this cache"), "{}", built.stderr);
    assert_eq!(built.ran(), ["RUN ls -la /d /sticky > /list"], "{}", built.stderr);
    // From now on they are the store's, and still make the same image.
    assert_eq!(second.build_text(KINDS, &["-t", "y"]).ok().ran(), NOTHING);
    assert_eq!(first.inspect("x")["Id"], second.inspect("y")["Id"]);
}

#[test]
fn platforms_share_a_cache() {
    const MULTI: &str = "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
        FROM scratch\nCOPY --from=build /arch /arch\n";
    let (first, registry) = (Harness::new(), Registry::start());
    let image = format!("{}/user/image:1", registry.host);
    let cache = format!("{}/user/cache:1", registry.host);
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let to = format!("type=registry,ref={cache},mode=max");
    let flags = ["-t", &image, "--push", "--cache-to", "type=inline", "--cache-to", &to];
    first.build_text(MULTI, &[&platforms[..], &flags].concat()).ok();
    for from in [&image, &cache] {
        let second = machine(&first);
        let flags = ["--cache-from", from, "-t", "x"];
        let built = second.build_text(MULTI, &[&platforms[..], &flags].concat()).ok();
        assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    }
}
