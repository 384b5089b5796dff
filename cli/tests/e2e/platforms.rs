//! Several platforms, and platforms that are not this machine's.

use crate::harness::{Harness, Outcome, Registry, foreign_busybox, is_root, tool};
use oci::Platform;
use serde_json::{Value, json};
use std::collections::HashSet;

/// Not this machine's.
const OTHERS: [&str; 2] = ["linux/s390x", "linux/riscv64"];

const STAGES: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS tools
ARG NONCE
RUN echo $NONCE; head -c 8 /dev/urandom | od -An -tx1 > /random
FROM --platform=$BUILDPLATFORM busybox AS cross
ARG TARGETARCH
RUN echo $TARGETARCH > /architecture
FROM scratch
ARG TARGETPLATFORM
LABEL platform=$TARGETPLATFORM
COPY --from=tools /random /
COPY --from=cross /architecture /
";

fn read_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn platforms_of(index: &Value) -> Vec<String> {
    let manifests = index["manifests"].as_array().unwrap_or_else(|| panic!("{index}"));
    let name = |manifest: &Value| {
        let part = |name| manifest["platform"][name].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", part("os"), part("architecture"))
    };
    manifests.iter().map(name).collect()
}

/// R9.7, R9.8, R4.6.3, R5.11, X5.14.
#[test]
fn several_platforms_make_an_index() {
    let harness = Harness::new();
    let host = Platform::host().to_string();
    let (metadata, iid, archive) =
        (harness.path_text("metadata.json"), harness.path_text("iid"), harness.path_text("image.tar"));
    let layout = harness.path_text("layout");
    let (oci, directory) = (format!("type=oci,dest={archive}"), format!("type=oci,tar=false,dest={layout}"));
    let all = [OTHERS[0], &host, OTHERS[1]];
    let flags = [
        "-t",
        "several:1",
        "--platform",
        &all[..2].join(","),
        "--platform",
        OTHERS[1],
        "--metadata-file",
        &metadata,
        "--iidfile",
        &iid,
        "-o",
        &oci,
        "-o",
        &directory,
        "-o",
        "type=image",
        "--build-arg",
        "NONCE=1",
    ];
    let built = harness.build_text(STAGES, &flags).ok();
    let numbers = built.stderr.lines().filter(|line| line.contains("RUN echo 1;")).map(|line| line.split(' ').next());
    assert_eq!(numbers.collect::<HashSet<_>>().len(), 1, "{}", built.stderr);
    assert!(built.stderr.contains(&format!("[{host} tools 2/2] RUN")), "{}", built.stderr);
    let cross = format!("[{host}->{} cross 2/2]", OTHERS[0].trim_start_matches("linux/"));
    assert!(built.stderr.contains(&cross), "{}", built.stderr);
    assert!(built.stderr.contains(&format!("[{} stage-2 1/2] COPY", OTHERS[0])), "{}", built.stderr);

    // What other tools see, in the archive and in the directory.
    for source in [format!("oci-archive:{archive}:1"), format!("oci:{layout}:1")] {
        let index = read_json(&tool("skopeo", &["inspect", "--raw", &source]));
        assert_eq!(platforms_of(&index), all, "the order given");
        let mut randoms = Vec::new();
        for platform in all {
            let architecture = platform.trim_start_matches("linux/");
            let config = tool("skopeo", &["--override-arch", architecture, "inspect", "--config", &source]);
            assert_eq!(read_json(&config)["config"]["Labels"]["platform"], platform);
            assert_eq!(read_json(&config)["architecture"], architecture);
            randoms.push(read_json(&config)["rootfs"]["diff_ids"][0].clone());
        }
        assert!(randoms.iter().all(|random| *random == randoms[0]), "the shared stage ran once: {randoms:?}");
    }
    tool("umoci", &["list", "--layout", &layout]);
    let metadata = read_json(&std::fs::read_to_string(metadata).unwrap());
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert_eq!(metadata["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(metadata["containerimage.config.digest"], Value::Null);
    assert_eq!(std::fs::read_to_string(iid).unwrap(), digest);

    // The store has all of it, under one name.
    let image = harness.inspect("several:1");
    assert_eq!((&image["Id"], &image["Architecture"]), (&json!(digest), &json!(Platform::host().architecture)));
    assert_eq!(platforms_of(&json!({"manifests": image["Manifests"]})), all);
    let other = harness.rbuild(&["inspect", "--platform", OTHERS[1], "several:1"]).ok().stdout;
    assert_eq!(read_json(&other)[0]["Architecture"], "riscv64");
    harness.rbuild(&["inspect", "--platform", "linux/ppc64le", "several:1"]).fails(1).says("linux/s390x");
    assert!(harness.rbuild(&["history", "--platform", OTHERS[0], "several:1"]).ok().stdout.contains(OTHERS[0]));
    let id = &digest.trim_start_matches("sha256:")[..12];
    assert!(harness.rbuild(&["images"]).ok().stdout.contains(id));

    // A base takes the manifest of its platform.
    for platform in all {
        let inspected = harness.path_text("base.json");
        let flags = ["--platform", platform, "-t", "based", "--metadata-file", &inspected];
        harness.build_text("FROM several:1\nLABEL x=y\n", &flags).ok();
        let based = harness.inspect("based");
        assert_eq!(based["Config"]["Labels"]["platform"], platform);
        assert_eq!(based["Architecture"], platform.trim_start_matches("linux/"));
    }
    harness.build_text("FROM several:1\n", &["--platform", "linux/ppc64le"]).fails(1).says("no match for platform");

    // Again, all is cached, and the image is the same.
    let iid = harness.path_text("iid");
    let again =
        harness.build_text(STAGES, &["--platform", &all.join(","), "--iidfile", &iid, "--build-arg", "NONCE=1"]);
    assert!(again.ok().stderr.contains("CACHED"));
}

/// Nothing of it is lost on the way.
#[test]
fn an_index_is_pushed_saved_and_removed_whole() {
    let (harness, registry) = (Harness::empty(), Registry::start());
    let name = format!("{}/several:1", registry.host);
    let context = harness.context("context", "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY f /\n");
    std::fs::write(context.join("f"), "content").unwrap();
    let platforms = OTHERS.join(",");
    harness.build(&context, &["-t", &name, "--platform", &platforms, "--push"]).ok();
    let remote = format!("docker://{name}");
    let raw = || read_json(&tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &remote]));
    assert_eq!(platforms_of(&raw()), OTHERS);

    // From the store, where layers are not compressed.
    harness.build(&context, &["-t", &name, "--platform", &platforms, "--label", "again=1"]).ok();
    harness.rbuild(&["push", &name]).ok();
    assert_eq!(platforms_of(&raw()), OTHERS);
    let all = format!("dir:{}", harness.path_text("all"));
    tool("skopeo", &["--insecure-policy", "copy", "--quiet", "--all", "--src-tls-verify=false", &remote, &all]);
    let remote = &raw()["manifests"][1]["digest"];
    let remote = format!("docker://{}@{}", name.trim_end_matches(":1"), remote.as_str().unwrap());
    let manifest = read_json(&tool("skopeo", &["inspect", "--tls-verify=false", "--raw", &remote]));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");

    let archive = harness.path_text("saved.tar");
    harness.rbuild(&["save", "-o", &archive, &name]).ok();
    let other = Harness::empty();
    other.rbuild(&["load", "-i", &archive]).ok();
    assert_eq!(other.inspect(&name)["Id"], harness.inspect(&name)["Id"]);
    let pulled = Harness::empty();
    pulled.rbuild(&["pull", "--platform", OTHERS[1], &name]).ok();
    assert_eq!(pulled.inspect(&name)["Architecture"], "riscv64");
    // A name that is here for one platform is asked for again for another.
    pulled.build_text(&format!("FROM {name}\n"), &["--platform", &platforms, "-t", "both"]).ok();
    let both = pulled.inspect("both");
    assert_eq!(both["Manifests"].as_array().unwrap().len(), 2);
    let labels = OTHERS.map(|platform| {
        let image = pulled.rbuild(&["inspect", "--platform", platform, "both"]).ok().stdout;
        read_json(&image)[0]["Config"]["Labels"]["a"].clone()
    });
    assert_eq!(labels, ["s390x", "riscv64"]);

    let blobs = || std::fs::read_dir(other.path("store/blobs/sha256")).unwrap().count();
    assert!(blobs() > 4);
    other.rbuild(&["rmi", &name]).ok();
    assert_eq!(blobs(), 0);
}

