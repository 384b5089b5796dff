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
//! - [`history`]: the history's texts

mod environment;
mod history;
mod run;
mod stage;
mod stages;
mod transfer;

use crate::graph::{Graph, VertexId};
use crate::op::{Network, Op, Source};
use environment::Environment;
use oci::{ImageConfig, Platform, Reference};
use parser::ast::{Dockerfile, Word};
use parser::diagnostic::Diagnostic;
use parser::expand::Expander;
use parser::span::Span;
use stage::StageState;
use stages::Stages;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;

pub type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// What of a build's options decides the graph.
#[derive(Clone, Debug, Default)]
pub struct LowerOptions {
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// `--label`: into the target's config last, without a history entry (D14.8).
    pub labels: BTreeMap<String, String>,
    /// The requested platform; the host's otherwise.
    pub platform: Option<Platform>,
    /// `--network`.
    pub network: Network,
    /// The names of `--add-host`.
    pub extra_hosts: Vec<String>,
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
}

/// Lowers `dockerfile` to the graph of the target stage.
pub async fn lower<R: ImageResolver>(dockerfile: &Dockerfile, options: &LowerOptions, resolver: &R) -> Result<Plan> {
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let mut lowering = Lowering {
        expander: Expander::new(dockerfile.directives.escape),
        global: global_scope(dockerfile, options, &platform)?,
        platform,
        options,
        graph: Graph::default(),
        images: HashMap::new(),
    };
    let mut stages = Stages::new(dockerfile, &lowering.global, &lowering.expander, &lowering.platform, options)?;
    lowering.resolve_bases(&mut stages, resolver).await?;
    lowering.dispatch(&stages)
}

/// The config that a Dockerfile of one stage without files gives, for changing images without building.
pub fn config_of(dockerfile: &Dockerfile) -> Result<ImageConfig> {
    let changes_files = dockerfile.stages.iter().flat_map(|stage| &stage.instructions).find(|instruction| {
        use parser::ast::InstructionKind::{Add, Copy, Run};
        matches!(instruction.kind, Add(_) | Copy(_) | Run(_))
    });
    if let Some(instruction) = changes_files {
        let message = format!("{} cannot be a change of an image's config", instruction.kind.name());
        return Err(problem(message, instruction.span));
    }
    let options = LowerOptions::default();
    let platform = Platform::host();
    let lowering = Lowering {
        expander: Expander::new(dockerfile.directives.escape),
        global: global_scope(dockerfile, &options, &platform)?,
        platform,
        options: &options,
        graph: Graph::default(),
        images: HashMap::new(),
    };
    let stages = Stages::new(dockerfile, &lowering.global, &lowering.expander, &lowering.platform, &options)?;
    Ok(lowering.dispatch(&stages)?.config)
}

/// ARGs before the first FROM, over the platform ARGs (D13.3, D13.11).
fn global_scope(dockerfile: &Dockerfile, options: &LowerOptions, target: &Platform) -> Result<Environment> {
    let host = Platform::host();
    let stage = options.target.clone().or_else(|| {
        let last = dockerfile.stages.last()?;
        last.from.name.as_ref().map(|name| name.value.clone())
    });
    let mut scope = Environment::default();
    for (prefix, platform) in [("BUILD", &host), ("TARGET", target)] {
        scope.set(&format!("{prefix}PLATFORM"), &platform.to_string());
        scope.set(&format!("{prefix}OS"), &platform.os);
        scope.set(&format!("{prefix}OSVERSION"), platform.os_version.as_deref().unwrap_or_default());
        scope.set(&format!("{prefix}ARCH"), &platform.architecture);
        scope.set(&format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or_default());
    }
    scope.set("TARGETSTAGE", stage.as_deref().unwrap_or("default"));
    for name in scope.clone().names() {
        if let Some(value) = options.build_args.get(&name) {
            scope.set(&name, value);
        }
    }
    let expander = Expander::new(dockerfile.directives.escape);
    for instruction in &dockerfile.global_args {
        let parser::ast::InstructionKind::Arg(declarations) = &instruction.kind else { continue };
        for declaration in declarations {
            let value = match (options.build_args.get(&declaration.name.value), &declaration.default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => expand(&expander, default, &scope)?,
                (None, None) => continue,
            };
            scope.set(&declaration.name.value, &value);
        }
    }
    Ok(scope)
}

/// Lowering in progress: what all stages share.
struct Lowering<'a> {
    options: &'a LowerOptions,
    expander: Expander,
    global: Environment,
    /// Of the target.
    platform: Platform,
    graph: Graph,
    images: HashMap<(Reference, Platform), ResolvedImage>,
}

impl Lowering<'_> {
    /// Resolves the images of all needed stages, at the same time. Triggers of an image (ONBUILD) can make further stages
    /// needed, so this goes round until nothing new turns up (D12.20).
    async fn resolve_bases<R: ImageResolver>(&mut self, stages: &mut Stages, resolver: &R) -> Result<()> {
        loop {
            let wanted: Vec<_> =
                stages.needed_images().into_iter().filter(|image| !self.images.contains_key(&image.key())).collect();
            if wanted.is_empty() {
                return Ok(());
            }
            let resolved = futures_util::future::join_all(
                wanted.iter().map(|image| resolver.resolve(&image.reference, &image.platform)),
            )
            .await;
            for (image, resolved) in wanted.into_iter().zip(resolved) {
                let resolved = resolved.map_err(|error| {
                    let message = format!("failed to resolve source metadata for {}: {error}", image.reference);
                    stages.suggest_base(problem(message, image.span), &image.reference)
                })?;
                stages.add_triggers(&image, &resolved.config.config.on_build)?;
                self.images.insert(image.key(), resolved);
            }
        }
    }

    fn dispatch(mut self, stages: &Stages) -> Result<Plan> {
        let mut states: Vec<Option<StageState>> = Vec::with_capacity(stages.len());
        for index in 0..stages.len() {
            let state = if stages.is_needed(index) { Some(self.stage(stages, index, &states)?) } else { None };
            states.push(state);
        }
        let state = states[stages.target()].take().expect("the target is needed");
        let mut config = state.config;
        config.config.labels.extend(self.options.labels.clone());
        if self.options.platform.is_some() {
            config.os.clone_from(&self.platform.os);
            config.architecture.clone_from(&self.platform.architecture);
            config.variant.clone_from(&self.platform.variant);
        }
        Ok(Plan { graph: self.graph, result: state.files, config, base_history: state.base_history })
    }

    /// The files of an image.
    fn image_files(&mut self, image: &stages::Image, name: String, span: Span) -> VertexId {
        let resolved = &self.images[&image.key()];
        if resolved.config.rootfs.diff_ids.is_empty() {
            return self.scratch();
        }
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

    /// The build context.
    fn context(&mut self) -> VertexId {
        let source = Source::Local { name: "context".into() };
        self.graph.add(Op::Source(source), &[], "[internal] load build context", None)
    }
}

fn expand(expander: &Expander, word: &Word, scope: &Environment) -> Result<String> {
    match expander.word(&word.value, scope) {
        Ok(expansion) => Ok(expansion.text),
        Err(error) => Err(problem(error.to_string(), word.span)),
    }
}

/// An error at a place in the Dockerfile.
fn problem(message: impl Into<String>, span: Span) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(message, span))
}

/// Something that Dockerfiles may say and this version cannot do: said, never ignored.
fn unsupported(what: &str, span: Span) -> Box<Diagnostic> {
    problem(format!("{what} is not supported yet by this version of rbuild"), span)
}
