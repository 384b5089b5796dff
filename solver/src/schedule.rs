//! Runs a graph: every needed vertex once, as soon as its inputs are there, as wide as the graph allows (X5.1, X5.2).
//!
//! A vertex's content key is known when its inputs' results are; what each input contributes is found out as soon as that one is there, so that a context
//! is read while the steps before its COPY still run. If the index has a result for the key, that is taken; otherwise the key is locked, so that whoever wants the same,
//! here or in another process, waits for this one and then finds the result, and the worker runs the op. So vertices run once whose definitions differ and whose contents turn
//! out to be equal (R8.2), also where the index is not asked. A result is recorded when, and only when, it is safely stored; one that was made of inputs that changed since the key was
//! computed is thrown away, and the vertex begins anew.
//!
//! The first failure cancels everything else in the build (X5.6, R8.6), also what other targets or platforms need: without them there is no image of all, and whoever waits wants to
//! know. Results of vertices that had ended stay recorded. Another build that waits for a vertex which is cancelled here runs it then itself.
//!
//! Where parallelism is limited, a vertex takes a slot last, when it holds its key's lock and nothing is left to wait for but the op itself. So no slot is held by one that waits for
//! another, and the limit can make nothing wait for itself.

use crate::event::{Event, EventSink, VertexEvent};
use crate::graph::{Graph, VertexId};
use crate::key::{self, ContentId, ContentKey, InputKey};
use crate::op::{Input, Op, Selection};
use crate::trace::{State, Tracer, unexpanded_name};
use futures_util::future::{join_all, try_join_all};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Runs ops. The value of a vertex is the worker's own: for rbuild's executor, a stack of layers or a local directory.
pub trait Worker: Send + Sync + 'static {
    type Value: Clone + Send + Sync + 'static;
    type Error: std::error::Error + Send + Sync + 'static;

    /// The content id of a whole value.
    fn content_id(&self, value: &Self::Value) -> ContentId;

    /// What a trace calls a value: something by which the worker finds it again.
    fn result_id(&self, value: &Self::Value) -> Option<String> {
        let _ = value;
        None
    }

    /// The digest of just the selected files of an input, by [`selections_id`] from those of the single selections. The worker may use the
    /// occasion to prepare what running the op would need.
    fn selection_digest(
        &self,
        task: InputTask<'_, Self::Value>,
    ) -> impl Future<Output = Result<ContentId, Self::Error>> + Send;

    /// Whether a run failed because an input changed after its digest was computed: it is tried again with a new one.
    fn is_stale(&self, error: &Self::Error) -> bool {
        let _ = error;
        false
    }

    /// Runs an op over its inputs' values. `adopt` says whether an earlier layer with equal content may stand in
    /// for a new one. Dropping the future stops whatever it runs.
    fn run(&self, task: OpTask<'_, Self::Value>) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;
}

/// An input of an op that counts by what is selected of it.
pub struct InputTask<'a, V> {
    pub op: &'a Op,
    /// Its position among the inputs.
    pub input: Input,
    pub value: &'a V,
    pub selections: &'a [Selection],
    pub with_owner: bool,
    /// Names the vertex that the op is of.
    pub vertex: &'a str,
}

/// What several selections of one input contribute to a key, from the digest of each.
pub fn selections_id(digests: &[[u8; 32]]) -> ContentId {
    let mut hasher = blake3::Hasher::new();
    for digest in digests {
        hasher.update(digest);
    }
    ContentId(*hasher.finalize().as_bytes())
}

/// One op to run.
pub struct OpTask<'a, V> {
    pub op: &'a Op,
    pub inputs: &'a [V],
    /// What each input contributed to the key.
    pub contributions: &'a [ContentId],
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

    /// Keeps a result. `name` tells people what it is; values of variables are not in it.
    fn record(&self, key: &ContentKey, value: &V, name: &str) -> Result<(), Self::Error>;
}

