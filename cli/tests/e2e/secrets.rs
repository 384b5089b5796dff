//! `--secret` and `--ssh`: where they come from, what a step gets of them, and that nothing else ever does.

use crate::harness::{Harness, Outcome, is_root, printed, tool};
use crate::servers::{FileServer, GitServer, SshServer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn write(harness: &Harness, name: &str, content: &[u8]) -> String {
    std::fs::write(harness.path(name), content).unwrap();
    harness.path_text(name)
}

/// R2.18 to R2.21, R10 of `--secret`.
#[test]
fn secrets_come_from_files_variables_and_commands() {
    let harness = Harness::new();
    let file = write(&harness, "a,b", b"from a file");
    let dockerfile = r#"
        FROM busybox
        RUN --mount=type=secret,id=file --mount=type=secret,id=env --mount=type=secret,id=same --mount=type=secret,id=command \
            for i in file env same command; do echo "$i: $(cat /run/secrets/$i)"; done
        RUN --mount=type=secret,id=file,env=BOTH,dst=/both --mount=type=secret,id=env,env=ONLY \
            echo "$BOTH $(cat /both) $ONLY"; test ! -e /run/secrets
        RUN --mount=type=secret,id=none --mount=type=secret,id=none,env=NONE \
            test ! -e /run/secrets; echo "${NONE-unset} ${NONE:-empty}"
        ENV NAME=image
        RUN --mount=type=secret,id=env,env=NAME env | grep NAME; echo $NAME
    "#;
    harness.context("c", dockerfile);
    let flags = [
        &format!("--secret=id=file,\"src={file}\""),
        "--secret=type=env,id=env,src=VARIABLE",
        "--secret=id=same",
        "--secret=id=command,command=printf 'from a %s\\n' command",
    ];
    let mut command = harness.command(&["build", "--progress=plain"]);
    command.args(flags).arg(harness.path("c")).env("VARIABLE", "from a variable").env("same", "by its name");
    let outcome = Outcome::of(command.output().unwrap()).ok();
    let expected = [
        "file: from a file",
        "env: from a variable",
        "same: by its name",
        "command: from a command",
        "from a file from a file from a variable",
        " empty",
        "NAME=from a variable",
        "from a variable",
    ];
    assert_eq!(printed(&outcome), expected);
    assert!(!outcome.stderr.contains("printf 'from"));
}

/// X2.38, X2.39, X2.2: who may do what with the file, and where it may lie.
#[test]
fn secret_files_have_the_owner_and_mode_asked_for() {
    let harness = Harness::new();
    let file = write(&harness, "s", b"#!/bin/sh\necho runs\n");
    let dockerfile = r#"
        FROM busybox
        WORKDIR /work
        RUN --mount=type=secret,id=s stat -c '%a %u:%g %s' /run/secrets/s; grep ' /run/secrets/s ' /proc/self/mountinfo | cut -d' ' -f6
        RUN --mount=type=secret,id=s,target=relative,mode=0555 ./relative; stat -c %a /work/relative
        RUN --mount=type=secret,id=s,target=/etc/passwd,mode=0444 wc -l < /etc/passwd
        RUN --mount=type=secret,id=s,mode=0777 exec 2>&1; echo x > /run/secrets/s || rm /run/secrets/s || mv /run/secrets/s /x || echo stays
        RUN --mount=type=secret,id=s,mode=0444 exec 2>&1; cp /run/secrets/s /tmp/s && /run/secrets/s || echo no
        USER www-data
        RUN --mount=type=secret,id=s exec 2>&1; cat /run/secrets/s || echo hidden
        RUN --mount=type=secret,id=s,uid=33 cat /run/secrets/s | wc -l; stat -c '%a %u:%g' /run/secrets/s
    "#;
    let context = harness.context("c", dockerfile);
    let outcome = harness.build(&context, &["-t", "o", "--secret", &format!("id=s,src={file}")]).ok();
    let expected = [
        "400 0:0 20",
        "ro,nosuid,nodev,noexec,relatime",
        "runs",
        "555",
        "2",
        "sh: can't create /run/secrets/s: Read-only file system",
        "rm: can't remove '/run/secrets/s': Device or resource busy",
        "mv: can't rename '/run/secrets/s': Device or resource busy",
        "stays",
        "sh: /run/secrets/s: Permission denied",
        "no",
        "cat: can't open '/run/secrets/s': Permission denied",
        "hidden",
        "2",
        "400 33:0",
    ];
    let printed: Vec<_> = printed(&outcome).into_iter().map(|line| line.replace("/bin/sh: ", "sh: ")).collect();
    assert_eq!(printed, expected);
    // R2.26: neither mount points nor their parents stay.
    let left = harness.output("o", &["sh", "-c", "ls -d /run /work/relative 2>/dev/null; head -n 1 /etc/passwd"]);
    assert_eq!(left, "root:x:0:0:root:/root:/bin/sh\n");
}

/// Ids that no namespace of an ordinary user maps.
#[test]
fn owners_that_cannot_be_had_are_named() {
    if is_root() {
        return;
    }
    let harness = Harness::new();
    let secret = harness.context("s", "FROM busybox\nRUN --mount=type=secret,id=s,uid=99999999 true\n");
    harness
        .build(&secret, &["--secret=id=s,command=echo x"])
        .fails(1)
        .says("giving a secret to 99999999:0 (are the ids mapped");
    let listener = harness.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&listener).unwrap();
    let agent = harness.context("a", "FROM busybox\nRUN --mount=type=ssh,gid=99999999 true\n");
    let flag = format!("--ssh=default={}", listener.display());
    harness.build(&agent, &[&flag]).fails(1).says("to 0:99999999").says("are the ids mapped");
}

