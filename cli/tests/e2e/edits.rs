//! What a rebuild runs after each of many edits, and that its result is never stale: the table `testdata/edits/edits.txt`.
//!
//! `RBUILD_TEST_UPDATE=1` writes what was found into the table instead of comparing, and the README beside it. With `RBUILD_TEST_DOCKER` the same edits
//! are made to builds of BuildKit.

use crate::harness::{Harness, testdata, tool};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One edit of the table.
#[derive(Clone, Default)]
struct Edit {
    title: String,
    script: String,
    flags: Vec<String>,
    context: Option<String>,
    xattr: Option<String>,
    rbuild: String,
    buildkit: String,
    /// BuildKit serves what was there before the edit.
    is_stale_elsewhere: bool,
    digest: String,
}

const KEYS: [&str; 7] = ["flags", "context", "xattr", "rbuild", "buildkit", "stale", "digest"];

impl Edit {
    fn parse(section: &str) -> Edit {
        let (title, rest) = section.split_once('\n').unwrap_or((section, ""));
        let mut edit = Edit { title: title.trim().to_owned(), ..Edit::default() };
        for line in rest.lines() {
            match line.split_once(": ").filter(|(key, _)| KEYS.contains(key)) {
                Some(("flags", text)) => edit.flags = text.split_whitespace().map(str::to_owned).collect(),
                Some(("context", text)) => edit.context = Some(text.trim().to_owned()),
                Some(("xattr", text)) => edit.xattr = Some(text.trim().to_owned()),
                Some(("rbuild", text)) => edit.rbuild = text.trim().to_owned(),
                Some(("buildkit", text)) => edit.buildkit = text.trim().to_owned(),
                Some(("stale", _)) => edit.is_stale_elsewhere = true,
                Some(("digest", text)) => edit.digest = text.trim().to_owned(),
                _ => writeln!(edit.script, "{line}").unwrap(),
            }
        }
        edit
    }

    fn print(&self) -> String {
        let mut text = format!("== {}\n", self.title);
        if !self.script.trim().is_empty() {
            writeln!(text, "{}", self.script.trim_end()).unwrap();
        }
        let lines = [
            ("flags", Some(self.flags.join(" ")).filter(|flags| !flags.is_empty())),
            ("context", self.context.clone()),
            ("xattr", self.xattr.clone()),
            ("rbuild", Some(self.rbuild.clone())),
            ("buildkit", Some(self.buildkit.clone())),
            ("stale", self.is_stale_elsewhere.then(|| "buildkit".to_owned())),
            ("digest", Some(self.digest.clone())),
        ];
        for (key, value) in lines {
            if let Some(value) = value {
                writeln!(text, "{key}: {value}").unwrap();
            }
        }
        text
    }
}

/// What stands before the first edit, and the edits.
fn table() -> (String, Vec<Edit>) {
    let text = std::fs::read_to_string(testdata("edits/edits.txt")).unwrap();
    let mut sections = text.split("\n== ");
    let head = sections.next().unwrap().to_owned();
    (head, sections.map(Edit::parse).collect())
}

fn wants_update() -> bool {
    std::env::var_os("RBUILD_TEST_UPDATE").is_some()
}

fn write_table(head: &str, edits: &[Edit]) {
    let sections: Vec<_> = edits.iter().map(Edit::print).collect();
    std::fs::write(testdata("edits/edits.txt"), format!("{head}\n{}", sections.join("\n"))).unwrap();
    std::fs::write(testdata("edits/README.md"), document(edits)).unwrap();
}

/// The table for people.
fn document(edits: &[Edit]) -> String {
    let mut text = "# What runs again after an edit\n\n\
        Each row is an edit to the project beside this file, built before and after it: the steps that ran the second time, by stage and first words, in rbuild and \
        in BuildKit (Docker 28.5). The last column says what becomes of the digest of rbuild's image. Tests make every edit, and compare the image with \
        one that is built from nothing; this file is made of `edits.txt`, where the edits are in full.\n\n\
        | edit | rbuild runs | BuildKit runs | rbuild's digest |\n|---|---|---|---|\n"
        .to_owned();
    let cell = |steps: &str| match steps {
        "-" => "nothing".to_owned(),
        steps => steps.split(", ").map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", "),
    };
    for edit in edits {
        let flags = if edit.flags.is_empty() { String::new() } else { format!(" (`{}`)", edit.flags.join(" ")) };
        let digest = if edit.digest == "-" { "" } else { &edit.digest };
        let stale = if edit.is_stale_elsewhere { ": **stale**" } else { "" };
        let (rbuild, buildkit) = (cell(&edit.rbuild), cell(&edit.buildkit) + stale);
        writeln!(text, "| {}{flags} | {rbuild} | {buildkit} | {digest} |", edit.title).unwrap();
    }
    let count = |steps: &str| if steps == "-" { 0 } else { steps.split(", ").count() };
    let total = |steps: fn(&Edit) -> &str| edits.iter().map(|edit| count(steps(edit))).sum::<usize>();
    let (ours, theirs) = (total(|edit| &edit.rbuild), total(|edit| &edit.buildkit));
    writeln!(text, "\nOver all {} edits, rbuild runs {ours} steps and BuildKit {theirs}.", edits.len()).unwrap();
    text
}

