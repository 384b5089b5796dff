//! A step's output as events, within limits (X1.103 to X1.106). The end of what is over them is kept, and shown if the step fails (R1.11.9).

use rustix::pipe::fcntl_getpipe_size;
use solver::event::{Event, EventSink, LogEvent, Stream};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

const MAX_SIZE: u64 = 2 << 20;
/// Bytes in each second since the step began.
const MAX_SPEED: u64 = 200 << 10;

/// How much of the end is kept of each stream.
const MAX_TAIL: usize = 256 << 10;

/// The output of one step.
pub(crate) struct Output {
    stdout: Log,
    stderr: Log,
}

impl Output {
    pub fn of(vertex: &str, events: &EventSink) -> Output {
        let log = |stream| Log {
            stream,
            vertex: vertex.to_owned(),
            events: events.clone(),
            tail: Mutex::new(Tail { bytes: VecDeque::new() }),
        };
        Output { stdout: log(Stream::Stdout), stderr: log(Stream::Stderr) }
    }

    /// Sends what comes out of both pipes until they close, or, since a process may have given them to others, until they hold nothing more once
    /// the sender of `running` is gone. The process is never held up: what is over the limit is read and dropped.
    pub async fn forward(&self, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>, running: &watch::Receiver<()>) {
        let (stdout, stderr) = (self.stdout.copy(stdout, running.clone()), self.stderr.copy(stderr, running.clone()));
        futures_util::future::join(stdout, stderr).await;
    }

    /// Shows the end of what was dropped.
    pub fn show_dropped(&self) {
        for log in [&self.stdout, &self.stderr] {
            let tail = std::mem::take(&mut log.tail().bytes);
            if !tail.is_empty() {
                log.send(tail.into());
            }
        }
    }

    /// A line of rbuild's own.
    pub fn note(&self, text: String) {
        self.stderr.send(text.into_bytes());
    }
}

struct Log {
    stream: Stream,
    vertex: String,
    events: EventSink,
    /// What was dropped last.
    tail: Mutex<Tail>,
}

struct Tail {
    bytes: VecDeque<u8>,
}

impl Tail {
    fn keep(&mut self, data: &[u8]) {
        let data = &data[data.len().saturating_sub(MAX_TAIL)..];
        let excess = (self.bytes.len() + data.len()).saturating_sub(MAX_TAIL);
        self.bytes.drain(..excess);
        self.bytes.extend(data);
    }
}

impl Log {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn copy(&self, pipe: Option<OwnedFd>, mut running: watch::Receiver<()>) {
        let Some(mut pipe) = pipe.and_then(|pipe| Receiver::from_owned_fd(pipe).ok()) else { return };
        let mut limit = Limit::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = tokio::select! {
                biased;
                Err(_) = running.changed() => break,
                read = pipe.read(&mut buffer) => read.unwrap_or(0),
            };
            if read == 0 {
                return;
            }
            self.take(&buffer[..read], &mut limit);
        }
        // No more than a pipe holds: whoever has it now may go on writing.
        let mut rest = fcntl_getpipe_size(&pipe).unwrap_or(0);
        while let Ok(read) = rustix::io::read(&pipe, &mut buffer)
            && read > 0
            && rest > 0
        {
            self.take(&buffer[..read], &mut limit);
            rest = rest.saturating_sub(read);
        }
    }

    fn take(&self, data: &[u8], limit: &mut Limit) {
        match limit.check(data.len() as u64, limit.started.elapsed()) {
            Verdict::Pass => {
                // What was dropped before it is not the end any more.
                self.tail().bytes.clear();
                self.send(data.to_vec());
            }
            Verdict::Clip(notice) => {
                self.send(notice);
                self.tail().keep(data);
            }
            Verdict::Drop => self.tail().keep(data),
        }
    }

    fn send(&self, data: Vec<u8>) {
        self.events.send(Event::Log(LogEvent {
            vertex: self.vertex.clone(),
            stream: self.stream,
            data,
            timestamp: SystemTime::now(),
        }));
    }
}

struct Limit {
    started: Instant,
    sent: u64,
    is_clipping: bool,
    max_size: Option<u64>,
    max_speed: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Pass,
    Clip(Vec<u8>),
    Drop,
}

impl Limit {
    fn new() -> Self {
        // -1 is no limit.
        let variable =
            |name: &str, default: u64| match std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok()) {
                Some(number) => u64::try_from(number).ok(),
                None => Some(default),
            };
        Limit {
            started: Instant::now(),
            sent: 0,
            is_clipping: false,
            max_size: variable("BUILDKIT_STEP_LOG_MAX_SIZE", MAX_SIZE),
            max_speed: variable("BUILDKIT_STEP_LOG_MAX_SPEED", MAX_SPEED),
        }
    }

    fn check(&mut self, length: u64, elapsed: Duration) -> Verdict {
        let by_speed = self.max_speed.map(|speed| (speed * (elapsed.as_secs() + 1), "200KiB/s"));
        let by_size = self.max_size.map(|size| (size, "2MiB"));
        let crossed = [by_size, by_speed].into_iter().flatten().find(|(most, _)| self.sent + length > *most);
        if let (Some(crossed), Some(by_size)) = (crossed, by_size)
            && crossed == by_size
        {
            // For good: something shorter, which would still fit, comes no more either.
            self.sent = by_size.0;
        }
        match crossed {
            None => {
                self.sent += length;
                self.is_clipping = false;
                Verdict::Pass
            }
            Some(_) if self.is_clipping => Verdict::Drop,
            Some((_, name)) => {
                self.is_clipping = true;
                Verdict::Clip(format!("\n[output clipped, log limit {name} reached]\n").into_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_dropped_is_kept() {
        let mut tail = Tail { bytes: VecDeque::new() };
        tail.keep(&[b'a'; MAX_TAIL]);
        tail.keep(b"end");
        assert_eq!(tail.bytes.len(), MAX_TAIL);
        assert!(tail.bytes.iter().rev().take(4).eq(b"dnea".iter()));
        tail.keep(&[b'b'; 2 * MAX_TAIL]);
        assert!(tail.bytes.len() == MAX_TAIL && tail.bytes.iter().all(|byte| *byte == b'b'));
    }

    #[test]
    fn output_beyond_the_limit_is_clipped_once() {
        let mut limit = Limit { max_size: Some(300 << 10), max_speed: Some(200 << 10), ..Limit::new() };
        let second = Duration::from_secs(1);
        assert_eq!(limit.check(150 << 10, Duration::ZERO), Verdict::Pass);
        assert!(
            matches!(limit.check(100 << 10, Duration::ZERO), Verdict::Clip(text) if text.ends_with(b"200KiB/s reached]\n"))
        );
        assert_eq!(limit.check(100 << 10, Duration::ZERO), Verdict::Drop);
        assert_eq!(limit.check(100 << 10, second), Verdict::Pass, "speed: until it fits again");
        assert!(
            matches!(limit.check(100 << 10, 10 * second), Verdict::Clip(text) if text.ends_with(b"2MiB reached]\n"))
        );
        assert_eq!(limit.check(100 << 10, 100 * second), Verdict::Drop, "size: for good");
        assert_eq!(limit.check(1, 100 * second), Verdict::Drop, "however short");
    }
}
