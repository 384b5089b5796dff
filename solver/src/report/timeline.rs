//! What ran when, what it waited for, and which chain of steps decided how long the build took.

use super::collect::{ObservedVertex, since};
use super::{Observed, Report};
use crate::draw::plain;
use crate::trace::{Kind, State, TracedVertex, Waits};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

/// Something that took time: a vertex, or a task of the build itself.
pub struct Entry<'a> {
    /// One line.
    pub name: String,
    pub vertex: Option<&'a TracedVertex>,
    pub observed: Option<&'a ObservedVertex>,
    pub state: State,
    /// Seconds since the build began.
    pub span: Option<(f64, f64)>,
    /// What it waited for, in order.
    pub waits: Vec<Wait>,
    /// The entries that it takes something of.
    pub inputs: Vec<usize>,
}

/// Seconds since the build began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait {
    pub what: Waiting,
    pub from: f64,
    pub to: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// The last of its inputs, while another one was there.
    Inputs,
    /// That its inputs were read for its key.
    Reading,
    /// Somebody else who made the same.
    Lock,
    /// A free slot, where parallelism is limited.
    Slot,
}

/// A link of the critical path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub entry: usize,
    /// Seconds from when the link before it had ended until it had.
    pub seconds: f64,
}

/// Shorter waits are not told.
const LEAST: f64 = 0.0005;

/// All entries by when they began; those that did not stand at the end.
pub fn entries(report: &Report) -> Vec<Entry<'_>> {
    let vertices = report.trace.as_ref().map(|trace| trace.vertices.as_slice()).unwrap_or_default();
    let clock = Clock { started: report.started, completed: report.completed };
    let observed: HashMap<_, _> =
        report.observed.vertices.iter().map(|vertex| (vertex.event.digest.as_str(), vertex)).collect();
    // What is nothing is not told.
    let shown = vertices.iter().filter(|vertex| vertex.kind != Kind::Scratch || vertices.len() == 1);
    let mut entries: Vec<Entry> = shown
        .map(|vertex| {
            let span = vertex.started.map(|started| {
                let end = vertex.completed.map_or(report.completed, SystemTime::from);
                (clock.seconds(started.into()), clock.seconds(end))
            });
            Entry {
                name: plain(&vertex.name),
                vertex: Some(vertex),
                observed: observed.get(vertex.digest.as_str()).copied(),
                state: vertex.state,
                span,
                waits: Vec::new(),
                inputs: Vec::new(),
            }
        })
        .collect();
    let known: HashSet<_> = vertices.iter().map(|vertex| vertex.digest.as_str()).collect();
    entries.extend(tasks(&report.observed, &known, &clock));
    // Stable, so that what began at the same time stays in the order of the graph.
    entries.sort_by(|a, b| start(a).total_cmp(&start(b)));
    let positions: HashMap<_, _> =
        entries.iter().enumerate().filter_map(|(index, entry)| Some((entry.vertex?.digest.as_str(), index))).collect();
    let inputs: Vec<Vec<usize>> = entries
        .iter()
        .map(|entry| {
            let inputs = entry.vertex.map(|vertex| vertex.inputs.as_slice()).unwrap_or_default();
            inputs.iter().filter_map(|input| positions.get(input.as_str()).copied()).collect()
        })
        .collect();
    for (index, inputs) in inputs.into_iter().enumerate() {
        let ends: Vec<f64> = inputs.iter().filter_map(|input| entries[*input].span).map(|span| span.1).collect();
        let digest = entries[index].vertex.map(|vertex| vertex.digest.as_str()).unwrap_or_default();
        let at = report.waits.get(digest).copied().unwrap_or_default();
        if let Some(span) = entries[index].span {
            entries[index].waits = waits(&ends, &at, span, &clock);
        }
        entries[index].inputs = inputs;
    }
    entries
}

fn start(entry: &Entry<'_>) -> f64 {
    entry.span.map_or(f64::INFINITY, |span| span.0)
}

