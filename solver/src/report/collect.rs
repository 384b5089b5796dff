//! What is kept of a build's events.

use crate::event::{Event, LogEvent, StatusEvent, Stream, VertexDigest, VertexEvent};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

/// Of a vertex's output the beginning and the end are kept, in bytes.
const HEAD: usize = 16 << 10;
const TAIL: usize = 48 << 10;
/// What a line costs beside its text.
const OVERHEAD: usize = 24;
/// A longer line is cut.
const MOST_OF_LINE: usize = 4 << 10;
/// How many transfers and sub-steps of a vertex are kept.
const MOST_STATUSES: usize = 40;
/// How many warnings.
const MOST_WARNINGS: usize = 200;

/// Sees the events of a build as they pass.
#[derive(Default)]
pub struct Collector {
    observed: Observed,
    positions: HashMap<VertexDigest, usize>,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// In the order of their first event.
    pub vertices: Vec<ObservedVertex>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct ObservedVertex {
    pub event: VertexEvent,
    pub log: Log,
    pub statuses: Vec<StatusEvent>,
}

/// Lines of output.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub head: Vec<LogLine>,
    /// How many lines between the two are not kept.
    pub dropped: usize,
    pub tail: VecDeque<LogLine>,
    head_bytes: usize,
    tail_bytes: usize,
    /// Lines that have not ended yet, of both streams.
    partial: [Vec<u8>; 2],
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Since the vertex began.
    pub time: Duration,
    pub stream: Stream,
    /// Without its end.
    pub text: Vec<u8>,
}

impl Collector {
    pub fn see(&mut self, event: &Event) {
        match event {
            Event::Vertex(event) => {
                let vertices = &mut self.observed.vertices;
                let position = *self.positions.entry(event.digest.clone()).or_insert_with(|| {
                    vertices.push(ObservedVertex::default());
                    vertices.len() - 1
                });
                let vertex = &mut vertices[position];
                let started = event.started.or(vertex.event.started);
                vertex.event = VertexEvent { started, ..event.clone() };
            }
            Event::Log(event) => {
                if let Some(vertex) = self.vertex(&event.vertex) {
                    vertex.log.add(event, vertex.event.started);
                }
            }
            Event::Status(event) => {
                if let Some(vertex) = self.vertex(&event.vertex) {
                    vertex.update(event);
                }
            }
            Event::Warning(event) if self.observed.warnings.len() < MOST_WARNINGS => {
                self.observed.warnings.push(event.short.clone());
            }
            Event::Warning(_) => {}
        }
    }

    fn vertex(&mut self, digest: &str) -> Option<&mut ObservedVertex> {
        self.positions.get(digest).map(|position| &mut self.observed.vertices[*position])
    }

    /// All that was seen.
    pub fn finish(mut self) -> Observed {
        for vertex in &mut self.observed.vertices {
            vertex.log.finish(vertex.event.started, vertex.event.completed);
        }
        self.observed
    }
}

impl ObservedVertex {
    fn update(&mut self, event: &StatusEvent) {
        match self.statuses.iter().position(|status| status.id == event.id) {
            Some(at) => {
                let started = self.statuses[at].started.or(event.started);
                self.statuses[at] = StatusEvent { started, ..event.clone() };
            }
            None if self.statuses.len() < MOST_STATUSES => self.statuses.push(event.clone()),
            None => {}
        }
    }
}

impl Log {
    pub fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// About how much room it takes in a page.
    pub fn bytes(&self) -> usize {
        self.head_bytes + self.tail_bytes
    }

    fn add(&mut self, event: &LogEvent, started: Option<SystemTime>) {
        let time = since(started, event.timestamp);
        let mut rest = event.data.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(event.stream, &rest[..end]);
            self.end_line(event.stream, time);
            rest = &rest[end + 1..];
        }
        self.extend(event.stream, rest);
    }

    fn extend(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = &mut self.partial[stream as usize];
        let Some(last) = bytes.last() else { return };
        // What a carriage return goes back over is not seen on a terminal either.
        let text = if *last == b'\r' { &bytes[..bytes.len() - 1] } else { bytes };
        if let Some(at) = text.iter().rposition(|byte| *byte == b'\r') {
            partial.clear();
            return self.extend(stream, &bytes[at + 1..]);
        }
        if partial.last() == Some(&b'\r') && !text.is_empty() {
            partial.clear();
        }
        let room = (MOST_OF_LINE + 1).saturating_sub(partial.len());
        partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stream, time: Duration) {
        let mut text = std::mem::take(&mut self.partial[stream as usize]);
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        if text.len() > MOST_OF_LINE {
            text.truncate(MOST_OF_LINE);
            text.extend_from_slice("…".as_bytes());
        }
        let bytes = text.len() + OVERHEAD;
        let line = LogLine { time, stream, text };
        if self.tail.is_empty() && self.dropped == 0 && self.head_bytes + bytes <= HEAD {
            self.head_bytes += bytes;
            return self.head.push(line);
        }
        self.tail_bytes += bytes;
        self.tail.push_back(line);
        while self.tail_bytes > TAIL {
            let Some(line) = self.tail.pop_front() else { break };
            self.tail_bytes -= line.text.len() + OVERHEAD;
            self.dropped += 1;
        }
    }

    fn finish(&mut self, started: Option<SystemTime>, completed: Option<SystemTime>) {
        let time = since(started, completed.unwrap_or_else(SystemTime::now));
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial[stream as usize].is_empty() {
                self.end_line(stream, time);
            }
        }
    }
}

/// Never negative, whatever the clock does.
pub fn since(start: Option<SystemTime>, end: SystemTime) -> Duration {
    start.and_then(|start| end.duration_since(start).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(chunks: &[&[u8]]) -> Log {
        let mut collector = Collector::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let vertex = VertexEvent { digest: "v".into(), started: Some(at(1)), ..Default::default() };
        collector.see(&Event::Vertex(vertex));
        for chunk in chunks {
            let (vertex, data) = ("v".to_owned(), chunk.to_vec());
            collector.see(&Event::Log(LogEvent { vertex, stream: Stream::Stdout, data, timestamp: at(3) }));
        }
        collector.finish().vertices.remove(0).log
    }

    fn texts(lines: &[LogLine]) -> Vec<String> {
        lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
    }

    #[test]
    fn lines_are_put_together() {
        let log = collected(&[b"on", b"e\r\n10%\r20%\r", b"100%\ntwo", b"\nrest"]);
        assert_eq!(texts(&log.head), ["one", "100%", "two", "rest"]);
        assert_eq!(log.head[0].time, Duration::from_secs(2));
    }

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let lines: Vec<u8> = (0..100_000).flat_map(|line| format!("{line:09}\n").into_bytes()).collect();
        let log = collected(&[&lines]);
        assert_eq!(log.head.len() + log.dropped + log.tail.len(), 100_000);
        assert!(log.bytes() <= HEAD + TAIL);
        assert_eq!(
            (log.head[0].text.as_slice(), log.tail[log.tail.len() - 1].text.as_slice()),
            (&b"000000000"[..], &b"000099999"[..])
        );
        let endless = collected(&[&vec![b'x'; 1 << 20], &vec![b'y'; 1 << 20]]);
        assert_eq!(endless.head[0].text.len(), MOST_OF_LINE + "…".len());
    }
}
