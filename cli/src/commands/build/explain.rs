//! `--explain`: why each step ran that did.
//!
//! The text goes to standard error after everything else that the build shows, in every mode of progress. The JSON document has the shape of [`Document`],
//! whose reasons are those of [`Reason`].

use crate::error::{CliError, Result};
use crate::stdout;
use serde::Serialize;
use solver::record::{BuildRecord, Outcome};
use solver::trace::{Change, FileChange, FileChanges, Reason, State, TracedVertex, VariableKind};
use std::io::{self, Write};
use std::path::PathBuf;
use time::OffsetDateTime;

/// What the flag asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    is_json: bool,
    destination: Option<PathBuf>,
}

/// Names of steps are cut off here.
const NAME: usize = 120;

impl Explain {
    pub fn parse(text: &str) -> Result<Explain> {
        let invalid = || {
            CliError::Usage(format!("invalid --explain {text:?}: expected text or json, with or without ,dest=FILE"))
        };
        let mut explain = Explain { is_json: false, destination: None };
        for field in text.split(',') {
            match field.split_once('=') {
                None if field == "text" => explain.is_json = false,
                None if field == "json" => explain.is_json = true,
                Some(("dest", file)) if !file.is_empty() => explain.destination = Some(file.into()),
                _ => return Err(invalid()),
            }
        }
        Ok(explain)
    }

    /// Whether it writes to standard output.
    pub fn is_stdout(&self) -> bool {
        self.is_json && self.destination.is_none()
    }

    /// `last` is the build before.
    pub fn tell(&self, build: &BuildRecord, last: Option<&BuildRecord>) -> Result<()> {
        let document = Document::new(build, last);
        let mut text = Vec::new();
        match self.is_json {
            true => serde_json::to_writer_pretty(&mut text, &document)?,
            false => document.write(&mut text)?,
        }
        match &self.destination {
            Some(path) => {
                text.push(b'\n');
                std::fs::write(path, text).map_err(|error| {
                    CliError::Failed(format!("cannot write the explanation to {}: {error}", path.display()))
                })
            }
            None if self.is_json => stdout::line(String::from_utf8_lossy(&text)),
            None => {
                // Nobody may be there to read it.
                let _ = io::stderr().lock().write_all(&text);
                Ok(())
            }
        }
    }
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    outcome: Outcome,
    /// How many steps were taken from the cache.
    cached: usize,
    /// How many ran, with or without success, and how many the build did not come to.
    ran: usize,
    not_reached: usize,
    /// Those that ran, in the order of the Dockerfile.
    steps: Vec<Step<'a>>,
    /// Where nothing ran: the build before, in which something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last<'a>>,
}

#[derive(Serialize)]
struct Last<'a> {
    #[serde(with = "time::serde::rfc3339")]
    started: OffsetDateTime,
    outcome: Outcome,
    steps: Vec<Step<'a>>,
}

#[derive(Serialize)]
struct Step<'a> {
    digest: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    /// In the Dockerfile, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    state: State,
    /// How long it took, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    reasons: &'a [Reason],
}

impl<'a> Document<'a> {
    fn new(build: &'a BuildRecord, last: Option<&'a BuildRecord>) -> Document<'a> {
        let count = |is_it: &dyn Fn(&TracedVertex) -> bool| {
            build.trace.vertices.iter().filter(|vertex| vertex.is_step() && is_it(vertex)).count()
        };
        let steps = steps(build);
        let last = last.filter(|_| steps.is_empty()).map(|last| Last {
            started: last.started,
            outcome: last.outcome,
            steps: self::steps(last),
        });
        Document {
            outcome: build.outcome,
            cached: count(&|vertex| vertex.state == State::Cached),
            ran: steps.len(),
            not_reached: count(&|vertex| vertex.state == State::NotReached),
            steps,
            last: last.filter(|last| !last.steps.is_empty()),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out)?;
        let cached = match (self.cached, self.ran) {
            (0, _) => "none was cached".to_owned(),
            (1, _) => "1 was cached".to_owned(),
            (cached, _) => format!("{cached} were cached"),
        };
        if self.ran > 0 {
            let not_reached = match self.not_reached {
                0 => String::new(),
                count => format!(", {count} not reached"),
            };
            writeln!(out, "why {} ran ({cached}{not_reached}):", steps_count(self.ran))?;
            return write_steps(out, &self.steps);
        }
        match (self.cached, self.not_reached) {
            (0, 0) => writeln!(out, "no step ran: there is none")?,
            (_, 0) => writeln!(out, "no step ran: {cached}")?,
            (_, not_reached) => writeln!(out, "no step ran: {cached}, {not_reached} not reached")?,
        }
        let Some(last) = &self.last else { return Ok(()) };
        let ago = (OffsetDateTime::now_utc() - last.started).max(time::Duration::ZERO);
        writeln!(out, "why {} ran in the last build, {} ago:", steps_count(last.steps.len()), rough(ago))?;
        write_steps(out, &last.steps)
    }
}

