use crate::app::{App, reference};
use crate::error::{CliError, Result};
use crate::output::{Destination, ImageFormat, OutputSpec};
use crate::progress::{Display, Mode};
use clap::Args;
use executor::export::image::{BuiltImage, ImageOptions};
use executor::export::{archive, image, push, tree};
use executor::index::StoreIndex;
use executor::source::image::Images;
use executor::source::local::{self, LocalSource};
use executor::source::statcache::StatCache;
use executor::value::{Context, Stack, Value};
use executor::worker::{LocalWorker, WorkerOptions};
use oci::codec::Compression;
use oci::{Platform, Reference};
use parser::Diagnostic;
use parser::diagnostic::excerpt;
use parser::span::Span;
use rustix::termios::isatty;
use serde_json::json;
use solver::event::{Event, EventSink, WarningEvent};
use solver::lower::{self, ImageResolver, LowerOptions, Plan, ResolvedImage};
use solver::op::Network;
use solver::schedule::{ScheduleOptions, solve};
use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Args)]
pub struct BuildArgs {
    /// The build context: a directory
    #[arg(value_name = "PATH")]
    pub context: PathBuf,

    /// Name of the image, with or without a tag
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,

    /// The Dockerfile (default: PATH/Dockerfile); `-` for standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// The stage to build (default: the last one)
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<String>,

    /// Run every step, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,

    /// Ask the registry for base images, whatever the store holds
    #[arg(long)]
    pub pull: bool,

    /// The platform to build for
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,

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

    /// Print the image's id and nothing else
    #[arg(short, long)]
    pub quiet: bool,

    /// Add a label to the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<String>,

    /// The network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,

    /// Add a line to /etc/hosts of RUN steps
    #[arg(long = "add-host", value_name = "NAME:IP")]
    pub add_hosts: Vec<String>,

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
    secret: Vec<String>,
    #[arg(long, hide = true)]
    ssh: Vec<String>,
    #[arg(long, hide = true)]
    cache_to: Vec<String>,
    #[arg(long, hide = true)]
    cache_from: Vec<String>,
    #[arg(long, hide = true)]
    build_context: Vec<String>,
    #[arg(long, hide = true)]
    allow: Vec<String>,
    #[arg(long, hide = true)]
    call: Option<String>,
    #[arg(long, hide = true)]
    check: bool,
    #[arg(long, hide = true)]
    attest: Vec<String>,
    #[arg(long, hide = true)]
    annotation: Vec<String>,
    #[arg(long, hide = true)]
    ulimit: Vec<String>,
    #[arg(long, hide = true)]
    shm_size: Option<String>,
    #[arg(long, hide = true)]
    no_cache_filter: Vec<String>,
    #[arg(long, hide = true)]
    squash: bool,
}

impl BuildArgs {
    /// Refuses flags that this version does not have yet: ignoring them would build something else.
    pub fn reject_unsupported(&self) -> Result<()> {
        let flags = &self.compatibility;
        let wanted = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false" && value != "0");
        let unsupported = [
            ("--provenance", wanted(&flags.provenance)),
            ("--sbom", wanted(&flags.sbom)),
            ("--secret", !flags.secret.is_empty()),
            ("--ssh", !flags.ssh.is_empty()),
            ("--cache-to", !flags.cache_to.is_empty()),
            ("--cache-from", !flags.cache_from.is_empty()),
            ("--build-context", !flags.build_context.is_empty()),
            ("--allow", flags.allow.iter().any(|entitlement| entitlement != "network.host")),
            ("--call", flags.call.as_deref().is_some_and(|call| call != "build")),
            ("--check", flags.check),
            ("--attest", !flags.attest.is_empty()),
            ("--annotation", !flags.annotation.is_empty()),
            ("--ulimit", !flags.ulimit.is_empty()),
            ("--shm-size", flags.shm_size.is_some()),
            ("--no-cache-filter", !flags.no_cache_filter.is_empty()),
            ("--squash", flags.squash),
        ];
        match unsupported.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(CliError::Usage(format!("{flag} is not supported yet by this version of rbuild"))),
            None => Ok(()),
        }
    }
}

/// What the flags ask for, checked.
struct Request {
    context: PathBuf,
    file: Option<PathBuf>,
    mode: Mode,
    lower: LowerOptions,
    worker: WorkerOptions,
    outputs: Vec<OutputSpec>,
}

