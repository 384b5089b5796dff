//! From a syntax tree to a graph of ops and an image config.
//!
//! Lowering walks the stages that the target needs, in file order. A stage begins with what its base gives (files, config,
//! environment) and each instruction changes that: metadata instructions the config, RUN, COPY, ADD and WORKDIR also the
//! graph. Every instruction leaves a history entry. Nothing runs and no file is read: the only question to the outside is what
//! a base image's config says, by way of [`ImageResolver`].
//!
//! - [`stages`]: names, bases, which stages the target needs
//! - [`stage`]: the state of one stage, and the instructions that only change its config
//! - [`run`], [`transfer`]: RUN; COPY and ADD
//! - [`epoch`] for SOURCE_DATE_EPOCH
//! - [`history`]: the history's texts
//! - [`several`]: several platforms at once
//! - [`lint`]: build checks
//!
//! An error does not end the walk: the instruction that is wrong changes nothing, and what else is wrong is found too.
//! Only what all the rest depends on ends it: the target, a cycle, a base image.

mod context;
mod environment;
mod epoch;
mod globals;
mod history;
mod lint;
mod run;
mod several;
mod stage;
mod stages;
mod transfer;

use crate::entitlements::Entitlements;
use crate::graph::{Graph, VertexId};
use crate::lock::{Key, Lock, Lockable};
use crate::op::{Network, Op, Source};
use crate::outline::{Outline, Parameters};
pub use context::{NamedContext, NamedContexts, git_op};
use environment::Environment;
use globals::Globals;
use lint::Lints;
use oci::{ImageConfig, Platform, Reference};
use parser::ast::{Dockerfile, InstructionKind, Word};
use parser::diagnostic::Diagnostic;
use parser::expand::{ExpandError, ExpandReason, Expander, Expansion};
use parser::span::Span;
use parser::{ErrorRule, IgnoreFile};
pub use several::{LoweredAll, Plans, Target, lower_all};
use stage::{Place, StageState};
use stages::Stages;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

pub type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// What lowering is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    #[default]
    Build,
    /// Finding out what is wrong: without a target in all stages (D12.23). A base image that cannot be asked about is taken as an
    /// empty one, and what this version cannot run is no error.
    Check,
    /// Finding out what the target can be given; tolerant as a check is.
    Outline,
    /// Finding out what the stages name that can be locked: without a target all of them. Nothing will run.
    Lock,
}

impl Purpose {
    /// Whether it is an error if nothing can be known of a base image.
    fn needs_images(self) -> bool {
        matches!(self, Purpose::Build | Purpose::Lock)
    }
}

/// What of a build's options decides the graph.
#[derive(Clone, Debug, Default)]
pub struct LowerOptions {
    pub purpose: Purpose,
    pub target: Option<String>,
    /// `--no-cache-filter`: names or positions of stages.
    pub no_cache_filter: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    /// `--label`: into the target's config last, without a history entry (D14.8).
    pub labels: BTreeMap<String, String>,
    /// The requested platform; the host's otherwise.
    pub platform: Option<Platform>,
    /// There are other platforms beside this one: names of steps begin with theirs (X5.14).
    pub names_platform: bool,
    /// `--network`.
    pub network: Network,
    /// `--allow`.
    pub entitlements: Entitlements,
    /// The names of `--add-host`.
    pub extra_hosts: Vec<String>,
    /// What the context leaves out, for the check of it.
    pub ignore: Option<IgnoreFile>,
    /// The files of the build context have owners of their own, as those of an archive or a repository do (D18.27).
    pub context_has_owners: bool,
    /// `--build-context`.
    pub contexts: NamedContexts,
    /// What references are held to.
    pub lock: Option<Arc<Lock>>,
    /// Where the build context comes from, if it has a time of its own: what `SOURCE_DATE_EPOCH=context` means.
    pub main_source: Option<Source>,
}

/// A base image as a registry or the local store knows it.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest of the manifest for the wanted platform.
    pub manifest: oci::Digest,
    /// What the name stood for, perhaps an index: shown to the user.
    pub digest: oci::Digest,
    pub config: ImageConfig,
}

/// Asks what an image name stands for.
pub trait ImageResolver: Sync {
    type Error: std::fmt::Display;

    fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> impl Future<Output = std::result::Result<ResolvedImage, Self::Error>> + Send;

