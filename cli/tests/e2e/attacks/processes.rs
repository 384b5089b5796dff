//! Processes, terminals and descriptors outside of a step.

use super::{attempts, build, build_alone, context};
use crate::harness::{Harness, Outcome, binary, printed, wait_until};
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

/// Processes whose command line holds `text`, by what `/proc` says.
fn processes(text: &str) -> Vec<i32> {
    let ids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    };
    ids.filter(is_it).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn signals_reach_nobody_outside() {
    let harness = Harness::new();
    // Of the process group, of everybody, of each by its number.
    let text = "FROM hostile\nRUN attack processes; exec 2>&-; kill -9 -1; echo still here; (kill -9 0); kill -9 0; echo and here\n";
    let outcome = Outcome::of(build_alone(&harness, text, &[]).output().unwrap()).ok();
    assert_eq!(printed(&outcome), ["others: 0", "still here", "and here"]);
}

/// The user's terminal is nobody else's: what is put into its input would be the user's next command.
#[test]
fn the_terminal_is_out_of_reach() {
    let harness = Harness::new();
    let context = context(&harness, "attack", "FROM hostile\nRUN echo I$((1))WRITE > /dev/tty; attack terminal\n");
    let line = format!("{} build --progress=plain -t t {}", binary().display(), context.display());
    let in_terminal = |line: &str| {
        let mut command = Command::new("script");
        command.args(["-qec", line, "/dev/null"]).env("RBUILD_ROOT", harness.path("store")).stdin(Stdio::null());
        let outcome = Outcome::of(command.output().unwrap()).ok();
        assert!(!outcome.stdout.contains("I1WRITE"), "{}", outcome.stdout);
        outcome.stdout.replace('\r', "")
    };
    let stderr = in_terminal(&line);
    let results = attempts(&Outcome { code: None, stdout: String::new(), stderr });
    assert_eq!(results["open /dev/tty"], "ENXIO", "{results:?}");
    assert_ne!((&*results["TIOCSTI"], &*results["TIOCSCTTY"]), ("DONE", "DONE"));
    // `rbuild run` hands its own standard streams on, and they stay nobody's terminal.
    let shell = "echo I$((1))WRITE > /dev/tty; attack terminal";
    let shown = in_terminal(&format!("{} run --rm -i t sh -c '{shell}'", binary().display()));
    assert!(shown.contains("open /dev/tty: ENXIO") && !shown.contains("DONE"), "{shown}");
}

