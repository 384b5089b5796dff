//! `rbuild run`, and what a sandbox shows and hides.

use crate::harness::{Harness, is_root};

#[test]
fn programs_get_what_the_flags_say() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nENV A=image B=image\nWORKDIR /work\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $A $B; pwd; id -u\"]\n";
    harness.build_text(dockerfile, &["-t", "r"]).ok();
    assert_eq!(harness.rbuild(&["run", "r"]).ok().stdout, "image image\n/work\n0\n");
    let flags = ["run", "--rm", "-e", "B=flag", "-w", "/tmp", "-u", "daemon", "r"];
    assert_eq!(harness.rbuild(&flags).ok().stdout, "image flag\n/tmp\n1\n");
    assert_eq!(harness.rbuild(&["run", "--entrypoint", "echo", "r", "-n", "--x"]).ok().stdout, "--x");
    // What follows the image is the program's, also where rbuild has such a flag.
    let own = ["run", "--rm", "--entrypoint", "echo", "r", "-p", "80", "-l", "--rm", "--network=x"];
    assert_eq!(harness.rbuild(&own).ok().stdout, "-p 80 -l --rm --network=x\n");
}

#[test]
fn exit_codes_are_the_program_s() {
    let harness = Harness::new();
    assert_eq!(harness.rbuild(&["run", "busybox", "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(harness.rbuild(&["run", "busybox", "nosuchprogram"]).code, Some(127));
    assert_eq!(harness.rbuild(&["run", "busybox", "/etc/passwd"]).code, Some(126));
    harness.rbuild(&["run", "busybox", "sh", "-c", "echo out; echo err >&2"]).ok().says("err\n");
}

#[test]
fn volumes_show_the_host_s_files() {
    let harness = Harness::new();
    let directory = harness.path_text("shared");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(format!("{directory}/in"), "from the host\n").unwrap();
    let volume = format!("{directory}:/mnt/shared");
    let output =
        harness.rbuild(&["run", "-v", &volume, "busybox", "sh", "-c", "cat /mnt/shared/in; echo x > /mnt/shared/out"]);
    assert_eq!(output.ok().stdout, "from the host\n");
    assert_eq!(std::fs::read_to_string(format!("{directory}/out")).unwrap(), "x\n");
    let readonly = format!("{volume}:ro");
    let outcome = harness.rbuild(&["run", "-v", &readonly, "busybox", "touch", "/mnt/shared/no"]);
    assert_ne!(outcome.code, Some(0));
    harness.rbuild(&["run", "-v", "/nowhere:/x", "busybox", "true"]).fails(125).says("/nowhere");
}

#[test]
fn what_a_run_writes_is_gone() {
    let harness = Harness::new();
    harness.rbuild(&["run", "busybox", "sh", "-c", "echo x > /written; rm /bin/ls"]).ok();
    assert_eq!(harness.output("busybox", &["sh", "-c", "test -e /written || ls /bin/ls"]), "/bin/ls\n");
}

#[test]
fn standard_input_is_empty_unless_asked_for() {
    use std::io::Write;
    let harness = Harness::new();
    let run = |flags: &[&str]| {
        let args = [&["run"], flags, &["busybox", "cat"]].concat();
        let mut child = harness
            .command(&args)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"given\n");
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(run(&[]), "");
    assert_eq!(run(&["-i"]), "given\n");
}

/// `script` gives rbuild a terminal of its own.
#[test]
fn terminals_have_their_size_from_the_start() {
    let harness = Harness::new();
    let binary = harness.command(&[]).get_program().to_str().unwrap().to_owned();
    let line = format!("stty rows 33 cols 44; {binary} run -it busybox stty size");
    let environment = harness.command(&[]);
    let output = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script is part of every Debian");
    // The echo of the end of the input stands somewhere too.
    assert!(String::from_utf8_lossy(&output.stdout).contains("33 44"), "{output:?}");
}

/// X1.A to X1.G, as a step sees them.
#[test]
fn steps_see_the_sandbox_of_the_norm() {
    let harness = Harness::new();
    let script = r#"
        test $$ = 1 || echo not process 1
        grep -q '^CapBnd:.*00000000a80425fb' /proc/self/status || echo capabilities: $(grep Cap /proc/self/status)
        grep -q '^Seccomp:.*2' /proc/self/status || echo no seccomp
        grep -q '^NoNewPrivs:.*0' /proc/self/status || echo no new privileges
        test "$(hostname)" = buildkitsandbox || echo host name $(hostname)
        test "$(umask)" = 0022 || echo umask $(umask)
        test -z "$(cat)" || echo standard input
        for d in null zero full random urandom tty; do test -c /dev/$d || echo no /dev/$d; done
        echo x > /dev/null || echo /dev/null cannot be written
        head -c 4 /dev/zero | wc -c | grep -q 4 || echo /dev/zero
        test "$(stat -c %a /dev/shm)" = 1777 || echo shm
        test -z "$(cat /proc/kcore 2>/dev/null | head -c 1)" || echo /proc/kcore shows
        test -z "$(ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :)" || echo masked paths show
        echo 1 2>/dev/null > /proc/sys/kernel/panic && echo /proc/sys can be written
        echo x 2>/dev/null >> /etc/hosts && echo /etc/hosts can be written
        mount -t tmpfs none /mnt 2>/dev/null && echo mount is allowed
        unshare -m true 2>/dev/null && echo unshare is allowed
        mknod /null c 1 3 2>/dev/null && test "$MKNOD" = no && echo mknod is allowed
        ls /proc | grep -c '^[0-9]' | grep -q '^[1-9]$' || echo processes of the host show
        chown 33:33 /tmp && test "$(stat -c %u /tmp)" = 33 || echo chown
        true
    "#;
    let context = harness.context("c", &format!("FROM busybox\nARG MKNOD\nRUN <<'EOF'\n{script}\nEOF\n"));
    let mknod = format!("MKNOD={}", if is_root() { "yes" } else { "no" });
    let outcome = harness.build(&context, &["--build-arg", &mknod]).ok();
    let complaints: Vec<_> = outcome
        .stderr
        .lines()
        .filter(|line| {
            line.split_once(' ').is_some_and(|(number, text)| number.starts_with('#') && text.starts_with("0."))
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// X1.64: what a step makes with mknod must not lead to the host's devices. Only root can make them at all.
#[test]
fn device_nodes_do_not_open() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let script = r#"
        for place in / /dev /tmp /dev/shm /mounted; do
          mknod $place/node c 1 5 2>/dev/null || continue
          head -c 1 $place/node >/dev/null 2>&1 && echo a node in $place opens
        done
        head -c 1 /dev/zero >/dev/null || echo /dev/zero does not open
        true
    "#;
    let dockerfile = format!("FROM busybox\nRUN --mount=type=tmpfs,target=/mounted <<'EOF'\n{script}\nEOF\n");
    let outcome = harness.build_text(&dockerfile, &[]).ok();
    assert!(!outcome.stderr.contains("open"), "{}", outcome.stderr);
}

#[test]
fn a_step_without_network_has_only_lo() {
    let harness = Harness::new();
    let script =
        "FROM busybox\nRUN --network=none ls /sys/class/net > /interfaces; ip addr show lo | grep -q 127.0.0.1\n";
    harness.build_text(script, &["-t", "n"]).ok();
    assert_eq!(harness.output("n", &["cat", "/interfaces"]), "lo\n");
}

#[test]
fn mount_points_do_not_show_in_layers() {
    let harness = Harness::new();
    let directory = harness.path_text("out");
    let dockerfile = "FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin /bin\n\
                      RUN --mount=type=tmpfs,target=/a/b --mount=type=cache,target=/c [\"/bin/true\"]\n";
    harness.build_text(dockerfile, &["--output", &directory]).ok();
    let mut names: Vec<_> =
        std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // X1.48, X1.67: kernel file systems stay, mount stubs and /etc go.
    assert_eq!(names, ["bin", "dev", "proc", "sys"]);
}