#[test]
fn secrets_that_are_not_there() {
    let harness = Harness::new();
    let required = harness.context("c", "FROM busybox\nRUN --mount=type=secret,id=key,required true\n");
    harness.build(&required, &[]).fails(1).says("secret key: not found").says(" 2 | >>> RUN");
    let variable = harness.context("v", "FROM busybox\nRUN --mount=type=secret,id=key,env=K,required true\n");
    harness.build(&variable, &[]).fails(1).says("secret key: not found");
    harness.build(&required, &["--secret=id=key,env=NOT_SET"]).ok();
    harness.build(&required, &["--no-cache", "--secret=id=key,command=echo why >&2; exit 3"]).fails(1).says(": why");
    let zero = write(&harness, "zero", b"a\0b");
    harness.build(&variable, &["--secret", &format!("id=key,src={zero}")]).fails(1).says("mount it as a file");

    let missing = harness.path_text("missing");
    harness
        .build(&required, &["--secret", &format!("id=key,src={missing}")])
        .fails(2)
        .says(&missing)
        .says("No such file");
    harness.build(&required, &["--secret=id=nowhere"]).fails(2).says("failed to stat nowhere");
    let big = write(&harness, "big", &vec![b'x'; 512_001]);
    harness.build(&required, &["--secret", &format!("id=key,src={big}")]).fails(2).says("secret key too big");
    write(&harness, "big", &vec![b'x'; 512_000]);
    harness.build(&required, &["--secret", &format!("id=key,src={big}")]).ok();
    harness.build(&required, &["--secret=src=x"]).fails(2).says("it has no id");
    harness.build(&required, &["--secret=id=x,typo=y"]).fails(2).says("unexpected key 'typo'");
}

/// D23.9, R2.22.
#[test]
fn a_new_value_does_not_run_a_step_again() {
    let harness = Harness::new();
    let context =
        harness.context("c", "FROM busybox\nRUN --mount=type=secret,id=k,env=K cat /proc/uptime > /ran; echo ${#K}\n");
    let id = |flags: &[&str]| harness.build(&context, &[&["-q"], flags].concat()).ok().stdout;
    let first = id(&["--secret=id=k,command=echo one"]);
    assert_eq!(first, id(&["--secret=id=k,command=echo two"]));
    assert_eq!(first, id(&[]), "nor does its absence");
    assert_ne!(first, id(&["--no-cache", "--secret=id=k,command=echo one"]));
    harness.context(
        "c",
        "FROM busybox\nRUN --mount=type=secret,id=k,env=K,mode=0444,dst=/k cat /proc/uptime > /ran; echo ${#K}\n",
    );
    assert_ne!(first, id(&["--secret=id=k,command=echo one"]), "X2.7: what the step sees does");
}

/// Where `needle` stands below `directory`.
fn find(directory: &Path, needle: &[u8], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            find(&path, needle, found);
        } else if kind.is_file() && contains(&std::fs::read(&path).unwrap_or_default(), needle) {
            found.push(path);
        }
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(text, needle).is_some()
}

