//! A syntax tree as text that parses to the same tree.
//!
//! An instruction becomes one line: words stay as they were written, flag values get the quotes back that reading has taken from
//! them, and arrays are JSON. What could be read as something else gets its guard: `--` before arguments that look like flags, JSON
//! where blanks would split words, a form feed behind a last escape that would continue the line.
//!
//! One thing cannot always be printed, because the tree does not hold it: quotes, as of flags, that change which here-documents a line has.
//! Markers are looked for in the whole line with rules of their own (D5.9), so `--device=" <<"EOF"` is a flag and a marker at once.

use crate::ast::{
    ArgDeclaration, CommandLine, Dockerfile, From, Healthcheck, Instruction, InstructionKind, Pairs, Run, RunNetwork,
    RunSecurity, Transfer, TransferSource, Word,
};
use crate::heredoc::{self, Heredoc, Marker};
use crate::json::{self, JsonArray};
use crate::line;
use std::collections::HashMap;

/// Lines longer than this are continued, for there is a longest line (D1.6).
const FOLD: usize = 60_000;
/// A blank that does not make the escape before it a continuation.
pub(crate) const FORM_FEED: char = '\u{c}';

/// Prints a tree that [`crate::parse()`] gave.
pub fn print(file: &Dockerfile) -> String {
    let mut printer = Printer { escape: file.directives.escape, out: String::new() };
    printer.file(file);
    printer.out
}

struct Printer {
    escape: char,
    out: String,
}

impl Printer {
    fn file(&mut self, file: &Dockerfile) {
        if let Some(syntax) = &file.directives.syntax {
            self.out.push_str(&format!("# syntax={}\n", syntax.value));
        }
        if self.escape != '\\' {
            self.out.push_str(&format!("# escape={}\n", self.escape));
        }
        if let Some(check) = &file.directives.check {
            self.out.push_str(&format!("# check={}\n", check.value));
        }
        // A comment that looks like a directive is none behind an empty line.
        self.out.push('\n');
        for instruction in &file.global_args {
            self.instruction(instruction);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            if index > 0 || !file.global_args.is_empty() {
                self.out.push('\n');
            }
            self.from(&stage.from);
            for instruction in &stage.instructions {
                self.instruction(instruction);
            }
        }
    }

    fn comments(&mut self, comments: &[String]) {
        // An empty comment takes back what stands above (D3.6), so none can be left over.
        for comment in comments {
            self.out.push_str(&format!("# {comment}\n"));
        }
    }

    fn from(&mut self, from: &From) {
        self.comments(&from.comments);
        let flags: Vec<String> = from.platform.iter().map(|platform| self.flag("platform", platform)).collect();
        let name = from.name.as_ref().map(|name| format!(" AS {}", name.value)).unwrap_or_default();
        self.line("FROM", &flags, &format!("{}{name}", from.image.value));
    }

    fn instruction(&mut self, instruction: &Instruction) {
        self.comments(&instruction.comments);
        let name = instruction.kind.name();
        match &instruction.kind {
            InstructionKind::Add(transfer) | InstructionKind::Copy(transfer) => self.transfer(name, transfer),
            InstructionKind::Arg(declarations) => self.line(name, &[], &joined(declarations, argument)),
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => {
                self.line(name, &[], &command_text(command));
            }
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => self.line(name, &[], &pairs_text(pairs)),
            InstructionKind::Expose(ports) => {
                self.line(name, &[], &joined(&untrimmed_order(ports), |port| port.value.clone()));
            }
            InstructionKind::Healthcheck(check) => self.healthcheck(check),
            InstructionKind::Maintainer(text) => self.line(name, &[], text),
            InstructionKind::Onbuild(onbuild) => {
                // Bodies of here-documents are part of the trigger (D5.27).
                let (first, bodies) = onbuild.trigger.split_once('\n').unwrap_or((&onbuild.trigger, ""));
                // Only at the end of a file can it end in an escape, and it keeps what stands behind it.
                self.plain_line(&format!("{name} {first}"), self.escape);
                if !bodies.is_empty() {
                    self.out.push_str(bodies);
                    self.out.push('\n');
                }
            }
            InstructionKind::Run(run) => self.run(run),
            InstructionKind::Shell(words) => self.line(name, &[], &json_text(words)),
            InstructionKind::Stopsignal(word) | InstructionKind::User(word) | InstructionKind::Workdir(word) => {
                self.line(name, &[], &word.value);
            }
            InstructionKind::Volume(paths) => {
                let plain = joined(paths, |path| path.value.clone());
                let is_plain = paths.iter().all(|path| is_one_field(path)) && json::array(&plain) == JsonArray::No;
                let paths: Vec<String> = paths.iter().map(|path| path.value.clone()).collect();
                self.line(name, &[], &if is_plain { plain } else { json_text(&paths) });
            }
        }
    }

