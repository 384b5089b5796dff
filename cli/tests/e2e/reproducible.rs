//! The same inputs give the same image, wherever and whenever they are built (R4.8, R13).

use crate::harness::{Harness, tool};
use crate::servers::{FileServer, GitServer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EPOCH: &str = "1500000000";

/// An image in a layout directory.
struct Image {
    layout: PathBuf,
    manifest: Value,
    config: Value,
}

impl Image {
    fn read(layout: PathBuf) -> Image {
        let document = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        let index = document(&layout.join("index.json"));
        let digest = index["manifests"][0]["digest"].clone();
        let manifest = document(&blob(&digest));
        let config = document(&blob(&manifest["config"]["digest"]));
        Image { manifest, config, layout }
    }

    /// `path seconds` of each entry of a layer.
    fn times(&self, layer: usize) -> Vec<String> {
        let digest = self.manifest["layers"][layer]["digest"].as_str().unwrap();
        let path = self.layout.join("blobs").join(digest.replace(':', "/"));
        let script = "tar --full-time -tvf \"$1\" | while read -r m o s d t n; do echo \"$n $(date -u -d \"$d $t UTC\" +%s)\"; done";
        let lines = tool("sh", &["-c", &format!("TZ=UTC; export TZ; {script}"), "sh", path.to_str().unwrap()]);
        lines.lines().map(str::to_owned).collect()
    }
}

impl Harness {
    fn image(&self, name: &str, context: &Path, output: &str, flags: &[&str]) -> Image {
        let layout = self.path(name);
        let output = format!("--output=type=oci,tar=false,dest={}{output}", layout.display());
        self.build(context, &[&[output.as_str()], flags].concat()).ok();
        Image::read(layout)
    }
}

fn set_time(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

const DOCKERFILE: &str = "FROM busybox\nWORKDIR /made/deep\nRUN touch -d @1000 /old && echo new > /new && rm /etc/group && ln /new /linked\n\
    COPY f /f\nCOPY --link d /d/\nCMD [\"x\"]\n";

/// R4.8.3 to R4.8.6, R4.8.10, X3.6.
#[test]
fn times_are_no_later_than_the_epoch() {
    let harness = Harness::new();
    let context = harness.context("c", DOCKERFILE);
    std::fs::write(context.join("f"), "f").unwrap();
    set_time(&context.join("f"), 1_400_000_000);
    std::fs::create_dir(context.join("d")).unwrap();
    std::fs::write(context.join("d/g"), "g").unwrap();
    let arg = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");

    let image = harness.image("rewritten", &context, ",rewrite-timestamp=true", &[&arg]);
    assert_eq!(image.times(1), [format!("made/ {EPOCH}"), format!("made/deep/ {EPOCH}")]);
    let run = image.times(2);
    for line in ["etc/.wh.group 0", "linked 1500000000", "old 1000"] {
        assert!(run.iter().any(|found| found == line), "{line}: {run:?}");
    }
    assert!(run.iter().any(|found| found.starts_with("new ")), "{run:?}");
    assert_eq!(image.times(3), ["f 1400000000"]);
    assert_eq!(image.times(4), [format!("d/ {EPOCH}"), format!("d/g {EPOCH}")]);
    let layers = image.manifest["layers"].as_array().unwrap();
    let mark = |layer: &Value| layer["annotations"]["buildkit/rewritten-timestamp"].as_str().map(str::to_owned);
    assert_eq!(layers.iter().map(mark).collect::<Vec<_>>()[1..], vec![Some(EPOCH.to_owned()); 4]);
    assert_eq!(mark(&layers[0]), None, "the base's");
    let history = image.config["history"].as_array().unwrap();
    assert!(history[1..].iter().all(|entry| entry["created"] == "2017-07-14T02:40:00Z"), "{history:?}");
    assert_eq!(image.config["created"], "2017-07-14T02:40:00Z");

    // Without it only WORKDIR's directories and the documents have that time.
    let plain = harness.image("plain", &context, "", &[&arg]);
    assert_eq!(plain.times(1), image.times(1));
    assert!(plain.times(2).iter().any(|line| line.starts_with("new ") && !line.ends_with(EPOCH)));
    assert_eq!(plain.config["history"], image.config["history"]);
    assert_eq!(plain.manifest["layers"][0], image.manifest["layers"][0]);
    // Docker's documents have no annotations (R4.6.2).
    let docker = harness.image("docker", &context, ",rewrite-timestamp=true,oci-mediatypes=false", &[&arg]);
    assert!(docker.manifest["layers"].as_array().unwrap().iter().all(|layer| layer.get("annotations").is_none()));
    assert_eq!(docker.config["rootfs"], image.config["rootfs"]);

    // The output's own epoch goes first; an empty one is none (R4.8.1, R4.8.2, R4.8.7).
    let own = harness.image("own", &context, ",rewrite-timestamp=true,source-date-epoch=1200000000", &[&arg]);
    assert_eq!(own.times(3), ["f 1200000000"]);
    assert_eq!(own.config["created"], "2008-01-10T21:20:00Z");
    let none = harness.build(&context, &["-o", "type=image,rewrite-timestamp=true,source-date-epoch=", &arg]).ok();
    none.says("rewrite-timestamp needs SOURCE_DATE_EPOCH");
    harness.build(&context, &["-o", "type=image,source-date-epoch=x"]).fails(2).says("invalid source-date-epoch");
}

/// R13.2: another store, another checkout, another moment.
#[test]
fn equal_inputs_give_equal_digests() {
    let base = Harness::new();
    base.rbuild(&["save", "-o", &base.path_text("base.tar"), "busybox"]).ok();
    let digests = (0..2).map(|round: u64| {
        let harness = Harness::empty();
        harness.rbuild(&["load", "-i", &base.path_text("base.tar")]).ok();
        let context = harness.context(&format!("clone-{round}"), DOCKERFILE);
        std::fs::create_dir(context.join("d")).unwrap();
        for name in ["f", "d/g", "d"] {
            if name != "d" {
                std::fs::write(context.join(name), name).unwrap();
            }
            set_time(&context.join(name), 1_600_000_000 + round * 1000);
        }
        let build = |flags: &[&str]| {
            let mut command = harness.command(&["build", "--progress=plain", "--metadata-file"]);
            command.arg(harness.path("metadata")).args(flags).arg(&context).env("SOURCE_DATE_EPOCH", EPOCH);
            crate::harness::Outcome::of(command.output().unwrap()).ok();
            let metadata: Value = serde_json::from_slice(&std::fs::read(harness.path("metadata")).unwrap()).unwrap();
            metadata["containerimage.digest"].as_str().unwrap().to_owned()
        };
        let archive = harness.path_text("image.tar");
        let output = |kind: &str| format!("--output=type={kind},rewrite-timestamp=true,dest={archive}");
        let mut found = vec![build(&["--output=type=image,name=x,rewrite-timestamp=true"])];
        // Built anew, in another second.
        std::thread::sleep(Duration::from_millis(1100));
        found.push(build(&["--no-cache", "--output=type=image,name=x,rewrite-timestamp=true"]));
        assert_eq!(found[0], found[1]);
        for kind in ["oci", "docker"] {
            found.push(build(&[&output(kind)]));
            found.push(tool("sh", &["-c", "sha256sum < \"$1\"", "sh", &archive]));
        }
        found.push(build(&[
            "--platform=linux/amd64,linux/arm64",
            "--target=any",
            &output("oci"),
            "-f",
            &two(&harness),
        ]));
        found
    });
    let digests: Vec<_> = digests.collect();
    assert_eq!(digests[0], digests[1]);
}

/// A Dockerfile that runs nothing.
fn two(harness: &Harness) -> String {
    let path = harness.path("two.Dockerfile");
    std::fs::write(&path, "FROM scratch AS any\nWORKDIR /w\nCOPY f /f\n").unwrap();
    path.to_str().unwrap().to_owned()
}

/// R4.8.8.
#[test]
fn files_outside_of_images_all_have_the_epoch() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM scratch\nCOPY d /d\n");
    std::fs::create_dir(context.join("d")).unwrap();
    std::fs::write(context.join("d/old"), "").unwrap();
    set_time(&context.join("d/old"), 1000);
    let arg = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    let seconds = |path: &Path| {
        path.metadata().unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    };
    let (out, split) = (harness.path("out"), harness.path("split"));
    harness.build(&context, &[&arg, "-o", out.to_str().unwrap()]).ok();
    for path in ["d", "d/old"] {
        assert_eq!(seconds(&out.join(path)).to_string(), EPOCH, "{path}");
    }
    let output = format!("type=local,source-date-epoch=5,platform-split=true,dest={}", split.display());
    harness.build(&context, &[&arg, "-o", &output]).ok();
    let folder = std::fs::read_dir(&split).unwrap().next().unwrap().unwrap().path();
    assert_eq!((seconds(&folder), seconds(&folder.join("d/old"))), (5, 5));
    let output = format!("type=local,source-date-epoch=,dest={}", out.display());
    harness.build(&context, &[&arg, "-o", &output]).ok();
    assert_eq!(seconds(&out.join("d/old")), 1000);
    let tar = harness.path_text("out.tar");
    harness.build(&context, &[&arg, "-o", &format!("type=tar,dest={tar}")]).ok();
    let listing = tool("sh", &["-c", "TZ=UTC tar --full-time -tvf \"$1\"", "sh", &tar]);
    assert_eq!(listing.matches("2017-07-14 02:40:00").count(), 2, "{listing}");
}

/// D13.15: the time of a source.
#[test]
fn an_epoch_can_be_that_of_a_source() {
    let (harness, git, server) = (Harness::new(), GitServer::start(), FileServer::start());
    let dockerfile = "FROM busybox AS run\nARG SOURCE_DATE_EPOCH\nRUN echo epoch=$SOURCE_DATE_EPOCH.\n";
    git.commit("r", &[("Dockerfile", dockerfile)]);
    let time = git.git("r", &["show", "--no-patch", "--format=%ct"]).trim().to_owned();
    let url = format!("{}/r", git.url);
    let tells = |flags: &[&str], context: &str, epoch: &str| {
        let args = [&["build", "--progress=plain"], flags, &["--no-cache", context]].concat();
        harness.rbuild(&args).ok().says(&format!("epoch={epoch}.\n"))
    };
    tells(&["--build-arg=SOURCE_DATE_EPOCH=context"], &url, &time);
    tells(&["--build-arg=SOURCE_DATE_EPOCH=77"], &url, "77");
    server.put("/Dockerfile", dockerfile.as_bytes());
    // As the server says.
    tells(&["--build-arg=SOURCE_DATE_EPOCH=context"], &format!("{}/Dockerfile", server.url), "784111777");
    let stages = format!(
        "ARG FILE=x\nFROM scratch AS Source\nARG FILE\nADD {}/$FILE /\nFROM scratch AS repository\nADD {url}#main /\n\
         FROM busybox AS wrong\nADD {url} /\nFROM scratch AS more\nADD {url} /\nCOPY . /\n{dockerfile}",
        server.url
    );
    let directory = harness.context("c", &stages);
    let directory = directory.to_str().unwrap();
    server.put("/y", b"y");
    // A directory has no time of its own.
    tells(&["--build-arg=SOURCE_DATE_EPOCH=context"], directory, "");
    tells(&["--build-arg=SOURCE_DATE_EPOCH=source", "--build-arg=FILE=y"], directory, "784111777");
    tells(&["--build-arg=SOURCE_DATE_EPOCH=repository"], directory, &time);
    tells(&["--build-arg=SOURCE_DATE_EPOCH=named", &format!("--build-context=named={url}")], directory, &time);
    for (word, problem) in [
        ("wrong", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("more", "source-only requirements: unsupported COPY instruction"),
        ("run", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("yesterday", "invalid SOURCE_DATE_EPOCH: yesterday"),
    ] {
        let arg = format!("--build-arg=SOURCE_DATE_EPOCH={word}");
        harness.rbuild(&["build", "--progress=plain", &arg, directory]).fails(1).says(problem);
    }
}

/// The names in a directory of the store.
fn entries(harness: &Harness, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(harness.path("store").join(directory)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const VERIFY: &str = "--verify-reproducible";

#[test]
fn builds_that_are_the_same_again_pass() {
    let harness = Harness::new();
    // Neither build sees what the other one has left in a cache directory.
    let context = harness.context(
        "c",
        "FROM busybox AS stage\nRUN --mount=type=cache,target=/c test ! -e /c/seen && touch /c/seen && echo x > /x\n\
         FROM busybox\nCOPY --from=stage /x /x\nRUN ln /x /y\nCOPY Dockerfile /\n",
    );
    let arg = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    let output = "--output=type=image,name=x,rewrite-timestamp=true";
    let outcome = harness.build(&context, &[VERIFY, &arg, output]).ok();
    let outcome = outcome.says(" again: [stage 2/2] RUN").says(" again: [stage-1 4/4] COPY");
    assert!(!outcome.stderr.contains("CACHED"), "{}", outcome.stderr);
    let digest = harness.inspect("x")["Id"].clone();
    assert_eq!(entries(&harness, "mounts"), [""; 0]);
    assert_eq!(entries(&harness, "snapshots").len(), 5, "the base's layer and one for each step");
    // What it made is what later builds find.
    let outcome = harness.build(&context, &[&arg, output]).ok();
    assert_eq!(outcome.stderr.matches("CACHED").count(), 4, "{}", outcome.stderr);
    assert_eq!(harness.inspect("x")["Id"], digest);
    let out = harness.path_text("out");
    harness.build(&context, &[VERIFY, &arg, "-o", &out]).ok();
    let context = harness.context("two", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
    let platforms = "--platform=linux/amd64,linux/arm64";
    harness.build(&context, &[VERIFY, &arg, platforms, output]).ok();
}

#[test]
fn what_differs_from_one_build_to_the_next_is_told() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nENV A=b\nRUN echo same > /same; cat /proc/sys/kernel/random/uuid > /uuid; mkdir /$(cat /uuid)\n\
                      RUN mkdir /p && for i in $(seq 30); do cat /proc/uptime > /p/$i.pyc; done; touch -d @1000 /old\nCMD [\"x\"]\n";
    let context = harness.context("c", dockerfile);
    let arg = format!("--build-arg=SOURCE_DATE_EPOCH={EPOCH}");
    let output = "--output=type=image,name=x,rewrite-timestamp=true";
    let iid = harness.path("iid");
    let told = harness.build(&context, &[VERIFY, &arg, output, "--iidfile", iid.to_str().unwrap()]).fails(1);
    let told = told.says("the build is not reproducible: built again, 2 of 3 layers differ");
    let told =
        told.says(", layer 2 of 3: RUN /bin/sh -c echo same").says("  uuid: content of 37 bytes, differs from byte ");
    let told =
        told.says(": only in the first build\n").says(": only in the second build\n").says("  ... and 10 more\n");
    let told = told.says("note: Python's compiled files").stderr;
    assert!(!told.contains("  same: ") && !told.contains("  old: ") && !told.contains("in their time only"), "{told}");
    // Nothing was handed on.
    assert!(!iid.exists());
    harness.rbuild(&["inspect", "x"]).fails(1);
    assert_eq!(entries(&harness, "snapshots").len(), 3);

    // Times alone, and what helps.
    let context = harness.context("times", "FROM busybox\nRUN echo x > /x\n");
    let told = harness.build(&context, &[VERIFY]).fails(1).says("  x: modified at 20").says("created, history");
    told.says("note: 1 entry differs in its time only: set SOURCE_DATE_EPOCH");
    let told = harness.build(&context, &[VERIFY, &arg]).fails(1).says("1 of 2 layers differ").stderr;
    assert!(told.contains("give the outputs rewrite-timestamp=true") && !told.contains("created, history"), "{told}");
    let labels = harness.context("labels", "FROM busybox\nLABEL a=b\n");
    harness.build(&labels, &[VERIFY]).fails(1).says("differs in its own times").says("SOURCE_DATE_EPOCH");
    harness.build(&labels, &[VERIFY, &arg]).ok();
    harness.build(&labels, &[VERIFY, "-o", "type=cacheonly"]).ok();
}
