//! What a build reports while it runs, shaped as BuildKit's client protocol (spec X5.19), so that `--progress=rawjson` is a
//! plain serialization of it. Every crate that does work sends [`Event`]s on one channel; the command line draws them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::sync::mpsc::UnboundedSender;

/// Identifies a vertex among the events of one build: the digest of its operation, as hex.
pub type VertexDigest = String;

#[derive(Clone, Debug)]
pub enum Event {
    /// Something that takes time has a name, started or ended. Sent again with more fields set as it goes on.
    Vertex(VertexEvent),
    /// A part of a vertex progressed: a transfer, a sub-step.
    Status(StatusEvent),
    /// Output of a process. Bytes pass unchanged.
    Log(LogEvent),
    Warning(WarningEvent),
}

#[derive(Clone, Debug, Default)]
pub struct VertexEvent {
    pub digest: VertexDigest,
    pub inputs: Vec<VertexDigest>,
    /// `[build 2/5] RUN make`, `[internal] load build context` (spec X5.11 to X5.18).
    pub name: String,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    pub cached: bool,
    /// Why it failed. A text that ends in `context canceled` means that another vertex's failure ended this one.
    pub error: Option<String>,
}

#[derive(Clone, Debug)]
pub struct StatusEvent {
    pub vertex: VertexDigest,
    /// `transferring context`, a layer's digest, `exporting layers`.
    pub id: String,
    /// Bytes done so far, or 0 where bytes mean nothing.
    pub current: u64,
    /// Bytes in all, or 0 where not known.
    pub total: u64,
    pub timestamp: SystemTime,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Debug)]
pub struct LogEvent {
    pub vertex: VertexDigest,
    pub stream: Stream,
    pub data: Vec<u8>,
    pub timestamp: SystemTime,
}

#[derive(Clone, Debug)]
pub struct WarningEvent {
    pub vertex: VertexDigest,
    /// 1 for build checks, as BuildKit sends them.
    pub level: u8,
    pub short: String,
    pub detail: Vec<String>,
    pub url: String,
    /// First and last line in the Dockerfile, counted from 1.
    pub lines: Option<(usize, usize)>,
    pub source: Option<Arc<SourceFile>>,
}

/// The file that a warning is about.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// The sending end. Cheap to clone; sending never blocks and never fails: a display that went away must not fail a build.
#[derive(Clone)]
pub struct EventSink(UnboundedSender<Event>);

impl EventSink {
    pub fn new(sender: UnboundedSender<Event>) -> Self {
        EventSink(sender)
    }

    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// Starts a vertex that is not an operation of the graph: `[internal] …`, `exporting to image`.
    pub fn start(&self, name: impl Into<String>) -> Task {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = name.into();
        let seed = format!("{} {name}", NEXT.fetch_add(1, Ordering::Relaxed));
        let vertex = VertexEvent {
            digest: blake3::hash(seed.as_bytes()).to_hex().to_string(),
            name,
            started: Some(SystemTime::now()),
            ..Default::default()
        };
        self.send(Event::Vertex(vertex.clone()));
        Task { sink: self.clone(), vertex }
    }
}

/// A running vertex of one's own. Report its end with [`Task::done`] or [`Task::failed`]; dropped without that, it was cancelled.
pub struct Task {
    sink: EventSink,
    vertex: VertexEvent,
}

impl Task {
    pub fn digest(&self) -> &VertexDigest {
        &self.vertex.digest
    }

    pub fn sink(&self) -> &EventSink {
        &self.sink
    }

    /// Reports a sub-step as begun now and, with `done`, as ended.
    pub fn status(&self, id: impl Into<String>, current: u64, total: u64, done: bool) {
        let now = SystemTime::now();
        self.sink.send(Event::Status(StatusEvent {
            vertex: self.vertex.digest.clone(),
            id: id.into(),
            current,
            total,
            timestamp: now,
            started: Some(now),
            completed: done.then_some(now),
        }));
    }

    /// A line of output.
    pub fn log(&self, stream: Stream, text: impl Into<Vec<u8>>) {
        let (vertex, data) = (self.vertex.digest.clone(), text.into());
        self.sink.send(Event::Log(LogEvent { vertex, stream, data, timestamp: SystemTime::now() }));
    }

    pub fn done(self) {
        self.end(None, false);
    }

    pub fn cached(self) {
        self.end(None, true);
    }

    pub fn failed(self, error: impl ToString) {
        self.end(Some(error.to_string()), false);
    }

    fn end(mut self, error: Option<String>, cached: bool) {
        self.vertex.error = error;
        self.vertex.cached = cached;
        self.report_end();
    }

    fn report_end(&mut self) {
        self.vertex.completed = Some(SystemTime::now());
        self.sink.send(Event::Vertex(self.vertex.clone()));
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.vertex.completed.is_none() {
            self.vertex.error = Some("context canceled".into());
            self.report_end();
        }
    }
}
