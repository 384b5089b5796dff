//! What can be written at an offset.

use super::cursor::{Cursor, Place, Token};
use super::definition::mount_field;
use super::hover::described;
use super::{manual, scope};
use crate::line::{self, Reading};
use crate::lint::RULES;
use crate::span::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompletionKind {
    Keyword,
    Flag,
    Value,
    Stage,
    Variable,
    File,
    Directory,
    Rule,
}

/// Something that can stand in the place of `span`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub text: String,
    pub kind: CompletionKind,
    /// Markdown; may be empty.
    pub documentation: String,
    pub span: Span,
}

/// Lists a directory of the context, given relative to its root: names, and whether they are directories.
pub type ContextFiles<'a> = &'a dyn Fn(&str) -> Vec<(String, bool)>;

pub fn complete(source: &str, offset: usize, files: ContextFiles<'_>) -> Vec<Completion> {
    let Some(before) = source.get(..offset) else { return Vec::new() };
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let typed = &before[line_start..];
    if typed.trim_start().starts_with('#') {
        return directive(typed.trim_start(), before, offset);
    }
    let reading = line::read(source);
    let span = |length: usize| Span::new(offset - length, offset);
    let Some(cursor) = Cursor::at(&reading, offset) else {
        let is_blank = typed.trim().is_empty() && !inside_heredoc(&reading, offset);
        return if is_blank { instructions(&reading, offset, span(0)) } else { Vec::new() };
    };
    let token = match cursor.place {
        Place::Instruction(token) => return instructions(&reading, offset, span(token.before.len())),
        Place::Flag(token) => {
            let item = |entry: &manual::Entry| {
                let takes_value = entry.form.contains("=") && !entry.form.contains("[=");
                let text = format!("--{}{}", entry.name, if takes_value { "=" } else { "" });
                completion(text, CompletionKind::Flag, described(entry), span(token.before.len()))
            };
            return manual::flags(cursor.instruction.unwrap_or_default()).iter().map(item).collect();
        }
        Place::FlagValue(_, token) | Place::Argument(_, token) => token,
    };
    if let Some(variables) = variables(&reading, &cursor, token, span) {
        return variables;
    }
    let whole = span(token.before.len());
    let stages = |span| stage_names(&reading, &cursor, span);
    match (cursor.instruction.unwrap_or_default(), cursor.place) {
        ("FROM", Place::Argument(0, _)) => stages(whole),
        ("FROM", Place::Argument(1, _)) => {
            vec![completion("AS".into(), CompletionKind::Keyword, String::new(), whole)]
        }
        ("COPY", Place::FlagValue("from", _)) => stages(whole),
        ("RUN", Place::FlagValue("mount", token)) => mount(token, &stages, files, span),
        (_, Place::FlagValue(flag, _)) => {
            let item = |value: &&str| completion((*value).to_owned(), CompletionKind::Value, String::new(), whole);
            manual::flag_values(flag).iter().map(item).collect()
        }
        ("COPY" | "ADD", Place::Argument(..)) if !cursor.line.text.contains("--from") => {
            context_files(token.before, files, span)
        }
        ("ONBUILD", _) => instructions(&reading, offset, whole),
        ("HEALTHCHECK", Place::Argument(0, _)) => ["CMD", "NONE"]
            .map(|word| completion(word.to_owned(), CompletionKind::Keyword, String::new(), whole))
            .to_vec(),
        _ => Vec::new(),
    }
}

fn completion(text: String, kind: CompletionKind, documentation: String, span: Span) -> Completion {
    Completion { text, kind, documentation, span }
}

fn inside_heredoc(reading: &Reading, offset: usize) -> bool {
    let line = reading.lines.iter().rfind(|line| line.span.start <= offset);
    line.is_some_and(|line| !line.heredocs.is_empty() && offset <= line.span.end)
}

/// Before the first FROM only ARG and FROM make sense.
fn instructions(reading: &Reading, offset: usize, span: Span) -> Vec<Completion> {
    let in_stage = scope::stages(reading).iter().any(|stage| stage.line.span.end < offset);
    let fits = |entry: &&manual::Entry| in_stage || matches!(entry.name, "ARG" | "FROM");
    let item =
        |entry: &manual::Entry| completion(entry.name.to_owned(), CompletionKind::Keyword, described(entry), span);
    manual::INSTRUCTIONS.iter().filter(fits).map(item).collect()
}