/// As the progress display writes to a terminal.
#[test]
fn output_does_not_steer_the_terminal() {
    let harness = Harness::new();
    let text = r"FROM hostile
RUN printf '\033]0;title\007\033[2Jleft\033[31mred\n'; exit 1
";
    let context = context(&harness, "attack", text);
    let line = format!("{} build --progress=tty {}", binary().display(), context.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("RBUILD_ROOT", harness.path("store")).stdin(Stdio::null());
    let outcome = Outcome::of(command.output().unwrap());
    assert!(outcome.stdout.contains("left"), "{}", outcome.stdout);
    for sequence in ["\x1b]0;", "\x07", "\x1b[2J"] {
        assert!(!outcome.stdout.contains(sequence), "{sequence:?} in {:?}", outcome.stdout);
    }
}

/// CVE-2024-21626: neither rbuild's own descriptors nor those that it was started with lead out.
#[test]
fn descriptors_of_the_host_are_out_of_reach() {
    let harness = Harness::new();
    std::fs::create_dir(harness.path("host")).unwrap();
    std::fs::write(harness.path("host/marker"), "").unwrap();
    let with_descriptors = |args: &[&str]| {
        let mut command = Command::new("sh");
        let script = r#"exec 7</bin/busybox 8<"$0" 9<"$0"; exec "$@" < "$0""#;
        let busybox = String::from_utf8(Command::new("which").arg("busybox").output().unwrap().stdout).unwrap();
        command.args(["-c", &script.replace("/bin/busybox", busybox.trim())]).arg(harness.path("host")).arg(binary());
        command.args(args).env("RBUILD_ROOT", harness.path("store"));
        Outcome::of(command.output().unwrap())
    };
    let text = "FROM hostile\nRUN ls -l /proc/self/fd; ls -a /proc/*/fd | grep -c .\n";
    let ok = super::context(&harness, "ok", text);
    let outcome = with_descriptors(&["build", "--progress=plain", "-t", "t", ok.to_str().unwrap()]).ok();
    let shown = printed(&outcome);
    let links: Vec<_> = shown.iter().filter_map(|line| line.split_once(" -> ")).map(|(_, target)| target).collect();
    assert_eq!(links.len(), 3, "{shown:?}");
    assert!(links[0] == "/dev/null" && links[1].starts_with("pipe:") && links[2].starts_with("pipe:"), "{links:?}");
    for (name, instruction) in [("directory", "WORKDIR /proc/self/fd/9"), ("below", "WORKDIR /proc/self/fd/9/made")] {
        let context = super::context(&harness, name, &format!("FROM hostile\n{instruction}\nRUN ls\n"));
        with_descriptors(&["build", "--progress=plain", context.to_str().unwrap()]).fails(1).says("chdir to cwd");
    }
    let context = super::context(&harness, "program", "FROM hostile\nRUN [\"/proc/self/fd/7\", \"true\"]\n");
    with_descriptors(&["build", "--progress=plain", context.to_str().unwrap()]).fails(1);
    for number in 0..16 {
        let (cwd, link) = (format!("/proc/self/fd/{number}"), format!("ln -s /proc/self/fd/{number} /l"));
        let outcome = with_descriptors(&["run", "--rm", "-w", &cwd, "t", "ls"]);
        assert_ne!(outcome.code, Some(0), "{cwd}: {}", outcome.stdout);
        if number == 9 {
            let context = super::context(&harness, "link", &format!("FROM hostile\nRUN {link}\nWORKDIR /l\nRUN ls\n"));
            let outcome = with_descriptors(&["build", "--progress=plain", context.to_str().unwrap()]).fails(1);
            assert!(!outcome.stderr.contains("marker"), "{}", outcome.stderr);
        }
    }
    assert_eq!(std::fs::read_dir(harness.path("host")).unwrap().count(), 1);
}

/// CVE-2016-9962, CVE-2019-5736: whoever joins a container is the host's program until exec.
#[test]
fn processes_that_join_are_out_of_reach() {
    let harness = Harness::new();
    let context = context(&harness, "attack", "FROM hostile\n");
    harness.build(&context, &["-t", "t"]).ok();
    let caught = |flags: &[&str]| {
        harness.rbuild(&[&["run", "-d", "--name", "c"], flags, &["t", "attack", "ambush"]].concat()).ok();
        wait_until("the ambush", || harness.rbuild(&["logs", "c"]).stdout.contains("in ambush"));
        for _ in 0..8 {
            harness.rbuild(&["exec", "c", "true"]);
        }
        let caught = harness.rbuild(&["logs", "c"]).ok().stdout;
        harness.rbuild(&["rm", "-f", "c"]).ok();
        caught
    };
    assert_eq!(caught(&[]), "in ambush\n");
    // Nor do its descriptors lead anywhere, of which the container names one as the directory to start in.
    harness.rbuild(&["run", "-d", "--name", "c", "t", "sleep", "1000"]).ok();
    for number in 3..16 {
        let link = format!("rm -f /l; ln -s /proc/self/fd/{number} /l");
        harness.rbuild(&["exec", "c", "sh", "-c", &link]).ok();
        assert_ne!(harness.rbuild(&["exec", "-w", "/l", "c", "true"]).code, Some(0), "{number}");
    }
    harness.rbuild(&["rm", "-f", "c"]).ok();
    // The control: with this capability whoever runs the container has let it look.
    assert!(caught(&["--cap-add", "SYS_PTRACE"]).contains("caught: exe"));
}

/// CVE-2019-5736: a container whose programs are links to `/proc/self/exe` has rbuild itself started, and may read it, but not write.
#[test]
fn the_program_cannot_be_overwritten() {
    let harness = Harness::new();
    let context = context(&harness, "attack", "FROM hostile\nCOPY lib /\nRUN ln -s /proc/self/exe /bin/self\n");
    // What a binary that is not linked statically needs to run there.
    let list = Command::new("ldd").arg(binary()).output().unwrap();
    std::fs::create_dir(context.join("lib")).unwrap();
    for path in String::from_utf8_lossy(&list.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let copy = context.join("lib").join(&path[1..]);
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(path, copy).unwrap();
    }
    harness.build(&context, &["-t", "t"]).ok();
    harness.rbuild(&["run", "-d", "--name", "c", "t", "attack", "overwrite"]).ok();
    let logs = || harness.rbuild(&["logs", "c"]).stdout;
    wait_until("the ambush", || logs().contains("in ambush"));
    let mut command = harness.command(&["exec", "-i", "c", "self", "lsp"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_running = || processes("self lsp").len() >= 2;
    wait_until("rbuild in the container", is_running);
    drop(child.stdin.take());
    child.wait().unwrap();
    wait_until("the attempt", || logs().contains("overwrite"));
    let said = logs();
    harness.rbuild(&["rm", "-f", "c"]).ok();
    assert!(said.contains("overwrite: ETXTBSY") && !said.contains("DONE"), "{said}");
}

/// Nothing outlives rbuild or its zygote, whichever is killed, whatever it does against it.
#[test]
fn nothing_stays() {
    for victim in ["rbuild", "zygote", "step"] {
        let harness = Harness::new();
        let marker = format!("stay {victim}-{}", std::process::id());
        let text = format!("FROM hostile\nRUN exec attack {marker}\n");
        let mut command = build_alone(&harness, &text, &[]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let is_step = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(b"attack\0")
        };
        let staying = || processes(&marker).into_iter().filter(is_step).collect::<Vec<_>>();
        wait_until("the step's processes", || staying().len() >= 2);
        let main = i32::try_from(child.id()).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
        let zygote = children.split_whitespace().next().unwrap().parse().unwrap();
        kill(match victim {
            "rbuild" => main,
            "zygote" => zygote,
            _ => *staying().iter().min().unwrap(),
        });
        wait_until("nothing stays", || staying().is_empty());
        let mut said = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said);
        let status = child.wait().unwrap();
        match victim {
            "rbuild" => assert_eq!(status.code(), None),
            _ => assert_eq!(status.code(), Some(1), "{said}"),
        }
    }
}

/// A step whose output is held open by an accomplice outside ends all the same. Abstract sockets are the network's: with the host's
/// they are reachable, with none or an isolated one they are not.
#[test]
fn abstract_sockets_belong_to_the_network() {
    let harness = Harness::new();
    let name = format!("rbuild-attack-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let none = build(&harness, &format!("FROM hostile\nRUN --network=none attack connect {name}\n"), &[]).ok();
    assert_eq!(attempts(&none)["connect"], "ECONNREFUSED");
    // The accomplice never accepts: what was sent waits in the socket, open, for as long as this test runs.
    let text = format!("FROM hostile\nRUN attack give-away {name}; echo the end\n");
    let outcome = build(&harness, &text, &["--network=host", "--allow=network.host"]).ok();
    let results = attempts(&outcome);
    assert_eq!((&*results["connect"], &*results["send"]), ("DONE", "DONE"));
    assert!(printed(&outcome).contains(&"the end".to_owned()));
    drop(listener);
}

/// What one step may use up of the memory that no limit of memory counts.
#[test]
fn memory_file_systems_have_sizes() {
    let harness = Harness::new();
    let text = "FROM hostile\nRUN for d in /dev /dev/shm; do dd if=/dev/zero of=$d/x bs=1M count=100 2>&1 | grep -c 'No space'; done; attack queues\n";
    let outcome = build(&harness, text, &[]).ok();
    let shown = printed(&outcome);
    assert_eq!(shown[..2], ["1", "1"]);
    let queues: u32 = shown[2].strip_prefix("queues: ").unwrap().parse().unwrap();
    assert!(queues <= 256, "{queues}");
}
