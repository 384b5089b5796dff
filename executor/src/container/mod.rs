//! Containers: programs that run in images, each with files of its own that outlive it.
//!
//! There is no daemon. A container is a directory of the store (`cache/src/container.rs`) and, as long as it runs, a *supervisor*: the rbuild
//! that started it, or for one in the background another rbuild that was started for it alone, in a session of its own. The supervisor holds
//! the container's lock, and its zygote the process; it writes the log and listens on a socket in the directory. Where rbuild is not root,
//! every rbuild lives in its own user namespace and could not enter the container: so whoever wants something of it asks the supervisor.
//!
//! - [`record`]: what a container is, and how it fares
//! - [`supervisor`]: starts a container and serves requests until it ends
//! - [`request`]: what others ask of a supervisor
//! - [`log`]: what the program wrote
//! - [`commit`]: an image of a container's changes
//!
//! A supervisor that is killed takes its container with it: the zygote ends what runs. The lock is free then, and the state still says "running";
//! that is how the dead are known. The zygote of a background supervisor holds the lock too, so it is free when the last process has gone, and no
//! sooner.

pub mod commit;
pub mod log;
pub mod record;
pub mod request;
pub mod supervisor;

use crate::sandbox::{NetworkError, SandboxError};
use cache::{ContainerDirectory, Store};
use record::{Record, State, Status};

pub type Result<T> = std::result::Result<T, ContainerError>;

#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error(transparent)]
    Store(#[from] cache::Error),
    #[error(transparent)]
    Executor(#[from] crate::Error),
    #[error(transparent)]
    Sandbox(SandboxError),
    #[error("cannot start the program: {step}: {reason}")]
    Start { step: String, reason: String },
    #[error(transparent)]
    Mount(#[from] crate::mount::MountError),
    #[error("cannot give the container a network of its own: {0}")]
    Network(NetworkError),
    #[error("cannot listen for signals: {0}")]
    Signals(String),
    #[error("{0}")]
    User(#[from] crate::users::UserError),
    #[error("cannot {action} the container {id}: {source}")]
    Io { action: &'static str, id: String, source: std::io::Error },
    #[error("the record of the container {id} cannot be read: {source}: remove it (rbuild rm {id})")]
    Record { id: String, source: serde_json::Error },
    #[error("the container {0} is not running")]
    NotRunning(String),
    #[error("the container {0} is running: stop it first (rbuild stop {0})")]
    Running(String),
    #[error(
        "the layer {layer}, which the container {id} stands on, is no longer in the store: remove it (rbuild rm {id})"
    )]
    NoLayer { id: String, layer: String },
}

impl From<SandboxError> for ContainerError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Setup { step, reason } => ContainerError::Start { step, reason },
            error => ContainerError::Sandbox(error),
        }
    }
}

impl ContainerError {
    fn io(action: &'static str, directory: &ContainerDirectory) -> impl FnOnce(std::io::Error) -> ContainerError {
        let id = short(directory.id()).to_owned();
        move |source| ContainerError::Io { action, id, source }
    }
}

/// A container with what is known of it.
pub struct Container {
    pub directory: ContainerDirectory,
    pub record: Record,
    pub state: State,
}

impl Container {
    pub fn read(directory: ContainerDirectory) -> Result<Container> {
        let record = serde_json::from_slice(&directory.document()?)
            .map_err(|source| ContainerError::Record { id: short(directory.id()).to_owned(), source })?;
        // In this order: one that ends in between has written its state before it gives up the lock.
        let is_running = directory.is_running();
        let mut state: State =
            directory.state().and_then(|state| serde_json::from_slice(&state).ok()).unwrap_or_default();
        if state.status == Status::Running && !is_running {
            state.status = Status::Dead;
        }
        Ok(Container { directory, record, state })
    }

    /// By name, id or the first digits of that.
    pub fn find(store: &Store, word: &str) -> Result<Container> {
        Container::read(store.find_container(word)?)
    }

    /// The newest first. What is being made or removed by others is left out.
    pub fn all(store: &Store) -> Result<Vec<Container>> {
        let mut all: Vec<_> = store.containers()?.into_iter().filter_map(|one| Container::read(one).ok()).collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.record.created));
        Ok(all)
    }

    /// The images that containers stand on: they can be started again, or committed, as long as these are there.
    pub fn images(store: &Store) -> Vec<oci::Digest> {
        let all = Container::all(store).unwrap_or_default();
        all.iter().flat_map(|container| [container.record.digest, container.record.manifest]).collect()
    }

    /// The name, or what stands for it.
    pub fn called(&self) -> &str {
        self.record.name.as_deref().unwrap_or_else(|| short(self.directory.id()))
    }

    pub fn is_running(&self) -> bool {
        self.state.status == Status::Running
    }
}

/// The digits of an id that people are shown.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
