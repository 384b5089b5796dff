//! `--verify-reproducible`: builds everything a second time and compares.
//!
//! What counts is what the outputs would hold: with `rewrite-timestamp`, files that differ only in times after SOURCE_DATE_EPOCH are equal.

use super::export::PlatformResult;
use super::request::Request;
use crate::app::App;
use crate::error::{CliError, Result};
use crate::output::OutputSpec;
use executor::value::Value;
use executor::verify::{self, LayerDifference, NoIndex};
use executor::worker::{LocalWorker, Sources, WorkerOptions};
use oci::layer::Times;
use solver::event::{Event, EventSink};
use solver::graph::{Graph, VertexId};
use solver::schedule::{ScheduleOptions, SolveError, solve};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The second build begins so much later than the first: times of files are compared by seconds.
const LATER: Duration = Duration::from_secs(2);

/// Files that often differ, by a part of their path, and what helps.
const ADVICE: [(&[&str], &str); 6] = [
    (
        &["__pycache__", ".pyc"],
        "Python's compiled files hold times: `pip install --no-compile`, or PYTHONDONTWRITEBYTECODE=1",
    ),
    (
        &["var/log/", "var/cache/", "var/lib/apt/"],
        "logs and caches tell when they were written: remove them in the step that makes them",
    ),
    (
        &[".tar", ".jar", ".zip", ".whl"],
        "archives hold times and the order of a directory: `tar --sort=name --mtime=@$SOURCE_DATE_EPOCH`, `zip -X`",
    ),
    (&[".gz"], "gzip keeps a name and a time: `gzip -n`"),
    (&["/.git/"], "a repository's own files depend on how it was fetched: leave .git out of the image"),
    (
        &[".a", ".o", ".so"],
        "compilers put times and paths into what they make: see their options for reproducible builds, such as `ar D`",
    ),
];

/// What the second build needs.
pub struct Second<'a> {
    pub app: &'a App,
    pub request: &'a Request,
    pub graph: &'a Arc<Graph>,
    pub sources: Sources,
    pub schedule: ScheduleOptions,
    pub events: &'a EventSink,
    /// When the first build began.
    pub began: Instant,
}

/// What the second build gave. Its layers go with it.
pub struct BuiltAgain<'a> {
    app: &'a App,
    request: &'a Request,
    values: Vec<Value>,
    index: Arc<NoIndex>,
}

/// A name for cache directories that no other build has.
pub fn scope() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("verify {} {}", std::process::id(), since.as_nanos())
}

impl<'a> Second<'a> {
    /// Builds `targets` once more.
    pub async fn build(self, targets: &[VertexId]) -> std::result::Result<BuiltAgain<'a>, SolveError> {
        let Second { app, request, graph, sources, schedule, events, began } = self;
        tokio::time::sleep(LATER.saturating_sub(began.elapsed())).await;
        let options = WorkerOptions { keep_failed: false, cache_scope: Some(scope()), ..request.worker.clone() };
        let worker = Arc::new(LocalWorker::new(app.snapshots.clone(), app.launcher.clone(), sources, options));
        let index = Arc::new(NoIndex::default());
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let shown = events.clone();
        // Told apart from the first time.
        let shown = tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                shown.send(again(event));
            }
        });
        let events = EventSink::new(sender);
        let values = solve(graph.clone(), targets, worker.clone(), index.clone(), schedule, events).await;
        let _ = shown.await;
        // Where that fails, they are the next collection's.
        let _ = worker.remove_scope();
        Ok(BuiltAgain { app, request, values: values?, index })
    }
}

impl BuiltAgain<'_> {
    /// An error that tells all differences from the first build, if there are any.
    pub fn compare(self, parts: &[PlatformResult]) -> Result<()> {
        let seconds = self.values.iter().filter_map(|value| match value {
            Value::Files(stack) => Some(stack),
            Value::Local(_) => None,
        });
        let (mut report, mut layers, mut differing) = (Report::default(), 0, 0);
        for (part, second) in parts.iter().zip(seconds) {
            let leaving = Leaving::of(&self.request.outputs, part.target.epoch);
            let found = verify::differences(&self.app.snapshots, &part.stack, second, leaving.times)?;
            let count = part.stack.layers().len();
            (layers, differing) = (layers + count, differing + found.len());
            for difference in &found {
                report.layer(part, count, difference);
            }
            if leaving.has_undated_image && part.target.config.history.len() > part.target.base_history {
                report.has_undated_image = true;
                let platform = &part.platform;
                let _ = writeln!(
                    report.text,
                    "{platform}, config of the image\n  created, history: the times of the build"
                );
            }
            report.has_epoch |= part.target.epoch.is_some();
        }
        if report.text.is_empty() {
            return Ok(());
        }
        let what = match differing {
            0 => "built again, the image differs in its own times".to_owned(),
            _ => format!("built again, {differing} of {layers} layers differ"),
        };
        let advice: String = report.advice().iter().map(|advice| format!("\nnote: {advice}")).collect();
        Err(CliError::Failed(format!("the build is not reproducible: {what}\n{}{advice}", report.text.trim_end())))
    }
}

impl Drop for BuiltAgain<'_> {
    fn drop(&mut self) {
        // Where that fails, they are the next collection's.
        let _ = self.app.store.take_back(&self.index.made());
    }
}

