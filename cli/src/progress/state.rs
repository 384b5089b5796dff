//! What is known of a build's vertices, folded from events. Knows no terminal.

use parser::Span;
use parser::diagnostic::excerpt;
use solver::event::{Event, LogEvent, StatusEvent, Stream, VertexEvent, WarningEvent};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// How many of the last lines of a failed vertex are shown again (X5.29).
const TAIL: usize = 10;
/// A line that never ends is cut here (X6.7).
const MAX_LINE: usize = 1 << 20;

#[derive(Default)]
pub struct State {
    /// In the order of their first event.
    pub vertices: Vec<Vertex>,
    positions: HashMap<String, usize>,
    warnings: Vec<WarningEvent>,
}

#[derive(Default)]
pub struct Vertex {
    pub name: String,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    pub cached: bool,
    pub error: Option<String>,
    /// In the order of their first event.
    pub statuses: Vec<StatusEvent>,
    /// The last lines of output, each with its time.
    pub tail: VecDeque<(Duration, Vec<u8>)>,
    /// Lines of standard output and standard error that have not ended yet. Kept apart, so that what a program writes piecemeal to one is not
    /// torn by the other.
    partial: [Vec<u8>; 2],
}

/// What an event changed, for displays that print as things happen.
pub enum Change {
    Vertex(usize),
    Status(usize, usize),
    /// Complete lines, each with its time since the vertex began.
    Lines(usize, Vec<(Duration, Vec<u8>)>),
    None,
}

impl State {
    pub fn apply(&mut self, event: Event) -> Change {
        match event {
            Event::Vertex(event) => self.vertex(event),
            Event::Status(event) => self.status(event),
            Event::Log(event) => self.log(event),
            Event::Warning(event) => {
                self.warnings.push(event);
                Change::None
            }
        }
    }

    fn vertex(&mut self, event: VertexEvent) -> Change {
        let position = match self.positions.get(&event.digest) {
            Some(position) => *position,
            None => {
                self.positions.insert(event.digest.clone(), self.vertices.len());
                self.vertices.push(Vertex::default());
                self.vertices.len() - 1
            }
        };
        let vertex = &mut self.vertices[position];
        vertex.name = event.name;
        vertex.started = event.started.or(vertex.started);
        vertex.completed = event.completed;
        vertex.cached = event.cached;
        vertex.error = event.error;
        Change::Vertex(position)
    }

    fn status(&mut self, event: StatusEvent) -> Change {
        let Some(&position) = self.positions.get(&event.vertex) else { return Change::None };
        let statuses = &mut self.vertices[position].statuses;
        match statuses.iter().position(|status| status.id == event.id) {
            Some(index) => {
                let started = statuses[index].started.or(event.started);
                statuses[index] = StatusEvent { started, ..event };
                Change::Status(position, index)
            }
            None => {
                statuses.push(event);
                Change::Status(position, statuses.len() - 1)
            }
        }
    }

    fn log(&mut self, event: LogEvent) -> Change {
        let Some(&position) = self.positions.get(&event.vertex) else { return Change::None };
        let vertex = &mut self.vertices[position];
        let time = since(vertex.started, event.timestamp);
        let partial = &mut vertex.partial[usize::from(event.stream == Stream::Stderr)];
        partial.extend_from_slice(&event.data);
        let mut lines = Vec::new();
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = partial.drain(..=end).collect();
            line.pop();
            lines.push((time, line));
        }
        if partial.len() > MAX_LINE {
            lines.push((time, std::mem::take(partial)));
        }
        vertex.remember(&lines);
        Change::Lines(position, lines)
    }

    /// The last lines of a vertex whose output did not end in a newline.
    pub fn take_partial(&mut self, position: usize) -> Vec<(Duration, Vec<u8>)> {
        let vertex = &mut self.vertices[position];
        let time = since(vertex.started, vertex.completed.unwrap_or_else(SystemTime::now));
        let partial = vertex.partial.iter_mut().map(std::mem::take).filter(|line| !line.is_empty());
        let lines: Vec<_> = partial.map(|line| (time, line)).collect();
        vertex.remember(&lines);
        lines
    }

    /// All warnings, which have waited for the end, where they are not lost among other lines. Expanded, with what the rule says and the
    /// lines.
    pub fn write_warnings(&self, out: &mut impl Write, expanded: bool) -> io::Result<()> {
        let hint = if expanded { "" } else { " (rbuild check shows the lines)" };
        match self.warnings.len() {
            0 => return Ok(()),
            1 => writeln!(out, "1 warning found{hint}:")?,
            count => writeln!(out, "{count} warnings found{hint}:")?,
        }
        for warning in &self.warnings {
            writeln!(out, " - {}", warning.short)?;
            if expanded {
                write_details(warning, out)?;
            }
        }
        Ok(())
    }

    /// The last lines of what failed, between rules (X5.29).
    pub fn write_failures(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.write_tails(out, "", Vertex::has_failed)
    }

    /// The same of what was cancelled because of that, for displays that do not keep what was said.
    pub fn write_cancelled(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.write_tails(out, "CANCELED ", |vertex| vertex.is_cancelled() && !vertex.tail.is_empty())
    }

    fn write_tails(&mut self, out: &mut impl Write, state: &str, is_meant: impl Fn(&Vertex) -> bool) -> io::Result<()> {
        for position in 0..self.vertices.len() {
            self.take_partial(position);
        }
        for vertex in self.vertices.iter().filter(|vertex| is_meant(vertex)) {
            writeln!(out, "------\n > {state}{}:", vertex.name)?;
            for (time, line) in &vertex.tail {
                write!(out, "{} ", seconds(*time))?;
                out.write_all(line)?;
                writeln!(out)?;
            }
            writeln!(out, "------")?;
        }
        Ok(())
    }
}

fn write_details(warning: &WarningEvent, out: &mut impl Write) -> io::Result<()> {
    warning.detail.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    if !warning.url.is_empty() {
        writeln!(out, "More info: {}", warning.url)?;
    }
    if let (Some(source), Some((first, last))) = (&warning.source, warning.lines) {
        let offset = |lines| source.text.split_inclusive('\n').take(lines).map(str::len).sum();
        let span = Span::new(offset(first.saturating_sub(1)), offset(last));
        write!(out, "{}", excerpt(&source.text, &source.name, span, span))?;
    }
    writeln!(out)
}

impl Vertex {
    fn remember(&mut self, lines: &[(Duration, Vec<u8>)]) {
        for line in lines {
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line.clone());
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.ends_with("context canceled"))
    }

    pub fn has_failed(&self) -> bool {
        self.error.is_some() && !self.is_cancelled()
    }

    pub fn duration(&self) -> Duration {
        since(self.started, self.completed.unwrap_or_else(SystemTime::now))
    }
}

/// Never negative, whatever the clock does (X6.82).
pub fn since(start: Option<SystemTime>, end: SystemTime) -> Duration {
    start.and_then(|start| end.duration_since(start).ok()).unwrap_or_default()
}

/// X5.23: three decimals below 10, two below 100, else one.
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 10.0 => format!("{seconds:.3}"),
        s if s < 100.0 => format!("{seconds:.2}"),
        _ => format!("{seconds:.1}"),
    }
}

/// `10.93kB`.
pub fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if number < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{number:.2}{unit}") };
        }
        number /= 1000.0;
    }
    format!("{number:.2}TB")
}
