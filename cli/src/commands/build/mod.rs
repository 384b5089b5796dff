//! `rbuild build`: from flags to outputs.

mod args;
mod cache;
pub mod context;
mod explain;
mod export;
mod metadata;
mod record;
mod report;
mod request;
pub mod secret;
mod shell;
pub mod ssh;
mod verify;

pub use args::BuildArgs;

use crate::app::{App, USER_AGENT};
use crate::definition::Definition;
use crate::error::{CliError, Result, is_full_disk};
use crate::interrupt;
use crate::lockfile;
use crate::progress::Display;
use context::{Loaded, Loader};
use executor::index::StoreIndex;
use executor::source::git::Repositories;
use executor::source::http::Urls;
use executor::source::image::Images;
use executor::source::material;
use executor::value::Value;
use executor::worker::{LocalWorker, Sources};
use export::{Built, Exporter, PlatformResult};
use metadata::Taken;
use oci::fetch::Downloader;
use oci::{Platform, Reference};
use parser::lint::Rule;
use parser::{Diagnostic, LineIndex};
use record::Recorder;
use report::{End, Reporter};
use request::Request;
use shell::Debugging;
use solver::check;
use solver::event::{Event, EventSink, SourceFile, Stream, VertexDigest, WarningEvent};
use solver::lower::{self, ImageResolver, LowerOptions, Plans, ResolvedImage};
use solver::op::Source;
use solver::record::Outcome as Ending;
use solver::schedule::{ScheduleOptions, SolveError, solve};
use solver::trace::Tracer;
use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use verify::Second;

pub fn run(args: BuildArgs, app: &App, debug: bool) -> Result<ExitCode> {
    let request = request::request(&args, app)?;
    if let Some(path) = &args.iidfile {
        // An old id must not be taken for the one of a build that failed (R5.11.1).
        let _ = std::fs::remove_file(path);
    }
    let images = app.images(args.pull)?;
    let runtime = app.runtime()?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let (reporter, receiver) = match &args.report {
        Some(path) => {
            Reporter::begin(path, &request, receiver).map(|(reporter, receiver)| (Some(reporter), receiver))?
        }
        None => (None, receiver),
    };
    let display = Display::start(request.mode, debug, receiver);
    let events = EventSink::new(sender);
    interrupt::listen()?;
    let recorder = Recorder::new(&args, &request);
    let result = runtime.block_on(async {
        tokio::select! {
            result = build(&args, &request, app, &images, &events, &recorder, reporter.as_ref()) => result,
            code = interrupt::interrupted() => Ok(Outcome::Cancelled(code)),
        }
    });
    drop(events);
    drop(images);
    let record = |ending: Ending, end: End| {
        let recorded = recorder.finish(app, ending);
        reporter.map_or(Ok(()), |reporter| reporter.write(app, &recorder, recorded, ending, end))
    };
    // What was cancelled ends here, so that the display sees it.
    let shut_down = |runtime: Runtime, display: Display| {
        runtime.shutdown_timeout(interrupt::PATIENCE);
        display.finish();
    };
    match result {
        Ok(Outcome::Debugging(debugging)) => {
            interrupt::hand_over();
            let ending = if debugging.failure.is_some() { Ending::Failed } else { Ending::Succeeded };
            let error = debugging.failure.as_ref().map(ToString::to_string);
            display.finish();
            warn_of(record(ending, End { error, ..End::default() }));
            // The agents and the network of the step are tasks of the runtime.
            let code = runtime.block_on(debugging.run());
            runtime.shutdown_timeout(Duration::from_secs(1));
            app.store.empty_trash();
            Ok(ExitCode::from(code?))
        }
        Ok(Outcome::Built { image, members }) => {
            shut_down(runtime, display);
            let reported = record(Ending::Succeeded, End { built: image.as_deref(), error: None });
            app.store.empty_trash();
            export::report(&args, image.as_deref(), members)?;
            reported?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Outcome::Cancelled(code)) => {
            shut_down(runtime, display);
            warn_of(record(Ending::Cancelled, End::default()));
            app.store.empty_trash();
            Ok(cancelled(code))
        }
        Err(error) => {
            let error = error.of_build();
            let ending = if interrupt::code().is_some() { Ending::Cancelled } else { Ending::Failed };
            shut_down(runtime, display);
            warn_of(record(ending, End { built: None, error: Some(error.to_string()) }));
            app.store.empty_trash();
            // It may have failed because of that.
            interrupt::code().map_or_else(|| Err(error), |code| Ok(cancelled(code)))
        }
    }
}

/// Says that there is no report where something else decides the exit code.
fn warn_of(reported: Result<()>) {
    if let Err(error) = reported {
        let _ = writeln!(std::io::stderr(), "warning: --report: {}", error.message());
    }
}

fn cancelled(code: u8) -> ExitCode {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "error: failed to solve: Canceled: context canceled");
    ExitCode::from(code)
}

enum Outcome {
    Built {
        /// If an output made one.
        image: Option<Box<Built>>,
        /// Of the metadata file.
        members: Vec<(String, serde_json::Value)>,
    },
    /// With this exit code.
    Cancelled(u8),
    /// The rest is the user's.
    Debugging(Debugging),
}

