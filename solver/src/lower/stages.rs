//! The stages of a Dockerfile: what their names and bases mean, and which of them the target needs (D12).
//!
//! Names are looked up by rules that differ with the place (D12.4, D12.7, D18.8, D17.10): FROM sees the latest earlier stage of
//! exactly that name; `COPY --from` and `--target` see the last definition in the file, whatever the case; only `COPY --from`
//! knows positions.

use super::context::{ContextFiles, NamedContexts};
use super::{Lowering, Purpose, Result, expand, lint, problem};
use crate::outline::Parameters;
use oci::{Platform, Reference};
use parser::ErrorRule;
use parser::ast::{self, Dockerfile, From, Instruction, InstructionKind, Word};
use parser::diagnostic::Diagnostic;
use parser::expand::Expansion;
use parser::span::Span;
use std::collections::HashSet;

/// Bases that a mistyped name may have meant (D12.16).
const COMMON_IMAGES: [&str; 6] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu"];

pub struct Stages {
    stages: Vec<Stage>,
    target: usize,
    needed: Vec<bool>,
    /// Those of `--no-cache-filter`.
    ignoring: Vec<bool>,
    contexts: NamedContexts,
}

pub struct Stage {
    pub base: Base,
    /// Lower-cased.
    pub name: Option<String>,
    /// Where the stage's steps run.
    pub platform: Platform,
    pub from_span: Span,
    /// FROM as written.
    pub from_text: String,
    /// The base's name as written.
    pub image: Word,
    /// The comments above FROM.
    pub comments: Vec<String>,
    /// ONBUILD instructions of the base, then the stage's own. None where a named context stands in for the stage.
    pub instructions: Vec<StageInstruction>,
    is_replaced: bool,
}

pub struct StageInstruction {
    pub instruction: Instruction,
    /// Where the user sees it: the FROM line for a trigger (D15.58).
    pub span: Span,
    pub is_trigger: bool,
}

#[derive(Clone, Debug)]
pub enum Base {
    Scratch,
    Stage(usize),
    Image(Box<Image>),
    Context(ContextFiles),
}

/// An image that a stage is based on or takes files from.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: Reference,
    pub platform: Platform,
    /// The instruction that names it, and the word that does.
    pub span: Span,
    pub focus: Span,
}

impl Image {
    pub fn key(&self) -> (Reference, Platform) {
        (self.reference.clone(), self.platform.clone())
    }
}

/// What a `--from` or `from=` names.
#[derive(Clone, Debug)]
pub enum Origin {
    Stage(usize),
    Image(Box<Image>),
    Scratch,
    Context(ContextFiles),
}

impl Stages {
    pub(super) fn new(dockerfile: &Dockerfile, lowering: &mut Lowering) -> Result<Self> {
        let target_platform = lowering.platform.clone();
        let mut stages: Vec<Stage> = Vec::with_capacity(dockerfile.stages.len());
        for stage in &dockerfile.stages {
            let from = &stage.from;
            let mut parameters = lowering.globals.parameters.clone();
            let (base, mut platform) = match lowering.from(from, &stages, &mut parameters) {
                Ok(base) => base,
                // What else is wrong with the stage can be said without its base.
                Err(mut error) => {
                    error.span = from.span;
                    lowering.errors.push(*error);
                    (Base::Scratch, target_platform.clone())
                }
            };
            lowering.parameters.push(parameters);
            let name = from.name.as_ref().map(|name| name.value.clone());
            let replacement = match &name {
                Some(name) => lowering.context_base_of(name, &stages, &platform, from)?,
                None => None,
            };
            let is_replaced = replacement.is_some();
            let base = replacement.unwrap_or(base);
            let mut instructions = Vec::new();
            match &base {
                Base::Stage(parent) => {
                    platform = stages[*parent].platform.clone();
                    for text in onbuild_triggers(&dockerfile.stages[*parent]).into_iter().filter(|_| !is_replaced) {
                        instructions.push(trigger(&text, from.span)?);
                    }
                }
                Base::Scratch | Base::Context(_) => platform = target_platform.clone(),
                Base::Image(_) => {}
            }
            let own = stage.instructions.iter().filter(|_| !is_replaced);
            instructions.extend(own.map(|instruction| StageInstruction {
                instruction: instruction.clone(),
                span: instruction.span,
                is_trigger: false,
            }));
            let (image, comments) = (from.image.clone(), from.comments.clone());
            stages.push(Stage {
                base,
                name,
                platform,
                from_span: from.span,
                from_text: from.text.clone(),
                image,
                comments,
                instructions,
                is_replaced,
            });
        }
        let target = target(&stages, lowering.options.target.as_deref(), dockerfile)?;
        let contexts = lowering.options.contexts.clone();
        let ignoring = ignoring(&stages, &lowering.options.no_cache_filter, dockerfile)?;
        let mut this = Stages { needed: vec![false; stages.len()], stages, target, ignoring, contexts };
        this.reject_cycles()?;
        match (lowering.options.purpose, &lowering.options.target) {
            (Purpose::Check | Purpose::Lock, None) => this.needed.fill(true),
            _ => this.mark_needed(target),
        }
        Ok(this)
    }

