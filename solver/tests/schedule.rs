//! The scheduler over an in-memory worker.

use solver::event::{Event, EventSink};
use solver::graph::{Graph, VertexId};
use solver::key::{ContentId, ContentKey, content_key};
use solver::op::{Copy, File, FileAction, Mkdir, Op, Selection, Source};
use solver::schedule::{CacheIndex, InputTask, OpTask, ScheduleOptions, SolveError, Worker, solve};
use std::collections::HashMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

/// Values are texts: an op's name over its inputs.
struct Memory {
    ran: Mutex<Vec<String>>,
    results: Mutex<HashMap<[u8; 32], String>>,
    locks: Mutex<HashMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>>,
    /// How many ops run, and how many did at most.
    running: AtomicUsize,
    most: AtomicUsize,
    /// How often the digest of `/changing` was computed, and from which state on it stays.
    states: Mutex<u8>,
    settled: u8,
    /// Given when `/early` has been read, or `/signal` ran.
    early: tokio::sync::Semaphore,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            ran: Mutex::default(),
            results: Mutex::default(),
            locks: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            states: Mutex::default(),
            settled: 0,
            early: tokio::sync::Semaphore::new(0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} failed")]
struct Failed(String);

fn name(op: &Op) -> String {
    match op {
        Op::File(file) => match &file.actions[0] {
            FileAction::Mkdir(mkdir) => mkdir.path.clone(),
            FileAction::Copy(copy) => format!("copy {}", copy.selection.path),
            FileAction::Mkfile(mkfile) => mkfile.path.clone(),
        },
        Op::Source(_) => "source".into(),
        Op::Exec(_) => "exec".into(),
        Op::Merge => "merge".into(),
    }
}

impl Worker for Memory {
    type Value = String;
    type Error = Failed;

    fn content_id(&self, value: &String) -> ContentId {
        ContentId(*blake3::hash(value.as_bytes()).as_bytes())
    }

    async fn selection_digest(&self, task: InputTask<'_, String>) -> Result<ContentId, Failed> {
        // What is selected of a value is the word of that name in it.
        let path = &task.selections[0].path;
        if path == "/changing" {
            let mut states = self.states.lock().unwrap();
            *states += 1;
            return Ok(ContentId([*states; 32]));
        }
        if path == "/early" {
            self.early.add_permits(1);
        }
        match task.value.contains(path.as_str()) {
            true => Ok(ContentId(*blake3::hash(path.as_bytes()).as_bytes())),
            false => Err(Failed(format!("{path:?} is not there, so that"))),
        }
    }

    fn is_stale(&self, error: &Failed) -> bool {
        error.0 == "stale"
    }