    fn transfer(&mut self, name: &str, transfer: &Transfer) {
        let mut flags = Vec::new();
        let named = [("from", &transfer.from), ("chown", &transfer.chown), ("chmod", &transfer.chmod)];
        for (flag, value) in named.into_iter().chain([("checksum", &transfer.checksum)]) {
            flags.extend(value.iter().map(|value| self.flag(flag, value)));
        }
        for (flag, is_set) in [("link", transfer.link), ("parents", transfer.parents)] {
            flags.extend(is_set.then(|| format!("--{flag}")));
        }
        for (flag, value) in [("keep-git-dir", transfer.keep_git_dir), ("unpack", transfer.unpack)] {
            flags.extend(value.map(|value| format!("--{flag}={value}")));
        }
        flags.extend(transfer.exclude.iter().map(|pattern| self.flag("exclude", pattern)));

        let heredocs: Vec<&Heredoc> = transfer
            .sources
            .iter()
            .filter_map(|source| match source {
                TransferSource::Heredoc(heredoc) => Some(heredoc),
                TransferSource::Path(_) => None,
            })
            .collect();
        let source = |source: &TransferSource| match source {
            TransferSource::Path(word) => word.value.clone(),
            TransferSource::Heredoc(heredoc) => marker(heredoc),
        };
        let words: Vec<String> =
            transfer.sources.iter().map(source).chain([transfer.destination.value.clone()]).collect();
        let plain = words.join(" ");
        let plain_line = instruction_line(name, &flags, &plain);
        // Only words that were written as JSON can hold blanks, or be markers without a body.
        let is_marker = |word: &String| matches!(Marker::parse(word), Ok(Some(_)));
        let is_plain = !heredocs.is_empty()
            || (words.iter().all(|word| is_one_field(word) && !is_marker(word))
                && json::array(&plain) == JsonArray::No
                && heredoc::markers(&plain_line).is_ok_and(|markers| markers.is_empty()));
        let line = if is_plain { plain_line } else { instruction_line(name, &flags, &json_text(&words)) };
        self.plain_line(&line, FORM_FEED);
        if is_plain {
            self.bodies(&line, &heredocs);
        }
    }

    /// The bodies that the line's markers announce.
    fn bodies(&mut self, line: &str, heredocs: &[&Heredoc]) {
        let bodies: HashMap<&str, &str> = heredocs.iter().map(|heredoc| (&*heredoc.name, &*heredoc.body)).collect();
        for marker in heredoc::markers(line).unwrap_or_default() {
            self.out.push_str(bodies.get(&*marker.name).copied().unwrap_or_default());
            self.out.push_str(&marker.name);
            self.out.push('\n');
        }
    }

    fn healthcheck(&mut self, check: &Healthcheck) {
        let mut flags = Vec::new();
        let intervals = [
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("start-period", check.start_period),
            ("start-interval", check.start_interval),
        ];
        for (flag, nanoseconds) in intervals.into_iter().filter(|(_, nanoseconds)| *nanoseconds != 0) {
            flags.push(format!("--{flag}={}", duration(nanoseconds)));
        }
        if check.retries != 0 {
            flags.push(format!("--retries={}", check.retries));
        }
        let text = match check.test.split_first() {
            Some((kind, words)) if kind == "CMD" => format!("CMD {}", json_text(words)),
            Some((kind, [text])) if kind == "CMD-SHELL" => format!("CMD {text}"),
            _ => "NONE".to_owned(),
        };
        self.line("HEALTHCHECK", &flags, &text);
    }

    fn run(&mut self, run: &Run) {
        let mut flags: Vec<String> = run.mounts.iter().map(|mount| self.flag("mount", mount)).collect();
        flags.extend(run.network.map(|network| {
            let mode = match network {
                RunNetwork::Default => "default",
                RunNetwork::None => "none",
                RunNetwork::Host => "host",
            };
            format!("--network={mode}")
        }));
        flags.extend(run.security.map(|security| {
            let mode = match security {
                RunSecurity::Sandbox => "sandbox",
                RunSecurity::Insecure => "insecure",
            };
            format!("--security={mode}")
        }));
        flags.extend(run.devices.iter().map(|device| self.flag("device", device)));
        self.line("RUN", &flags, &command_text(&run.command));
        for heredoc in &run.heredocs {
            self.out.push_str(&heredoc.body);
            self.out.push_str(&heredoc.name);
            self.out.push('\n');
        }
    }

    /// A flag with its value in quotes where it needs them (D7.3).
    fn flag(&self, name: &str, value: &Word) -> String {
        let needs_quotes = value.chars().any(|c| c.is_whitespace() || c == '\'' || c == '"' || c == self.escape);
        if !needs_quotes {
            return format!("--{name}={}", value.value);
        }
        let mut quoted = String::new();
        for c in value.chars() {
            if c == '"' || c == self.escape {
                quoted.push(self.escape);
            }
            quoted.push(c);
        }
        format!("--{name}=\"{quoted}\"")
    }

