//! Why a step ran, as HTML.

use crate::draw::svg::escaped;
use crate::trace::{Change, FileChanges, Reason, VariableKind};
use std::fmt::Write;

/// In a few words.
pub fn brief(reason: &Reason) -> String {
    match reason {
        Reason::FirstBuild => "first build".into(),
        Reason::NewStep => "new step".into(),
        Reason::TextChanged { .. } => "text changed".into(),
        Reason::VariablesChanged { variables } => {
            let names: Vec<_> = variables.iter().take(3).map(|variable| variable.name.as_str()).collect();
            format!("{} changed", names.join(", "))
        }
        Reason::SettingsChanged { settings } => format!("{} changed", settings.join(", ")),
        Reason::ImageChanged { .. } => "base image changed".into(),
        Reason::FilesChanged { from, changes } => match changes {
            Some(changes) => format!("{} of {from} changed", count(changes.total, "file", "files")),
            None => format!("files of {from} changed"),
        },
        Reason::InputChanged { .. } => "input changed".into(),
        Reason::Forced { flag } => flag.clone(),
        Reason::FailedBefore => "failed last time".into(),
        Reason::UnfinishedBefore => "not finished last time".into(),
        Reason::Evicted => "result was no longer in the store".into(),
        Reason::OtherVersion => "other version of rbuild".into(),
    }
}

/// With all that is known. `link` leads to a step by its digest.
pub fn whole(reason: &Reason, link: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match reason {
        Reason::FirstBuild => write!(out, "first build: no earlier one of this Dockerfile is known"),
        Reason::NewStep => write!(out, "the last build had no such step"),
        Reason::TextChanged { words } => {
            let lines = words.iter().flat_map(|change| [("del", '−', &change.old), ("ins", '+', &change.new)]);
            let lines = lines.filter(|(_, _, text)| !text.is_empty());
            let lines: String =
                lines.map(|(tag, sign, text)| format!("<{tag}>{sign} {}</{tag}>\n", escaped(text))).collect();
            write!(out, "its text changed<pre class=\"diff\">{lines}</pre>")
        }
        Reason::VariablesChanged { variables } => {
            let all = variables.iter().map(|variable| {
                let kind = if variable.kind == VariableKind::Arg { "ARG" } else { "ENV" };
                format!("{kind} <code>{}</code> {}", escaped(&variable.name), past(variable.change))
            });
            write!(out, "{}", all.collect::<Vec<_>>().join(", "))
        }
        Reason::SettingsChanged { settings } => write!(out, "changed: {}", escaped(&settings.join(", "))),
        Reason::ImageChanged { old, new, .. } => {
            write!(
                out,
                "the base image changed<pre class=\"diff\"><del>− {}</del>\n<ins>+ {}</ins>\n</pre>",
                escaped(old),
                escaped(new)
            )
        }
        Reason::FilesChanged { from, changes } => {
            let list = changes.as_ref().map(files).unwrap_or_default();
            write!(out, "files of {} changed{list}", escaped(from))
        }
        Reason::InputChanged { step, name } => match link(step) {
            Some(link) => {
                write!(out, "its input has another result: <a href=\"{}\">{}</a>", escaped(&link), escaped(name))
            }
            None => write!(out, "its input has another result: {}", escaped(name)),
        },
        Reason::Forced { flag } => write!(out, "forced by {}", escaped(flag)),
        Reason::FailedBefore => write!(out, "it failed last time, and failures are not kept"),
        Reason::UnfinishedBefore => write!(out, "it was not finished last time"),
        Reason::Evicted => write!(out, "its result was no longer in the store"),
        Reason::OtherVersion => write!(out, "the last build was made by another version of rbuild"),
    };
    out
}

fn files(changes: &FileChanges) -> String {
    let lines = changes.files.iter().map(|file| {
        let (tag, sign, note) = match file.change {
            Change::Added => ("ins", '+', ""),
            Change::Removed => ("del", '−', ""),
            Change::Changed => ("span", '~', ""),
            Change::Mode => ("span", '~', " (mode or owner)"),
        };
        format!("<{tag}>{sign} {}{note}</{tag}>\n", escaped(&file.path))
    });
    let lines: String = lines.collect();
    let more = match changes.total.saturating_sub(changes.files.len()) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    format!("<pre class=\"diff\">{lines}{more}</pre>")
}

fn past(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed | Change::Mode => "changed",
    }
}

/// `1 file`, `2 files`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
