//! The user's terminal, and the signals that it sends.

use crate::error::Result;
use executor::container::log::{LogWriter, Stream};
use executor::container::supervisor::copy;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long what the program wrote last may take to be shown, if something of its terminal is left open.
const LAST_WORDS: Duration = Duration::from_millis(200);

pub const INTERRUPT: u8 = 2;
pub const TERMINATE: u8 = 15;

pub struct Signals {
    pub interrupt: Signal,
    pub terminate: Signal,
    pub resize: Signal,
}

impl Signals {
    pub fn listen() -> Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    /// The next one that is for the program. Until it comes, the program's terminal follows the size of the user's.
    pub async fn next(&mut self, terminal: Option<&Terminal>) -> u8 {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return INTERRUPT,
                _ = self.terminate.recv() => return TERMINATE,
                _ = self.resize.recv() => {
                    if let Some(terminal) = terminal {
                        terminal.resize();
                    }
                }
            }
        }
    }
}

/// Rows and columns of the user's terminal; none without one.
pub fn size() -> (u16, u16) {
    tcgetwinsize(std::io::stdin()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// The user's terminal, raw while the program has one of its own.
pub struct Terminal {
    master: OwnedFd,
    before: Termios,
    /// Closed when all output has been shown.
    shown: mpsc::Receiver<()>,
}

impl Terminal {
    pub fn connect(master: OwnedFd, log: Option<Arc<LogWriter>>) -> Result<Terminal> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let (input, output) = (master.try_clone()?, master.try_clone()?);
        let (showing, shown) = mpsc::channel();
        let terminal = Terminal { master, before, shown };
        // It may have changed since the start.
        terminal.resize();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        // They end with the program: reading fails when it closes its terminal, and rbuild exits.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(input)));
        std::thread::spawn(move || {
            copy(output, Stream::Stdout, log.as_deref(), Some(Box::new(std::io::stdout())));
            drop(showing);
        });
        Ok(terminal)
    }

    pub fn resize(&self) {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shown.recv_timeout(LAST_WORDS);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