    fn line(&mut self, name: &str, flags: &[String], arguments: &str) {
        let mut line = instruction_line(name, flags, arguments);
        // A last word that ends in an escaped blank: the lone escape behind it is dropped (D9.3).
        if arguments.ends_with(char::is_whitespace) {
            line.push(self.escape);
        }
        self.plain_line(&line, FORM_FEED);
    }

    /// A logical line on as few physical ones as it may have. `guard` stands behind a last escape.
    fn plain_line(&mut self, mut line: &str, guard: char) {
        while line.len() > FOLD {
            let Some(at) = self.fold_point(line) else { break };
            self.out.push_str(&line[..at]);
            self.out.push(self.escape);
            self.out.push('\n');
            line = &line[at..];
        }
        self.out.push_str(line);
        self.out.extend(needs_guard(line, self.escape).then_some(guard));
        self.out.push('\n');
    }

    /// Where a line can be continued so that it reads the same: not behind an escape, nor before what would be taken for a blank line
    /// or a comment.
    fn fold_point(&self, line: &str) -> Option<usize> {
        let fits = |&at: &usize| {
            let (before, after) = line.split_at(at);
            !before.ends_with(self.escape)
                && !before.ends_with(char::is_whitespace)
                && after.starts_with(|c: char| !c.is_whitespace() && c != '#')
        };
        (1..=FOLD).rev().filter(|at| line.is_char_boundary(*at)).find(fits)
    }
}

fn instruction_line(name: &str, flags: &[String], arguments: &str) -> String {
    let mut line = name.to_owned();
    for flag in flags {
        line.push(' ');
        line.push_str(flag);
    }
    if arguments.starts_with("--") {
        line.push_str(" --");
    }
    if !arguments.is_empty() {
        line.push(' ');
        line.push_str(arguments);
    }
    line
}

/// Whether a line's end would be read as something else: a continuation, or part of the line end.
pub(crate) fn needs_guard(line: &str, escape: char) -> bool {
    line::continued(line, escape).is_some() || line.ends_with('\r')
}

fn joined<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn argument(declaration: &ArgDeclaration) -> String {
    match &declaration.default {
        Some(default) => format!("{}={}", declaration.name.value, default.value),
        None => declaration.name.value.clone(),
    }
}

fn pairs_text(pairs: &Pairs) -> String {
    // Two blanks, because an escape at the end of the name takes the first.
    let separator = if pairs.is_legacy { "  " } else { "=" };
    joined(&pairs.pairs, |(name, value)| format!("{}{separator}{}", name.value, value.value))
}

fn command_text(command: &CommandLine) -> String {
    match command {
        CommandLine::Exec(words) => json_text(words),
        CommandLine::Shell(text) => text.clone(),
    }
}

/// Ports of EXPOSE, which reading has sorted (D15.16), in an order in which reading trims none: fields may begin and end with white
/// space that does not separate fields.
fn untrimmed_order(ports: &[Word]) -> Vec<&Word> {
    let is_white = char::is_whitespace;
    let (mut odd, mut order): (Vec<&Word>, Vec<&Word>) =
        ports.iter().partition(|port| port.starts_with(is_white) || port.ends_with(is_white));
    odd.sort_by_key(|port| port.starts_with(is_white));
    let first = usize::from(odd.first().is_some_and(|port| port.starts_with(is_white))).min(order.len());
    order.splice(first..first, odd);
    order
}

/// `["a", "b"]`.
pub(crate) fn json_text(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| serde_json::Value::from(word.as_str()).to_string()).collect();
    format!("[{}]", words.join(", "))
}

/// Whether a word stays one where words are split at blanks.
fn is_one_field(word: &str) -> bool {
    !word.is_empty() && !word.contains(char::is_whitespace)
}

/// A here-document's marker: quoted where its body does not expand (D5.6, D5.7). Always with `\`, whatever the file's escape.
fn marker(heredoc: &Heredoc) -> String {
    let dash = if heredoc.strip_tabs { "-" } else { "" };
    let escaped = |special: &[char]| {
        let mut name = String::new();
        for c in heredoc.name.chars() {
            if special.contains(&c) {
                name.push('\\');
            }
            name.push(c);
        }
        name
    };
    match heredoc.expand {
        true => {
            // A dash there would be the marker's own.
            let guard = if dash.is_empty() && heredoc.name.starts_with('-') { "\\" } else { "" };
            format!("<<{dash}{guard}{}", escaped(&['\'', '"', '\\', ' ']))
        }
        false => format!("<<{dash}\"{}\"", escaped(&['"', '\\'])),
    }
}

/// In the largest unit that has no fraction.
fn duration(nanoseconds: i64) -> String {
    let units =
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    match units.into_iter().find(|(_, length)| nanoseconds % length == 0) {
        Some((unit, length)) => format!("{}{unit}", nanoseconds / length),
        None => format!("{nanoseconds}ns"),
    }
}
