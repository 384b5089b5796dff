//! The flags of `rbuild build`, as docker buildx spells them.

use crate::commands::call::Call;
use crate::config::BuildConfig;
use crate::error::{CliError, Result};
use crate::limits::{self, LimitArgs};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Args)]
pub struct BuildArgs {
    /// The build context: a directory, a tar archive, a URL, a git repository (URL#REF:DIR), or `-` for standard input
    #[arg(value_name = "PATH | URL | -", required_unless_present = "shell")]
    context: Option<PathBuf>,

    /// Name of the image, with or without a tag
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,

    /// The Dockerfile (default: PATH/Dockerfile): a file, a URL, or `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The stage to build (default: the last one)
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// Run every step, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,

    /// Run at most so many RUN and COPY steps at a time; 0 for no limit (the default, unless the configuration has max-parallelism)
    #[arg(long, value_name = "N")]
    max_parallelism: Option<usize>,

    /// Run every step of these stages, by name or number, whatever the cache holds
    #[arg(long, value_name = "STAGE[,STAGE]", value_delimiter = ',', conflicts_with = "no_cache")]
    pub no_cache_filter: Vec<String>,

    /// A remote cache to take results of steps from, after the store: an image name, or `type=registry,ref=NAME`, `type=local,src=DIR`, `type=s3,bucket=NAME`,
    /// `type=gha`. Several are asked in this order. One that cannot be read is left out. With `cache-mounts=true`, directories of RUN --mount=type=cache that are empty
    /// here are filled from it
    #[arg(long, value_name = "NAME | type=TYPE[,KEY=VALUE]")]
    pub cache_from: Vec<String>,

    /// Write a remote cache when the build is done: an image name, or `type=registry,ref=NAME`, `type=local,dest=DIR`, `type=inline`, `type=s3,bucket=NAME`,
    /// `type=gha`. With `mode=max` it has the layers of all steps rather than just those of the result, with `cache-mounts=true` the directories of
    /// RUN --mount=type=cache too, of which only changes are sent
    #[arg(long, value_name = "NAME | type=TYPE[,KEY=VALUE]")]
    pub cache_to: Vec<String>,

    /// Ask the registry for base images, whatever the store holds
    #[arg(long)]
    pub pull: bool,

    /// Build twice without the cache and compare: the result is only handed on if it is the same both times. Otherwise the differing files are told
    #[arg(long, conflicts_with = "shell")]
    pub verify_reproducible: bool,

    /// Fail if the lock file lacks something that the build takes: `rbuild lock` writes it
    #[arg(long)]
    pub locked: bool,

    /// The platforms to build for; several, also in a list, make an image index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Vec<String>,

    /// How progress is shown: auto, plain, tty, rawjson, quiet or none
    #[arg(long, value_name = "MODE", env = "BUILDKIT_PROGRESS")]
    pub progress: Option<String>,

    /// What becomes of the result, such as `type=oci,dest=image.tar`
    #[arg(short, long = "output", value_name = "SPEC")]
    pub outputs: Vec<String>,

    /// Push the image to its registry
    #[arg(long)]
    pub push: bool,

    /// Put the image into the store (the default)
    #[arg(long)]
    pub load: bool,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// Write facts about the result to a JSON file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,

    /// Say why each step ran that did: as text after the build, or as one JSON document on standard output or in a file
    #[arg(long, value_name = "FORMAT[,dest=FILE]", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub explain: Option<String>,

    /// Write one page about the build, also if it fails: a timeline with the critical path, the graph, each step's log and why it ran, and what the layers hold
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub quiet: bool,

    /// Add a label to the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,

    /// The network of RUN steps: default, none or host. By default root's steps have the host's; other users' have one of their own, which
    /// reaches out through pasta but not to the host's loopback, and the host's only where pasta cannot be had
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,

    /// Let RUN steps do more than the sandbox does: network.host, security.insecure, device[=NAME]; with commas between them, or repeated
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,

    /// A context by name, in place of a stage or an image of that name: a directory, docker-image://, oci-layout://, target:, https:// or git
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub build_contexts: Vec<String>,

