//! `--report`: a page about the build, also about one that failed or was cancelled.

use super::export::{Built, PlatformResult};
use super::record::{Recorded, Recorder};
use super::request::Request;
use crate::app::{App, USER_AGENT, familiar};
use crate::error::{CliError, Result};
use crate::file::bytes_to_file;
use crate::output::OutputSpec;
use executor::contents::contents;
use executor::value::Stack;
use solver::event::Event;
use solver::record::Outcome;
use solver::report::{Collector, ImageContents, Observed, Report, page};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::SystemTime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Collects for the page while the build goes on.
pub struct Reporter {
    path: PathBuf,
    names: Vec<String>,
    /// Ends when nobody sends events any more.
    collecting: JoinHandle<Observed>,
    results: OnceLock<Vec<(String, Arc<Stack>)>>,
}

/// How the build ended.
#[derive(Default)]
pub struct End<'a> {
    pub built: Option<&'a Built>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Reporter {
    /// Sees events on their way; the receiver that comes back gets them next.
    pub fn begin(
        path: &Path,
        request: &Request,
        mut events: UnboundedReceiver<Event>,
    ) -> Result<(Reporter, UnboundedReceiver<Event>)> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.is_dir() || path.is_dir() {
            // Said before the build, not after it.
            return Err(CliError::Usage(format!("--report={}: there can be no such file", path.display())));
        }
        let (sender, receiver) = unbounded_channel();
        let collecting = std::thread::spawn(move || {
            let mut collector = Collector::default();
            while let Some(event) = events.blocking_recv() {
                collector.see(&event);
                // The display may have gone away.
                let _ = sender.send(event);
            }
            collector.finish()
        });
        let names = request.outputs.iter().flat_map(|output| match output {
            OutputSpec::Image { names, .. } | OutputSpec::Archive { names, .. } | OutputSpec::Layout { names, .. } => {
                names.as_slice()
            }
            OutputSpec::Local { .. } | OutputSpec::Tar { .. } | OutputSpec::CacheOnly => &[],
        });
        let mut names: Vec<_> = names.map(|name| familiar(name)).collect();
        names.dedup();
        Ok((Reporter { path: path.to_owned(), names, collecting, results: OnceLock::new() }, receiver))
    }

    /// What came out.
    pub fn solved(&self, parts: &[PlatformResult]) {
        let results = parts.iter().map(|part| (part.platform.to_string(), part.stack.clone()));
        let _ = self.results.set(results.collect());
    }

    /// Writes the page: whole, or not at all. `recorded` is missing for a build that ended before it was known what to do.
    pub fn write(
        self,
        app: &App,
        recorder: &Recorder,
        recorded: Option<Recorded>,
        outcome: Outcome,
        end: End<'_>,
    ) -> Result<()> {
        let completed = SystemTime::now();
        // After an interruption there is no time for it.
        let images = if outcome == Outcome::Cancelled { Vec::new() } else { self.images(app)? };
        let (trace, waits) = recorded.map(|recorded| (recorded.trace, recorded.waits)).unzip();
        let report = Report {
            identity: recorder.identity.clone(),
            outcome,
            started: recorder.started,
            completed,
            names: self.names,
            digest: end.built.map(|built| built.descriptor.digest().to_string()),
            error: end.error,
            version: USER_AGENT.replace('/', " "),
            trace,
            waits: waits.unwrap_or_default(),
            observed: self.collecting.join().unwrap_or_default(),
            images,
        };
        bytes_to_file(&self.path, page(&report).as_bytes())
    }

    fn images(&self, app: &App) -> Result<Vec<ImageContents>> {
        let results = self.results.get().map(Vec::as_slice).unwrap_or_default();
        let images = results.iter().map(|(platform, stack)| contents(&app.snapshots, stack, platform.clone()));
        Ok(images.collect::<executor::error::Result<_>>()?)
    }
}
