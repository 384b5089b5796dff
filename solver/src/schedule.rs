//! Runs a graph: every needed vertex once, as soon as its inputs are there, as wide as the graph allows (X5.1, X5.2).
//!
//! A vertex's content key is known when its inputs' results are. If the index has a result for the key, that is taken;
//! otherwise the key is locked, so that another process that wants the same waits for this one and then finds the result, and
//! the worker runs the op. A result is recorded when, and only when, it is safely stored. The first failure cancels everything
//! else (X5.6); results of vertices that had ended stay recorded.

use crate::event::{Event, EventSink, VertexEvent};
use crate::graph::{Graph, VertexId};
use crate::key::{self, ContentId, ContentKey, InputKey};
use crate::op::{Op, Selection};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Runs ops. The value of a vertex is the worker's own: for rbuild's executor, a stack of layers or a local directory.
pub trait Worker: Send + Sync + 'static {
    type Value: Clone + Send + Sync + 'static;
    type Error: std::error::Error + Send + Sync + 'static;

    /// The content id of a whole value.
    fn content_id(&self, value: &Self::Value) -> ContentId;

    /// The digest of just the selected files of a value.
    fn selection_digest(
        &self,
        value: &Self::Value,
        selections: &[Selection],
        with_owner: bool,
    ) -> impl Future<Output = Result<ContentId, Self::Error>> + Send;

    /// Runs an op over its inputs' values. `adopt` says whether an earlier layer with equal content may stand in
    /// for a new one. Dropping the future stops whatever it runs.
    fn run(&self, task: OpTask<'_, Self::Value>) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;
}

/// One op to run.
pub struct OpTask<'a, V> {
    pub op: &'a Op,
    pub inputs: &'a [V],
    pub adopt: bool,
    /// Names the vertex in events.
    pub vertex: String,
    pub events: &'a EventSink,
}

/// Finds and keeps results by content key.
pub trait CacheIndex<V>: Send + Sync + 'static {
    type Error: std::error::Error + Send + Sync + 'static;
    /// Held while a key's op runs.
    type Lock: Send;

    /// The recorded result of `op` over `inputs`, if there is one and all of it is still there.
    fn lookup(&self, key: &ContentKey, inputs: &[V]) -> Result<Option<V>, Self::Error>;

    /// Waits until nobody else, in this process or another, runs the op of this key.
    fn lock(&self, key: &ContentKey) -> impl Future<Output = Result<Self::Lock, Self::Error>> + Send;

    fn record(&self, key: &ContentKey, value: &V) -> Result<(), Self::Error>;
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ScheduleOptions {
    /// Run every step, whatever the index knows.
    pub no_cache: bool,
}

/// A vertex that failed.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SolveError {
    /// The instruction that the vertex comes from, and what progress called it.
    pub span: Option<parser::span::Span>,
    pub name: String,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Runs all that `targets` need and gives their values.
pub async fn solve<W, C>(
    graph: Arc<Graph>,
    targets: &[VertexId],
    worker: Arc<W>,
    index: Arc<C>,
    options: ScheduleOptions,
    events: EventSink,
) -> Result<Vec<W::Value>, SolveError>
where
    W: Worker,
    C: CacheIndex<W::Value>,
{
    let needed = graph.needed(targets);
    let mut results: HashMap<VertexId, watch::Receiver<Option<W::Value>>> = HashMap::new();
    let mut running = JoinSet::new();
    let unfinished = Unfinished { events: events.clone(), started: Arc::default() };
    for id in needed {
        let (done, result) = watch::channel(None);
        let inputs: Vec<_> = graph.inputs(id).iter().map(|input| results[input].clone()).collect();
        results.insert(id, result);
        let step = Step {
            graph: graph.clone(),
            id,
            worker: worker.clone(),
            index: index.clone(),
            options,
            events: events.clone(),
            started: unfinished.started.clone(),
        };
        running.spawn(async move {
            let Some(inputs) = all(inputs).await else { return Ok(()) };
            let value = step.value(&inputs).await?;
            done.send_replace(Some(value));
            Ok(())
        });
    }
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                running.shutdown().await;
                return Err(error);
            }
            Err(panic) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
            Err(_) => {}
        }
    }
    Ok(targets.iter().map(|target| results[target].borrow().clone().expect("every needed vertex ended well")).collect())
}

/// Waits for all inputs; `None` if one of them ended without a value.
async fn all<V: Clone>(inputs: Vec<watch::Receiver<Option<V>>>) -> Option<Vec<V>> {
    let mut values = Vec::with_capacity(inputs.len());
    for mut input in inputs {
        values.push(input.wait_for(Option::is_some).await.ok()?.clone()?);
    }
    Some(values)
}

