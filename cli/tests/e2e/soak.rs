//! rbuild killed at random moments, again and again over one store: what is left is cleared by the next start, and a rebuild is right (R11 rows 2 to 7,
//! R7.7.7, R7.7.12).
//!
//! `RBUILD_SOAK_ROUNDS` says how often it is killed, `RBUILD_SOAK_SEED` repeats what was printed.

use crate::harness::{Harness, Outcome, wait_until};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DOCKERFILE: &str = "FROM busybox AS base\n\
    ARG NONCE\n\
    RUN --mount=type=cache,target=/cache echo $NONCE >> /cache/log; mkdir /d; for i in $(seq 40); do echo $NONCE > /d/$i; done\n\
    WORKDIR /w/x/y\n\
    COPY . /c/\n\
    RUN rm /c/f1 && head -c 300000 /dev/zero > /big\n\
    FROM busybox\n\
    ARG NONCE\n\
    RUN echo $NONCE > /final\n\
    COPY --from=base /d /d\n\
    COPY --from=base /c /big /c/\n\
    LABEL nonce=$NONCE\n";

/// Numbers that look random, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

struct Soak {
    harness: Harness,
    context: PathBuf,
}

impl Soak {
    /// With the base image of `archive`, so that it is the same one.
    fn new(archive: &Path) -> Soak {
        let harness = Harness::empty();
        let soak = Soak { context: harness.context("c", DOCKERFILE), harness };
        soak.load(archive);
        for number in 0..40 {
            fs::write(soak.context.join(format!("f{number}")), vec![number; 1000 * usize::from(number)]).unwrap();
        }
        soak
    }

    fn load(&self, archive: &Path) {
        self.harness.rbuild(&["load", "-i", archive.to_str().unwrap()]).ok();
    }

