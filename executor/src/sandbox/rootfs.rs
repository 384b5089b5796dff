//! The file systems that a sandbox sees (X1.E, X1.F).
//!
//! Everything is mounted below the root's descriptor before the root becomes `/`: targets are resolved inside it by the kernel, and the
//! sources are descriptors, so neither an image's symlinks nor a race can lead a mount astray.

use super::cgroup::Group;
use super::child::{Failure, Result, failed, last_errno};
use super::protocol::{Request, RequestNetwork, RequestSource, Security};
use super::{Privileges, name_service};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

const SAFE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const READONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;

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

/// X1.65.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// X1.66.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const INSECURE_DEVICES: [&str; 6] = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"];

/// CGROUP2_SUPER_MAGIC of `linux/magic.h`.
const CGROUP2: rustix::fs::FsWord = 0x6367_7270;

const SHM_SIZE: u64 = 64 << 20;

/// Assembles the file systems and makes them the process's own. Gives the mount points that had to be made, in order.
pub(super) fn build(
    request: &Request,
    root: &OwnedFd,
    sources: &mut impl Iterator<Item = OwnedFd>,
    privileges: Privileges,
    group: Option<&Group>,
) -> Result<Vec<String>> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(failed("making mounts private"))?;
    let is_insecure = request.security == Security::Insecure;
    let confining = if is_insecure { MountAttrFlags::empty() } else { NODEV };
    set_attributes(root, confining, false).map_err(failed("protecting the root"))?;
    attach_at(root, &request.root_point)?;
    let mut world = Rootfs { root, privileges, confining, stubs: Vec::new() };
    world.kernel_file_systems(request)?;
    world.control_groups(group, is_insecure)?;
    let files = FileMaker::new(&request.scratch_point)?;
    world.network_files(request, &files)?;
    world.step_mounts(request, sources, &files)?;
    if !is_insecure {
        world.hide()?;
    }
    let stubs = world.stubs;
    rustix::process::fchdir(root).map_err(failed("entering the root"))?;
    rustix::process::pivot_root(".", ".").map_err(failed("changing the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("leaving the host's files"))?;
    rustix::process::chdir("/").map_err(failed("entering /"))?;
    Ok(stubs)
}

struct Rootfs<'a> {
    root: &'a OwnedFd,
    privileges: Privileges,
    /// `nodev`, unless the step may use all devices.
    confining: MountAttrFlags,
    stubs: Vec<String>,
}

