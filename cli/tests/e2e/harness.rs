//! A store, a base image, and ways to run things.

use serde_json::Value;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

pub struct Harness {
    directory: TempDir,
}

/// How a command ended.
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in\n{}", self.stderr);
        self
    }
}

/// The lines that steps printed, without times and step numbers.
pub fn printed(outcome: &Outcome) -> Vec<String> {
    let line = |line: &str| {
        let (number, text) = line.split_once(' ')?;
        let (time, text) = text.split_once(' ')?;
        (number.starts_with('#') && time.parse::<f64>().is_ok()).then(|| text.to_owned())
    };
    outcome.stderr.lines().filter_map(line).collect()
}

pub fn binary() -> PathBuf {
    std::env::var_os("RBUILD_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_rbuild").into(), PathBuf::from)
}

pub fn testdata(name: &str) -> PathBuf {
    let directory = std::env::var_os("RBUILD_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata"), PathBuf::from);
    directory.join(name)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits up to ten seconds.
#[track_caller]
pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain: {what}");
}

/// Runs a program that must be installed, and must succeed.
#[track_caller]
pub fn tool(name: &str, args: &[&str]) -> String {
    let output = Command::new(name).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name} cannot be run ({error}): apt-get install {name}"));
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A static busybox for a processor that this machine has not.
#[track_caller]
pub fn foreign_busybox() -> PathBuf {
    let path = std::env::var_os("RBUILD_TEST_FOREIGN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/foreign/busybox"), PathBuf::from);
    assert!(path.exists(), "there is no {}: run `scripts/foreign-busybox target/foreign/busybox`", path.display());
    path
}

/// A tar of a root file system with busybox and its applets.
pub fn busybox_tar() -> &'static Path {
    static TAR: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = TAR.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"
            set -e
            root="$1/root"; busybox=$(command -v busybox)
            for d in bin dev etc home proc root sys tmp usr/bin var; do mkdir -p "$root/$d"; done
            chmod 1777 "$root/tmp"; cp "$busybox" "$root/bin/busybox"
            for a in $("$busybox" --list); do [ $a = busybox ] || ln "$root/bin/busybox" "$root/bin/$a"; done
            printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33::/var/www:/bin/false\n' > "$root/etc/passwd"
            printf 'root:x:0:\ndaemon:x:1:\nmail:x:8:www-data\nwww-data:x:33:\nusers:x:100:\n' > "$root/etc/group"
            tar -C "$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@1700000000 -cf "$1/busybox.tar" .
        "#;
        let path = directory.path().to_str().unwrap();
        tool("sh", &["-c", script, "sh", path]);
        let tar = directory.path().join("busybox.tar");
        (directory, tar)
    });
    path
}

impl Harness {
    /// A store with `busybox` in it.
    pub fn new() -> Self {
        let harness = Harness::empty();
        let tar = busybox_tar().to_str().unwrap();
        let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        harness.rbuild(&["import", "--change", path, "--change", "CMD [\"sh\"]", tar, "busybox"]).ok();
        harness
    }

    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Nothing of the machine's configuration counts, and Docker Hub is never asked.
        let hub = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"127.0.0.1:1\"\ninsecure = true\n";
        std::fs::write(directory.path().join("registries.conf"), hub).unwrap();
        Harness { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn path_text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env("RBUILD_ROOT", self.path("store"))
            .env("RBUILD_REGISTRIES_CONF", self.path("registries.conf"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("BUILDKIT_PROGRESS")
            .env_remove("DOCKER_DEFAULT_PLATFORM")
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script whose `$1` is rbuild, in the same environment.
    pub fn script(&self, script: &str, args: &[&str]) -> Outcome {
        let rbuild = self.command(&[]);
        let mut command = Command::new("sh");
        command.args(["-euc", script, "sh"]).arg(binary()).args(args).stdin(Stdio::null());
        for (name, value) in rbuild.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Outcome::of(command.output().unwrap())
    }

    pub fn rbuild(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().unwrap())
    }

    /// A context directory with a Dockerfile.
    pub fn context(&self, name: &str, dockerfile: &str) -> PathBuf {
        let context = self.path(name);
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context
    }

    /// Builds a context.
    pub fn build(&self, context: &Path, flags: &[&str]) -> Outcome {
        let mut args = vec!["build", "--progress=plain"];
        args.extend(flags);
        args.push(context.to_str().unwrap());
        self.rbuild(&args)
    }

    /// Builds a Dockerfile that needs no files.
    pub fn build_text(&self, dockerfile: &str, flags: &[&str]) -> Outcome {
        let context = self.context("context", dockerfile);
        self.build(&context, flags)
    }

    /// What a program prints in an image.
    #[track_caller]
    pub fn output(&self, image: &str, command: &[&str]) -> String {
        let mut args = vec!["run", "--rm", image];
        args.extend(command);
        self.rbuild(&args).ok().stdout
    }

    /// `rbuild inspect`, its only image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> Value {
        let text = self.rbuild(&["inspect", image]).ok().stdout;
        let mut images: Vec<Value> = serde_json::from_str(&text).unwrap();
        images.remove(0)
    }
}

/// Debian's docker-registry on a free port of loopback.
pub struct Registry {
    process: Child,
    pub host: String,
    directory: TempDir,
    /// How much of the log was told.
    told: Cell<usize>,
}

impl Registry {
    /// `GET /v2/…` for each request since the last call.
    pub fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let new = log[self.told.replace(log.len())..].lines();
        let request = |line: &str| {
            let (method, rest) = line.split('"').nth(1)?.split_once(' ')?;
            Some(format!("{method} {}", rest.split(' ').next()?))
        };
        new.filter_map(request).collect()
    }

    pub fn start() -> Registry {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = directory.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            root.display()
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(directory.path().join("log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry cannot be run ({error}): apt-get install docker-registry"));
        let registry = Registry { process, host, directory, told: Cell::new(0) };
        for _ in 0..200 {
            if registry.get("/v2/").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return registry;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("docker-registry does not answer");
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.host).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.host).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