fn write_steps(out: &mut impl Write, steps: &[Step<'_>]) -> io::Result<()> {
    // What holds for all of them need not be said of each.
    if let [first, others @ ..] = steps
        && let [reason @ (Reason::FirstBuild | Reason::Forced { .. })] = first.reasons
        && !others.is_empty()
        && others.iter().all(|step| (step.reasons, step.state) == (first.reasons, State::Ran))
    {
        writeln!(out, "  all of them")?;
        return write_reason(out, reason);
    }
    steps.iter().try_for_each(|step| step.write(out))
}

fn steps(build: &BuildRecord) -> Vec<Step<'_>> {
    let ran = build.trace.vertices.iter().filter(|vertex| vertex.has_run());
    let mut steps: Vec<_> = ran
        .map(|vertex| Step {
            digest: &vertex.digest,
            name: &vertex.name,
            stage: vertex.instruction.as_ref().map(|instruction| instruction.stage.as_str()),
            line: vertex.instruction.as_ref().map(|instruction| instruction.line),
            state: vertex.state,
            seconds: vertex.started.zip(vertex.completed).map(|(from, to)| (to - from).as_seconds_f64()),
            reasons: &vertex.reasons,
        })
        .collect();
    steps.sort_by_key(|step| step.line);
    steps
}

fn steps_count(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

fn rough(duration: time::Duration) -> String {
    match duration.whole_seconds() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

impl Step<'_> {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let state = match self.state {
            State::Failed => " (failed)",
            State::Cancelled => " (cancelled)",
            _ => "",
        };
        writeln!(out, "  {}{state}", printable(self.name, NAME))?;
        self.reasons.iter().try_for_each(|reason| write_reason(out, reason))
    }
}

fn write_reason(out: &mut impl Write, reason: &Reason) -> io::Result<()> {
    let pair = |out: &mut dyn Write, old: &str, new: &str| {
        for (sign, text) in [('-', old), ('+', new)] {
            for line in text.lines() {
                writeln!(out, "      {sign} {}", printable(line, usize::MAX))?;
            }
        }
        Ok(())
    };
    match reason {
        Reason::FirstBuild => writeln!(out, "    first build: no earlier one of this Dockerfile is known"),
        Reason::NewStep => writeln!(out, "    new step"),
        Reason::TextChanged { words } => {
            writeln!(out, "    its text changed:")?;
            words.iter().try_for_each(|change| pair(out, &change.old, &change.new))
        }
        Reason::VariablesChanged { variables } => {
            let texts: Vec<_> = variables
                .iter()
                .map(|variable| {
                    let kind = match variable.kind {
                        VariableKind::Arg => "ARG",
                        VariableKind::Env => "ENV",
                    };
                    format!("{kind} {} {}", printable(&variable.name, NAME), past(variable.change))
                })
                .collect();
            writeln!(out, "    {}", texts.join(", "))
        }
        Reason::SettingsChanged { settings } => writeln!(out, "    changed: {}", settings.join(", ")),
        Reason::ImageChanged { old, new } => {
            writeln!(out, "    the base image changed:")?;
            pair(out, old, new)
        }
        Reason::FilesChanged { from, changes: None } => writeln!(out, "    files of {from} changed"),
        Reason::FilesChanged { from, changes: Some(changes) } => {
            writeln!(out, "    files of {from} changed:")?;
            write_files(out, changes)
        }
        Reason::InputChanged { name, .. } => writeln!(out, "    input changed: {}", printable(name, NAME)),
        Reason::Forced { flag } => writeln!(out, "    forced: {flag}"),
        Reason::FailedBefore => writeln!(out, "    it failed last time"),
        Reason::UnfinishedBefore => writeln!(out, "    it was not finished last time"),
        Reason::Evicted => writeln!(out, "    its result is no longer in the store"),
        Reason::OtherVersion => writeln!(out, "    the last build was made by another version of rbuild"),
    }
}

fn write_files(out: &mut impl Write, changes: &FileChanges) -> io::Result<()> {
    for FileChange { path, change } in &changes.files {
        let path = printable(path, usize::MAX);
        match change {
            Change::Added => writeln!(out, "      + {path}")?,
            Change::Removed => writeln!(out, "      - {path}")?,
            Change::Changed => writeln!(out, "      ~ {path}")?,
            Change::Mode => writeln!(out, "      ~ {path} (mode or owner)")?,
        }
    }
    match changes.total.saturating_sub(changes.files.len()) {
        0 => Ok(()),
        more => writeln!(out, "      and {more} more"),
    }
}

fn past(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed | Change::Mode => "changed",
    }
}

/// Names of files and texts of instructions must not steer a terminal.
fn printable(text: &str, most: usize) -> String {
    let mut shown: String =
        text.chars().take(most).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_flag_asks_for() {
        let explain = |is_json, file: Option<&str>| Explain { is_json, destination: file.map(PathBuf::from) };
        for (text, expected) in [
            ("text", explain(false, None)),
            ("json", explain(true, None)),
            ("json,dest=a=b", explain(true, Some("a=b"))),
            ("dest=f", explain(false, Some("f"))),
        ] {
            assert_eq!(Explain::parse(text).ok(), Some(expected), "{text}");
        }
        for text in ["", "yaml", "json,dest=", "json,x=y"] {
            assert!(Explain::parse(text).is_err(), "{text}");
        }
    }
}
