//! What a container is, and how it fares: the documents in its directory.

use crate::sandbox::{Limits, PortMapping, Security};
use cache::LayerId;
use oci::image::RunConfig;
use oci::{Digest, Platform};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What was asked for when the container was made. Never changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub name: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// As the user wrote it.
    pub image: String,
    /// The image's full name, what that stood for, and the digest of its manifest.
    pub reference: String,
    pub digest: Digest,
    pub manifest: Digest,
    /// The image's.
    pub platform: Platform,
    /// The image's, with what the flags changed.
    pub config: RunConfig,
    /// `None`: that of the machine.
    pub hostname: Option<String>,
    /// Has a terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub interactive: bool,
    /// Nothing stays of it once it has ended.
    pub remove: bool,
    pub network: NetworkMode,
    /// Of an isolated network.
    pub ports: Vec<PortMapping>,
    pub security: Security,
    pub limits: Limits,
    pub readonly_root: bool,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    pub volumes: Vec<Volume>,
    /// Bottom first.
    pub layers: Vec<LayerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    Host,
    None,
    /// One of its own that reaches out; if that is not required, the host's where it cannot be had.
    Isolated {
        required: bool,
    },
}

/// Files of the host that show inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Absolute, without symlinks.
    pub source: String,
    pub target: String,
    pub readonly: bool,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: String,
    /// Bytes, 0 for the kernel's default.
    pub size: u64,
}

impl Record {
    /// What runs: the entry point with its arguments.
    pub fn command(&self) -> Vec<String> {
        let (entrypoint, cmd) = (self.config.entrypoint.iter().flatten(), self.config.cmd.iter().flatten());
        entrypoint.chain(cmd).cloned().collect()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Exited,
    /// Its supervisor was killed. Never written: see [`super`].
    Dead,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    #[serde(with = "time::serde::rfc3339::option")]
    pub started: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended: Option<OffsetDateTime>,
    /// 128 and the signal, for one that was killed.
    pub exit_code: i32,
    /// Why it could not be started.
    pub error: String,
    /// Of the supervisor.
    pub pid: Option<u32>,
    /// Mount points that had to be made in its files and are no change of them.
    pub stubs: Vec<String>,
}

impl State {
    /// What waiting for it gives. One that was killed with its supervisor died of KILL.
    pub fn code(&self) -> i32 {
        if self.status == Status::Dead { 137 } else { self.exit_code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_back() {
        let state = State { status: Status::Running, started: Some(OffsetDateTime::UNIX_EPOCH), ..State::default() };
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains(r#""status":"running","started":"1970-01-01T00:00:00Z""#), "{text}");
        let read: State = serde_json::from_str(&text).unwrap();
        assert_eq!((read.status, read.started, read.code()), (Status::Running, state.started, 0));
        let old: State = serde_json::from_str("{}").unwrap();
        assert_eq!(old.status, Status::Created, "members that are missing have defaults");
        assert_eq!(State { status: Status::Dead, ..State::default() }.code(), 137);
    }
}
