//! Networks of steps and containers, what names lead to, and the entitlements that open them.

use crate::harness::{Harness, Outcome, is_root};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Whether this machine can have isolated networks: pasta, a tun device that this user may open, and a route to the outside.
fn has_isolated() -> bool {
    let path = std::env::var_os("PATH").unwrap();
    let installed = std::env::split_paths(&path).any(|directory| directory.join("pasta").exists());
    let tun = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let can = installed && tun.is_ok() && host_address().is_some();
    if !can {
        eprintln!("no isolated networks here (pasta installed: {installed}, /dev/net/tun: {:?})", tun.err());
    }
    can
}

/// An address of the host that is not loopback's.
fn host_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("203.0.113.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Says one word to whoever connects, for as long as the test runs.
fn greeter(address: IpAddr, word: &'static str) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| writeln!(stream, "{word}"));
        }
    });
    port
}

fn own_namespace() -> String {
    std::fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned()
}

/// pasta of this test's store: their process ids.
fn pastas(harness: &Harness) -> Vec<u32> {
    let store = harness.path_text("store");
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains("--config-net") && line.contains(&store)
    };
    processes.filter(is_ours).collect()
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines that steps print, without what rbuild says of them.
fn output(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.stderr.lines().filter_map(|line| {
        let (number, rest) = line.split_once(' ')?;
        let (time, text) = rest.split_once(' ')?;
        (number.starts_with('#') && time.contains('.') && time.parse::<f64>().is_ok()).then(|| text.to_owned())
    });
    lines.collect()
}

#[test]
fn entitlements_are_asked_for_before_anything_runs() {
    let harness = Harness::new();
    let host = "FROM busybox\nRUN echo ran\nRUN --network=host readlink /proc/self/ns/net\n";
    let refused = harness.build_text(host, &[]).fails(1).says("network.host is not allowed");
    assert!(refused.stderr.contains("note: give the build --allow network.host"), "{}", refused.stderr);
    assert!(output(&refused).is_empty(), "R1.10.2: {}", refused.stderr);
    for flags in [["--allow", "network.host"], ["--allow", "security.insecure,network.host"], ["--network", "host"]] {
        let outcome = harness.build_text(host, &[&flags[..], &["--no-cache"]].concat()).ok();
        assert!(output(&outcome).contains(&own_namespace()), "R1.9.3, {flags:?}: {}", outcome.stderr);
    }
    let insecure = "FROM busybox\nRUN --security=insecure true\n";
    harness.build_text(insecure, &["--allow=network.host"]).fails(1).says("security.insecure is not allowed");
    harness.build_text(host, &["--allow", "network.hots"]).fails(2).says("did you mean network.host?");
}

#[test]
fn names_are_found_as_the_flags_say() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nRUN cat /etc/resolv.conf\nRUN --network=none cat /etc/hosts\n";
    let flags = ["--dns=10.9.9.9", "--dns", "fd00::9", "--dns-search=example.test", "--dns-option=ndots:3"];
    let outcome = harness.build_text(dockerfile, &flags).ok();
    let expected = ["nameserver 10.9.9.9", "nameserver fd00::9", "search example.test", "options ndots:3"];
    assert_eq!(output(&outcome)[..4], expected, "R1.4.6");
    harness.build_text(dockerfile, &["--dns=resolver"]).fails(2).says("--dns \"resolver\"");

    let hosts =
        ["--add-host=a:10.0.0.1", "--add-host", "b=10.0.0.2", "--add-host=c:[::1]", "--add-host=d:host-gateway"];
    let outcome = harness.build_text(dockerfile, &hosts).ok();
    let lines = output(&outcome);
    let expected = ["10.0.0.1\ta", "10.0.0.2\tb", "::1\tc", "127.0.0.1\td"];
    assert_eq!(lines[lines.len() - 4..], expected, "R1.4.2");
    let moved = ["--add-host=a:10.0.0.7", "--add-host=b:10.0.0.7", "--add-host=c:10.0.0.7", "--add-host=d:10.0.0.7"];
    assert!(output(&harness.build_text(dockerfile, &moved).ok()).is_empty(), "R1.4.9: addresses are in no key");
    assert!(!output(&harness.build_text(dockerfile, &moved[..3]).ok()).is_empty(), "R1.4.9: names are");
    harness.build_text(dockerfile, &["--add-host=a:b"]).fails(2).says("host-gateway");
}