/// R5.10, R5.10.3.
#[test]
fn files_of_each_platform_have_a_folder() {
    let harness = Harness::empty();
    let context = harness.context(
        "context",
        "ARG TARGETARCH\nFROM scratch AS same\nCOPY f /d/same\nFROM scratch\nARG TARGETARCH\nCOPY f /d/$TARGETARCH\n",
    );
    std::fs::write(context.join("f"), "content").unwrap();
    let platforms = "linux/amd64,linux/arm/v7";
    let out = |name: &str| harness.path_text(name);
    let build = |output: String, flags: &[&str]| {
        harness.build(&context, &[&["--platform", platforms, "-o", &output], flags].concat())
    };
    build(out("split"), &[]).ok();
    assert!(harness.path("split/linux_amd64/d/amd64").is_file() && harness.path("split/linux_arm_v7/d/arm").is_file());
    build(format!("type=local,dest={},platform-split=false", out("together")), &[]).ok();
    assert!(harness.path("together/d/amd64").is_file() && harness.path("together/d/arm").is_file());
    let message = "cannot overwrite d/same from linux/amd64 with linux/arm/v7 when split option is disabled";
    for output in ["local", "tar"] {
        let output = format!("type={output},dest={},platform-split=false", out("conflict"));
        build(output, &["--target", "same"]).fails(1).says(message);
    }
    let listed = |name: &str| tool("tar", &["tf", &out(name)]);
    build(format!("type=tar,dest={}", out("split.tar")), &[]).ok();
    assert_eq!(
        listed("split.tar"),
        "linux_amd64/\nlinux_amd64/d/\nlinux_amd64/d/amd64\nlinux_arm_v7/\nlinux_arm_v7/d/\nlinux_arm_v7/d/arm\n"
    );
    build(format!("type=tar,dest={},platform-split=false", out("together.tar")), &[]).ok();
    assert_eq!(listed("together.tar"), "d/\nd/amd64\nd/arm\n");
    let one = format!("type=local,dest={},platform-split=true", out("one"));
    harness.build(&context, &["--platform", "linux/arm64", "-o", &one]).ok();
    assert!(harness.path("one/linux_arm64/d/arm64").is_file());
}

