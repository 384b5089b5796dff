//! The processes of a step: who they are, what they are given, what becomes of them and of what they say.

use crate::harness::{Harness, Outcome, wait_until};
use std::process::Command;

/// The lines that steps printed, without number and time.
fn said(outcome: &Outcome) -> Vec<&str> {
    let line = |line: &'_ str| -> Option<usize> {
        let mut fields = line.splitn(3, ' ');
        let (number, time) = (fields.next()?, fields.next()?);
        let is_output = number.starts_with('#') && time.parse::<f64>().is_ok() && time.contains('.');
        is_output.then_some(number.len() + time.len() + 2)
    };
    outcome.stderr.lines().filter_map(|text| text.get(line(text)?..)).collect()
}

/// R1.2, R1.1.4.
#[test]
fn users_are_found_by_name_and_number() {
    let harness = Harness::new();
    let cases = [
        ("", "uid=0(root) gid=0(root) groups=0(root) HOME=/root"),
        ("www-data", "uid=33(www-data) gid=33(www-data) groups=8(mail),33(www-data) HOME=/var/www"),
        ("33", "uid=33(www-data) gid=33(www-data) groups=8(mail),33(www-data) HOME=/var/www"),
        ("www-data:users", "uid=33(www-data) gid=100(users) groups=100(users) HOME=/var/www"),
        ("www-data:100", "uid=33(www-data) gid=100(users) groups=100(users) HOME=/var/www"),
        ("33:8", "uid=33(www-data) gid=8(mail) groups=8(mail) HOME=/var/www"),
        ("4242", "uid=4242 gid=0(root) groups=0(root) HOME=/"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343 HOME=/"),
        ("late", "uid=77(late) gid=33(www-data) groups=33(www-data) HOME=/late"),
    ];
    let mut text = "FROM busybox\nRUN echo late:x:77:33::/late:/bin/sh >> /etc/passwd\n".to_owned();
    for (user, _) in &cases {
        text += &format!("USER {}\nRUN echo \"$(id) HOME=$HOME\"\n", if user.is_empty() { "root" } else { user });
    }
    text += "ENV HOME=/set\nRUN echo $HOME\n";
    let outcome = harness.build_text(&text, &[]).ok();
    let expected: Vec<_> = cases.iter().map(|(_, line)| *line).chain(["/set"]).collect();
    assert_eq!(said(&outcome), expected);
    for (user, message) in
        [("nobody-known", "unable to find user nobody-known"), ("daemon:none", "unable to find group none")]
    {
        harness.build_text(&format!("FROM busybox\nUSER {user}\nRUN true\n"), &[]).fails(1).says(message);
    }
    // What is no file must not be waited for (R1.2.8).
    let text = "FROM busybox\nRUN rm /etc/passwd && mkfifo /etc/passwd\nUSER daemon\nRUN true\n";
    harness.build_text(text, &[]).fails(1).says("/etc/passwd");
}

/// R1.3.
#[test]
fn working_directories_are_made_for_their_user() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN ln -s /real /link && mkdir -m 700 /real && chown 33 /real\nUSER 33:33\nWORKDIR /a/b\nRUN pwd; stat -c %a:%u:%g /a /a/b .\n\
                WORKDIR /link/c\nRUN pwd -P; stat -c %u /real/c\nWORKDIR /etc/passwd\nRUN true\n";
    let outcome = harness.build_text(text, &[]).fails(1).says("/etc/passwd");
    let lines = said(&outcome);
    assert_eq!(lines[0], "/a/b");
    assert!(lines[1..4].iter().all(|line| line.starts_with("755:")), "{lines:?}");
    assert_eq!(lines[4], "/real/c");
}

