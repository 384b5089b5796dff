//! One instruction: its parts on the lines that they stood on.

use super::comment_text;
use crate::json::{self, JsonArray};
use crate::line::{self, LogicalLine};
use crate::print::{FORM_FEED, json_text, needs_guard};
use crate::words;
use std::ops::Range;

/// A part of an instruction inside of which nothing may change.
struct Part {
    /// In the joined text.
    range: Range<usize>,
    /// What stands in its place, if that is not the text itself.
    replacement: Option<String>,
}

/// A physical line of an instruction.
enum Row<'a> {
    /// What it adds to the joined text.
    Text(Range<usize>),
    Comment(&'a str),
}

/// Lays out the physical lines `head` of an instruction, here-document bodies excluded.
pub fn layout(head: &str, line: &LogicalLine, escape: char, out: &mut String) {
    let rows = rows(head, escape);
    let parts = parts(&line.text, escape);
    // Whether the line break at an offset stands between parts.
    let is_free = |at: usize| parts[first_behind(&parts, at)..].first().is_none_or(|part| at <= part.range.start);
    let mut comments: Vec<&str> = Vec::new();
    // Whether something is written, and waits for more or for its end.
    let mut is_open = false;
    for row in &rows {
        let range = match row {
            Row::Comment(comment) => {
                comments.push(comment);
                continue;
            }
            Row::Text(range) => range,
        };
        let text = row_text(&line.text, range, &parts);
        if text.is_empty() {
            continue;
        }
        // A comment that comes before all text must not become one above the instruction.
        if is_open || !comments.is_empty() {
            let (space, indent) = if is_open && is_free(range.start) { (" ", "    ") } else { ("", "") };
            out.push_str(&format!("{space}{escape}\n"));
            for comment in comments.drain(..) {
                out.push_str(&format!("    {}\n", comment_text(comment)));
            }
            out.push_str(indent);
        }
        out.push_str(&text);
        is_open = true;
    }
    let last = out.rsplit('\n').next().unwrap_or_default();
    // Blanks alone on a line would not be read.
    if needs_guard(last, escape) || last.trim().is_empty() {
        let is_trigger = parts[0].replacement.as_deref() == Some("ONBUILD");
        out.push(if is_trigger { escape } else { FORM_FEED });
    }
    out.push('\n');
    // A continuation that the file's end cut off may have had comments behind it.
    for comment in comments {
        out.push_str(&format!("{}\n", comment_text(comment)));
    }
}

fn rows(head: &str, escape: char) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut at = 0;
    for (index, physical) in head.split('\n').enumerate() {
        let physical = physical.trim_end_matches('\r');
        let trimmed = physical.trim();
        if index > 0 && (trimmed.is_empty() || trimmed.starts_with('#')) {
            if !trimmed.is_empty() {
                rows.push(Row::Comment(trimmed));
            }
            continue;
        }
        let text = line::continued(physical, escape).unwrap_or(physical);
        rows.push(Row::Text(at..at + text.len()));
        at += text.len();
    }
    rows
}

/// The index of the first part that ends behind an offset.
fn first_behind(parts: &[Part], at: usize) -> usize {
    parts.partition_point(|part| part.range.end <= at)
}

/// The parts of a row, one blank between them.
fn row_text(text: &str, row: &Range<usize>, parts: &[Part]) -> String {
    let touched = parts[first_behind(parts, row.start)..].iter().take_while(|part| part.range.start < row.end);
    let pieces = touched.filter_map(|part| {
        let (start, end) = (part.range.start.max(row.start), part.range.end.min(row.end));
        match &part.replacement {
            Some(replacement) if start == part.range.start && end == part.range.end => Some(replacement.as_str()),
            // Who breaks it into lines knows why.
            _ => (start < end).then(|| &text[start..end]),
        }
    });
    pieces.collect::<Vec<_>>().join(" ")
}