    pub fn len(&self) -> usize {
        self.stages.len()
    }

    /// A stage and all that it takes from, each once, the nearer before the farther.
    pub fn all_dependencies(&self, index: usize) -> impl Iterator<Item = usize> {
        let mut found = vec![index];
        let mut next = 0;
        while let Some(index) = found.get(next) {
            for dependency in self.dependencies(*index) {
                if !found.contains(&dependency) {
                    found.push(dependency);
                }
            }
            next += 1;
        }
        found.into_iter()
    }

    pub fn target(&self) -> usize {
        self.target
    }

    pub fn is_needed(&self, index: usize) -> bool {
        self.needed[index]
    }

    /// Whether the stage's steps run whatever the index knows.
    pub fn ignores_cache(&self, index: usize) -> bool {
        self.ignoring[index]
    }

    /// Images of needed stages, in file order. A name may stand several times.
    pub fn needed_images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        for (_, stage) in self.stages.iter().enumerate().filter(|(index, _)| self.needed[*index]) {
            if let Base::Image(image) = &stage.base {
                images.push(Image::clone(image));
            }
            images.extend(self.origins(stage).into_iter().filter_map(|(origin, _)| match origin {
                Origin::Image(image) => Some(*image),
                _ => None,
            }));
        }
        let mut seen = HashSet::new();
        images.retain(|image| seen.insert(image.key()));
        images
    }

    /// Puts the triggers of a base image in front of the instructions of the stages that start from it.
    pub fn add_triggers(&mut self, image: &Image, triggers: &[String]) -> Result<()> {
        if triggers.is_empty() {
            return Ok(());
        }
        for stage in self.stages.iter_mut().filter(|stage| !stage.is_replaced) {
            if matches!(&stage.base, Base::Image(base) if base.key() == image.key()) {
                let parsed: Result<Vec<_>> = triggers.iter().map(|text| trigger(text, stage.from_span)).collect();
                stage.instructions.splice(0..0, parsed?);
            }
        }
        self.mark_needed(self.target);
        Ok(())
    }

    /// What `--from=value` of COPY, or with `by_position` false `from=value` of a mount, names in `stage`.
    pub fn origin(&self, value: &str, by_position: bool, platform: &Platform, span: Span) -> Result<Origin> {
        if by_position && let Ok(position) = value.parse::<usize>() {
            if position >= self.stages.len() {
                return Err(problem(ErrorRule::UnknownStage, format!("invalid stage index {position}"), span));
            }
            return Ok(Origin::Stage(position));
        }
        if let Some(index) = self.last_of_name(value) {
            return Ok(Origin::Stage(index));
        }
        if let Some((name, context)) = self.contexts.find(value, platform) {
            return context.origin(name, platform, (span, span), |wanted| self.last_of_name(wanted));
        }
        if value == "scratch" {
            return Ok(Origin::Scratch);
        }
        let reference = value.parse().map_err(|error| {
            problem(
                ErrorRule::InvalidImageName,
                format!("failed to parse stage name {value:?}: invalid reference format: {error}"),
                span,
            )
        })?;
        Ok(Origin::Image(Box::new(Image { reference, platform: platform.clone(), span, focus: span })))
    }

    fn last_of_name(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&lower))
    }

    pub fn has_name(&self, name: &str) -> bool {
        self.stages.iter().any(|stage| stage.name.as_deref() == Some(name))
    }

    /// `name`, or `stage-N` (D12.15).
    pub fn display_name(&self, index: usize) -> String {
        self.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    /// Whether progress says which stage a step belongs to: not if there is only one (X5.13).
    pub fn shows_names(&self) -> bool {
        self.stages.len() > 1
            || self.stages.iter().any(|stage| {
                stage.instructions.iter().any(|instruction| match &instruction.instruction.kind {
                    InstructionKind::Run(run) => !run.mounts.is_empty(),
                    InstructionKind::Copy(copy) => copy.from.is_some(),
                    _ => false,
                })
            })
    }

    /// Adds "did you mean" for a base that could not be resolved (D12.16).
    pub fn suggest_base(&self, mut error: Box<Diagnostic>, reference: &Reference) -> Box<Diagnostic> {
        let names = self.stages.iter().filter_map(|stage| stage.name.as_deref()).chain(COMMON_IMAGES);
        error.suggestion = parser::suggest::closest(names, &reference.familiar());
        if self.has_name(&reference.familiar()) {
            error.notes.push("a stage of that name comes later: FROM sees only the stages above it".into());
        }
        error
    }

    fn mark_needed(&mut self, index: usize) {
        let mut pending = vec![index];
        let mut seen = HashSet::new();
        while let Some(index) = pending.pop() {
            if seen.insert(index) {
                self.needed[index] = true;
                pending.extend(self.dependencies(index));
            }
        }
    }

    /// Stages that a stage takes from: its base and the sources of its COPY and mounts.
    fn dependencies(&self, index: usize) -> Vec<usize> {
        let stage = &self.stages[index];
        let base = match stage.base {
            Base::Stage(parent) => Some(parent),
            _ => None,
        };
        base.into_iter().chain(self.taken(index).into_iter().map(|(index, _)| index)).collect()
    }

    /// Origins that could be understood; what is wrong with the others is said when the stage is dispatched (D6.7).
    fn origins(&self, stage: &Stage) -> Vec<(Origin, Span)> {
        let mut origins = Vec::new();
        for StageInstruction { instruction, span, .. } in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Copy(copy) | InstructionKind::Add(copy) => {
                    if let Some(from) = copy.from.as_ref().filter(|from| !from.value.is_empty()) {
                        let origin = self.origin(&from.value, true, &stage.platform, *span).ok();
                        origins.extend(origin.map(|origin| (origin, *span)));
                    }
                }
                InstructionKind::Run(run) => {
                    for mount in &run.mounts {
                        if let Some(from) = mount_origin(&mount.value) {
                            let origin = self.origin(from, false, &stage.platform, *span).ok();
                            origins.extend(origin.map(|origin| (origin, *span)));
                        }
                    }
                }
                _ => {}
            }
        }
        origins
    }

    /// D12.22, over all stages, needed or not. Only what COPY and mounts take counts: a base is always an earlier stage.
    fn reject_cycles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Visit {
            New,
            Open,
            Done,
        }
        let mut visits = vec![Visit::New; self.stages.len()];
        for start in 0..self.stages.len() {
            if visits[start] != Visit::New {
                continue;
            }
            // Each entry: a stage, and what it takes from other stages that are still to be visited.
            let mut path = vec![(start, self.taken(start))];
            visits[start] = Visit::Open;
            while let Some((index, pending)) = path.last_mut() {
                match pending.pop() {
                    Some((next, span)) if visits[next] == Visit::Open => {
                        let message = format!("circular dependency detected on stage: {}", self.display_name(next));
                        let around = path.iter().map(|(index, _)| *index).skip_while(|index| *index != next);
                        let names: Vec<_> = around.chain([next]).map(|index| self.display_name(index)).collect();
                        let mut error = problem(ErrorRule::CircularDependency, message, span);
                        error.notes.push(format!("each takes files from the next: {}", names.join(", ")));
                        return Err(error);
                    }
                    Some((next, _)) if visits[next] == Visit::New => {
                        visits[next] = Visit::Open;
                        let taken = self.taken(next);
                        path.push((next, taken));
                    }
                    Some(_) => {}
                    None => {
                        visits[*index] = Visit::Done;
                        path.pop();
                    }
                }
            }
        }
        Ok(())
    }

    /// The stages from which COPY and mounts of a stage take, and where they say so.
    fn taken(&self, index: usize) -> Vec<(usize, Span)> {
        let origins = self.origins(&self.stages[index]).into_iter();
        let stages = origins.filter_map(|(origin, span)| match origin {
            Origin::Stage(index) => Some((index, span)),
            _ => None,
        });
        stages.collect()
    }
}

