//! What a step's mounts are made from.
//!
//! A mount ends with the sandbox that it was moved into. What it is made from lives for as long as the step does, so that the same files can be
//! mounted once more: for a shell in a step that failed.

use crate::cdi::Edits;
use crate::copies::Copied;
use crate::error::{Error, Result};
use crate::fileop::{self, Account, CopyRequest, Listing, Owner, Plain, SourceTree};
use crate::mount;
use crate::sandbox::{ContainerMount, MountSource};
use crate::secrets::SecretError;
use crate::snapshot::Draft;
use crate::ssh::Forwarding;
use crate::value::Value;
use crate::worker::LocalWorker;
use cache::{CacheMountLease, Kind, Sharing};
use rustix::fs::{FileType, Mode};
use solver::op::{self, CacheSharing, Input, MountKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::PoisonError;

/// The mounts of one step, in the order of mounting. They are usable for as long as this lives.
#[derive(Default)]
pub(super) struct StepMounts {
    mounts: Vec<StepMount>,
    /// Of what binds of contexts show, by input, in order.
    pub copied: Copied,
}

struct StepMount {
    target: String,
    readonly: bool,
    source: Source,
}

enum Source {
    /// What lies at `path` below `root`.
    Tree {
        root: OwnedFd,
        path: String,
    },
    /// What is written goes with it (X2.11).
    Draft {
        draft: Draft,
        path: String,
    },
    Cache {
        directory: OwnedFd,
        _lease: CacheMountLease,
    },
    Tmpfs {
        size: u64,
    },
    File {
        content: String,
        mode: u32,
    },
    Secret {
        memory: OwnedFd,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Agent(Forwarding),
    Device {
        host: OwnedFd,
        path: String,
    },
}

impl StepMounts {
    /// Mounts all of them.
    pub fn mount(&self) -> Result<Vec<ContainerMount>> {
        let mount = |mount: &StepMount| {
            let source = mount.source.mount()?;
            Ok(ContainerMount { target: mount.target.clone(), readonly: mount.readonly, source })
        };
        self.mounts.iter().map(mount).collect()
    }

    /// Adds what a device brings.
    pub fn add_device(&mut self, edits: &Edits) -> Result<()> {
        for node in &edits.device_nodes {
            let source = Source::Device { host: mount::open_directory(Path::new("/"))?, path: node.host_path().into() };
            self.mounts.push(StepMount { target: node.path.clone(), readonly: false, source });
        }
        for bind in &edits.mounts {
            let source = Source::Tree { root: mount::open_directory(Path::new("/"))?, path: bind.host_path.clone() };
            let (target, readonly) = (bind.container_path.clone(), bind.is_readonly());
            self.mounts.push(StepMount { target, readonly, source });
        }
        Ok(())
    }
}

impl Source {
    fn mount(&self) -> Result<MountSource> {
        Ok(match self {
            Source::Tree { root, path } => bound(root, path)?,
            Source::Draft { draft, path } => bound(&draft.root, path)?,
            Source::Cache { directory, .. } => bound(directory, "/")?,
            Source::Tmpfs { size } => MountSource::Tmpfs { size: *size },
            Source::File { content, mode } => MountSource::File { content: content.clone(), mode: *mode },
            Source::Secret { memory, mode, uid, gid } => {
                let memory = rustix::io::fcntl_dupfd_cloexec(memory, 0)
                    .map_err(|errno| Error::Write { path: "a secret".into(), source: errno.into() })?;
                MountSource::Secret { memory, mode: *mode, uid: *uid, gid: *gid }
            }
            Source::Agent(forwarding) => detached(forwarding.mount()?)?,
            Source::Device { host, path } => MountSource::Device(mount::bind(host.as_fd(), path)?),
        })
    }
}

fn bound(root: &OwnedFd, path: &str) -> Result<MountSource> {
    detached(mount::bind(root.as_fd(), path).map_err(|error| not_found(error, path))?)
}

fn detached(mount: OwnedFd) -> Result<MountSource> {
    let stat =
        rustix::fs::fstat(&mount).map_err(|errno| Error::Write { path: "a mount".into(), source: errno.into() })?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(MountSource::Detached { mount, is_directory })
}

fn not_found(error: mount::MountError, source: &str) -> Error {
    match error {
        mount::MountError::Open { .. } => fileop::Error::NotFound { path: source.to_owned() }.into(),
        error => error.into(),
    }
}

impl LocalWorker {
    /// Gets ready what a step mounts, but for secrets and agents that are not there and not required.
    pub(super) fn step_mounts(
        &self,
        wanted: &[op::Mount],
        inputs: &[Value],
        note: &dyn Fn(String),
    ) -> Result<StepMounts> {
        let mut ready = StepMounts::default();
        for mount in wanted {
            let Some(source) = self.mount_source(mount, inputs, &mut ready.copied, note)? else { continue };
            ready.mounts.push(StepMount { target: mount.target.clone(), readonly: mount.readonly, source });
        }
        Ok(ready)
    }

    fn mount_source(
        &self,
        mount: &op::Mount,
        inputs: &[Value],
        copied: &mut Copied,
        note: &dyn Fn(String),
    ) -> Result<Option<Source>> {
        let source = match &mount.kind {
            MountKind::Bind { from, source } => self.bind_source(*from, inputs, source, !mount.readonly, copied)?,
            MountKind::Cache { id, sharing, from, source, mode, uid, gid } => {
                // Another base, owner or mode is another directory (X2.18, X2.19).
                let base = from.and_then(|from| match inputs.get(from) {
                    Some(Value::Files(stack)) => Some(hex::encode(stack.content().0)),
                    _ => None,
                });
                let name = format!("{id}:{}:{mode:o}:{uid}:{gid}", base.unwrap_or_default());
                let sharing = match sharing {
                    CacheSharing::Shared => Sharing::Shared,
                    CacheSharing::Private => Sharing::Private,
                    CacheSharing::Locked => Sharing::Locked,
                };
                let scope = &self.options.cache_scope;
                let name = scope.as_ref().map_or_else(|| name.clone(), |scope| format!("{scope} {name}"));
                if scope.is_none() {
                    self.remote.note_mount(&name, id);
                }
                let lease = self.store().cache_mount_with(&name, sharing, |lease| {
                    let may_fill = scope.is_none() && lease.is_vacant();
                    if may_fill && self.remote.fill_mount(self.store(), &name, id, lease, note) {
                        return Ok(());
                    }
                    if !lease.is_new {
                        return Ok(());
                    }
                    let directory = mount::open_directory(lease.path())?;
                    self.seed(&directory, from.and_then(|from| inputs.get(from)), source, (*uid, *gid), *mode)
                })?;
                if scope.is_some() {
                    self.scoped.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.id());
                }
                // One without an id of its own is called by its target, after a slash.
                let called = if id.starts_with("//") { &id[1..] } else { id };
                self.store().describe(&lease.id(), Kind::CacheMount, &format!("cache mount {called}"));
                Source::Cache { directory: mount::open_directory(lease.path())?, _lease: lease }
            }
            MountKind::Tmpfs { size } => self.tmpfs_source(*size),
            MountKind::File { content, mode } => Source::File { content: content.clone(), mode: *mode },
            MountKind::Secret { id, required, mode, uid, gid } => {
                let value = match required {
                    true => self.options.secrets.required(id)?,
                    false => match self.options.secrets.get(id)? {
                        Some(value) => value,
                        None => return Ok(None),
                    },
                };
                let memory = value.to_memory().map_err(|source| SecretError::HandOver { id: id.clone(), source })?;
                Source::Secret { memory, mode: *mode, uid: *uid, gid: *gid }
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let agent = match required {
                    true => self.options.agents.required(id)?,
                    false => match self.options.agents.get(id) {
                        Some(agent) => agent,
                        None => return Ok(None),
                    },
                };
                Source::Agent(Forwarding::start(agent.clone(), &self.snapshots, (*uid, *gid), *mode)?)
            }
        };
        Ok(Some(source))
    }

    /// One that a sandbox makes is gone with it. Where a failed step is kept, so is what it wrote there, if the kernel can (Linux 6.15).
    fn tmpfs_source(&self, size: u64) -> Source {
        let kept = || {
            let root = mount::tmpfs(size).ok()?;
            mount::bind(root.as_fd(), "/").is_ok().then(|| Source::Tree { root, path: "/".into() })
        };
        self.options.keep_failed.then(kept).flatten().unwrap_or(Source::Tmpfs { size })
    }

    /// An input, in which at least `source` is there.
    fn bind_source(
        &self,
        input: Input,
        inputs: &[Value],
        source: &str,
        writable: bool,
        copied: &mut Copied,
    ) -> Result<Source> {
        let path = source.to_owned();
        match inputs.get(input) {
            Some(Value::Files(stack)) if writable => Ok(Source::Draft { draft: self.snapshots.draft(stack)?, path }),
            Some(Value::Files(stack)) => Ok(Source::Tree { root: self.snapshots.view(&stack.ids())?, path }),
            // Ignored files must not show, and the client's own must not change: a copy of what is not ignored.
            Some(Value::Local(context)) => {
                let (draft, stage) = (self.snapshots.plain()?, self.snapshots.stage()?);
                let listing = Listing::default();
                let account = Account {
                    digests: &context.digests,
                    recent: Some(&context.recent),
                    keep_owner: false,
                    previous: None,
                    book: None,
                    listing: Some(&listing),
                };
                let request = CopyRequest {
                    source: context.source.tree(),
                    layer: draft.root.as_fd(),
                    staging: stage.root.as_fd(),
                    selection: &op::Selection::tree(source),
                    to: source,
                    owner: Owner::Root,
                    chmod: None,
                    unpack: false,
                    account: Some(account),
                };
                let digest = fileop::copy(&request, &mut Plain(draft.root.as_fd()))?.digest;
                copied.add(input, digest, listing);
                Ok(Source::Draft { draft, path })
            }
            None => Err(Error::WrongInput),
        }
    }

    /// Gives a new cache directory its owner and first content (X2.21 to X2.24).
    fn seed(
        &self,
        directory: &OwnedFd,
        from: Option<&Value>,
        source: &str,
        owner: (u32, u32),
        mode: u32,
    ) -> Result<()> {
        if let Some(Value::Files(stack)) = from {
            let view = self.snapshots.view(&stack.ids())?;
            let (selection, stage) = (op::Selection::tree(source), self.snapshots.stage()?);
            let request = CopyRequest {
                source: SourceTree { root: view.as_fd(), ignore: None, ignore_name: "", cancelled: None },
                layer: directory.as_fd(),
                staging: stage.root.as_fd(),
                selection: &selection,
                to: "/",
                owner: Owner::Keep,
                chmod: None,
                unpack: false,
                account: None,
            };
            fileop::copy(&request, &mut Plain(directory.as_fd()))?;
        }
        let failed = |errno: rustix::io::Errno| Error::Write { path: "a cache directory".into(), source: errno.into() };
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::fchown(directory, Some(uid), Some(gid)).map_err(failed)?;
        rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)).map_err(failed)
    }
}
