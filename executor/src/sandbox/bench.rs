//! What a sandbox's file systems are put together on.
//!
//! The *bench* is a small file system that a sandbox's mount namespace has as its root before it has one of its own: nothing of the host's files is left then. On it
//! stand /proc, /dev, /sys and the control groups, ready to be moved into the root once that is known. All of this depends on nothing that a request says but its
//! limits and whether it is insecure, so it can be made before there is a request (see [`super::spare`]).

use super::Privileges;
use super::cgroup::Group;
use super::child::{Result, failed};
use super::mounts::{
    NODEV, NOSUID, READONLY, SAFE, attach_at, attach_to, clone_of, create_file, new_mount, open_in, set_attributes,
};
use rustix::fs::{FileType, Mode};
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount_change, open_tree, unmount,
};
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

/// Where mounts wait for their place, and files for being bound.
const DIRECTORIES: [&str; 7] = ["proc", "dev", "sys", "cgroup", "root", "files", "secrets"];

/// CGROUP2_SUPER_MAGIC of `linux/magic.h`.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;
const CGROUP_DIRECTORY: &str = "/sys/fs/cgroup";

/// Mounts that are ready to be moved into a root.
pub(super) struct Bench {
    directory: OwnedFd,
    pub proc: OwnedFd,
    /// It is the one outside.
    pub shares_proc: bool,
    pub dev: OwnedFd,
    /// For a sandbox with the host's network.
    pub sys: OwnedFd,
    /// Of the sandbox's own limits: programs size themselves by it. Hosts without control groups have none.
    pub cgroup: Option<OwnedFd>,
}

impl Bench {
    /// Must be called in the sandbox's own mount, pid and cgroup namespaces, and leaves the host's files. With `is_insecure`, nothing is hidden, and devices of
    /// the host are there (R1.10.3).
    pub fn new(privileges: Privileges, is_insecure: bool, group: Option<&Group>) -> Result<Bench> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(failed("making mounts private"))?;
        let (proc, shares_proc) = proc(privileges)?;
        let directory = new_mount("tmpfs", &[("mode", "755"), ("size", "64k")], SAFE)?;
        for name in DIRECTORIES {
            rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                .map_err(failed(format!("making /{name}")))?;
        }
        // Anywhere but where something is still needed from.
        attach_at(&directory, Path::new("/proc")).map_err(failed("attaching the bench"))?;
        let confining = if is_insecure { MountAttrFlags::empty() } else { NODEV };
        let size = (64_u64 << 20).to_string();
        let attributes = NOSUID | confining | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        let dev = new_mount("tmpfs", &[("mode", "755"), ("size", &size)], attributes)?;
        let sys = sysfs(is_insecure).or_else(|failure| match privileges {
            Privileges::Root => Err(failure),
            // Only who owns the network namespace may mount a new one, and in a container that covers parts of its own nobody may.
            _ => host_sys(is_insecure),
        })?;
        let cgroup = control_groups(&directory, group, is_insecure)?;
        let bench = Bench { directory, proc, shares_proc, dev, sys, cgroup };
        bench.attach(&bench.proc, "proc")?;
        bench.attach(&bench.dev, "dev")?;
        bench.attach(&bench.sys, "sys")?;
        fill_dev(&bench.dev, privileges, is_insecure)?;
        if !is_insecure {
            hide(bench.proc.as_fd(), &MASKED)?;
            protect(bench.proc.as_fd())?;
        }
        hide_in_sys(bench.sys.as_fd(), is_insecure)?;
        set_attributes(&bench.directory, READONLY, false).map_err(failed("protecting the bench"))?;
        rustix::process::fchdir(&bench.directory).map_err(failed("entering the bench"))?;
        rustix::process::pivot_root(".", ".").map_err(failed("changing the root"))?;
        unmount(".", UnmountFlags::DETACH).map_err(failed("leaving the host's files"))?;
        Ok(bench)
    }

    /// Attaches a mount to a directory of the bench.
    pub fn attach(&self, mount: &OwnedFd, name: &str) -> Result<()> {
        let point = open_in(self.directory.as_fd(), name).map_err(failed(format!("opening /{name}")))?;
        attach_to(mount, point.as_fd()).map_err(failed(format!("mounting /{name}")))
    }
}

fn control_groups(bench: &OwnedFd, group: Option<&Group>, is_insecure: bool) -> Result<Option<OwnedFd>> {
    let step = || failed("showing the control groups");
    let attributes = if is_insecure { SAFE } else { SAFE | READONLY };
    let point = open_in(bench.as_fd(), "cgroup").map_err(step())?;
    let attach = |mount: OwnedFd| attach_to(&mount, point.as_fd()).map(|()| Some(mount)).map_err(step());
    let host = rustix::fs::statfs(CGROUP_DIRECTORY).ok();
    if host.is_some_and(|host| host.f_type == CGROUP2) {
        // Where it cannot be had (a nested container), a step does without, as it does on hosts without groups.
        if let Ok(mount) = new_mount("cgroup2", &[], attributes) {
            return attach(mount);
        }
    }
    if is_insecure && host.is_some() {
        return attach(clone_of(rustix::fs::CWD, CGROUP_DIRECTORY, true)?);
    }
    let groups: Vec<_> = group.into_iter().flat_map(Group::version_1).collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let directory = new_mount("tmpfs", &[("mode", "755"), ("size", "64k")], SAFE)?;
    attach_to(&directory, point.as_fd()).map_err(step())?;
    for (controller, path) in groups {
        rustix::fs::mkdirat(&directory, controller, Mode::from_raw_mode(0o755)).map_err(step())?;
        let mount = clone_of(rustix::fs::CWD, &path.to_string_lossy(), false)?;
        set_attributes(&mount, attributes, false).map_err(step())?;
        let point = open_in(directory.as_fd(), controller).map_err(step())?;
        attach_to(&mount, point.as_fd()).map_err(step())?;
    }
    set_attributes(&directory, attributes, false).map_err(step())?;
    Ok(Some(directory))
}

/// A file system for /proc, and whether it is the one outside.
///
/// A new one shows the sandbox's processes alone. In a user namespace the kernel refuses it where parts of the outer one are covered, as in most containers:
/// it would uncover them. Then the outer one takes its place, with what covers it (R1.12.11). The sandbox keeps a pid namespace of its own, so that it sees
/// the container's processes but can signal none, and its orphans end with it. What has more capabilities than it, as rbuild, is closed to it.
fn proc(privileges: Privileges) -> Result<(OwnedFd, bool)> {
    match new_mount("proc", &[], SAFE) {
        Err(_) if privileges != Privileges::Root => {
            let outer = clone_of(rustix::fs::CWD, "/proc", true)?;
            set_attributes(&outer, SAFE, true).map_err(failed("protecting /proc"))?;
            Ok((outer, true))
        }
        new => Ok((new?, false)),
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
