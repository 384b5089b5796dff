//! Why steps ran: a trace beside those of earlier builds of the same.
//!
//! Each step that ran is compared with its *counterpart*: the vertex with the same definition in the last build, else the one that stands at the same
//! place. Places are found by aligning the instructions of the stages of the same name (or, for renamed ones, position): equal texts first, then those that share
//! the most words. Where the last build did not come as far as to know the counterpart's key, the one before it is asked.
//!
//! What decides a step's key is then compared part by part: its text, its variables, its other settings, and what each input contributed. If all of that is
//! the same, the result should have been there: somebody wanted the step to run all the same, or it failed, or its result is gone.

mod align;
mod words;

use crate::trace::{
    Change, FileChanges, Kind, Reason, State, Trace, TracedVertex, VariableChange, VariableKind, WordChange,
};
use align::Alignment;
use std::collections::BTreeSet;

/// How many earlier builds are asked about a step.
const MOST_EARLIER: usize = 5;
/// More names than that say nothing.
const MOST_VARIABLES: usize = 20;

/// What a build's trace does not know.
pub struct Explainer<'a> {
    /// `--no-cache`.
    pub no_cache: bool,
    /// What became of the files of an input between two of its contributions; `None` where either is not known any more.
    pub files: &'a dyn Fn(&str, &str) -> Option<FileChanges>,
}

/// What comparing with one build gave.
enum Found {
    /// There is no such step in it.
    Nothing,
    /// It did not come so far.
    Unfinished,
    Reasons(Vec<Reason>),
}

impl Explainer<'_> {
    /// Gives each step of `trace` that ran its reasons. `earlier` are the traces of earlier builds of the same, the latest first; as few of
    /// them are asked for as will do.
    pub fn explain(&self, trace: &mut Trace, earlier: impl IntoIterator<Item = Trace>) {
        let mut open: Vec<usize> = (0..trace.vertices.len()).filter(|at| trace.vertices[*at].has_run()).collect();
        let mut unfinished = BTreeSet::new();
        let mut is_first = true;
        for old in earlier.into_iter().take(MOST_EARLIER) {
            if open.is_empty() {
                break;
            }
            is_first = false;
            let alignment = Alignment::new(trace, &old);
            open.retain(|&at| match self.compare(trace, &old, &alignment, at) {
                Found::Nothing => true,
                Found::Unfinished => {
                    unfinished.insert(at);
                    true
                }
                Found::Reasons(reasons) => {
                    trace.vertices[at].reasons = reasons;
                    false
                }
            });
        }
        for at in open {
            let reason = match (is_first, unfinished.contains(&at)) {
                (true, _) => Reason::FirstBuild,
                (false, true) => Reason::UnfinishedBefore,
                (false, false) => Reason::NewStep,
            };
            let forced = self.forced(&trace.vertices[at]);
            trace.vertices[at].reasons = forced.into_iter().chain([reason]).collect();
        }
    }

    fn forced(&self, vertex: &TracedVertex) -> Option<Reason> {
        match (self.no_cache, vertex.ignores_cache()) {
            (true, _) => Some(Reason::Forced { flag: "--no-cache".into() }),
            (false, true) => Some(Reason::Forced { flag: "--no-cache-filter".into() }),
            (false, false) => None,
        }
    }

    fn compare(&self, trace: &Trace, old: &Trace, alignment: &Alignment, at: usize) -> Found {
        let Some(before) = alignment.counterpart(at).map(|at| &old.vertices[at]) else { return Found::Nothing };
        if before.key.is_none() {
            return Found::Unfinished;
        }
        let vertex = &trace.vertices[at];
        let mut reasons: Vec<_> = self.forced(vertex).into_iter().collect();
        let known = reasons.len();
        reasons.extend(definition_changes(vertex, before));
        // Without a key, the inputs were not all read.
        for (position, contribution) in vertex.contributions.iter().enumerate() {
            if let Some(earlier) = before.contributions.get(position)
                && contribution != earlier
                && let Some(input) = vertex.inputs.get(position).and_then(|digest| trace.vertex(digest))
            {
                let old_input = before.inputs.get(position).and_then(|digest| old.vertex(digest));
                reasons.push(match position {
                    0 => whole_change(trace, old, input, old_input),
                    _ => {
                        let changes = (self.files)(earlier, contribution);
                        Reason::FilesChanged { from: origin_of_files(input), changes }
                    }
                });
            }
        }
        if reasons.len() > known {
            return Found::Reasons(reasons);
        }
        if vertex.key.is_some() && known == 0 {
            reasons.push(match before.state {
                _ if before.key != vertex.key => Reason::OtherVersion,
                State::Failed => Reason::FailedBefore,
                State::Cancelled | State::NotReached => Reason::UnfinishedBefore,
                State::Cached | State::Ran => Reason::Evicted,
            });
        }
        Found::Reasons(reasons)
    }
}

