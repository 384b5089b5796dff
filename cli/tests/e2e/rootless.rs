//! Where there is less than root: users with and without ids of their own, containers that cover or forbid things. Each works, or says what to enable.

use crate::harness::{Harness, Outcome, binary, busybox_tar, is_root, testdata, tool};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// An ordinary user whom only the processes of one test know: in mount namespaces of their own, with an /etc/passwd and an /etc/subuid
/// of their own. It takes root to be somebody else.
struct User {
    harness: Harness,
}

const ID: &str = "54321";

impl User {
    /// With a home, in which there is a store with `busybox`. `None` for whom cannot play.
    fn new(grants: &str) -> Option<User> {
        if !is_root() {
            return None;
        }
        let harness = Harness::empty();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        std::fs::write(harness.path("passwd"), format!("{passwd}tester:x:{ID}:{ID}::/nowhere:/bin/sh\n")).unwrap();
        std::fs::write(harness.path("grants"), grants).unwrap();
        std::fs::write(harness.path("rbuild"), "").unwrap();
        std::fs::copy(busybox_tar(), harness.path("busybox.tar")).unwrap();
        std::fs::create_dir(harness.path("home")).unwrap();
        let path = |name: &str| harness.path_text(name);
        let base = path("").trim_end_matches('/').to_owned();
        tool("chmod", &["755", &base, &path("rbuild")]);
        tool("chmod", &["644", &path("busybox.tar"), &path("passwd"), &path("grants"), &path("registries.conf")]);
        tool("chown", &[ID, &path("home")]);
        let user = User { harness };
        let flags = ["--change", "ENV PATH=/bin", "--change", "CMD [\"sh\"]"];
        user.rbuild(&[&["import"], &flags[..], &[&user.harness.path_text("busybox.tar"), "busybox"]].concat()).ok();
        Some(user)
    }

    /// Runs rbuild after `prelude`, which may mount things; `$as` before rbuild makes it the user's process.
    fn after(&self, prelude: &str, args: &[&str]) -> Outcome {
        let script = format!(
            r#"
            exec unshare --mount sh -euc '
                home="$1"; binary="$2"; shift 2
                mount --bind "$binary" "$home/../rbuild"
                mount --bind "$home/../passwd" /etc/passwd
                for file in /etc/subuid /etc/subgid; do
                    test -e $file || touch $file
                    mount --bind "$home/../grants" $file
                done
                export HOME="$home" RBUILD_ROOT="$home/store"
                locked=
                {prelude}
                cd "$home"
                exec setpriv --reuid {ID} --regid {ID} --clear-groups $locked "$home/../rbuild" "$@"
            ' sh "{home}" "$@"
            "#,
            home = self.harness.path_text("home"),
        );
        self.harness.script(&script, args)
    }

    fn rbuild(&self, args: &[&str]) -> Outcome {
        self.after("", args)
    }

    fn build_after(&self, prelude: &str, dockerfile: &str, flags: &[&str]) -> Outcome {
        let context = self.harness.context("context", dockerfile);
        tool("chmod", &["-R", "a+rX", context.to_str().unwrap()]);
        let args = [&["build", "--progress=plain", "--network=host"], flags, &[context.to_str().unwrap()]].concat();
        self.after(prelude, &args)
    }

    fn build(&self, dockerfile: &str) -> Outcome {
        self.build_after("", dockerfile, &[])
    }
}

/// All that needs no second id.
const PLAIN: &str =
    "FROM busybox\nRUN id -u && echo made > /file && chmod 600 /file\nCOPY Dockerfile /copy\nRUN cat /file\n";

