//! The kernel's mount calls, with what failed. Mounts are made detached, and attached to descriptors.

use super::child::{Result, failed, last_errno};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub(super) const SAFE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
pub(super) const READONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;
pub(super) const NOSUID: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID;
pub(super) const NODEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NODEV;

pub(super) fn create_file(parent: BorrowedFd, name: &str, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode))
}

pub(super) fn open_in(root: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

pub(super) fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
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

pub(super) fn clone_of(directory: BorrowedFd, path: &str, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(directory, path, flags).map_err(failed(format!("binding {path}")))
}

pub(super) fn attach_at(mount: &OwnedFd, point: &Path) -> rustix::io::Result<()> {
    move_mount(mount, "", rustix::fs::CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(super) fn attach_to(mount: &OwnedFd, point: BorrowedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", point, "", flags)
}

pub(super) fn set_attributes(mount: &OwnedFd, attributes: MountAttrFlags, recursive: bool) -> rustix::io::Result<()> {
    change_attributes(mount, attributes, MountAttrFlags::empty(), recursive)
}

/// Takes back that device files of a mount cannot be opened.
pub(super) fn allow_devices(mount: &OwnedFd) -> rustix::io::Result<()> {
    change_attributes(mount, MountAttrFlags::empty(), NODEV, false)
}

/// mount_setattr(2), which has no safe wrapper.
fn change_attributes(
    mount: &OwnedFd,
    set: MountAttrFlags,
    clear: MountAttrFlags,
    recursive: bool,
) -> rustix::io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attr = MountAttr { set: set.bits().into(), clear: clear.bits().into(), propagation: 0, user_namespace: 0 };
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
