//! The process that holds an isolated network, between the zygote and pasta.
//!
//! It is process 1 of a pid namespace, with pasta below it. So pasta, which goes to the background and into namespaces of its own when
//! the network is ready, cannot get lost: whatever ends this process ends pasta. That is the zygote when nobody wants the network any
//! more, and the kernel when the zygote is gone, since this process, unlike pasta, never changes its credentials.
//!
//! The network namespace is made by a child, because a process in a user namespace could not come back from it to the host's network, where
//! pasta has to start. pasta finds it as a file, to which the namespace is bound in this process's mount namespace: newer versions
//! close the descriptors that they inherit, and `/proc/PID/ns` is closed to a pasta that has dropped its capabilities.

use super::Privileges;
use super::child::{Failure, Result, die_with_parent, failed, last_errno, loopback_up};
use super::network::Protocol;
use super::protocol::{NetworkRequest, Reply, send_reply};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, WaitOptions, wait, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// The step of a [`Failure`] that is pasta's own.
pub(super) const STARTING: &str = "starting pasta";

/// The namespace's side of the network; that of version 4 is slirp4netns's, too. They are not the host's own addresses, which pasta takes by
/// default: those would hide the host from the namespace.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const PREFIX: &str = "24";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x7262, 0x7569, 0x6c64, 0, 0, 0, 0x100);
const GATEWAY_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x7262, 0x7569, 0x6c64, 0, 0, 0, 2);
/// Leads to the host's own resolver, which may listen on loopback.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Does not return: holds the network until it is killed, or pasta has ended.
pub(super) fn hold(request: &NetworkRequest, channel: OwnedFd, privileges: Privileges) -> ! {
    match connect(request, privileges) {
        Ok(namespace) => send_reply(channel.as_fd(), &Reply::Network, &[namespace.as_fd()]),
        Err(Failure { step, reason }) => {
            send_reply(channel.as_fd(), &Reply::Failed { step, reason }, &[]);
            std::process::exit(1)
        }
    }
    // pasta is an orphan by now, and this process is who adopts them.
    while !matches!(wait(WaitOptions::empty()), Err(Errno::CHILD)) {}
    std::process::exit(0)
}

fn connect(request: &NetworkRequest, privileges: Privileges) -> Result<OwnedFd> {
    die_with_parent()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("making mounts private"))?;
    let (point, flags) = (&request.scratch_point, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
    mount("tmpfs", point, "tmpfs", flags, None).map_err(failed("mounting a directory for the network"))?;
    let file = point.join("network");
    make_namespace(&file)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(&file, flags, Mode::empty()).map_err(failed("opening the network"))?;
    start_pasta(request, &file, privileges)?;
    Ok(namespace)
}

/// Makes a network namespace in which `lo` is up and binds it to a file.
fn make_namespace(file: &Path) -> Result<()> {
    rustix::fs::open(file, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        .map_err(failed("making a file for the network"))?;
    // SAFETY: the process has one thread.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(failed("forking")(last_errno())),
        0 => {
            // SAFETY: the namespace holds for the whole process, which has one thread.
            let made = unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .and_then(|()| loopback_up().map_err(|_| Errno::NODEV))
                .and_then(|()| mount_bind("/proc/self/ns/net", file));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(made.err().map_or(0, |errno| errno.raw_os_error().clamp(1, 255))) }
        }
        child => child,
    };
    let status = waitpid(Pid::from_raw(child), WaitOptions::empty()).map_err(failed("waiting for a child"))?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        code => Err(failed("making a network namespace")(Errno::from_raw_os_error(code.unwrap_or(libc::EIO)))),
    }
}

/// Returns when pasta has configured the network and gone to the background.
fn start_pasta(request: &NetworkRequest, namespace: &Path, privileges: Privileges) -> Result<()> {
    let starting = |error: std::io::Error| Failure { step: STARTING.into(), reason: error.to_string() };
    let mut command = Command::new(&request.program);
    command.args(arguments(request, privileges)).arg("--netns").arg(namespace);
    // pasta keeps the descriptors for as long as it runs: nobody may wait for their end.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(starting)?;
    let stderr = child.stderr.take();
    let status = child.wait().map_err(starting)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = stderr {
        let _ = rustix::fs::fcntl_setfl(&stderr, OFlags::NONBLOCK);
        let _ = stderr.take(16 * 1024).read_to_string(&mut said);
    }
    // Without a system log it complains about each line.
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("Failed to send ")).collect();
    let reason = if lines.is_empty() { format!("pasta ended: {status}") } else { lines.join("; ") };
    Err(Failure { step: STARTING.into(), reason })
}

/// All of them are known to the versions from early 2023 on.
fn arguments(request: &NetworkRequest, privileges: Privileges) -> Vec<String> {
    let mut arguments: Vec<String> = ["--config-net", "--quiet", "--no-netns-quit"].map(str::to_owned).into();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option("--address", ADDRESS.to_string());
    option("--netmask", PREFIX.into());
    option("--gateway", GATEWAY.to_string());
    option("--address", ADDRESS_6.to_string());
    option("--gateway", GATEWAY_6.to_string());
    option("--dns-forward", RESOLVER.to_string());
    for (name, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let mut ports = request.ports.iter().filter(|port| port.protocol == protocol).peekable();
        if ports.peek().is_none() {
            option(name, "none".into());
        }
        ports.for_each(|port| option(name, port.to_string()));
    }
    // By default what listens on the host's loopback could be reached through the namespace's.
    option("--tcp-ns", "none".into());
    option("--udp-ns", "none".into());
    if privileges == Privileges::Root {
        // The user that it would become otherwise may not enter the namespace. It keeps few capabilities.
        option("--runas", "0:0".into());
    }
    // The gateway's address does not lead to the host's loopback either.
    arguments.push("--no-map-gw".into());
    arguments
}