/// An event of the first build as one of the second.
fn again(mut event: Event) -> Event {
    let renamed = |digest: &str| format!("again-{digest}");
    match &mut event {
        Event::Vertex(vertex) => {
            vertex.digest = renamed(&vertex.digest);
            vertex.inputs.iter_mut().for_each(|input| *input = renamed(input));
            vertex.name = format!("again: {}", vertex.name);
        }
        Event::Status(status) => status.vertex = renamed(&status.vertex),
        Event::Log(log) => log.vertex = renamed(&log.vertex),
        Event::Warning(warning) => warning.vertex = renamed(&warning.vertex),
    }
    event
}

/// How results leave the store.
struct Leaving {
    times: Times,
    /// An image whose own times are those of the build.
    has_undated_image: bool,
}

impl Leaving {
    /// Of several outputs, the one that changes least.
    fn of(outputs: &[OutputSpec], build_epoch: Option<i64>) -> Leaving {
        let times = outputs.iter().map(|output| match output {
            OutputSpec::Image { format, .. }
            | OutputSpec::Archive { format, .. }
            | OutputSpec::Layout { format, .. } => {
                let epoch = format.epoch.seconds(build_epoch).filter(|_| format.rewrites_times);
                epoch.map_or(Times::Kept, Times::AtMost)
            }
            OutputSpec::Local { epoch, .. } | OutputSpec::Tar { epoch, .. } => {
                epoch.seconds(build_epoch).map_or(Times::Kept, Times::All)
            }
            OutputSpec::CacheOnly => Times::Kept,
        });
        let is_undated = |output: &OutputSpec| match output {
            OutputSpec::Image { format, .. }
            | OutputSpec::Archive { format, .. }
            | OutputSpec::Layout { format, .. } => build_epoch.or(format.epoch.seconds(None)).is_none(),
            _ => false,
        };
        Leaving { times: times.min().unwrap_or_default(), has_undated_image: outputs.iter().any(is_undated) }
    }
}

/// What is said of the differences.
#[derive(Default)]
struct Report {
    text: String,
    only_times: usize,
    has_epoch: bool,
    has_undated_image: bool,
    /// Places in [`ADVICE`].
    known: std::collections::BTreeSet<usize>,
}

impl Report {
    fn layer(&mut self, part: &PlatformResult, count: usize, difference: &LayerDifference) {
        let LayerDifference { index, comparison } = difference;
        let step = step_of(part, count, *index);
        let _ = writeln!(self.text, "{}, layer {} of {count}: {step}", part.platform, index + 1);
        for found in &comparison.differences {
            let aspects: Vec<_> = found.aspects.iter().map(ToString::to_string).collect();
            let _ = writeln!(self.text, "  {}: {}", found.path, aspects.join("; "));
            if !found.is_only_time() {
                let is_known = |(parts, _): &(&[&str], &str)| {
                    parts.iter().any(|part| {
                        if part.contains('/') || part.starts_with("__") {
                            found.path.contains(part)
                        } else {
                            found.path.ends_with(part)
                        }
                    })
                };
                self.known.extend(ADVICE.iter().position(is_known));
            }
        }
        if let Some(more) = comparison.total.checked_sub(comparison.differences.len()).filter(|more| *more > 0) {
            let _ = writeln!(self.text, "  ... and {more} more");
        }
        self.only_times += comparison.only_times;
    }

    fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let files = |count: usize| {
            if count == 1 {
                "1 entry differs in its time only".into()
            } else {
                format!("{count} entries differ in their time only")
            }
        };
        match (self.only_times, self.has_epoch) {
            (0, _) => {}
            (count, true) => advice.push(format!("{}: give the outputs rewrite-timestamp=true", files(count))),
            (count, false) => advice.push(format!(
                "{}: set SOURCE_DATE_EPOCH, such as to $(git log -1 --format=%ct), and give the outputs rewrite-timestamp=true",
                files(count)
            )),
        }
        if self.has_undated_image && self.only_times == 0 {
            advice.push("the image's own times come from SOURCE_DATE_EPOCH, where it is set".to_owned());
        }
        advice.extend(self.known.iter().map(|place| ADVICE[*place].1.to_owned()));
        advice
    }
}

/// The instruction that made a layer, as the history tells it: its last entries are those of the upper layers.
fn step_of(part: &PlatformResult, count: usize, index: usize) -> &str {
    let mut entries = part.target.config.history.iter().rev().filter(|entry| !entry.empty_layer);
    let entry = entries.nth(count - 1 - index);
    entry.and_then(|entry| entry.created_by.as_deref()).unwrap_or("(a layer without a history)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_that_changes_least_counts() {
        let leaving = |texts: &[&str], epoch| {
            let outputs: Vec<_> = texts.iter().map(|text| OutputSpec::parse(text).unwrap()).collect();
            let Leaving { times, has_undated_image } = Leaving::of(&outputs, epoch);
            (times, has_undated_image)
        };
        let rewritten = "type=image,rewrite-timestamp=true";
        assert_eq!(leaving(&[rewritten], Some(7)), (Times::AtMost(7), false));
        assert_eq!(leaving(&[rewritten], None), (Times::Kept, true));
        assert_eq!(leaving(&[rewritten, "type=image"], Some(7)), (Times::Kept, false));
        assert_eq!(leaving(&["type=local,dest=x"], Some(7)), (Times::All(7), false));
        assert_eq!(leaving(&["type=local,dest=x", rewritten], Some(7)), (Times::AtMost(7), false));
        assert_eq!(leaving(&["type=cacheonly"], None), (Times::Kept, false));
        assert_eq!(
            leaving(&["type=image,source-date-epoch=7,rewrite-timestamp=true"], None),
            (Times::AtMost(7), false)
        );
    }
}
