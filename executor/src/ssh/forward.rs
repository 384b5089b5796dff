//! A socket on which an agent answers, as far as a step may ask.

use super::protocol::{self, Request};
use super::{Agent, SshError};
use crate::snapshot::{Snapshots, Stage};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

const NAME: &str = "agent";

/// How many connections of one step are served at a time; more wait.
const MAX_CONNECTIONS: usize = 64;

/// A socket, and the task that answers on it. Both end when this is dropped.
pub struct Forwarding {
    /// Holds the socket. Nobody else looks into it.
    directory: Stage,
    task: JoinHandle<()>,
}

impl Forwarding {
    /// Starts answering. Must be called within a tokio runtime. `owner` is uid and gid as they are in this user namespace.
    pub fn start(
        agent: Agent,
        snapshots: &Snapshots,
        owner: (u32, u32),
        mode: u32,
    ) -> crate::error::Result<Forwarding> {
        let directory = snapshots.stage()?;
        let failed = |action| move |source: io::Error| SshError::Socket { action, source };
        // Socket addresses are short, and stores may lie deep.
        let path = format!("/proc/self/fd/{}/{NAME}", directory.root.as_raw_fd());
        let listener = StdListener::bind(path).map_err(failed("make"))?;
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        rustix::fs::chownat(&directory.root, NAME, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| SshError::Owner { uid: owner.0, gid: owner.1, source: errno.into() })?;
        rustix::fs::chmodat(&directory.root, NAME, Mode::from_raw_mode(mode & 0o777), AtFlags::empty())
            .map_err(|errno| failed("change the mode of")(errno.into()))?;
        listener.set_nonblocking(true).map_err(failed("listen on"))?;
        let listener = UnixListener::from_std(listener).map_err(failed("listen on"))?;
        Ok(Forwarding { directory, task: tokio::spawn(serve(listener, agent)) })
    }

    /// The socket as a mount of its own.
    pub fn mount(&self) -> crate::error::Result<OwnedFd> {
        Ok(crate::mount::bind(self.directory.root.as_fd(), NAME)?)
    }

    /// The socket for processes outside of sandboxes, short enough for an address.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/{NAME}", std::process::id(), self.directory.root.as_raw_fd()).into()
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, agent: Agent) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let agent = agent.clone();
                    connections.spawn(async move {
                        if let Err(error) = talk(stream, agent).await {
                            tracing::debug!(%error, "a connection to an ssh agent ended");
                        }
                    });
                }
                // No descriptors left, most likely: they come back when others end.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
        }
    }
}

async fn talk(mut client: UnixStream, agent: Agent) -> io::Result<()> {
    let mut upstream = match &agent {
        Agent::Socket(path) => Some(UnixStream::connect(path).await?),
        Agent::Keys(_) => None,
    };
    while let Some(message) = protocol::read(&mut client).await? {
        let request = Request::parse(&message);
        let answer = match (&agent, &mut upstream) {
            _ if request == Request::Other => protocol::failure(),
            (Agent::Keys(keys), _) => keys.answer(&request),
            (Agent::Socket(_), Some(upstream)) => {
                protocol::write(upstream, &message).await?;
                let Some(answer) = protocol::read(upstream).await? else { return Ok(()) };
                answer
            }
            (Agent::Socket(_), None) => return Ok(()),
        };
        protocol::write(&mut client, &answer).await?;
    }
    Ok(())
}
