//! Bits that turned over in a store: what is wrong is found, said, and made again; what is right goes on working (R11 rows 9 and 10).

use crate::harness::Harness;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const DOCKERFILE: &str = "FROM busybox\nRUN echo one > /one\nCOPY f /f\n";

struct Damage {
    harness: Harness,
    context: PathBuf,
}

impl Damage {
    fn new() -> Damage {
        let harness = Harness::new();
        let context = harness.context("c", DOCKERFILE);
        fs::write(context.join("f"), "a file").unwrap();
        let damage = Damage { harness, context };
        damage.build(&[]);
        damage
    }

    fn build(&self, flags: &[&str]) {
        self.harness.build(&self.context, &[&["-t", "image"], flags].concat()).ok();
    }

    fn save(&self) -> crate::harness::Outcome {
        self.harness.rbuild(&["save", "-o", &self.harness.path_text("image.tar"), "image"])
    }

    #[track_caller]
    fn is_right(&self) {
        assert_eq!(self.harness.output("image", &["cat", "/one", "/f"]), "one\na file");
    }

    /// The path of a blob, by its place among the image's layers.
    fn layer(&self, number: usize) -> PathBuf {
        let image = self.harness.inspect("image");
        let layers = image["RootFS"]["Layers"].as_array().unwrap();
        let diff_id = layers[number].as_str().unwrap();
        // Blobs are not compressed in the store, or this test would have to look into the manifest.
        self.harness.path("store/blobs/sha256").join(diff_id.strip_prefix("sha256:").unwrap())
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_layer_of_a_built_image_is_made_again() {
    let damage = Damage::new();
    let path = damage.layer(2);
    for how in 0..3 {
        match how {
            0 => flip(&path),
            1 => fs::write(&path, "").unwrap(),
            _ => fs::remove_file(&path).and_then(|()| fs::create_dir(&path)).unwrap(),
        }
        let outcome = damage.save().fails(1);
        assert!(how == 2 || outcome.stderr.contains("was damaged, and is dropped"), "{}", outcome.stderr);
        damage.build(&[]);
        damage.save().ok();
        damage.is_right();
    }
}

/// What only this store had cannot be had again, and is never used as it is.
#[test]
fn a_damaged_layer_of_a_base_is_told() {
    let damage = Damage::new();
    flip(&damage.layer(0));
    damage.save().fails(1).says("was damaged, and is dropped");
    damage.save().fails(1);
    let tar = crate::harness::busybox_tar().to_str().unwrap();
    damage.harness.rbuild(&["import", tar, "busybox"]).ok();
    damage.build(&[]);
    damage.save().ok();
}

#[test]
fn a_damaged_database_leaves_the_images() {
    let damage = Damage::new();
    let database = damage.harness.path("store/cache.db");
    fs::write(&database, vec![0; 9000]).unwrap();
    let list = damage.harness.rbuild(&["images"]).ok().says("the cache is empty now, images are all there");
    assert!(list.stdout.contains("busybox"), "{}", list.stdout);
    damage.is_right();
    damage.build(&[]);
    damage.is_right();
    let again = damage.harness.build(&damage.context, &[]).ok();
    assert!(again.stderr.contains("CACHED") && !again.stderr.contains("empty now"), "{}", again.stderr);
}

/// The names of images are nothing that can be made again.
#[test]
fn a_damaged_index_is_told_by_all_who_need_it() {
    let damage = Damage::new();
    let index = damage.harness.path("store/index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, &text[..text.len() / 2]).unwrap();
    for args in [&["images"][..], &["save", "image"], &["prune", "-af"], &["du"]] {
        damage.harness.rbuild(args).fails(1).says("index.json is not a valid document");
    }
    damage.harness.rbuild(&["run", "--rm", "image", "true"]).fails(125).says("index.json is not a valid document");
    damage.harness.build(&damage.context, &[]).fails(1).says("index.json is not a valid document");
    fs::write(&index, &text).unwrap();
    damage.is_right();
    fs::remove_file(&index).unwrap();
    damage.harness.rbuild(&["import", crate::harness::busybox_tar().to_str().unwrap(), "busybox"]).ok();
    damage.build(&[]);
    damage.is_right();
}

/// A file of a snapshot is not read before it is used, so it is not seen that it has changed. What is built anew is made of the context.
#[test]
fn honest_rebuilds_take_no_files_of_earlier_layers() {
    use std::os::unix::fs::MetadataExt;
    let damage = Damage::new();
    let mut files = Vec::new();
    for snapshot in fs::read_dir(damage.harness.path("store/snapshots")).unwrap().flatten() {
        files.extend(Some(snapshot.path().join("fs/f")).filter(|path| path.exists()));
    }
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let metadata = fs::metadata(file).unwrap();
    fs::write(file, "b file").unwrap();
    let times = fs::FileTimes::new().set_modified(metadata.modified().unwrap());
    fs::File::options().write(true).open(file).unwrap().set_times(times).unwrap();
    assert_eq!(fs::metadata(file).unwrap().mtime(), metadata.mtime());
    damage.build(&["--no-cache"]);
    damage.is_right();
}

/// 16 at once over one store, some of the same, some without cache, with pruning in between.
#[test]
fn many_builds_and_prunes_at_once() {
    let harness = Harness::new();
    let prepare = |same: usize| {
        let text = format!(
            "FROM busybox AS a\nRUN --mount=type=cache,target=/m echo {same} | tee -a /m/log > /a; sleep 0.1\n\
             FROM busybox\nCOPY f /f\nCOPY --from=a /a /a\nRUN cat /a /f > /b\n"
        );
        let context = harness.context(&format!("c{same}"), &text);
        fs::write(context.join("f"), "file\n").unwrap();
        context
    };
    let contexts: Vec<_> = (0..4).map(prepare).collect();
    let start = |number: usize| {
        let name = format!("image{number}");
        let mut args = vec!["build", "--progress=plain", "-t", &name];
        args.extend((number % 5 == 4).then_some("--no-cache"));
        args.push(contexts[number % 4].to_str().unwrap());
        (number, harness.command(&args).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    };
    let builds: Vec<_> = (0..16).map(start).collect();
    for flags in [&["prune", "-f"][..], &["prune", "-af"], &["du"], &["prune", "-f", "--max-used-space", "1MB"]] {
        harness.rbuild(flags).ok();
    }
    for (number, child) in builds {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{number}: {}", String::from_utf8_lossy(&output.stderr));
        let found = harness.output(&format!("image{number}"), &["cat", "/b"]);
        assert_eq!(found, format!("{}\nfile\n", number % 4));
    }
    harness.rbuild(&["prune", "-af"]).ok();
    assert_eq!(fs::read_dir(harness.path("store/tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(harness.path("store/trash")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(harness.path("store/snapshots")).unwrap().count(), 0);
}