    /// A secret for RUN --mount=type=secret: `id=ID,src=FILE`, `id=ID,env=NAME`, `id=ID,command=SHELL COMMAND`, or `id=ID` for the variable or else the file of that name
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|env=NAME|command=COMMAND]")]
    pub secrets: Vec<String>,

    /// Let RUN --mount=type=ssh and ADD of git repositories ask for signatures: of the agent of SSH_AUTH_SOCK, of another one, or by key files
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,

    /// Add a line to /etc/hosts of RUN steps; host-gateway stands for the host's address
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub add_hosts: Vec<String>,

    /// DNS server of RUN steps, in place of the host's
    #[arg(long, value_name = "IP")]
    pub dns: Vec<String>,

    /// Domain in which RUN steps look names up, in place of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,

    /// Option of resolv.conf(5) for RUN steps, in place of the host's
    #[arg(long = "dns-option", value_name = "OPTION")]
    pub dns_options: Vec<String>,

    /// Ask about the Dockerfile instead of building: check, outline, targets; with `,format=json`
    #[arg(long, value_name = "METHOD")]
    pub call: Option<String>,

    /// The same as --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_possible_values = true, hide_default_value = true)]
    pub check: bool,

    /// End a RUN step that takes longer, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = limits::duration, help_heading = "Limits")]
    pub timeout: Option<Duration>,

    /// When a RUN step fails, open a shell in its state: its files, mounts, variables, user and directory. Without a terminal the shell reads commands from
    /// standard input
    #[arg(long, help_heading = "Debugging")]
    pub debug_on_failure: bool,

    /// Build up to a stage (default: the target) and open a shell in it instead of making an image
    #[arg(long, value_name = "STAGE", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["outputs", "push", "load", "iidfile", "metadata_file"], help_heading = "Debugging")]
    shell: Option<String>,

    /// The program to start as the shell (default: the stage's SHELL, sh, bash, or that of busybox)
    #[arg(long, value_name = "PROGRAM", help_heading = "Debugging")]
    pub debug_shell: Option<String>,

    /// Of each RUN step
    #[command(flatten)]
    pub limits: LimitArgs,

    #[command(flatten)]
    pub compatibility: Compatibility,
}

/// Flags of other builders: those without effect are taken and ignored, the others are refused by name.
#[derive(Args)]
pub struct Compatibility {
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: Option<String>,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sbom: Option<String>,
    #[arg(long, hide = true)]
    attest: Vec<String>,
    #[arg(long, hide = true)]
    annotation: Vec<String>,
    #[arg(long, hide = true)]
    squash: bool,
}

impl BuildArgs {
    /// What stands alone after `--shell` is the context rather than a stage.
    pub fn context(&self) -> Result<&Path> {
        match (&self.context, &self.shell) {
            (Some(context), _) => Ok(context),
            (None, Some(context)) if !context.is_empty() => Ok(Path::new(context)),
            _ => Err(CliError::Usage("there is no build context: give a directory, such as `.`".into())),
        }
    }

    /// The stage to build, unless it is the last one.
    pub fn target(&self) -> Result<Option<&str>> {
        let stage = self.shell.as_deref().filter(|stage| self.context.is_some() && !stage.is_empty());
        match (stage, self.target.as_deref()) {
            (Some(stage), Some(target)) if stage != target => {
                Err(CliError::Usage(format!("--shell={stage} and --target={target} are different stages")))
            }
            (stage, target) => Ok(stage.or(target)),
        }
    }

    /// How many steps run at a time, if that is limited.
    pub fn max_parallelism(&self, config: &BuildConfig) -> Option<NonZeroUsize> {
        self.max_parallelism.or(config.max_parallelism).and_then(NonZeroUsize::new)
    }

    /// Whether a shell is wanted in what was built.
    pub fn wants_shell(&self) -> bool {
        self.shell.is_some()
    }

    /// What is asked for instead of a build.
    pub fn call(&self) -> Result<Option<Call>> {
        match self.call.as_deref().map(Call::parse).transpose()?.flatten() {
            None if self.check => Call::parse("check"),
            call => Ok(call),
        }
    }

    /// Refuses flags that this version does not have yet: ignoring them would build something else.
    pub fn reject_unsupported(&self) -> Result<()> {
        let flags = &self.compatibility;
        let wanted = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false" && value != "0");
        let unsupported = [
            ("--provenance", wanted(&flags.provenance)),
            ("--sbom", wanted(&flags.sbom)),
            ("--attest", !flags.attest.is_empty()),
            ("--annotation", !flags.annotation.is_empty()),
            ("--squash", flags.squash),
        ];
        match unsupported.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(CliError::Usage(format!("{flag} is not supported yet by this version of rbuild"))),
            None => Ok(()),
        }
    }
}
