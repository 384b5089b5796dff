//! Runs an `Exec` op: a process in a sandbox over its first input, and what it wrote as a layer.

mod mounts;

use crate::cdi::{self, Edits};
use crate::debug::Session;
use crate::emulation::{Unrunnable, why_not_started};
use crate::error::{Error, Result, blocking};
use crate::mount;
use crate::output::Output;
use crate::sandbox::{Container, Exit, ExtraHost, HostAddress, Network, Process, SHARES_PROC, Security, Stdio};
use crate::secrets::{self, SecretValue};
use crate::snapshot::Draft;
use crate::stubs;
use crate::users::{self, Identity, UserError};
use crate::value::{Stack, Value};
use crate::worker::LocalWorker;
use mounts::StepMounts;
use solver::event::{Event, EventSink, WarningEvent};
use solver::key::ContentId;
use solver::op::{Exec, SecretEnv};
use solver::schedule::OpTask;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

const HOST_NAME: &str = "buildkitsandbox";

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
            blocking(move || this.prepare(&exec, &inputs, &contributions, &below, &|text| output.note(text))).await
        };
        // The first network of a build takes a while, and so does unpacking its base.
        let network = self.network(exec.network, &task.vertex, task.events);
        let (prepared, network) = futures_util::future::join(prepared, network).await;
        let prepared = prepared?;
        let mut process = self.launcher.launch(prepared.container(self, network.clone())?, Stdio::Pipes)?;
        let lower = {
            let (snapshots, below) = (self.snapshots.clone(), below.clone());
            blocking(move || snapshots.lower(&below))
        };
        // Made while the command runs.
        let lower = tokio::spawn(lower);
        let ended = within(self.options.timeout, wait(&mut process, &output)).await.transpose()?;
        if ended.as_ref().is_some_and(|exit| exit.shares_proc) {
            self.tell_of_shared_proc(&task.vertex, task.events);
        }
        let exit = match self.judge(ended, &prepared) {
            Ok(exit) => exit,
            Err(error) => {
                output.show_dropped();
                if !self.options.keep_failed {
                    // Dropping the process ends it, and all that it started.
                    return Err(error);
                }
                process.kill().await;
                let session = Session::new(self.clone(), prepared, network);
                return Err(Error::Kept { source: Box::new(error), session: Box::new(session) });
            }
        };
        let Prepared { draft, mounts, .. } = prepared;
        drop(mounts);
        let (snapshots, adopt) = (self.snapshots.clone(), task.adopt);
        let lower = lower.await.map_err(|gone| Error::ThreadGone(gone.to_string()))??;
        let stack = blocking(move || {
            stubs::remove(draft.root.as_fd(), &exit.stubs);
            snapshots.commit_over(draft, lower, adopt, None)
        })
        .await?;
        Ok(Value::Files(Arc::new(stack)))
    }

    /// How the step ended, if it ended well. `None`: it did not, in time.
    fn judge(&self, ended: Option<Exit>, prepared: &Prepared) -> Result<Exit> {
        let Prepared { exec, unrunnable, .. } = prepared;
        let command = shown(&exec.args);
        let Some(exit) = ended else {
            return Err(Error::TimedOut { command, timeout: self.options.timeout.unwrap_or_default() });
        };
        if exit.code != 0 && exit.out_of_memory {
            return Err(Error::OutOfMemory { command });
        }
        if let Some(reason) = why_not_started(&exit, &exec.platform, unrunnable.as_ref()) {
            let program = exec.args.first().cloned().unwrap_or_default();
            return Err(Error::WrongFormat { command, program, reason });
        }
        if exit.code != 0 {
            // A command that could not be started counts as failed with 1 (X1.2).
            let code = if exit.start_error.is_some() { 1 } else { exit.code };
            return Err(Error::Process { command, code });
        }
        Ok(exit)
    }

    /// Once in a build.
    fn tell_of_shared_proc(&self, vertex: &str, events: &EventSink) {
        self.told_of_shared_proc.call_once(|| {
            events.send(Event::Warning(WarningEvent {
                vertex: vertex.to_owned(),
                level: 1,
                short: SHARES_PROC.to_owned(),
                detail: Vec::new(),
                url: String::new(),
                lines: None,
                source: None,
            }));
        });
    }

    pub(crate) fn prepare(
        &self,
        exec: &Exec,
        inputs: &[Value],
        contributions: &[ContentId],
        below: &Stack,
        note: &dyn Fn(String),
    ) -> Result<Prepared> {
        let unrunnable = match self.launcher.emulation().provide(&exec.platform) {
            Err(certain @ Unrunnable::Variant { .. }) => return Err(certain.into()),
            provided => provided.err(),
        };
        let draft = self.snapshots.draft(below)?;
        let mut user = users::process_identity(draft.root.as_fd(), &exec.user)
            .map_err(|source: UserError| Error::User { command: shown(&exec.args), source })?;
        let mut mounts = self.step_mounts(&exec.mounts, inputs, note)?;
        mounts.copied.check(contributions)?;
        mounts.copied.keep_listings(self.store(), contributions);
        let mut env = self.environment(exec, &user);
        for edits in self.devices(exec)? {
            for hook in edits.hooks() {
                note(format!("warning: a device of this step has a hook, {hook}, which is not run\n"));
            }
            user.groups.extend(&edits.additional_gids);
            mounts.add_device(&edits)?;
            env.extend(edits.env);
        }
        // Secrets win over variables of the same name (X1.19), and programs differ in which of two they take.
        env.retain(|entry| !exec.secret_env.iter().any(|secret| entry.split('=').next() == Some(&secret.name)));
        let secret_env = self.secret_env(exec)?;
        Ok(Prepared { draft, mounts, exec: exec.clone(), env, secret_env, user, unrunnable })
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
}

/// A step that is ready to run; also once more after it has failed.
pub(crate) struct Prepared {
    pub draft: Draft,
    mounts: StepMounts,
    pub exec: Exec,
    env: Vec<String>,
    secret_env: Option<OwnedFd>,
    user: Identity,
    unrunnable: Option<Unrunnable>,
}

impl Prepared {
    /// What runs the step over the draft's root. That, too, can be mounted in one sandbox only.
    pub fn container(&self, worker: &LocalWorker, network: Network) -> Result<Container> {
        let duplicate = |descriptor: &OwnedFd| {
            rustix::io::fcntl_dupfd_cloexec(descriptor, 0).map_err(|errno| mount::MountError::Mount {
                what: "the root".into(),
                source: errno.into(),
                detail: String::new(),
            })
        };
        let exec = &self.exec;
        Ok(Container {
            root: duplicate(&self.draft.root)?,
            args: exec.args.clone(),
            env: self.env.clone(),
            secret_env: self.secret_env.as_ref().map(duplicate).transpose()?,
            cwd: exec.cwd.clone(),
            user: self.user.clone(),
            hostname: exec.hostname.clone().unwrap_or_else(|| HOST_NAME.to_owned()),
            security: if exec.insecure { Security::Insecure } else { Security::default() },
            limits: worker.options.limits.clone(),
            readonly_root: false,
            mounts: self.mounts.mount()?,
            extra_hosts: worker.extra_hosts(exec, &network),
            network,
            dns: worker.options.dns.clone(),
        })
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