impl Rootfs<'_> {
    fn kernel_file_systems(&mut self, request: &Request) -> Result<()> {
        // Missing ones are made and stay, unlike the stubs of a step's own mounts (X1.67).
        for name in ["proc", "dev", "sys"] {
            match rustix::fs::mkdirat(self.root, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(format!("making /{name}"))(errno)),
            }
            let stat = rustix::fs::statat(self.root, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed(format!("looking at /{name}")))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let reason = "it is not a directory in the image".to_owned();
                return Err(Failure { step: format!("mounting /{name}"), reason });
            }
        }
        self.attach(&new_mount("proc", &[], SAFE)?, "/proc")?;
        self.device_files(request)?;
        let (network, readonly) = match request.security {
            Security::Confined(_) => (request.network, READONLY),
            Security::Insecure => (request.network, MountAttrFlags::empty()),
        };
        let sysfs = match new_mount("sysfs", &[], SAFE | readonly) {
            Ok(sysfs) => sysfs,
            // Only who owns the network namespace may mount a new one.
            Err(failure) if self.privileges == Privileges::Root || network != RequestNetwork::Host => {
                return Err(failure);
            }
            Err(_) => {
                let host = clone_of(rustix::fs::CWD, "/sys", true)?;
                set_attributes(&host, readonly | SAFE, true).map_err(failed("making /sys read-only"))?;
                host
            }
        };
        self.attach(&sysfs, "/sys")
    }

    /// What a step sees of its limits: programs size themselves by it.
    fn control_groups(&self, group: Option<&Group>, is_insecure: bool) -> Result<()> {
        const DIRECTORY: &str = "/sys/fs/cgroup";
        let attributes = if is_insecure { SAFE } else { SAFE | READONLY };
        let host = rustix::fs::statfs(DIRECTORY).ok();
        if host.is_some_and(|host| host.f_type == CGROUP2) {
            // Where it cannot be had (a nested container), a step does without, as it does on hosts without groups.
            if let Ok(mount) = new_mount("cgroup2", &[], attributes) {
                return self.attach(&mount, DIRECTORY);
            }
        }
        if is_insecure && host.is_some() {
            return self.attach(&clone_of(rustix::fs::CWD, DIRECTORY, true)?, DIRECTORY);
        }
        let groups: Vec<_> = group.into_iter().flat_map(Group::version_1).collect();
        if groups.is_empty() || self.find(DIRECTORY).is_none() {
            return Ok(());
        }
        let directory = new_mount("tmpfs", &[("mode", "755"), ("size", "64k")], SAFE)?;
        self.attach(&directory, DIRECTORY)?;
        for (controller, path) in groups {
            rustix::fs::mkdirat(&directory, controller, Mode::from_raw_mode(0o755))
                .map_err(failed(format!("making {DIRECTORY}/{controller}")))?;
            let mount = clone_of(rustix::fs::CWD, &path.to_string_lossy(), false)?;
            set_attributes(&mount, attributes, false).map_err(failed("protecting the control groups"))?;
            self.attach(&mount, &format!("{DIRECTORY}/{controller}"))?;
        }
        set_attributes(&directory, attributes, false).map_err(failed("protecting the control groups"))
    }

    fn device_files(&mut self, request: &Request) -> Result<()> {
        let size = (64_u64 << 20).to_string();
        let attributes = NOSUID | self.confining | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        let dev = new_mount("tmpfs", &[("mode", "755"), ("size", &size)], attributes)?;
        self.attach(&dev, "/dev")?;
        for name in DEVICES {
            let host = clone_of(rustix::fs::CWD, &format!("/dev/{name}"), false)?;
            let target = create_file(dev.as_fd(), name, 0o666).map_err(failed(format!("making /dev/{name}")))?;
            attach_to(&host, target.as_fd()).map_err(failed(format!("binding /dev/{name}")))?;
        }
        if request.security == Security::Insecure {
            self.all_devices(&dev)?;
        }
        for (target, name) in DEVICE_LINKS {
            rustix::fs::symlinkat(target, &dev, name).map_err(failed(format!("making /dev/{name}")))?;
        }
        for name in ["pts", "shm", "mqueue"] {
            rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))
                .map_err(failed(format!("making /dev/{name}")))?;
        }
        let shm_size = request.limits.shm_size.unwrap_or(SHM_SIZE).to_string();
        let no_exec = NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
        if self.privileges != Privileges::SingleId {
            options.push(("gid", "5"));
        }
        self.attach(&new_mount("devpts", &options, no_exec)?, "/dev/pts")?;
        let shm = new_mount("tmpfs", &[("mode", "1777"), ("size", &shm_size)], SAFE)?;
        self.attach(&shm, "/dev/shm")?;
        self.attach(&new_mount("mqueue", &[], SAFE)?, "/dev/mqueue")
    }

    /// R1.10.4: those of the host that are there.
    fn all_devices(&self, dev: &OwnedFd) -> Result<()> {
        rustix::fs::mkdirat(dev, "net", Mode::from_raw_mode(0o755)).map_err(failed("making /dev/net"))?;
        let loops = (0..8).map(|number| format!("loop{number}"));
        for name in INSECURE_DEVICES.map(str::to_owned).into_iter().chain(loops) {
            let Ok(host) = clone_of(rustix::fs::CWD, &format!("/dev/{name}"), false) else { continue };
            let target = create_file(dev.as_fd(), &name, 0o600).map_err(failed(format!("making /dev/{name}")))?;
            attach_to(&host, target.as_fd()).map_err(failed(format!("binding /dev/{name}")))?;
        }
        Ok(())
    }

    /// X1.39 to X1.45.
    fn network_files(&mut self, request: &Request, files: &FileMaker) -> Result<()> {
        let resolv = name_service::resolv_conf(&request.dns, request.network);
        let hosts = name_service::hosts(&request.hostname, &request.extra_hosts);
        for (target, content) in [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts)] {
            // A step's own mount of the same target takes its place (X1.61).
            if request.mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            let file = files.file(&content, 0o644)?;
            set_attributes(&file, READONLY | SAFE, false).map_err(failed(format!("protecting {target}")))?;
            self.attach_made(&file, target, false)?;
        }
        Ok(())
    }

    fn step_mounts(
        &mut self,
        request: &Request,
        sources: &mut impl Iterator<Item = OwnedFd>,
        files: &FileMaker,
    ) -> Result<()> {
        let mut secrets = None;
        for mount in &request.mounts {
            let target = &mount.target;
            let mut next = || {
                let reason = "its descriptor is missing".to_owned();
                sources.next().ok_or_else(|| Failure { step: format!("mounting {target}"), reason })
            };
            let mut confining = self.confining;
            let (source, is_directory) = match &mount.source {
                RequestSource::Detached { is_directory } => (next()?, *is_directory),
                RequestSource::Device => {
                    confining = NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                    (next()?, false)
                }
                RequestSource::Secret { mode, uid, gid } => {
                    let secrets = match &mut secrets {
                        Some(secrets) => secrets,
                        none => none.insert(FileMaker::for_secrets(&request.scratch_point, self.privileges)?),
                    };
                    (secrets.secret(next()?, *mode, (*uid, *gid))?, false)
                }
                RequestSource::Tmpfs { size } => {
                    let size = size.to_string();
                    let options: &[(&str, &str)] =
                        if size == "0" { &[("mode", "1777")] } else { &[("mode", "1777"), ("size", &size)] };
                    (new_mount("tmpfs", options, NOSUID | self.confining)?, true)
                }
                RequestSource::File { content, mode } => (files.file(content, *mode)?, false),
            };
            let attributes = if mount.readonly { confining | READONLY } else { confining };
            set_attributes(&source, attributes, true).map_err(failed(format!("protecting {target}")))?;
            self.attach_made(&source, target, is_directory)?;
        }
        Ok(())
    }

    /// X1.65, X1.66. Paths that are not there are skipped.
    fn hide(&mut self) -> Result<()> {
        for path in MASKED {
            let Some((target, is_directory)) = self.find(path) else { continue };
            let cover = match is_directory {
                true => new_mount("tmpfs", &[("size", "0")], SAFE | READONLY)?,
                false => clone_of(rustix::fs::CWD, "/dev/null", false)?,
            };
            attach_to(&cover, target.as_fd()).map_err(failed(format!("hiding {path}")))?;
        }
        for path in READONLY_PATHS {
            let Some((target, _)) = self.find(path) else { continue };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            let copy = open_tree(target.as_fd(), "", flags).map_err(failed(format!("protecting {path}")))?;
            set_attributes(&copy, READONLY | SAFE, true).map_err(failed(format!("protecting {path}")))?;
            attach_to(&copy, target.as_fd()).map_err(failed(format!("protecting {path}")))?;
        }
        Ok(())
    }

    fn find(&self, path: &str) -> Option<(OwnedFd, bool)> {
        let target = open_in(self.root.as_fd(), path).ok()?;
        let stat = rustix::fs::fstat(&target).ok()?;
        Some((target, FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
    }

    fn attach(&self, mount: &OwnedFd, target: &str) -> Result<()> {
        let point = open_in(self.root.as_fd(), target).map_err(failed(format!("opening {target}")))?;
        attach_to(mount, point.as_fd()).map_err(failed(format!("mounting {target}")))
    }

    /// Attaches at a target that is made where it is missing, and remembered for removal (X1.46 to X1.48).
    fn attach_made(&mut self, mount: &OwnedFd, target: &str, is_directory: bool) -> Result<()> {
        if open_in(self.root.as_fd(), target).is_err() {
            self.make_target(target, is_directory)?;
        }
        self.attach(mount, target)
    }

    fn make_target(&mut self, target: &str, is_directory: bool) -> Result<()> {
        let mut path = String::new();
        let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
        for (index, part) in parts.iter().enumerate() {
            let parent = if path.is_empty() { "/".to_owned() } else { path.clone() };
            path.push('/');
            path.push_str(part);
            if open_in(self.root.as_fd(), &path).is_ok() {
                continue;
            }
            let parent =
                open_in(self.root.as_fd(), &parent).map_err(failed(format!("opening the parent of {path}")))?;
            let is_last = index + 1 == parts.len();
            let made = if is_last && !is_directory {
                create_file(parent.as_fd(), part, 0o644).map(|_| ())
            } else {
                rustix::fs::mkdirat(&parent, *part, Mode::from_raw_mode(0o755))
            };
            match made {
                // A dangling symlink: what it names is made, by way of the kernel's own resolution.
                Err(Errno::EXIST) => self.make_behind_link(&path, is_last && !is_directory)?,
                made => {
                    made.map_err(failed(format!("making the mount point {path}")))?;
                    self.stubs.push(path.clone());
                }
            }
        }
        Ok(())
    }

    fn make_behind_link(&mut self, path: &str, as_file: bool) -> Result<()> {
        let link = rustix::fs::readlinkat(self.root, path.trim_start_matches('/'), Vec::new())
            .map_err(failed(format!("reading the link {path}")))?;
        let text = link.to_string_lossy();
        let target = match text.starts_with('/') {
            true => text.into_owned(),
            false => format!("{}/{text}", path.rsplit_once('/').map_or("", |(parent, _)| parent)),
        };
        let target = parser::path::clean(&target);
        if target == path {
            return Err(failed(format!("making the mount point {path}"))(Errno::LOOP));
        }
        self.make_target(&target, !as_file)
    }
}

/// Of the process's own root, when everything is in its place.
pub(super) fn make_readonly() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).map_err(failed("opening the root"))?;
    set_attributes(&root, READONLY, false).map_err(failed("making the root read-only"))
}

