//! Progress for a terminal: a window at its bottom, drawn anew a few times a second (R8.13).

use super::state::{State, Vertex, size};
use crate::interrupt;
use rustix::termios::tcgetwinsize;
use solver::event::Event;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

const REFRESH: Duration = Duration::from_millis(100);
/// Lines of output shown below a running vertex.
const LOG_LINES: usize = 6;

pub fn show(mut events: UnboundedReceiver<Event>, expand_warnings: bool) {
    let mut state = State::default();
    let started = Instant::now();
    let mut drawn = 0;
    let mut is_open = true;
    loop {
        let mut ended = false;
        loop {
            match events.try_recv() {
                Ok(event) => drop(state.apply(event)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        if is_open {
            let (width, height) = window();
            let frame = frame(&state, started.elapsed(), ended, width, height);
            is_open = draw(&frame, drawn).inspect_err(interrupt::output_failed).is_ok();
            drawn = frame.len();
        }
        if ended {
            break;
        }
        std::thread::sleep(REFRESH);
    }
    if is_open {
        let mut last = Vec::new();
        let _ = state.write_cancelled(&mut last);
        let _ = state.write_failures(&mut last);
        let _ = state.write_warnings(&mut last, expand_warnings);
        let lines: String = String::from_utf8_lossy(&last).lines().map(|line| coloured(line) + "\n").collect();
        let _ = io::stderr().lock().write_all(lines.as_bytes());
    }
}

/// Columns and rows.
fn window() -> (usize, usize) {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Writes the lines over the ones of the last frame.
fn draw(lines: &[String], drawn: usize) -> io::Result<()> {
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A"));
    }
    text.push_str("\r\x1b[J");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let mut stderr = io::stderr().lock();
    stderr.write_all(text.as_bytes())?;
    stderr.flush()
}

/// What is on the screen, never wider or higher than it.
fn frame(state: &State, elapsed: Duration, ended: bool, width: usize, height: usize) -> Vec<String> {
    let vertices: Vec<&Vertex> = state.vertices.iter().filter(|vertex| vertex.started.is_some()).collect();
    let done = vertices.iter().filter(|vertex| vertex.completed.is_some()).count();
    let finished = if ended { " FINISHED" } else { "" };
    let head = format!("[+] Building {:.1}s ({done}/{}){finished}", elapsed.as_secs_f64(), vertices.len());
    let mut blocks: Vec<Vec<String>> = Vec::new();
    for vertex in &vertices {
        let mut block = vec![vertex_line(vertex, width)];
        let running = vertex.completed.is_none();
        if running || vertex.has_failed() {
            for status in &vertex.statuses {
                let amount = if status.total > 0 {
                    format!("{} / {}", size(status.current), size(status.total))
                } else {
                    String::new()
                };
                block.push(justified(&format!(" => => {}", printable(status.id.as_bytes())), &amount, width));
            }
        }
        if running {
            let tail = vertex.tail.iter().rev().take(LOG_LINES).rev();
            block.extend(tail.map(|(_, line)| fit(&format!(" => => # {}", printable(line)), width)));
        }
        blocks.push(block);
    }
    let mut lines = vec![fit(&head, width)];
    // Blocks that are done leave first where the window is too small.
    let room = if ended { usize::MAX } else { height.saturating_sub(2) };
    let mut needed: usize = blocks.iter().map(Vec::len).sum();
    for (block, vertex) in blocks.into_iter().zip(&vertices) {
        if needed > room && vertex.completed.is_some() && !vertex.has_failed() {
            needed -= block.len();
            continue;
        }
        lines.extend(block);
    }
    if !ended {
        lines.truncate(room.max(1));
    }
    lines
}

fn vertex_line(vertex: &Vertex, width: usize) -> String {
    let state = match (&vertex.error, vertex.cached) {
        (Some(_), _) if vertex.is_cancelled() => "CANCELED ",
        (Some(_), _) => "ERROR ",
        (None, true) => "CACHED ",
        (None, false) => "",
    };
    let time = format!("{:.1}s", vertex.duration().as_secs_f64());
    let line = justified(&format!(" => {state}{}", printable(vertex.name.as_bytes())), &time, width);
    if std::env::var_os("NO_COLOR").is_some() {
        return line;
    }
    match (vertex.has_failed(), vertex.completed.is_some()) {
        (true, _) => format!("\x1b[31m{line}\x1b[0m"),
        (false, true) => format!("\x1b[34m{line}\x1b[0m"),
        (false, false) => line,
    }
}

/// `left` and, at the right edge, `right`.
fn justified(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.chars().count() + 1);
    let left = fit(left, room);
    let padding = room.saturating_sub(left.chars().count());
    fit(&format!("{left}{} {right}", " ".repeat(padding)), width)
}

fn fit(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// Output must not move the cursor: escape sequences and control characters go.
fn printable(bytes: &[u8]) -> String {
    tamed(&String::from_utf8_lossy(bytes), false)
}

/// The same of a whole line, which may have colours and keeps them to itself.
fn coloured(line: &str) -> String {
    let shown = tamed(line, true);
    if shown.contains('\x1b') { shown + "\x1b[0m" } else { shown }
}

fn tamed(text: &str, with_colours: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                // A control sequence ends with a letter or a few other characters.
                if chars.next() != Some('[') {
                    continue;
                }
                let rest = chars.as_str();
                let end = chars.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
                let sequence = &rest[..rest.len() - chars.as_str().len()];
                if with_colours && end == Some('m') {
                    shown.push_str("\x1b[");
                    shown.extend(sequence.chars().filter(|c| !c.is_control()));
                }
            }
            '\t' => shown.push(' '),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::event::{LogEvent, Stream, VertexEvent};
    use std::time::SystemTime;

    fn running(name: &str) -> Event {
        Event::Vertex(VertexEvent {
            digest: name.into(),
            name: name.into(),
            started: Some(SystemTime::now()),
            ..Default::default()
        })
    }

    #[test]
    fn frames_fit_the_window() {
        let mut state = State::default();
        for number in 0..50 {
            state.apply(running(&format!("[stage {number}/50] RUN a rather long command line that goes on")));
        }
        for (width, height) in [(80, 24), (20, 10), (1, 1)] {
            let lines = frame(&state, Duration::from_secs(1), false, width, height);
            assert!(lines.len() < height.max(2), "{width}x{height}: {}", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}x{height}");
        }
    }

    #[test]
    fn output_cannot_move_the_cursor() {
        let mut state = State::default();
        state.apply(running("x"));
        state.apply(Event::Log(LogEvent {
            vertex: "x".into(),
            stream: Stream::Stdout,
            data: b"\x1b[2J\x1b[31mred\x1b[0m\x07\r\n".to_vec(),
            timestamp: SystemTime::now(),
        }));
        let lines = frame(&state, Duration::ZERO, false, 80, 24);
        assert_eq!(lines[2], " => => # red");
    }
}
