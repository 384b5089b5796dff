//! `rbuild du`, `rbuild prune`, and the collection after builds (R7.7).

use crate::harness::{Harness, Outcome, is_root, printed, tool};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn records(harness: &Harness, flags: &[&str]) -> Vec<Value> {
    let out = harness.rbuild(&[&["du", "--format=json"], flags].concat()).ok().stdout;
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(records: &[Value]) -> u64 {
    records.iter().map(|record| record["Bytes"].as_u64().unwrap()).sum()
}

/// What a tree takes on the disk, each file once.
fn on_disk(path: &Path, seen: &mut HashSet<u64>) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = if seen.insert(metadata.ino()) { metadata.blocks() * 512 } else { 0 };
    let inner = if metadata.is_dir() { fs::read_dir(path).unwrap().flatten().collect() } else { Vec::new() };
    own + inner.iter().map(|entry| on_disk(&entry.path(), seen)).sum::<u64>()
}

fn prune(harness: &Harness, flags: &[&str]) -> Outcome {
    let outcome = harness.rbuild(&[&["prune", "--force"], flags].concat()).ok();
    // Nothing that was begun stays.
    for name in ["trash", "tmp"] {
        assert_eq!(fs::read_dir(harness.path("store").join(name)).unwrap().count(), 0, "{name}");
    }
    outcome
}

fn configure(harness: &Harness, text: &str) {
    fs::create_dir_all(harness.path("config/rbuild")).unwrap();
    fs::write(harness.path("config/rbuild/config.toml"), text).unwrap();
}

fn layers(harness: &Harness) -> usize {
    fs::read_dir(harness.path("store/snapshots")).unwrap().count()
}

fn cached(outcome: &Outcome) -> usize {
    outcome.stderr.matches("CACHED").count()
}

/// R7.7.10. Files that layers share count once.
#[test]
fn sums_agree_with_the_disk() {
    let harness = Harness::new();
    let dockerfile =
        "FROM busybox\nCOPY . /c/\nRUN --mount=type=cache,target=/m head -c 300000 /dev/zero > /m/f; ln /c/big /hard\n";
    let context = harness.context("c", dockerfile);
    fs::write(context.join("big"), vec![b'x'; 1 << 20]).unwrap();
    for round in 0..3 {
        fs::write(context.join("small"), format!("{round}")).unwrap();
        harness.build(&context, &["--output=type=cacheonly"]).ok();
    }
    let all = records(&harness, &[]);
    // Layers belong to other users without root: their sizes are asked of somebody who may look.
    if is_root() {
        let mut seen = HashSet::new();
        let store = harness.path("store");
        let mut expected = 0;
        for directory in ["snapshots", "mounts"] {
            for entry in fs::read_dir(store.join(directory)).unwrap().flatten() {
                expected += if entry.path().is_dir() { on_disk(&entry.path(), &mut seen) } else { 0 };
            }
        }
        let digests = fs::read_dir(&store).unwrap().flatten();
        let digests = digests.filter(|entry| entry.file_name().to_string_lossy().starts_with("digests-"));
        expected += digests.map(|entry| on_disk(&entry.path(), &mut seen)).sum::<u64>();
        assert_eq!(bytes(&all), expected, "{all:#?}");
    }
    assert!(bytes(&all) > 1 << 20 && bytes(&all) < 10 << 20);
    let described = |text: &str| all.iter().any(|record| record["Description"].as_str().unwrap().contains(text));
    assert!(described("COPY . /c/") && described("cache mount /m") && described("unpacked layer of"), "{all:#?}");
    let table = harness.rbuild(&["du"]).ok().stdout;
    assert!(table.starts_with("ID ") && table.contains("LAST ACCESSED") && table.contains("\nTotal:"), "{table}");
    assert!(table.contains("exec.cachemount"), "{table}");
    let mounts = records(&harness, &["--filter", "type=exec.cachemount"]);
    assert_eq!((mounts.len(), mounts[0]["Mutable"].as_bool()), (1, Some(true)));
    // Everything goes, and with it what the sums said.
    prune(&harness, &["--all"]);
    assert_eq!((bytes(&records(&harness, &[])), layers(&harness)), (0, 0));
}