impl std::ops::Index<usize> for Stages {
    type Output = Stage;

    fn index(&self, index: usize) -> &Stage {
        &self.stages[index]
    }
}

/// The `from` of a mount. The other options may hold variables whose values are not known yet; this one never does (D17.5).
fn mount_origin(value: &str) -> Option<&str> {
    let fields = value.split(',').map(|field| field.trim_matches('"'));
    let mut named =
        fields.filter_map(|field| field.split_once('=')).filter(|(key, _)| key.eq_ignore_ascii_case("from"));
    // A later duplicate wins (D17.4).
    named.next_back().map(|(_, from)| from).filter(|from| !from.is_empty())
}

/// D12.4.
fn base(earlier: &[Stage], name: &str, platform: &Platform, from: &From) -> Result<Base> {
    let word = &from.image;
    if name.trim().is_empty() {
        return Err(problem(
            ErrorRule::InvalidImageName,
            format!("base name ({}) should not be blank", word.value),
            word.span,
        ));
    }
    if let Some(index) = earlier.iter().rposition(|stage| stage.name.as_deref() == Some(name)) {
        return Ok(Base::Stage(index));
    }
    if name == "scratch" {
        return Ok(Base::Scratch);
    }
    let reference = name.parse().map_err(|error| {
        problem(
            ErrorRule::InvalidImageName,
            format!("failed to parse stage name {name:?}: invalid reference format: {error}"),
            word.span,
        )
    })?;
    Ok(Base::Image(Box::new(Image { reference, platform: platform.clone(), span: from.span, focus: word.span })))
}