/// Nothing of rbuild's own state leaks: it ignores signals, opens many files and raises a limit.
#[test]
fn steps_begin_with_a_clean_slate() {
    let harness = Harness::new();
    let script = r#"
        grep -E '^Sig(Blk|Ign)' /proc/self/status
        readlink /proc/1/fd/0
        cat | wc -c; tty; test -t 1 || echo no terminal; (: < /dev/tty) 2>/dev/null || echo none to open
        trap 'echo trapped' TERM; kill -TERM $$
        sh -c 'kill -PIPE $$'; echo pipe $?
        umask; ulimit -Sn; ulimit -Hn
        head -c 10 /proc/$$/cmdline | tr '\0' ' '; echo; ls /proc/self/task | wc -l
    "#;
    // A secret and a mount, since those bring descriptors along.
    let text = format!(
        "FROM busybox AS other\nRUN sleep 0.3\nFROM busybox\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c <<'EOF'\n{script}\nEOF\nRUN --mount=type=secret,id=s [\"ls\", \"/proc/1/fd\"]\nCOPY --from=other /etc /o\n"
    );
    let context = harness.context("context", &text);
    std::fs::write(harness.path("secret"), "x").unwrap();
    let secret = format!("id=s,src={}", harness.path_text("secret"));
    let build = ["build", "--progress=plain", "--secret", &secret, context.to_str().unwrap()];
    let outcome = harness.script("trap '' PIPE HUP; ulimit -Sn 345; ulimit -Hn 678; exec \"$@\"", &build).ok();
    let expected = [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "/dev/null",
        "0",
        "not a tty",
        "no terminal",
        "none to open",
        "trapped",
        "pipe 141",
        "0022",
        "345",
        "678",
        "/bin/sh -c",
        "1",
    ];
    // The last one is that of the directory which ls reads.
    assert_eq!(said(&outcome), [&expected[..], &["0", "1", "2", "3"]].concat(), "{}", outcome.stderr);
}

/// X1.100: also what went out of its way to stay.
#[test]
fn daemons_end_with_their_step() {
    let harness = Harness::new();
    let text = "FROM busybox\nRUN (trap '' HUP; sleep 1001.125 >/dev/null) & (setsid sleep 1001.125 &) ; (trap '' TERM HUP INT; sleep 1001.125) & \n\
                RUN sh -c 'sh -c \"sleep 1001.125 & sleep 1001.125\" &' ; echo holds the pipe & sleep 1001.125 & echo done\n\
                RUN ! grep -x sleep /proc/[0-9]*/comm\n";
    let outcome = harness.build_text(text, &[]).ok().says("done");
    assert!(!outcome.stderr.contains("CANCELED"));
    let left = || Command::new("pgrep").args(["-f", "^sleep 1001.125"]).output().unwrap().stdout;
    wait_until("daemons have ended", || left().is_empty());
}

/// Bytes come through as they are; lines of any length, with and without an end.
#[test]
fn output_is_any_bytes() {
    let harness = Harness::new();
    let script = r"i=0; while [ $i -lt 256 ]; do printf \\$(printf %o $i); i=$((i+1)); done; printf '\n\377\376 no end'; printf 'also none' >&2";
    let context = harness.context("context", &format!("FROM busybox\nRUN <<'EOF'\n{script}\nEOF\n"));
    let outcome = harness.rbuild(&["build", "--progress=rawjson", context.to_str().unwrap()]).ok();
    let mut streams = [Vec::new(), Vec::new()];
    for line in outcome.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        for log in event["logs"].as_array().into_iter().flatten() {
            let stream = usize::try_from(log["stream"].as_u64().unwrap()).unwrap();
            streams[stream - 1].extend(decode(log["data"].as_str().unwrap()));
        }
    }
    let all: Vec<u8> = (0..=255).chain(*b"\n\xff\xfe no end").collect();
    assert_eq!(streams, [all, b"also none".to_vec()]);

    let text =
        "FROM busybox\nRUN head -c 1500000 /dev/zero | tr '\\0' x; printf end\nRUN printf 'a\\rb\\n\\nno newline'\n";
    let context = harness.context("context", text);
    let args = ["build", "--progress=plain", context.to_str().unwrap()];
    let unlimited = "export BUILDKIT_STEP_LOG_MAX_SIZE=-1 BUILDKIT_STEP_LOG_MAX_SPEED=-1; exec \"$@\"";
    let outcome = harness.script(unlimited, &args).ok();
    let long = |line: &&str| line.matches('x').count() > 1000;
    assert_eq!(outcome.stderr.lines().filter(long).map(|line| line.matches('x').count()).sum::<usize>(), 1_500_000);
    assert!(outcome.stderr.contains("xend\n") && outcome.stderr.contains("no newline\n"));
}

/// However much a step says, it is not held up, and rbuild does not grow with it.
#[test]
fn output_of_a_hundred_megabytes() {
    let harness = Harness::new();
    let text =
        "FROM busybox\nRUN yes some words that are said again and again | head -c 100000000; echo; echo through > /f\n";
    let outcome = harness.build_text(text, &["-t", "much"]).ok().says("[output clipped, log limit");
    assert!(outcome.stderr.len() < 8 << 20, "{}", outcome.stderr.len());
    assert_eq!(harness.output("much", &["cat", "/f"]), "through\n");
}

fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digit = |byte: &u8| ALPHABET.iter().position(|known| known == byte).unwrap() as u32;
        let number = chunk.iter().fold(0, |number, byte| number << 6 | digit(byte)) << (6 * (4 - chunk.len()));
        bytes.extend(&number.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}