/// What an instruction consists of, in order.
fn parts(text: &str, escape: char) -> Vec<Part> {
    let (word, arguments) = words::head(text.trim());
    let (flags, rest) = words::flags(arguments, escape);
    let name = word.to_uppercase();
    let part = |part: &str, replacement: Option<String>| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        Part { range: start..start + part.len(), replacement }
    };
    let plain = |text: &str| part(text, None);
    let mut parts = vec![part(word, Some(name.clone()))];
    if name == "ONBUILD" {
        // The trigger is kept in the image's config as it is written, with blanks at its end.
        let trigger = text.trim_start()[word.len()..].trim_start();
        parts.extend((!trigger.is_empty()).then(|| plain(trigger)));
        return parts;
    }
    parts.extend(flags.iter().map(|flag| plain(flag.raw)));
    let flags_end = flags.last().map_or(arguments, |flag| &flag.raw[flag.raw.len()..]);
    let between = flags_end.as_ptr() as usize - text.as_ptr() as usize..rest.as_ptr() as usize - text.as_ptr() as usize;
    if let Some(at) = text.get(between.clone()).filter(|_| !rest.is_empty()).and_then(|between| between.find("--")) {
        parts.push(plain(&text[between.start + at..between.start + at + 2]));
    }
    if rest.is_empty() {
        return parts;
    }
    match name.as_str() {
        "FROM" => {
            let fields = words::fields(rest);
            for (index, field) in fields.iter().enumerate() {
                let is_as = index == 1 && field.eq_ignore_ascii_case("as");
                parts.push(part(field, is_as.then(|| "AS".to_owned())));
            }
        }
        "ARG" => parts.extend(words::quoted_words(rest, escape).into_iter().map(plain)),
        "ENV" | "LABEL" => {
            let words = words::quoted_words(rest, escape);
            match words.first() {
                Some(first) if !first.contains('=') => {
                    let (name, value) = words::head(rest);
                    // An escape at the end of the name takes the blank behind it.
                    let length = name.len() + usize::from(name.ends_with(escape));
                    parts.extend([&rest[..length], value].map(plain));
                }
                _ => parts.extend(words.into_iter().map(plain)),
            }
        }
        "COPY" | "ADD" | "VOLUME" | "EXPOSE" if name == "EXPOSE" || is_fields(rest) => {
            for field in words::fields(rest) {
                let field = plain(field);
                // Which blanks stand behind a bare `<<` decides whether it is a marker (D5.5).
                let is_bare = |part: &Part| {
                    let last = text[part.range.clone()].rsplit(words::is_blank).next().unwrap_or_default();
                    matches!(last.trim_start_matches(|c: char| c.is_ascii_digit()), "<<" | "<<-")
                };
                match parts.last_mut().filter(|last| last.replacement.is_none() && is_bare(last)) {
                    Some(last) => last.range.end = field.range.end,
                    None => parts.push(field),
                }
            }
        }
        "COPY" | "ADD" | "VOLUME" | "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" => parts.push(part(rest, array(rest))),
        "HEALTHCHECK" => {
            let (kind, command) = words::head(rest);
            parts.push(part(kind, Some(kind.to_uppercase())));
            parts.extend((!command.is_empty()).then(|| part(command, array(command))));
        }
        _ => parts.push(plain(rest)),
    }
    // A lone escape at the end is no part of the last word (D9.3), but keeps the blank before it.
    let end = plain(rest).range.end;
    if let Some(last) = parts.last_mut().filter(|last| last.replacement.is_none()) {
        last.range.end = end;
    }
    parts
}

/// Whether the arguments are no array, and do not become one where odd blanks become ordinary ones.
fn is_fields(text: &str) -> bool {
    json::array(text) == JsonArray::No && json::array(&words::fields(text).join(" ")) == JsonArray::No
}

/// A JSON array in its usual form.
fn array(text: &str) -> Option<String> {
    match json::array(text) {
        JsonArray::Strings(strings) => Some(json_text(&strings)),
        _ => None,
    }
}
