//! The file systems that a sandbox sees (X1.E, X1.F).
//!
//! Everything is mounted below the root's descriptor before the root becomes `/`: targets are resolved inside it by the kernel, and the
//! sources are descriptors, so neither an image's symlinks nor a race can lead a mount astray.

use super::bench::Bench;
use super::child::{Failure, Result, failed};
use super::mounts::{
    NODEV, NOSUID, READONLY, SAFE, allow_devices, attach_at, attach_to, clone_of, create_file, new_mount, open_in,
    set_attributes,
};
use super::protocol::{Request, RequestNetwork, RequestSource, Security};
use super::{Privileges, bench};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The kernel's own limit.
const MAX_LINKS: u32 = 40;

/// Assembles the file systems and makes them the process's own. Gives the mount points that had to be made, in order.
pub(super) fn build(
    request: &Request,
    root: &OwnedFd,
    bench: &Bench,
    sources: &mut impl Iterator<Item = OwnedFd>,
    privileges: Privileges,
) -> Result<Vec<String>> {
    let confining = match request.security {
        Security::Confined(_) => NODEV,
        Security::Insecure => MountAttrFlags::empty(),
    };
    match request.security == Security::Insecure && privileges == Privileges::Root {
        true => allow_devices(root),
        false => set_attributes(root, confining, false),
    }
    .map_err(failed("protecting the root"))?;
    bench.attach(root, "root")?;
    let mut world = Rootfs { root, bench, privileges, confining, stubs: Vec::new() };
    world.kernel_files(request)?;
    let files = FileMaker::new(bench)?;
    world.network_files(request, &files)?;
    world.step_mounts(request, sources, &files)?;
    let stubs = world.stubs;
    rustix::process::fchdir(root).map_err(failed("entering the root"))?;
    // The bench stays below: it is empty, and leaving it by an unmount would take longer than all else here, since the kernel waits for its other processors.
    attach_at(root, Path::new("/")).map_err(failed("changing the root"))?;
    rustix::process::chroot(".").map_err(failed("changing the root"))?;
    Ok(stubs)
}

struct Rootfs<'a> {
    root: &'a OwnedFd,
    bench: &'a Bench,
    privileges: Privileges,
    /// `nodev`, unless the step may use all devices.
    confining: MountAttrFlags,
    stubs: Vec<String>,
}

impl Rootfs<'_> {
    fn kernel_files(&mut self, request: &Request) -> Result<()> {
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
        self.attach(&self.bench.proc, "/proc")?;
        self.attach(&self.bench.dev, "/dev")?;
        if let Some(size) = request.limits.shm_size {
            self.attach(&bench::shm(size)?, "/dev/shm")?;
        }
        // It shows the interfaces of whoever mounts it.
        let is_insecure = request.security == Security::Insecure;
        let own_sys = (request.network != RequestNetwork::Host).then(|| bench::sysfs(is_insecure));
        match own_sys {
            Some(Err(failure)) if self.privileges == Privileges::Root => return Err(failure),
            Some(Ok(sys)) => {
                self.attach(&sys, "/sys")?;
                bench::hide_in_sys(sys.as_fd(), is_insecure)?;
            }
            // In a container that covers parts of its own, there is no other.
            Some(Err(_)) | None => self.attach(&self.bench.sys, "/sys")?,
        }
        match &self.bench.cgroup {
            Some(cgroup) if open_in(self.root.as_fd(), "/sys/fs/cgroup").is_ok() => {
                self.attach(cgroup, "/sys/fs/cgroup")
            }
            _ => Ok(()),
        }
    }

    /// X1.39 to X1.45.
    fn network_files(&mut self, request: &Request, files: &FileMaker) -> Result<()> {
        for (target, content) in [("/etc/resolv.conf", &request.resolv_conf), ("/etc/hosts", &request.hosts)] {
            // A step's own mount of the same target takes its place (X1.61).
            if request.mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            let file = files.file(content, 0o644)?;
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
                        none => none.insert(FileMaker::for_secrets(self.bench, self.privileges)?),
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

    fn attach(&self, mount: &OwnedFd, target: &str) -> Result<()> {
        let point = open_in(self.root.as_fd(), target).map_err(failed(format!("opening {target}")))?;
        attach_to(mount, point.as_fd()).map_err(failed(format!("mounting {target}")))
    }

    /// Attaches at a target that is made where it is missing, and remembered for removal (X1.46 to X1.48).
    fn attach_made(&mut self, mount: &OwnedFd, target: &str, is_directory: bool) -> Result<()> {
        if open_in(self.root.as_fd(), target).is_err() {
            self.make_target(target, is_directory, MAX_LINKS)?;
        }
        self.attach(mount, target)
    }

    /// By way of at most `links` dangling symlinks, which may lead in circles.
    fn make_target(&mut self, target: &str, is_directory: bool, links: u32) -> Result<()> {
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
                Err(Errno::EXIST) => self.make_behind_link(&parent, &path, is_last && !is_directory, links)?,
                made => {
                    made.map_err(failed(format!("making the mount point {path}")))?;
                    self.stubs.push(path.clone());
                }
            }
        }
        Ok(())
    }

    fn make_behind_link(&mut self, parent: &OwnedFd, path: &str, as_file: bool, links: u32) -> Result<()> {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let link =
            rustix::fs::readlinkat(parent, name, Vec::new()).map_err(failed(format!("reading the link {path}")))?;
        let text = link.to_string_lossy();
        let target = match text.starts_with('/') {
            true => text.into_owned(),
            false => format!("{}/{text}", path.rsplit_once('/').map_or("", |(parent, _)| parent)),
        };
        let target = parser::path::clean(&target);
        if links == 0 {
            return Err(failed(format!("making the mount point {path}"))(Errno::LOOP));
        }
        self.make_target(&target, !as_file, links - 1)
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
    fn new(bench: &Bench) -> Result<Self> {
        let files = new_mount("tmpfs", &[("mode", "755")], NOSUID)?;
        bench.attach(&files, "files")?;
        Ok(FileMaker { directory: files, made: Cell::new(0) })
    }

    /// The same, where the kernel can do so in memory that is never swapped out: since Linux 6.4, and for root.
    fn for_secrets(bench: &Bench, privileges: Privileges) -> Result<Self> {
        let options = [("mode", "700"), ("noswap", "")];
        let unswapped = (privileges == Privileges::Root).then(|| new_mount("tmpfs", &options, NOSUID).ok()).flatten();
        let files = match unswapped {
            Some(files) => files,
            None => new_mount("tmpfs", &options[..1], NOSUID)?,
        };
        bench.attach(&files, "secrets")?;
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