/// Makes files to bind, in a file system that nothing but these mounts refers to.
struct FileMaker {
    directory: OwnedFd,
    made: Cell<usize>,
}

impl FileMaker {
    /// `point` must be a directory of the host; it is mounted over in this namespace only.
    fn new(point: &Path) -> Result<Self> {
        let files = new_mount("tmpfs", &[("mode", "755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        attach_at(&files, point)?;
        Ok(FileMaker { directory: files, made: Cell::new(0) })
    }

    /// The same, where the kernel can do so in memory that is never swapped out: since Linux 6.4, and for root.
    fn for_secrets(point: &Path, privileges: Privileges) -> Result<Self> {
        let options = [("mode", "755"), ("noswap", "")];
        let Some(files) = (privileges == Privileges::Root).then(|| new_mount("tmpfs", &options, NOSUID).ok()).flatten()
        else {
            return FileMaker::new(point);
        };
        attach_at(&files, point)?;
        Ok(FileMaker { directory: files, made: Cell::new(0) })
    }

    fn file(&self, content: &str, mode: u32) -> Result<OwnedFd> {
        self.make(&mut content.as_bytes(), mode, None)
    }

    /// X2.38, X2.39.
    fn secret(&self, memory: OwnedFd, mode: u32, owner: (u32, u32)) -> Result<OwnedFd> {
        let mut memory = File::from(memory);
        memory.rewind().map_err(|error| Failure { step: "reading a secret".into(), reason: error.to_string() })?;
        let file = self.make(&mut memory, mode, Some(owner))?;
        let no_exec = if mode & 0o111 == 0 { SAFE } else { NOSUID | NODEV };
        set_attributes(&file, no_exec, false).map_err(failed("protecting a secret"))?;
        Ok(file)
    }

    fn make(&self, content: &mut impl Read, mode: u32, owner: Option<(u32, u32)>) -> Result<OwnedFd> {
        // The file must keep its name: what has none cannot be mounted.
        let name = format!("file{}", self.made.replace(self.made.get() + 1));
        let step = || failed("writing a file for the sandbox");
        let file = create_file(self.directory.as_fd(), &name, 0o600).map_err(step())?;
        if let Some((uid, gid)) = owner {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed(format!(
                "giving a secret to {uid}:{gid} (are the ids mapped in /etc/subuid and /etc/subgid, and is newuidmap installed?)"
            )))?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(step())?;
        std::io::copy(content, &mut File::from(file))
            .map_err(|error| Failure { step: "writing a file for the sandbox".into(), reason: error.to_string() })?;
        clone_of(self.directory.as_fd(), &name, false)
    }
}

fn create_file(parent: BorrowedFd, name: &str, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode))
}

fn open_in(root: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let step = || failed(format!("mounting {kind}"));
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(step())?;
    // What a process reads in its mount table.
    fsconfig_set_string(&context, "source", kind).map_err(step())?;
    for (key, value) in options {
        match value.is_empty() {
            true => fsconfig_set_flag(&context, *key).map_err(step())?,
            false => fsconfig_set_string(&context, *key, *value).map_err(step())?,
        }
    }
    fsconfig_create(&context).map_err(step())?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step())
}

fn clone_of(directory: BorrowedFd, path: &str, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(directory, path, flags).map_err(failed(format!("binding {path}")))
}

fn attach_at(mount: &OwnedFd, point: &Path) -> Result<()> {
    move_mount(mount, "", rustix::fs::CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(failed("attaching the root"))
}

fn attach_to(mount: &OwnedFd, point: BorrowedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", point, "", flags)
}

/// mount_setattr(2), which has no safe wrapper.
fn set_attributes(mount: &OwnedFd, attributes: MountAttrFlags, recursive: bool) -> rustix::io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attr = MountAttr { set: attributes.bits().into(), clear: 0, propagation: 0, user_namespace: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, and the structure is the kernel's first version with its size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
