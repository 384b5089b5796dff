//! RUN: the command, its environment and its mounts.

use super::environment::Environment;
use super::stage::{Place, StageState, shell_or_exec};
use super::stages::{Image, Origin};
use super::{Lowering, Purpose, Result, history, lint, problem};
use crate::graph::VertexId;
use crate::op::{CacheSharing, Device, Exec, Input, Mount, MountKind, Network, Op, SecretEnv};
use crate::outline::{Cache, Credential};
use parser::ErrorRule;
use parser::RunForm;
use parser::ast::{CommandLine, Run, RunNetwork, RunSecurity};
use parser::mount::{self, Sharing};
use parser::span::Span;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a here-document that is a script of its own is mounted (D5.24).
const SCRIPT_DIRECTORY: &str = "/dev/pipes";

/// What a step's mounts come to.
#[derive(Default)]
struct Mounts {
    list: Vec<Mount>,
    secret_env: Vec<SecretEnv>,
    /// Targets of agents' sockets.
    agents: Vec<String>,
}

impl Lowering<'_> {
    pub(super) fn run(&mut self, run: &Run, state: &mut StageState, place: &Place) -> Result<()> {
        let mut inputs = vec![state.files];
        let mut mounts = Mounts::default();
        for word in &run.mounts {
            let mut expansions = Vec::new();
            let parsed = mount::Mount::parse(&word.value, &mut |text| {
                let expansion = self.expander.word(text, &state.environment)?;
                expansions.push(expansion);
                Ok(expansions.last().map(|expansion| expansion.text.clone()).unwrap_or_default())
            })
            .map_err(|error| Box::new(error.diagnostic(word)))?;
            for expansion in &expansions {
                self.report_unset(expansion, word, state, place);
            }
            self.mount(parsed, word.span, state, place, &mut inputs, &mut mounts)?;
        }
        let command = match run.script() {
            RunForm::Command(command) => command,
            RunForm::Script { name, content } => {
                let target = format!("{SCRIPT_DIRECTORY}/{name}");
                let kind = MountKind::File { content, mode: 0o755 };
                mounts.list.push(Mount { target: target.clone(), readonly: true, kind });
                CommandLine::Shell(target)
            }
        };
        mounts.list.sort_by(|a, b| a.target.cmp(&b.target));
        let devices = run.devices.iter().map(|flag| {
            let parser::device::Device { name, required } = parser::device::Device::parse(flag)?;
            Ok(Device { name: self.options.entitlements.device.resolve(&name).to_owned(), required })
        });
        let devices = devices.collect::<Result<_>>()?;
        let args = shell_or_exec(&command, &state.config);
        let mut env = state.environment.to_list();
        // X2.46: also where nothing is forwarded.
        if let (Some(socket), None) = (mounts.agents.first(), state.environment.get("SSH_AUTH_SOCK")) {
            env.push(format!("SSH_AUTH_SOCK={socket}"));
        }
        if state.environment.get("PATH").is_none() {
            env.push(DEFAULT_PATH.to_owned());
        }
        let exec = Exec {
            env,
            cwd: absolute(&state.config.config.working_dir),
            user: state.config.config.user.clone(),
            hostname: self.options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned(),
            network: self.network(run, place.span)?,
            insecure: self.insecure(run, place.span)?,
            platform: place.stage().platform.clone(),
            mounts: mounts.list,
            secret_env: mounts.secret_env,
            devices,
            extra_hosts: self.options.extra_hosts.clone(),
            args: args.clone(),
        };
        state.files = self.graph.add(Op::Exec(exec), &inputs, place.name.clone(), Some(place.span));
        let created_by = format!("RUN {}{} # buildkit", declared_args(state), args.join(" "));
        state.config.history.push(history::entry(created_by, false));
        Ok(())
    }

    fn mount(
        &mut self,
        mount: mount::Mount,
        span: Span,
        state: &StageState,
        place: &Place,
        inputs: &mut Vec<VertexId>,
        mounts: &mut Mounts,
    ) -> Result<()> {
        let written_target = mount.target().unwrap_or_default().to_owned();
        let mut target = parser::path::clean(&parser::path::workdir(&state.config.config.working_dir, &written_target));
        // Secrets and agents have targets of their own where none is written.
        let has_default = matches!(mount, mount::Mount::Secret { .. } | mount::Mount::Ssh { .. });
        if target == "/" && !(has_default && written_target.is_empty()) {
            return Err(problem(ErrorRule::InvalidMount, format!("invalid mount target {target:?}"), span));
        }
        let readonly = mount.readonly();
        let kind = match mount {
            mount::Mount::Bind { from, source, .. } => {
                let from = match from.as_deref().filter(|from| !from.is_empty()) {
                    Some(from) => self.mount_origin(from, &target, span, place)?,
                    None => self.main_context().0,
                };
                let source = clean_absolute(source.as_deref().unwrap_or("/"));
                MountKind::Bind { from: input(inputs, from), source }
            }
            mount::Mount::Cache { id, sharing, from, source, mode, uid, gid, .. } => {
                let from = match from.as_deref().filter(|from| !from.is_empty()) {
                    Some(from) => {
                        let origin = self.mount_origin(from, &target, span, place)?;
                        Some(input(inputs, origin))
                    }
                    None => None,
                };
                let namespace = self.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").cloned().unwrap_or_default();
                let id = match &id {
                    Some(id) if !id.is_empty() => id.clone(),
                    _ => parser::path::clean(&written_target),
                };
                self.parameters[place.index].cache(Cache { id: id.clone(), span: place.span });
                MountKind::Cache {
                    id: format!("{namespace}/{id}"),
                    sharing: match sharing {
                        Sharing::Shared => CacheSharing::Shared,
                        Sharing::Private => CacheSharing::Private,
                        Sharing::Locked => CacheSharing::Locked,
                    },
                    from,
                    source: clean_absolute(source.as_deref().unwrap_or("/")),
                    mode: mode.unwrap_or(0o755),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                }
            }
            mount::Mount::Tmpfs { size, .. } => MountKind::Tmpfs { size: size.unwrap_or(0) },
            mount::Mount::Secret { id, env, required, mode, uid, gid, .. } => {
                self.parameters[place.index].secret(Credential { id: id.clone(), required, span: place.span });
                // X2.36, X2.37: a variable takes the place of the file, unless that has a target.
                if written_target.is_empty() && env.is_none() {
                    target = clean_absolute(&format!("run/secrets/{}", parser::path::base(&id)));
                }
                let is_file = !written_target.is_empty() || env.is_none();
                if let Some(name) = env {
                    mounts.secret_env.push(SecretEnv { name, id: id.clone(), required });
                }
                if !is_file {
                    return Ok(());
                }
                let mode = mode.unwrap_or(0o400) & 0o777;
                MountKind::Secret { id, required, mode, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) }
            }
            mount::Mount::Ssh { id, required, mode, uid, gid, .. } => {
                let id = id.unwrap_or_default();
                let name = if id.is_empty() { "default" } else { &id };
                self.parameters[place.index].ssh(Credential { id: name.to_owned(), required, span: place.span });
                if written_target.is_empty() {
                    target = format!("/run/buildkit/ssh_agent.{}", mounts.agents.len());
                }
                mounts.agents.push(target.clone());
                let mode = mode.unwrap_or(0o600) & 0o777;
                MountKind::Ssh { id, required, mode, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) }
            }
        };
        mounts.list.push(Mount { target, readonly, kind });
        Ok(())
    }

    /// What progress expands variables by: those that hold secrets show as `****` (X2.43).
    pub(super) fn masked(&self, run: &Run, environment: &Environment) -> Environment {
        let mut masked = environment.clone();
        for word in &run.mounts {
            let parsed = mount::Mount::parse(&word.value, &mut |text| Ok(self.expander.word(text, environment)?.text));
            if let Ok(mount::Mount::Secret { env: Some(name), .. }) = parsed {
                masked.set(&name, "****");
            }
        }
        masked
    }

    fn mount_origin(&mut self, from: &str, target: &str, span: Span, place: &Place) -> Result<VertexId> {
        match place.stages.origin(from, false, &place.stage().platform, span)? {
            Origin::Stage(index) if index >= place.index => {
                let name = place.stages.display_name(index);
                let message = format!(
                    "cannot mount from stage {name:?} to {target:?}, stage needs to be defined before current command"
                );
                Err(problem(ErrorRule::StageDefinedLater, message, span))
            }
            Origin::Stage(index) => self.stage_files(place, index, span),
            Origin::Scratch => Ok(self.scratch()),
            Origin::Image(image) => self.origin_image(&image, span, place),
            Origin::Context(context) => Ok(self.context_files(&context, span)?.0),
        }
    }

    /// The files of an earlier stage.
    pub(super) fn stage_files(&self, place: &Place, index: usize, span: Span) -> Result<VertexId> {
        match place.states.get(index) {
            Some(Some(state)) => Ok(state.files),
            _ => Err(problem(
                ErrorRule::StageDefinedLater,
                format!("stage {:?} was not prepared", place.stages.display_name(index)),
                span,
            )),
        }
    }

    pub(super) fn origin_image(&mut self, image: &Image, span: Span, place: &Place) -> Result<VertexId> {
        let Some(Some(resolved)) = self.images.get(&image.key()) else { return Ok(self.scratch()) };
        let name = format!("FROM {}@{}", image.reference, resolved.digest);
        let written = image.reference.familiar();
        let finding =
            lint::invalid_base_image_platform::check(&written, &image.platform, &resolved.config, place.span, span);
        self.report(place, finding);
        Ok(self.image_files(image, name, span))
    }

    /// D15.6: the step's own mode, else the build's.
    fn network(&self, run: &Run, span: Span) -> Result<Network> {
        let network = match run.network {
            Some(RunNetwork::None) => Network::None,
            Some(RunNetwork::Host) => Network::Host,
            Some(RunNetwork::Default) | None => self.options.network,
        };
        if network == Network::Host {
            self.require(self.options.entitlements.network_host, "network.host", span)?;
        }
        Ok(network)
    }

    fn insecure(&self, run: &Run, span: Span) -> Result<bool> {
        let insecure = run.security == Some(RunSecurity::Insecure);
        if insecure {
            self.require(self.options.entitlements.security_insecure, "security.insecure", span)?;
        }
        Ok(insecure)
    }

    /// R1.10.2, in BuildKit's words. Only a build needs the entitlement.
    fn require(&self, is_allowed: bool, name: &str, span: Span) -> Result<()> {
        if is_allowed || self.options.purpose != Purpose::Build {
            return Ok(());
        }
        let mut error = problem(ErrorRule::NotAllowed, format!("{name} is not allowed"), span);
        error.notes.push(format!("give the build --allow {name} to allow it"));
        Err(error)
    }
}

/// The position of `vertex` among `inputs`, added where it is new.
pub(super) fn input(inputs: &mut Vec<VertexId>, vertex: VertexId) -> Input {
    // Position 0 is the file system that the step changes: a step may also read it, as an input of its own.
    match inputs.iter().skip(1).position(|known| *known == vertex) {
        Some(position) => position + 1,
        None => {
            inputs.push(vertex);
            inputs.len() - 1
        }
    }
}

/// `|2 A=1 B= `, or nothing where no ARG is declared (D16.7).
fn declared_args(state: &StageState) -> String {
    if state.declared_args.is_empty() {
        return String::new();
    }
    let values = state.declared_args.iter().map(|name| {
        let value = state.environment.get(name).unwrap_or_default();
        format!("{name}={value} ")
    });
    format!("|{} {}", state.declared_args.len(), values.collect::<String>())
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Cleaned below `/`, so that `..` stops there (X3.3).
pub(super) fn clean_absolute(path: &str) -> String {
    parser::path::clean(&format!("/{path}"))
}