#[test]
fn proxies_reach_steps_and_nothing_else() {
    let harness = Harness::new();
    let configure = |proxy: &str| {
        let directory = harness.path("docker");
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!(r#"{{"proxies": {{"default": {{"httpProxy": "{proxy}", "noProxy": "here"}}}}}}"#);
        std::fs::write(directory.join("config.json"), text).unwrap();
    };
    configure("http://user:pass@config:1");
    let dockerfile = "FROM busybox\nRUN env | grep -i _proxy | sort\n";
    let outcome = harness.build_text(dockerfile, &["-t", "proxied"]).ok();
    let expected = [
        "HTTP_PROXY=http://user:pass@config:1",
        "NO_PROXY=here",
        "http_proxy=http://user:pass@config:1",
        "no_proxy=here",
    ];
    assert_eq!(output(&outcome), expected, "R1.1.3");
    assert!(!harness.inspect("proxied").to_string().contains("pass"), "X1.16: the image does not name them");
    assert!(!harness.rbuild(&["history", "proxied"]).ok().stdout.contains("pass"));
    configure("http://other");
    assert!(output(&harness.build_text(dockerfile, &[]).ok()).is_empty(), "X1.18: they are in no key");
    let given = harness.build_text(dockerfile, &["--no-cache", "--build-arg", "http_proxy=http://arg"]).ok();
    assert!(output(&given).contains(&"HTTP_PROXY=http://arg".to_owned()), "{}", given.stderr);
    assert!(!given.stderr.contains("http://other"), "{}", given.stderr);
}

/// What is looked for from inside of an isolated network.
fn probe(address: IpAddr) -> String {
    let (outer, inner) = (greeter(address, "outer"), greeter("127.0.0.1".parse().unwrap(), "inner"));
    // At the same time: each waits for its timeout, since pasta of early 2023 loses the end of a connection that was closed on both sides.
    format!(
        "cd /tmp; timeout 2 nc {address} {outer} > 1 & timeout 2 nc gateway {outer} > 2 & \
         for host in 127.0.0.1 10.0.2.2 10.0.2.3; do timeout 2 nc $host {inner} >> 3 2>/dev/null & done; wait; cat 1 2 3; \
         readlink /proc/self/ns/net; ls /sys/class/net | wc -l; wc -l < /proc/net/tcp"
    )
}

/// R1.9.7.
#[test]
fn an_isolated_network_reaches_out_but_not_the_host_s_loopback() {
    if !has_isolated() {
        return;
    }
    let harness = Harness::new();
    let address = host_address().unwrap();
    let probe = probe(address);
    let lines = if is_root() {
        let probe = probe.replace("gateway", &address.to_string());
        let outcome = harness.rbuild(&["run", "--network=pasta", "busybox", "sh", "-c", &probe]).ok();
        outcome.stdout.lines().map(str::to_owned).collect()
    } else {
        let dockerfile = format!("FROM busybox\nRUN {probe}\nRUN true; readlink /proc/self/ns/net\n");
        let outcome = harness.build_text(&dockerfile, &["--add-host=gateway:host-gateway"]).ok();
        assert!(!outcome.stderr.contains("warning"), "{}", outcome.stderr);
        let mut lines = output(&outcome);
        assert_eq!(lines.pop().as_ref(), lines.get(2), "one network for the whole build: {}", outcome.stderr);
        lines
    };
    // Some versions of pasta deliver a short answer more than once.
    let is_answer = |line: &String| !line.is_empty() && line.replace("outer", "").is_empty();
    assert!(lines[..2].iter().all(is_answer), "{lines:?}");
    assert!(lines[2].starts_with("net:[") && lines[2] != own_namespace(), "{lines:?}");
    assert_eq!(lines[3], "2", "lo and one that leads out: {lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
    eventually("pasta is still there", || pastas(&harness).is_empty());
}

/// A name server that knows one address for every name.
fn resolver(socket: UdpSocket) {
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let query = &query[..length];
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = query[end - 4..end - 2] == [0, 1];
            let mut answer =
                [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0], &query[12..end]].concat();
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
}

/// Root's alone: it takes port 53 and a /etc/resolv.conf of the test's own.
#[test]
fn resolvers_of_the_host_s_loopback_are_asked_by_way_of_pasta() {
    if !is_root() || !has_isolated() {
        return;
    }
    let Ok(socket) = UdpSocket::bind("127.0.0.1:53") else { return eprintln!("port 53 is taken") };
    resolver(socket);
    let harness = Harness::new();
    std::fs::write(harness.path("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    let script = "mount --bind \"$1\" /etc/resolv.conf; exec \"$2\" run --network=pasta busybox \
                  sh -c 'cat /etc/resolv.conf; nslookup some.test'";
    let rbuild = harness.command(&[]).get_program().to_owned();
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-ec", script, "sh", &harness.path_text("resolv.conf")])
        .arg(rbuild)
        .env("RBUILD_ROOT", harness.path("store"))
        .output();
    let outcome = Outcome::of(output.unwrap()).ok();
    assert!(outcome.stdout.starts_with("nameserver 10.0.2.3\n"), "X1.91: {}", outcome.stdout);
    assert!(outcome.stdout.contains("10.1.2.3"), "R1.9.7: {}", outcome.stdout);
}

#[test]
fn nothing_is_left_of_a_network_when_rbuild_is_killed() {
    if !has_isolated() {
        return;
    }
    let harness = Harness::new();
    let mut command =
        harness.command(&["run", "--network=pasta", "busybox", "sh", "-c", "readlink /proc/self/ns/net; sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 64];
    let length = child.stdout.as_mut().unwrap().read(&mut line).unwrap();
    let namespace = String::from_utf8_lossy(&line[..length]).trim().to_owned();
    assert!(namespace.starts_with("net:["), "{namespace}");
    assert_eq!(pastas(&harness).len(), 1);
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("pasta survived", || pastas(&harness).is_empty());
    let is_in_it = |entry: std::fs::DirEntry| {
        std::fs::read_link(entry.path().join("ns/net")).is_ok_and(|link| link == Path::new(&namespace))
    };
    eventually("the namespace survived", || !std::fs::read_dir("/proc").unwrap().flatten().any(is_in_it));
}

/// Ends what it holds.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ports_lead_into_a_container() {
    if !has_isolated() {
        return;
    }
    let harness = Harness::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mapping = format!("127.0.0.1:{port}:80");
    let server = ["run", "-p", &mapping, "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "from inside"];
    let _server = Running(harness.command(&server).spawn().unwrap());
    let mut answer = String::new();
    eventually("nobody answers", || {
        answer.clear();
        let stream = TcpStream::connect(("127.0.0.1", port));
        stream.and_then(|mut stream| stream.read_to_string(&mut answer)).is_ok() && !answer.is_empty()
    });
    assert_eq!(answer, "from inside\n");
    let taken = harness.rbuild(&["run", "-p", &mapping, "busybox", "true"]).fails(125);
    assert!(taken.stderr.contains("pasta could not connect it") && taken.stderr.contains(&port.to_string()));
    harness.rbuild(&["run", "--network=host", "-p", &mapping, "busybox", "true"]).fails(125).says("--network=host");
    harness.rbuild(&["run", "-p", "80", "busybox", "true"]).fails(125).says("HOSTPORT:PORT");
}

/// A PATH with what rbuild needs to map ids, and a `pasta` that is the shell script given, if any.
fn path_with(harness: &Harness, pasta: Option<&str>) -> String {
    let directory = harness.path("programs");
    std::fs::create_dir_all(&directory).unwrap();
    for name in ["newuidmap", "newgidmap"] {
        let real = Path::new("/usr/bin").join(name);
        if real.exists() && !directory.join(name).exists() {
            std::os::unix::fs::symlink(real, directory.join(name)).unwrap();
        }
    }
    if let Some(script) = pasta {
        use std::os::unix::fs::PermissionsExt;
        let file = directory.join("pasta");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
    }
    directory.to_str().unwrap().to_owned()
}

#[test]
fn without_pasta_steps_have_the_host_s_network_with_one_notice() {
    let harness = Harness::new();
    let path = path_with(&harness, None);
    let build = |network: &str| {
        let dockerfile = "FROM busybox\nRUN readlink /proc/self/ns/net\nRUN readlink /proc/self/ns/net | cat\n";
        let context = harness.context("c", dockerfile);
        let args = ["build", "--progress=plain", "--network", network, context.to_str().unwrap()];
        Outcome::of(harness.command(&args).env("PATH", &path).output().unwrap()).ok()
    };
    let outcome = build("default");
    assert_eq!(output(&outcome), [own_namespace(), own_namespace()]);
    // Root has the host's anyway (R1.9.1).
    let notices = outcome.stderr.matches("pasta is not installed").count();
    assert_eq!(notices, usize::from(!is_root()), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("apt-get install passt").count(), notices);
    assert!(!build("default").stderr.contains("pasta"), "nothing ran, so there is nothing to say");
    assert!(!build("host").stderr.contains("pasta"), "what was asked for needs no notice");
    let ports = ["run", "-p", "127.0.0.1:1:1", "busybox", "true"];
    let refused = Outcome::of(harness.command(&ports).env("PATH", &path).output().unwrap());
    refused.fails(125).says("apt-get install passt");
}

/// A build that runs nothing starts no pasta; one that cannot start it says why.
#[test]
fn pasta_is_started_for_steps_alone() {
    if is_root() || !has_isolated() {
        return;
    }
    let harness = Harness::new();
    let marker = harness.path("started");
    let script = format!("echo x >> {}; echo no luck >&2; exit 1", marker.display());
    let path = path_with(&harness, Some(&script));
    let build = |dockerfile: &str| {
        let context = harness.context("c", dockerfile);
        let args = ["build", "--progress=plain", context.to_str().unwrap()];
        Outcome::of(harness.command(&args).env("PATH", format!("{path}:/usr/bin:/bin")).output().unwrap()).ok()
    };
    build("FROM busybox\nWORKDIR /x\nENV a=b\n");
    assert!(!marker.exists());
    build("FROM busybox\nRUN echo 1\nRUN echo 2\n").says("pasta could not connect it: no luck");
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "x\n", "it was tried once");
    build("FROM busybox\nRUN echo 1\nRUN echo 2\n");
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "x\n", "everything is cached");
}