/// What is new about the step itself.
fn definition_changes(vertex: &TracedVertex, before: &TracedVertex) -> Vec<Reason> {
    let (new, old) = (&vertex.definition, &before.definition);
    let text = |vertex: &TracedVertex| vertex.instruction.as_ref().map(|instruction| instruction.text.clone());
    let (new_text, old_text) = (text(vertex).unwrap_or_default(), text(before).unwrap_or_default());
    let mut parts: BTreeSet<&str> = new.parts.keys().chain(old.parts.keys()).map(String::as_str).collect();
    parts.retain(|part| new.parts.get(*part) != old.parts.get(*part));
    let mut reasons = Vec::new();
    // The parts that an instruction's text gives; the others come from elsewhere.
    let of_text: BTreeSet<&str> =
        parts.iter().copied().filter(|part| !matches!(*part, "cwd" | "user" | "platform" | "hostname")).collect();
    let words = words::changes(&old_text, &new_text);
    let text_changed = !of_text.is_empty() && !words.is_empty();
    if text_changed {
        reasons.push(Reason::TextChanged { words });
        parts.retain(|part| !of_text.contains(part));
    }
    let is_file = vertex.kind == Kind::File;
    let mut variables: BTreeSet<&str> = new.variables.keys().chain(old.variables.keys()).map(String::as_str).collect();
    variables.retain(|name| new.variables.get(*name) != old.variables.get(*name));
    if is_file {
        // Only those that the text uses can have changed the op.
        variables.retain(|name| !parts.is_empty() && uses(&new_text, name));
    }
    if !variables.is_empty() {
        let change = |name: &str| {
            let definition = if new.variables.contains_key(name) { new } else { old };
            let is_arg = definition.args.iter().any(|arg| arg == name);
            VariableChange {
                name: name.to_owned(),
                kind: if is_arg { VariableKind::Arg } else { VariableKind::Env },
                change: match (old.variables.contains_key(name), new.variables.contains_key(name)) {
                    (false, _) => Change::Added,
                    (_, false) => Change::Removed,
                    _ => Change::Changed,
                },
            }
        };
        // What a variable brought into arguments and mounts is told by its name.
        parts.retain(|part| !matches!(*part, "actions" | "mounts" | "args"));
        let variables = variables.into_iter().take(MOST_VARIABLES).map(change).collect();
        reasons.push(Reason::VariablesChanged { variables });
    }
    let mut settings: Vec<String> = parts.into_iter().map(setting).map(str::to_owned).collect();
    settings.dedup();
    if !settings.is_empty() {
        reasons.push(Reason::SettingsChanged { settings });
    }
    reasons
}

/// `$NAME` or `${NAME…`.
fn uses(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = &text[..at];
        let ends = !text[at + name.len()..].starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        ends && (before.ends_with('$') || before.ends_with("${"))
    })
}

/// What a part of an op that changed without its instruction comes from.
fn setting(part: &str) -> &str {
    match part {
        "actions" | "cwd" => "working directory",
        "args" => "shell",
        "extra_hosts" => "--add-host",
        "insecure" => "security",
        "secret_env" => "secrets",
        part => part,
    }
}

/// The file system that a step changes is another one.
fn whole_change(trace: &Trace, old: &Trace, input: &TracedVertex, old_input: Option<&TracedVertex>) -> Reason {
    if let (Kind::Image, Some(new), Some(old_input)) = (input.kind, &input.source, old_input)
        && let (Kind::Image, Some(old)) = (old_input.kind, &old_input.source)
    {
        return Reason::ImageChanged { old: old.clone(), new: new.clone() };
    }
    // A merge only puts together what others made.
    if let (Kind::Merge, Some(old_input)) = (input.kind, old_input) {
        for (position, digest) in input.inputs.iter().enumerate() {
            let inner = trace.vertex(digest);
            let old_inner = old_input.inputs.get(position).and_then(|digest| old.vertex(digest));
            if let (Some(inner), Some(old_inner)) = (inner, old_inner)
                && (inner.kind == Kind::Merge || inner.result != old_inner.result)
                && inner.digest != old_inner.digest
            {
                return whole_change(trace, old, inner, Some(old_inner));
            }
        }
    }
    Reason::InputChanged { step: input.digest.clone(), name: input.name.clone() }
}

fn origin_of_files(input: &TracedVertex) -> String {
    match (input.kind, &input.source, &input.instruction) {
        (Kind::Local, Some(name), _) if name == "context" => "the context".to_owned(),
        (Kind::Local, Some(name), _) => format!("the context {name}"),
        (Kind::Image | Kind::Http | Kind::Git, Some(source), _) => source.clone(),
        (Kind::Exec | Kind::File | Kind::Merge, _, Some(instruction)) => format!("stage {}", instruction.stage),
        _ => input.name.clone(),
    }
}
