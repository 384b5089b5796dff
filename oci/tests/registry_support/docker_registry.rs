//! Debian's `docker-registry` on a free port of 127.0.0.1, gone when dropped.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub const USER: &str = "tester";
pub const PASSWORD: &str = "s3cret:word";
/// `htpasswd -nbB` of the two above.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuu2JDQLR7mbHhdpill4/jMLDoVbsBhlUi\n";

pub struct DockerRegistry {
    process: Child,
    /// `127.0.0.1:PORT`
    pub host: String,
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    pub fn start_with_login() -> Self {
        Self::start_with(|directory| {
            let path = directory.join("htpasswd");
            std::fs::write(&path, HTPASSWD).unwrap();
            format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display())
        })
    }

    fn start_with(extra: impl Fn(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let configuration = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\", secret: test}}\n{}",
            directory.path().join("data").display(),
            extra(directory.path())
        );
        std::fs::write(&configuration, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start docker-registry: {error}; this test needs Debian's package docker-registry")
            });
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut seen = String::new();
        let host = loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap() == 0 {
                let _ = process.kill();
                let _ = process.wait();
                panic!("docker-registry ended before it listened:\n{seen}");
            }
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.split('"').next().unwrap().to_owned();
            }
            seen.push_str(&line);
        };
        // Somebody must read on, lest the registry block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        DockerRegistry { process, host, _directory: directory }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