/// R7.7.6: what an image with a name shares stays, unless all is to go; the image stays in any case.
#[test]
fn images_keep_what_they_share() {
    let harness = Harness::new();
    let build = |text: &str, flags: &[&str]| harness.build_text(&format!("FROM busybox\n{text}"), flags).ok();
    build("RUN echo 1 > /one\nRUN echo 2 > /two\n", &["-t", "kept"]);
    build("RUN echo other > /other\n", &["--output=type=cacheonly"]);
    let out = prune(&harness, &[]).stdout;
    assert!(out.contains("RUN echo other") && !out.contains("RUN echo 1") && out.contains("\nTotal: "), "{out}");
    assert_eq!(cached(&build("RUN echo 1 > /one\nRUN echo 2 > /two\n", &["-t", "kept"])), 2);
    prune(&harness, &["--all"]);
    assert_eq!(layers(&harness), 0);
    assert_eq!(harness.output("kept", &["cat", "/two"]), "2\n");
    assert_eq!(cached(&build("RUN echo 1 > /one\nRUN echo 2 > /two\n", &["-t", "kept"])), 0);
    // An image that lost its name goes with all, and only then.
    build("RUN echo 3 > /one\n", &["-t", "kept"]);
    let images = || harness.rbuild(&["images", "-q"]).ok().stdout.lines().count();
    prune(&harness, &[]);
    assert_eq!(images(), 4);
    prune(&harness, &["--all"]);
    assert_eq!(images(), 2);
    assert_eq!(harness.output("kept", &["cat", "/one"]), "3\n");
}

#[test]
fn filters_and_caps() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN head -c 1000000 /dev/zero > /a\nRUN head -c 1000000 /dev/zero > /b\nRUN --mount=type=cache,target=/m touch /m/x\n";
    harness.build_text(text, &["--output=type=cacheonly"]).ok();
    let before = layers(&harness);
    prune(&harness, &["--filter", "until=24h"]);
    prune(&harness, &["--reserved-space=1GB"]);
    prune(&harness, &["--max-used-space=1GB", "--min-free-space=1"]);
    assert_eq!(layers(&harness), before);
    prune(&harness, &["--filter", "type=exec.cachemount"]);
    assert_eq!(layers(&harness), before);
    assert_eq!(fs::read_dir(harness.path("store/mounts")).unwrap().count(), 0);
    // Without those above it, nothing goes.
    prune(&harness, &["--filter", "description~=/a$"]);
    assert_eq!(layers(&harness), before);
    let kept = bytes(&records(&harness, &["--filter", "private"]));
    let cap = (kept - 500_000).to_string();
    prune(&harness, &["--keep-storage", &cap]);
    let left = bytes(&records(&harness, &["--filter", "private"]));
    assert!(left <= kept - 500_000 && left > 500_000, "{left} of {kept}");
    harness.rbuild(&["prune", "-f", "--filter", "typ=regular"]).fails(2).says("did you mean type?");
    harness.rbuild(&["du", "--filter", "until=soon"]).fails(2).says("such as 90s");
    harness.rbuild(&["prune", "-f", "--max-used-space=lots"]).fails(2).says("such as 10GB");
}

/// What a container stands on stays, whatever becomes of its image's name.
#[test]
fn containers_keep_what_they_stand_on() {
    let harness = Harness::new();
    harness.build_text("FROM busybox\nRUN echo there > /f\n", &["-t", "image"]).ok();
    harness.rbuild(&["run", "-d", "--name", "c", "image", "sleep", "1000"]).ok();
    harness.build_text("FROM busybox\nRUN echo other > /f\n", &["-t", "image"]).ok();
    prune(&harness, &["--all"]);
    assert_eq!(harness.rbuild(&["exec", "c", "cat", "/f"]).ok().stdout, "there\n");
    harness.rbuild(&["stop", "-t", "0", "c"]).ok();
    prune(&harness, &["--all"]);
    harness.rbuild(&["commit", "c", "committed"]).ok();
    assert_eq!(harness.output("committed", &["cat", "/f"]), "there\n");
    harness.rbuild(&["rm", "c"]).ok();
    prune(&harness, &["--all"]);
    assert_eq!(layers(&harness), 0);
}

/// R7.7.5, R11 row 7: whatever is pruned meanwhile, builds end well, and with what they should.
#[test]
fn builds_never_lose_what_they_use() {
    let harness = Harness::new();
    let is_over = AtomicBool::new(false);
    let (mut builds, mut prunes) = (0, 0);
    std::thread::scope(|scope| {
        let pruning = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                harness.rbuild(&["prune", "-af"]).ok();
                count += 1;
            }
            count
        });
        let (harness, end) = (&harness, Instant::now() + Duration::from_secs(8));
        let builder = |number: usize| {
            scope.spawn(move || {
                let mut round = 0;
                while Instant::now() < end {
                    // Steps of its own, steps that others have too, and files that are linked from layer to layer.
                    let text = format!(
                        "FROM busybox AS common\nRUN echo common > /common\nCOPY f1 f2 /files/\n\
                         FROM common AS own\nRUN --mount=type=cache,target=/m date > /m/{number}; echo {number}.{} > /own\n\
                         FROM busybox\nCOPY --from=own /own /common /\nCOPY --from=common /files/f1 /\n",
                        round / 2
                    );
                    let context = harness.context(&format!("c{number}"), &text);
                    fs::write(context.join("f1"), "one").unwrap();
                    fs::write(context.join("f2"), format!("{round}")).unwrap();
                    let name = format!("image{number}");
                    let mut flags = vec!["-t", &name];
                    if number == 0 {
                        flags = vec!["--output=type=cacheonly"];
                    }
                    let outcome = harness.build(&context, &flags).ok();
                    assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
                    if number > 0 {
                        let files = harness.output(&name, &["cat", "/own", "/common", "/f1"]);
                        assert_eq!(files, format!("{number}.{}\ncommon\none", round / 2));
                    }
                    round += 1;
                }
                round
            })
        };
        let running: Vec<_> = (0..3).map(builder).collect();
        let results: Vec<_> = running.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        prunes = pruning.join().unwrap();
        builds = results.into_iter().map(|result| result.unwrap()).sum();
    });
    assert!(builds > 3 && prunes > 3, "{builds} builds, {prunes} prunes");
    prune(&harness, &["--all"]);
    assert_eq!(layers(&harness), 0);
}

