//! The log: what the program wrote, in the format of Kubernetes' container runtime interface.
//!
//! ```text
//! 2026-01-02T03:04:05.678901234Z stdout F a whole line
//! 2026-01-02T03:04:05.678901234Z stderr P the beginning of one, and
//! 2026-01-02T03:04:05.678901234Z stderr F  the rest
//! ```
//!
//! What follows the tag is the program's own bytes, whichever they are, without the newline that ended them: `F` says that there was one, `P` that
//! there was none yet. So nothing is lost, and nothing is held back until a line is complete.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes a log from several threads.
pub struct LogWriter {
    file: Mutex<File>,
}

impl LogWriter {
    /// Goes on with a log that is there.
    pub fn open(path: &Path) -> io::Result<LogWriter> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(LogWriter { file: Mutex::new(file) })
    }

    pub fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let records = records(OffsetDateTime::now_utc(), stream, bytes);
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&records)
    }
}

fn records(time: OffsetDateTime, stream: Stream, bytes: &[u8]) -> Vec<u8> {
    let time = time.format(&Rfc3339).unwrap_or_default();
    let mut records = Vec::with_capacity(bytes.len() + 64);
    for part in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (tag, content) = part.strip_suffix(b"\n").map_or(('P', part), |line| ('F', line));
        let _ = write!(records, "{time} {} {tag} ", stream.name());
        records.extend_from_slice(content);
        records.push(b'\n');
    }
    records
}

/// One record of a log.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    time: &'a str,
    stream: Stream,
    is_whole: bool,
    content: &'a [u8],
}

/// Reads a record without its newline. What is none, such as one that was cut off, is passed over.
fn parse(record: &[u8]) -> Option<Entry<'_>> {
    let mut fields = record.splitn(4, |byte| *byte == b' ');
    let time = str::from_utf8(fields.next()?).ok()?;
    let stream = match fields.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let is_whole = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { time, stream, is_whole, content: fields.next()? })
}

/// Reads a log that may still grow.
pub struct LogReader {
    file: BufReader<File>,
    /// The beginning of a record whose end was not there yet.
    rest: Vec<u8>,
    timestamps: bool,
    /// Whether each stream is at the beginning of a line.
    fresh: [bool; 2],
}

impl LogReader {
    /// At the beginning, or before the last `tail` lines.
    pub fn open(path: &Path, tail: Option<usize>, timestamps: bool) -> io::Result<LogReader> {
        let mut file = BufReader::new(File::open(path)?);
        let start = tail.map_or(Ok(0), |tail| start_of_last(&mut file, tail))?;
        file.seek(SeekFrom::Start(start))?;
        Ok(LogReader { file, rest: Vec::new(), timestamps, fresh: [true; 2] })
    }

    /// Writes all that is there by now, each stream to its place.
    pub fn copy(&mut self, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
        loop {
            self.file.read_until(b'\n', &mut self.rest)?;
            if self.rest.pop_if(|byte| *byte == b'\n').is_none() {
                break;
            }
            if let Some(entry) = parse(&self.rest) {
                let to: &mut dyn Write = if entry.stream == Stream::Stdout { stdout } else { stderr };
                let fresh = &mut self.fresh[entry.stream as usize];
                if self.timestamps && std::mem::replace(fresh, entry.is_whole) {
                    write!(to, "{} ", entry.time)?;
                }
                to.write_all(entry.content)?;
                if entry.is_whole {
                    to.write_all(b"\n")?;
                }
            }
            self.rest.clear();
        }
        stdout.flush()?;
        stderr.flush()
    }
}

/// Where the last `count` lines begin, of both streams together.
fn start_of_last(log: &mut impl BufRead, count: usize) -> io::Result<u64> {
    let mut starts = VecDeque::new();
    let (mut at, mut fresh, mut record) = (0, [true; 2], Vec::new());
    loop {
        record.clear();
        let length = log.read_until(b'\n', &mut record)?;
        if record.pop_if(|byte| *byte == b'\n').is_none() {
            break;
        }
        if let Some(entry) = parse(&record)
            && std::mem::replace(&mut fresh[entry.stream as usize], entry.is_whole)
        {
            starts.push_back(at);
            if starts.len() > count {
                starts.pop_front();
            }
        }
        at += length as u64;
    }
    Ok(starts.front().copied().unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path, tail: Option<usize>, timestamps: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        LogReader::open(path, tail, timestamps).unwrap().copy(&mut out, &mut err).unwrap();
        (out, err)
    }

    #[test]
    fn any_bytes_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogWriter::open(&path).unwrap();
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for chunk in all.chunks(7) {
            log.write(Stream::Stdout, chunk).unwrap();
        }
        log.write(Stream::Stderr, b"\n\n no newline ").unwrap();
        log.write(Stream::Stderr, b"").unwrap();
        assert_eq!(read(&path, None, false), (all, b"\n\n no newline ".to_vec()));
    }

    #[test]
    fn records_are_those_of_the_format() {
        let bytes = records(OffsetDateTime::UNIX_EPOCH, Stream::Stderr, b"one\ntwo");
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "1970-01-01T00:00:00Z stderr F one\n1970-01-01T00:00:00Z stderr P two\n");
        assert_eq!(parse(b"nonsense"), None);
        assert_eq!(parse(b"t stdout F ").unwrap().content, b"");
    }

    #[test]
    fn the_last_lines_are_whole_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = LogWriter::open(&path).unwrap();
        for text in ["one\n", "tw", "o\n", "three\nfo", "ur"] {
            log.write(Stream::Stdout, text.as_bytes()).unwrap();
        }
        let tail = |count| String::from_utf8(read(&path, Some(count), false).0).unwrap();
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "four");
        assert_eq!(tail(3), "two\nthree\nfour");
        assert_eq!(tail(9), "one\ntwo\nthree\nfour");
        let stamped = String::from_utf8(read(&path, Some(2), true).0).unwrap();
        assert_eq!(stamped.matches('Z').count(), 2, "{stamped}");
        assert!(stamped.ends_with("Z four"), "{stamped}");
    }

    #[test]
    fn a_growing_log_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut reader = LogReader::open(&path, None, false).unwrap();
        let mut out = Vec::new();
        for part in ["t stdout F on", "e\nt std", "out P tw", "o\n"] {
            file.write_all(part.as_bytes()).unwrap();
            reader.copy(&mut out, &mut io::sink()).unwrap();
        }
        assert_eq!(out, b"one\ntwo");
    }
}
