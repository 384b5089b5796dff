//! Draws a build's events: for a terminal, for a log, or as JSON.

mod plain;
mod rawjson;
mod state;
mod tty;

use crate::error::{CliError, Result};
use rustix::termios::isatty;
use solver::event::Event;
use std::io::{LineWriter, Stderr};
use std::thread::JoinHandle;
use tokio::sync::mpsc::UnboundedReceiver;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Tty,
    RawJson,
    /// Nothing but the result.
    Quiet,
}

impl Mode {
    /// The mode that a word asks for; `auto` looks at standard error.
    pub fn parse(text: &str) -> Result<Mode> {
        let is_terminal = isatty(std::io::stderr());
        match text {
            "" | "auto" if is_terminal => Ok(Mode::Tty),
            "" | "auto" | "plain" => Ok(Mode::Plain),
            "tty" if is_terminal => Ok(Mode::Tty),
            "tty" => Err(CliError::Usage("--progress=tty needs a terminal on standard error".into())),
            "rawjson" => Ok(Mode::RawJson),
            "quiet" | "none" => Ok(Mode::Quiet),
            other => {
                let modes = ["auto", "plain", "tty", "rawjson", "quiet", "none"];
                let hint = parser::suggest::closest(modes, other).map(|mode| format!(" (did you mean {mode}?)"));
                let hint = hint.unwrap_or_default();
                Err(CliError::Usage(format!("unknown progress mode {other:?}{hint}; there are {}", modes.join(", "))))
            }
        }
    }
}

/// A display on a thread of its own. It ends when all senders of events are gone.
pub struct Display(JoinHandle<()>);

impl Display {
    /// With `expand_warnings` they are told with their lines.
    pub fn start(mode: Mode, expand_warnings: bool, events: UnboundedReceiver<Event>) -> Display {
        Display(std::thread::spawn(move || match mode {
            Mode::Plain => plain::show(events, lines(), expand_warnings),
            Mode::Tty => tty::show(events, expand_warnings),
            Mode::RawJson => rawjson::show(events, lines()),
            Mode::Quiet => quiet(events),
        }))
    }

    /// Waits until everything is shown.
    pub fn finish(self) {
        let _ = self.0.join();
    }
}

/// Standard error by whole lines. It is not locked for long: with `--debug` other threads write to it, too, and must not wait for the build's end.
fn lines() -> LineWriter<Stderr> {
    LineWriter::new(std::io::stderr())
}

/// Says nothing, unless something fails: then what that said.
fn quiet(mut events: UnboundedReceiver<Event>) {
    let mut state = state::State::default();
    while let Some(event) = events.blocking_recv() {
        state.apply(event);
    }
    if state.vertices.iter().any(state::Vertex::has_failed) {
        let _ = state.write_cancelled(&mut std::io::stderr().lock());
    }
    let _ = state.write_failures(&mut std::io::stderr().lock());
}