/// `newuidmap` maps all ranges of a user, one after the other.
#[test]
fn users_with_ranges_of_ids() {
    let Some(user) = User::new(&format!("other:1000:10\n{ID}:300000:50\ntester:400000:65000\n")) else { return };
    let text = "FROM busybox\nRUN cat /proc/self/uid_map && touch /f && chown 40:60000 /f && stat -c owner=%u:%g /f\nUSER 60001:7\nRUN id\n";
    let outcome = user.build(text).ok();
    let map: Vec<String> =
        outcome.stderr.lines().map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
    for line in [format!("0 {ID} 1"), "1 300000 50".into(), "51 400000 65000".into()] {
        assert!(map.contains(&line), "{line}: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("note:"), "{}", outcome.stderr);
    outcome.says("owner=40:60000").says("uid=60001 gid=7");
}

#[test]
fn users_without_ranges_have_one_id_and_are_told_what_gives_more() {
    let Some(user) = User::new("other:200000:65536\n") else { return };
    let outcome = user.build(PLAIN).ok();
    outcome.says("note: ").says("`echo tester:265536:65536 | sudo tee -a /etc/subuid /etc/subgid`").says("made");
    let outcome = user.build("FROM busybox\nUSER daemon\nRUN true\n").fails(1);
    outcome.says("becoming user 1:1").says("/etc/subuid");
    // R1.12.9.
    user.build("FROM busybox\nCOPY --chown=7:8 Dockerfile /d\n")
        .fails(1)
        .says("chown /d: invalid argument (rbuild has no such id here");
    // What lacks its owners must not be found by whoever has them.
    std::fs::write(user.harness.path("grants"), format!("{ID}:300000:65536\n")).unwrap();
    user.build(PLAIN).fails(1).says("were made as user namespace with a single id").says("RBUILD_ROOT");
    user.after("rm -rf $home/store", &["images"]).ok();
}

#[test]
fn newuidmap_that_is_missing_or_powerless_is_named() {
    let Some(user) = User::new(&format!("{ID}:300000:65536\n")) else { return };
    let hidden = "for path in $(command -v -p newgidmap) /usr/bin/newgidmap; do mount --bind /dev/null $path; done";
    user.build_after(hidden, PLAIN, &[])
        .ok()
        .says("newgidmap is not installed (`sudo apt-get install uidmap`")
        .says("made");
    let locked = user.build_after("locked=--no-new-privs", PLAIN, &["--no-cache"]).ok();
    locked.says("newuidmap: ").says("allowPrivilegeEscalation: false").says("made");
}

/// As in a container of Docker's or Kubernetes': the kernel mounts no new /proc there, for that would uncover what is covered.
const COVERED: &str = r#"
    exec unshare --user --map-root-user --mount --pid --fork --mount-proc sh -euc '
        mount -t tmpfs -o ro none /proc/acpi
        mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys
        mount -t tmpfs -o ro none /sys/firmware
        # What covers is locked for those who enter a namespace below.
        unshare --user --map-root-user --mount "$@"
    ' sh "$@"
"#;

/// R1.12.11.
#[test]
fn a_covered_proc_is_shared_with_a_notice() {
    let harness = Harness::new();
    // What it sees there it can neither end nor look into.
    let script = r#"
        echo outside $(tr "\0" " " < /proc/1/cmdline | cut -c 1-7)
        read self rest < /proc/self/stat
        for process in /proc/[0-9]*; do
            test $process = /proc/$self && continue
            case $(cat $process/cmdline | tr "\0" " ") in
                *rbuild*|*euc*) cat $process/environ >/dev/null 2>&1 && echo environment of $process
                    ls $process/root/ >/dev/null 2>&1 && echo files of $process;;
            esac
        done
        kill -0 $self 2>/dev/null && echo kill
        ls /proc/acpi /proc/self/fd >/dev/null && test -z "$(ls /proc/acpi)" && echo stays covered
        echo 1 2>/dev/null > /proc/sys/kernel/domainname && echo writable
        (sleep 1000.125 &) ; echo mine $$
    "#;
    let text = format!("FROM busybox\nRUN <<'EOF'\n{script}\nEOF\nRUN --network=none ls /sys/class/net >/dev/null\n");
    let context = harness.context("context", &text);
    let args = ["build", "--progress=plain", "--network=host", context.to_str().unwrap()];
    let outcome = harness.script(COVERED, &args).ok();
    let outcome = outcome.says("mine 1").says("stays covered").says("outside sh -euc").says("procMount: Unmasked");
    assert_eq!(outcome.stderr.matches("procMount").count(), 1, "{}", outcome.stderr);
    let said: Vec<_> = ["environment of", "files of", "kill", "writable"]
        .into_iter()
        .filter(|what| {
            outcome
                .stderr
                .lines()
                .any(|line| line.starts_with('#') && line.contains(&format!(" {what}")) && !line.contains("RUN"))
        })
        .collect();
    assert!(said.is_empty(), "{said:?}: {}", outcome.stderr);
    let left = Command::new("pgrep").args(["-f", "sleep 1000.125"]).output().unwrap();
    assert!(left.stdout.is_empty(), "orphans end with the step");
    let outcome = harness.script(COVERED, &["run", "--rm", "--network=host", "busybox", "cat", "/proc/self/stat"]).ok();
    outcome.says("note: ").says("systempaths=unconfined");
}

#[test]
fn forbidden_user_namespaces_are_told_with_the_command() {
    let harness = Harness::new();
    let script = r#"
        exec unshare --user --map-root-user sh -euc '
            echo 0 > /proc/sys/user/max_user_namespaces
            exec setpriv --bounding-set=-all --inh-caps=-all "$@"
        ' sh "$@"
    "#;
    let context = harness.context("context", PLAIN);
    let outcome = harness.script(script, &["build", context.to_str().unwrap()]).fails(1);
    outcome.says("error: cannot use a user namespace").says("`sudo sysctl -w user.max_user_namespaces=15000`");
}

/// Uid 0 of a container has few capabilities, but most of its ids.
#[test]
fn root_of_a_container_passes_its_ids_on() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let text = "FROM busybox\nRUN touch /f && chown 33:44 /f && stat -c owner=%u:%g /f\nUSER daemon\nRUN id\n";
    let context = harness.context("context", text);
    let args = ["--root", &harness.path_text("own"), "build", "--progress=plain", context.to_str().unwrap()];
    harness
        .script(
            "exec \"$1\" --root \"$3\" import \"$4\" busybox",
            &["", &harness.path_text("own"), busybox_tar().to_str().unwrap()],
        )
        .ok();
    let outcome = harness.script("exec setpriv --bounding-set=-sys_admin \"$@\"", &args).ok();
    outcome.says("owner=33:44").says("uid=1(daemon)");
    let outcome = harness.script("exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"", &args).fails(1);
    outcome.says("SETUID, SETGID and SETFCAP");
}

/// A user namespace that maps all ids is still none of the machine's.
#[test]
fn namespaces_with_all_ids_are_no_root() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let context =
        harness.context("context", "FROM busybox\nRUN chown 33:44 /etc/passwd && stat -c owner=%u:%g /etc/passwd\n");
    let mut command = Command::new("unshare");
    command.args(["--user", "--mount", "sh", "-euc", "echo here; read go; exec \"$@\"", "sh"]).arg(binary());
    let store = harness.path_text("own");
    let script = "exec \"$1\" --root \"$2\" import \"$3\" busybox";
    harness.script(script, &[&store, busybox_tar().to_str().unwrap()]).ok();
    command.args(["--root", &store, "build", "--progress=plain", context.to_str().unwrap()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut String::new()).unwrap();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").unwrap();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    Outcome::of(child.wait_with_output().unwrap()).ok().says("owner=33:44");
}

/// As where the store lies in the files of a container.
#[test]
fn a_store_on_an_overlay_is_told_where_to_go() {
    let harness = Harness::new();
    let script = r#"
        exec unshare --user --map-root-user --mount sh -euc '
            base="$1"; shift
            mkdir -p "$base/lower" "$base/upper" "$base/work" "$base/merged"
            mount -t overlay -o userxattr,lowerdir="$base/lower",upperdir="$base/upper",workdir="$base/work" none "$base/merged"
            export RBUILD_ROOT="$base/merged/store"
            "$1" import "$2" busybox
            "$1" build --progress=plain "$3"
        ' sh "$2" "$1" "$3" "$4"
    "#;
    let context = harness.context("context", PLAIN);
    let args = [&harness.path_text("files"), busybox_tar().to_str().unwrap(), context.to_str().unwrap()];
    let outcome = harness.script(script, &args).fails(1);
    outcome.says("needs an overlay").says("keep it in a volume").says("RBUILD_ROOT");
}

/// All that an image's layers hold, but times: path, type, mode, owner, link, attributes, content.
fn layers(layout: &Path) -> Vec<Vec<String>> {
    let document =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &serde_json::Value| {
        layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    let index = document(&layout.join("index.json"));
    let manifest = document(&blob(&index["manifests"][0]));
    let listing = |layer: &serde_json::Value| -> Vec<String> {
        let layer = blob(layer).to_str().unwrap().to_owned();
        let entries =
            tool("tar", &["--numeric-owner", "--xattrs", "--xattrs-include=*", "--full-time", "-tvvf", &layer]);
        // Mode, owner, size, day, time, name and where it links to.
        let untimed = |line: &str| match line.split_whitespace().collect::<Vec<_>>() {
            fields if fields.len() > 5 => [&fields[..3], &fields[5..]].concat().join(" "),
            attribute => attribute.join(" "),
        };
        let command = "--to-command=echo $(sha256sum) $TAR_FILENAME";
        let contents = tool("tar", &[command, "-xf", &layer]);
        entries.lines().map(untimed).chain(contents.lines().map(str::to_owned)).collect()
    };
    manifest["layers"].as_array().unwrap().iter().map(listing).collect()
}

/// Of the image in a layout.
fn digest(layout: &Path) -> String {
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// Whoever builds them, images have the same files; with times that are rewritten they are the same (R13.2).
#[test]
fn trees_are_the_same_as_those_of_root() {
    let Some(user) = User::new(&format!("{ID}:300000:65536\n")) else { return };
    let root = Harness::empty();
    let archive = user.harness.path_text("home/base.tar");
    user.rbuild(&["save", "-o", &archive, "busybox"]).ok();
    root.rbuild(&["load", "-i", &archive]).ok();
    let all = user.harness.path_text("testdata");
    tool("cp", &["-r", testdata("").to_str().unwrap(), &all]);
    let more = "FROM busybox\nRUN touch /a && chown 33:44 /a && chmod 6755 /a && ln /a /b && ln -s a /c && chown -h 7:8 /c && mkfifo -m 640 /p\n\
                RUN mkdir -p /n/m && for i in $(seq 300); do echo $i > /n/m/$i; ln -s $i /n/m/l$i; done && chown -R 1000:1000 /n && chmod 1777 /n\n\
                RUN rm -r /tmp /n/m && mkdir /n/m && rm /b\nWORKDIR /made/by/60000\nUSER 60000:60001\nWORKDIR /home/own\nRUN mkdir -p /tmp/x || touch own\n";
    std::fs::create_dir(format!("{all}/more")).unwrap();
    std::fs::write(format!("{all}/more/Dockerfile"), more).unwrap();
    tool("chmod", &["-R", "u+rwX,go=rX", &all]);
    let mut compared = 0;
    for entry in std::fs::read_dir(&all).unwrap().flatten() {
        let (name, context) = (entry.file_name().into_string().unwrap(), entry.path());
        // It needs Debian, and a mirror of it.
        if name == "memcached" || !context.join("Dockerfile").exists() {
            continue;
        }
        let context = context.to_str().unwrap();
        let (mine, theirs) = (root.path(&name), user.harness.path("home").join(&name));
        let output = |path: &Path| {
            format!(
                "--output=type=oci,tar=false,compression=uncompressed,rewrite-timestamp=true,dest={}",
                path.display()
            )
        };
        let args = ["build", "--progress=plain", "--network=host", "--build-arg=SOURCE_DATE_EPOCH=1234567890"];
        root.rbuild(&[&args[..], &[&output(&mine), context]].concat()).ok();
        user.rbuild(&[&args[..], &[&output(&theirs), context]].concat()).ok();
        assert_eq!(layers(&mine), layers(&theirs), "{name}");
        assert_eq!(digest(&mine), digest(&theirs), "{name}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}
