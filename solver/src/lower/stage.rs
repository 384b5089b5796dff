//! One stage: its state, and the instructions that change nothing but the image config.

use super::environment::Environment;
use super::stages::{Base, Stage, StageInstruction, Stages};
use super::{Lowering, Result, expansion_problem, history, lint, problem};
use crate::graph::{Origin, VertexId};
use crate::op::{File, FileAction, Mkdir, Op};
use crate::outline::Arg;
use oci::Platform;
use oci::image::{Empty, Healthcheck, ImageConfig};
use parser::ErrorRule;
use parser::ast::{ArgDeclaration, CommandLine, Instruction, InstructionKind, Pairs, Word};
use parser::span::Span;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build args that never reach a process (D13.10).
pub(super) const SILENT_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A stage so far. A stage that is based on another starts with a copy of its state (D12.24, D12.25).
#[derive(Clone)]
pub(super) struct StageState {
    pub files: VertexId,
    pub config: ImageConfig,
    /// What expansion and RUN see: the config's Env, and ARGs that have a value (D13.7).
    pub environment: Environment,
    /// Names declared by ARG, in order of their first declaration, for the history of RUN (D16.7).
    pub declared_args: Vec<String>,
    /// Whether the base image's config could be had. Without it, what the environment holds is not all known.
    pub is_base_known: bool,
    /// WORKDIR appeared in the stage or in one that it is based on.
    pub has_workdir: bool,
    pub last: LastInstructions,
    pub base_history: usize,
}

/// Where instructions stand of which only the last one in a stage counts.
#[derive(Clone, Default)]
pub(super) struct LastInstructions {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

/// Where an instruction stands: what its vertex is called and which lines an error shows.
pub(super) struct Place<'a> {
    pub stages: &'a Stages,
    pub index: usize,
    /// The states of earlier stages.
    pub states: &'a [Option<StageState>],
    pub span: Span,
    /// Above the instruction.
    pub comments: &'a [String],
    pub name: String,
}

impl Place<'_> {
    pub fn stage(&self) -> &Stage {
        &self.stages[self.index]
    }
}