/// `$`, `${` and what follows.
fn variables(
    reading: &Reading,
    cursor: &Cursor<'_>,
    token: Token<'_>,
    span: impl Fn(usize) -> Span,
) -> Option<Vec<Completion>> {
    let (_, after) = token.before.rsplit_once('$')?;
    let typed = after.strip_prefix('{').unwrap_or(after);
    if typed.contains(|c: char| c != '_' && !c.is_alphanumeric()) {
        return None;
    }
    let declared = scope::variables(reading, cursor.line.span.start);
    let mut items: Vec<Completion> = Vec::new();
    for variable in declared {
        if items.iter().all(|item| item.text != variable.name) {
            let documentation = format!("```dockerfile\n{}\n```", variable.line.text.trim());
            items.push(completion(
                variable.name.to_owned(),
                CompletionKind::Variable,
                documentation,
                span(typed.len()),
            ));
        }
    }
    if cursor.instruction == Some("FROM") {
        items.extend(scope::PLATFORM_ARGS.map(|name| {
            let documentation = manual::platform_arg(name).unwrap_or_default().to_owned();
            completion(name.to_owned(), CompletionKind::Variable, documentation, span(typed.len()))
        }));
    }
    Some(items)
}

/// The stages above the instruction.
fn stage_names(reading: &Reading, cursor: &Cursor<'_>, span: Span) -> Vec<Completion> {
    let stages = scope::stages(reading).into_iter();
    // The stage that the instruction is in cannot be taken from.
    let mut above: Vec<_> = stages.take_while(|stage| stage.line.span.start <= cursor.line.span.start).collect();
    above.pop();
    let named = above.into_iter().filter_map(|stage| {
        let documentation = format!("```dockerfile\n{}\n```", stage.line.text.trim());
        Some(completion(stage.name?.0.to_owned(), CompletionKind::Stage, documentation, span))
    });
    named.collect()
}

fn mount(
    token: Token<'_>,
    stages: &dyn Fn(Span) -> Vec<Completion>,
    files: ContextFiles<'_>,
    span: impl Fn(usize) -> Span,
) -> Vec<Completion> {
    let start = token.before.rfind(',').map_or(0, |comma| comma + 1);
    let typed = &token.before[start..];
    let values = |values: &[&str], length: usize| {
        let item = |value: &&str| completion((*value).to_owned(), CompletionKind::Value, String::new(), span(length));
        values.iter().map(item).collect()
    };
    let Some((key, value)) = typed.split_once('=') else {
        let item = |entry: &manual::Entry| {
            let text = format!("{}{}", entry.name, if entry.form.contains('=') { "=" } else { "" });
            completion(text, CompletionKind::Flag, described(entry), span(typed.len()))
        };
        return manual::MOUNT_OPTIONS.iter().map(item).collect();
    };
    match key {
        "type" => manual::MOUNT_TYPES
            .iter()
            .map(|entry| completion(entry.name.to_owned(), CompletionKind::Value, described(entry), span(value.len())))
            .collect(),
        "sharing" => values(&manual::SHARING, value.len()),
        "from" => stages(span(value.len())),
        "source" | "src" if !token.text.contains("from=") && mount_field(token).is_some() => {
            context_files(value, files, span)
        }
        _ => Vec::new(),
    }
}

/// Files of the context; only the last component is replaced.
fn context_files(typed: &str, files: ContextFiles<'_>, span: impl Fn(usize) -> Span) -> Vec<Completion> {
    if typed.starts_with(['"', '\'', '[', '<']) {
        return Vec::new();
    }
    let (directory, name) = typed.rsplit_once('/').map_or(("", typed), |(directory, name)| (directory, name));
    let item = |(file, is_directory): (String, bool)| {
        // Blanks would make two words of one.
        (!file.contains(char::is_whitespace)).then(|| match is_directory {
            true => completion(file + "/", CompletionKind::Directory, String::new(), span(name.len())),
            false => completion(file, CompletionKind::File, String::new(), span(name.len())),
        })
    };
    files(directory).into_iter().filter_map(item).collect()
}

/// `# check=skip=…` and the names of directives, which stand at the top only.
fn directive(typed: &str, before: &str, offset: usize) -> Vec<Completion> {
    let text = typed.trim_start_matches('#').trim_start();
    if let Some((_, options)) = text.split_once("check=") {
        let start = options.rfind([',', '=', ';']).map_or(0, |at| at + 1);
        let span = Span::new(offset - (options.len() - start), offset);
        let names_rules =
            options.rsplit(';').next().is_some_and(|part| part.contains('=') && !part.starts_with("error"));
        if names_rules {
            let rule = |rule: &crate::lint::Rule| {
                completion(rule.name.to_owned(), CompletionKind::Rule, rule.description.to_owned(), span)
            };
            return RULES.iter().map(rule).collect();
        }
        let option = |text: &str| completion(text.to_owned(), CompletionKind::Value, String::new(), span);
        return ["skip=", "experimental=", "error=true"].map(option).to_vec();
    }
    let is_top = before.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if !is_top || text.contains('=') {
        return Vec::new();
    }
    let span = Span::new(offset - text.len(), offset);
    let item =
        |entry: &manual::Entry| completion(format!("{}=", entry.name), CompletionKind::Keyword, described(entry), span);
    manual::DIRECTIVES.iter().map(item).collect()
}