impl Lowering<'_> {
    /// What a FROM says, and the arguments that it uses.
    fn from(&mut self, from: &From, earlier: &[Stage], parameters: &mut Parameters) -> Result<(Base, Platform)> {
        if let Some(defaults) = &self.default_globals {
            let finding = lint::invalid_default_arg_in_from::check(from, &self.expander, &defaults.environment);
            finding.into_iter().for_each(|finding| self.lints.report(&from.comments, finding));
        }
        let name = self.word_of_from(&from.image, from, parameters)?;
        let platform = match &from.platform {
            Some(word) => self.explicit_platform(word, from, parameters)?,
            None => self.platform.clone(),
        };
        if let Some(base) = self.context_base_of(&name.text, earlier, &platform, from)? {
            return Ok((base, platform));
        }
        let base = base(earlier, &name.text, &platform, from).map_err(|error| match name.text.is_empty() {
            true => self.suggest_argument(error, &name),
            false => error,
        })?;
        Ok((base, platform))
    }

    /// The named context that stands in for `name` in a FROM, if there is one.
    fn context_base_of(&self, name: &str, earlier: &[Stage], platform: &Platform, from: &From) -> Result<Option<Base>> {
        let Some((name, context)) = self.options.contexts.find(name, platform) else { return Ok(None) };
        let stage = |wanted: &str| {
            let lower = wanted.to_lowercase();
            earlier.iter().rposition(|stage| stage.name.as_deref() == Some(&lower))
        };
        let origin = context.origin(name, platform, (from.span, from.image.span), stage).map_err(|mut error| {
            error.notes.push("a FROM can only be given a stage above it".into());
            error
        })?;
        Ok(Some(match origin {
            Origin::Stage(index) => Base::Stage(index),
            Origin::Image(image) => Base::Image(image),
            Origin::Scratch => Base::Scratch,
            Origin::Context(context) => Base::Context(context),
        }))
    }

    fn word_of_from(&mut self, word: &Word, from: &From, parameters: &mut Parameters) -> Result<Expansion> {
        let expansion = expand(&self.expander, word, &self.globals.environment)?;
        parameters.use_args(&expansion.used);
        for finding in lint::undefined_arg_in_from::check(word, &expansion, &self.globals.names, from.span) {
            self.lints.report(&from.comments, finding);
        }
        Ok(expansion)
    }

    /// D12.11.
    fn explicit_platform(&mut self, word: &Word, from: &From, parameters: &mut Parameters) -> Result<Platform> {
        let expansion = self.word_of_from(word, from, parameters)?;
        let target = self.globals.environment.get("TARGETPLATFORM").unwrap_or_default();
        if let Some(finding) = lint::from_platform::check(from, word, &expansion, target) {
            self.lints.report(&from.comments, finding);
        }
        if expansion.text.is_empty() {
            let error = problem(
                ErrorRule::InvalidPlatform,
                format!("empty platform value from expression {}", word.value),
                word.span,
            );
            return Err(self.suggest_argument(error, &expansion));
        }
        expansion.text.parse().map_err(|error| {
            let message = format!("failed to parse platform {}: {error}", word.value);
            self.suggest_argument(problem(ErrorRule::InvalidPlatform, message, word.span), &expansion)
        })
    }

    /// Adds "did you mean" for a variable that is not set.
    fn suggest_argument(&self, mut error: Box<Diagnostic>, expansion: &Expansion) -> Box<Diagnostic> {
        let mut nearest = expansion.unset.iter().map(|name| parser::suggest::closest(&self.globals.names, name));
        error.suggestion = nearest.find_map(|name| name);
        error
    }
}

