//! The networks that sandboxes can have.
//!
//! An isolated network is a namespace that `pasta` connects to the outside: pasta copies what the sandbox sends on one side of a tun device
//! into ordinary sockets on the other, so it needs no privileges over the host's network. What runs inside reaches whatever the host reaches,
//! except the host's own loopback (R1.9.7).
//!
//! A [`NetworkNamespace`] may serve many sandboxes: making one takes some 20 ms, joining it next to nothing. It is held by a process of the
//! zygote ([`pasta`](super::pasta)), which ends, and pasta with it, when the `NetworkNamespace` is dropped or the program ends in whatever way.

use super::protocol::{NetworkRequest, Reply, receive, send, to_memory};
use super::{Launcher, SandboxError};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use tokio::io::unix::AsyncFd;

/// The network of a sandbox.
#[derive(Clone, Debug)]
pub enum Network {
    Host,
    /// A namespace of its own in which only `lo` is up.
    None,
    /// A namespace that others may be in as well.
    Joined(Arc<NetworkNamespace>),
}

/// An isolated network. It lasts as long as this value and the sandboxes that joined it.
#[derive(Debug)]
pub struct NetworkNamespace {
    pub(super) namespace: OwnedFd,
    /// Closing it ends pasta.
    _channel: AsyncFd<OwnedFd>,
}

/// A port of the host that leads into an isolated network: `[IP:]HOSTPORT:PORT[/tcp|udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `None`: all addresses of the host.
    pub address: Option<IpAddr>,
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// Why there is no isolated network, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("pasta is not installed: install it (Debian: apt-get install passt)")]
    NotInstalled,
    #[error("{TUN} cannot be opened ({0}): {advice}", advice = advice(.0))]
    NoTun(io::Error),
    #[error("pasta could not connect it: {0}")]
    Pasta(String),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

const TUN: &str = "/dev/net/tun";

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "as root, let users open it (chmod 666 /dev/net/tun)",
        io::ErrorKind::NotFound => {
            "as root, load its module (modprobe tun), or give the container that this is the device"
        }
        _ => "as root, load its module (modprobe tun)",
    }
}

impl Launcher {
    /// Makes an isolated network. Must be called within a tokio runtime. `scratch_point` is a directory of the host, as that of a
    /// [`Container`](super::Container).
    pub async fn isolated_network(
        &self,
        ports: &[PortMapping],
        scratch_point: &Path,
    ) -> Result<NetworkNamespace, NetworkError> {
        let program = pasta()?;
        OpenOptions::new().read(true).write(true).open(TUN).map_err(NetworkError::NoTun)?;
        let request = NetworkRequest { program, ports: ports.to_vec(), scratch_point: scratch_point.to_owned() };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
                .map_err(SandboxError::errno("create a socket"))?;
        let memory = to_memory(&request).map_err(SandboxError::io("write a request"))?;
        self.ask(b"n", &[memory.as_fd(), theirs.as_fd()])?;
        drop(theirs);
        // SAFETY: the descriptor is owned, and stays open and the same until the AsyncFd is dropped.
        let channel = unsafe { AsyncFd::register(ours) }
            .map_err(|failed| SandboxError::System { action: "watch a socket", source: failed.into_parts().1 })?;
        let (bytes, mut descriptors) = loop {
            let mut ready = channel.readable().await.map_err(SandboxError::io("wait for the network"))?;
            if let Ok(received) = ready.try_io(|channel| receive(channel.as_fd()).map_err(Into::into)) {
                break received.map_err(SandboxError::io("hear from the network"))?.ok_or(SandboxError::ZygoteGone)?;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(Reply::Network) if !descriptors.is_empty() => {
                Ok(NetworkNamespace { namespace: descriptors.remove(0), _channel: channel })
            }
            Ok(Reply::Failed { step, reason }) if step == super::pasta::STARTING => Err(NetworkError::Pasta(reason)),
            Ok(Reply::Failed { step, reason } | Reply::Refused { step, reason }) => {
                Err(SandboxError::Network { step, reason }.into())
            }
            _ => Err(SandboxError::ZygoteGone.into()),
        }
    }

    pub(super) fn ask(&self, kind: &[u8], descriptors: &[std::os::fd::BorrowedFd]) -> Result<(), SandboxError> {
        send(self.control(), kind, descriptors).map_err(|errno| match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => SandboxError::ZygoteGone,
            errno => SandboxError::System { action: "ask for a sandbox", source: errno.into() },
        })
    }
}

fn pasta() -> Result<PathBuf, NetworkError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("pasta")).find(|file| file.is_file());
    found.ok_or(NetworkError::NotInstalled)
}

impl Network {
    /// The address at which what runs in this network finds the host: `host-gateway` of `--add-host`.
    pub fn gateway(&self) -> IpAddr {
        match self {
            Network::Host | Network::None => Ipv4Addr::LOCALHOST.into(),
            Network::Joined(_) => outgoing_address(),
        }
    }
}

/// An address of the host that is not loopback's: the one that it would send from.
fn outgoing_address() -> IpAddr {
    let sends_from = |own: IpAddr, far: IpAddr| {
        // Nothing is sent: connecting a datagram socket only looks up the route.
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((far, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses of the ranges for documentation (RFC 5737, RFC 3849): anywhere outside.
    sends_from(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into())
        .or_else(|| sends_from(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()))
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
}

impl FromStr for PortMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid port {text:?}: expected [IP:]HOSTPORT:PORT[/tcp|udp]");
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(invalid()),
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(invalid()),
        };
        let (rest, container) = ports.rsplit_once(':').ok_or_else(invalid)?;
        let (address, host) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, host)) => {
                let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
                (Some(bare.parse().map_err(|_| invalid())?), host)
            }
        };
        Ok(PortMapping { address, host: port(host)?, container: port(container)?, protocol })
    }
}

/// As pasta's options `--tcp-ports` and `--udp-ports` take it.
impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{address}/")?;
        }
        write!(f, "{}:{}", self.host, self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_given_to_pasta() {
        let shown = |text: &str| {
            let mapping: PortMapping = text.parse().unwrap();
            (mapping.to_string(), mapping.protocol)
        };
        assert_eq!(shown("8080:80"), ("8080:80".into(), Protocol::Tcp));
        assert_eq!(shown("53:5353/udp"), ("53:5353".into(), Protocol::Udp));
        assert_eq!(shown("127.0.0.1:8080:80/tcp"), ("127.0.0.1/8080:80".into(), Protocol::Tcp));
        assert_eq!(shown("[::1]:8080:80"), ("::1/8080:80".into(), Protocol::Tcp));
        for text in ["80", "", "0:80", "80:0", "65536:1", "a:80", "+1:80", "host:1:2", "80:80/sctp", "1-2:1-2", ":80"] {
            assert!(text.parse::<PortMapping>().unwrap_err().contains("HOSTPORT:PORT"), "{text}");
        }
    }
}
