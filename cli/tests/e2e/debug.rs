//! `--debug-on-failure` and `--shell`: shells in steps that failed, and in stages.

use crate::harness::{Harness, Outcome, foreign_busybox, is_root, wait_until};
use crate::platforms::FOREIGN;
use crate::secrets::with_ssh_tools;
use crate::servers::SshServer;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A step with mounts of all kinds that fails halfway.
const FAILING: &str = "FROM busybox AS base
ENV A=variable
RUN mkdir /work && chown www-data /work
FROM base
USER www-data
WORKDIR /work
RUN --mount=type=cache,target=/cache,mode=0777 --mount=type=tmpfs,target=/memory --mount=target=/context \\
    --mount=from=base,target=/written,rw --mount=type=secret,id=token,mode=0444 --mount=type=secret,id=token,env=TOKEN \\
    echo half > half; echo cached > /cache/file; echo kept > /memory/file; echo bound > /written/tmp/file; exit 7
";

/// What shows that a shell is where that step was.
const LOOK_AROUND: &str = "id -un; pwd; echo $A; cat half /cache/file /memory/file /written/tmp/file /run/secrets/token; echo $TOKEN; \
                           ls /context; touch /context/x && echo wrong";

fn fails_halfway(harness: &Harness) -> (String, [(&'static str, &'static str); 1]) {
    let context = harness.context("failing", FAILING);
    (format!("--secret id=token,env=TOKEN_OF_HOST {}", context.display()), [("TOKEN_OF_HOST", "sesame")])
}

/// Gives commands to a build whose standard input is no terminal.
fn given(harness: &Harness, args: &[&str], env: &[(&str, &str)], commands: &str) -> Outcome {
    let mut command = harness.command(args);
    command.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without reading them.
    let _ = child.stdin.take().unwrap().write_all(commands.as_bytes());
    Outcome::of(child.wait_with_output().unwrap())
}

/// The same for a Dockerfile that needs nothing else.
fn given_text(harness: &Harness, dockerfile: &str, flags: &[&str], commands: &str) -> Outcome {
    let context = harness.context("context", dockerfile);
    given(harness, &[&["build"], flags, &[context.to_str().unwrap()]].concat(), &[], commands)
}

