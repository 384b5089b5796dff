//! ENV, LABEL and ARG: words of `name=value` (D9.1 to D9.5, D13, D14).

use super::{Arguments, Result};
use crate::ast::{ArgDeclaration, Word};

/// ENV and LABEL: `name=value …`, or the legacy form `name value`.
pub(super) fn pairs(arguments: &mut Arguments) -> Result<Vec<(Word, Word)>> {
    arguments.no_more_flags(&[])?;
    let words = words(arguments.rest, arguments.escape);
    let Some(first) = words.first() else {
        return arguments.problem(format!("{} requires at least one argument", arguments.keyword));
    };
    if !first.contains('=') {
        return legacy(arguments).map(|pair| vec![pair]);
    }
    let mut pairs = Vec::with_capacity(words.len());
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            let message = format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
            return Err((message, arguments.line.span_of_part(word), None));
        };
        if name.is_empty() {
            let message = format!("{} names can not be blank", arguments.keyword);
            return Err((message, arguments.line.span_of_part(word), None));
        }
        pairs.push((arguments.line.word(name), arguments.line.word(value)));
    }
    Ok(pairs)
}

/// D14.2: the value is the whole rest.
fn legacy(arguments: &Arguments) -> Result<(Word, Word)> {
    match arguments.rest.split_once(char::is_whitespace) {
        Some((name, value)) => Ok((arguments.line.word(name), arguments.line.word(value.trim_start()))),
        None => arguments.problem(format!("{} must have two arguments", arguments.keyword)),
    }
}

/// Flags of ARG are dropped without a look (D7.9).
pub(super) fn arg(arguments: &mut Arguments) -> Result<Vec<ArgDeclaration>> {
    let words = words(arguments.rest, arguments.escape);
    if words.is_empty() {
        return arguments.problem("ARG requires at least one argument");
    }
    let declarations = words.into_iter().map(|word| {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(arguments.line.word(default))),
            None => (word, None),
        };
        match name.is_empty() {
            true => Err(("ARG names can not be blank".to_owned(), arguments.line.span_of_part(word), None)),
            false => Ok(ArgDeclaration { name: arguments.line.word(name), default }),
        }
    });
    declarations.collect()
}

/// Splits at blanks outside of quotes; quotes and escapes stay.
fn words(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut end = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| &text[start..end]));
            continue;
        }
        start.get_or_insert(at);
        match c {
            c if c == escape && quote != Some('\'') => match chars.next() {
                Some((next, escaped)) => end = next + escaped.len_utf8(),
                // A last, lone escape is dropped (D9.3).
                None => end = at,
            },
            c => {
                match quote {
                    Some(open) if open == c => quote = None,
                    None if c == '\'' || c == '"' => quote = Some(c),
                    _ => {}
                }
                end = at + c.len_utf8();
            }
        }
    }
    words.extend(start.map(|start| &text[start..end]));
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_keep_quotes_and_escapes() {
        for (text, expected) in [
            ("a=1  b='x y' c=\"p q\"", vec!["a=1", "b='x y'", "c=\"p q\""]),
            (r"a=x\ y b", vec![r"a=x\ y", "b"]),
            (r"a='x\' b", vec![r"a='x\'", "b"]),
            ("\"\"", vec!["\"\""]),
            ("a\\", vec!["a"]),
            ("a='x y", vec!["a='x y"]),
            ("", vec![]),
        ] {
            assert_eq!(words(text, '\\'), expected, "{text}");
        }
    }
}