/// The project in a directory of its own.
struct Project<'a> {
    root: &'a Path,
    world: String,
}

impl<'a> Project<'a> {
    /// Nothing that was built of the project in another world is of use in this one.
    fn create(root: &'a Path, world: &str) -> Project<'a> {
        std::fs::create_dir_all(root).unwrap();
        let (from, to) = (testdata("edits"), root.to_str().unwrap());
        let script = r#"
            cp -R "$1/project" "$2/clean" && cp -R "$1/settings" "$2/clean-settings" && cp -R "$1/base" "$2/base"
            mkdir "$2/icons.tmp" && cd "$2/icons.tmp" && echo a > a.png && echo b > b.png
            tar --owner=0 --group=0 --mtime=@1500000000 -cf "$2/clean/assets/icons.tar" ./a.png ./b.png
            echo "world=$3" >> "$2/clean-settings/app.conf"
            chmod -R u=rwX,go=rX "$2"
        "#;
        tool("sh", &["-euc", script, "sh", from.to_str().unwrap(), to, world]);
        Project { root, world: world.to_owned() }
    }

    /// The project as it was before any edit, in the same place.
    fn reset(&self) {
        let script = r#"
            cd "$1" && for entry in *; do case $entry in clean | clean-settings | base) ;; *) chmod -R u+rwx "$entry"; rm -rf "$entry" ;; esac; done
            cp -a clean project && cp -a clean-settings settings
        "#;
        tool("sh", &["-euc", script, "sh", self.root.to_str().unwrap()]);
    }

    fn apply(&self, edit: &Edit) -> PathBuf {
        let project = self.root.join("project");
        let output = Command::new("sh").args(["-euc", &edit.script]).current_dir(&project).output().unwrap();
        assert!(output.status.success(), "{}: {}", edit.title, String::from_utf8_lossy(&output.stderr));
        if let Some(file) = &edit.xattr {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(project.join(file), "user.note", b"value", flags).unwrap();
        }
        match &edit.context {
            Some(context) => project.join(context),
            None => project,
        }
    }

    /// The flags of each build of it.
    fn flags(&self) -> Vec<String> {
        let settings = format!("settings={}", self.root.join("settings").display());
        let world = format!("WORLD={}", self.world);
        ["--build-context", &settings, "--build-arg", &world].map(str::to_owned).to_vec()
    }
}

/// Which steps ran, as told by `--progress=rawjson`: `stage INSTRUCTION words`.
fn ran(progress: &str) -> Vec<String> {
    let (mut names, mut cached) = (BTreeMap::new(), BTreeSet::new());
    for line in progress.lines() {
        let Ok(update) = serde_json::from_str::<Value>(line) else { continue };
        for vertex in update["vertexes"].as_array().into_iter().flatten() {
            let digest = vertex["digest"].as_str().unwrap().to_owned();
            if vertex["cached"] == true {
                cached.insert(digest.clone());
            }
            if vertex["completed"].is_string() {
                names.insert(digest, vertex["name"].as_str().unwrap().to_owned());
            }
        }
    }
    let ran = names.iter().filter(|(digest, _)| !cached.contains(*digest)).filter_map(|(_, name)| label(name));
    ran.collect::<BTreeSet<_>>().into_iter().map(|(_, _, label)| label).collect()
}