/// Reports as cancelled what had started and not ended when the build was given up, whether by a failure or by the user.
struct Unfinished {
    events: EventSink,
    started: Arc<Mutex<HashMap<String, VertexEvent>>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let started = std::mem::take(&mut *self.started.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for mut event in started.into_values() {
            event.completed = Some(SystemTime::now());
            event.error = Some("context canceled".into());
            self.events.send(Event::Vertex(event));
        }
    }
}

/// One vertex on its way to a value.
struct Step<W, C> {
    graph: Arc<Graph>,
    id: VertexId,
    worker: Arc<W>,
    index: Arc<C>,
    options: ScheduleOptions,
    events: EventSink,
    started: Arc<Mutex<HashMap<String, VertexEvent>>>,
}

impl<W, C> Step<W, C>
where
    W: Worker,
    C: CacheIndex<W::Value>,
{
    async fn value(&self, inputs: &[W::Value]) -> Result<W::Value, SolveError> {
        let vertex = &self.graph[self.id];
        // Sources and merges cost nothing: they have no result of their own to keep.
        if matches!(vertex.op, Op::Source(_) | Op::Merge) {
            self.start();
            let value = self.run(inputs).await;
            self.end(value.as_ref().err().map(ToString::to_string), false);
            return value;
        }
        let key = match self.key(inputs).await {
            Ok(key) => key,
            Err(error) => {
                self.start();
                let error = self.failed(KeyError(Box::new(error)));
                self.end(Some(error.to_string()), false);
                return Err(error);
            }
        };
        if let Some(value) = self.lookup(&key, inputs)? {
            return Ok(value);
        }
        let _lock = self.index.lock(&key).await.map_err(|error| self.failed(error))?;
        if let Some(value) = self.lookup(&key, inputs)? {
            return Ok(value);
        }
        self.start();
        let value = self.run(inputs).await;
        let value = match value {
            Ok(value) => self.index.record(&key, &value).map(|()| value).map_err(|error| self.failed(error)),
            Err(error) => Err(error),
        };
        self.end(value.as_ref().err().map(ToString::to_string), false);
        value
    }

    async fn key(&self, inputs: &[W::Value]) -> Result<ContentKey, W::Error> {
        let op = &self.graph[self.id].op;
        let mut contributions = Vec::with_capacity(inputs.len());
        for (value, input) in inputs.iter().zip(key::input_keys(op, inputs.len())) {
            contributions.push(match input {
                InputKey::Whole => self.worker.content_id(value),
                InputKey::Selected { selections, with_owner } => {
                    self.worker.selection_digest(value, &selections, with_owner).await?
                }
            });
        }
        Ok(key::content_key(op, &contributions))
    }

    fn lookup(&self, key: &ContentKey, inputs: &[W::Value]) -> Result<Option<W::Value>, SolveError> {
        if self.options.no_cache {
            return Ok(None);
        }
        let found = self.index.lookup(key, inputs).map_err(|error| self.failed(error))?;
        if found.is_some() {
            self.start();
            self.end(None, true);
        }
        Ok(found)
    }

    async fn run(&self, inputs: &[W::Value]) -> Result<W::Value, SolveError> {
        let vertex = &self.graph[self.id];
        let task = OpTask {
            op: &vertex.op,
            inputs,
            adopt: !self.options.no_cache,
            vertex: vertex.digest(),
            events: &self.events,
        };
        self.worker.run(task).await.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> SolveError {
        let vertex = &self.graph[self.id];
        SolveError { span: vertex.span, name: vertex.name.clone(), source: Box::new(error) }
    }

    fn start(&self) {
        let vertex = &self.graph[self.id];
        let inputs: HashSet<_> = self.graph.inputs(self.id).into_iter().collect();
        let event = VertexEvent {
            digest: vertex.digest(),
            inputs: inputs.iter().map(|input| self.graph[*input].digest()).collect(),
            name: vertex.name.clone(),
            started: Some(SystemTime::now()),
            ..Default::default()
        };
        self.running().insert(event.digest.clone(), event.clone());
        self.events.send(Event::Vertex(event));
    }

    fn end(&self, error: Option<String>, cached: bool) {
        let started = self.running().remove(&self.graph[self.id].digest());
        if let Some(mut event) = started {
            event.completed = Some(SystemTime::now());
            event.cached = cached;
            event.error = error;
            self.events.send(Event::Vertex(event));
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, VertexEvent>> {
        self.started.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An input's digest could not be computed: with BuildKit's prefix (X5.10), since scripts look for it.
#[derive(Debug, thiserror::Error)]
#[error("failed to compute cache key: {0}")]
struct KeyError(Box<dyn std::error::Error + Send + Sync>);
