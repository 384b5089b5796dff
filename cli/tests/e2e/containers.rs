//! Containers: those in the background, and what stays of all of them.

use crate::harness::{Harness, Outcome, tool, wait_until};
use serde_json::Value;
use std::io::{Read, Write};
use std::ops::Deref;
use std::process::Stdio;

/// A store whose containers end with the test.
struct Containers {
    harness: Harness,
}

impl Containers {
    fn new() -> Self {
        Containers { harness: Harness::new() }
    }

    /// Runs a shell script in the background.
    #[track_caller]
    fn start(&self, name: &str, script: &str) -> String {
        let id = self.rbuild(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok().stdout;
        assert!(id.len() == 65 && id.ends_with('\n'), "{id:?}");
        id.trim().to_owned()
    }

    #[track_caller]
    fn states(&self) -> Vec<(String, String)> {
        let text = self.rbuild(&["ps", "-a", "--format", "json"]).ok().stdout;
        let containers = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut states: Vec<_> = containers.map(|one| (text(&one["Names"]), text(&one["State"]))).collect();
        states.sort();
        states
    }

    fn state(&self, name: &str) -> Option<String> {
        self.states().into_iter().find(|(known, _)| known == name).map(|(_, state)| state)
    }

    fn shows(&self, name: &str, text: &str) -> bool {
        self.rbuild(&["logs", name]).ok().stdout.contains(text)
    }

    fn supervisor(&self, name: &str) -> i32 {
        let document: Value = serde_json::from_str(&self.rbuild(&["inspect", name]).ok().stdout).unwrap();
        i32::try_from(document[0]["State"]["pid"].as_i64().unwrap()).unwrap()
    }

    /// Processes whose command line names the store: supervisors and their zygotes.
    fn processes(&self) -> usize {
        let store = self.path_text("store");
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(&store)).count()
    }
}

impl Deref for Containers {
    type Target = Harness;

    fn deref(&self) -> &Harness {
        &self.harness
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let ids = self.rbuild(&["ps", "-aq"]).stdout;
        for id in ids.lines() {
            self.rbuild(&["rm", "-f", id]);
        }
        if !std::thread::panicking() {
            wait_until("all processes of the store have ended", || self.processes() == 0);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(&self.path_text("store")), "{mounts}");
            let containers = std::fs::read_dir(self.path("store/containers")).unwrap().count();
            assert_eq!(containers, 0, "directories of containers are left");
        }
    }
}

/// Busybox's shell lets no trap interrupt a program: short sleeps.
const HEEDS_TERM: &str = "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done";

#[test]
fn a_container_in_the_background() {
    let harness = Containers::new();
    let id = harness.start("web", HEEDS_TERM);
    assert_eq!(harness.rbuild(&["ps", "-q"]).ok().stdout, format!("{}\n", &id[..12]));
    assert_eq!(harness.rbuild(&["ps", "-q", "--no-trunc", "--filter", "name=we"]).ok().stdout, format!("{id}\n"));
    let table = harness.rbuild(&["ps"]).ok().stdout;
    assert!(table.starts_with("CONTAINER ID ") && table.contains(" Up ") && table.contains("web"), "{table}");
    wait_until("the program wrote", || harness.shows("web", "ready"));
    // By name, id, and its first digits.
    for word in ["web", &id, &id[..5]] {
        assert_eq!(harness.rbuild(&["exec", word, "sh", "-c", "echo $$"]).ok().stdout.lines().count(), 1, "{word}");
    }
    assert_eq!(harness.rbuild(&["stop", "web"]).ok().stdout, "web\n");
    assert_eq!(harness.rbuild(&["logs", "web"]).ok().stdout, "ready\nbye\n");
    assert_eq!(harness.rbuild(&["wait", "web"]).ok().stdout, "5\n");
    assert_eq!(harness.rbuild(&["ps", "-q"]).ok().stdout, "");
    assert!(harness.rbuild(&["ps", "-a"]).ok().stdout.contains("Exited (5)"));
    harness.rbuild(&["exec", "web", "true"]).fails(125).says("not running");
    harness.rbuild(&["kill", "web"]).fails(1).says("not running");
    // Its files are still there when it is started again.
    assert_eq!(harness.rbuild(&["start", "web"]).ok().stdout, "web\n");
    assert_eq!(harness.state("web").as_deref(), Some("running"));
    harness.rbuild(&["rm", "web"]).fails(1).says("is running");
    assert_eq!(harness.rbuild(&["rm", "-f", "web"]).ok().stdout, "web\n");
    harness.rbuild(&["logs", "web"]).fails(1).says("no container is called");
}