fn tasks<'a>(observed: &'a Observed, known: &HashSet<&str>, clock: &Clock) -> impl Iterator<Item = Entry<'a>> {
    let others = observed.vertices.iter().filter(|vertex| !known.contains(vertex.event.digest.as_str()));
    others.map(|vertex| {
        let event = &vertex.event;
        let state = match (&event.error, event.completed) {
            (Some(error), _) if error.ends_with("context canceled") => State::Cancelled,
            (Some(_), _) => State::Failed,
            (None, None) => State::Cancelled,
            (None, Some(_)) if event.cached => State::Cached,
            (None, Some(_)) => State::Ran,
        };
        let end = event.completed.unwrap_or(clock.completed);
        Entry {
            name: plain(&event.name),
            vertex: None,
            observed: Some(vertex),
            state,
            span: event.started.map(|started| (clock.seconds(started), clock.seconds(end))),
            waits: Vec::new(),
            inputs: Vec::new(),
        }
    })
}

fn waits(ends: &[f64], at: &Waits, (started, completed): (f64, f64), clock: &Clock) -> Vec<Wait> {
    let running = at.running.map_or(started, |time| clock.seconds(time)).min(completed);
    let first = ends.iter().copied().fold(f64::INFINITY, f64::min).min(running);
    let ready = ends.iter().copied().fold(0.0, f64::max).min(running);
    let mut waits = Vec::new();
    if !ends.is_empty() {
        let point = |time: Option<SystemTime>| time.map(|time| clock.seconds(time).clamp(ready, running));
        let keyed = point(at.keyed).unwrap_or(ready);
        let locked = point(at.locked).unwrap_or(keyed).max(keyed);
        let points = [first, ready, keyed, locked, running];
        let what = [Waiting::Inputs, Waiting::Reading, Waiting::Lock, Waiting::Slot];
        for (what, pair) in what.into_iter().zip(points.windows(2)) {
            if pair[1] - pair[0] >= LEAST {
                waits.push(Wait { what, from: pair[0], to: pair[1] });
            }
        }
        if at.locked.is_none() {
            // It was looked up and found.
            waits.retain(|wait| matches!(wait.what, Waiting::Inputs | Waiting::Reading));
        }
    }
    waits
}

impl Entry<'_> {
    /// When it ran itself, rather than read or waited.
    pub fn running(&self) -> Option<(f64, f64)> {
        let (started, completed) = self.span?;
        let waited = self.waits.iter().map(|wait| wait.to).fold(started, f64::max);
        Some((waited.min(completed), completed))
    }

    /// How long that took.
    pub fn seconds(&self) -> f64 {
        self.running().map_or(0.0, |(from, to)| to - from)
    }
}

/// The chain of entries that ended the build: from the last one that ended, each time to the input that was last, or, where there is none, to what ended last before
/// it began.
pub fn critical_path(entries: &[Entry<'_>]) -> Vec<Link> {
    let end = |index: usize| entries[index].span.map_or(0.0, |span| span.1);
    let ended = |candidates: &mut dyn Iterator<Item = usize>| {
        candidates
            .filter(|index| entries[*index].span.is_some())
            .max_by(|a, b| end(*a).total_cmp(&end(*b)).then(b.cmp(a)))
    };
    let mut path = Vec::new();
    let mut seen = HashSet::new();
    let mut next = ended(&mut (0..entries.len()));
    while let Some(index) = next {
        if !seen.insert(index) {
            break;
        }
        let begins = start(&entries[index]);
        next = ended(&mut entries[index].inputs.iter().copied())
            .or_else(|| ended(&mut (0..entries.len()).filter(|other| end(*other) <= begins && *other != index)));
        let before = next.map_or(0.0, end);
        path.push(Link { entry: index, seconds: (end(index) - before).max(0.0) });
    }
    path.reverse();
    path
}

/// Turns times into seconds since the build began.
struct Clock {
    started: SystemTime,
    completed: SystemTime,
}

impl Clock {
    fn seconds(&self, time: SystemTime) -> f64 {
        since(Some(self.started), time).min(since(Some(self.started), self.completed)).as_secs_f64()
    }
}

/// How long the build took.
pub fn total(report: &Report) -> Duration {
    since(Some(report.started), report.completed)
}