/// From the request to all outputs.
async fn build(
    args: &BuildArgs,
    request: &Request,
    app: &App,
    images: &Images,
    events: &EventSink,
    recorder: &Recorder,
    reporter: Option<&Reporter>,
) -> Result<Outcome> {
    let secrets = &request.worker.secrets;
    let urls = Urls::new(app.snapshots.clone(), Downloader::new(USER_AGENT), secrets.clone());
    let repositories = Repositories::new(app.snapshots.clone(), request.git_keys.clone(), secrets.clone());
    let remote = Arc::new(request.caches.start(args.no_cache, app, events));
    let loader = Loader { app, request, images, urls: &urls, repositories: &repositories, events };
    let Loaded { definition, vertex, context, ignore, has_owners, lock } = loader.main().await?;
    let platforms = match request.platforms.is_empty() {
        true => vec![Platform::host()],
        false => request.platforms.clone(),
    };
    let (named, mut contexts) = loader.named(&platforms).await?;
    contexts.insert("context".to_owned(), context);
    let dockerfile = parser::parse(&definition.text).map_err(|errors| definition.errors(&errors))?;
    let resolver = NotedResolver {
        images,
        urls: &urls,
        repositories: &repositories,
        events,
        names_platform: request.lower.names_platform,
        known: Mutex::default(),
    };
    let options = named.into_iter().enumerate().map(|(index, contexts)| LowerOptions {
        platform: request.platforms.get(index).cloned(),
        ignore: ignore.clone(),
        context_has_owners: has_owners,
        contexts,
        lock: lock.clone(),
        ..request.lower.clone()
    });
    let options: Vec<_> = options.collect();
    let lowered = lower::lower_all(&dockerfile, &options, &resolver).await;
    warn(&lowered.warnings, &definition, &vertex, events);
    if let Some(warning) = lockfile::missing(lock.as_deref(), &lowered.lockable, args.locked)? {
        let task = events.start("[internal] load lock file");
        task.log(Stream::Stderr, format!("WARNING: {warning}\n"));
        task.done();
    }
    let plans = lowered.plans.map_err(|errors| definition.errors(&errors))?;
    if lowered.warnings_are_errors && !lowered.warnings.is_empty() {
        return Err(CliError::build(check::violation(&lowered.warnings)));
    }
    let Plans { graph, targets } = plans;
    let sources = Sources {
        images: images.clone(),
        urls: urls.clone(),
        repositories: repositories.clone(),
        contexts,
        remote: remote.clone(),
    };
    let again = args.verify_reproducible.then(|| Sources { remote: Arc::default(), ..sources.clone() });
    let worker =
        Arc::new(LocalWorker::new(app.snapshots.clone(), app.launcher.clone(), sources, request.worker.clone()));
    let index = Arc::new(StoreIndex::new(app.store.clone(), remote.clone()));
    let began = Instant::now();
    let options = ScheduleOptions {
        no_cache: args.no_cache || args.verify_reproducible,
        max_parallelism: args.max_parallelism(&app.config.build),
        tracer: recorder.tracer.clone(),
    };
    let results: Vec<_> = targets.iter().map(|target| target.result).collect();
    let graph = Arc::new(graph);
    recorder.planned(graph.clone(), &results, &definition.text);
    let values = loop {
        let (graph, index, options) = (graph.clone(), index.clone(), options.clone());
        let solved = solve(graph, &results, worker.clone(), index, options, events.clone()).await;
        worker.save_digests();
        match solved {
            Ok(values) => match cache::make_ready(&values, request, args.wants_shell(), app, images, events).await {
                Ok(()) => break values,
                Err(error) if remote.discard(&error, events) => {}
                Err(error) => return Err(error.into()),
            },
            // What a remote cache promised and cannot give, steps do.
            Err(error) if remote.discard(error.source.as_ref(), events) => {}
            Err(error) => return failed(error, args, &definition, &app.store),
        }
    };
    worker.remove_scope()?;
    let mut parts = Vec::with_capacity(targets.len());
    for (value, target) in values.into_iter().zip(targets) {
        let Value::Files(stack) = value else {
            return Err(CliError::Failed("the build has no files as its result".into()));
        };
        parts.push(PlatformResult { platform: target.config.platform(), stack, target });
    }
    if let Some(reporter) = reporter {
        reporter.solved(&parts);
    }
    if let ([part], true) = (parts.as_slice(), args.wants_shell()) {
        let exec = shell::next_step(part, request);
        let session = worker.session(&part.stack, &exec, events).await?;
        let name = args.target()?.map_or_else(|| "that was built".to_owned(), |stage| format!("{stage:?}"));
        return Ok(Outcome::Debugging(Debugging {
            session: Box::new(session),
            program: args.debug_shell.clone(),
            name,
            failure: None,
        }));
    }
    if let Some(sources) = again {
        let schedule = ScheduleOptions {
            no_cache: true,
            max_parallelism: args.max_parallelism(&app.config.build),
            tracer: Tracer::default(),
        };
        let second = Second { app, request, graph: &graph, sources, schedule, events, began };
        match second.build(&results).await {
            Ok(second) => second.compare(&parts)?,
            Err(error) => return failed(error, args, &definition, &app.store),
        }
    }
    let mut built = None;
    let inline = request.caches.inline.then_some(remote.as_ref());
    let cached = &request.caches.repositories();
    let exporter =
        Exporter { app, images, parts: &parts, as_index: request.as_index, inline, repositories: cached, events };
    for output in &request.outputs {
        built = exporter.export(output).await?.or(built);
    }
    let cache = request.caches.export(&remote, &parts, app, events).await?;
    let mut members = Vec::new();
    // R7.6.18.
    members.extend(cache.map(|cache| ("cache.manifest".to_owned(), serde_json::json!(cache))));
    if args.metadata_file.is_some() {
        let taken = Taken {
            images: resolver.resolved(),
            materials: [urls.materials(), repositories.materials()].concat(),
            context: request.context.source().as_ref().and_then(material::uri),
        };
        members.extend(taken.provenance(&graph, &parts, request.as_index));
    }
    Ok(Outcome::Built { image: built.map(Box::new), members })
}