#[test]
fn containers_are_kept_unless_rm_is_given() {
    let harness = Containers::new();
    let script = "echo out; echo err >&2; exit 7";
    let outcome = harness.rbuild(&["run", "--name", "kept", "--network", "host", "busybox", "sh", "-c", script]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(7), "out\n", "err\n"));
    harness.rbuild(&["run", "--rm", "--name", "gone", "busybox", "true"]).ok();
    assert_eq!(harness.states(), [("kept".to_owned(), "exited".to_owned())]);
    let logs = harness.rbuild(&["logs", "kept"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    harness.rbuild(&["run", "--name", "kept", "busybox", "true"]).fails(125).says("already in use");
    harness.rbuild(&["run", "-d", "--name", "kept", "busybox", "true"]).fails(125).says("already in use");
    harness.rbuild(&["run", "--name", "no/name", "busybox", "true"]).fails(125).says("invalid container name");
    assert_eq!(harness.rbuild(&["rm", "kept"]).ok().stdout, "kept\n");
    // In the background it goes by itself; who waits hears the exit code all the same.
    harness.rbuild(&["run", "-d", "--rm", "--name", "gone", "busybox", "sh", "-c", "sleep 0.5; exit 3"]).ok();
    assert_eq!(harness.rbuild(&["wait", "gone"]).ok().stdout, "3\n");
    assert_eq!(harness.states(), []);
}

/// R10.4.
#[test]
fn programs_that_cannot_be_started_are_told_in_the_foreground() {
    let harness = Containers::new();
    let detached = |name: &str, program: &str| harness.rbuild(&["run", "-d", "--name", name, "busybox", program]);
    let outcome = detached("a", "nosuchprogram").fails(127).says("nosuchprogram");
    assert_eq!(outcome.stdout, "", "no id");
    detached("b", "/etc/passwd").fails(126);
    harness
        .rbuild(&["run", "-d", "--name", "c", "-u", "nobodyatall", "busybox", "true"])
        .fails(125)
        .says("nobodyatall");
    let exited = |name: &str| (name.to_owned(), "exited".to_owned());
    assert_eq!(harness.states(), [exited("a"), exited("b"), exited("c")]);
    assert_eq!(harness.rbuild(&["wait", "a", "b", "c"]).ok().stdout, "127\n126\n125\n");
    harness.rbuild(&["run", "-d", "--rm", "--name", "d", "busybox", "nosuchprogram"]).fails(127);
    assert_eq!(harness.states().len(), 3);
}

#[test]
fn exec_runs_as_it_is_told() {
    let harness = Containers::new();
    let flags = ["run", "-d", "--name", "c", "-e", "A=run", "-e", "B=run", "-w", "/var", "--hostname", "inside"];
    let id = harness.rbuild(&[&flags[..], &["busybox", "sleep", "1000"]].concat()).ok().stdout;
    let exec = |flags: &[&str], command: &[&str]| harness.rbuild(&[&["exec"], flags, &["c"], command].concat());
    let script = "echo $A $B $HOME; pwd; id -u; hostname; readlink /proc/1/exe; test -t 0 || echo no terminal";
    let output = exec(&["-e", "B=exec"], &["sh", "-c", script]).ok().stdout;
    assert_eq!(output, "run exec /root\n/var\n0\ninside\n/bin/sleep\nno terminal\n");
    let output = exec(&["-u", "www-data", "-w", "/tmp"], &["sh", "-c", "echo $HOME; pwd; id"]).ok().stdout;
    assert_eq!(output, "/var/www\n/tmp\nuid=33(www-data) gid=33(www-data) groups=8(mail),33(www-data)\n");
    // The same rules as for the container's own program.
    let script = "grep -q '^CapBnd:.*00000000a80425fb' /proc/self/status && grep -q '^Seccomp:.*2' /proc/self/status";
    exec(&[], &["sh", "-c", script]).ok();
    assert_eq!(exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"]).code, Some(9));
    assert_eq!(exec(&[], &["sh", "-c", "kill -9 $$"]).code, Some(137));
    exec(&[], &["nosuchprogram"]).fails(127).says("nosuchprogram");
    exec(&[], &["/etc/passwd"]).fails(126);
    exec(&["-w", "/nowhere"], &["pwd"]).fails(125).says("/nowhere");
    exec(&["-u", "nobodyatall"], &["pwd"]).fails(125).says("nobodyatall");
    // A path that is longer than a socket's may be is no hindrance: the id alone has 64 digits.
    assert!(harness.path("store/containers").join(id.trim()).join("socket").to_str().unwrap().len() > 80);
}

#[test]
fn exec_passes_standard_input_and_ends_with_its_caller() {
    let harness = Containers::new();
    harness.start("c", "sleep 1000");
    let run = |flags: &[&str]| {
        let mut child = harness.command(&[&["exec"], flags, &["c", "cat"]].concat());
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"given\xff\n");
        child.wait_with_output().unwrap().stdout
    };
    assert_eq!(run(&[]), b"");
    assert_eq!(run(&["-i"]), b"given\xff\n");
    let mut child = harness.command(&["exec", "c", "sleep", "777"]).stdout(Stdio::null()).spawn().unwrap();
    let runs = || harness.rbuild(&["exec", "c", "ps"]).ok().stdout.contains("sleep 777");
    wait_until("it runs", runs);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("it has ended with its caller", || !runs());
    // And with the container, where nobody waits for anything.
    let mut child = harness.command(&["exec", "c", "sleep", "778"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("it runs", || harness.rbuild(&["exec", "c", "ps"]).ok().stdout.contains("sleep 778"));
    harness.rbuild(&["kill", "c"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

/// `script` gives rbuild a terminal of its own.
#[test]
fn terminals() {
    let harness = Containers::new();
    harness.start("c", "sleep 1000");
    let binary = harness.command(&[]).get_program().to_str().unwrap().to_owned();
    let in_terminal = |command: &str| {
        let line = format!("stty rows 33 cols 44; {binary} {command}");
        let environment = harness.command(&[]);
        let output = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .output()
            .expect("script is part of every Debian");
        Outcome::of(output)
    };
    let output = in_terminal("exec -it c sh -c 'stty size; tty; exit 4'");
    assert!(output.stdout.contains("33 44") && output.stdout.contains("/dev/pts/0"), "{}", output.stdout);
    assert_eq!(output.code, Some(4));
    harness.rbuild(&["exec", "-t", "c", "true"]).fails(125).says("not a TTY");
    let output = in_terminal("run -it --name kept busybox stty size");
    assert!(output.stdout.contains("33 44"), "{}", output.stdout);
    assert!(harness.shows("kept", "33 44"), "what a terminal showed is in the log");
    harness.rbuild(&["run", "-dt", "--name", "t", "busybox", "sh", "-c", "test -t 1 && echo has one"]).ok();
    harness.rbuild(&["wait", "t"]).ok();
    assert!(harness.shows("t", "has one\r\n"));
}

#[test]
fn stopping() {
    let harness = Containers::new();
    harness.start("deaf", "echo ready; sleep 1000");
    // Process 1 has no default action: TERM does nothing, and KILL comes.
    harness.rbuild(&["stop", "-t", "0", "deaf"]).ok();
    assert_eq!(harness.rbuild(&["wait", "deaf"]).ok().stdout, "137\n");
    harness.rbuild(&["stop", "deaf"]).ok();
    let dockerfile =
        "FROM busybox\nSTOPSIGNAL SIGUSR1\nCMD trap 'exit 6' USR1; echo ready; while true; do sleep 0.05; done\n";
    harness.build_text(dockerfile, &["-t", "signal"]).ok();
    harness.rbuild(&["run", "-d", "--name", "s", "signal"]).ok();
    wait_until("the trap is set", || harness.shows("s", "ready"));
    harness.rbuild(&["stop", "-t", "1000", "s"]).ok();
    assert_eq!(harness.rbuild(&["wait", "s"]).ok().stdout, "6\n");
    harness.start("k", "trap 'exit 8' HUP; echo ready; while true; do sleep 0.05; done");
    wait_until("the trap is set", || harness.shows("k", "ready"));
    harness.rbuild(&["kill", "-s", "nonsense", "k"]).fails(2).says("nonsense");
    assert_eq!(harness.rbuild(&["kill", "-s", "hup", "k"]).ok().stdout, "k\n");
    assert_eq!(harness.rbuild(&["wait", "k"]).ok().stdout, "8\n");
    // One that fails does not keep the command from the others.
    let outcome = harness.rbuild(&["stop", "nobody", "k"]).fails(1).says("nobody");
    assert_eq!(outcome.stdout, "k\n");
}

#[test]
fn a_supervisor_that_is_killed_takes_its_container_with_it() {
    let harness = Containers::new();
    harness.start("c", "echo ready; sleep 1000");
    wait_until("the program wrote", || harness.shows("c", "ready"));
    let pid = rustix::process::Pid::from_raw(harness.supervisor("c")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("the container is dead", || harness.state("c").as_deref() == Some("dead"));
    wait_until("no process is left", || harness.processes() == 0);
    assert_eq!(harness.rbuild(&["wait", "c"]).ok().stdout, "137\n");
    harness.rbuild(&["exec", "c", "true"]).fails(125).says("not running");
    assert_eq!(harness.rbuild(&["logs", "-f", "c"]).ok().stdout, "ready\n");
    // It can be started again.
    harness.rbuild(&["start", "c"]).ok();
    assert_eq!(harness.state("c").as_deref(), Some("running"));
    harness.rbuild(&["rm", "-f", "c"]).ok();
    // Of one of which nothing shall stay, the next command clears the leavings.
    harness.rbuild(&["run", "-d", "--rm", "--name", "r", "busybox", "sleep", "1000"]).ok();
    let pid = rustix::process::Pid::from_raw(harness.supervisor("r")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_until("the container is gone", || harness.state("r").is_none());
}

#[test]
fn logs_hold_any_bytes() {
    let harness = Containers::new();
    let script = r"printf 'a\000\377\n'; printf 'no newline' >&2; head -c 300000 /dev/zero";
    harness.start("c", script);
    harness.rbuild(&["wait", "c"]).ok();
    let output = harness.command(&["logs", "c"]).output().unwrap();
    assert_eq!(output.stderr, b"no newline");
    assert_eq!(&output.stdout[..4], b"a\0\xff\n");
    assert!(output.stdout[4..].iter().all(|byte| *byte == 0) && output.stdout.len() == 300_004);
    harness.start("lines", "for i in 1 2 3 4; do echo line $i; done");
    harness.rbuild(&["wait", "lines"]).ok();
    let tail = |number: &str| harness.rbuild(&["logs", "--tail", number, "lines"]).ok().stdout;
    assert_eq!(tail("2"), "line 3\nline 4\n");
    assert_eq!((tail("0").as_str(), tail("all").len()), ("", 28));
    let stamped = harness.rbuild(&["logs", "-t", "lines"]).ok().stdout;
    assert!(stamped.lines().all(|line| line.contains("Z line ")), "{stamped}");
    harness.rbuild(&["logs", "--tail", "x", "lines"]).fails(2);
}

#[test]
fn logs_are_followed_until_the_end() {
    let harness = Containers::new();
    harness.start("c", "echo first; while ! test -e /go; do sleep 0.05; done; echo last");
    let mut child = harness.command(&["logs", "-f", "c"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 6];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    harness.rbuild(&["exec", "c", "touch", "/go"]).ok();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "last\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_image_of_a_container_s_changes() {
    let harness = Containers::new();
    harness.start("c", "echo x > /made; rm /bin/ls; mkdir /var/dir; chown 33 /var/dir; echo ready; sleep 1000");
    wait_until("the files are there", || harness.shows("c", "ready"));
    let flags = ["-a", "Jo <jo@example.org>", "-m", "changed", "-c", "ENV A=1", "-c", "CMD [\"cat\", \"/made\"]"];
    let id = harness.rbuild(&[&["commit"], &flags[..], &["c", "img"]].concat()).ok().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(harness.output("img", &[]), "x\n");
    assert_eq!(harness.output("img", &["sh", "-c", "test -e /bin/ls || echo $A; stat -c %u /var/dir"]), "1\n33\n");
    let image = harness.inspect("img");
    assert_eq!((image["Id"].as_str(), image["Author"].as_str()), (Some(id.trim()), Some("Jo <jo@example.org>")));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert!(harness.rbuild(&["history", "img"]).ok().stdout.contains("changed"));
    // Others read it. Mount points are no changes.
    let layout = harness.path_text("layout");
    harness.rbuild(&["save", "-o", &layout, "img"]).ok();
    let copied = harness.path_text("copied");
    tool("skopeo", &["copy", "-q", &format!("docker-archive:{layout}"), &format!("oci:{copied}:img")]);
    let manifest: Value =
        serde_json::from_str(&tool("skopeo", &["inspect", "--raw", &format!("oci:{copied}:img")])).unwrap();
    let layer = manifest["layers"][1]["digest"].as_str().unwrap().replace(':', "/");
    let mut names: Vec<_> =
        tool("tar", &["-tf", &format!("{copied}/blobs/{layer}")]).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["bin/", "bin/.wh.ls", "made", "var/", "var/dir/"]);
    // One that has ended gives the same.
    harness.rbuild(&["stop", "-t", "0", "c"]).ok();
    harness.rbuild(&["commit", "c", "ended"]).ok();
    assert_eq!(harness.inspect("ended")["RootFS"], image["RootFS"]);
    harness.rbuild(&["commit", "-c", "RUN true", "c", "no"]).fails(1).says("RUN");
    harness.rbuild(&["commit", "c"]).ok();
}

#[test]
fn flags_of_the_container() {
    let harness = Containers::new();
    let file = harness.path_text("env");
    std::fs::write(&file, "# of the file\nA=file\nB=file\n").unwrap();
    let run = |flags: &[&str], script: &str| {
        harness.rbuild(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
    };
    let output = run(&["--env-file", &file, "-e", "B=flag", "--hostname", "inside"], "echo $A $B; hostname").ok();
    assert_eq!(output.stdout, "file flag\ninside\n");
    let script = "touch /no 2>/dev/null || echo nothing; touch /run/yes && echo x > /dev/shm/x && echo writable";
    assert_eq!(run(&["--read-only", "--tmpfs", "/run:size=1m"], script).ok().stdout, "nothing\nwritable\n");
    let capabilities = |flags: &[&str]| run(flags, "grep CapBnd /proc/self/status").ok().stdout;
    assert!(capabilities(&["--cap-drop", "ALL"]).contains("0000000000000000"));
    assert!(capabilities(&["--cap-drop", "all", "--cap-add", "CAP_CHOWN"]).contains("0000000000000001"));
    run(&["--cap-add", "CHOWNN"], "true").fails(125).says("did you mean CHOWN?");
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -n").ok().stdout, "100\n");
    run(&["--tmpfs", "relative"], "true").fails(125).says("--tmpfs");
    let flags = ["run", "-d", "--name", "l", "-l", "tier=front", "--label", "plain", "--cap-drop", "ALL"];
    harness.rbuild(&[&flags[..], &["busybox", "sleep", "1000"]].concat()).ok();
    for (filter, count) in [
        ("label=tier", 1),
        ("label=tier=front", 1),
        ("label=tier=back", 0),
        ("status=running", 1),
        ("ancestor=busybox", 1),
    ] {
        let found = harness.rbuild(&["ps", "-q", "--filter", filter]).ok().stdout;
        assert_eq!(found.lines().count(), count, "{filter}");
    }
    harness.rbuild(&["ps", "--filter", "nonsense=1"]).fails(2);
    // What joins the container gets no more than the container has.
    let output = harness.rbuild(&["exec", "l", "grep", "CapEff", "/proc/self/status"]).ok().stdout;
    assert!(output.contains("0000000000000000"), "{output}");
}

#[test]
fn images_that_containers_stand_on_stay() {
    let harness = Containers::new();
    harness.build_text("FROM busybox\nRUN echo x > /x\n", &["-t", "used"]).ok();
    harness.rbuild(&["run", "--name", "c", "used", "true"]).ok();
    harness.rbuild(&["rmi", "used"]).fails(1).says("rbuild rm c");
    harness.rbuild(&["rm", "c"]).ok();
    harness.rbuild(&["rmi", "used"]).ok();
}

/// Whoever starts a program that writes without end expects it to end with its reader.
#[test]
fn a_reader_that_goes_away_ends_the_program() {
    let harness = Containers::new();
    let mut child = harness.command(&["run", "--name", "c", "busybox", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    child.wait().unwrap();
    assert_eq!(harness.state("c").as_deref(), Some("exited"));
}

/// The isolated network is the supervisor's, and ends with it.
#[test]
fn ports_lead_into_containers_in_the_background() {
    if std::fs::File::options().read(true).write(true).open("/dev/net/tun").is_err() {
        return;
    }
    let harness = Containers::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mapping = format!("127.0.0.1:{port}:80");
    let script = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    harness.rbuild(&["run", "-d", "--name", "web", "-p", &mapping, "busybox", "sh", "-c", script]).ok();
    let get = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    wait_until("the server answers", || get().is_some_and(|answer| answer.contains("page")));
    // What joins the container is in its network, not in the host's.
    let output = harness.rbuild(&["exec", "web", "wget", "-qO-", "http://127.0.0.1/"]).ok().stdout;
    assert_eq!(output, "page\n");
    harness.rbuild(&["stop", "-t", "0", "web"]).ok();
    assert!(get().is_none());
    let outcome = harness.rbuild(&["run", "-d", "--network", "host", "-p", &mapping, "busybox", "true"]);
    outcome.fails(125).says("-p needs a network");
}