impl Lowering<'_> {
    /// Runs through a stage. What is wrong is noted, and changes nothing.
    pub(super) fn stage(&mut self, stages: &Stages, index: usize, states: &[Option<StageState>]) -> StageState {
        let stage = &stages[index];
        let mut steps = StepNames::new(stages, index, self.options.names_platform);
        let in_stage = Origin {
            stage: stages.display_name(index),
            stage_position: index,
            platform: self.options.names_platform.then(|| self.platform.to_string()),
            ignores_cache: stages.ignores_cache(index),
            ..Origin::default()
        };
        let from = Origin { span: stage.from_span, text: stage.from_text.clone(), ..in_stage.clone() };
        self.graph.begin(from);
        let mut state = self.base_state(stage, &mut steps, states);
        state.last = LastInstructions::default();
        // Triggers have been put among the instructions and do not go on to grandchildren (D15.57).
        state.config.config.on_build.clear();
        for entry in &state.config.config.env {
            if let Some((name, value)) = entry.split_once('=') {
                state.environment.set(name, value);
            }
        }
        for (position, StageInstruction { instruction, span, is_trigger }) in stage.instructions.iter().enumerate() {
            self.graph.begin(Origin {
                position: position + 1,
                span: *span,
                text: instruction.text.clone(),
                is_trigger: *is_trigger,
                variables: state.variables_of(instruction),
                args: state.args(),
                ..in_stage.clone()
            });
            let shown = match &instruction.kind {
                InstructionKind::Run(run) => {
                    self.expander.display(&instruction.text, &self.masked(run, &state.environment))
                }
                _ => self.expander.display(&instruction.text, &state.environment),
            };
            let name = steps.name(&instruction.kind, &shown, *is_trigger, &state);
            let comments = if *is_trigger { &stage.comments } else { &instruction.comments };
            let place = Place { stages, index, states, span: *span, comments, name };
            if let Err(mut error) = self.instruction(instruction, &mut state, &place) {
                error.span = *span;
                if *is_trigger {
                    error.focus = *span;
                }
                self.errors.push(*error);
            }
        }
        state
    }

    fn base_state(&mut self, stage: &Stage, steps: &mut StepNames, states: &[Option<StageState>]) -> StageState {
        let mut is_base_known = true;
        let (files, mut config) = match &stage.base {
            Base::Stage(parent) => {
                return states[*parent].clone().expect("a base is dispatched before the stages on it");
            }
            Base::Scratch => (self.scratch(), scratch_config(stage)),
            Base::Context(context) => {
                let files = self.context_base(context, stage.from_span).unwrap_or_else(|error| {
                    self.errors.push(*error);
                    self.scratch()
                });
                (files, scratch_config(stage))
            }
            Base::Image(image) => match &self.images[&image.key()] {
                Some(resolved) => {
                    let config = resolved.config.clone();
                    let name = steps.from(&format!("{}@{}", image.reference, resolved.digest));
                    (self.image_files(image, name, stage.from_span), config)
                }
                None => {
                    is_base_known = false;
                    (self.scratch(), scratch_config(stage))
                }
            },
        };
        if let Base::Image(image) = &stage.base {
            let finding = lint::invalid_base_image_platform::check(
                &stage.image.value,
                &image.platform,
                &config,
                stage.from_span,
                stage.image.span,
            );
            finding.into_iter().for_each(|finding| self.lints.report(&stage.comments, finding));
        }
        config.created = None;
        let mut environment: Environment = config.config.env.iter().collect();
        if environment.get("PATH").is_none() && config.os != "windows" {
            environment.set("PATH", DEFAULT_PATH);
            config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let base_history = config.history.len();
        StageState {
            files,
            config,
            environment,
            declared_args: Vec::new(),
            is_base_known,
            has_workdir: false,
            last: LastInstructions::default(),
            base_history,
        }
    }

    fn instruction(&mut self, instruction: &Instruction, state: &mut StageState, place: &Place) -> Result<()> {
        let word = instruction.word();
        match &instruction.kind {
            InstructionKind::Add(add) => self.transfer("ADD", add, state, place),
            InstructionKind::Copy(copy) => self.transfer("COPY", copy, state, place),
            InstructionKind::Run(run) => self.run(run, state, place),
            InstructionKind::Workdir(path) => self.workdir(path, state, place),
            InstructionKind::Arg(declarations) => self.arg(declarations, instruction, state, place),
            InstructionKind::Env(pairs) => self.env(pairs, word, state, place),
            InstructionKind::Label(pairs) => self.label(pairs, word, state, place),
            InstructionKind::Expose(ports) => self.expose(ports, state, place),
            InstructionKind::Volume(paths) => self.volume(paths, state, place),
            InstructionKind::User(user) => self.user(user, state, place),
            InstructionKind::Stopsignal(signal) => self.stopsignal(signal, state, place),
            InstructionKind::Cmd(command) => {
                self.report(place, lint::multiple_instructions::check(&mut state.last.cmd, word, place.span));
                self.report(place, lint::json_args_recommended::check(command, &state.config, word, place.span));
                let words = shell_or_exec(command, &state.config);
                state.note(format!("CMD {}", history::quoted_list(&words)));
                state.config.config.cmd = Some(words);
                state.config.config.args_escaped = true;
                Ok(())
            }
            InstructionKind::Entrypoint(command) => {
                self.report(place, lint::multiple_instructions::check(&mut state.last.entrypoint, word, place.span));
                self.report(place, lint::json_args_recommended::check(command, &state.config, word, place.span));
                let words = shell_or_exec(command, &state.config);
                state.note(format!("ENTRYPOINT {}", history::quoted_list(&words)));
                state.config.config.entrypoint = (!words.is_empty()).then_some(words);
                // A CMD of this very stage stays (D15.13).
                if state.last.cmd.is_none() {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            InstructionKind::Healthcheck(check) => {
                self.report(place, lint::multiple_instructions::check(&mut state.last.healthcheck, word, place.span));
                let check = Healthcheck {
                    test: check.test.clone(),
                    interval: check.interval,
                    timeout: check.timeout,
                    start_period: check.start_period,
                    start_interval: check.start_interval,
                    retries: check.retries,
                };
                state.note(history::healthcheck(&check));
                state.config.config.healthcheck = Some(check);
                Ok(())
            }
            InstructionKind::Maintainer(author) => {
                state.note(format!("MAINTAINER {author}"));
                state.config.author = Some(author.clone());
                Ok(())
            }
            InstructionKind::Shell(words) => {
                state.note(format!("SHELL [{}]", words.join(" ")));
                state.config.config.shell = Some(words.clone());
                Ok(())
            }
            InstructionKind::Onbuild(onbuild) => {
                state.config.config.on_build.push(onbuild.trigger.clone());
                Ok(())
            }
        }
    }

    /// D13.5, D13.6.
    fn arg(
        &mut self,
        declarations: &[ArgDeclaration],
        instruction: &Instruction,
        state: &mut StageState,
        place: &Place,
    ) -> Result<()> {
        let mut texts = Vec::new();
        for ArgDeclaration { name, default } in declarations {
            self.report(place, lint::secrets_used::check("ARG", name, place.span, name.span));
            let name = &name.value;
            let value = match (self.options.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, state, place)?),
                (None, None) => self.globals.environment.get(name).map(str::to_owned),
            };
            let parameters = &mut self.parameters[place.index];
            let is_inherited = default.is_none() && !self.options.build_args.contains_key(name) && value.is_some();
            if !is_inherited {
                let description = instruction.description(name).map(str::to_owned);
                let arg = Arg { name: name.clone(), description, value: value.clone(), span: place.span };
                parameters.declare(arg, Default::default());
            }
            parameters.use_args([name]);
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            if SILENT_ARGS.contains(&name.as_str()) {
                continue;
            }
            if let Some(value) = &value {
                state.environment.set(name, value);
            }
            if !state.declared_args.contains(name) {
                state.declared_args.push(name.clone());
            }
        }
        state.note(format!("ARG {}", texts.join(" ")));
        Ok(())
    }

    /// All names and values are expanded in the environment before the instruction (D10.4).
    fn pairs(&mut self, pairs: &Pairs, word: &str, state: &StageState, place: &Place) -> Result<Vec<(String, String)>> {
        self.report(place, lint::legacy_key_value_format::check(pairs, word, place.span));
        let mut expand = |word| self.expand(word, state, place);
        pairs.pairs.iter().map(|(name, value)| Ok((expand(name)?, expand(value)?))).collect()
    }

    fn env(&mut self, written: &Pairs, word: &str, state: &mut StageState, place: &Place) -> Result<()> {
        let pairs = self.pairs(written, word, state, place)?;
        for ((name, _), (word, _)) in pairs.iter().zip(&written.pairs) {
            self.report(place, lint::secrets_used::check("ENV", name, place.span, word.span));
        }
        let mut listed: Environment = state.config.config.env.iter().collect();
        for (name, value) in &pairs {
            state.environment.set(name, value);
            listed.set(name, value);
        }
        state.config.config.env = listed.to_list();
        state.note(format!("ENV {}", joined(&pairs)));
        Ok(())
    }

    fn label(&mut self, pairs: &Pairs, word: &str, state: &mut StageState, place: &Place) -> Result<()> {
        let pairs = self.pairs(pairs, word, state, place)?;
        state.note(format!("LABEL {}", joined(&pairs)));
        state.config.config.labels.extend(pairs);
        Ok(())
    }

    /// D15.16 to D15.20.
    fn expose(&mut self, words: &[Word], state: &mut StageState, place: &Place) -> Result<()> {
        let mut words: Vec<_> = words.iter().collect();
        words.sort_by(|a, b| a.value.cmp(&b.value));
        let mut ports = Vec::new();
        for word in words {
            let (texts, _) = self
                .expander
                .words(&word.value, &state.environment)
                .map_err(|error| expansion_problem(&error, word.span))?;
            for text in texts {
                self.report(place, lint::expose::check(&text, place.span, word.span));
                ports.extend(
                    parser::expose::parse_port(&text)
                        .map_err(|error| problem(ErrorRule::InvalidPort, error, word.span))?,
                );
            }
        }
        state.config.config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Empty {})));
        state.note(format!("EXPOSE [{}]", ports.join(" ")));
        Ok(())
    }

    /// D15.29.
    fn volume(&mut self, words: &[Word], state: &mut StageState, place: &Place) -> Result<()> {
        let mut paths = Vec::new();
        for word in words {
            let path = self.expand(word, state, place)?.trim().to_owned();
            if path.is_empty() {
                return Err(problem(
                    ErrorRule::WrongArgumentCount,
                    "VOLUME specified can not be an empty string",
                    word.span,
                ));
            }
            paths.push(path);
        }
        state.config.config.volumes.extend(paths.iter().map(|path| (path.clone(), Empty {})));
        state.note(format!("VOLUME [{}]", paths.join(" ")));
        Ok(())
    }

    fn user(&mut self, word: &Word, state: &mut StageState, place: &Place) -> Result<()> {
        let user = self.expand(word, state, place)?;
        state.note(format!("USER {user}"));
        state.config.config.user = user;
        Ok(())
    }

    fn stopsignal(&mut self, word: &Word, state: &mut StageState, place: &Place) -> Result<()> {
        let signal = self.expand(word, state, place)?;
        if !parser::signal::is_valid(&signal) {
            return Err(problem(ErrorRule::InvalidSignal, format!("invalid signal: {signal}"), word.span));
        }
        state.note(format!("STOPSIGNAL {signal}"));
        state.config.config.stop_signal = signal;
        Ok(())
    }

    /// D15.24 to D15.26, X3.61.
    fn workdir(&mut self, word: &Word, state: &mut StageState, place: &Place) -> Result<()> {
        let wanted = self.expand(word, state, place)?;
        if !state.has_workdir {
            self.report(place, lint::workdir_relative_path::check(&wanted, place.span, word.span));
        }
        state.has_workdir = true;
        let path = parser::path::workdir(&state.config.config.working_dir, &wanted);
        let makes_directory = parser::path::clean(&path) != "/";
        if makes_directory {
            let owner = state.config.config.user.clone();
            let mkdir = Mkdir { path: path.clone(), owner, time: self.epoch };
            let op = Op::File(File { actions: vec![FileAction::Mkdir(mkdir)] });
            state.files = self.graph.add(op, &[state.files], place.name.clone(), Some(place.span));
        }
        state.config.history.push(history::entry(format!("WORKDIR {path}"), !makes_directory));
        state.config.config.working_dir = path;
        Ok(())
    }
}

