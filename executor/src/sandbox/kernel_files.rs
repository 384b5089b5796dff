//! What the kernel gives to a sandbox, whatever it is for: /proc, /dev and /sys.
//!
//! They are put together on a *bench*, a file system that covers the host's /proc in the sandbox's own mount namespace, and are moved into the root once that is
//! known. So they can be made before there is a request (see [`super::spare`]).

use super::Privileges;
use super::child::{Result, failed};
use super::mounts::{
    NODEV, NOSUID, READONLY, SAFE, attach_at, attach_to, clone_of, create_file, new_mount, open_in, set_attributes,
};
use rustix::fs::{FileType, Mode};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// X1.63. They are bound from the host, one by one: a user namespace cannot make device nodes (X1.111), and everything else in a
/// sandbox is mounted `nodev`, since a step may make nodes (CAP_MKNOD) and must not open the host's disks with them (X1.64).
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
    ("/proc/kcore", "core"),
];

/// X1.65, below /proc.
const MASKED: [&str; 9] =
    ["acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"];
/// X1.66, below /proc.
const READONLY_PATHS: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const INSECURE_DEVICES: [&str; 6] = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"];

const SHM_SIZE: u64 = 64 << 20;

/// Mounts that are ready to be moved into a root.
pub(super) struct KernelFiles {
    pub proc: OwnedFd,
    pub dev: OwnedFd,
    /// For a sandbox with the host's network.
    pub sys: OwnedFd,
}

impl KernelFiles {
    /// Must be called in the sandbox's own mount and pid namespaces. With `is_insecure`, nothing is hidden, and devices of the host are there (R1.10.3).
    pub fn new(privileges: Privileges, is_insecure: bool) -> Result<KernelFiles> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(failed("making mounts private"))?;
        let proc = new_mount("proc", &[], SAFE)?;
        let bench = new_mount("tmpfs", &[("mode", "755"), ("size", "64k")], SAFE)?;
        attach_at(&bench, Path::new("/proc"))?;
        for name in ["proc", "dev", "sys"] {
            rustix::fs::mkdirat(&bench, name, Mode::from_raw_mode(0o755)).map_err(failed(format!("making /{name}")))?;
        }
        let attach = |mount: &OwnedFd, name: &str| {
            let point = open_in(bench.as_fd(), name).map_err(failed(format!("opening /{name}")))?;
            attach_to(mount, point.as_fd()).map_err(failed(format!("mounting /{name}")))
        };
        attach(&proc, "proc")?;
        if !is_insecure {
            hide(proc.as_fd(), &MASKED)?;
            protect(proc.as_fd())?;
        }
        let confining = if is_insecure { MountAttrFlags::empty() } else { NODEV };
        let size = (64_u64 << 20).to_string();
        let attributes = NOSUID | confining | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        let dev = new_mount("tmpfs", &[("mode", "755"), ("size", &size)], attributes)?;
        attach(&dev, "dev")?;
        fill_dev(&dev, privileges, is_insecure)?;
        let sys = sysfs(is_insecure).or_else(|failure| match privileges {
            Privileges::Root => Err(failure),
            // Only who owns the network namespace may mount a new one.
            _ => host_sys(is_insecure),
        })?;
        attach(&sys, "sys")?;
        hide_in_sys(sys.as_fd(), is_insecure)?;
        Ok(KernelFiles { proc, dev, sys })
    }
}

/// A file system for /sys that shows the caller's network.
pub(super) fn sysfs(is_insecure: bool) -> Result<OwnedFd> {
    new_mount("sysfs", &[], if is_insecure { SAFE } else { SAFE | READONLY })
}

fn host_sys(is_insecure: bool) -> Result<OwnedFd> {
    let host = clone_of(rustix::fs::CWD, "/sys", true)?;
    let attributes = if is_insecure { SAFE } else { SAFE | READONLY };
    set_attributes(&host, attributes, true).map_err(failed("making /sys read-only"))?;
    Ok(host)
}

/// X1.65. `sys` must be attached.
pub(super) fn hide_in_sys(sys: BorrowedFd, is_insecure: bool) -> Result<()> {
    if is_insecure { Ok(()) } else { hide(sys, &["firmware", "devices/virtual/powercap"]) }
}

fn fill_dev(dev: &OwnedFd, privileges: Privileges, is_insecure: bool) -> Result<()> {
    for name in DEVICES {
        bind_device(dev, name, 0o666)?;
    }
    if is_insecure {
        all_devices(dev)?;
    }
    for (target, name) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, dev, name).map_err(failed(format!("making /dev/{name}")))?;
    }
    let mount = |name: &str, mount: OwnedFd| {
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).map_err(failed(format!("making /dev/{name}")))?;
        let point = open_in(dev.as_fd(), name).map_err(failed(format!("opening /dev/{name}")))?;
        attach_to(&mount, point.as_fd()).map_err(failed(format!("mounting /dev/{name}")))
    };
    let no_exec = NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if privileges != Privileges::SingleId {
        options.push(("gid", "5"));
    }
    mount("pts", new_mount("devpts", &options, no_exec)?)?;
    mount("shm", shm(SHM_SIZE)?)?;
    mount("mqueue", new_mount("mqueue", &[], SAFE)?)
}

/// A file system for /dev/shm, of a size in bytes.
pub(super) fn shm(size: u64) -> Result<OwnedFd> {
    new_mount("tmpfs", &[("mode", "1777"), ("size", &size.to_string())], SAFE)
}

fn bind_device(dev: &OwnedFd, name: &str, mode: u32) -> Result<()> {
    let host = clone_of(rustix::fs::CWD, &format!("/dev/{name}"), false)?;
    let target = create_file(dev.as_fd(), name, mode).map_err(failed(format!("making /dev/{name}")))?;
    attach_to(&host, target.as_fd()).map_err(failed(format!("binding /dev/{name}")))
}

/// R1.10.4: those of the host that are there.
fn all_devices(dev: &OwnedFd) -> Result<()> {
    rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755)).map_err(failed("making /dev/net"))?;
    let loops = (0..8).map(|number| format!("loop{number}"));
    for name in INSECURE_DEVICES.map(str::to_owned).into_iter().chain(loops) {
        if rustix::fs::access(format!("/dev/{name}"), rustix::fs::Access::EXISTS).is_ok() {
            bind_device(dev, &name, 0o600)?;
        }
    }
    Ok(())
}

/// Covers paths below a directory. Those that are not there are skipped.
fn hide(directory: BorrowedFd, paths: &[&str]) -> Result<()> {
    for path in paths {
        let Ok(target) = open_in(directory, path) else { continue };
        let stat = rustix::fs::fstat(&target).map_err(failed(format!("looking at {path}")))?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => new_mount("tmpfs", &[("size", "0")], SAFE | READONLY)?,
            _ => clone_of(rustix::fs::CWD, "/dev/null", false)?,
        };
        attach_to(&cover, target.as_fd()).map_err(failed(format!("hiding {path}")))?;
    }
    Ok(())
}

fn protect(proc: BorrowedFd) -> Result<()> {
    for path in READONLY_PATHS {
        let Ok(target) = open_in(proc, path) else { continue };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let step = || failed(format!("protecting /proc/{path}"));
        let copy = open_tree(target.as_fd(), "", flags).map_err(step())?;
        set_attributes(&copy, READONLY | SAFE, true).map_err(step())?;
        attach_to(&copy, target.as_fd()).map_err(step())?;
    }
    Ok(())
}
