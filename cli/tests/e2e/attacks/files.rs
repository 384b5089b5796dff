//! Files of the host and of other steps.

use super::{attempts, build};
use crate::harness::{Harness, Outcome, is_root, printed};

/// Reads, and writes back what is there: a success changes nothing.
const PROC: &str = r#"FROM hostile
RUN <<END
for f in kcore keys timer_list sched_debug latency_stats; do
  test ! -e /proc/$f || test "$(head -c 1 /proc/$f | wc -c)" = 0 || echo "read $f"
done
for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/fs/binfmt_misc/register \
    /proc/sys/net/ipv4/ip_forward /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run /sys/kernel/uevent_helper /sys/power/state; do
  test ! -e $f || { value=$(cat $f 2>/dev/null); echo "${value:-h}" > $f; } 2>/dev/null && test -e $f && echo "wrote $f"
done
ls /proc/sys/fs/binfmt_misc /sys/firmware /proc/scsi /proc/acpi 2>/dev/null | grep -v ':$' | grep . && echo "listed"
for p in /proc/[0-9]*; do
  for l in root cwd exe; do case "$(readlink $p/$l)" in /|/bin/*|/usr/bin/*|"") ;; *) echo "$p/$l $(readlink $p/$l)";; esac; done
  test "$(stat -L -c %d:%i $p/root/. 2>/dev/null)" = "$(stat -c %d:%i /)" || test ! -e $p || echo "$p has another root"
done
ls -d /proc/1/root/../../bin/attack
mount -t tmpfs none /tmp 2>/dev/null && echo mounted
umount /proc/kcore 2>/dev/null && echo unmounted
umount -l /proc 2>/dev/null && echo unmounted
mkdir /groups; mount -t cgroup -o memory none /groups 2>/dev/null && echo groups
find /sys/fs/cgroup -name release_agent 2>/dev/null
touch /sys/fs/cgroup/x 2>/dev/null && test ! -w /sys/fs/cgroup && echo wrote groups
echo done
END
"#;

#[test]
fn proc_and_sys_give_nothing_away() {
    let harness = Harness::new();
    assert_eq!(printed(&build(&harness, PROC, &[]).ok()), ["/proc/1/root/../../bin/attack", "done"]);
}

#[test]
fn device_files_cannot_be_opened() {
    let harness = Harness::new();
    let text = "FROM hostile\nRUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/tmpfs attack devices\n\
                RUN ls /dev | sort | tr '\\n' ' '\n";
    let outcome = build(&harness, text, &[]).ok();
    let results = attempts(&outcome);
    assert_eq!(results.len(), 40, "{results:?}");
    let expected = if is_root() { "EACCES" } else { "EPERM" };
    for (path, result) in &results {
        assert_eq!(result, expected, "{path}");
    }
    let listed = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
    assert!(printed(&outcome).contains(&listed.trim_end().to_owned()) || outcome.stderr.contains(listed));
    if is_root() {
        let text = "FROM hostile\nRUN --security=insecure attack devices\n";
        let insecure = attempts(&build(&harness, text, &["--allow", "security.insecure"]).ok());
        assert_eq!(insecure["/tmp/zero-node"], "DONE");
    }
}

#[test]
fn a_chroot_in_a_chroot_ends_at_the_own_root() {
    let harness = Harness::new();
    let marker = harness.path_text("registries.conf");
    let results = attempts(&build(&harness, &format!("FROM hostile\nRUN attack chroot {marker}\n"), &[]).ok());
    assert_eq!((&*results["chroot"], &*results["own root"], &*results["host's root"]), ("DONE", "DONE", "ENOENT"));
}

/// Marks by which overlayfs takes files from elsewhere: set by a step, they mean nothing.
#[test]
fn marks_of_overlays_mean_nothing() {
    let harness = Harness::new();
    let text = "FROM hostile\nRUN mkdir /hidden /marked && echo seen > /hidden/stolen && echo mine > /marked/file\n\
                RUN attack overlay-marks\n\
                RUN ls -A /marked && cat /marked/file\nRUN echo again > /marked/new && ls -A /marked && cat /marked/file\n";
    let outcome = build(&harness, text, &["-t", "marked"]).ok();
    let results = attempts(&outcome);
    assert_eq!(results["whiteout"], "EPERM");
    for (name, result) in results.iter().filter(|(name, _)| name.starts_with("trusted.")) {
        assert_ne!(result, "DONE", "{name}");
    }
    let shown = printed(&outcome);
    let rest: Vec<_> = shown.iter().filter(|line| !line.contains(": ")).collect();
    assert_eq!(rest, ["file", "mine", "file", "new", "mine"]);
    assert_eq!(harness.output("marked", &["cat", "/marked/file", "/hidden/stolen"]), "mine\nseen\n");
}

/// Mount points and files that rbuild puts into an image whose links lead to the host.
#[test]
fn links_do_not_lead_mounts_astray() {
    let harness = Harness::new();
    let host = harness.path_text("host");
    std::fs::create_dir(&host).unwrap();
    for name in ["hosts", "empty", "stub"] {
        std::fs::write(format!("{host}/{name}"), if name == "hosts" { "theirs\n" } else { "" }).unwrap();
    }
    // The last step leads the removal of its mount point to a file of the host that is as empty as the mount point (CVE-2024-23652).
    let text = format!(
        "FROM hostile AS links\n\
         RUN mkdir -p /l/etc /l{host} && cd /l && ln -s {host} absolute && ln -s ../../../../../../../..{host} relative && \
             ln -s {host}/hosts etc/hosts && ln -s ../../../../..{host}/empty etc/resolv.conf\n\
         FROM hostile\nCOPY --from=links /l /\n\
         RUN --mount=type=tmpfs,target=/absolute/a --mount=type=cache,target=/relative/b grep -q localhost /etc/hosts && echo ours; ls {host} | tr '\\n' ' '; echo\n\
         RUN --mount=type=bind,from=hostile,source=/bin/attack,target=/new/stub mv /new /moved; ln -s {host} /new\n\
         RUN test ! -e {host}/a; ls -A {host}\n"
    );
    let outcome = build(&harness, &text, &[]).ok();
    let shown = printed(&outcome);
    assert_eq!(shown[0], "ours", "{shown:?}");
    assert!(shown[1].contains("a b"), "inside of the image: {shown:?}");
    assert_eq!(std::fs::read_to_string(format!("{host}/hosts")).unwrap(), "theirs\n");
    let mut names: Vec<_> = std::fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["empty", "hosts", "stub"]);
    let refused = |steps: &str| build(&harness, &format!("FROM hostile\n{steps}\n"), &[]).fails(1);
    refused("RUN ln -s /b /a; ln -s /a /b\nRUN --mount=type=tmpfs,target=/a true")
        .says("Too many levels of symbolic links");
    refused("RUN ln -s a/x /a\nRUN --mount=type=tmpfs,target=/a true").says("Too many levels of symbolic links");
    refused(&format!("RUN --mount=type=tmpfs,target=/proc/1/root{host}/x true"));
}

/// CVE-2024-23651: a cache in which one build exchanges a directory for a link while others mount something there.
#[test]
fn a_race_for_a_mount_point_stays_inside() {
    let harness = Harness::new();
    let host = harness.path_text("host");
    std::fs::create_dir(&host).unwrap();
    let swap = format!(
        "FROM hostile\nRUN --mount=type=cache,id=race,target=/c cd /c; ln -sfn {host} l; touch swapping; \
         while [ ! -e stop ]; do mkdir d; mv -T d e; ln -s {host} d; rm d; rm -r e; done 2>/dev/null; true\n"
    );
    let swapping = super::context(&harness, "swap", &swap);
    let mut command = harness.command(&["build", "--progress=plain", swapping.to_str().unwrap()]);
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let text =
        "FROM hostile\nRUN --mount=type=cache,id=race,target=/c --mount=type=tmpfs,target=/c/d/x touch /c/d/x/y\n";
    let stop =
        "FROM hostile\nRUN --mount=type=cache,id=race,target=/c while [ ! -e /c/swapping ]; do sleep 0.1; done\n";
    build(&harness, stop, &[]).ok();
    for _ in 0..10 {
        // Some of them fail, when what they have found is not there any more.
        build(&harness, text, &["--no-cache-filter", "stage-1"]);
    }
    build(&harness, "FROM hostile\nRUN --mount=type=cache,id=race,target=/c touch /c/stop\n", &[]).ok();
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}

/// Sources of mounts and copies.
#[test]
fn sources_stay_where_they_belong() {
    let harness = Harness::new();
    let secret = harness.path_text("secret.txt");
    std::fs::write(&secret, "of the host\n").unwrap();
    let text = format!(
        "FROM hostile AS source\nRUN mkdir /tree; ln -s {secret} /tree/absolute; ln -s ../../../../../../..{secret} /tree/relative; ln -s / /tree/root\n"
    );
    let steps = |steps: &str| {
        let context = super::context(&harness, "attack", &format!("{text}FROM hostile\n{steps}\n"));
        let link = context.join("link");
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(&secret, &link).unwrap();
            std::os::unix::fs::symlink("/", context.join("root")).unwrap();
        }
        harness.build(&context, &[])
    };
    for step in [
        "COPY --from=source /tree/absolute /x".to_owned(),
        "COPY --from=source /tree/relative /x".to_owned(),
        format!("COPY --from=source /tree/root{secret} /x"),
        format!("COPY --from=source /../../../../..{secret} /x"),
        "COPY link /x".to_owned(),
        format!("COPY root{secret} /x"),
        format!("COPY ../../../../../../..{secret} /x"),
        format!("ADD file://{secret} /x"),
        format!("RUN --mount=type=bind,source=root{secret},target=/x cat /x"),
        "RUN --mount=type=bind,source=link,target=/x cat /x".to_owned(),
        format!("RUN --mount=type=bind,source=../../../../../..{secret},target=/x cat /x"),
        format!("RUN --mount=type=bind,from=source,source=/tree/root{secret},target=/x cat /x"),
        format!("RUN --mount=type=cache,from=source,source=../../../../../..{secret},target=/x cat /x"),
    ] {
        let outcome = steps(&step);
        assert_ne!(outcome.code, Some(0), "{step}");
        assert!(!outcome.stderr.contains("of the host"), "{step}: {}", outcome.stderr);
    }
    // Names of caches are no paths.
    let outcome = steps("RUN --mount=type=cache,id=../../../..,target=/c --mount=type=cache,id=/etc,target=/d ls -A /c /d | grep -v :; echo x > /d/passwd; true").ok();
    assert_eq!(printed(&outcome), [""], "{}", outcome.stderr);
}

/// Files that layers share are written by nobody.
#[test]
fn a_step_changes_no_layer_but_its_own() {
    let harness = Harness::new();
    let text = "FROM hostile AS base\nRUN mkdir /d && echo good > /d/f && chmod 777 /d/f\n\
                FROM base AS evil\n\
                RUN ln /d/f /d/g && echo bad > /d/g && cat /d/f && mount | grep -c lowerdir\n\
                RUN --mount=type=cache,id=seeded,from=base,source=/d,target=/c echo bad > /c/f\n\
                RUN --mount=type=bind,from=base,source=/d,target=/c,rw echo bad > /c/f\n\
                RUN --mount=type=bind,source=attack,target=/c,rw echo bad > /c\n\
                RUN --mount=type=bind,from=base,source=/d,target=/c ! touch /c/f && ! sh -c 'echo bad > /c/f'\n\
                FROM base\nCOPY --from=evil /d/g /evil\nCOPY attack /copy\nRUN cat /d/f && cmp /copy /bin/attack && echo same\n";
    let outcome = build(&harness, text, &["-t", "t"]).ok();
    let shown = printed(&outcome);
    assert_eq!(shown[shown.len() - 2..], ["good", "same"], "{shown:?}");
    assert_eq!(harness.output("t", &["cat", "/d/f"]), "good\n");
}

/// The step that has a secret waits for the one that looks for it.
#[test]
fn a_secret_is_not_seen_by_another_step() {
    let harness = Harness::new();
    std::fs::write(harness.path("s"), "hunter2-of-the-other-step").unwrap();
    let text = "FROM hostile AS owner\n\
                RUN --mount=type=cache,id=meet,target=/m --mount=type=secret,id=s --mount=type=secret,id=s,env=S \
                    cat /run/secrets/s > /dev/shm/s; touch /m/ready; i=0; while [ ! -e /m/looked ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; test -e /m/looked\n\
                FROM hostile AS thief\n\
                RUN --mount=type=cache,id=meet,target=/m i=0; while [ ! -e /m/ready ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; test -e /m/ready; \
                    echo \"found: $(cat /proc/[0-9]*/environ /run/secrets/* /dev/shm/* /dev/mqueue/* /tmp/* /proc/keys 2>/dev/null | grep -c 'hunter[2]')\"; touch /m/looked\n\
                FROM hostile\nCOPY --from=owner /etc/passwd /a\nCOPY --from=thief /etc/passwd /b\n\
                RUN ls -A /run/secrets /dev/shm 2>/dev/null | grep -v : ; env | grep -c '^S=' ; true\n";
    let flag = format!("id=s,src={}", harness.path_text("s"));
    let outcome: Outcome = build(&harness, text, &["--secret", &flag]).ok();
    let shown = printed(&outcome);
    assert!(shown.contains(&"found: 0".to_owned()), "{shown:?}");
    assert_eq!(shown.last().map(String::as_str), Some("0"), "{shown:?}");
}

/// What a failed step leaves is deleted, however deep.
#[test]
fn deep_trees_do_not_stay() {
    let harness = Harness::new();
    let context = super::context(&harness, "attack", "FROM hostile\nRUN attack deep /tmp; false\n");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 500; exec \"$@\"", "sh"]).arg(crate::harness::binary());
    command.args(["build", "--progress=plain"]).arg(context).env("RBUILD_ROOT", harness.path("store"));
    let outcome = Outcome::of(command.output().unwrap()).fails(1);
    assert_eq!(attempts(&outcome)["deep"], "1500");
    let count = |directory: &str| std::fs::read_dir(harness.path("store").join(directory)).unwrap().count();
    assert_eq!(count("tmp"), 0);
    // A build deletes no longer than its user would wait; the next ones go on.
    for _ in 0..20 {
        if count("trash") > 0 {
            harness.build_text("FROM scratch\nLABEL a=b\n", &[]).ok();
        }
    }
    assert_eq!(count("trash"), 0);
}

#[test]
fn the_store_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt;
    let harness = Harness::new();
    let mode = harness.path("store").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o77, 0, "set-id programs and devices of images lie there");
}