impl StageState {
    /// A history entry of an instruction that makes no layer.
    fn note(&mut self, created_by: String) {
        self.config.history.push(history::entry(created_by, true));
    }

    /// The variables that an instruction may use whose op has no environment.
    fn variables_of(&self, instruction: &Instruction) -> Vec<(String, String)> {
        let expands = matches!(
            instruction.kind,
            InstructionKind::Add(_) | InstructionKind::Copy(_) | InstructionKind::Workdir(_)
        );
        match expands && (instruction.text.contains('$') || instruction.text.contains("<<")) {
            true => self.environment.pairs().to_vec(),
            false => Vec::new(),
        }
    }

    /// Variables that no ENV has taken over.
    fn args(&self) -> Vec<String> {
        let is_env = |name: &str| {
            let mut names = self.config.config.env.iter().filter_map(|entry| entry.split_once('='));
            names.any(|(listed, _)| listed == name)
        };
        self.declared_args.iter().filter(|name| !is_env(name)).cloned().collect()
    }
}

/// D8.7: the shell form's command behind the current shell.
pub(super) fn shell_or_exec(command: &CommandLine, config: &ImageConfig) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => {
            let mut words = config.config.shell.clone().unwrap_or_else(|| match config.os.as_str() {
                "windows" => vec!["cmd".into(), "/S".into(), "/C".into()],
                _ => vec!["/bin/sh".into(), "-c".into()],
            });
            words.push(text.clone());
            words
        }
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    let texts: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    texts.join(" ")
}

