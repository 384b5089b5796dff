//! Runs an `Exec` op: a process in a sandbox over its first input, and what it wrote as a layer.

use crate::cdi::{self, Edits};
use crate::emulation::{Unrunnable, why_not_started};
use crate::error::{Error, Result, blocking};
use crate::fileop::{self, Account, CopyRequest, Owner, Plain, SourceTree};
use crate::mount;
use crate::output::Output;
use crate::sandbox::{
    Container, ContainerMount, Exit, ExtraHost, HostAddress, MountSource, Network, Process, Security, Stdio,
};
use crate::secrets::{self, SecretError, SecretValue};
use crate::snapshot::Draft;
use crate::ssh::Forwarding;
use crate::stubs;
use crate::users::{self, Identity, UserError};
use crate::value::{Stack, Value};
use crate::worker::LocalWorker;
use cache::{CacheMountLease, Sharing};
use rustix::fs::{FileType, Mode};
use solver::key::ContentId;
use solver::op::{self, CacheSharing, Exec, Input, MountKind, SecretEnv};
use solver::schedule::OpTask;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOST_NAME: &str = "buildkitsandbox";

/// What must live as long as the process does.
#[derive(Default)]
struct Held {
    leases: Vec<CacheMountLease>,
    /// Upper directories of writable binds: what is written there is dropped (X2.11).
    drafts: Vec<Draft>,
    agents: Vec<Forwarding>,
    /// Of what binds of contexts show, by input, in order.
    digests: BTreeMap<Input, Vec<[u8; 32]>>,
}

impl LocalWorker {
    pub(crate) async fn exec(&self, exec: &Exec, task: &OpTask<'_, Value>) -> Result<Value> {
        let Some(Value::Files(below)) = task.inputs.first() else { return Err(Error::WrongInput) };
        let output = Arc::new(Output::of(&task.vertex, task.events));
        let prepared = async {
            for input in task.inputs {
                self.materialise(input, task).await?;
            }
            let (this, exec, inputs, below) = (self.clone(), exec.clone(), task.inputs.to_vec(), below.clone());
            let (contributions, output) = (task.contributions.to_vec(), output.clone());
            blocking(move || this.prepare(&exec, &inputs, &contributions, &below, &output)).await
        };
        // The first network of a build takes a while, and so does unpacking its base.
        let network = self.network(exec.network, &task.vertex, task.events);
        let (prepared, network) = futures_util::future::join(prepared, network).await;
        let Prepared { draft, mut container, held, unrunnable } = prepared?;
        container.extra_hosts = self.extra_hosts(exec, &network);
        container.network = network;
        let mut process = self.launcher.launch(container, Stdio::Pipes)?;
        let lower = {
            let (snapshots, below) = (self.snapshots.clone(), below.clone());
            blocking(move || snapshots.lower(&below))
        };
        // Made while the command runs.
        let lower = tokio::spawn(lower);
        let Some(exit) = within(self.options.timeout, wait(&mut process, &output)).await.transpose()? else {
            // Dropping the process ends it, and all that it started.
            output.show_dropped();
            let timeout = self.options.timeout.unwrap_or_default();
            return Err(Error::TimedOut { command: shown(&exec.args), timeout });
        };
        drop(held);
        if exit.code != 0 {
            output.show_dropped();
        }
        if exit.code != 0 && exit.out_of_memory {
            return Err(Error::OutOfMemory { command: shown(&exec.args) });
        }
        if let Some(reason) = why_not_started(&exit, &exec.platform, unrunnable.as_ref()) {
            let (command, program) = (shown(&exec.args), exec.args.first().cloned().unwrap_or_default());
            return Err(Error::WrongFormat { command, program, reason });
        }
        if exit.code != 0 {
            // A command that could not be started counts as failed with 1 (X1.2).
            let code = if exit.start_error.is_some() { 1 } else { exit.code };
            return Err(Error::Process { command: shown(&exec.args), code });
        }
        let (snapshots, adopt) = (self.snapshots.clone(), task.adopt);
        let lower = lower.await.map_err(|gone| Error::ThreadGone(gone.to_string()))??;
        let stack = blocking(move || {
            stubs::remove(draft.root.as_fd(), &exit.stubs);
            snapshots.commit_over(draft, lower, adopt, None)
        })
        .await?;
        Ok(Value::Files(Arc::new(stack)))
    }