/// What becomes of a build in which a step failed.
fn failed(error: SolveError, args: &BuildArgs, definition: &Definition, store: &::cache::Store) -> Result<Outcome> {
    let SolveError { span, name, source } = error;
    let mut failure = definition.error(span, source.to_string()).of_build();
    // A program that found no room says so in its own words.
    let is_full = || store.disk().is_ok_and(|disk| disk.free < 1 << 16);
    if (is_full_disk(source.as_ref()) || is_full()) && !failure.message().contains("rbuild prune") {
        failure = failure.with_note("`rbuild prune` frees space that the build cache takes".into());
    }
    match source.downcast().map(|source| *source) {
        Ok(executor::Error::Kept { session, .. }) => Ok(Outcome::Debugging(Debugging {
            session,
            program: args.debug_shell.clone(),
            name,
            failure: Some(failure),
        })),
        _ if args.debug_on_failure => Err(failure.with_note(
            "there is no shell for this step: it ran no process. --shell=STAGE opens one in a stage that can be built"
                .into(),
        )),
        _ => Err(failure),
    }
}

/// What is wrong with the Dockerfile and does not stop the build.
fn warn(warnings: &[Diagnostic], definition: &Definition, vertex: &VertexDigest, events: &EventSink) {
    let index = LineIndex::new(&definition.text);
    let source = Arc::new(SourceFile { name: definition.name.clone(), text: definition.text.clone() });
    for warning in warnings {
        let lines = index.lines(warning.span);
        let name = warning.rule;
        let rule = Rule::find(name);
        events.send(Event::Warning(WarningEvent {
            vertex: vertex.clone(),
            level: 1,
            short: format!("{name}: {warning} (line {})", lines.0),
            detail: rule.map(|rule| rule.description.to_owned()).into_iter().collect(),
            url: rule.and_then(Rule::url).unwrap_or_default(),
            lines: Some(lines),
            source: Some(source.clone()),
        }));
    }
}

/// Shows what is asked of registries, and asks the same for several platforms once.
struct NotedResolver<'a> {
    images: &'a Images,
    urls: &'a Urls,
    repositories: &'a Repositories,
    events: &'a EventSink,
    /// There are several platforms.
    names_platform: bool,
    known: Mutex<HashMap<(Reference, Platform), Answer>>,
}

type Answer = Arc<OnceCell<ResolvedImage>>;

impl NotedResolver<'_> {
    /// What was asked, and answered.
    fn resolved(&self) -> Vec<(Reference, ResolvedImage)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(|((reference, _), answer)| Some((reference.clone(), answer.get()?.clone()))).collect()
    }
}

impl ImageResolver for NotedResolver<'_> {
    type Error = executor::Error;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> executor::error::Result<ResolvedImage> {
        let once = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry((reference.clone(), platform.clone())).or_default().clone()
        };
        let ask = async || {
            let platform_name = if self.names_platform { format!("{platform} ") } else { String::new() };
            let task = self.events.start(format!("[{platform_name}internal] load metadata for {reference}"));
            let resolved = self.images.resolve(reference, platform).await;
            match &resolved {
                Ok(_) => task.done(),
                Err(error) => task.failed(error),
            }
            resolved
        };
        once.get_or_try_init(ask).await.cloned()
    }

    async fn source_time(&self, source: &Source) -> executor::error::Result<Option<i64>> {
        let task = self.events.start("[internal] resolve SOURCE_DATE_EPOCH");
        let time = match source {
            Source::Git(git) => self.repositories.time(git).await,
            Source::Http { url, filename, checksum } => {
                self.urls.time(url, filename, checksum.as_deref(), task.digest(), self.events).await
            }
            _ => Ok(None),
        };
        match &time {
            Ok(_) => task.done(),
            Err(error) => task.failed(error),
        }
        time
    }
}
