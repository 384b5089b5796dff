//! Servers on loopback for sources that are not on this machine.

use crate::harness::tool;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

pub const LAST_MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Serves files over HTTP, with entity tags and ranges, and remembers how it answered.
pub struct FileServer {
    pub url: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    answers: Arc<Mutex<Vec<String>>>,
    authorization: Arc<Mutex<Option<String>>>,
}

impl FileServer {
    pub fn start() -> FileServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = FileServer { url, files: Arc::default(), answers: Arc::default(), authorization: Arc::default() };
        let (files, answers) = (server.files.clone(), server.answers.clone());
        let authorization = server.authorization.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, answers) = (files.clone(), answers.clone());
                let authorization = authorization.lock().unwrap().clone();
                std::thread::spawn(move || serve(&stream, &files, &answers, authorization));
            }
        });
        server
    }

    pub fn put(&self, path: &str, content: &[u8]) {
        self.files.lock().unwrap().insert(path.to_owned(), content.to_vec());
    }

    /// Answers from now on only those that send this header.
    pub fn require(&self, authorization: &str) {
        *self.authorization.lock().unwrap() = Some(authorization.to_owned());
    }

    pub fn remove(&self, path: &str) {
        self.files.lock().unwrap().remove(path);
    }

    /// `200 /path` for each answer since the last call.
    pub fn answers(&self) -> Vec<String> {
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

fn serve(
    mut stream: &TcpStream,
    files: &Mutex<BTreeMap<String, Vec<u8>>>,
    answers: &Mutex<Vec<String>>,
    authorization: Option<String>,
) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let header = |name: &str| {
        let mut fields = lines.iter().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let content = files.lock().unwrap().get(path.split("?service=").next().unwrap_or(path)).cloned();
    let tag = content
        .as_ref()
        .map(|content| format!("\"{}-{}\"", content.len(), content.iter().map(|b| u64::from(*b)).sum::<u64>()));
    let (status, body) = match content {
        _ if authorization.is_some() && header("authorization") != authorization => ("401 Unauthorized", Vec::new()),
        _ if path == "/redirect" => ("302 Found", Vec::new()),
        None => ("404 Not Found", Vec::new()),
        Some(_) if header("if-none-match") == tag => ("304 Not Modified", Vec::new()),
        Some(content) => ("200 OK", content),
    };
    answers.lock().unwrap().push(format!("{} {path}", &status[..3]));
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    head += &format!("Last-Modified: {LAST_MODIFIED}\r\n");
    if let Some(tag) = tag {
        head += &format!("ETag: {tag}\r\n");
    }
    if path == "/redirect" {
        head += "Location: /file.txt\r\n";
    }
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(b"\r\n"))
        .and_then(|()| stream.write_all(&body));
}

/// A repository, and a git daemon that serves it.
pub struct GitServer {
    process: Child,
    directory: TempDir,
    pub url: String,
}

impl GitServer {
    /// With the branch `main` and the tag `v1`, which is its first commit.
    pub fn start() -> GitServer {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        // Not by way of `git`, which would start it as a process of its own, and leave it running.
        let programs = PathBuf::from(crate::harness::tool("git", &["--exec-path"]).trim());
        let process = Command::new(programs.join("git-daemon"))
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.path().display()))
            .arg(directory.path())
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "safe.directory")
            .env("GIT_CONFIG_VALUE_0", "*")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("git cannot be run: apt-get install git");
        let server = GitServer { process, directory, url: format!("git://127.0.0.1:{port}") };
        wait_for(port);
        server
    }

    pub fn path(&self, repository: &str) -> PathBuf {
        self.directory.path().join(repository)
    }

    /// Makes a repository, or changes one: writes the files and commits them. Gives the commit.
    pub fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let path = self.path(repository);
        if !path.exists() {
            std::fs::create_dir_all(&path).unwrap();
            self.git(repository, &["init", "--quiet", "--initial-branch=main"]);
        }
        for (name, text) in files {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, text).unwrap();
        }
        self.git(repository, &["add", "--all"]);
        self.git(repository, &["commit", "--quiet", "--message=change"]);
        self.git(repository, &["rev-parse", "HEAD"]).trim().to_owned()
    }

    pub fn git(&self, repository: &str, args: &[&str]) -> String {
        let path = self.path(repository);
        let config = ["-c", "user.name=t", "-c", "user.email=t@example", "-c", "protocol.file.allow=always"];
        let all = ["-C", path.to_str().unwrap()].iter().chain(&config).chain(args).copied().collect::<Vec<_>>();
        tool("git", &all)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        stop(&mut self.process);
    }
}

/// An ssh server with a key of its own, and an agent that holds the key of a user who may log in.
pub struct SshServer {
    server: Child,
    agent: Child,
    directory: TempDir,
    pub port: u16,
}

impl SshServer {
    pub fn start() -> SshServer {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for key in ["host", "user"] {
            tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)]);
        }
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             PasswordAuthentication no\nStrictModes no\nPermitRootLogin yes\n",
            path("host"),
            path("user.pub")
        );
        std::fs::write(path("config"), config).unwrap();
        if crate::harness::is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f", &path("config"), "-E", &path("log")])
            .stdin(Stdio::null())
            .spawn()
            .expect("sshd cannot be run: apt-get install openssh-server");
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a", &path("agent")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent cannot be run: apt-get install openssh-client");
        let this = SshServer { server, agent, directory, port };
        wait_for(port);
        for _ in 0..100 {
            if this.socket().exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let added = Command::new("ssh-add")
            .args(["-q", &this.directory.path().join("user").display().to_string()])
            .env("SSH_AUTH_SOCK", this.socket())
            .status();
        assert!(added.unwrap().success());
        this
    }

    /// Of the agent.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("agent")
    }

    /// The key of the user who may log in, without a passphrase.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("user")
    }

    /// The URL of a repository of this machine.
    pub fn url(&self, path: &Path) -> String {
        let user = tool("id", &["-un"]);
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, path.display())
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        stop(&mut self.server);
        stop(&mut self.agent);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing answers on port {port}");
}

fn stop(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