    fn prepare(
        &self,
        exec: &Exec,
        inputs: &[Value],
        contributions: &[ContentId],
        below: &Stack,
        output: &Output,
    ) -> Result<Prepared> {
        let unrunnable = match self.launcher.emulation().provide(&exec.platform) {
            Err(certain @ Unrunnable::Variant { .. }) => return Err(certain.into()),
            provided => provided.err(),
        };
        let draft = self.snapshots.draft(below)?;
        let mut identity = users::process_identity(draft.root.as_fd(), &exec.user)
            .map_err(|source: UserError| Error::User { command: shown(&exec.args), source })?;
        let mut held = Held::default();
        let mut mounts = Vec::with_capacity(exec.mounts.len());
        for mount in &exec.mounts {
            let Some(source) = self.mount_source(mount, inputs, &mut held)? else { continue };
            mounts.push(ContainerMount { target: mount.target.clone(), readonly: mount.readonly, source });
        }
        crate::copies::check(&held.digests, contributions)?;
        let mut env = self.environment(exec, &identity);
        for edits in self.devices(exec)? {
            for hook in edits.hooks() {
                let text = format!("warning: a device of this step has a hook, {hook}, which is not run\n");
                output.note(text);
            }
            identity.groups.extend(&edits.additional_gids);
            mounts.extend(device_mounts(&edits)?);
            env.extend(edits.env);
        }
        // Secrets win over variables of the same name (X1.19), and programs differ in which of two they take.
        env.retain(|entry| !exec.secret_env.iter().any(|secret| entry.split('=').next() == Some(&secret.name)));
        let root = rustix::io::fcntl_dupfd_cloexec(&draft.root, 0).map_err(|errno| mount::MountError::Mount {
            what: "the root".into(),
            source: errno.into(),
            detail: String::new(),
        })?;
        let container = Container {
            root,
            args: exec.args.clone(),
            env,
            secret_env: self.secret_env(exec)?,
            cwd: exec.cwd.clone(),
            user: identity,
            hostname: exec.hostname.clone().unwrap_or_else(|| HOST_NAME.to_owned()),
            // Filled in when it is known.
            network: Network::None,
            security: if exec.insecure { Security::Insecure } else { Security::default() },
            limits: self.options.limits.clone(),
            readonly_root: false,
            mounts,
            extra_hosts: Vec::new(),
            dns: self.options.dns.clone(),
        };
        Ok(Prepared { draft, container, held, unrunnable })
    }

    fn extra_hosts(&self, exec: &Exec, network: &Network) -> Vec<(IpAddr, String)> {
        let wanted = self.options.extra_hosts.iter().filter(|host| exec.extra_hosts.contains(&host.name));
        let address = |host: &ExtraHost| match host.address {
            HostAddress::Ip(address) => address,
            HostAddress::Gateway => network.gateway(),
        };
        wanted.map(|host| (address(host), host.name.clone())).collect()
    }