#[derive(Clone, Debug, Default)]
pub struct ScheduleOptions {
    /// Run every step, whatever the index knows.
    pub no_cache: bool,
    /// How many processes and file operations run at a time; no limit without it (R8.3). Looking up, reading and waiting are not limited.
    pub max_parallelism: Option<NonZeroUsize>,
    /// Told what becomes of each vertex.
    pub tracer: Tracer,
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
    let slots = options.max_parallelism.map(|most| Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS))));
    let made = Arc::default();
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
            options: options.clone(),
            events: events.clone(),
            started: unfinished.started.clone(),
            slots: slots.clone(),
            made: Arc::clone(&made),
        };
        running.spawn(async move {
            if let Some(value) = step.value(inputs).await? {
                done.send_replace(Some(value));
            }
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

/// A vertex's result, once it has one; it never has if the vertex failed.
type Pending<V> = watch::Receiver<Option<V>>;

/// How long an input may be read before the vertex is shown as begun.
const UNSEEN: Duration = Duration::from_millis(200);
/// How often a vertex is tried whose inputs change while it runs.
const ATTEMPTS: u32 = 3;

/// Reports as cancelled what had started and not ended when the build was given up, whether by a failure or by the user.
struct Unfinished {
    events: EventSink,
    started: Arc<Mutex<HashMap<String, VertexEvent>>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let started = std::mem::take(&mut *locked(&self.started));
        for mut event in started.into_values() {
            event.completed = Some(SystemTime::now());
            event.error = Some("context canceled".into());
            self.events.send(Event::Vertex(event));
        }
    }
}

/// One vertex on its way to a value.
struct Step<W: Worker, C> {
    graph: Arc<Graph>,
    id: VertexId,
    worker: Arc<W>,
    index: Arc<C>,
    options: ScheduleOptions,
    events: EventSink,
    started: Arc<Mutex<HashMap<String, VertexEvent>>>,
    slots: Option<Arc<Semaphore>>,
    made: Arc<Made<W::Value>>,
}

/// What ran in this build. It holds for the build's other vertices even if nothing from before does.
type Made<V> = Mutex<HashMap<ContentKey, V>>;

impl<W, C> Step<W, C>
where
    W: Worker,
    C: CacheIndex<W::Value>,
{
    /// `None` if an input has ended without a value.
    async fn value(&self, inputs: Vec<Pending<W::Value>>) -> Result<Option<W::Value>, SolveError> {
        let vertex = &self.graph[self.id];
        // Sources and merges cost nothing: they have no result of their own to keep.
        if !vertex.op.has_result() {
            let all = join_all(inputs.into_iter().map(awaited)).await.into_iter().collect::<Option<Vec<_>>>();
            let Some(inputs) = all else { return Ok(None) };
            self.start();
            let value = self.run(&inputs, &[]).await.map_err(|error| self.failed(error));
            self.end(value.as_ref().map_err(ToString::to_string), false);
            return value.map(Some);
        }
        let input_keys = key::input_keys(&vertex.op, inputs.len());
        let read = inputs.into_iter().zip(&input_keys).enumerate();
        let read = read.map(|(input, (pending, input_key))| self.input(input, pending, input_key));
        let read = match try_join_all(read).await {
            Ok(read) => read,
            Err(error) => return Err(self.keyless(error)),
        };
        let Some(read) = read.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let (inputs, mut contributions): (Vec<_>, Vec<_>) = read.into_iter().unzip();
        for attempt in 1.. {
            match self.attempt(&inputs, &contributions).await? {
                Ok(value) => return Ok(Some(value)),
                Err(stale) if attempt == ATTEMPTS => return Err(self.given_up(stale)),
                Err(_) => {}
            }
            let again = inputs.iter().zip(&input_keys).enumerate();
            let again = again.map(|(input, (value, input_key))| self.contribution(input, value, input_key));
            contributions = try_join_all(again).await.map_err(|error| self.keyless(error))?;
        }
        Ok(None)
    }

    /// Looks the vertex up, or runs it. The inner error says that an input has changed since `contributions` were computed.
    async fn attempt(
        &self,
        inputs: &[W::Value],
        contributions: &[ContentId],
    ) -> Result<Result<W::Value, W::Error>, SolveError> {
        let key = key::content_key(&self.graph[self.id].op, contributions);
        self.options.tracer.keyed(self.id, key, contributions);
        if let Some(value) = self.lookup(&key, inputs)? {
            return Ok(Ok(value));
        }
        let _lock = self.index.lock(&key).await.map_err(|error| self.failed(error))?;
        self.options.tracer.locked(self.id);
        if let Some(value) = self.lookup(&key, inputs)? {
            return Ok(Ok(value));
        }
        let _slot = match &self.slots {
            Some(slots) => Some(slots.acquire().await.expect("it is never closed")),
            None => None,
        };
        self.options.tracer.running(self.id);
        self.start();
        let value = match self.run(inputs, contributions).await {
            Ok(value) => {
                let recorded = self.index.record(&key, &value, &unexpanded_name(&self.graph[self.id]));
                recorded.map(|()| value).map_err(|error| self.failed(error))
            }
            Err(error) if self.worker.is_stale(&error) => return Ok(Err(error)),
            Err(error) => Err(self.failed(error)),
        };
        if let Ok(value) = &value {
            locked(&self.made).insert(key, value.clone());
        }
        self.end(value.as_ref().map_err(ToString::to_string), false);
        value.map(Ok)
    }

    /// An input and what it contributes to the key, once it is there.
    async fn input(
        &self,
        input: Input,
        pending: Pending<W::Value>,
        input_key: &InputKey,
    ) -> Result<Option<(W::Value, ContentId)>, W::Error> {
        let Some(value) = awaited(pending).await else { return Ok(None) };
        let contribution = self.contribution(input, &value, input_key).await?;
        Ok(Some((value, contribution)))
    }

    async fn contribution(&self, input: Input, value: &W::Value, input_key: &InputKey) -> Result<ContentId, W::Error> {
        let vertex = &self.graph[self.id];
        match input_key {
            InputKey::Whole => Ok(self.worker.content_id(value)),
            InputKey::Selected { selections, with_owner } => {
                let (op, with_owner, vertex) = (&vertex.op, *with_owner, vertex.digest());
                let task = InputTask { op, input, value, selections, with_owner, vertex: &vertex };
                let mut digest = std::pin::pin!(self.worker.selection_digest(task));
                tokio::select! {
                    digest = &mut digest => digest,
                    // A large context: the user should see what is going on.
                    () = tokio::time::sleep(UNSEEN) => {
                        self.start();
                        digest.await
                    }
                }
            }
        }
    }

    /// The key could not be computed.
    fn keyless(&self, error: W::Error) -> SolveError {
        self.start();
        let error = self.failed(KeyError(Box::new(error)));
        self.end(Err(error.to_string()), false);
        error
    }

    fn given_up(&self, stale: W::Error) -> SolveError {
        let error = self.failed(stale);
        self.end(Err(error.to_string()), false);
        error
    }

    fn lookup(&self, key: &ContentKey, inputs: &[W::Value]) -> Result<Option<W::Value>, SolveError> {
        let found = match self.ignores_cache() {
            true => locked(&self.made).get(key).cloned(),
            false => self.index.lookup(key, inputs).map_err(|error| self.failed(error))?,
        };
        if let Some(value) = &found {
            self.start();
            self.end(Ok(value), true);
        }
        Ok(found)
    }

    fn ignores_cache(&self) -> bool {
        self.options.no_cache || self.graph[self.id].ignores_cache
    }

    async fn run(&self, inputs: &[W::Value], contributions: &[ContentId]) -> Result<W::Value, W::Error> {
        let vertex = &self.graph[self.id];
        let task = OpTask {
            op: &vertex.op,
            inputs,
            contributions,
            adopt: !self.ignores_cache(),
            vertex: vertex.digest(),
            events: &self.events,
        };
        self.worker.run(task).await
    }

    fn failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> SolveError {
        let vertex = &self.graph[self.id];
        SolveError { span: vertex.span, name: vertex.name.clone(), source: Box::new(error) }
    }

    /// Says that the vertex has begun; once, also where it is tried again.
    fn start(&self) {
        if self.running().contains_key(&self.graph[self.id].digest()) {
            return;
        }
        let vertex = &self.graph[self.id];
        let inputs: HashSet<_> = self.graph.inputs(self.id).into_iter().collect();
        let event = VertexEvent {
            digest: vertex.digest(),
            inputs: inputs.iter().map(|input| self.graph[*input].digest()).collect(),
            name: vertex.name.clone(),
            started: Some(SystemTime::now()),
            ..Default::default()
        };
        self.options.tracer.started(self.id);
        self.running().insert(event.digest.clone(), event.clone());
        self.events.send(Event::Vertex(event));
    }

    fn end(&self, result: Result<&W::Value, String>, cached: bool) {
        let (value, error) = (result.as_ref().ok(), result.as_ref().err().cloned());
        let state = match (&error, cached) {
            (Some(_), _) => State::Failed,
            (None, true) => State::Cached,
            (None, false) => State::Ran,
        };
        self.options.tracer.ended(self.id, state, value.and_then(|value| self.worker.result_id(value)), error.clone());
        let started = self.running().remove(&self.graph[self.id].digest());
        if let Some(mut event) = started {
            event.completed = Some(SystemTime::now());
            event.cached = cached;
            event.error = error;
            self.events.send(Event::Vertex(event));
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, VertexEvent>> {
        locked(&self.started)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn awaited<V: Clone>(mut pending: Pending<V>) -> Option<V> {
    pending.wait_for(Option::is_some).await.ok()?.clone()
}

/// An input's digest could not be computed: with BuildKit's prefix (X5.10), since scripts look for it.
#[derive(Debug, thiserror::Error)]
#[error("failed to compute cache key: {0}")]
struct KeyError(#[source] Box<dyn std::error::Error + Send + Sync>);
