//! A trace: what a build was made of and what became of each part, in a form that is kept.
//!
//! While a build runs, the scheduler tells its [`Tracer`] of each vertex. [`Tracer::trace`] puts that together with the graph at any moment, also when the
//! build has failed or was given up: what had begun then was cancelled, and what had not was not reached.
//!
//! A trace is for comparing builds and for showing them. Texts of instructions are in it as the Dockerfile has them; whatever came from variables and
//! arguments is in it only as a hash, keyed by a secret of the store, since it may be what nobody else should see.

use crate::event::VertexDigest;
use crate::graph::{Graph, IGNORES_CACHE, Origin, Vertex, VertexId};
use crate::key::{ContentId, ContentKey};
use crate::op::{Op, Source};
use parser::LineIndex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use time::OffsetDateTime;

/// A build, vertex by vertex.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Inputs before their users.
    pub vertices: Vec<TracedVertex>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedVertex {
    /// As in events.
    pub digest: VertexDigest,
    /// As progress shows it, but for variables, which are not expanded: `[build 2/5] RUN make $FLAGS`.
    pub name: String,
    pub kind: Kind,
    /// Of a source: `docker.io/library/alpine:3.20@sha256:…`, a URL, a repository, or the name of a context. Without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<TracedInstruction>,
    /// In the op's order.
    pub inputs: Vec<VertexDigest>,
    pub state: State,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub started: Option<OffsetDateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub completed: Option<OffsetDateTime>,
    /// The content key in hex, once it was known. Only files and execs have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What each input contributed to the key, in hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contributions: Vec<String>,
    /// What the worker calls the result: here a layer's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it ran, if it did: the most telling first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    #[serde(default)]
    pub definition: Definition,
}

/// The instruction that a vertex comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TracedInstruction {
    /// `build`, or `stage-0`.
    pub stage: String,
    /// From 0.
    pub stage_position: usize,
    /// That of the target, where several are built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Among the stage's instructions, from 1; FROM has 0.
    pub position: usize,
    /// In the Dockerfile, from 1.
    pub line: usize,
    /// As written, with continuations and bodies of here-documents.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Image,
    Local,
    Http,
    Git,
    Scratch,
    Exec,
    File,
    Merge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its result was there.
    Cached,
    Ran,
    Failed,
    /// It had begun when the build ended.
    Cancelled,
    #[default]
    NotReached,
}

/// What decides a vertex's result besides its inputs, as keyed hashes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The op's parts by name: `args`, `cwd`, `user`, …
    pub parts: BTreeMap<String, String>,
    /// Variables that the op has or its text may use, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Those of them that come from ARG.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// Why a step ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// No earlier build of this Dockerfile is known.
    FirstBuild,
    /// The last build had no such step.
    NewStep,
    /// The instruction reads otherwise.
    TextChanged {
        words: Vec<WordChange>,
    },
    VariablesChanged {
        variables: Vec<VariableChange>,
    },
    /// Something else that the step depends on: `working directory`, `user`, `shell`, …
    SettingsChanged {
        settings: Vec<String>,
    },
    /// The base is another image: both with their digests.
    ImageChanged {
        old: String,
        new: String,
    },
    /// Files that the step takes. `from` names the context, the stage or the image that they are of; `changes` is missing where what they were is not known.
    FilesChanged {
        from: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<FileChanges>,
    },
    /// A step that this one builds on has another result.
    InputChanged {
        step: VertexDigest,
        name: String,
    },
    /// The flag that asked for it: `--no-cache` or `--no-cache-filter`.
    Forced {
        flag: String,
    },
    /// It failed last time, and failures are not kept.
    FailedBefore,
    /// It was not finished last time, or not begun.
    UnfinishedBefore,
    /// The result is no longer in the store.
    Evicted,
    /// Another version of rbuild made the last build.
    OtherVersion,
}

/// A run of words of an instruction as it was and as it is, with a few words that stayed on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordChange {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub old: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub new: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariableChange {
    /// Never its value.
    pub name: String,
    pub kind: VariableKind,
    pub change: Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VariableKind {
    Arg,
    Env,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Added,
    Changed,
    Removed,
    /// Of a file: its mode or owner, and not what it holds.
    Mode,
}

/// What became of files; the list is cut off, the number is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    pub total: usize,
    pub files: Vec<FileChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    pub path: String,
    pub change: Change,
}

impl TracedVertex {
    /// Whether it is a step: something that runs or need not.
    pub fn is_step(&self) -> bool {
        matches!(self.kind, Kind::Exec | Kind::File)
    }

