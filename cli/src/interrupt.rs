//! What ends a build from outside: Ctrl-C, SIGTERM, a terminal that is closed, an output that nobody reads any more.
//!
//! The first one cancels: steps are killed, what is written is dropped, and rbuild ends with 128 and the signal's number. A second one, or work that takes longer
//! than that second, ends rbuild where it stands; the store's next user clears away what is left (see `cache`). Signals are heard on a thread of their own,
//! so that no work can keep them waiting.

use crate::error::Result;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// How long cancelling may take.
pub const PATIENCE: Duration = Duration::from_millis(900);

static CODE: AtomicU8 = AtomicU8::new(0);
static INTERRUPTED: Notify = Notify::const_new();
static HANDED_OVER: AtomicBool = AtomicBool::new(false);

/// The exit code that an interruption asks for, if there was one.
pub fn code() -> Option<u8> {
    Some(CODE.load(Ordering::Relaxed)).filter(|code| *code != 0)
}

/// Waits for an interruption. For one waiter.
pub async fn interrupted() -> u8 {
    loop {
        if let Some(code) = code() {
            return code;
        }
        INTERRUPTED.notified().await;
    }
}

/// Listens for signals from now on: until then, they end the program where it stands. Those that whoever started rbuild has it ignore, as
/// nohup and shells for what is in the background do, stay ignored.
pub fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, is_ready) = mpsc::channel();
    let ignored = ignored_signals();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let hear = |kind: SignalKind| match ignored >> (kind.as_raw_value() - 1) & 1 {
                0 => signal(kind).map(Some),
                _ => Ok(None),
            };
            let heard = (hear(SignalKind::interrupt()), hear(SignalKind::terminate()), hear(SignalKind::hangup()));
            let (mut interrupt, mut terminate, mut hangup) = match heard {
                (Ok(interrupt), Ok(terminate), Ok(hangup)) => (interrupt, terminate, hangup),
                (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            loop {
                let number = tokio::select! {
                    () = received(&mut interrupt) => 2,
                    () = received(&mut terminate) => 15,
                    () = received(&mut hangup) => 1,
                };
                if HANDED_OVER.load(Ordering::Relaxed) && number != 1 {
                    continue;
                }
                if code().is_some() {
                    std::process::exit(128 + number);
                }
                interrupt_with(128 + number as u8);
            }
        });
    });
    match is_ready.recv() {
        Ok(listening) => Ok(listening?),
        Err(_) => Err(io::Error::other("the thread that hears signals has ended").into()),
    }
}

/// From now on Ctrl-C and SIGTERM are somebody else's: a shell runs.
pub fn hand_over() {
    HANDED_OVER.store(true, Ordering::Relaxed);
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn interrupt_with(code: u8) {
    if CODE.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        return;
    }
    INTERRUPTED.notify_one();
    std::thread::spawn(move || {
        // Beyond what the ordinary end waits for.
        std::thread::sleep(PATIENCE + Duration::from_millis(100));
        std::process::exit(code.into());
    });
}

/// Nobody reads what is shown any more (`rbuild build 2>&1 | head -1`). Programs end with SIGPIPE then.
pub fn output_failed(error: &io::Error) {
    if error.kind() == io::ErrorKind::BrokenPipe {
        interrupt_with(128 + 13);
    }
}

/// One bit for each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Writes until the build is interrupted.
pub struct UntilInterrupted<W>(pub W);

impl<W: Write> Write for UntilInterrupted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match code() {
            Some(_) => Err(io::Error::other("context canceled")),
            None => self.0.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