    fn build(&self, nonce: u64, flags: &[&str]) -> Command {
        let nonce = format!("NONCE={nonce}");
        let context = self.context.to_str().unwrap();
        let mut command = self.harness.command(&["build", "--progress=plain", "--build-arg", &nonce]);
        command.args(flags).arg(context).env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    /// The digest of a build's image.
    fn digest(&self, nonce: u64, flags: &[&str]) -> String {
        let output = format!("type=oci,dest={},rewrite-timestamp=true", self.harness.path_text("right.tar"));
        let metadata = self.harness.path_text("metadata.json");
        let mut command = self.build(nonce, &["-o", &output, "--metadata-file", &metadata]);
        Outcome::of(command.args(flags).output().unwrap()).ok();
        let metadata: Value = serde_json::from_str(&fs::read_to_string(metadata).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    }

    fn cache(&self, nonce: u64) -> String {
        format!("{},tag=n{nonce}", self.harness.path_text("cache"))
    }

    /// One of the things that are killed.
    fn action(&self, random: &mut Random, nonce: u64) -> Command {
        let name = format!("image:{nonce}");
        let archive = format!("type=oci,dest={},rewrite-timestamp=true", self.harness.path_text("out.tar"));
        let cache = format!("type=local,dest={},mode=max", self.cache(nonce));
        let tar = crate::harness::busybox_tar().to_str().unwrap();
        match random.below(9) {
            0 => self.build(nonce, &["-t", &name]),
            1 => self.build(nonce, &["-o", &archive]),
            2 => self.build(nonce, &["--cache-to", &cache]),
            3 => self.harness.command(&["prune", "-af"]),
            4 => self.harness.command(&["import", tar, "imported"]),
            5 => self.harness.command(&["run", "--rm", "busybox", "sh", "-c", "seq 10000 > /f; sleep 0.05"]),
            6 => self.harness.command(&["prune", "-f", "--max-used-space", "1MB"]),
            _ => self.build(nonce, &["--no-cache", "-t", &name]),
        }
    }

    /// Nothing runs, is mounted or is a control group any more.
    fn is_quiet(&self, killed: u32) -> bool {
        let place = self.harness.path_text("");
        let own = std::process::id().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        for process in processes.filter(|process| process.file_name().as_encoded_bytes()[0].is_ascii_digit()) {
            let has = |file: &str| {
                let text = fs::read(process.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&text).contains(&place)
            };
            if process.file_name() != own.as_str() && (has("cmdline") || has("environ") || has("mountinfo")) {
                return false;
            }
        }
        !has_group(Path::new("/sys/fs/cgroup"), &format!("rbuild-{killed}-"), 6)
    }

    fn names(&self, directory: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.harness.path("store").join(directory)).unwrap().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[track_caller]
    fn is_clean(&self, how: &str) {
        assert_eq!(self.names("tmp"), BTreeSet::new(), "{how}");
        assert_eq!(self.names("trash"), BTreeSet::new(), "{how}");
        assert_eq!(self.names("containers"), BTreeSet::new(), "{how}");
        let known = self.names(".");
        let strange = |name: &&String| name.starts_with(".tmp") || name.contains(".new-") || name.ends_with(".tmp");
        assert_eq!(known.iter().filter(strange).count(), 0, "{how}: {known:?}");
        let du = self.harness.rbuild(&["du", "--format", "json"]).ok().stdout;
        let records = du.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let is_layer = |id: &String| ["layer-", "chain-", "cached-"].iter().any(|begin| id.starts_with(begin));
        let records: BTreeSet<_> =
            records.map(|record| record["ID"].as_str().unwrap().to_owned()).filter(is_layer).collect();
        assert_eq!(self.names("snapshots"), records, "{how}");
    }
}

fn has_group(directory: &Path, name: &str, depth: usize) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    depth > 0
        && groups.any(|group| {
            group.file_name().to_string_lossy().starts_with(name) || has_group(&group.path(), name, depth - 1)
        })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn killed_at_any_moment() {
    let rounds = number("RBUILD_SOAK_ROUNDS").unwrap_or(15);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("RBUILD_SOAK_SEED").unwrap_or_else(now) | 1;
    println!("RBUILD_SOAK_SEED={seed}");
    let mut random = Random(seed);
    let base = Harness::new();
    let archive = base.path("busybox.tar");
    base.rbuild(&["save", "-o", archive.to_str().unwrap(), "busybox"]).ok();
    let (right, soak) = (Soak::new(&archive), Soak::new(&archive));
    let begin = Instant::now();
    let mut digests = BTreeMap::from([(0, right.digest(0, &[]))]);
    let longest = begin.elapsed().as_micros() as u64;
    let (mut round, mut ended) = (0, 0);
    while round < rounds {
        let nonce = random.below(3);
        let mut command = soak.action(&mut random, nonce);
        // Sooner rather than later: most builds find much of what they need.
        let latest = random.below(longest) + 1;
        let wait = Duration::from_micros(random.below(latest));
        let whole = random.below(4) == 0;
        let mut child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(wait);
        let pid = Pid::from_child(&child);
        // Not waited for, so the number is its own still.
        if whole { kill_process_group(pid, Signal::KILL) } else { kill_process(pid, Signal::KILL) }.unwrap();
        if child.wait().unwrap().signal().is_none() {
            ended += 1;
            continue;
        }
        round += 1;
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let how = format!("seed {seed}, round {round}: {} after {wait:?}", args.join(" "));
        wait_until(&format!("nothing is left: {how}"), || soak.is_quiet(child.id()));
        let digest = digests.entry(nonce).or_insert_with(|| right.digest(nonce, &[]));
        let tag = format!("image:{nonce}");
        assert_eq!(soak.digest(nonce, &[]), *digest, "{how}");
        // What could not be deleted in a short time is left to the next ones.
        for _ in 0..20 {
            if !soak.names("trash").is_empty() {
                soak.digest(nonce, &[]);
            }
        }
        soak.is_clean(&how);
        Outcome::of(soak.build(nonce, &["-t", &tag]).output().unwrap()).ok();
        let run = ["sh", "-c", "cat /final; cat /d/* | sort -u"];
        assert_eq!(soak.harness.output(&tag, &run), format!("{nonce}\n{nonce}\n"), "{how}");
        // What was written to a remote cache is right, too.
        if round % 5 == 0 && soak.harness.path("cache/index.json").exists() {
            let from = format!("type=local,src={}", soak.cache(nonce));
            fs::rename(soak.harness.path("store"), soak.harness.path("away")).unwrap();
            soak.load(&archive);
            assert_eq!(soak.digest(nonce, &["--cache-from", &from]), *digest, "{how}");
            fs::remove_dir_all(soak.harness.path("store")).unwrap();
            fs::rename(soak.harness.path("away"), soak.harness.path("store")).unwrap();
        }
    }
    println!("killed {rounds} times; {ended} more had ended before");
}