    /// Whether it runs whatever the index knows (`--no-cache-filter`).
    pub fn ignores_cache(&self) -> bool {
        self.digest.ends_with(IGNORES_CACHE)
    }

    /// Whether it did something, with or without success.
    pub fn has_run(&self) -> bool {
        self.is_step() && matches!(self.state, State::Ran | State::Failed | State::Cancelled)
    }
}

impl Trace {
    pub fn vertex(&self, digest: &str) -> Option<&TracedVertex> {
        self.vertices.iter().find(|vertex| vertex.digest == digest)
    }
}

/// Collects what becomes of vertices. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Arc<Mutex<HashMap<VertexId, Observed>>>);

/// When a vertex had what it waits for after its inputs. What it never waited for is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// The inputs were read, as far as the key needs it.
    pub keyed: Option<SystemTime>,
    /// Nobody else was making the same.
    pub locked: Option<SystemTime>,
    /// There was a slot, where parallelism is limited: from here on it ran.
    pub running: Option<SystemTime>,
}

#[derive(Clone, Debug, Default)]
struct Observed {
    waits: Waits,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
    state: State,
    key: Option<ContentKey>,
    contributions: Vec<ContentId>,
    result: Option<String>,
    error: Option<String>,
}

impl Tracer {
    pub(crate) fn keyed(&self, id: VertexId, key: ContentKey, contributions: &[ContentId]) {
        let mut all = self.observed();
        let observed = all.entry(id).or_default();
        (observed.key, observed.contributions) = (Some(key), contributions.to_vec());
        observed.waits.keyed = Some(SystemTime::now());
    }

    pub(crate) fn locked(&self, id: VertexId) {
        self.observed().entry(id).or_default().waits.locked = Some(SystemTime::now());
    }

    pub(crate) fn running(&self, id: VertexId) {
        self.observed().entry(id).or_default().waits.running = Some(SystemTime::now());
    }

    /// What vertices waited for; no part of traces that are kept.
    pub fn waits(&self, graph: &Graph) -> HashMap<VertexDigest, Waits> {
        self.observed().iter().map(|(id, observed)| (graph[*id].digest(), observed.waits)).collect()
    }

    pub(crate) fn started(&self, id: VertexId) {
        self.observed().entry(id).or_default().started.get_or_insert_with(SystemTime::now);
    }

    pub(crate) fn ended(&self, id: VertexId, state: State, result: Option<String>, error: Option<String>) {
        let mut all = self.observed();
        let observed = all.entry(id).or_default();
        observed.completed = Some(SystemTime::now());
        (observed.state, observed.result, observed.error) = (state, result, error);
    }

    fn observed(&self) -> MutexGuard<'_, HashMap<VertexId, Observed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 16 hexadecimal digits, the same for builds of equal steps over equal inputs, whatever of them had to run; if all went well.
    pub fn fingerprint(&self, graph: &Graph, targets: &[VertexId]) -> Option<String> {
        let all = self.observed();
        let mut hasher = blake3::Hasher::new();
        for id in graph.needed(targets) {
            let vertex = &graph[id];
            hasher.update(&vertex.definition.0);
            if let Some(origin) = &vertex.origin {
                hasher.update(&(origin.span.start as u64).to_le_bytes());
                hasher.update(origin.stage.as_bytes()).update(b" ").update(origin.text.as_bytes());
            }
            if vertex.op.has_result() {
                let observed = all.get(&id).filter(|observed| matches!(observed.state, State::Cached | State::Ran))?;
                hasher.update(&observed.key?.0);
            }
        }
        Some(hex::encode(&hasher.finalize().as_bytes()[..8]))
    }

    /// Whether no step did anything so far.
    pub fn is_idle(&self, graph: &Graph) -> bool {
        let is_idle = |(id, observed): (&VertexId, &Observed)| {
            let is_step = graph[*id].op.has_result();
            !is_step || matches!(observed.state, State::Cached)
        };
        self.observed().iter().all(is_idle)
    }

