//! Agents that sign with a user's keys, for steps and for git (R2.23 to R2.25).
//!
//! An [`Agent`] is one that runs, or a few key files. Neither is ever handed to a step: it gets the socket of a [`Forwarding`], which passes
//! on requests to list keys and to sign, and refuses everything else. It ends with the step.
//!
//! - [`protocol`]: messages between agents and their clients
//! - [`keys`]: key files, and signatures made with them

mod ecdsa;
mod forward;
mod keys;
mod protocol;

pub use forward::Forwarding;
pub use keys::{KeyError, Keyring};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The id of an agent where none is written.
pub const DEFAULT_ID: &str = "default";

/// Who signs. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Agent {
    /// The socket of an agent that runs.
    Socket(PathBuf),
    Keys(Arc<Keyring>),
}

/// The agents that a build may use, by id. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Agents(Arc<BTreeMap<String, Agent>>);

impl FromIterator<(String, Agent)> for Agents {
    /// Of several with one id the last counts.
    fn from_iter<I: IntoIterator<Item = (String, Agent)>>(agents: I) -> Self {
        Agents(Arc::new(agents.into_iter().collect()))
    }
}

impl Agents {
    /// The agent called `id`, which is empty for the default one.
    pub fn get(&self, id: &str) -> Option<&Agent> {
        self.0.get(if id.is_empty() { DEFAULT_ID } else { id })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// Both begin with BuildKit's text (X2.49), which has the id as it is written.
    #[error("no SSH key {0:?} forwarded from the client: give the build --ssh {id}", id = if .0.is_empty() { DEFAULT_ID } else { .0 })]
    NothingForwarded(String),
    #[error("unset ssh forward key {0}: give the build --ssh {0}")]
    NotForwarded(String),
    #[error(
        "cannot give the socket of an ssh agent to {uid}:{gid}: {source} (are the ids mapped in /etc/subuid and /etc/subgid, and is \
         newuidmap installed?)"
    )]
    Owner { uid: u32, gid: u32, source: std::io::Error },
    #[error("cannot {action} the socket of an ssh agent: {source}")]
    Socket { action: &'static str, source: std::io::Error },
}

impl Agents {
    /// The agent for a step that does not go without.
    pub fn required(&self, id: &str) -> Result<&Agent, SshError> {
        self.get(id).ok_or_else(|| match self.is_empty() {
            true => SshError::NothingForwarded(id.to_owned()),
            false => SshError::NotForwarded(if id.is_empty() { DEFAULT_ID } else { id }.to_owned()),
        })
    }
}
