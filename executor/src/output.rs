//! A step's output as events, within limits (X1.103 to X1.106).

use solver::event::{Event, EventSink, LogEvent, Stream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

const MAX_SIZE: u64 = 2 << 20;
/// Bytes in each second since the step began.
const MAX_SPEED: u64 = 200 << 10;

/// Sends what comes out of both pipes until they close. The process is never held up: what is over the limit is read and dropped.
pub(crate) async fn forward(stdout: Option<OwnedFd>, stderr: Option<OwnedFd>, vertex: &str, events: &EventSink) {
    let one = |pipe, stream| copy(pipe, Log { stream, vertex: vertex.to_owned(), events: events.clone() });
    futures_util::future::join(one(stdout, Stream::Stdout), one(stderr, Stream::Stderr)).await;
}

/// A line of rbuild's own in a step's output.
pub(crate) fn note(vertex: &str, text: String, events: &EventSink) {
    Log { stream: Stream::Stderr, vertex: vertex.to_owned(), events: events.clone() }.send(text.into_bytes());
}

struct Log {
    stream: Stream,
    vertex: String,
    events: EventSink,
}

impl Log {
    fn send(&self, data: Vec<u8>) {
        self.events.send(Event::Log(LogEvent {
            vertex: self.vertex.clone(),
            stream: self.stream,
            data,
            timestamp: SystemTime::now(),
        }));
    }
}

async fn copy(pipe: Option<OwnedFd>, log: Log) {
    let Some(mut pipe) = pipe.and_then(|pipe| Receiver::from_owned_fd(pipe).ok()) else { return };
    let mut limit = Limit::new();
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(length) = pipe.read(&mut buffer).await
        && length > 0
    {
        match limit.check(length as u64, limit.started.elapsed()) {
            Verdict::Pass => log.send(buffer[..length].to_vec()),
            Verdict::Clip(notice) => log.send(notice),
            Verdict::Drop => {}
        }
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
    }
}