/// The stage, the step's number in it, and both with the instruction's first words: of `[build 3/6] RUN --mount=… cc lib` `build RUN cc lib`.
fn label(name: &str) -> Option<(String, usize, String)> {
    let (place, text) = name.strip_prefix('[')?.split_once("] ")?;
    let (stage, number) = place.split_once(' ')?;
    let number = number.split_once('/')?.0.parse().ok()?;
    let mut words = text.split_whitespace().filter(|word| !word.starts_with("--"));
    let instruction = words.next()?.to_uppercase();
    let count = match instruction.as_str() {
        // What a base is, and how layers are put on each other, costs nothing.
        "FROM" | "LINK" => return None,
        "RUN" => 2,
        _ => 1,
    };
    // BuildKit also shows how a here-document begins.
    let words: Vec<_> = words.take_while(|word| !word.starts_with('(')).take(count).collect();
    Some((stage.to_owned(), number, format!("{stage} {instruction} {}", words.join(" ")).trim().to_owned()))
}

fn listed(steps: &[String]) -> String {
    if steps.is_empty() { "-".into() } else { steps.join(", ") }
}

/// A store, and what is built in it.
struct Side {
    harness: Harness,
}

/// An image, as far as its build's moment does not matter.
#[derive(PartialEq)]
struct Result {
    config: Value,
    listing: Vec<String>,
    contents: String,
}

impl Side {
    fn new(project: &Project<'_>) -> Side {
        let side = Side { harness: Harness::new() };
        let base = project.root.join("base");
        for (name, release) in [("edits-base:1", "1"), ("edits-base:2", "2")] {
            let release = format!("RELEASE={release}");
            side.harness.build(&base, &["-t", name, "--build-arg", &release]).ok();
        }
        side.harness.rbuild(&["tag", "edits-base:1", "edits-base:same"]).ok();
        side
    }

    /// The steps that ran, and the image's id.
    fn build(&self, context: &Path, flags: &[String]) -> (Vec<String>, String) {
        self.build_to(context, flags, &[])
    }

    /// The same, and what is in the image.
    fn build_and_look(&self, context: &Path, flags: &[String]) -> (Vec<String>, String, Result) {
        let output = format!("type=tar,dest={}", self.harness.path_text("files.tar"));
        let (steps, id) = self.build_to(context, flags, &["--output", &output]);
        (steps, id, self.result())
    }

    fn build_to(&self, context: &Path, flags: &[String], outputs: &[&str]) -> (Vec<String>, String) {
        let id = self.harness.path_text("id");
        let mut args = vec!["build", "--progress=rawjson", "-t", "edits", "--iidfile", &id];
        args.extend(["--output", "type=image"]);
        args.extend(outputs);
        args.extend(flags.iter().map(String::as_str));
        args.push(context.to_str().unwrap());
        let outcome = self.harness.rbuild(&args).ok();
        (ran(&outcome.stderr), std::fs::read_to_string(id).unwrap())
    }

    /// What was built last.
    fn result(&self) -> Result {
        let mut config = self.harness.inspect("edits");
        let tar = self.harness.path_text("files.tar");
        let members: Vec<_> = config.as_object().unwrap().keys().cloned().collect();
        for member in members.iter().filter(|member| !["Config", "Architecture", "Os"].contains(&member.as_str())) {
            config.as_object_mut().unwrap().remove(member);
        }
        // Without times.
        let listing = tool("tar", &["--numeric-owner", "--xattrs", "-tvvf", &tar]);
        let listing = listing.lines().map(|line| {
            let words: Vec<_> = line.split_whitespace().enumerate().filter(|(at, _)| !(3..5).contains(at)).collect();
            words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" ")
        });
        let listing: Vec<_> = listing.collect();
        Result { config, contents: tool("tar", &["-xOf", &tar]), listing }
    }
}

/// In how many tests the edits are made.
const PARTS: usize = 4;

