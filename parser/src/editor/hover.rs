//! What is to be told about the word at an offset.

use super::cursor::{Cursor, Place, Token};
use super::definition::{mount_field, stage_at, variable_at};
use super::{manual, scope};
use crate::line;
use crate::lint::RULES;
use crate::span::Span;
use crate::words;

/// Markdown about a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hover {
    pub text: String,
    pub span: Span,
}

pub fn hover(source: &str, offset: usize) -> Option<Hover> {
    let reading = line::read(source);
    if let Some(hover) = comment(source, offset) {
        return Some(hover);
    }
    let cursor = Cursor::at(&reading, offset)?;
    let about = |token: Token<'_>, text: String| Some(Hover { text, span: cursor.span(token) });
    if let (Some(name), Place::FlagValue(_, token) | Place::Argument(_, token)) = (variable_at(&cursor), cursor.place) {
        let declared = scope::variables(&reading, cursor.line.span.start).into_iter().find(|known| known.name == name);
        let text = match (declared, manual::platform_arg(name)) {
            (Some(variable), _) => format!("```dockerfile\n{}\n```", variable.line.text.trim()),
            (None, Some(text)) => format!("`{name}`: {text}"),
            (None, None) => format!("`{name}` is not declared here."),
        };
        return about(token, text);
    }
    let instruction = cursor.instruction?;
    match cursor.place {
        Place::Instruction(token) => about(token, described(manual::instruction(instruction)?)),
        Place::Flag(token) => {
            let name = token.text.trim_start_matches('-').split('=').next()?;
            about(token, described(find(manual::flags(instruction), name)?))
        }
        Place::FlagValue("mount", token) if stage_at(&reading, &cursor).is_none() => {
            let field = mount_field(token)?;
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            let option = match key {
                "type" => find(&manual::MOUNT_TYPES, value),
                "src" => find(&manual::MOUNT_OPTIONS, "source"),
                "dst" | "destination" => find(&manual::MOUNT_OPTIONS, "target"),
                "readonly" => find(&manual::MOUNT_OPTIONS, "ro"),
                "readwrite" => find(&manual::MOUNT_OPTIONS, "rw"),
                key => find(&manual::MOUNT_OPTIONS, key),
            };
            about(token, described(option?))
        }
        Place::FlagValue(flag, token) if stage_at(&reading, &cursor).is_none() => {
            about(token, described(find(manual::flags(instruction), flag)?))
        }
        Place::FlagValue(_, token) | Place::Argument(_, token) => {
            let stages = scope::stages(&reading);
            let stage = &stages[stage_at(&reading, &cursor)?];
            let (name, _) = stage.name.unwrap_or_default();
            let comments = stage.line.comments.iter();
            let prefix = format!("{name} ");
            let about_it = comments.filter_map(|comment| comment.strip_prefix(&prefix)).next();
            let description = about_it.map(|text| format!("\n\n{text}")).unwrap_or_default();
            about(token, format!("```dockerfile\n{}\n```{description}", stage.line.text.trim()))
        }
    }
}

/// Directives and the rules that they name.
fn comment(source: &str, offset: usize) -> Option<Hover> {
    let start = source.get(..offset)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = source[start..].lines().next()?;
    let (name, value) = words::directive(line.trim_start())?;
    let at = |part: &str| part.as_ptr() as usize - source.as_ptr() as usize;
    let is_name_char = |c: char| c.is_ascii_alphanumeric();
    for word in value.split(|c| !is_name_char(c)) {
        let span = Span::new(at(word), at(word) + word.len());
        if let Some(rule) = RULES.iter().find(|rule| rule.name == word)
            && (span.start..=span.end).contains(&offset)
        {
            let url = rule.url().map(|url| format!("\n\n[{}]({url})", rule.name)).unwrap_or_default();
            return Some(Hover { text: format!("{}{url}", rule.description), span });
        }
    }
    let entry = manual::DIRECTIVES.iter().find(|entry| entry.name.eq_ignore_ascii_case(name))?;
    Some(Hover { text: described(entry), span: Span::new(at(name), at(name) + name.len()) })
}

fn find(entries: &'static [manual::Entry], name: &str) -> Option<&'static manual::Entry> {
    entries.iter().find(|entry| entry.name == name)
}

pub fn described(entry: &manual::Entry) -> String {
    format!("```dockerfile\n{}\n```\n\n{}", entry.form, entry.text)
}
