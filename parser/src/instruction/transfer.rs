//! COPY and ADD (D18.1 to D18.5).

use super::{Arguments, Result};
use crate::ast::{Transfer, TransferSource, Word};
use crate::heredoc::Heredoc;

const COPY_FLAGS: [&str; 6] = ["from", "chown", "chmod", "link", "parents", "exclude"];
const ADD_FLAGS: [&str; 7] = ["chown", "chmod", "link", "keep-git-dir", "checksum", "unpack", "exclude"];

pub(super) fn parse(arguments: &mut Arguments) -> Result<Transfer> {
    let is_copy = arguments.keyword == "COPY";
    let word = |(value, span)| Word { value, span };
    let flags = &mut arguments.flags;
    let chown = flags.string("chown")?.map(word);
    let chmod = flags.string("chmod")?.map(word);
    let link = flags.boolean("link")?.unwrap_or(false);
    let exclude = flags.list("exclude")?.into_iter().map(word).collect();
    let (mut from, mut parents, mut checksum, mut keep_git_dir, mut unpack) = (None, false, None, None, None);
    if is_copy {
        from = flags.string("from")?.map(word);
        parents = flags.boolean("parents")?.unwrap_or(false);
    } else {
        checksum = flags.string("checksum")?.map(word);
        keep_git_dir = flags.boolean("keep-git-dir")?;
        unpack = flags.boolean("unpack")?;
    }
    arguments.no_more_flags(if is_copy { &COPY_FLAGS } else { &ADD_FLAGS })?;
    let mut words = arguments.json_or_words()?;
    if words.len() < 2 {
        let found = if words.is_empty() { "no arguments were" } else { "only one was" };
        return arguments.problem(format!(
            "{} requires at least two arguments, but {found} provided. Destination could not be determined",
            arguments.keyword
        ));
    }
    let destination = words.pop().expect("there are at least two words");
    let heredocs = &arguments.line.heredocs;
    if !heredocs.is_empty() && find(heredocs, &destination).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", arguments.keyword);
        return Err((message, destination.span, None));
    }
    let sources = words.into_iter().map(|word| match find(heredocs, &word) {
        Some(heredoc) => TransferSource::Heredoc(heredoc.clone()),
        None => TransferSource::Path(word),
    });
    let sources = sources.collect();
    Ok(Transfer { sources, destination, from, chown, chmod, link, parents, exclude, checksum, keep_git_dir, unpack })
}

/// The document of a marker; of several with the same name, the one read last (D5.21).
fn find<'a>(heredocs: &'a [Heredoc], word: &Word) -> Option<&'a Heredoc> {
    let marker = Heredoc::from_marker(&word.value)?.ok()?;
    heredocs.iter().rev().find(|heredoc| heredoc.name == marker.name)
}