    /// When the content of a URL or a repository is from, in seconds since 1970, where that is known.
    fn source_time(
        &self,
        source: &Source,
    ) -> impl Future<Output = std::result::Result<Option<i64>, Self::Error>> + Send {
        let _ = source;
        async { Ok(None) }
    }

    /// Whether the error says that there is no such image for this user, rather than that nobody could be asked.
    fn is_definite(&self, error: &Self::Error) -> bool {
        let _ = error;
        true
    }
}

/// What to run, and the config of the image that comes out.
pub struct Plan {
    pub graph: Graph,
    /// The target's files.
    pub result: VertexId,
    /// Complete but for the layers' diff ids and the times.
    pub config: ImageConfig,
    /// How many leading history entries are the base image's: their times stay.
    pub base_history: usize,
    /// What the build can be given.
    pub outline: Outline,
    /// `SOURCE_DATE_EPOCH`, in seconds: the time of the image and of its new history entries (D13.15).
    pub epoch: Option<i64>,
}

/// What lowering gives, with and without a plan.
pub struct Lowered {
    /// All errors, the one first that BuildKit reports.
    pub plan: std::result::Result<Plan, Vec<Diagnostic>>,
    /// Build checks that count, in file order (D21).
    pub warnings: Vec<Diagnostic>,
    /// `error=true`: a build with warnings fails before anything runs (D21.2).
    pub warnings_are_errors: bool,
    /// What was taken that a lock can hold, whether it does or not.
    pub lockable: BTreeMap<Key, Lockable>,
    /// With [`Purpose::Check`]: base images that nobody could be asked about, and why.
    pub unresolved: Vec<(String, String)>,
}

/// Lowers `dockerfile` to the graph of the target stage.
pub async fn lower<R: ImageResolver>(dockerfile: &Dockerfile, options: &LowerOptions, resolver: &R) -> Lowered {
    let failed = |error: Box<Diagnostic>| {
        let plan = Err(vec![*error]);
        Lowered {
            plan,
            warnings: Vec::new(),
            warnings_are_errors: false,
            lockable: BTreeMap::new(),
            unresolved: Vec::new(),
        }
    };
    let dated = match epoch::resolved(dockerfile, options, resolver).await {
        Ok(dated) => dated,
        Err(error) => return failed(error),
    };
    let mut lowering = match Lowering::new(dockerfile, dated.as_ref().unwrap_or(options)) {
        Ok(lowering) => lowering,
        Err(error) => return failed(error),
    };
    let plan = match lowering.run_all(dockerfile, resolver).await {
        Ok(plan) if lowering.errors.is_empty() => Ok(plan),
        Ok(_) => Err(lowering.errors),
        Err(error) => {
            lowering.errors.push(*error);
            Err(lowering.errors)
        }
    };
    Lowered {
        plan,
        warnings_are_errors: lowering.lints.are_errors(),
        warnings: lowering.lints.into_findings(),
        lockable: lowering.lockable,
        unresolved: lowering.unresolved,
    }
}

/// The config that a Dockerfile of one stage without files gives, for changing images without building.
pub fn config_of(dockerfile: &Dockerfile) -> Result<ImageConfig> {
    refuse_file_changes(dockerfile)?;
    let options = LowerOptions::default();
    let mut lowering = Lowering::new(dockerfile, &options)?;
    let stages = Stages::new(dockerfile, &mut lowering)?;
    let plan = lowering.dispatch(&stages);
    match lowering.errors.into_iter().next() {
        Some(error) => Err(Box::new(error)),
        None => Ok(plan.config),
    }
}

/// For Dockerfiles that may only change an image's config: one stage, and no instruction that changes files.
pub fn refuse_file_changes(dockerfile: &Dockerfile) -> Result<()> {
    if let Some(stage) = dockerfile.stages.get(1) {
        return Err(problem(ErrorRule::NotAllowed, "FROM cannot be a change of an image's config", stage.from.span));
    }
    let changes_files = dockerfile.stages.iter().flat_map(|stage| &stage.instructions).find(|instruction| {
        use InstructionKind::{Add, Copy, Run};
        matches!(instruction.kind, Add(_) | Copy(_) | Run(_))
    });
    if let Some(instruction) = changes_files {
        let message = format!("{} cannot be a change of an image's config", instruction.kind.name());
        return Err(problem(ErrorRule::NotAllowed, message, instruction.span));
    }
    Ok(())
}

