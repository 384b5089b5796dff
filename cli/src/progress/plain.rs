//! Plain progress: lines for a log (X5.22 to X5.29).
//!
//! Vertices get a number when they are first shown. One is shown at a time; the others' lines wait until it ends, or until it has been silent.

use super::state::{Change, State, seconds, size};
use crate::interrupt;
use solver::event::{Event, StatusEvent};
use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// Another vertex that has something to say takes over from one that is silent for so long.
const SILENCE: Duration = Duration::from_secs(5);

pub fn show(mut events: UnboundedReceiver<Event>, out: impl Write, expand_warnings: bool) {
    let mut plain = Plain::new(out);
    // Nothing more can be said: the rest is read and dropped.
    let mut is_open = true;
    while let Some(event) = events.blocking_recv() {
        if is_open {
            is_open = plain.event(event).inspect_err(interrupt::output_failed).is_ok();
        }
    }
    if is_open {
        let _ = plain.finish(expand_warnings);
    }
}

struct Plain<W> {
    state: State,
    out: W,
    numbers: HashMap<usize, usize>,
    active: Option<usize>,
    last_output: Instant,
    /// Lines of vertices that are not the active one.
    waiting: Vec<(usize, String, Vec<u8>)>,
    /// When each status was last printed, and how far it was.
    printed: HashMap<(usize, usize), (Instant, u64)>,
}

impl<W: Write> Plain<W> {
    fn new(out: W) -> Self {
        Plain {
            state: State::default(),
            out,
            numbers: HashMap::new(),
            active: None,
            last_output: Instant::now(),
            waiting: Vec::new(),
            printed: HashMap::new(),
        }
    }

    fn event(&mut self, event: Event) -> io::Result<()> {
        match self.state.apply(event) {
            Change::Vertex(position) => {
                let vertex = &self.state.vertices[position];
                if vertex.started.is_none() {
                    return Ok(());
                }
                if vertex.completed.is_some() {
                    return self.end(position);
                }
                if self.active.is_none() { self.activate(position) } else { Ok(()) }
            }
            Change::Lines(position, lines) => {
                for (time, line) in lines {
                    self.line(position, format!("{} ", seconds(time)), line)?;
                }
                Ok(())
            }
            Change::Status(position, index) => self.status(position, index),
            Change::None => Ok(()),
        }
    }

    fn number(&mut self, position: usize) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(position).or_insert(next)
    }

    /// Begins or resumes a block.
    fn activate(&mut self, position: usize) -> io::Result<()> {
        if self.active == Some(position) {
            return Ok(());
        }
        if let Some(left) = self.active.take() {
            let number = self.number(left);
            writeln!(self.out, "#{number} ...\n")?;
        }
        self.active = Some(position);
        let number = self.number(position);
        writeln!(self.out, "#{number} {}", self.state.vertices[position].name)?;
        let (ours, others) = std::mem::take(&mut self.waiting).into_iter().partition(|(of, _, _)| *of == position);
        self.waiting = others;
        for (_, prefix, line) in ours {
            self.write_line(position, &prefix, &line)?;
        }
        Ok(())
    }

    fn line(&mut self, position: usize, prefix: String, line: Vec<u8>) -> io::Result<()> {
        if self.active != Some(position) && (self.active.is_none() || self.last_output.elapsed() > SILENCE) {
            self.activate(position)?;
        }
        if self.active == Some(position) {
            return self.write_line(position, &prefix, &line);
        }
        self.waiting.push((position, prefix, line));
        Ok(())
    }

    fn write_line(&mut self, position: usize, prefix: &str, line: &[u8]) -> io::Result<()> {
        let number = self.number(position);
        write!(self.out, "#{number} {prefix}")?;
        self.out.write_all(line)?;
        writeln!(self.out)?;
        self.last_output = Instant::now();
        Ok(())
    }

    /// Again only after a twentieth more or five seconds (X5.25).
    fn status(&mut self, position: usize, index: usize) -> io::Result<()> {
        let status = &self.state.vertices[position].statuses[index];
        let due = match self.printed.get(&(position, index)) {
            None => true,
            Some((at, current)) => {
                status.completed.is_some()
                    || at.elapsed() > SILENCE
                    || status.current.saturating_sub(*current) * 20 >= status.total.max(1)
            }
        };
        if due {
            let (current, text) = (status.current, status_line(status));
            self.printed.insert((position, index), (Instant::now(), current));
            self.line(position, String::new(), text.into_bytes())?;
        }
        Ok(())
    }

    fn end(&mut self, position: usize) -> io::Result<()> {
        self.activate(position)?;
        for (time, line) in self.state.take_partial(position) {
            self.write_line(position, &format!("{} ", seconds(time)), &line)?;
        }
        let number = self.number(position);
        let vertex = &self.state.vertices[position];
        match &vertex.error {
            Some(_) if vertex.is_cancelled() => writeln!(self.out, "#{number} CANCELED\n")?,
            Some(error) => writeln!(self.out, "#{number} ERROR: {error}\n")?,
            None if vertex.cached => writeln!(self.out, "#{number} CACHED\n")?,
            None => writeln!(self.out, "#{number} DONE {:.1}s\n", vertex.duration().as_secs_f64())?,
        }
        self.active = None;
        self.last_output = Instant::now();
        // Who has waited longest goes on.
        match self.waiting.first() {
            Some((next, _, _)) => self.activate(*next),
            None => Ok(()),
        }
    }

    fn finish(&mut self, expand_warnings: bool) -> io::Result<()> {
        self.state.write_failures(&mut self.out)?;
        self.state.write_warnings(&mut self.out, expand_warnings)?;
        self.out.flush()
    }
}

