//! What others ask of a container's supervisor, through the socket in the container's directory.
//!
//! A connection carries one request: one message with descriptors, of which the first is a memory file with the [`Request`] as JSON. The supervisor closes
//! the connection when it has done what was asked. The directory is its owner's alone, and so is the socket.

use super::{ContainerError, Result, short};
use crate::sandbox::{Channel, Process, memory_file, receive, send};
use cache::ContainerDirectory;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// By number.
    Signal(u8),
    /// The image's signal for that, then KILL after so many seconds.
    Stop { seconds: u64 },
    /// Is answered when the container has ended, with its exit code.
    Wait,
    /// A further process. Descriptors: its end of a channel, then standard input, output and error.
    Exec(Exec),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    pub command: Vec<String>,
    /// `NAME=value`, on top of the container's own.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    /// Rows and columns of a terminal of its own.
    pub terminal: Option<(u16, u16)>,
}

/// A path within a directory whose own path may be longer than a socket's may (108 bytes).
fn in_directory(directory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}/socket", directory.as_raw_fd())
}

fn open(directory: &ContainerDirectory) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn listen(directory: &ContainerDirectory) -> io::Result<UnixListener> {
    let opened = open(directory)?;
    // Of a supervisor that was killed.
    let _ = std::fs::remove_file(directory.path().join("socket"));
    UnixListener::bind(in_directory(&opened))
}

/// Asks, and waits until it has been heeded.
pub fn ask(directory: &ContainerDirectory, request: &Request) -> Result<()> {
    heeded(send_request(directory, request, &[])?);
    Ok(())
}

/// Waits until a container ends. Gives its exit code, if its supervisor lived to say it.
pub fn wait(directory: &ContainerDirectory) -> Result<Option<i32>> {
    let mut code = [0; 4];
    let answered = send_request(directory, &Request::Wait, &[])?.read_exact(&mut code);
    Ok(answered.is_ok().then(|| i32::from_ne_bytes(code)))
}

/// Starts a process in a running container, with the caller's own standard output and error. It ends with the caller.
pub fn exec(directory: &ContainerDirectory, exec: Exec, stdin: BorrowedFd) -> Result<Process> {
    let Channel { ours, theirs } = Channel::new()?;
    let descriptors = [theirs.as_fd(), stdin, rustix::stdio::stdout(), rustix::stdio::stderr()];
    heeded(send_request(directory, &Request::Exec(exec), &descriptors)?);
    drop(theirs);
    Ok(Process::watching(ours)?)
}

/// Nothing comes but the end. A supervisor that ends meanwhile is an end, too.
fn heeded(mut connection: UnixStream) {
    let _ = connection.read(&mut [0]);
}

fn send_request(directory: &ContainerDirectory, request: &Request, descriptors: &[BorrowedFd]) -> Result<UnixStream> {
    let failed = || ContainerError::io("ask the supervisor of", directory);
    let opened = open(directory).map_err(failed())?;
    let stream = UnixStream::connect(in_directory(&opened)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ContainerError::NotRunning(short(directory.id()).to_owned())
        }
        _ => failed()(error),
    })?;
    let memory = memory_file(request).map_err(failed())?;
    let all: Vec<BorrowedFd> = std::iter::once(memory.as_fd()).chain(descriptors.iter().copied()).collect();
    send(stream.as_fd(), b"r", &all).map_err(|errno| failed()(errno.into()))?;
    Ok(stream)
}

/// On the supervisor's side: the request of a connection, `None` if it is none.
pub(super) async fn read(stream: &tokio::net::UnixStream) -> Option<(Request, Vec<OwnedFd>)> {
    loop {
        stream.readable().await.ok()?;
        let received =
            stream.try_io(tokio::io::Interest::READABLE, || receive(stream.as_fd()).map_err(io::Error::from));
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => {
                let mut descriptors = received.ok()??.1.into_iter();
                let request = crate::sandbox::read_memory_file(&descriptors.next()?).ok()?;
                return Some((request, descriptors.collect()));
            }
        }
    }
}