    /// HOME and proxies are the executor's, so that they are no part of a key (X1.16, X1.18).
    fn environment(&self, exec: &Exec, identity: &Identity) -> Vec<String> {
        let mut env = exec.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        for (name, value) in self.options.proxies.iter().filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{}={value}", name.to_uppercase()));
            env.push(format!("{}={value}", name.to_lowercase()));
        }
        env
    }

    /// What the step's devices bring.
    fn devices(&self, exec: &Exec) -> Result<Vec<Edits>> {
        if exec.devices.is_empty() {
            return Ok(Vec::new());
        }
        let registry = cdi::Registry::load()?;
        let allowed = |name: &str| self.options.devices.allow(name);
        let found = exec.devices.iter().map(|device| registry.find(&device.name, device.required, allowed));
        let found = found.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn secret_env(&self, exec: &Exec) -> Result<Option<OwnedFd>> {
        if exec.secret_env.is_empty() {
            return Ok(None);
        }
        let mut variables: Vec<(String, String, SecretValue)> = Vec::new();
        for SecretEnv { name, id, required } in &exec.secret_env {
            let value = match required {
                true => self.options.secrets.required(id)?,
                // X1.20.
                false => self.options.secrets.get(id)?.unwrap_or_else(|| SecretValue::new(Vec::new())),
            };
            variables.retain(|(known, ..)| known != name);
            variables.push((name.clone(), id.clone(), value));
        }
        Ok(Some(secrets::environment(&variables)?))
    }

    /// What to mount, unless it is a secret or an agent that is not there and not required.
    fn mount_source(&self, mount: &op::Mount, inputs: &[Value], held: &mut Held) -> Result<Option<MountSource>> {
        let source = match &mount.kind {
            MountKind::Bind { from, source } => {
                let root = self.input_root(*from, inputs, source, !mount.readonly, held)?;
                detached(mount::bind(root.as_fd(), source).map_err(|error| not_found(error, source))?)?
            }
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
                let lease = self.store().cache_mount(&name, sharing)?;
                let directory = mount::open_directory(lease.path())?;
                if lease.is_new {
                    self.seed(&directory, from.and_then(|from| inputs.get(from)), source, (*uid, *gid), *mode)?;
                }
                held.leases.push(lease);
                detached(mount::bind(directory.as_fd(), "/")?)?
            }
            MountKind::Tmpfs { size } => MountSource::Tmpfs { size: *size },
            MountKind::File { content, mode } => MountSource::File { content: content.clone(), mode: *mode },
            MountKind::Secret { id, required, mode, uid, gid } => {
                let value = match required {
                    true => self.options.secrets.required(id)?,
                    false => match self.options.secrets.get(id)? {
                        Some(value) => value,
                        None => return Ok(None),
                    },
                };
                let memory = value.to_memory().map_err(|source| SecretError::HandOver { id: id.clone(), source })?;
                MountSource::Secret { memory, mode: *mode, uid: *uid, gid: *gid }
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let agent = match required {
                    true => self.options.agents.required(id)?,
                    false => match self.options.agents.get(id) {
                        Some(agent) => agent,
                        None => return Ok(None),
                    },
                };
                let forwarding = Forwarding::start(agent.clone(), &self.snapshots, (*uid, *gid), *mode)?;
                let socket = forwarding.mount()?;
                held.agents.push(forwarding);
                detached(socket)?
            }
        };
        Ok(Some(source))
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

    /// A view of an input, in which at least `source` is there: writable ones take their writes with them when they end.
    fn input_root(
        &self,
        input: Input,
        inputs: &[Value],
        source: &str,
        writable: bool,
        held: &mut Held,
    ) -> Result<OwnedFd> {
        match inputs.get(input) {
            Some(Value::Files(stack)) if writable => {
                let draft = self.snapshots.draft(stack)?;
                let root = rustix::io::fcntl_dupfd_cloexec(&draft.root, 0)
                    .map_err(|errno| Error::Write { path: "a mount".into(), source: errno.into() })?;
                held.drafts.push(draft);
                Ok(root)
            }
            Some(Value::Files(stack)) => self.snapshots.view(&stack.ids()),
            // Ignored files must not show, and the client's own must not change: a copy of what is not ignored.
            Some(Value::Local(context)) => {
                let (draft, stage) = (self.snapshots.plain()?, self.snapshots.stage()?);
                let account = Account {
                    digests: &context.digests,
                    recent: Some(&context.recent),
                    keep_owner: false,
                    previous: None,
                    book: None,
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
                let copied = fileop::copy(&request, &mut Plain(draft.root.as_fd()))?;
                held.digests.entry(input).or_default().extend(copied.digest);
                let root = rustix::io::fcntl_dupfd_cloexec(&draft.root, 0)
                    .map_err(|errno| Error::Write { path: "a mount".into(), source: errno.into() })?;
                held.drafts.push(draft);
                Ok(root)
            }
            None => Err(Error::WrongInput),
        }
    }
}

struct Prepared {
    draft: Draft,
    container: Container,
    held: Held,
    unrunnable: Option<Unrunnable>,
}

fn device_mounts(edits: &Edits) -> Result<Vec<ContainerMount>> {
    let host = mount::open_directory(Path::new("/"))?;
    let mut mounts = Vec::new();
    for node in &edits.device_nodes {
        let source = MountSource::Device(mount::bind(host.as_fd(), node.host_path())?);
        mounts.push(ContainerMount { target: node.path.clone(), readonly: false, source });
    }
    for bind in &edits.mounts {
        let source = detached(mount::bind(host.as_fd(), &bind.host_path)?)?;
        mounts.push(ContainerMount { target: bind.container_path.clone(), readonly: bind.is_readonly(), source });
    }
    Ok(mounts)
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

/// The arguments as BuildKit's error shows them (X5.33).
fn shown(args: &[String]) -> String {
    args.join(" ").replace('\\', "\\\\").replace('"', "\\\"")
}

/// `None` if it takes longer.
async fn within<T>(timeout: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, work).await.ok(),
        None => Some(work.await),
    }
}

/// Passes the output on until the process has ended and its pipes are empty.
async fn wait(process: &mut Process, output: &Output) -> Result<Exit> {
    let (is_running, running) = tokio::sync::watch::channel(());
    let streams = output.forward(process.stdout.take(), process.stderr.take(), &running);
    let exit = async {
        let exit = process.wait().await;
        drop(is_running);
        exit
    };
    let (exit, ()) = futures_util::future::join(exit, streams).await;
    Ok(exit?)
}