/// D16.3.
fn scratch_config(stage: &Stage) -> ImageConfig {
    let platform = &stage.platform;
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_features: platform.os_features.clone(),
        os_version: platform.os_version.clone(),
        variant: platform.variant.clone(),
        ..Default::default()
    };
    config.config.working_dir = "/".into();
    config
}

/// Names of a stage's steps as progress shows them: `[build 2/5] RUN make` (X5.11 to X5.16).
struct StepNames {
    /// Where several platforms are built.
    platform: Option<Platform>,
    stage: Option<String>,
    current: usize,
    total: usize,
}

impl StepNames {
    fn new(stages: &Stages, index: usize, names_platform: bool) -> Self {
        let stage = &stages[index];
        let counted = stage.instructions.iter().filter(|entry| is_step(&entry.instruction.kind)).count();
        let from = usize::from(matches!(stage.base, Base::Image(_)));
        StepNames {
            platform: names_platform.then(|| stage.platform.clone()),
            stage: stages.shows_names().then(|| stages.display_name(index)),
            current: 0,
            total: counted + from,
        }
    }

    fn from(&mut self, image: &str) -> String {
        self.next(&format!("FROM {image}"), &Environment::default())
    }

    fn name(&mut self, kind: &InstructionKind, text: &str, is_trigger: bool, state: &StageState) -> String {
        let is_step = match kind {
            // `WORKDIR /` counts in the total but takes no number (X5.16).
            InstructionKind::Workdir(path) => {
                parser::path::clean(&parser::path::workdir(&state.config.config.working_dir, &path.value)) != "/"
            }
            kind => is_step(kind),
        };
        if !is_step {
            return String::new();
        }
        let (_, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let onbuild = if is_trigger { "ONBUILD " } else { "" };
        let arguments = match kind {
            // Expanded: a build argument may have brought a URL's credentials.
            InstructionKind::Add(_) => arguments.split(' ').map(parser::source::redacted).collect::<Vec<_>>().join(" "),
            _ => arguments.to_owned(),
        };
        self.next(&format!("{onbuild}{} {}", kind.name(), arguments.trim_start()), &state.environment)
    }

    fn next(&mut self, text: &str, environment: &Environment) -> String {
        self.current += 1;
        let width = self.total.to_string().len();
        let stage = self.stage.as_ref().map(|stage| format!("{stage} ")).unwrap_or_default();
        let platform = self.platform.as_ref();
        let platform = platform.map(|platform| format!("{platform}{} ", cross_target(platform, environment)));
        let platform = platform.unwrap_or_default();
        format!("[{platform}{stage}{:>width$}/{}] {text}", self.current, self.total)
    }
}

/// `->arm64` where a step of `platform` knows that it works for another one (X5.14).
fn cross_target(platform: &Platform, environment: &Environment) -> String {
    let whole = environment.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let target = whole.unwrap_or_else(|| {
        let or = |name: &str, default: &str| environment.get(name).unwrap_or(default).to_owned();
        let variant = environment.get("TARGETVARIANT").filter(|variant| !variant.is_empty()).map(str::to_owned);
        let (os, architecture) = (or("TARGETOS", &platform.os), or("TARGETARCH", &platform.architecture));
        Platform { variant, ..Platform::new(os, architecture) }.normalized()
    });
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    let variant = target.variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("->{}{variant}", target.architecture)
}

fn is_step(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Add(_) | InstructionKind::Workdir(_)
    )
}