/// Lowering in progress: what all stages share.
struct Lowering<'a> {
    options: &'a LowerOptions,
    expander: Expander,
    globals: Globals,
    /// As `globals`, had there been no build args.
    default_globals: Option<Globals>,
    /// Of the target.
    platform: Platform,
    /// `SOURCE_DATE_EPOCH`.
    epoch: Option<i64>,
    graph: Graph,
    /// `None`: nothing is known of the image.
    images: HashMap<(Reference, Platform), Option<ResolvedImage>>,
    lockable: BTreeMap<Key, Lockable>,
    unresolved: Vec<(String, String)>,
    lints: Lints,
    /// What each stage takes, by its position.
    parameters: Vec<Parameters>,
    errors: Vec<Diagnostic>,
}

impl<'a> Lowering<'a> {
    fn new(dockerfile: &Dockerfile, options: &'a LowerOptions) -> Result<Self> {
        let lints = Lints::new(dockerfile, options)?;
        let expander = Expander::new(dockerfile.directives.escape);
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut globals = Globals::of_platform(dockerfile, options, &platform);
        let mut default_globals = globals.clone();
        globals.declare(dockerfile, &expander, &options.build_args)?;
        let has_defaults = default_globals.declare(dockerfile, &expander, &BTreeMap::new()).is_ok();
        Ok(Lowering {
            options,
            expander,
            globals,
            default_globals: has_defaults.then_some(default_globals),
            platform,
            epoch: None,
            graph: Graph::default(),
            images: HashMap::new(),
            lockable: BTreeMap::new(),
            unresolved: Vec::new(),
            lints,
            parameters: Vec::new(),
            errors: Vec::new(),
        })
    }

    async fn run_all<R: ImageResolver>(&mut self, dockerfile: &Dockerfile, resolver: &R) -> Result<Plan> {
        match self.epoch() {
            Ok(epoch) => self.epoch = epoch,
            Err(error) => self.errors.push(*error),
        }
        let mut stages = Stages::new(dockerfile, self)?;
        self.resolve_bases(&mut stages, resolver).await?;
        let mut plan = self.dispatch(&stages);
        let target = &dockerfile.stages[stages.target()].from;
        plan.outline.name = target.name.as_ref().map(|name| name.value.clone());
        plan.outline.description = target.description().map(str::to_owned);
        Ok(plan)
    }

    /// Resolves the images of all needed stages, at the same time. Triggers of an image (ONBUILD) can make further stages
    /// needed, so this goes round until nothing new turns up (D12.20).
    async fn resolve_bases<R: ImageResolver>(&mut self, stages: &mut Stages, resolver: &R) -> Result<()> {
        loop {
            let mut wanted = stages.needed_images();
            wanted.retain(|image| !self.images.contains_key(&image.key()));
            wanted.retain(|image| match self.options.contexts.stored(&image.reference) {
                Some(stored) => {
                    self.images.insert(image.key(), Some(stored.clone()));
                    false
                }
                None => true,
            });
            if wanted.is_empty() {
                return Ok(());
            }
            let held: Vec<Reference> = wanted.iter().map(|image| self.held_image(&image.reference)).collect();
            let resolved = wanted.iter().zip(&held).map(|(image, held)| resolver.resolve(held, &image.platform));
            let resolved = futures_util::future::join_all(resolved).await;
            let mut failures = Vec::new();
            for ((image, held), resolved) in wanted.into_iter().zip(held).zip(resolved) {
                match resolved {
                    Ok(resolved) => {
                        stages.add_triggers(&image, &resolved.config.config.on_build)?;
                        self.images.insert(image.key(), Some(resolved));
                    }
                    Err(error) if self.options.purpose.needs_images() || resolver.is_definite(&error) => {
                        let name = image.reference.familiar();
                        let message = format!("{name}: failed to resolve source metadata for {held}: {error}");
                        let mut error =
                            problem(ErrorRule::UnresolvedImage, message, image.span).with_focus(image.focus);
                        if held != image.reference {
                            error.notes.push(
                                "the digest is that of the lock file: `rbuild lock --update` looks the name up again"
                                    .into(),
                            );
                        }
                        failures.push(*stages.suggest_base(Box::new(error), &image.reference));
                        self.images.insert(image.key(), None);
                    }
                    Err(error) => {
                        self.unresolved.push((image.reference.to_string(), error.to_string()));
                        self.images.insert(image.key(), None);
                    }
                }
            }
            let failed = failures.len();
            self.errors.extend(failures);
            // Without the images' environments, more would be found wrong than is.
            if failed > 0
                && self.options.purpose.needs_images()
                && let Some(last) = self.errors.pop()
            {
                return Err(Box::new(last));
            }
        }
    }