/// Every so manieth edit, beginning with that of this number.
fn rebuilds(part: usize) {
    // One of them makes the table.
    let (part, parts) = if wants_update() { (part, 1) } else { (part, PARTS) };
    if part >= parts {
        return;
    }
    let (head, mut edits) = table();
    let directory = tempfile::tempdir().unwrap();
    let project = Project::create(directory.path(), "0");
    let (ours, fresh) = (Side::new(&project), Side::new(&project));
    let flags = project.flags();
    project.reset();
    let context = directory.path().join("project");
    let (_, digest) = ours.build(&context, &flags);
    ours.build(&context, &[&flags[..], &["--target".into(), "test".into()]].concat());
    let mut wrong = Vec::new();
    for edit in edits.iter_mut().skip(part).step_by(parts) {
        project.reset();
        let (steps, id) = ours.build(&context, &flags);
        assert_eq!((listed(&steps), &id), ("-".into(), &digest), "clean, before {:?}", edit.title);
        let context = project.apply(edit);
        let flags = [&flags[..], &edit.flags].concat();
        let (steps, id, result) = ours.build_and_look(&context, &flags);
        let mut uncached: Vec<_> = flags.into_iter().filter(|flag| flag != "--no-cache").collect();
        uncached.push("--no-cache".into());
        let (_, _, expected) = fresh.build_and_look(&context, &uncached);
        assert!(result.config == expected.config, "{}: {:#} {:#}", edit.title, result.config, expected.config);
        assert_eq!(result.listing, expected.listing, "{}", edit.title);
        assert!(result.contents == expected.contents, "{}: {} {}", edit.title, result.contents, expected.contents);
        let digest = match edit.digest.as_str() {
            "-" => "-",
            _ if id == digest => "same",
            _ => "new",
        };
        let found = Edit { rbuild: listed(&steps), digest: digest.into(), ..edit.clone() };
        if (&found.rbuild, &found.digest) != (&edit.rbuild, &edit.digest) {
            wrong.push(format!("expected {}found {}", edit.print(), found.print()));
            *edit = found;
        }
    }
    if wants_update() {
        return write_table(&head, &edits);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same of BuildKit: nothing of it is compared but which steps run, and that those of rbuild are among them.
#[test]
fn rebuilds_run_no_more_than_with_buildkit() {
    let Some(docker) = std::env::var_os("RBUILD_TEST_DOCKER") else { return };
    let docker = Docker { command: docker.to_str().unwrap().to_owned() };
    let (head, mut edits) = table();
    let directory = tempfile::tempdir().unwrap();
    let world = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let project = Project::create(directory.path(), &world.to_string());
    project.reset();
    let base = directory.path().join("base");
    for release in ["1", "2"] {
        let (name, release) = (format!("edits-base:{release}"), format!("RELEASE={release}"));
        docker.build(&base, &["--load", "-t", &name, "--build-arg", &release].map(str::to_owned));
    }
    docker.run(&["tag", "edits-base:1", "edits-base:same"]);
    let output = ["--output", "type=cacheonly"].map(str::to_owned);
    let flags = [&project.flags()[..], &output].concat();
    let context = directory.path().join("project");
    docker.build(&context, &flags);
    docker.build(&context, &[&flags[..], &["--target".into(), "test".into()]].concat());
    let (mut wrong, mut more) = (Vec::new(), Vec::new());
    for edit in &mut edits {
        project.reset();
        assert_eq!(listed(&docker.build(&context, &flags)), "-", "clean, before {:?}", edit.title);
        let context = project.apply(edit);
        let steps = docker.build(&context, &[&flags[..], &edit.flags].concat());
        let ours: Vec<_> = edit.rbuild.split(", ").filter(|step| *step != "-").collect();
        if !edit.is_stale_elsewhere && ours.iter().any(|step| !steps.iter().any(|ran| ran == step)) {
            more.push(format!("{}: {ours:?} {steps:?}", edit.title));
        }
        let steps = listed(&steps);
        if steps != edit.buildkit {
            wrong.push(format!("{}: expected {}, found {steps}", edit.title, edit.buildkit));
            edit.buildkit = steps;
        }
    }
    if wants_update() {
        write_table(&head, &edits);
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    assert!(more.is_empty(), "rbuild runs more:\n{}", more.join("\n"));
}

/// The docker CLI with an engine behind it.
struct Docker {
    command: String,
}

impl Docker {
    fn run(&self, args: &[&str]) -> String {
        let script = format!("exec {} \"$@\"", self.command);
        let output = Command::new("sh").args(["-c", &script, "sh"]).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {text}");
        text
    }

    fn build(&self, context: &Path, flags: &[String]) -> Vec<String> {
        let mut args = vec!["buildx", "build", "--network=host", "--progress=rawjson"];
        args.extend(flags.iter().map(String::as_str));
        args.push(context.to_str().unwrap());
        ran(&self.run(&args))
    }
}

#[test]
fn the_readme_is_that_of_the_table() {
    let (_, edits) = table();
    let text = std::fs::read_to_string(testdata("edits/README.md")).unwrap();
    assert!(text == document(&edits), "RBUILD_TEST_UPDATE=1 makes it anew");
}

#[test]
fn rebuilds_run_what_the_table_says() {
    rebuilds(0);
}

#[test]
fn rebuilds_run_what_the_table_says_second_part() {
    rebuilds(1);
}

#[test]
fn rebuilds_run_what_the_table_says_third_part() {
    rebuilds(2);
}

#[test]
fn rebuilds_run_what_the_table_says_last_part() {
    rebuilds(3);
}