/// R5.9.6, R4.6.4.
#[test]
fn an_index_is_refused_where_it_cannot_be_and_made_where_it_is_wanted() {
    let harness = Harness::empty();
    let text = "FROM scratch\nLABEL a=b\n";
    let archive = format!("type=docker,dest={}", harness.path_text("docker.tar"));
    let several = ["--platform", "linux/amd64,linux/arm64"];
    harness.build_text(text, &[&several[..], &["-o", &archive]].concat()).fails(2).says("manifest lists");
    let denied = [&several[..], &["--build-arg", "BUILDKIT_MULTI_PLATFORM=false"]].concat();
    harness.build_text(text, &denied).fails(2).says("BUILDKIT_MULTI_PLATFORM=false");
    harness.build_text(text, &["--platform", "linux/amd64,"]).fails(2).says("invalid platform");
    harness.build_text(text, &["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "-t", "forced"]).ok();
    let forced = harness.inspect("forced");
    assert_eq!(platforms_of(&json!({"manifests": forced["Manifests"]})), [Platform::host().to_string()]);
    // The same platform twice is one.
    harness.build_text(text, &["--platform", "linux/arm64,linux/aarch64", "-t", "one"]).ok();
    assert_eq!(harness.inspect("one")["Manifests"], Value::Null);
    harness.build_text(text, &[&several[..], &["-o", "type=image,oci-mediatypes=false", "-t", "docker"]].concat()).ok();
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert_eq!(harness.inspect("docker")["Descriptor"]["mediaType"], list);
    harness.build_text("FROM docker\nLABEL c=d\n", &["--platform", "linux/arm64", "-t", "on-docker"]).ok();
    assert_eq!(harness.inspect("on-docker")["Architecture"], "arm64");
}

/// D21.6: each warning is said once.
#[test]
fn warnings_are_not_repeated_for_each_platform() {
    let harness = Harness::empty();
    let built = harness.build_text("FROM scratch as x\nLABEL a=b\n", &["--platform", "linux/amd64,linux/arm64"]).ok();
    assert_eq!(built.stderr.matches("FromAsCasing").count(), 1, "{}", built.stderr);
}

#[test]
fn without_run_any_platform_can_be_built() {
    let harness = Harness::empty();
    let context = harness.context("context", "FROM scratch\nARG TARGETOS\nCOPY f /$TARGETOS\nWORKDIR /w\n");
    std::fs::write(context.join("f"), "content").unwrap();
    let platforms = ["windows(10.0.20348.1006)/amd64", "darwin/arm64", "linux/quantum", "linux/amd64/v3"];
    harness.build(&context, &["--platform", &platforms.join(","), "-t", "any"]).ok();
    let image = harness.inspect("any");
    let windows = &image["Manifests"][0]["platform"];
    assert_eq!(*windows, json!({"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.1006"}));
    assert_eq!(image["Manifests"][3]["platform"]["variant"], "v3");
    assert_eq!(image["Manifests"][2]["platform"]["architecture"], "quantum");
}

/// The platform of [`foreign_busybox`], and what its `uname` says.
pub const FOREIGN: (&str, &str) =
    if cfg!(target_arch = "aarch64") { ("linux/amd64", "x86_64") } else { ("linux/arm64", "aarch64") };

/// rbuild in a user namespace whose root it is and whose handlers are those that `setup` registers, whatever the machine has. It takes rbuild's
/// PATH, and looks for emulators there.
fn with_handlers(harness: &Harness, setup: &str, path: &str, args: &[&str]) -> Outcome {
    let script = "set -e; mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; eval \"$1\"; export PATH=\"$2\"; shift 2; exec \"$@\"";
    let rbuild = harness.command(args);
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", setup, path]);
    command.arg(rbuild.get_program()).args(rbuild.get_args());
    for (name, value) in rbuild.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Outcome::of(command.stdin(std::process::Stdio::null()).output().unwrap())
}

/// Registers Debian's emulator with the flags given, as its package does.
fn registration(flags: &str) -> String {
    let processor = FOREIGN.1;
    format!(
        "sed -n 's/:[A-Z]*$/:{flags}/p' /usr/lib/binfmt.d/qemu-{processor}.conf > /proc/sys/fs/binfmt_misc/register"
    )
}

/// A context with a shell for this machine and one for another.
fn context_of_two(harness: &Harness, dockerfile: &str) -> String {
    let context = harness.context("context", dockerfile);
    let own = tool("sh", &["-c", "command -v busybox"]);
    std::fs::copy(own.trim(), context.join(format!("busybox-{}", Platform::host().architecture))).unwrap();
    let foreign = FOREIGN.0.trim_start_matches("linux/");
    std::fs::copy(foreign_busybox(), context.join(format!("busybox-{foreign}"))).unwrap();
    context.to_str().unwrap().to_owned()
}

const TWO: &str = "\
FROM scratch
ARG TARGETARCH
COPY busybox-$TARGETARCH /bin/sh
COPY busybox-$TARGETARCH /bin/uname
RUN uname -m > /machine && sh -c 'echo $0 $(uname -m) >> /machine'
CMD [\"cat\", \"/machine\"]
";

/// R9.10, R9.13. Without root by handlers of rbuild's own; as root only by what is registered.
#[test]
fn steps_of_another_processor_run_by_an_emulator() {
    let harness = Harness::empty();
    let context = context_of_two(&harness, TWO);
    let host = Platform::host().to_string();
    let out = format!("type=local,dest={}", harness.path_text("out"));
    let platforms = format!("{},{host}", FOREIGN.0);
    let build =
        ["build", "--progress=plain", "--platform", &platforms, "-o", &out, "-o", "type=image", "-t", "two", &context];
    let run = ["run", "--platform", FOREIGN.0, "two", "sh", "-c", "uname -m"];
    let path = std::env::var("PATH").unwrap();
    let rbuild = |args: &[&str]| match is_root() {
        true => with_handlers(&harness, &registration("OPF"), &path, args),
        false => harness.rbuild(args),
    };
    rbuild(&build).ok();
    let machine = |platform: &str| {
        std::fs::read_to_string(harness.path("out").join(platform.replace('/', "_")).join("machine")).unwrap()
    };
    assert_eq!(machine(FOREIGN.0), format!("{0}\nsh {0}\n", FOREIGN.1));
    let own = tool("uname", &["-m"]);
    assert_eq!(machine(&host), format!("{own}sh {own}"));
    assert_eq!(rbuild(&run).ok().stdout, format!("{}\n", FOREIGN.1));
    assert!(rbuild(&build).ok().stderr.contains("CACHED"));
}

/// R9.14.
#[test]
fn it_is_said_what_an_emulator_takes() {
    let harness = Harness::empty();
    let context = context_of_two(&harness, TWO);
    let build = ["build", "--progress=plain", "--platform", FOREIGN.0, "-t", "two", &context];
    let what = format!("exec format error: /bin/sh: it is for {}", FOREIGN.0);
    let nothing = with_handlers(&harness, "", "/nowhere", &build).fails(1).says(&what);
    nothing.says("apt-get install qemu-user-static").says("tonistiigi/binfmt --install");
    let path = std::env::var("PATH").unwrap();
    with_handlers(&harness, "", &path, &build).fails(1).says(&what).says("systemctl restart systemd-binfmt");
    // Its interpreter is not in the image.
    let without = with_handlers(&harness, &registration("OP"), "/nowhere", &build).fails(1);
    without.says("lacks the flag F");
    // Only a step that runs needs one.
    let copies = harness.context("copies", "FROM scratch\nCOPY Dockerfile /\n");
    let copies = ["build", "--progress=plain", "--platform", FOREIGN.0, "-t", "copies", copies.to_str().unwrap()];
    with_handlers(&harness, "", "/nowhere", &copies).ok();
}

/// R9.12, R9.14.
#[test]
fn programs_that_cannot_be_started_are_explained() {
    let harness = Harness::empty();
    let foreign = FOREIGN.0.trim_start_matches("linux/");
    let context = context_of_two(&harness, &format!("FROM scratch\nCOPY busybox-{foreign} /bin/sh\nRUN true\n"));
    // As an image of this machine's would be that holds something else.
    let build = ["build", "--progress=plain", "-t", "mistaken", &context];
    let host = Platform::host();
    let mistaken = with_handlers(&harness, "", "/nowhere", &build).fails(1);
    mistaken.says(&format!("it is for {} and not for {host}: use --platform={}", FOREIGN.0, FOREIGN.0));
    let own = format!("busybox-{}", host.architecture);
    let dockerfile =
        format!("FROM scratch\nCOPY {own} /bin/sh\nCOPY --chmod=755 Dockerfile /script\nRUN [\"/script\"]\n");
    std::fs::write(harness.path("context/Dockerfile"), dockerfile).unwrap();
    // Layers made in that user namespace are not for others: from here on another store.
    let context_of = harness;
    let harness = Harness::empty();
    harness.rbuild(&build).fails(1).says("nor a script that begins with `#!`");
    for (platform, message) in [
        ("linux/quantum", "it is for linux/quantum, and there is no emulator of this processor"),
        ("windows/amd64", "it is for windows/amd64, and rbuild runs programs of Linux only"),
    ] {
        let dockerfile = "FROM scratch\nCOPY --chmod=755 Dockerfile /script\nRUN [\"/script\"]\n";
        std::fs::write(context_of.path("context/Dockerfile"), dockerfile).unwrap();
        let flags = ["build", "--progress=plain", "--platform", platform, &context];
        harness.rbuild(&flags).fails(1).says(message);
    }
    if cfg!(target_arch = "x86_64") {
        let flags = ["build", "--progress=plain", "--platform", "linux/amd64/v9", &context];
        harness
            .rbuild(&flags)
            .fails(1)
            .says("no support for running processes with linux/amd64/v9 platform, supported: linux/amd64");
    }
}

/// R9.4: an image without the platform is not run in place of one.
#[test]
fn run_refuses_an_image_of_another_platform() {
    let harness = Harness::new();
    harness.rbuild(&["run", "--platform", FOREIGN.0, "busybox", "true"]).fails(125).says("no match for platform");
    let host = Platform::host().to_string();
    harness.rbuild(&["run", "--platform", &host, "busybox", "true"]).ok();
}
