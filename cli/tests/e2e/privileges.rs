//! Steps that may do more: `--security=insecure` and devices.

use crate::harness::{Harness, is_root};

#[test]
fn insecure_steps_have_all_that_rbuild_has() {
    let harness = Harness::new();
    let show = "grep -E '^(Cap|Seccomp:)' /proc/self/status; mount -t tmpfs none /mnt && echo mounted; cat /proc/keys >/dev/null && echo keys; touch /proc/sys/kernel/domainname && echo writable || true";
    let text = format!(
        "FROM busybox\nRUN mkdir /mnt\nRUN --security=insecure {show}\nUSER 33\nRUN --security=insecure grep Cap /proc/self/status | uniq -f 1 | wc -l | sed 's/^/sets /'\n"
    );
    harness.build_text(&text, &[]).fails(1).says("security.insecure is not allowed").says("--allow security.insecure");
    let outcome = harness.build_text(&text, &["--allow", "security.insecure"]).ok();
    let outcome = outcome.says("Seccomp:\t0").says("mounted").says("keys");
    // Without root, settings of the kernel are still root's.
    let outcome = if is_root() { outcome.says(" writable\n") } else { outcome };
    // All five sets are one, for another user too (R1.10.3).
    outcome.says("sets 1");
    let confined = "FROM busybox\nRUN mkdir /mnt; grep Seccomp: /proc/self/status; mount -t tmpfs none /mnt || test ! -s /proc/keys && echo confined\n";
    harness.build_text(confined, &["--allow", "security.insecure"]).ok().says("Seccomp:\t2").says("confined");
}

#[test]
fn insecure_steps_may_use_devices_of_root() {
    if !is_root() {
        return;
    }
    let harness = Harness::new();
    let text = "FROM busybox\nRUN --security=insecure mknod /zero c 1 5 && head -c 3 /zero | od -c && rm /zero\n";
    harness.build_text(text, &["--allow", "security.insecure"]).ok().says("\\0  \\0  \\0");
    let outcome = harness.build_text("FROM busybox\nRUN mknod /zero c 1 5 && head -c 3 /zero | od -c\n", &[]);
    outcome.ok().says("Permission denied");
}

const DEVICES: &str = "cdiVersion: \"0.6.0\"\nkind: vendor.com/gpu\ndevices:\n- name: zero\n  containerEdits:\n    env: [GPU=zero]\n    deviceNodes:\n    - {path: /dev/gpu0, hostPath: /dev/zero}\n    additionalGids: [77]\n    mounts:\n    - {hostPath: HOST, containerPath: /driver, options: [ro]}\n    hooks:\n    - {hookName: createContainer, path: /bin/ldconfig}\n";

#[test]
fn devices_are_brought_by_their_descriptions() {
    let harness = Harness::new();
    let host = harness.path_text("driver");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(format!("{host}/lib.so"), "driver\n").unwrap();
    let directory = harness.path_text("cdi");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(format!("{directory}/gpu.yaml"), DEVICES.replace("HOST", &host)).unwrap();
    let build = |text: &str, flags: &[&str]| {
        let context = harness.context("context", text);
        let mut command = harness.command(&["build", "--progress=plain", "-t", "d"]);
        command.args(flags).arg(context).env("RBUILD_CDI_SPEC_DIRS", &directory);
        crate::harness::Outcome::of(command.output().unwrap())
    };
    let text = "FROM busybox\nRUN --device=vendor.com/gpu=zero,required echo $GPU $(id -G) && head -c 2 /dev/gpu0 | od -c && cat /driver/lib.so && ! touch /driver/x\n";
    build(text, &[])
        .fails(1)
        .says("device vendor.com/gpu=zero is not allowed")
        .says("--allow device=vendor.com/gpu=zero");
    let outcome = build(text, &["--allow", "device=vendor.com/gpu=zero"]).ok();
    outcome.says("zero 0 77").says("\\0  \\0").says("driver").says("hook, /bin/ldconfig, which is not run");
    // Nothing of it is in the layer.
    harness.rbuild(&["run", "--rm", "d", "sh", "-c", "! ls /driver"]).ok();
    let missing = "FROM busybox\nRUN --device=vendor.com/tpu echo without\n";
    build(missing, &["--allow", "device"]).ok().says("without");
    let missing = "FROM busybox\nRUN --device=vendor.com/tpu,required true\n";
    build(missing, &["--allow", "device"]).fails(1).says("required device \"vendor.com/tpu\" is not registered");
    let wrong = "FROM busybox\nRUN --device=a,requird=1 true\n";
    build(wrong, &[]).fails(1).says("InvalidDevice").says("required");
}