pub fn run(args: BuildArgs, app: &App) -> Result<ExitCode> {
    let request = request(&args, app)?;
    if let Some(path) = &args.iidfile {
        // An old id must not be taken for the one of a build that failed (R5.11.1).
        let _ = std::fs::remove_file(path);
    }
    let images = app.images(args.pull)?;
    let runtime = app.runtime()?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let display = Display::start(request.mode, receiver);
    let events = EventSink::new(sender);
    let result = runtime.block_on(async {
        let build = build(&args, &request, app, &images, &events);
        tokio::select! {
            result = build => result,
            code = interrupted() => Ok(Err(code)),
        }
    });
    drop(events);
    drop(images);
    // What was cancelled ends here, so that the display sees it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    display.finish();
    app.store.empty_trash();
    match result? {
        Ok(built) => {
            report(&args, built.as_ref())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(code) => {
            eprintln!("error: failed to solve: Canceled: context canceled");
            Ok(ExitCode::from(code))
        }
    }
}

/// Waits for Ctrl-C or SIGTERM, and gives the exit code for it. A second one ends the program at once.
async fn interrupted() -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let code = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(code.into());
    });
    code
}

fn request(args: &BuildArgs, app: &App) -> Result<Request> {
    let context = args.context.clone();
    let text = context.to_string_lossy();
    if text == "-" || text.contains("://") || text.starts_with("git@") {
        return Err(CliError::Usage(format!(
            "the context {text:?} is not supported yet by this version of rbuild: give a directory"
        )));
    }
    if !context.is_dir() {
        let reason = if context.exists() { "it is not a directory" } else { "no such file or directory" };
        return Err(CliError::Usage(format!("unable to prepare context: path {text:?} not found: {reason}")));
    }
    let tags: Vec<String> = args.tags.iter().map(|tag| Ok(reference(tag)?.to_string())).collect::<Result<_>>()?;
    let platform = args.platform.clone().or_else(|| app.config.build.platform.clone());
    let platform: Option<Platform> = match platform.as_deref().filter(|text| !text.is_empty()) {
        Some(text) if text.contains(',') => {
            return Err(CliError::Usage("--platform with several platforms is not supported yet".into()));
        }
        Some(text) => Some(text.parse().map_err(|error: oci::InvalidPlatform| CliError::Usage(error.to_string()))?),
        None => None,
    };
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
    let build_args = build_args(&args.build_args)?;
    let extra_hosts = add_hosts(&args.add_hosts)?;
    let is_proxy = |name: &str| {
        ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].contains(&name.to_uppercase().as_str())
    };
    let proxies =
        build_args.iter().filter(|(name, _)| is_proxy(name)).map(|(name, value)| (name.clone(), value.clone()));
    let proxies = proxies.collect();
    let mode = match args.quiet {
        true => Mode::Quiet,
        false => Mode::parse(args.progress.as_deref().or(app.config.progress.as_deref()).unwrap_or("auto"))?,
    };
    Ok(Request {
        context,
        file: args.file.clone(),
        mode,
        lower: LowerOptions {
            target: args.target.clone(),
            build_args,
            labels: labels(&args.labels)?,
            platform,
            network,
            extra_hosts: extra_hosts.iter().map(|(_, name)| name.clone()).collect(),
        },
        worker: WorkerOptions { extra_hosts, proxies },
        outputs: outputs(args, &tags)?,
    })
}