/// R7.4.1: stages by name, in any case, or by position. Those of the same name are all meant.
fn ignoring(stages: &[Stage], filter: &[String], dockerfile: &Dockerfile) -> Result<Vec<bool>> {
    let mut ignoring = vec![false; stages.len()];
    for wanted in filter {
        let lower = wanted.to_lowercase();
        let is_meant = |(index, stage): (usize, &Stage)| match &stage.name {
            Some(name) => *name == lower || *wanted == index.to_string(),
            None => *wanted == index.to_string() || lower == format!("stage-{index}"),
        };
        let meant: Vec<_> = stages.iter().enumerate().map(is_meant).collect();
        if !meant.contains(&true) {
            let span = dockerfile.stages.last().map_or(Span::default(), |stage| stage.from.span);
            let message = format!("stage {wanted:?} of --no-cache-filter could not be found");
            let mut error = problem(ErrorRule::UnknownStage, message, span);
            let names = stages.iter().filter_map(|stage| stage.name.as_deref());
            error.suggestion = parser::suggest::closest(names, wanted);
            return Err(error);
        }
        ignoring.iter_mut().zip(meant).for_each(|(ignores, is_meant)| *ignores |= is_meant);
    }
    Ok(ignoring)
}

/// D12.17 to D12.19.
fn target(stages: &[Stage], wanted: Option<&str>, dockerfile: &Dockerfile) -> Result<usize> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(stages.len() - 1) };
    let lower = wanted.to_lowercase();
    stages.iter().rposition(|stage| stage.name.as_deref() == Some(&lower)).ok_or_else(|| {
        let span = dockerfile.stages.last().map_or(Span { start: 0, end: 0 }, |stage| stage.from.span);
        let mut error = problem(ErrorRule::UnknownStage, format!("target stage {wanted:?} could not be found"), span);
        let names = stages.iter().filter_map(|stage| stage.name.as_deref());
        error.suggestion = parser::suggest::closest(names, wanted);
        error
    })
}

fn onbuild_triggers(stage: &ast::Stage) -> Vec<String> {
    let triggers = stage.instructions.iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::Onbuild(onbuild) => Some(onbuild.trigger.clone()),
        _ => None,
    });
    triggers.collect()
}

fn trigger(text: &str, from_span: Span) -> Result<StageInstruction> {
    let instruction = parser::parse_trigger(text).map_err(|mut error| {
        (error.span, error.focus) = (from_span, from_span);
        Box::new(error)
    })?;
    Ok(StageInstruction { instruction, span: from_span, is_trigger: true })
}
