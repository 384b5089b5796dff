//! Builds that are ended from outside, and what is left of them: nothing.

use crate::harness::{Harness, Outcome, binary, is_root, tool, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A build that has come as far as a line that ends in `text`.
struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Running {
    fn until(mut command: Command, text: &str) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut running = Running { child, stderr, said: String::new() };
        running.read_to(text);
        running
    }

    fn read_to(&mut self, text: &str) {
        loop {
            let begin = self.said.len();
            assert!(self.stderr.read_line(&mut self.said).unwrap() > 0, "{text} is not in\n{}", self.said);
            if self.said[begin..].trim_end().ends_with(text) {
                return;
            }
        }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// All that it said, and its exit code.
    fn end(mut self) -> Outcome {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let code = self.child.wait().unwrap().code();
        Outcome { code, stdout: String::new(), stderr: self.said }
    }
}

fn build(harness: &Harness, name: &str, dockerfile: &str, flags: &[&str]) -> Command {
    let context = harness.context(name, dockerfile);
    harness.command(&[&["build", "--progress=plain"], flags, &[context.to_str().unwrap()]].concat())
}

#[track_caller]
fn nothing_runs(command: &str) {
    let list = || Command::new("pgrep").args(["-f", command]).output().unwrap().stdout;
    wait_until(&format!("{command} has ended"), || list().is_empty());
}

/// A later build works, and nothing of earlier ones is left but what is deleted with the next trash.
#[track_caller]
fn still_works(harness: &Harness) {
    harness.build_text("FROM busybox\nRUN echo works > /f\n", &["-t", "works"]).ok();
    assert_eq!(harness.output("works", &["cat", "/f"]), "works\n");
    let left: Vec<_> = std::fs::read_dir(harness.path("store/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&harness.path_text("store")), "{mounts}");
}

#[test]
fn each_signal_cancels_with_its_code() {
    let harness = Harness::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let text = format!("FROM busybox\nRUN trap '' INT TERM HUP; echo started; sleep 1000.{code}\n");
        let running = Running::until(build(&harness, "c", &text, &[]), " started");
        running.send(signal);
        let outcome = running.end().fails(code).says("CANCELED");
        assert!(outcome.stderr.ends_with("error: failed to solve: Canceled: context canceled\n"), "{}", outcome.stderr);
        nothing_runs(&format!("sleep 1000.{code}"));
    }
    still_works(&harness);
}

/// As with nohup, and for what a script starts in the background.
#[test]
fn signals_that_are_ignored_stay_so() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox\nRUN echo started; sleep 1; echo through\n");
    let command = harness.command(&["build", "--progress=plain", context.to_str().unwrap()]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(binary()).args(command.get_args());
    ignoring.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let running = Running::until(ignoring, " started");
    running.send(Signal::HUP);
    running.send(Signal::INT);
    running.end().ok().says("through");
}

#[test]
fn nobody_reads_what_is_shown() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nRUN echo started; while sleep 0.05; do echo more; done; sleep 1000.375\n";
    for mode in ["plain", "rawjson"] {
        let context = harness.context("c", dockerfile);
        let mut command = harness.command(&["build", "--progress", mode, context.to_str().unwrap()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(141), "{mode}");
    }
    nothing_runs("sleep 1000.375");
    still_works(&harness);
}

/// While files are copied and written: no part of an output is left.
#[test]
fn copies_and_exports_are_cancelled() {
    let harness = Harness::new();
    let context = harness.context("big", "FROM scratch\nCOPY f /f\n");
    let file = std::fs::File::create(context.join("f")).unwrap();
    // Sparse here, and written in full by what reads it.
    file.set_len(400 << 20).unwrap();
    let directory = harness.path("out");
    std::fs::create_dir(&directory).unwrap();
    let output = format!("--output=type=tar,dest={}/image.tar", directory.display());
    let context = context.to_str().unwrap();
    for stage in ["[1/1] COPY f /f", "exporting to client tarball"] {
        let running = Running::until(harness.command(&["build", "--progress=plain", &output, context]), stage);
        running.send(Signal::INT);
        let began = Instant::now();
        let outcome = running.end().fails(130).says("context canceled");
        assert!(began.elapsed() < Duration::from_secs(5), "{stage}: {}", outcome.stderr);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "{stage}");
        if stage.starts_with('[') {
            harness.rbuild(&["build", context]).ok();
        }
    }
    still_works(&harness);
}

#[test]
fn downloads_are_cancelled() {
    let harness = Harness::new();
    // It accepts and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dockerfile = format!("FROM {address}/silent\nRUN true\n");
    let waiting = format!("load metadata for {address}/silent:latest");
    let running = Running::until(build(&harness, "pull", &dockerfile, &[]), &waiting);
    running.send(Signal::INT);
    running.end().fails(130).says("CANCELED");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dockerfile = format!("FROM busybox\nADD http://{address}/file /f\n");
    let running = Running::until(build(&harness, "add", &dockerfile, &[]), "load build definition from Dockerfile");
    let _asking = listener.accept().unwrap();
    running.send(Signal::TERM);
    running.end().fails(143);
    still_works(&harness);
}

/// The first signal is heard even while the program waits for something that cannot be cancelled; the second is not waited for at all.
#[test]
fn a_second_signal_ends_at_once() {
    let harness = Harness::new();
    let context = harness.context("fifo", "FROM scratch\nCOPY Dockerfile /\n");
    let fifo = harness.path_text("fifo.tar");
    tool("mkfifo", &[&fifo]);
    // Opening it for writing takes somebody who reads.
    let output = format!("--output=type=tar,dest={fifo}");
    let command = harness.command(&["build", "--progress=plain", &output, context.to_str().unwrap()]);
    let running = Running::until(command, "exporting to client tarball");
    running.send(Signal::INT);
    running.send(Signal::TERM);
    let code = running.end().code;
    assert!(code == Some(143) || code == Some(130), "{code:?}");
    let command = harness.command(&["build", "--progress=plain", &output, context.to_str().unwrap()]);
    let running = Running::until(command, "exporting to client tarball");
    running.send(Signal::INT);
    running.end().fails(130);
    still_works(&harness);
}

/// R8.6. What the others had said until then is shown in every mode.
#[test]
fn one_failing_stage_cancels_the_others() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox AS long\nRUN --mount=type=cache,target=/m echo said before; echo -n unfinished; touch /m/go; sleep 1000.5\n\
                      FROM busybox AS failing\nRUN --mount=type=cache,target=/m while [ ! -e /m/go ]; do sleep 0.01; done; sleep 0.2; exit 3\n\
                      FROM busybox\nCOPY --from=long /x /y\nCOPY --from=failing /x /y\n";
    let context = harness.context("c", dockerfile);
    let context = context.to_str().unwrap();
    let outcome = harness.rbuild(&["build", "--progress=plain", context]).fails(1);
    let outcome = outcome.says(" said before\n").says(" unfinished\n").says(" CANCELED\n").says("exit code: 3");
    assert!(!outcome.stderr.contains("context canceled"), "{}", outcome.stderr);
    nothing_runs("sleep 1000.5");

    let outcome = harness.rbuild(&["build", "--progress=rawjson", context]).fails(1);
    let cancelled = outcome.stderr.lines().find(|line| line.contains("\"error\":\"context canceled\"")).unwrap();
    assert!(cancelled.contains("[long 2/2] RUN") && cancelled.contains("\"completed\""), "{cancelled}");
    // The words in base64.
    outcome.says("c2FpZCBiZWZvcmU").says("dW5maW5pc2hlZA");

    let binary = binary();
    let line = format!("{} build --progress=tty {context}", binary.display());
    let mut script = Command::new("script");
    let environment = harness.command(&[]);
    script
        .args(["-qec", &line, "/dev/null"])
        .envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = script.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let end = &text[text.rfind("FINISHED").unwrap()..];
    assert!(end.contains("CANCELED [long 2/2] RUN"), "{end}");
    assert!(
        end.contains("> CANCELED [long 2/2]") && end.contains(" said before\n") && end.contains(" unfinished\n"),
        "{end}"
    );
}