    /// The reference, at the digest that the lock holds it to.
    fn held_image(&mut self, reference: &Reference) -> Reference {
        self.note(Lockable::image(reference));
        let held = self.options.lock.as_ref().and_then(|lock| lock.held_image(reference));
        held.unwrap_or_else(|| reference.clone())
    }

    fn note(&mut self, lockable: Option<Lockable>) {
        if let Some(lockable) = lockable {
            self.lockable.insert(lockable.key(), lockable);
        }
    }

    /// Lowers the needed stages. With errors, the plan is not to be used.
    fn dispatch(&mut self, stages: &Stages) -> Plan {
        let mut states: Vec<Option<StageState>> = Vec::with_capacity(stages.len());
        for index in 0..stages.len() {
            let state = stages.is_needed(index).then(|| self.stage(stages, index, &states));
            states.push(state);
        }
        let state = states[stages.target()].take().expect("the target is needed");
        let mut config = state.config;
        config.config.labels.extend(self.options.labels.clone());
        if self.options.platform.is_some() {
            request_platform(&mut config, &self.platform);
        }
        let outline = Outline::of(stages.all_dependencies(stages.target()).map(|index| &self.parameters[index]));
        let graph = std::mem::take(&mut self.graph);
        Plan { graph, result: state.files, config, base_history: state.base_history, outline, epoch: self.epoch }
    }

    /// The files of an image.
    fn image_files(&mut self, image: &stages::Image, name: String, span: Span) -> VertexId {
        let known = self.images.get(&image.key()).and_then(Option::as_ref);
        let Some(resolved) = known.filter(|resolved| !resolved.config.rootfs.diff_ids.is_empty()) else {
            return self.scratch();
        };
        let source = Source::Image {
            reference: image.reference.to_string(),
            manifest: resolved.manifest,
            platform: image.platform.clone(),
        };
        self.graph.add(Op::Source(source), &[], name, Some(span))
    }

    fn scratch(&mut self) -> VertexId {
        self.graph.add(Op::Source(Source::Scratch), &[], "scratch", None)
    }

    /// Expands a word of an instruction. Variables that are not set are reported (D10.7).
    fn expand(&mut self, word: &Word, state: &StageState, place: &Place) -> Result<String> {
        let expansion = expand(&self.expander, word, &state.environment)?;
        self.report_unset(&expansion, word, state, place);
        Ok(expansion.text)
    }

    fn report_unset(&mut self, expansion: &Expansion, word: &Word, state: &StageState, place: &Place) {
        for name in &expansion.unset {
            self.report(place, lint::undefined_var::check(name, word, state, place.span));
        }
    }

    /// Notes findings about the instruction at `place`.
    fn report(&mut self, place: &Place, findings: impl IntoIterator<Item = Diagnostic>) {
        for finding in findings {
            self.lints.report(place.comments, finding);
        }
    }
}

/// D16.5: what the request says; beyond that, a base image of the same kind knows better.
fn request_platform(config: &mut ImageConfig, wanted: &Platform) {
    let is_same_kind = (&config.os, &config.architecture) == (&wanted.os, &wanted.architecture);
    config.os.clone_from(&wanted.os);
    config.architecture.clone_from(&wanted.architecture);
    if wanted.variant.is_some() || !is_same_kind {
        config.variant.clone_from(&wanted.variant);
    }
    if wanted.os_version.is_some() || !is_same_kind {
        config.os_version.clone_from(&wanted.os_version);
    }
}

fn expand(expander: &Expander, word: &Word, scope: &Environment) -> Result<Expansion> {
    expander.word(&word.value, scope).map_err(|error| expansion_problem(&error, word.span))
}

/// What is wrong with a word.
fn expansion_problem(error: &ExpandError, span: Span) -> Box<Diagnostic> {
    let rule = match error.reason {
        ExpandReason::Required { .. } => ErrorRule::VariableRequired,
        _ => ErrorRule::InvalidExpansion,
    };
    problem(rule, error.to_string(), span)
}

/// An error at a place in the Dockerfile.
fn problem(rule: ErrorRule, message: impl Into<String>, span: Span) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(rule, message, span))
}
