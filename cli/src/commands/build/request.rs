//! From flags to a checked request.

use super::args::BuildArgs;
use super::cache::Caches;
use super::context::{self, MainContext, NamedSpec};
use super::explain::Explain;
use super::{secret, ssh, verify};
use crate::app::{App, reference};
use crate::definition;
use crate::error::{CliError, Result};
use crate::output::{ImageFormat, OutputSpec};
use crate::progress::Mode;
use crate::proxy;
use executor::sandbox::{Dns, ExtraHost};
use executor::source::git::GitKeys;
use executor::ssh::Agents;
use executor::worker::WorkerOptions;
use oci::Platform;
use rustix::termios::isatty;
use solver::entitlements::Entitlements;
use solver::lower::{LowerOptions, NamedContext};
use solver::op::Network;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the flags ask for, checked.
pub struct Request {
    pub context: MainContext,
    pub named_contexts: Vec<(String, NamedSpec)>,
    pub git_keys: GitKeys,
    pub file: Option<PathBuf>,
    pub mode: Mode,
    /// Without the platform.
    pub lower: LowerOptions,
    /// None: this machine's, or what the base image has.
    pub platforms: Vec<Platform>,
    /// The image is an index, over one image for each platform.
    pub as_index: bool,
    pub worker: WorkerOptions,
    pub outputs: Vec<OutputSpec>,
    pub explain: Option<Explain>,
    pub caches: Caches,
}

pub fn request(args: &BuildArgs, app: &App) -> Result<Request> {
    let build_args = definition::build_args(&args.build_args)?;
    let context = MainContext::parse(args.context()?, &build_args)?;
    if context == MainContext::Stdin && args.file.as_deref() == Some(Path::new("-")) {
        return Err(CliError::Usage("standard input cannot be both the context and the Dockerfile".into()));
    }
    let named_contexts =
        args.build_contexts.iter().map(|text| context::parse_named(text)).collect::<Result<Vec<_>>>()?;
    let (secrets, agents) = (secret::secrets(&args.secrets)?, ssh::agents(&args.ssh)?);
    if !args.secrets.is_empty() || !args.ssh.is_empty() {
        // A limit that is refused is one that is there already.
        let _ = executor::sandbox::no_core_files();
    }
    let git_keys = git_keys(&agents, &context, &named_contexts);
    let tags: Vec<String> = args.tags.iter().map(|tag| Ok(reference(tag)?.to_string())).collect::<Result<_>>()?;
    let platforms = match args.platform.is_empty() {
        false => definition::platforms(&args.platform)?,
        true => definition::platforms(app.config.build.platform.as_slice())?,
    };
    if args.wants_shell() && platforms.len() > 1 {
        return Err(CliError::Usage("--shell needs one platform: give --platform one of them".into()));
    }
    let as_index = as_index(&build_args, platforms.len())?;
    let network = args.network.clone().or_else(|| app.config.build.network.clone());
    let network = match network.as_deref() {
        None | Some("default" | "") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            let hint = parser::suggest::closest(["default", "none", "host"], other)
                .map(|mode| format!(" (did you mean {mode}?)"))
                .unwrap_or_default();
            return Err(CliError::Usage(format!("invalid network mode {other:?}{hint}")));
        }
    };
    let mut entitlements = Entitlements::default();
    for text in &args.allow {
        entitlements.allow(text).map_err(|error| CliError::Usage(format!("invalid --allow: {error}")))?;
    }
    // The user asked for it already (R1.9.3).
    entitlements.network_host |= network == Network::Host;
    let devices = entitlements.device.clone();
    let extra_hosts = args.add_hosts.iter().map(|text| text.parse().map_err(CliError::Usage));
    let extra_hosts: Vec<ExtraHost> = extra_hosts.collect::<Result<_>>()?;
    let mode = match args.quiet {
        true => Mode::Quiet,
        false => Mode::parse(args.progress.as_deref().or(app.config.progress.as_deref()).unwrap_or("auto"))?,
    };
    let outputs = outputs(args, &tags, as_index)?;
    let explain = args.explain.as_deref().map(Explain::parse).transpose()?;
    let has_stdout = args.quiet || outputs.iter().any(OutputSpec::is_stdout);
    if has_stdout && explain.as_ref().is_some_and(Explain::is_stdout) {
        let message = "--explain=json writes to standard output, which has something else already: name a file with --explain=json,dest=FILE";
        return Err(CliError::Usage(message.into()));
    }
    let caches = Caches::new(args, &build_args, app)?;
    Ok(Request {
        caches,
        named_contexts,
        git_keys,
        file: args.file.clone(),
        mode,
        worker: WorkerOptions {
            proxies: proxy::proxies(&build_args),
            dns: dns(args)?,
            network: app.default_network(),
            extra_hosts: extra_hosts.clone(),
            devices,
            limits: args.limits.limits()?,
            timeout: args.timeout,
            secrets,
            agents,
            cache_scope: args.verify_reproducible.then(verify::scope),
            keep_failed: args.debug_on_failure,
        },
        lower: LowerOptions {
            target: args.target()?.map(str::to_owned),
            no_cache_filter: args.no_cache_filter.clone(),
            build_args,
            labels: labels(&args.labels)?,
            names_platform: platforms.len() > 1,
            network,
            entitlements,
            main_source: context.source(),
            extra_hosts: extra_hosts.iter().map(|host| host.name.clone()).collect(),
            ..LowerOptions::default()
        },
        context,
        outputs,
        explain,
        platforms,
        as_index,
    })
}

