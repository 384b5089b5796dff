//! Keeps what a build was made of, so that later ones can say what is new.

use super::context::MainContext;
use super::request::Request;
use crate::app::App;
use executor::builds::Builds;
use parser::source::redacted;
use solver::graph::{Graph, VertexId};
use solver::record::{BuildRecord, Identity, Outcome};
use solver::trace::Tracer;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// Follows a build from its beginning.
pub struct Recorder {
    /// For the scheduler.
    pub tracer: Tracer,
    identity: Identity,
    started: SystemTime,
    plan: OnceLock<Plan>,
}

struct Plan {
    graph: Arc<Graph>,
    targets: Vec<VertexId>,
    source: String,
}

impl Recorder {
    pub fn new(request: &Request) -> Recorder {
        Recorder {
            tracer: Tracer::default(),
            identity: identity(request),
            started: SystemTime::now(),
            plan: OnceLock::new(),
        }
    }

    /// What is going to be built. A build that does not come so far has nothing to record.
    pub fn planned(&self, graph: Arc<Graph>, targets: &[VertexId], source: &str) {
        let _ = self.plan.set(Plan { graph, targets: targets.to_vec(), source: source.to_owned() });
    }

    /// Keeps the record. A failure to do so fails no build.
    pub fn finish(&self, app: &App, outcome: Outcome) {
        let Some(plan) = self.plan.get() else { return };
        let _ = self.keep(app, plan, outcome);
    }

    fn keep(&self, app: &App, plan: &Plan, outcome: Outcome) -> executor::error::Result<()> {
        let builds = Builds(&app.store);
        let fingerprint = self.tracer.fingerprint(&plan.graph, &plan.targets);
        let entries = builds.entries_of(&self.identity)?;
        // Nothing ran, and it is what was there last time: the record of that tells all that one of this build would.
        let is_known = fingerprint.is_some() && fingerprint.as_ref() == entries.first().map(|entry| &entry.fingerprint);
        if is_known && self.tracer.is_idle(&plan.graph) {
            return Ok(());
        }
        let secret = app.store.build_secret()?;
        let record = BuildRecord {
            identity: self.identity.clone(),
            outcome,
            started: self.started.into(),
            completed: SystemTime::now().into(),
            trace: self.tracer.trace(&plan.graph, &plan.targets, &plan.source, &secret),
        };
        builds.keep(&record, fingerprint.as_deref().unwrap_or("0"))?;
        Ok(())
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