/// Of rbuild alone, of the process that starts its steps, and of both, at whatever moment.
#[test]
fn kill_9_leaves_nothing_behind() {
    let harness = Harness::new();
    let context = harness.context(
        "c",
        "FROM busybox AS one\nCOPY Dockerfile /\nRUN for i in $(seq 200); do echo $i > /f$i; done; (setsid sleep 1000.75 &); sleep 0.1\n\
         RUN --mount=type=cache,target=/m --network=none rm /f1; echo $$ >> /m/f; sleep 0.1\nRUN rm -r /bin/ls /home; setsid sleep 1000.75 & sleep 0.1\n\
         FROM busybox\nCOPY --from=one / /one\nRUN sleep 0.1; touch /two\n",
    );
    let output = format!("--output=type=oci,compression=uncompressed,dest={}", harness.path_text("out.tar"));
    let parent = format!("e2e-killed-{}", std::process::id());
    let in_group = ["--pids-limit=500".to_owned(), format!("--cgroup-parent=/{parent}")];
    let limits: Vec<&str> = in_group.iter().map(String::as_str).filter(|_| is_root()).collect();
    for round in 0..12_u64 {
        let args =
            [&["build", "--no-cache", "--progress=plain", &output], &limits[..], &[context.to_str().unwrap()]].concat();
        let mut child = harness.command(&args).stderr(Stdio::null()).spawn().unwrap();
        // Until beyond the end.
        std::thread::sleep(Duration::from_millis(20 + round * 83 % 700));
        let zygote = tool("sh", &["-c", &format!("pgrep -P {} || true", child.id())]);
        if round % 3 != 0 {
            for pid in zygote.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if round % 3 != 1 {
            let _ = child.kill();
        }
        child.wait().unwrap();
        nothing_runs("sleep 1000.75");
    }
    still_works(&harness);
    harness.rbuild(&[&["build"], &limits[..], &["--no-cache", context.to_str().unwrap()]].concat()).ok();
    let find = format!("find /sys/fs/cgroup -depth -type d -path '*/{parent}*'");
    let groups = || tool("sh", &["-c", &find]);
    wait_until("groups are gone", || groups().lines().all(|group| group.ends_with(&parent)));
    for group in groups().lines() {
        std::fs::remove_dir(group).unwrap();
    }
}
