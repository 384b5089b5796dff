//! COPY and ADD (D18.1 to D18.4, D5.16 to D5.21).

use super::volume::words_or_json;
use super::{Fault, Input, Parse};
use crate::ast::{Transfer, TransferSource, Word};
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::expand::{Expander, NoVariables};
use crate::flags::{FlagKind, Flags};
use crate::heredoc::{Heredoc, Marker};

const COPY_FLAGS: [(&str, FlagKind); 6] = [
    ("from", FlagKind::Text),
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Bool),
    ("parents", FlagKind::Bool),
    ("exclude", FlagKind::List),
];

const ADD_FLAGS: [(&str, FlagKind); 7] = [
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Bool),
    ("keep-git-dir", FlagKind::Bool),
    ("checksum", FlagKind::Text),
    ("unpack", FlagKind::Bool),
    ("exclude", FlagKind::List),
];

/// Most bytes that the here-documents of one instruction may have. Markers of the same name all get the same body (D5.21), so
/// that a short line could otherwise multiply a long body.
const MAX_BODIES: usize = 64 << 20;

pub(super) fn copy(input: &Input<'_>) -> Parse<Transfer> {
    parse(input, "COPY", &COPY_FLAGS)
}

pub(super) fn add(input: &Input<'_>) -> Parse<Transfer> {
    parse(input, "ADD", &ADD_FLAGS)
}

fn parse(input: &Input<'_>, instruction: &str, known: &[(&'static str, FlagKind)]) -> Parse<Transfer> {
    let is_json = input.json(input.rest)?.is_some();
    let mut words = words_or_json(input)?;
    if !is_json && !input.line.heredocs.is_empty() {
        words = join_markers(words);
    }
    if words.len() < 2 {
        return Err(input.fault(ErrorRule::WrongArgumentCount, format!(
            "{instruction} requires at least two arguments, but only one was provided. Destination could not be determined"
        )));
    }
    let Some(destination) = words.pop() else {
        return Err(input.fault(ErrorRule::WrongArgumentCount, "no destination"));
    };
    let flags = input.flags(known)?;
    let marker = |word: &Word| if is_json { None } else { Marker::parse(word).ok().flatten() };
    if marker(&destination).is_some() {
        let message = format!("{instruction} cannot accept a heredoc as a destination");
        return Err(Fault::Instruction(Diagnostic::error(ErrorRule::InvalidHeredoc, message, destination.span)));
    }
    let mut copied = 0;
    let mut sources = Vec::with_capacity(words.len());
    for word in words {
        let Some(marker) = marker(&word) else {
            sources.push(TransferSource::Path(word));
            continue;
        };
        let heredoc = source_heredoc(input, marker);
        copied += heredoc.body.len();
        if copied > MAX_BODIES {
            return Err(input.fault(
                ErrorRule::InvalidHeredoc,
                format!("the here-documents are longer than {MAX_BODIES} bytes together"),
            ));
        }
        sources.push(TransferSource::Heredoc(heredoc));
    }
    Ok(Transfer {
        sources,
        destination,
        from: from(input, &flags)?,
        chown: flags.non_empty("chown"),
        chmod: flags.non_empty("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
        checksum: flags.non_empty("checksum"),
        keep_git_dir: flags.bool("keep-git-dir"),
        unpack: flags.bool("unpack"),
    })
}

/// Joins a bare `<<` or `<<-` with the name behind it (D5.5), which splitting at blanks has separated. BuildKit does not, and
/// then fails to find files of these names.
fn join_markers(words: Vec<Word>) -> Vec<Word> {
    let mut joined: Vec<Word> = Vec::with_capacity(words.len());
    for word in words {
        match joined.last_mut() {
            Some(last) if matches!(last.trim_start_matches(|c: char| c.is_ascii_digit()), "<<" | "<<-") => {
                last.value = format!("{} {}", last.value, word.value);
                last.span = last.span.to(word.span);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// The body that belongs to a marker: the last of that name (D5.21). How the marker itself is written decides on expansion
/// and tabs.
fn source_heredoc(input: &Input<'_>, marker: Marker) -> Heredoc {
    let body = input.line.heredocs.iter().rev().find(|heredoc| heredoc.name == marker.name);
    let mut heredoc = marker.into_heredoc();
    if let Some(found) = body {
        heredoc.body.clone_from(&found.body);
        heredoc.span = found.span;
    }
    heredoc
}

/// `--from`, in which a variable is an error that has no line prefix (D7.12). An empty value is the build context (D18.9).
fn from(input: &Input<'_>, flags: &Flags) -> Parse<Option<Word>> {
    let Some(from) = flags.non_empty("from") else { return Ok(None) };
    let expanded = Expander::new(input.escape).word(&from, &NoVariables);
    if expanded.is_ok_and(|expanded| expanded.text == from.value) {
        return Ok(Some(from));
    }
    let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
    Err(Fault::Stage(Diagnostic::error(ErrorRule::InvalidExpansion, message, from.span)))
}
