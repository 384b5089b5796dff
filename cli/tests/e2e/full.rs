//! Disks that get full at any moment of a build: it fails with what to do, and goes on when there is room (R11 rows 1 and 2).

use crate::harness::{Harness, is_root, tool};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own for a store; nothing without root.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn mount(harness: &Harness, args: &[&str]) -> Disk {
        let place = harness.path("store");
        fs::create_dir(&place).unwrap();
        tool("mount", &[args, &[place.to_str().unwrap()]].concat());
        tool("chmod", &["700", place.to_str().unwrap()]);
        // What file systems have of themselves is no other thing in a store.
        let _ = fs::remove_dir(place.join("lost+found"));
        Disk { place }
    }

    fn filling(&self) -> PathBuf {
        self.place.join("index.filling")
    }

    /// Leaves only so many bytes.
    fn fill(&self, spare: u64) {
        let disk = rustix::fs::statvfs(&self.place).unwrap();
        let free = disk.f_bavail * disk.f_frsize;
        if free > spare {
            let length = (free - spare).to_string();
            let filling = self.filling();
            let _ = Command::new("fallocate").args(["-l", &length]).arg(&filling).output().unwrap();
        }
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.filling());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

fn sweep(harness: &Harness, disk: &Disk) {
    let base = Harness::new();
    let archive = base.path_text("busybox.tar");
    base.rbuild(&["save", "-o", &archive, "busybox"]).ok();
    let dockerfile = "FROM busybox AS a\nRUN mkdir /d; for i in $(seq 200); do echo $i > /d/$i; done\nCOPY f /f\n\
                      FROM busybox\nCOPY --from=a /d /f /x/\nRUN echo end > /end\n";
    let context = harness.context("c", dockerfile);
    fs::write(context.join("f"), vec![7; 700_000]).unwrap();
    let (out, metadata) = (harness.path_text("out.tar"), harness.path("metadata.json"));
    let build = || {
        let output = format!("type=oci,dest={out},rewrite-timestamp=true");
        let args = ["build", "--progress=plain", "-o", &output, "--metadata-file", metadata.to_str().unwrap()];
        let mut command = harness.command(&args);
        command.env("SOURCE_DATE_EPOCH", "1700000000").arg(&context);
        crate::harness::Outcome::of(command.output().unwrap())
    };
    let digest = || {
        let metadata: Value = serde_json::from_str(&fs::read_to_string(&metadata).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_owned()
    };
    let clear = || {
        for entry in fs::read_dir(&disk.place).unwrap().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        harness.rbuild(&["load", "-i", &archive]).ok();
    };
    clear();
    build().ok();
    let right = digest();
    let mut failed = 0;
    for kibibytes in [0, 12, 24, 32, 40, 64, 100, 200, 400, 700, 1100, 1600, 2400, 3200, 4500, 6000] {
        clear();
        disk.fill(kibibytes << 10);
        let outcome = build();
        if outcome.code != Some(0) {
            failed += 1;
            let outcome = outcome.fails(1).says("rbuild prune");
            let text = outcome.stderr.to_lowercase();
            assert!(text.contains("no space left on device"), "{kibibytes} KiB: {text}");
        }
        // While there is no room, space can be made.
        if kibibytes % 3 == 0 {
            harness.rbuild(&["prune", "-af"]).ok();
        }
        disk.make_room();
        build().ok();
        assert_eq!(digest(), right, "{kibibytes} KiB");
        for left in ["tmp", "trash"] {
            assert_eq!(fs::read_dir(disk.place.join(left)).unwrap().count(), 0, "{kibibytes} KiB, {left}");
        }
    }
    assert!((8..16).contains(&failed), "{failed}");
}

#[test]
fn a_disk_that_gets_full() {
    if !is_root() {
        return;
    }
    let harness = Harness::empty();
    let disk = Disk::mount(&harness, &["-t", "tmpfs", "-o", "size=24m", "tmpfs"]);
    sweep(&harness, &disk);
}

/// Where shared memory of the database would end the process (SIGBUS).
#[test]
fn a_disk_of_small_blocks_that_gets_full() {
    if !is_root() {
        return;
    }
    let harness = Harness::empty();
    let image = harness.path_text("image");
    fs::File::create(&image).unwrap().set_len(40 << 20).unwrap();
    tool("mkfs.ext4", &["-q", "-m", "0", "-b", "1024", &image]);
    let disk = Disk::mount(&harness, &["-o", "loop", &image]);
    sweep(&harness, &disk);
}

/// The place of the output is full, the store is not: nothing half is left there.
#[test]
fn outputs_that_do_not_fit() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let place = harness.path("out");
    fs::create_dir(&place).unwrap();
    tool("mount", &["-t", "tmpfs", "-o", "size=200k", "tmpfs", place.to_str().unwrap()]);
    let disk = Disk { place };
    let context = harness.context("c", "FROM scratch\nCOPY f /f\n");
    let random = noise(1);
    fs::write(context.join("f"), std::iter::repeat_with(random).take(700_000).collect::<Vec<u8>>()).unwrap();
    for (kind, name) in [("oci", "image.tar"), ("docker", "image.tar"), ("tar", "files.tar"), ("local", "files")] {
        let dest = disk.place.join(name);
        let output = format!("type={kind},dest={}", dest.display());
        harness.build(&context, &["-o", &output]).fails(1).says(disk.place.to_str().unwrap());
        assert!(kind == "local" || is_empty(&disk.place), "{kind}");
        let _ = fs::remove_dir_all(&dest);
    }
    harness.build(&context, &["-o", &format!("type=oci,dest={}", harness.path_text("fits.tar"))]).ok();
}

/// Bytes that cannot be compressed.
fn noise(mut state: u64) -> impl FnMut() -> u8 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().count() == 0
}