/// R1.4.6.
fn dns(args: &BuildArgs) -> Result<Dns> {
    let servers = args.dns.iter().map(|text| {
        text.parse()
            .map_err(|_| CliError::Usage(format!("invalid --dns {text:?}: expected the IP address of a server")))
    });
    for (flag, words) in [("--dns-search", &args.dns_search), ("--dns-option", &args.dns_options)] {
        if let Some(word) = words.iter().find(|word| word.is_empty() || word.contains(char::is_whitespace)) {
            return Err(CliError::Usage(format!("invalid {flag} {word:?}: expected one word")));
        }
    }
    let (search, options) = (args.dns_search.clone(), args.dns_options.clone());
    Ok(Dns { servers: servers.collect::<Result<_>>()?, search, options })
}

/// R4.6.4: several platforms make an index, and for one the build argument can ask for it.
fn as_index(build_args: &BTreeMap<String, String>, platforms: usize) -> Result<bool> {
    const NAME: &str = "BUILDKIT_MULTI_PLATFORM";
    let Some(given) = build_args.get(NAME).filter(|given| !given.is_empty()) else { return Ok(platforms > 1) };
    match parser::boolean::boolean(given) {
        Some(false) if platforms > 1 => {
            let message = format!("{NAME}=false cannot be with {platforms} platforms: they are an image index");
            Err(CliError::Usage(message))
        }
        Some(wanted) => Ok(wanted),
        None => Err(CliError::Usage(format!("invalid {NAME} {given:?}: expected true or false"))),
    }
}

/// Repositories that the user names on the command line may have the keys of the user's agent without `--ssh`.
fn git_keys(agents: &Agents, context: &MainContext, named: &[(String, NamedSpec)]) -> GitKeys {
    let contexts = named.iter().filter_map(|(_, spec)| match spec {
        NamedSpec::Ready(NamedContext::Git(git)) => Some(git.remote.clone()),
        _ => None,
    });
    let main = match context {
        MainContext::Git(git) => Some(git.remote.clone()),
        _ => None,
    };
    GitKeys { agents: agents.clone(), own: ssh::own_agent(), named: contexts.chain(main).collect() }
}

/// R5.4 to R5.7.
fn outputs(args: &BuildArgs, tags: &[String], as_index: bool) -> Result<Vec<OutputSpec>> {
    if args.wants_shell() {
        return Ok(Vec::new());
    }
    let mut outputs: Vec<OutputSpec> =
        args.outputs.iter().map(|text| OutputSpec::parse(text).map_err(CliError::Usage)).collect::<Result<_>>()?;
    let has_image = |outputs: &[OutputSpec]| outputs.iter().any(|output| matches!(output, OutputSpec::Image { .. }));
    if outputs.is_empty() || ((args.push || args.load) && !has_image(&outputs)) {
        outputs.push(OutputSpec::Image { names: Vec::new(), push: false, format: ImageFormat::PLAIN });
    }
    if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(CliError::Usage("only one output can go to standard output".into()));
    }
    if outputs.iter().any(OutputSpec::is_stdout) && isatty(std::io::stdout()) {
        return Err(CliError::Usage("an archive is not written to a terminal: give the output a dest".into()));
    }
    let mut named = Vec::with_capacity(outputs.len());
    for output in outputs {
        let mut output = output.with_names(tags);
        match &mut output {
            OutputSpec::Image { names, push, .. } => {
                *push |= args.push;
                *names = names.iter().map(|name| Ok(reference(name)?.to_string())).collect::<Result<_>>()?;
                if *push && names.is_empty() {
                    return Err(CliError::Usage("tag is needed when pushing to registry: use -t NAME".into()));
                }
            }
            // As docker buildx says it (R5.9.6).
            OutputSpec::Archive { docker: true, .. } if as_index => {
                let message = "docker exporter does not currently support exporting manifest lists: build one platform, or \
                               use type=oci";
                return Err(CliError::Usage(message.into()));
            }
            OutputSpec::Archive { names, .. } | OutputSpec::Layout { names, .. } => {
                *names = names.iter().map(|name| Ok(reference(name)?.to_string())).collect::<Result<_>>()?;
            }
            _ => {}
        }
        named.push(output);
    }
    if args.iidfile.is_some() && !named.iter().any(OutputSpec::is_image) {
        return Err(CliError::Usage("--iidfile needs an output that is an image".into()));
    }
    Ok(named)
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = given.iter().map(|text| match text.split_once('=') {
        Some(("", _)) => Err(CliError::Usage(format!("invalid label {text:?}: it has no name"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.clone(), String::new())),
    });
    pairs.collect()
}