/// R5.4 to R5.7.
fn outputs(args: &BuildArgs, tags: &[String]) -> Result<Vec<OutputSpec>> {
    let format = ImageFormat { compression: None, docker_types: false };
    let mut outputs: Vec<OutputSpec> =
        args.outputs.iter().map(|text| OutputSpec::parse(text).map_err(CliError::Usage)).collect::<Result<_>>()?;
    let has_image = |outputs: &[OutputSpec]| outputs.iter().any(|output| matches!(output, OutputSpec::Image { .. }));
    if outputs.is_empty() || ((args.push || args.load) && !has_image(&outputs)) {
        outputs.push(OutputSpec::Image { names: Vec::new(), push: false, format });
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
            OutputSpec::Archive { names, .. } => {
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

fn build_args(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut args = BTreeMap::new();
    for text in given {
        match text.split_once('=') {
            Some(("", _)) => return Err(CliError::Usage(format!("invalid build argument {text:?}: it has no name"))),
            Some((name, value)) => drop(args.insert(name.to_owned(), value.to_owned())),
            // D13.16: unset there, it is not passed.
            None => {
                if let Ok(value) = std::env::var(text) {
                    args.insert(text.clone(), value);
                }
            }
        }
    }
    Ok(args)
}

fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let pairs = given.iter().map(|text| match text.split_once('=') {
        Some(("", _)) => Err(CliError::Usage(format!("invalid label {text:?}: it has no name"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Ok((text.clone(), String::new())),
    });
    pairs.collect()
}

/// Addresses and names.
fn add_hosts(given: &[String]) -> Result<Vec<(String, String)>> {
    let hosts = given.iter().map(|text| {
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let invalid = || CliError::Usage(format!("invalid --add-host {text:?}: expected NAME:IP"));
        let (name, address) = split.filter(|(name, _)| !name.is_empty()).ok_or_else(invalid)?;
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        let address: std::net::IpAddr = bare.parse().map_err(|_| invalid())?;
        Ok((address.to_string(), name.to_owned()))
    });
    hosts.collect()
}

/// The source that errors quote.
struct Source {
    name: String,
    text: String,
}

impl Source {
    fn error(&self, span: Option<Span>, message: String) -> CliError {
        CliError::Build { excerpt: span.map(|span| excerpt(&self.text, &self.name, span)), message }
    }

    fn diagnostic(&self, error: &Diagnostic) -> CliError {
        self.error(Some(error.span), error.to_string())
    }
}

type Cancelled = u8;

/// From the request to all outputs. Gives the image, if an output made one.
async fn build(
    args: &BuildArgs,
    request: &Request,
    app: &App,
    images: &Images,
    events: &EventSink,
) -> Result<std::result::Result<Option<BuiltImage>, Cancelled>> {
    let (source, context) = load_definition(request, app, events)?;
    let dockerfile = parser::parse(&source.text).map_err(|errors| parse_errors(&source, errors))?;
    let resolver = NotedResolver { images, events };
    let plan = lower::lower(&dockerfile, &request.lower, &resolver).await;
    let plan = plan.map_err(|error| source.diagnostic(&error))?;
    let Plan { graph, result, config, base_history } = plan;
    let contexts = BTreeMap::from([("context".to_owned(), context)]);
    let worker = Arc::new(LocalWorker::new(
        app.snapshots.clone(),
        app.launcher.clone(),
        images.clone(),
        contexts,
        request.worker.clone(),
    ));
    let index = Arc::new(StoreIndex::new(app.store.clone()));
    let options = ScheduleOptions { no_cache: args.no_cache };
    let solved = solve(Arc::new(graph), &[result], worker.clone(), index, options, events.clone()).await;
    worker.save_digests();
    let mut values = solved.map_err(|error| source.error(error.span, error.to_string()))?;
    let Some(Value::Files(stack)) = values.pop() else {
        return Err(CliError::Failed("the build has no files as its result".into()));
    };
    for warning in &dockerfile.warnings {
        let lines = parser::span::LineIndex::new(&source.text).lines(warning.span);
        let rule = warning.rule.map(|rule| format!("{rule}: ")).unwrap_or_default();
        events.send(Event::Warning(WarningEvent {
            vertex: String::new(),
            level: 1,
            short: format!("{rule}{} (line {})", warning.message, lines.1),
            detail: Vec::new(),
            url: String::new(),
            lines: Some(lines),
        }));
    }
    let mut built = None;
    let exporter = Exporter { app, images, stack: &stack, config: &config, base_history, events };
    for output in &request.outputs {
        built = exporter.export(output).await?.or(built);
    }
    Ok(Ok(built))
}

/// Dockerfile and context (D19, D20).
fn load_definition(request: &Request, app: &App, events: &EventSink) -> Result<(Source, Arc<Context>)> {
    let shown = request.file.as_deref().unwrap_or(Path::new("Dockerfile")).to_string_lossy().into_owned();
    let task = events.start(format!("[internal] load build definition from {shown}"));
    let loaded = match request.file.as_deref() {
        Some(path) if path == Path::new("-") => {
            let mut data = Vec::new();
            std::io::stdin().read_to_end(&mut data)?;
            Ok((PathBuf::from("Dockerfile"), data))
        }
        file => local::read_dockerfile(&request.context, file).map(|file| (file.path, file.data)),
    };
    let (path, data) = loaded.map_err(|error| {
        let hint = match request.file {
            Some(_) => "",
            None => ": put a Dockerfile into the context, or name one with -f",
        };
        CliError::Build { excerpt: None, message: format!("{error}{hint}") }
    })?;
    task.done();
    let task = events.start("[internal] load .dockerignore");
    let local = LocalSource::open(&request.context, "context", Some(&path))
        .map_err(|error| CliError::Build { excerpt: None, message: error.to_string() })?;
    task.done();
    let directory = request.context.canonicalize()?;
    let key = blake3_hex(directory.as_os_str().as_encoded_bytes());
    let digests_path = app.store.root().join(format!("digests-{key}"));
    let digests = StatCache::load(&digests_path);
    let name = path.file_name().map_or(shown, |name| name.to_string_lossy().into_owned());
    let source = Source { name, text: String::from_utf8_lossy(&data).into_owned() };
    Ok((source, Arc::new(Context { source: local, digests, digests_path })))
}

fn blake3_hex(bytes: &[u8]) -> String {
    oci::Digest::of(bytes).hex().chars().take(32).collect()
}

/// All errors are shown, the first one is the last line.
fn parse_errors(source: &Source, errors: Vec<Diagnostic>) -> CliError {
    let mut excerpts = String::new();
    for error in errors.iter().skip(1) {
        excerpts.push_str(&excerpt(&source.text, &source.name, error.span));
        excerpts.push_str(&format!("error: {error}\n"));
    }
    match errors.first() {
        None => CliError::Failed("the Dockerfile could not be parsed".into()),
        Some(first) => {
            excerpts.push_str(&excerpt(&source.text, &source.name, first.span));
            CliError::Build { excerpt: Some(excerpts), message: first.to_string() }
        }
    }
}

/// Shows what is asked of registries.
struct NotedResolver<'a> {
    images: &'a Images,
    events: &'a EventSink,
}

impl ImageResolver for NotedResolver<'_> {
    type Error = executor::Error;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> executor::error::Result<ResolvedImage> {
        let task = self.events.start(format!("[internal] load metadata for {reference}"));
        let resolved = self.images.resolve(reference, platform).await;
        match &resolved {
            Ok(_) => task.done(),
            Err(error) => task.failed(error),
        }
        resolved
    }
}

/// Hands a result on.
struct Exporter<'a> {
    app: &'a App,
    images: &'a Images,
    stack: &'a Stack,
    config: &'a oci::ImageConfig,
    base_history: usize,
    events: &'a EventSink,
}

impl Exporter<'_> {
    async fn export(&self, output: &OutputSpec) -> Result<Option<BuiltImage>> {
        let name = match output {
            OutputSpec::Image { .. } => "exporting to image",
            OutputSpec::Archive { docker: false, .. } => "exporting to oci image format",
            OutputSpec::Archive { docker: true, .. } => "exporting to docker image format",
            OutputSpec::Local(_) => "exporting to client directory",
            OutputSpec::Tar(_) => "exporting to client tarball",
            OutputSpec::CacheOnly => return Ok(None),
        };
        let task = self.events.start(name);
        let exported = self.export_with(output, &task).await;
        match &exported {
            Ok(_) => task.done(),
            Err(CliError::Usage(message) | CliError::Failed(message) | CliError::Build { message, .. }) => {
                task.failed(message);
            }
        }
        exported
    }

    async fn export_with(&self, output: &OutputSpec, task: &solver::event::Task) -> Result<Option<BuiltImage>> {
        let store = &self.app.store;
        match output {
            OutputSpec::Image { names, push, format } => {
                // What stays here needs no compression; what leaves does.
                let default = if *push { Compression::GZIP } else { Compression::None };
                let image = self.image(*format, default, task).await?;
                if names.is_empty() {
                    store.keep(&image.descriptor)?;
                }
                for name in names {
                    store.tag(name, &image.descriptor)?;
                    task.status(format!("naming to {name}"), 0, 0, true);
                }
                if *push {
                    let client = self.app.client()?;
                    for name in names {
                        let reference = reference(name)?;
                        push::push(store, &client, &reference, &image.descriptor, task)
                            .await
                            .map_err(|error| CliError::Failed(format!("failed to push {name}: {error}")))?;
                        task.status(format!("pushing manifest for {name}"), 0, 0, true);
                    }
                }
                Ok(Some(image))
            }
            OutputSpec::Archive { docker, destination, names, format } => {
                let image = self.image(*format, Compression::GZIP, task).await?;
                let images = [(names.clone(), image.descriptor.clone())];
                to_destination(destination, |out| archive::write(store, &images, *docker, out))?;
                Ok(Some(image))
            }
            OutputSpec::Local(directory) => {
                self.files(task).await?;
                tree::to_directory(&self.app.snapshots, self.stack, directory)?;
                Ok(None)
            }
            OutputSpec::Tar(destination) => {
                self.files(task).await?;
                to_destination(destination, |out| tree::to_tar(&self.app.snapshots, self.stack, out))?;
                Ok(None)
            }
            OutputSpec::CacheOnly => Ok(None),
        }
    }

    async fn image(&self, format: ImageFormat, default: Compression, task: &solver::event::Task) -> Result<BuiltImage> {
        task.status("exporting layers", 0, 0, false);
        let compression = format.compression.unwrap_or(default);
        let options = ImageOptions { compression, docker_types: format.docker_types };
        let (snapshots, images) = (&self.app.snapshots, self.images);
        let image =
            image::complete(snapshots, images, self.stack, self.config, self.base_history, options, task).await?;
        task.status("exporting layers", 0, 0, true);
        Ok(image)
    }

    /// Sees to it that the result's files are there.
    async fn files(&self, task: &solver::event::Task) -> Result<()> {
        Ok(self.images.unpack(&self.app.snapshots, self.stack, task.digest(), task.sink()).await?)
    }
}

type Writer<'a> = BufWriter<Box<dyn Write + 'a>>;

fn to_destination(
    destination: &Destination,
    write: impl FnOnce(&mut Writer) -> executor::error::Result<()>,
) -> Result<()> {
    match destination {
        Destination::File(path) => to_file(path, write),
        Destination::Stdout => {
            let mut out: Writer = BufWriter::new(Box::new(std::io::stdout().lock()));
            write(&mut out)?;
            Ok(out.flush()?)
        }
    }
}

/// Writes a file that is whole or not there.
pub fn to_file(path: &Path, write: impl FnOnce(&mut Writer) -> executor::error::Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| CliError::Failed(format!("cannot write {}: {error}", path.display()));
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Pipes and devices cannot be renamed over.
    if path.exists() && !path.is_file() {
        let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        let mut out: Writer = BufWriter::new(Box::new(file));
        write(&mut out)?;
        return out.flush().map_err(failed);
    }
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut out: Writer = BufWriter::with_capacity(256 * 1024, Box::new(file.as_file_mut()));
    write(&mut out)?;
    out.flush().map_err(failed)?;
    drop(out);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// What is left to say after a success (R5.11).
fn report(args: &BuildArgs, built: Option<&BuiltImage>) -> Result<()> {
    if let (Some(path), Some(image)) = (&args.iidfile, built) {
        to_file(path, |out| Ok(write!(out, "{}", image.config).map_err(executor::Error::output)?))?;
    }
    if let Some(path) = &args.metadata_file {
        let metadata = match built {
            Some(image) => {
                let names: Vec<String> =
                    args.tags.iter().map(|tag| Ok(reference(tag)?.to_string())).collect::<Result<_>>()?;
                let mut metadata = json!({
                    "containerimage.config.digest": image.config,
                    "containerimage.descriptor": image.descriptor,
                    "containerimage.digest": image.descriptor.digest(),
                });
                if !names.is_empty() {
                    metadata["image.name"] = names.join(",").into();
                }
                metadata
            }
            None => json!({}),
        };
        let text = serde_json::to_string_pretty(&metadata)?;
        to_file(path, |out| Ok(writeln!(out, "{text}").map_err(executor::Error::output)?))?;
    }
    if args.quiet
        && let Some(image) = built
    {
        println!("{}", image.config);
    }
    Ok(())
}