/// R2.22: not in layers, keys, images, archives, histories or logs, of builds that succeed and of those that fail. That the steps saw the
/// values is shown by their hashes.
#[test]
fn nothing_keeps_the_value_of_a_secret() {
    let harness = Harness::new();
    let values: [(&str, Vec<u8>); 4] = [
        ("file", b"rBuildFileSecret-5081".to_vec()),
        ("env", b"rBuildEnvSecret 'quoted' \"too\" \\ $HOME 7733".to_vec()),
        ("lines", b"-----BEGIN KEY-----\nrBuildFirstLine6620\nrBuildLastLine6621\n-----END KEY-----\n".to_vec()),
        ("binary", b"\0\x01\xffrBuild\xfe\0Binary\n\x80\x81".to_vec()),
    ];
    // Each as it is, and a piece that no other encoding of the whole changes.
    let needles: Vec<Vec<u8>> = values
        .iter()
        .map(|(_, value)| value.clone())
        .chain(["FileSecret-5081", "quoted' \"", "rBuildFirstLine6620", "rBuildLastLine6621"].map(|text| text.into()))
        .chain([b"\xfe\0Binary\n".to_vec(), BASE64.encode(&values[0].1).into_bytes()])
        .collect();
    let hash = |value: &[u8]| {
        let file = write(&harness, "value", value);
        tool("sha256sum", &[&file])[..64].to_owned()
    };
    let steps = r#"
        FROM busybox AS ok
        RUN --mount=type=secret,id=file --mount=type=secret,id=env --mount=type=secret,id=lines --mount=type=secret,id=binary \
            sha256sum /run/secrets/*; echo done > /marker
        RUN --mount=type=secret,id=env,env=E --mount=type=secret,id=file,env=F --mount=type=secret,id=lines,env=L \
            for v in "$E" "$F" "$L"; do printf %s "$v" | sha256sum; done; test -n "$E"
        FROM ok AS failing
        RUN --mount=type=secret,id=file,env=F --mount=type=secret,id=lines,dst=/etc/hosts printf %s "$F" | sha256sum && exit 3
        FROM ok AS missing
        RUN --mount=type=secret,id=file,env=F /does-not-exist "$F"
        FROM ok AS unprepared
        RUN --mount=type=secret,id=file,dst=/bin/sh/below/a/file true
        FROM ok AS crashing
        RUN --mount=type=secret,id=file,env=F sh -c 'kill -SEGV $$'; printf %s "$F" | sha256sum
    "#;
    harness.context("c", steps);
    for (name, value) in &values {
        write(&harness, &format!("secret-{name}"), value);
    }
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    let archive = harness.path_text("out.tar");
    for (target, code, wanted) in [
        ("ok", 0, &[0, 1, 2, 3][..]),
        ("failing", 1, &[0]),
        ("missing", 1, &[]),
        ("unprepared", 1, &[]),
        ("crashing", 0, &[0]),
    ] {
        for mode in ["plain", "rawjson", "quiet"] {
            let mut command = harness.command(&["build", "--debug", "--no-cache", "-t", target, "--target", target]);
            command.args(["--progress", mode]).arg(harness.path("c"));
            if target == "ok" && mode == "plain" {
                command.args(["-o", "type=image", "-o", &format!("type=oci,dest={archive}")]);
                command.args(["--metadata-file", &harness.path_text("store/metadata")]);
            }
            for (name, value) in &values {
                match *name {
                    "env" => {
                        command.arg("--secret=id=env,env=THE_SECRET");
                        command.env("THE_SECRET", OsString::from_vec(value.clone()));
                    }
                    name => {
                        let path = harness.path_text(&format!("secret-{name}"));
                        let source = if name == "file" { format!("command=cat {path}") } else { format!("src={path}") };
                        command.arg(format!("--secret=id={name},{source}"));
                    }
                }
            }
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{target}: {}", String::from_utf8_lossy(&output.stderr));
            let mut all = [output.stdout, output.stderr].concat();
            // The data of logs, as those who read the events see it.
            for line in String::from_utf8_lossy(&all.clone()).lines() {
                let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
                for log in event["logs"].as_array().into_iter().flatten() {
                    all.extend(BASE64.decode(log["data"].as_str().unwrap()).unwrap());
                }
            }
            if mode != "quiet" {
                for index in wanted {
                    assert!(
                        contains(&all, hash(&values[*index].1).as_bytes()),
                        "{target} never saw {}",
                        values[*index].0
                    );
                }
                if target == "ok" {
                    let seen = |value: &[u8]| memchr::memmem::find_iter(&all, &hash(value)).count();
                    assert_eq!((seen(&values[0].1), seen(&values[1].1)), (2, 2), "file and variable");
                    assert_eq!(seen(&values[2].1), 2, "every byte of a variable");
                }
            }
            texts.push((format!("{target} {mode}"), all));
        }
    }
    for command in
        [&["history", "ok"][..], &["inspect", "ok"], &["images"], &["run", "--rm", "crashing", "find", "/", "-xdev"]]
    {
        texts.push((command.join(" "), harness.rbuild(command).ok().stdout.into_bytes()));
    }
    let crashed = texts.iter().find(|(name, _)| name.starts_with("run")).unwrap();
    assert!(!contains(&crashed.1, b"\n/core"), "no core file is in the layer");
    texts.push(("archive".into(), std::fs::read(&archive).unwrap()));
    let directory = harness.path_text("unpacked");
    std::fs::create_dir(&directory).unwrap();
    tool("tar", &["-C", &directory, "-xf", &archive]);
    for blob in std::fs::read_dir(format!("{directory}/blobs/sha256")).unwrap().flatten() {
        let plain =
            std::process::Command::new("gzip").arg("-dc").stdin(std::fs::File::open(blob.path()).unwrap()).output();
        texts.push((blob.path().display().to_string(), plain.unwrap().stdout));
    }
    let mut found = Vec::new();
    find(&harness.path("store"), b"done\n", &mut found);
    assert!(!found.is_empty(), "the layers of the store are read");
    for needle in &needles {
        let shown = String::from_utf8_lossy(needle);
        let mut found = Vec::new();
        find(&harness.path("store"), needle, &mut found);
        assert!(found.is_empty(), "{shown:?} is in {found:?}");
        for (name, text) in &texts {
            assert!(!contains(text, needle), "{shown:?} is in the output of {name}");
        }
    }
}

/// A core file would be part of the layer: steps with secrets leave none, whatever `--ulimit` says; others do as they like.
#[test]
fn steps_with_secrets_leave_no_core_files() {
    let harness = Harness::new();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let crash = "sh -c 'kill -SEGV $$'; ls -d /core* || true";
    let dockerfile = format!(
        "FROM busybox\nRUN --mount=type=secret,id=s,env=S echo $S; {crash}\nRUN --mount=type=secret,id=s {crash}\n\
         RUN echo without; {crash}\n"
    );
    let context = harness.context("c", &dockerfile);
    // Raising a limit takes root.
    let flags: &[&str] = if is_root() { &["--ulimit=core=-1"] } else { &[] };
    // It is rbuild that runs the command, and it leaves none either.
    let secret = "--secret=id=s,command=grep -c 'core file size  *1  *1 ' /proc/$PPID/limits";
    let outcome = harness.build(&context, &[&[secret], flags].concat()).ok();
    let lines = printed(&outcome);
    assert_eq!(lines[0], "1", "rbuild's own limit");
    let at = lines.iter().position(|line| line == "without").unwrap();
    assert!(!lines[..at].iter().any(|line| line.starts_with("/core")), "{lines:?}");
    if is_root() && pattern.starts_with("core") {
        assert!(
            lines[at..].iter().any(|line| line.starts_with("/core")),
            "the crash is one that leaves a core file: {lines:?}"
        );
    }
}

/// A context with OpenSSH's tools and their libraries, mounted as /tools by its steps, and a way to start each.
pub fn with_ssh_tools(harness: &Harness, dockerfile: &str) -> PathBuf {
    let context = harness.context("ssh", dockerfile);
    let mut start = "#!/bin/sh\n".to_owned();
    for program in ["/usr/bin/ssh-add", "/usr/bin/ssh-keygen"] {
        let libraries = tool("ldd", &[program]);
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for path in paths.chain([program]) {
            let name = Path::new(path).file_name().unwrap();
            std::fs::copy(path, context.join(name)).unwrap();
            if name.to_string_lossy().starts_with("ld-linux") {
                start = format!(
                    "#!/bin/sh\nt=$1; shift; exec /tools/{} --library-path /tools /tools/$t \"$@\"\n",
                    name.display()
                );
            }
        }
    }
    std::fs::write(context.join("t"), start).unwrap();
    std::fs::set_permissions(context.join("t"), std::fs::Permissions::from_mode(0o755)).unwrap();
    context
}

fn build_with_agent(harness: &Harness, context: &Path, socket: &Path, flags: &[&str]) -> Outcome {
    let mut command = harness.command(&["build", "--progress=plain", "--no-cache"]);
    Outcome::of(command.args(flags).arg(context).env("SSH_AUTH_SOCK", socket).output().unwrap())
}

/// R2.23, R2.24, X2.45 to X2.50.
#[test]
fn steps_may_list_keys_and_have_them_sign() {
    let (harness, ssh) = (Harness::new(), SshServer::start());
    let dockerfile = r#"
        FROM busybox
        RUN --mount=target=/tools --mount=type=ssh <<EOF
            echo $SSH_AUTH_SOCK $(stat -c '%F %a %u:%g' $SSH_AUTH_SOCK)
            /tools/t ssh-add -L
            /tools/t ssh-add -L > /tmp/key.pub
            echo text > /tmp/text
            /tools/t ssh-keygen -q -Y sign -n file -f /tmp/key.pub /tmp/text && cat /tmp/text.sig
            /tools/t ssh-add -D
            /tools/t ssh-add -d /tmp/key.pub
            /tools/t ssh-keygen -q -t ed25519 -N "" -f /tmp/new && /tools/t ssh-add /tmp/new
            echo count $(/tools/t ssh-add -L | wc -l)
        EOF
        RUN --mount=type=ssh,mode=0666,uid=33,gid=8,target=/a/b echo $SSH_AUTH_SOCK $(stat -c '%a %u:%g' /a/b)
        RUN --mount=type=ssh,id=other --mount=type=ssh echo $SSH_AUTH_SOCK; ls /run/buildkit
        ENV SSH_AUTH_SOCK=/mine
        RUN --mount=type=ssh echo $SSH_AUTH_SOCK
        RUN test ! -e /run -a ! -e /a
        USER www-data
        RUN --mount=target=/tools --mount=type=ssh,uid=33 SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0 /tools/t ssh-add -l | wc -l
        RUN --mount=target=/tools --mount=type=ssh SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0 /tools/t ssh-add -l
    "#;
    let context = with_ssh_tools(&harness, &dockerfile.replace("\n        ", "\n"));
    let outcome = build_with_agent(&harness, &context, &ssh.socket(), &["--ssh=default"]).fails(1);
    let lines = printed(&outcome);
    let public = std::fs::read_to_string(ssh.key().with_extension("pub")).unwrap();
    let says = |text: &str| assert!(lines.iter().any(|line| line.contains(text)), "{text:?} is not in {lines:#?}");
    says("/run/buildkit/ssh_agent.0 socket 600 0:0");
    says(public.trim());
    says("count 1");
    says("/a/b 666 33:8");
    assert!(lines.contains(&"/run/buildkit/ssh_agent.0".to_owned()), "X2.46: set without an agent, too: {lines:#?}");
    assert!(lines.contains(&"ssh_agent.1".to_owned()) && !lines.contains(&"ssh_agent.0".to_owned()), "X2.49, X2.45");
    says("/mine");
    for refused in ["Failed to remove all identities", "Could not remove identity", "Could not add identity"] {
        says(refused);
    }
    assert!(lines.contains(&"1".to_owned()), "who owns the socket may use it");
    says("Permission denied");
    // What a step had signed counts outside.
    let from = lines.iter().position(|line| line.contains("BEGIN SSH SIGNATURE")).unwrap();
    let to = lines.iter().position(|line| line.contains("END SSH SIGNATURE")).unwrap();
    verify(&harness, &(lines[from..=to].join("\n") + "\n"));
    // And the agent is as it was.
    let keys = std::process::Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", ssh.socket()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&keys.stdout), public);
}

fn verify(harness: &Harness, signature: &str) {
    let file = write(harness, "sig", signature.as_bytes());
    let text = write(harness, "text", b"text\n");
    tool("sh", &["-c", &format!("ssh-keygen -q -Y check-novalidate -n file -s {file} < {text}")]);
}

#[test]
fn agents_that_are_not_there() {
    let harness = Harness::new();
    let required = harness.context("c", "FROM busybox\nRUN --mount=type=ssh,required true\n");
    harness.build(&required, &[]).fails(1).says("no SSH key \"\" forwarded from the client").says("--ssh default");
    let named = harness.context("n", "FROM busybox\nRUN --mount=type=ssh,id=x,required true\n");
    harness.build(&named, &[]).fails(1).says("no SSH key \"x\" forwarded from the client");
    let listener = harness.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&listener).unwrap();
    let default = format!("--ssh=default={}", listener.display());
    harness.build(&named, &[&default]).fails(1).says("unset ssh forward key x");
    harness.build(&required, &[&default]).ok();
    let mut none = harness.command(&["build", "--ssh=default", required.to_str().unwrap()]);
    Outcome::of(none.env_remove("SSH_AUTH_SOCK").output().unwrap()).fails(2).says("make sure SSH_AUTH_SOCK is set");
    harness.build(&required, &["--ssh=default=/nowhere"]).fails(2).says("/nowhere");
}

/// R2.25.
#[test]
fn key_files_sign_for_steps() {
    let harness = Harness::new();
    let key = |name: &str, flags: &[&str]| {
        let path = harness.path_text(name);
        tool("ssh-keygen", &[&["-q", "-C", name, "-f", &path], flags].concat());
        path
    };
    let kinds = [
        ("ed", &["-t", "ed25519", "-N", ""][..]),
        ("ec", &["-t", "ecdsa", "-b", "521", "-N", ""]),
        ("rsa", &["-t", "rsa", "-N", ""]),
    ];
    let files: Vec<String> = kinds.iter().map(|(name, flags)| key(name, flags)).collect();
    let dockerfile = "FROM busybox\nRUN --mount=target=/tools --mount=type=ssh,id=git <<EOF\n/tools/t ssh-add -L > /keys\necho text > /text\n\
                      for n in 1 2 3; do sed -n ${n}p /keys > /key.pub\n\
                      rm -f /text.sig; /tools/t ssh-keygen -q -Y sign -n file -f /key.pub /text && cat /text.sig; done\n\
                      /tools/t ssh-add -D; cat /keys; /tools/t ssh-add -L | wc -l\nEOF\n";
    let context = with_ssh_tools(&harness, dockerfile);
    let outcome = harness.build(&context, &["-t", "k", &format!("--ssh=git={}", files.join(","))]).ok();
    let lines = printed(&outcome);
    for file in &files {
        let public = std::fs::read_to_string(format!("{file}.pub")).unwrap();
        let words: Vec<&str> = public.split_whitespace().collect();
        assert!(lines.iter().any(|line| line.starts_with(&format!("{} {}", words[0], words[1]))), "{file}: {lines:#?}");
    }
    let text = lines.join("\n");
    let signatures: Vec<_> =
        text.split_inclusive("-----END SSH SIGNATURE-----").filter(|part| part.contains("BEGIN SSH")).collect();
    assert_eq!(signatures.len(), 3, "{text}");
    for signature in signatures {
        verify(&harness, &format!("{}\n", signature.trim()));
    }
    assert!(text.contains("Failed to remove all") && lines.last().unwrap() == "3", "{text}");
    // The keys themselves are nowhere.
    for file in &files {
        let private = std::fs::read_to_string(file).unwrap();
        let mut found = Vec::new();
        find(&harness.path("store"), private.lines().nth(2).unwrap().as_bytes(), &mut found);
        assert!(found.is_empty() && !text.contains(private.lines().nth(2).unwrap()));
    }
    let locked = key("locked", &["-t", "ed25519", "-N", "passphrase"]);
    harness
        .build(&context, &[&format!("--ssh=git={locked}")])
        .fails(2)
        .says("protected by a passphrase")
        .says("ssh-add");
    harness.build(&context, &[&format!("--ssh=git={}.pub", files[0])]).fails(2).says("public key");
}

/// The same key files log in where ADD fetches by ssh.
#[test]
fn key_files_fetch_repositories() {
    let (harness, git, ssh) = (Harness::new(), GitServer::start(), SshServer::start());
    git.commit("r", &[("f", "by key")]);
    let context = harness.context("c", &format!("FROM busybox\nADD {} /r/\n", ssh.url(&git.path("r"))));
    let build = |flags: &[&str]| {
        let mut command = harness.command(&["build", "--progress=plain", "-t", "k"]);
        Outcome::of(command.args(flags).arg(&context).env_remove("SSH_AUTH_SOCK").output().unwrap())
    };
    build(&[]).fails(1).says("Permission denied");
    build(&["--ssh", &format!("other={}", ssh.key().display())]).fails(1).says("Permission denied");
    build(&["--ssh", &format!("default={}", ssh.key().display())]).ok();
    assert_eq!(harness.output("k", &["cat", "/r/f"]), "by key");
}

/// R3.6.9: a token logs in, and shows in no list of processes, log or file.
#[test]
fn tokens_fetch_repositories() {
    let (harness, git, http) = (Harness::new(), GitServer::start(), FileServer::start());
    git.commit("r", &[("f", "by token"), ("Dockerfile", "FROM busybox\nCOPY f /f\n")]);
    git.git("r", &["repack", "-adq"]);
    git.git("r", &["update-server-info"]);
    let root = git.path("r").join(".git");
    let files = tool(
        "sh",
        &["-c", &format!("cd {} && find HEAD info objects refs packed-refs -type f 2>/dev/null; true", root.display())],
    );
    for file in files.lines() {
        http.put(&format!("/r.git/{file}"), &std::fs::read(root.join(file)).unwrap());
    }
    http.require(&format!("basic {}", BASE64.encode("x-access-token:hunter2")));
    // What git is started with.
    let real = tool("sh", &["-c", "command -v git"]);
    let log = harness.path("arguments");
    std::fs::create_dir(harness.path("bin")).unwrap();
    let wrapper = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", log.display(), real.trim());
    write(&harness, "bin/git", wrapper.as_bytes());
    std::fs::set_permissions(harness.path("bin/git"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", harness.path_text("bin"), std::env::var("PATH").unwrap());

    let token = write(&harness, "token", b"hunter2\n");
    let url = format!("{}/r.git", http.url);
    let context = harness.context("c", &format!("FROM busybox\nADD {url} /r/\n")).display().to_string();
    let host = http.url.trim_start_matches("http://");
    let build = |flags: &[&str], context: &str| {
        let mut command = harness.command(&["build", "--debug", "--progress=plain", "-t", "k"]);
        Outcome::of(command.args(flags).arg(context).env("PATH", &path).output().unwrap())
    };
    build(&[], &context).fails(1);
    let by = |name: &str| format!("--secret=id={name},src={token}");
    let outcome = build(&[&by("GIT_AUTH_TOKEN")], &context).ok();
    assert_eq!(harness.output("k", &["cat", "/r/f"]), "by token");
    build(&[&by(&format!("GIT_AUTH_TOKEN.{host}")), "--secret=id=GIT_AUTH_TOKEN,command=echo wrong"], &url).ok();
    assert_eq!(harness.output("k", &["cat", "/f"]), "by token");
    let header = format!("--secret=id=GIT_AUTH_HEADER,command=echo basic {}", BASE64.encode("x-access-token:hunter2"));
    build(&["--no-cache", &header], &context).ok();
    build(&[&by("GIT_AUTH_TOKEN.elsewhere")], &url).fails(1);

    let arguments = std::fs::read(&log).unwrap();
    assert!(contains(&arguments, b"ls-remote"));
    for needle in ["hunter2".to_owned(), BASE64.encode("x-access-token:hunter2")] {
        assert!(!contains(&arguments, needle.as_bytes()) && !outcome.stderr.contains(&needle));
        let mut found = Vec::new();
        find(&harness.path("store"), needle.as_bytes(), &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}

/// R3.5.8.
#[test]
fn tokens_fetch_files() {
    let (harness, http) = (Harness::new(), FileServer::start());
    http.put("/file.txt", b"by token");
    http.require("Bearer hunter2");
    let context = harness.context("c", &format!("FROM busybox\nADD {}/file.txt /f\n", http.url));
    harness.build(&context, &[]).fails(1).says("401");
    harness.build(&context, &["--secret=id=HTTP_AUTH_TOKEN_localhost,command=echo hunter2"]).fails(1).says("401");
    harness.build(&context, &["-t", "k", "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,command=echo hunter2"]).ok();
    assert_eq!(harness.output("k", &["cat", "/f"]), "by token");
    let header = "--secret=id=HTTP_AUTH_HEADER_127.0.0.1,command=echo Bearer hunter2";
    harness.build(&context, &["--no-cache", header]).ok();
    harness
        .build(&context, &["--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,command=printf 'a\\nb'"])
        .fails(1)
        .says("cannot be sent");
    let mut found = Vec::new();
    find(&harness.path("store"), b"hunter2", &mut found);
    assert!(found.is_empty(), "{found:?}");
}
