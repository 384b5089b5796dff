//! How far a transfer is, as events.

use solver::event::{Event, EventSink, StatusEvent};
use std::time::SystemTime;

pub(crate) struct Progress<'a> {
    events: &'a EventSink,
    vertex: &'a str,
    id: String,
    started: SystemTime,
    shown: u64,
}

impl<'a> Progress<'a> {
    /// `id` names the transfer within its vertex.
    pub fn new(events: &'a EventSink, vertex: &'a str, id: String) -> Self {
        Progress { events, vertex, id, started: SystemTime::now(), shown: 0 }
    }

    /// `total` is 0 where it is not known.
    pub fn at(&mut self, current: u64, total: u64) {
        // A line for each twentieth is enough to watch.
        if current >= self.shown + (total / 20).max(1 << 20) {
            self.shown = current;
            self.send(current, total, false);
        }
    }

    pub fn done(self, total: u64) {
        self.send(total, total, true);
    }

    fn send(&self, current: u64, total: u64, done: bool) {
        let now = SystemTime::now();
        self.events.send(Event::Status(StatusEvent {
            vertex: self.vertex.to_owned(),
            id: self.id.clone(),
            current,
            total,
            timestamp: now,
            started: Some(self.started),
            completed: done.then_some(now),
        }));
    }
}