/// rbuild on a terminal of its own, which `script` makes.
struct OnTerminal {
    child: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(harness: &Harness, args: &str, env: &[(&str, &str)]) -> OnTerminal {
        let template = harness.command(&[]);
        let line = format!("stty rows 33 cols 144; exec {} {args}", template.get_program().to_str().unwrap());
        let mut child = Command::new("script")
            .args(["-qefc", &line, "/dev/null"])
            .envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .envs(env.iter().copied())
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of every Debian");
        let screen: Arc<Mutex<String>> = Arc::default();
        let (mut output, shown) = (child.stdout.take().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = output.read(&mut buffer)
                && length > 0
            {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        OnTerminal { keyboard: child.stdin.take(), child, screen }
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} on the screen"), || self.screen.lock().unwrap().contains(text));
    }

    fn types(&mut self, text: &str) {
        self.keyboard.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// rbuild's exit code.
    fn ends(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        drop(self.keyboard.take());
        let screen = self.screen.lock().unwrap().clone();
        (status.code(), screen)
    }
}

fn leaves_nothing(harness: &Harness) {
    assert_eq!(std::fs::read_dir(harness.path("store/tmp")).unwrap().count(), 0, "what was kept for the shell is gone");
}

fn is_running(command: &str) -> bool {
    !Command::new("pgrep").args(["-f", command]).output().unwrap().stdout.is_empty()
}

#[test]
fn a_terminal_gets_a_shell_in_the_state_of_the_failed_step() {
    let harness = Harness::new();
    let (args, env) = fails_halfway(&harness);
    let mut terminal = OnTerminal::start(&harness, &format!("build --debug-on-failure {args}"), &env);
    terminal.shows("did not complete successfully: exit code: 7");
    terminal.shows("/bin/sh in the failed step");
    terminal.types(LOOK_AROUND);
    terminal.types("; stty size; tty; echo $TERM; touch /work/later; echo at $((40 + 2))\r");
    terminal.shows("at 42");
    // Ctrl-C is the shell's.
    terminal.types("sleep 1000.375\r");
    wait_until("it sleeps", || is_running("sleep 1000.375"));
    terminal.types("\x03");
    wait_until("it is interrupted", || !is_running("sleep 1000.375"));
    terminal.types("echo and $((40 + 3))\r");
    terminal.shows("and 43");
    terminal.types("exit 5\r");
    let (code, screen) = terminal.ends();
    assert_eq!(code, Some(1), "that of the failure: {screen}");
    let expected = "www-data\r\n/work\r\nvariable\r\nhalf\r\ncached\r\nkept\r\nbound\r\nsesamesesame\r\nDockerfile\r\n";
    assert!(screen.contains(expected), "{screen}");
    assert!(screen.contains("\r\n33 144\r\n/dev/pts/0\r\n") && !screen.contains("\r\nwrong"), "{screen}");
    assert_eq!(screen.matches("failed to solve").count(), 1, "the error is told once: {screen}");
    leaves_nothing(&harness);
    // The step is as little cached as what was done in the shell is part of anything.
    let dockerfile = FAILING.replace("exit 7", "test ! -e later -a -e /cache/file");
    std::fs::write(harness.path("failing/Dockerfile"), dockerfile).unwrap();
    let words: Vec<&str> = args.split(' ').collect();
    let mut again = harness.command(&[&["build"], words.as_slice()].concat());
    Outcome::of(again.envs(env).output().unwrap()).ok();
}

#[test]
fn without_a_terminal_commands_come_from_standard_input() {
    let harness = Harness::new();
    let (args, env) = fails_halfway(&harness);
    let args: Vec<&str> = ["debug", "--progress=plain"].into_iter().chain(args.split(' ')).collect();
    let outcome = given(&harness, &args, &env, &format!("{LOOK_AROUND}; echo to the error >&2; exit 5")).fails(1);
    let expected = "www-data\n/work\nvariable\nhalf\ncached\nkept\nbound\nsesamesesame\nDockerfile\n";
    assert_eq!(outcome.stdout, expected);
    let outcome =
        outcome.says("to the error\n").says("exit code: 7\nnote: this is /bin/sh in the failed step [stage-1 2/2] RUN");
    assert!(!outcome.stderr.contains("sesame"), "{}", outcome.stderr);
    leaves_nothing(&harness);
    for nothing in [given(&harness, &args, &env, ""), Outcome::of(harness.command(&args).envs(env).output().unwrap())] {
        nothing.fails(1).says("exit code: 7\nnote: there is no shell for this step: standard input is no terminal");
    }
    leaves_nothing(&harness);
}

#[test]
fn the_shell_is_the_stage_s_or_one_that_is_there() {
    let harness = Harness::new();
    let debug = |dockerfile: &str, flags: &[&str]| {
        given_text(&harness, dockerfile, &[&["--debug-on-failure"], flags].concat(), "echo in; exit").fails(1)
    };
    let of_stage =
        debug("FROM busybox\nSHELL [\"/bin/ash\", \"-ec\"]\nRUN false\n", &[]).says("note: this is /bin/ash in");
    assert_eq!(of_stage.stdout, "in\n");
    debug("FROM busybox\nRUN [\"false\"]\n", &[]).says("note: this is /bin/sh in");
    debug("FROM busybox\nRUN rm /bin/sh; false\n", &[]).says("note: this is busybox sh in");
    debug("FROM busybox\nRUN false\n", &["--debug-shell=ash"]).says("note: this is ash in");
    debug("FROM busybox\nRUN false\n", &["--debug-shell=fish"]).says("no shell that can be started (tried: fish)");
    let scratch = "FROM scratch\nCOPY --from=busybox /bin/busybox /bin/false\nRUN [\"/bin/false\"]\n";
    let none = debug(scratch, &[]).says("no shell that can be started (tried: /bin/sh, /bin/bash, busybox sh)");
    assert_eq!(none.says("did not complete successfully: exit code: 1").stdout, "");
    // As the message advises.
    let mounted = scratch.replace("RUN ", "RUN --mount=from=busybox,target=/busybox ");
    assert_eq!(debug(&mounted, &["--debug-shell=/busybox/bin/sh"]).stdout, "in\n");
    leaves_nothing(&harness);
}

#[test]
fn all_that_a_step_can_fail_of() {
    let harness = Harness::new();
    let debug = |dockerfile: &str, flags: &[&str], commands: &str| {
        given_text(&harness, dockerfile, &[&["--debug-on-failure"], flags].concat(), commands).fails(1)
    };
    let late = debug("FROM busybox\nRUN touch /half; sleep 1000\n", &["--timeout=300ms"], "ls /half");
    assert_eq!(late.says("--timeout").stdout, "/half\n");
    let missing = debug("FROM busybox\nRUN [\"nosuch\"]\n", &[], "echo in");
    assert_eq!(missing.stdout, "in\n");
    let isolated = debug("FROM busybox\nRUN --network=none false\n", &[], "ls /sys/class/net; ulimit -n");
    assert!(isolated.stdout.starts_with("lo\n"), "{}", isolated.stdout);
    let network = "FROM busybox\nRUN readlink /proc/self/ns/net > /network; false\n";
    let same = debug(network, &[], "readlink /proc/self/ns/net | cmp - /network && echo the same");
    assert_eq!(same.stdout, "the same\n", "the host's, or the one that the build's steps share");
    let limited = debug("FROM busybox\nRUN false\n", &["--ulimit", "nofile=77:77"], "ulimit -n");
    assert_eq!(limited.stdout, "77\n");
    // Nothing ran.
    debug("FROM busybox\nCOPY nosuch /\n", &[], "echo in")
        .says("note: there is no shell for this step: it ran no process");
    // Where several stages fail or are cancelled, it is the one that is reported.
    let several = "FROM busybox AS a\nRUN sleep 1000.625\nFROM busybox\nRUN echo b > /b; false\nCOPY --from=a / /a\n";
    assert_eq!(debug(several, &[], "cat /b").stdout, "b\n");
    wait_until("the other stage is cancelled", || !is_running("sleep 1000.625"));
    // Without being asked for.
    let plain = given_text(&harness, "FROM busybox\nRUN false\n", &[], "echo in").fails(1);
    assert!(plain.stdout.is_empty() && !plain.stderr.contains("note:"), "{}", plain.stderr);
    leaves_nothing(&harness);
}

#[test]
fn agents_answer_in_the_shell() {
    let (harness, ssh) = (Harness::new(), SshServer::start());
    let context = with_ssh_tools(&harness, "FROM busybox\nRUN --mount=target=/tools --mount=type=ssh false\n");
    let socket = ssh.socket();
    let env = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
    let args = ["debug", "--ssh=default", context.to_str().unwrap()];
    let outcome = given(&harness, &args, &env, "/tools/t ssh-add -L").fails(1);
    let public = std::fs::read_to_string(ssh.key().with_extension("pub")).unwrap();
    let key = |line: &str| line.split(' ').nth(1).map(str::to_owned);
    assert_eq!(key(&outcome.stdout), key(&public), "{}", outcome.stderr);
}

/// A shell that sleeps, and the build around it.
fn sleeping(harness: &Harness, duration: &str) -> Child {
    let context = harness.context(duration, "FROM busybox\nRUN false\n");
    let mut command = harness.command(&["debug", context.to_str().unwrap()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(format!("sleep {duration}; echo over\n").as_bytes()).unwrap();
    wait_until("the shell runs", || is_running(&format!("sleep {duration}")));
    child
}

#[test]
fn signals_end_everything() {
    let harness = Harness::new();
    let mut terminated = sleeping(&harness, "1001.125");
    kill_process(Pid::from_child(&terminated), Signal::TERM).unwrap();
    assert_eq!(terminated.wait().unwrap().code(), Some(143));
    assert!(!is_running("sleep 1001.125"), "it ends before rbuild does");
    leaves_nothing(&harness);
    // The shell is process 1, to which an interrupt does nothing; the second one ends it.
    let mut interrupted = sleeping(&harness, "1001.375");
    for _ in 0..2 {
        kill_process(Pid::from_child(&interrupted), Signal::INT).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(interrupted.wait().unwrap().code(), Some(1));
    assert!(!is_running("sleep 1001.375"));
    leaves_nothing(&harness);
    let mut killed = sleeping(&harness, "1001.625");
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("nothing of it runs", || !is_running("sleep 1001.625"));
    // The next one clears up.
    harness.build_text("FROM busybox\nRUN true\n", &[]).ok();
    leaves_nothing(&harness);
}

const STAGES: &str = "FROM busybox AS first\nRUN mkdir /w && chown daemon /w\nENV A=stage\nWORKDIR /w\nUSER daemon\nRUN touch mine\n\
                      FROM busybox AS second\nRUN exit 9\nFROM busybox\nWORKDIR /last\n";

#[test]
fn a_shell_in_a_stage() {
    let harness = Harness::new();
    let look = "id -un; pwd; echo $A; ls; touch more; exit 5";
    let shell = given_text(&harness, STAGES, &["--shell", "first"], look).fails(5);
    assert_eq!(shell.stdout, "daemon\n/w\nstage\nmine\n");
    let shell = shell.says("note: this is /bin/sh in the stage \"first\", as daemon in /w");
    assert!(shell.stderr.contains("RUN touch mine") && !shell.stderr.contains("exit 9"), "{}", shell.stderr);
    assert_eq!(
        given_text(&harness, STAGES, &["--shell=first", "-t", "name"], "ls").ok().stdout,
        "mine\n",
        "nothing stays"
    );
    assert!(!harness.rbuild(&["images"]).ok().stdout.contains("name"), "no image is made");
    // What stands alone after it is the context.
    assert_eq!(given_text(&harness, STAGES, &["--target=first", "--shell"], "ls").ok().stdout, "mine\n");
    assert_eq!(given_text(&harness, STAGES, &["--shell"], "pwd").ok().stdout, "/last\n");
    given_text(&harness, STAGES, &["--shell=second"], "pwd").fails(1).says("exit code: 9");
    let failed = given_text(&harness, STAGES, &["--shell=second", "--debug-on-failure"], "pwd").fails(1);
    assert_eq!(failed.says("in the failed step").stdout, "/\n");
    harness.build_text(STAGES, &["--shell=first"]).fails(1).says("error: standard input is no terminal");
    harness.build_text(STAGES, &["--shell=thrid"]).fails(1).says("thrid");
    harness.build_text(STAGES, &["--shell=first", "--platform=linux/amd64,linux/arm64"]).fails(2).says("one platform");
    leaves_nothing(&harness);
    let context = harness.context("context", STAGES);
    let mut terminal = OnTerminal::start(&harness, &format!("build --shell first {}", context.display()), &[]);
    terminal.shows("note: what you change");
    terminal.types("id -un; exit 6\r");
    let (code, screen) = terminal.ends();
    assert!(code == Some(6) && screen.contains("\r\ndaemon\r\n"), "{code:?} {screen}");
}

/// The other way to look at a stage: as an image.
#[test]
fn a_target_can_be_run() {
    let harness = Harness::new();
    harness.build_text(STAGES, &["--target=first", "-t", "first"]).ok();
    let text = harness.output("first", &["sh", "-c", "id -un; pwd; echo $A; ls"]);
    assert_eq!(text, "daemon\n/w\nstage\nmine\n");
}

/// Where rbuild has handlers of its own; root's build has the machine's.
#[test]
fn the_shell_is_of_the_step_s_platform() {
    if is_root() {
        return;
    }
    let harness = Harness::empty();
    let dockerfile =
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/uname\nENV PATH=/bin\nRUN echo half > /half; exit 3\n";
    let context = harness.context("foreign", dockerfile);
    std::fs::copy(foreign_busybox(), context.join("busybox")).unwrap();
    let args = ["debug", "--platform", FOREIGN.0, context.to_str().unwrap()];
    let outcome = given(&harness, &args, &[], "uname -m; read line < /half; echo $line").fails(1);
    assert_eq!(outcome.stdout, format!("{}\nhalf\n", FOREIGN.1), "{}", outcome.stderr);
}
