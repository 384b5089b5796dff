//! Keeps what a build was made of, so that later ones can say what is new.

use super::args::BuildArgs;
use super::context::MainContext;
use super::explain::Explain;
use super::request::Request;
use crate::app::App;
use crate::error::Result;
use executor::builds::Builds;
use parser::source::redacted;
use solver::event::VertexDigest;
use solver::explain::Explainer;
use solver::graph::{Graph, VertexId};
use solver::record::{BuildRecord, Identity, Outcome};
use solver::trace::{Trace, Tracer, Waits};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// Follows a build from its beginning.
pub struct Recorder {
    /// For the scheduler.
    pub tracer: Tracer,
    pub identity: Identity,
    pub started: SystemTime,
    no_cache: bool,
    explain: Option<Explain>,
    /// Somebody wants the trace also where there is nothing new to keep.
    wants_trace: bool,
    plan: OnceLock<Plan>,
}

/// What became of a build.
pub struct Recorded {
    pub trace: Trace,
    pub waits: HashMap<VertexDigest, Waits>,
}

struct Plan {
    graph: Arc<Graph>,
    targets: Vec<VertexId>,
    source: String,
}

impl Recorder {
    pub fn new(args: &BuildArgs, request: &Request) -> Recorder {
        Recorder {
            tracer: Tracer::default(),
            identity: identity(request),
            no_cache: args.no_cache,
            explain: request.explain.clone(),
            wants_trace: args.report.is_some(),
            started: SystemTime::now(),
            plan: OnceLock::new(),
        }
    }

    /// What is going to be built. A build that does not come so far has nothing to record.
    pub fn planned(&self, graph: Arc<Graph>, targets: &[VertexId], source: &str) {
        let _ = self.plan.set(Plan { graph, targets: targets.to_vec(), source: source.to_owned() });
    }

    /// Says why steps ran, if that is asked for, and keeps the record. A failure to do so fails no build.
    pub fn finish(&self, app: &App, outcome: Outcome) -> Option<Recorded> {
        let plan = self.plan.get()?;
        let trace = self.conclude(app, plan, outcome).unwrap_or_else(|error| {
            if self.explain.is_some() {
                // Nobody may be there to read it.
                let _ = writeln!(std::io::stderr(), "warning: --explain: {error}");
            }
            // What is known without the records.
            self.wants_trace.then(|| self.tracer.trace(&plan.graph, &plan.targets, &plan.source, &[0; 32]))
        });
        trace.map(|trace| Recorded { trace, waits: self.tracer.waits(&plan.graph) })
    }

    fn conclude(&self, app: &App, plan: &Plan, outcome: Outcome) -> Result<Option<Trace>> {
        let builds = Builds(&app.store);
        let fingerprint = self.tracer.fingerprint(&plan.graph, &plan.targets);
        let entries = builds.entries_of(&self.identity)?;
        let is_known = fingerprint.is_some() && fingerprint.as_ref() == entries.first().map(|entry| &entry.fingerprint);
        let is_idle = self.tracer.is_idle(&plan.graph);
        // Nothing ran, and it is what was there last time: the record of that tells all that one of this build would.
        let is_new = !(is_known && is_idle);
        if !is_new && self.explain.is_none() && !self.wants_trace {
            return Ok(None);
        }
        let secret = app.store.build_secret()?;
        let mut trace = self.tracer.trace(&plan.graph, &plan.targets, &plan.source, &secret);
        let mut earlier = entries.iter().filter_map(|entry| builds.read(entry).ok().flatten()).peekable();
        let files = |old: &str, new: &str| builds.file_changes(old, new);
        let last = earlier.peek().cloned();
        Explainer { no_cache: self.no_cache, files: &files }.explain(&mut trace, earlier.map(|record| record.trace));
        let record = BuildRecord {
            identity: self.identity.clone(),
            outcome,
            started: self.started.into(),
            completed: SystemTime::now().into(),
            trace,
        };
        if is_new {
            builds.keep(&record, fingerprint.as_deref().unwrap_or("0"))?;
        }
        if let Some(explain) = &self.explain {
            explain.tell(&record, last.as_ref())?;
        }
        Ok(Some(record.trace))
    }
}

fn identity(request: &Request) -> Identity {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned();
    let context = match &request.context {
        MainContext::Directory(path) | MainContext::Archive(path) => absolute(path),
        MainContext::Stdin => "-".to_owned(),
        MainContext::Url(url) => redacted(url),
        MainContext::Git(git) => format!("{}#{}:{}", redacted(&git.remote), git.reference, git.subdir),
    };
    let dockerfile = match &request.file {
        Some(file) if file.to_string_lossy().contains("://") => redacted(&file.to_string_lossy()),
        Some(file) => absolute(file),
        None => "Dockerfile".to_owned(),
    };
    Identity {
        context,
        dockerfile,
        target: request.lower.target.clone(),
        platforms: request.platforms.iter().map(ToString::to_string).collect(),
    }
}