/// `ID cur / total T.Ts done`.
fn status_line(status: &StatusEvent) -> String {
    let mut text = status.id.clone();
    if status.total > 0 {
        text.push_str(&format!(" {} / {}", size(status.current), size(status.total)));
    } else if status.current > 0 {
        text.push_str(&format!(" {}", size(status.current)));
    }
    let time = super::state::since(status.started, status.timestamp).as_secs_f64();
    if time > 0.01 {
        text.push_str(&format!(" {time:.1}s"));
    }
    if status.completed.is_some() {
        text.push_str(" done");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::event::{LogEvent, Stream, VertexEvent};
    use std::time::SystemTime;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + Duration::from_millis(milliseconds)
    }

    fn vertex(name: &str, start: u64, end: Option<u64>) -> VertexEvent {
        VertexEvent {
            digest: name.into(),
            name: name.into(),
            started: Some(at(start)),
            completed: end.map(at),
            ..Default::default()
        }
    }

    fn log(name: &str, time: u64, text: &str) -> Event {
        Event::Log(LogEvent { vertex: name.into(), stream: Stream::Stdout, data: text.into(), timestamp: at(time) })
    }

    fn shown(events: Vec<Event>) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        for event in events {
            plain.event(event).unwrap();
        }
        plain.finish(false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_block_at_a_time() {
        let text = shown(vec![
            Event::Vertex(vertex("a", 0, None)),
            Event::Vertex(vertex("b", 0, None)),
            log("a", 1500, "one\ntw"),
            log("b", 1600, "waits\n"),
            log("a", 12_345, "o"),
            Event::Vertex(vertex("a", 0, Some(13_000))),
            Event::Vertex(VertexEvent { cached: true, ..vertex("c", 0, Some(0)) }),
            Event::Vertex(vertex("b", 0, Some(14_000))),
        ]);
        let expected = "#1 a\n#1 1.500 one\n#1 13.00 two\n#1 DONE 13.0s\n\n#2 b\n#2 1.600 waits\n#2 ...\n\n#3 c\n#3 CACHED\n\n#2 b\n#2 DONE 14.0s\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn failures_are_told_again_at_the_end() {
        let failed = VertexEvent { error: Some("exit code: 1".into()), ..vertex("RUN x", 0, Some(2000)) };
        let cancelled = VertexEvent { error: Some("context canceled".into()), ..vertex("RUN y", 0, Some(2000)) };
        let text = shown(vec![
            Event::Vertex(vertex("RUN x", 0, None)),
            log("RUN x", 100, "why\n"),
            Event::Vertex(failed),
            Event::Vertex(cancelled),
        ]);
        assert!(text.contains("#1 ERROR: exit code: 1\n"), "{text}");
        assert!(text.contains("#2 CANCELED\n"), "{text}");
        assert!(text.ends_with("------\n > RUN x:\n0.100 why\n------\n"), "{text}");
    }
}