/// R7.7.12: what a step has mounted or stands on is in use, even where all is to go.
#[test]
fn a_running_step_keeps_its_files() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN echo below > /f\nRUN --mount=type=cache,target=/m touch /m/begun; while [ ! -e /m/go ]; do sleep 0.05; done; cat /f\n";
    let context = harness.context("c", text);
    let mut build = harness.command(&["build", "--progress=plain", "-t", "x", context.to_str().unwrap()]);
    let build = build.stderr(Stdio::piped()).spawn().unwrap();
    let mount = || records(&harness, &["--filter", "type=exec.cachemount"]);
    crate::harness::wait_until("the step runs", || mount().first().is_some_and(|it| it["Reclaimable"] == false));
    harness.rbuild(&["prune", "-af"]).ok();
    // R7.7.10.
    assert_eq!(bytes(&mount()), 0);
    assert!(!records(&harness, &["--filter", "inuse"]).is_empty());
    let directory =
        fs::read_dir(harness.path("store/mounts")).unwrap().flatten().find(|it| it.path().is_dir()).unwrap();
    fs::write(directory.path().join("go"), "").unwrap();
    let outcome = Outcome::of(build.wait_with_output().unwrap()).ok();
    assert_eq!(printed(&outcome).last().map(String::as_str), Some("below"), "{}", outcome.stderr);
}

/// R7.7.2: without anybody asking for it.
#[test]
fn builds_keep_within_the_budget() {
    let harness = Harness::new();
    let build = |number: usize| {
        let text =
            format!("FROM busybox\nRUN head -c 2000000 /dev/zero > /f; echo {number} >> /f\nRUN echo {number}\n");
        harness.build_text(&text, &["--output=type=cacheonly"]).ok()
    };
    configure(&harness, "[gc]\nenabled = false\n");
    (0..4).for_each(|number| drop(build(number)));
    assert!(bytes(&records(&harness, &[])) > 8_000_000);
    configure(&harness, "[gc]\nmax-used-space = \"8MB\"\nmin-free-space = \"0\"\n");
    for number in 4..10 {
        build(number);
        let used = bytes(&records(&harness, &[]));
        assert!(used <= 8 << 20, "{used} after {number}");
    }
    assert_eq!(cached(&build(9)), 2, "what was used last is there");
    configure(&harness, "[gc]\nmax-used = \"8MB\"\n");
    harness.rbuild(&["du"]).fails(2).says("max-used");
}

/// R11 rows 1 and 2.
#[test]
fn a_full_disk_is_pruned() {
    if !is_root() {
        return;
    }
    let harness = Harness::empty();
    configure(&harness, "[gc]\nenabled = false\n");
    let disk = harness.path("store");
    fs::create_dir(&disk).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", disk.to_str().unwrap()]);
    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _mounted = Mounted(&disk);
    let build = |number: u8| {
        let context = harness.context("c", "FROM scratch\nCOPY f /f\n");
        fs::write(context.join("f"), vec![number; 4_000_000]).unwrap();
        harness.build(&context, &["--output=type=cacheonly"])
    };
    (0..2).for_each(|number| drop(build(number).ok()));
    let filling = disk.join("trash/../filling");
    let fill = |spare: u64| {
        let _ = fs::write(&filling, vec![0; 32 << 20]);
        let length = fs::metadata(&filling).unwrap().len();
        fs::File::options().write(true).open(&filling).unwrap().set_len(length - spare).unwrap();
    };
    fill(2_000_000);
    build(2).fails(1).says("no space left on device").says("rbuild prune");
    fill(0);
    build(2).fails(1).says("no space left on device").says("rbuild prune");
    let out = prune(&harness, &[]).stdout;
    assert!(out.contains("Total: 8.0MB"), "{out}");
    fs::remove_file(&filling).unwrap();
    build(2).ok();
    assert_eq!(cached(&build(2).ok()), 1);
}
