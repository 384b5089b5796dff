//! Detached mounts: they exist as a descriptor only. Nothing of them shows in a mount table, and they end with the last
//! descriptor, however the process ends. Their files are reached with calls that take a directory descriptor.

use crate::sandbox::Privileges;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The kernel takes no more lower layers.
const MAX_LAYERS: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot mount {what}: {source}{detail}")]
    Mount { what: String, source: io::Error, detail: String },
    #[error("cannot mount the files of a step, which needs an overlay: {source}{detail}: {advice}")]
    Overlay { source: io::Error, detail: String, advice: &'static str },
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("an image of {0} layers cannot be mounted: the kernel takes at most {MAX_LAYERS}")]
    TooManyLayers(usize),
}

impl MountError {
    /// An older kernel answers EINVAL to what it does not know.
    fn advise(mut self, advice: &str) -> Self {
        if let MountError::Mount { source, detail, .. } = &mut self
            && source.raw_os_error() == Some(Errno::INVAL.raw_os_error())
        {
            detail.push_str(&format!(" ({advice})"));
        }
        self
    }
}

type Result<T> = std::result::Result<T, MountError>;

/// The merged view of `layers`, bottom first. The kernel takes no directory twice (ELOOP); of one that is there twice, as of two steps without effect, the upper
/// place is the one that shows. With an upper and a work directory it is writable, and what is written goes to the
/// upper one. `empty` is a directory with nothing in it, for stacks too short for the kernel.
///
/// `volatile`: the kernel need not sync the upper directory, which belongs to no image until it is complete. `index`, `redirect_dir`,
/// `metacopy` and `xino` stay off, so that the upper directory holds plain files and can become a layer by a rename.
pub fn overlay(
    layers: &[PathBuf],
    upper: Option<(&Path, &Path)>,
    empty: &Path,
    privileges: Privileges,
) -> Result<OwnedFd> {
    if layers.len() > MAX_LAYERS {
        return Err(MountError::TooManyLayers(layers.len()));
    }
    if layers.is_empty() && upper.is_none() {
        return open_directory(empty);
    }
    let failed = |context: Option<&OwnedFd>, errno: Errno| MountError::Mount {
        what: format!("an overlay of {} layers", layers.len()),
        source: errno.into(),
        detail: context.map(kernel_message).unwrap_or_default(),
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => MountError::Overlay {
            source: errno.into(),
            detail: String::new(),
            advice: "the kernel has none: `sudo modprobe overlay` loads it",
        },
        errno => failed(None, errno),
    })?;
    let unsuitable = |errno: Errno| match upper {
        Some((upper, _)) => {
            let (detail, advice) = (kernel_message(&context), advice(upper, errno));
            MountError::Overlay { source: errno.into(), detail, advice }
        }
        None => failed(Some(&context), errno),
    };
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(&context, key, value).map_err(|errno| failed(Some(&context), errno))
    };
    // Neutral, since processes inside see it in their mount table.
    set("source", Path::new("overlay"))?;
    let mut placed = HashSet::with_capacity(layers.len());
    let once: Vec<_> = layers.iter().rev().map(PathBuf::as_path).filter(|layer| placed.insert(*layer)).collect();
    let needs_empty = once.is_empty() || (once.len() == 1 && upper.is_none());
    for layer in once.into_iter().chain(needs_empty.then_some(empty)) {
        set("lowerdir+", layer).map_err(|error| error.advise("Linux 6.7 or newer is needed"))?;
    }
    for option in ["index", "xino"] {
        set(option, Path::new("off"))?;
    }
    if privileges == Privileges::Root {
        // With userxattr the kernel has neither, and refuses their mention.
        // "off" would follow redirections that are there already, and no layer of the store has any.
        set("redirect_dir", Path::new("nofollow"))?;
        set("metacopy", Path::new("off"))?;
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(&context, "upperdir", upper).map_err(unsuitable)?;
        fsconfig_set_string(&context, "workdir", work).map_err(unsuitable)?;
        fsconfig_set_flag(&context, "volatile").map_err(|errno| failed(Some(&context), errno))?;
    }
    if privileges != Privileges::Root {
        fsconfig_set_flag(&context, "userxattr").map_err(|errno| failed(Some(&context), errno))?;
    }
    fsconfig_create(&context).map_err(unsuitable)?;
    // rbuild itself reads files there whose kinds a hostile image chooses: opening some devices does things to the machine.
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(|errno| failed(Some(&context), errno))
}

/// A file system in memory, as steps have them. `size` in bytes, 0 for the kernel's default.
pub fn tmpfs(size: u64) -> Result<OwnedFd> {
    let failed = |errno: Errno| MountError::Mount {
        what: "a file system in memory".into(),
        source: errno.into(),
        detail: String::new(),
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    fsconfig_set_string(&context, "source", "tmpfs").map_err(failed)?;
    fsconfig_set_string(&context, "mode", "1777").map_err(failed)?;
    if size != 0 {
        fsconfig_set_string(&context, "size", size.to_string()).map_err(failed)?;
    }
    fsconfig_create(&context).map_err(failed)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID).map_err(failed)
}

/// OVERLAYFS_SUPER_MAGIC of `linux/magic.h`.
const OVERLAY: rustix::fs::FsWord = 0x794c_7630;

/// What helps where a directory of the store does not serve as an overlay's upper one.
fn advice(upper: &Path, errno: Errno) -> &'static str {
    match rustix::fs::statfs(upper).map(|file_system| file_system.f_type) {
        Ok(OVERLAY) => {
            "the store lies in the files of a container, which are an overlay themselves: keep it in a volume (Docker: -v rbuild:/store, \
             Kubernetes: an emptyDir) and name a directory in that by RBUILD_ROOT or --root"
        }
        _ if errno == Errno::PERM || errno == Errno::ACCESS => {
            "a security module may forbid it: start the container with --security-opt apparmor=unconfined"
        }
        _ => {
            "the store's file system does not serve for that, or the kernel is too old: name a directory of ext4, xfs or btrfs by RBUILD_ROOT or \
             --root; Linux 6.7 or newer is needed"
        }
    }
}

/// What the kernel says of a failed mount: the lines that the context's descriptor gives.
fn kernel_message(context: &OwnedFd) -> String {
    let mut message = String::new();
    let mut line = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut line)
        && length > 0
    {
        let text = String::from_utf8_lossy(&line[..length]);
        message.push_str(&format!(" ({})", text.trim().trim_start_matches("e ")));
    }
    message
}

/// What lies at `path` below `root`, as a mount of its own; symlinks are resolved inside the root.
pub fn bind(root: BorrowedFd, path: &str) -> Result<OwnedFd> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT => MountError::Open { path: path.into(), source: io::ErrorKind::NotFound.into() },
        errno => MountError::Mount { what: path.to_owned(), source: errno.into(), detail: String::new() },
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source =
        rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(failed)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(source.as_fd(), "", flags)
        .map_err(|errno| failed(errno).advise("a mount of a stage's files needs Linux 6.15 or newer"))
}

/// A directory for reading.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| MountError::Open { path: path.to_owned(), source: errno.into() })
}