    async fn run(&self, task: OpTask<'_, String>) -> Result<String, Failed> {
        let name = name(task.op);
        self.ran.lock().unwrap().push(name.clone());
        self.most.fetch_max(1 + self.running.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        let result = self.result(&name, &task).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Memory {
    async fn result(&self, name: &str, task: &OpTask<'_, String>) -> Result<String, Failed> {
        if name.starts_with("/wait") {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if name.contains("/slow") {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if name == "/signal" {
            self.early.add_permits(1);
        }
        if name == "/until early" {
            self.early.acquire().await.unwrap().forget();
        }
        if name == "copy /changing" && task.contributions[1].0[0] < self.settled {
            return Err(Failed("stale".into()));
        }
        let fails_now =
            name == "/slow, fails once" && self.ran.lock().unwrap().iter().filter(|ran| *ran == name).count() == 1;
        if fails_now || name.starts_with("/fail") {
            return Err(Failed(name.to_owned()));
        }
        Ok(format!("{}+{name}", task.inputs.join("|")))
    }
}

impl CacheIndex<String> for Memory {
    type Error = Infallible;
    type Lock = tokio::sync::OwnedMutexGuard<()>;

    fn lookup(&self, key: &ContentKey, _: &[String]) -> Result<Option<String>, Infallible> {
        Ok(self.results.lock().unwrap().get(&key.0).cloned())
    }

    async fn lock(&self, key: &ContentKey) -> Result<Self::Lock, Infallible> {
        let lock = self.locks.lock().unwrap().entry(key.0).or_default().clone();
        Ok(lock.lock_owned().await)
    }

    fn record(&self, key: &ContentKey, value: &String, _: &str) -> Result<(), Infallible> {
        self.results.lock().unwrap().insert(key.0, value.clone());
        Ok(())
    }
}

fn mkdir(path: &str) -> Op {
    Op::File(File { actions: vec![FileAction::Mkdir(Mkdir { path: path.into(), owner: String::new(), time: None })] })
}

fn copy(path: &str) -> Op {
    let copy = Copy {
        from: 1,
        selection: Selection::tree(path),
        destination: "/".into(),
        chown: None,
        chmod: None,
        unpack: false,
        keep_owner: true,
    };
    Op::File(File { actions: vec![FileAction::Copy(copy)] })
}

struct Build {
    graph: Graph,
    scratch: VertexId,
}

impl Build {
    fn new() -> Self {
        let mut graph = Graph::default();
        let scratch = graph.add(Op::Source(Source::Scratch), &[], "scratch", None);
        Build { graph, scratch }
    }

    fn step(&mut self, path: &str, input: VertexId) -> VertexId {
        self.graph.add(mkdir(path), &[input], path, None)
    }

    async fn run(self, targets: &[VertexId], memory: &Arc<Memory>) -> (Result<Vec<String>, SolveError>, Vec<Event>) {
        self.run_with(targets, memory, ScheduleOptions::default()).await
    }

    async fn run_with(
        self,
        targets: &[VertexId],
        memory: &Arc<Memory>,
        options: ScheduleOptions,
    ) -> (Result<Vec<String>, SolveError>, Vec<Event>) {
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let graph = Arc::new(self.graph);
        let result = solve(graph, targets, memory.clone(), memory.clone(), options, EventSink::new(sender)).await;
        (result, drain(&mut events))
    }
}

fn drain(events: &mut UnboundedReceiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn ran(memory: &Memory) -> Vec<String> {
    let mut ran: Vec<_> = std::mem::take(&mut *memory.ran.lock().unwrap());
    ran.retain(|name| name != "source");
    ran
}

fn cached(events: &[Event]) -> Vec<&str> {
    let cached = events.iter().filter_map(|event| match event {
        Event::Vertex(vertex) if vertex.cached => Some(vertex.name.as_str()),
        _ => None,
    });
    cached.collect()
}

#[tokio::test]
async fn what_the_target_does_not_need_does_not_run() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let a = build.step("/a", build.scratch);
    build.step("/unused", a);
    let b = build.step("/b", a);
    let (result, _) = build.run(&[b], &memory).await;
    assert_eq!(result.unwrap(), ["+source+/a+/b"]);
    assert_eq!(ran(&memory), ["/a", "/b"]);
}

#[tokio::test]
async fn a_second_build_takes_all_from_the_index() {
    let memory = Arc::new(Memory::default());
    for round in 0..3 {
        let mut build = Build::new();
        let a = build.step("/a", build.scratch);
        let b = build.step("/b", a);
        let options = ScheduleOptions { no_cache: round == 2, ..Default::default() };
        let (result, events) = build.run_with(&[b], &memory, options).await;
        result.unwrap();
        let expected: &[&str] = if round == 1 { &[] } else { &["/a", "/b"] };
        assert_eq!(ran(&memory), expected, "round {round}");
        assert_eq!(cached(&events).len(), if round == 1 { 2 } else { 0 });
    }
}

/// D23.4: a copy is keyed by what it copies, not by how that came to be.
#[tokio::test]
async fn equal_content_of_another_source_is_a_hit() {
    let memory = Arc::new(Memory::default());
    for source in ["/file and more", "/file and other things"] {
        let mut build = Build::new();
        let from = build.step(source, build.scratch);
        let target = build.graph.add(copy("/file"), &[build.scratch, from], "copy", None);
        build.run(&[target], &memory).await.0.unwrap();
    }
    assert_eq!(ran(&memory), ["/file and more", "copy /file", "/file and other things"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_cancels_the_rest() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let wait = build.step("/wait", build.scratch);
    let fail = build.step("/fail", build.scratch);
    let both = build.graph.add(Op::Merge, &[wait, fail], "both", None);
    let (result, events) = build.run(&[both], &memory).await;
    let error = result.unwrap_err();
    assert_eq!((error.name.as_str(), error.to_string().as_str()), ("/fail", "/fail failed"));
    let ends: HashMap<_, _> = events
        .iter()
        .filter_map(|event| match event {
            Event::Vertex(vertex) if vertex.completed.is_some() => {
                Some((vertex.name.as_str(), vertex.error.as_deref()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends["/wait"], Some("context canceled"), "X5.6");
    assert_eq!(ends["/fail"], Some("/fail failed"));
    assert!(!ends.contains_key("both"), "it never started");
}

#[tokio::test]
async fn failures_are_not_kept_and_finished_siblings_are() {
    let memory = Arc::new(Memory::default());
    for _ in 0..2 {
        let mut build = Build::new();
        let good = build.step("/good", build.scratch);
        let bad = build.step("/fail", good);
        assert!(build.run(&[bad], &memory).await.0.is_err());
    }
    assert_eq!(ran(&memory), ["/good", "/fail", "/fail"], "X5.7");
}

#[tokio::test]
async fn missing_sources_fail_before_anything_runs() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let from = build.step("/other", build.scratch);
    let target = build.graph.add(copy("/file"), &[build.scratch, from], "copy", None);
    let error = build.run(&[target], &memory).await.0.unwrap_err();
    assert!(error.to_string().starts_with("failed to compute cache key: "), "X5.10: {error}");
    assert_eq!(ran(&memory), ["/other"]);
}

/// A context is read while the steps before its COPY still run.
#[tokio::test(start_paused = true)]
async fn inputs_are_read_as_soon_as_they_are_there() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let from = build.step("/early", build.scratch);
    // Ends only when the file has been read.
    let slow = build.step("/until early", build.scratch);
    let target = build.graph.add(copy("/early"), &[slow, from], "copy", None);
    let targets = [target];
    let run = build.run(&targets, &memory);
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("it waits for itself").0.unwrap();
}

/// A result that was made of other inputs than its key says is thrown away.
#[tokio::test]
async fn inputs_that_change_are_looked_at_again() {
    for (settled, tries) in [(1, Some(1)), (3, Some(3)), (4, None)] {
        let memory = Arc::new(Memory { settled, ..Memory::default() });
        let mut build = Build::new();
        let from = build.step("/x", build.scratch);
        let target = build.graph.add(copy("/changing"), &[build.scratch, from], "copy", None);
        let (result, events) = build.run(&[target], &memory).await;
        let copies = ran(&memory).iter().filter(|name| *name == "copy /changing").count();
        assert_eq!((result.is_ok(), copies), (tries.is_some(), tries.unwrap_or(3)), "{settled}");
        // One result besides that of `/x`, and it is not that of a state that was given up.
        assert_eq!(memory.results.lock().unwrap().len(), 1 + usize::from(tries.is_some()));
        let ends = events
            .iter()
            .filter(|event| matches!(event, Event::Vertex(v) if v.name == "copy" && v.completed.is_some()));
        assert_eq!(ends.count(), 1, "told once");
    }
}

/// Not by levels: a vertex three steps down the line runs while another of the first level does.
#[tokio::test(start_paused = true)]
async fn vertices_run_as_soon_as_their_inputs_are_there() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let slow = build.step("/until early", build.scratch);
    let a = build.step("/a", build.scratch);
    let b = build.step("/b", a);
    let signal = build.step("/signal", b);
    let all = build.graph.add(Op::Merge, &[slow, signal], "all", None);
    let targets = [all];
    let run = build.run(&targets, &memory);
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("it waits for itself").0.unwrap();
}

/// Two steps over sources of different definitions, of which they take the same.
fn twins() -> (Build, [VertexId; 2]) {
    let mut build = Build::new();
    let sources = ["/slow file", "/slow file and more"].map(|source| build.step(source, build.scratch));
    let op = copy("/slow file");
    let twins = sources.map(|from| build.graph.add(op.clone(), &[build.scratch, from], "twin", None));
    (build, twins)
}

/// R8.2.
#[tokio::test(start_paused = true)]
async fn vertices_that_turn_out_to_be_equal_run_once() {
    for no_cache in [false, true] {
        let memory = Arc::new(Memory::default());
        for build in 0..2 {
            let (graph, twins) = twins();
            let options = ScheduleOptions { no_cache, ..ScheduleOptions::default() };
            let (result, events) = graph.run_with(&twins, &memory, options).await;
            let result = result.unwrap();
            assert_eq!(result[0], result[1]);
            let copies = ran(&memory).iter().filter(|name| name.starts_with("copy")).count();
            assert_eq!(copies, usize::from(no_cache || build == 0), "no_cache {no_cache}, build {build}");
            let ends = events.iter().filter(|event| {
                matches!(event, Event::Vertex(v) if v.name == "twin" && v.completed.is_some() && v.error.is_none())
            });
            assert_eq!(ends.count(), 2, "each is told of");
        }
    }
}

/// The same of two builds that run at the same time.
#[tokio::test(start_paused = true)]
async fn equal_vertices_of_two_builds_run_once() {
    let memory = Arc::new(Memory::default());
    let (first, second) = (twins(), twins());
    let (first, second) = tokio::join!(first.0.run(&first.1[..1], &memory), second.0.run(&second.1[1..], &memory));
    assert_eq!(first.0.unwrap(), second.0.unwrap());
    assert_eq!(ran(&memory).iter().filter(|name| name.starts_with("copy")).count(), 1);
}

/// Whoever waited for a vertex that failed elsewhere, or was given up there, runs it.
#[tokio::test(start_paused = true)]
async fn what_failed_elsewhere_is_tried_here() {
    let memory = Arc::new(Memory::default());
    let step = || {
        let mut build = Build::new();
        let id = build.step("/slow, fails once", build.scratch);
        (build, [id])
    };
    let (first, second) = (step(), step());
    let (first, second) = tokio::join!(first.0.run(&first.1, &memory), second.0.run(&second.1, &memory));
    assert_eq!([first.0.is_ok(), second.0.is_ok()].iter().filter(|is_ok| **is_ok).count(), 1);

    let step = || {
        let mut build = Build::new();
        let id = build.step("/slow", build.scratch);
        (build, [id])
    };
    let (first, second) = (step(), step());
    let first = tokio::time::timeout(Duration::from_millis(500), first.0.run(&first.1, &memory));
    let (first, second) = tokio::join!(first, second.0.run(&second.1, &memory));
    assert!(first.is_err(), "given up");
    second.0.unwrap();
    assert_eq!(ran(&memory).iter().filter(|name| *name == "/slow").count(), 2);
}

fn limited_to(most: usize) -> ScheduleOptions {
    ScheduleOptions { max_parallelism: NonZeroUsize::new(most), ..ScheduleOptions::default() }
}

/// R8.3: 0 is no limit.
#[tokio::test(start_paused = true)]
async fn no_more_run_at_a_time_than_may() {
    for (limit, most) in [(0, 8), (1, 1), (3, 3), (100, 8)] {
        let memory = Arc::new(Memory::default());
        let mut build = Build::new();
        let steps: Vec<_> = (0..8).map(|number| build.step(&format!("/slow {number}"), build.scratch)).collect();
        build.run_with(&steps, &memory, limited_to(limit)).await.0.unwrap();
        assert_eq!((ran(&memory).len(), memory.most.load(Ordering::SeqCst)), (8, most), "limit {limit}");
    }
}

/// A vertex that waits for another process holds nobody up.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_lock_takes_no_slot() {
    let memory = Arc::new(Memory::default());
    let scratch = memory.content_id(&"+source".to_owned());
    let elsewhere = memory.lock(&content_key(&mkdir("/elsewhere"), &[scratch])).await.unwrap();
    let mut build = Build::new();
    let waiting = build.step("/elsewhere", build.scratch);
    let signal = build.step("/signal", build.scratch);
    let other = async {
        // The other process goes on only when this one has.
        memory.early.acquire().await.unwrap().forget();
        drop(elsewhere);
    };
    let targets = [waiting, signal];
    let run = build.run_with(&targets, &memory, limited_to(1));
    let both = async { tokio::join!(run, other) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("each waits for the other").0.0.unwrap();
    assert_eq!(ran(&memory), ["/signal", "/elsewhere"]);
}

/// Also what only another target needs is cancelled (R8.6); what had ended is kept.
#[tokio::test(start_paused = true)]
async fn a_failure_ends_all_targets() {
    let memory = Arc::new(Memory::default());
    let mut build = Build::new();
    let good = build.step("/good", build.scratch);
    let slow = build.step("/slow", good);
    let never = build.step("/never", slow);
    let fail = build.step("/fail", good);
    let (result, events) = build.run(&[never, fail], &memory).await;
    assert_eq!(result.unwrap_err().name, "/fail");
    assert!(!ran(&memory).contains(&"/never".to_owned()));
    let cancelled =
        |event: &&Event| matches!(event, Event::Vertex(v) if v.error.as_deref() == Some("context canceled"));
    assert_eq!(events.iter().filter(cancelled).count(), 1, "the one that ran is told of, what never began is not");
    let mut build = Build::new();
    let good = build.step("/good", build.scratch);
    build.run(&[good], &memory).await.0.unwrap();
    assert_eq!(ran(&memory), [] as [&str; 0], "X5.7");
}