    /// The trace so far. `source` is the Dockerfile's text, `secret` the key of the hashes.
    pub fn trace(&self, graph: &Graph, targets: &[VertexId], source: &str, secret: &[u8; 32]) -> Trace {
        let all = self.observed();
        let lines = LineIndex::new(source);
        let vertices = graph.needed(targets).into_iter().map(|id| {
            let vertex = &graph[id];
            let observed = all.get(&id).cloned().unwrap_or_default();
            TracedVertex {
                digest: vertex.digest(),
                name: unexpanded_name(vertex),
                kind: kind(&vertex.op),
                source: source_name(&vertex.op),
                instruction: vertex.origin.as_deref().map(|origin| instruction(origin, source, &lines)),
                inputs: graph.inputs(id).into_iter().map(|input| graph[input].digest()).collect(),
                state: match (observed.state, observed.started) {
                    (State::NotReached, Some(_)) => State::Cancelled,
                    (state, _) => state,
                },
                started: observed.started.map(OffsetDateTime::from),
                completed: observed.completed.map(OffsetDateTime::from),
                key: observed.key.map(|key| hex::encode(key.0)),
                contributions: observed.contributions.iter().map(|id| hex::encode(id.0)).collect(),
                result: observed.result,
                error: observed.error,
                reasons: Vec::new(),
                definition: definition(vertex, secret),
            }
        });
        Trace { vertices: vertices.collect() }
    }
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Source(Source::Image { .. }) => Kind::Image,
        Op::Source(Source::Local { .. }) => Kind::Local,
        Op::Source(Source::Http { .. }) => Kind::Http,
        Op::Source(Source::Git(_)) => Kind::Git,
        Op::Source(Source::Scratch) => Kind::Scratch,
        Op::Exec(_) => Kind::Exec,
        Op::File(_) => Kind::File,
        Op::Merge => Kind::Merge,
    }
}

fn source_name(op: &Op) -> Option<String> {
    let Op::Source(source) = op else { return None };
    match source {
        Source::Image { reference, manifest, .. } => {
            // A reference by digest names an index, or this very manifest.
            let name = reference.split_once('@').map_or(reference.as_str(), |(name, _)| name);
            Some(format!("{name}@{manifest}"))
        }
        Source::Local { name } => Some(name.clone()),
        Source::Http { url, .. } => Some(parser::source::redacted(url)),
        Source::Git(git) if git.reference.is_empty() => Some(parser::source::redacted(&git.remote)),
        Source::Git(git) => Some(format!("{}#{}", parser::source::redacted(&git.remote), git.reference)),
        Source::Scratch => None,
    }
}

/// Steps are named after their instruction with its variables expanded; what those hold stays out of traces.
pub(crate) fn unexpanded_name(vertex: &Vertex) -> String {
    let Some(origin) = vertex.origin.as_deref().filter(|_| vertex.op.has_result() || vertex.op == Op::Merge) else {
        return vertex.name.clone();
    };
    match vertex.name.split_once("] ") {
        // `[internal] preparing inline document` and its like have no variables.
        Some((label, _)) if !label.contains("internal") && !label.contains("context") => {
            format!("{label}] {}", without_credentials(&origin.text))
        }
        _ => vertex.name.clone(),
    }
}

/// A URL that ADD takes may hold some.
fn without_credentials(text: &str) -> String {
    text.split(' ').map(parser::source::redacted).collect::<Vec<_>>().join(" ")
}

fn instruction(origin: &Origin, source: &str, lines: &LineIndex) -> TracedInstruction {
    let written = source.get(origin.span.start..origin.span.end).filter(|_| !origin.is_trigger);
    TracedInstruction {
        stage: origin.stage.clone(),
        stage_position: origin.stage_position,
        platform: origin.platform.clone(),
        position: origin.position,
        line: lines.line(origin.span.start),
        text: without_credentials(written.unwrap_or(&origin.text).trim_end()),
    }
}

fn definition(vertex: &Vertex, secret: &[u8; 32]) -> Definition {
    let hash = |text: &[u8]| hex::encode(&blake3::keyed_hash(secret, text).as_bytes()[..8]);
    let mut definition = Definition::default();
    if !vertex.op.has_result() {
        return definition;
    }
    let mut variable = |name: &str, value: &str| {
        definition.variables.insert(name.to_owned(), hash(format!("{name}={value}").as_bytes()));
    };
    if let Op::Exec(exec) = &vertex.op {
        exec.env.iter().filter_map(|entry| entry.split_once('=')).for_each(|(name, value)| variable(name, value));
    }
    if let Some(origin) = &vertex.origin {
        origin.variables.iter().for_each(|(name, value)| variable(name, value));
        definition.args.clone_from(&origin.args);
    }
    // `{"Exec": {"args": …}}`
    if let Ok(serde_json::Value::Object(op)) = serde_json::to_value(&vertex.op)
        && let Some(serde_json::Value::Object(parts)) = op.into_iter().next().map(|(_, parts)| parts)
    {
        for (name, part) in parts {
            if name != "env" {
                definition.parts.insert(name, hash(part.to_string().as_bytes()));
            }
        }
    }
    definition
}
