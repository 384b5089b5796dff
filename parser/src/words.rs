//! The small grammars inside one logical line: instruction word, blank-separated fields, quoted words, flags.
//!
//! Two kinds of white space are at work. Fields and the instruction word end at ASCII blanks (D6.1, D6.5); quoted words end at
//! any Unicode white space (D9.1). All results are slices of the input, so that [`crate::line::LogicalLine::span_of`] can
//! say where they came from.

use nom::branch::alt;
use nom::bytes::complete::{take_till, take_while, take_while1};
use nom::character::complete::{anychar, char, none_of, satisfy};
use nom::combinator::{eof, opt, recognize, value};
use nom::multi::{fold_many0, many0_count, many1_count, separated_list0};
use nom::sequence::{pair, preceded, terminated};
use nom::{IResult, Parser};

/// Tab, vertical tab, form feed, carriage return, space.
pub fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits off the first field and the blanks behind it (D6.1, D14.2).
pub fn head(text: &str) -> (&str, &str) {
    let first: IResult<&str, &str> = terminated(take_till(is_blank), take_while(is_blank)).parse(text);
    first.map_or((text, ""), |(rest, word)| (word, rest))
}

/// Fields at runs of blanks, without regard to quotes.
pub fn fields(text: &str) -> Vec<&str> {
    let blanks = take_while1(is_blank);
    let field = take_till(is_blank);
    let all: IResult<&str, Vec<&str>> = separated_list0(blanks, field).parse(text.trim());
    all.map(|(_, fields)| fields).unwrap_or_default().into_iter().filter(|field| !field.is_empty()).collect()
}

/// Words with their quotes and escapes (D9.1 to D9.5). A lone escape at the very end is dropped.
pub fn quoted_words(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        match word(escape, rest) {
            Ok((after, word)) => {
                words.push(word);
                rest = after;
            }
            Err(_) => return words,
        }
    }
}

fn word(escape: char, text: &str) -> IResult<&str, &str> {
    let escaped = || recognize(pair(char(escape), anychar));
    let single = recognize((char('\''), take_till(|c| c == '\''), opt(char('\''))));
    let inside = alt((escaped(), recognize(satisfy(move |c| c != '"' && c != escape))));
    let double = recognize((char('"'), many0_count(inside), opt(char('"'))));
    let plain = recognize(satisfy(move |c| c != escape && !c.is_whitespace()));
    terminated(recognize(many1_count(alt((single, double, escaped(), plain)))), opt(pair(char(escape), eof)))
        .parse(text)
}

/// A leading word that starts with `--` (D7.1): as written, and with quotes and escapes removed (D7.3).
#[derive(Clone, Debug, PartialEq)]
pub struct RawFlag<'a> {
    pub raw: &'a str,
    pub text: String,
}

/// Splits the flags off the text behind an instruction word. A bare `--` ends them and is dropped (D7.2).
pub fn flags(text: &str, escape: char) -> (Vec<RawFlag<'_>>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let Ok((after, flag)) = flag_text(escape, rest) else { break };
        let raw = &rest[..rest.len() - after.len()];
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(RawFlag { raw, text: flag });
    }
    (flags, rest.trim())
}

fn flag_text(escape: char, text: &str) -> IResult<&str, String> {
    // An escape takes the next character; at the end of the line it takes nothing and vanishes.
    let escaped = || preceded(char(escape), alt((anychar.map(Some), value(None, eof))));
    let quoted = |quote: char| {
        let inside =
            fold_many0(alt((escaped(), satisfy(move |c| c != quote).map(Some))), String::new, |mut text: String, c| {
                text.extend(c);
                text
            });
        terminated(preceded(char(quote), inside), opt(char(quote)))
    };
    let plain = alt((escaped(), satisfy(|c: char| !c.is_whitespace()).map(Some)))
        .map(|c: Option<char>| c.map(String::from).unwrap_or_default());
    fold_many0(alt((quoted('\''), quoted('"'), plain)), String::new, |mut text: String, piece: String| {
        text.push_str(&piece);
        text
    })
    .parse(text)
}

/// `# name = value` (D2.2). The value is trimmed and never empty.
pub fn directive(line: &str) -> Option<(&str, &str)> {
    let blank = || take_while(char::is_whitespace);
    let name = recognize(pair(satisfy(|c| c.is_ascii_alphabetic()), take_while(|c: char| c.is_ascii_alphanumeric())));
    let parsed: IResult<&str, &str> =
        preceded(pair(char('#'), blank()), terminated(name, (blank(), char('='), blank()))).parse(line);
    let (value, name) = parsed.ok()?;
    let value = value.trim();
    (!value.is_empty()).then_some((name, value))
}

/// A here-document marker `[fd]<<[-][blanks]name`: whether tabs are stripped, and the raw name (D5.2).
pub fn heredoc_marker(word: &str) -> Option<(bool, &str)> {
    let name = recognize(many1_count(none_of("<")));
    let parsed: IResult<&str, (Option<char>, &str)> = preceded(
        (take_while(|c: char| c.is_ascii_digit()), nom::bytes::complete::tag("<<")),
        terminated((opt(char('-')), preceded(take_while(char::is_whitespace), name)), eof),
    )
    .parse(word);
    parsed.ok().map(|(_, (dash, name))| (dash.is_some(), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_know_no_quotes() {
        assert_eq!(fields(r#"  "a b"	c "#), [r#""a"#, r#"b""#, "c"]);
        assert!(fields("  ").is_empty());
        assert_eq!(head("ENV  a b"), ("ENV", "a b"));
    }

    #[test]
    fn quoted_words_keep_quotes_and_escapes() {
        let cases: &[(&str, &[&str])] = &[
            (r#"a="b c" d='e f'"#, &[r#"a="b c""#, "d='e f'"]),
            (r"a\ b c", &[r"a\ b", "c"]),
            (r#""a\" b" c"#, &[r#""a\" b""#, "c"]),
            (r"'a\' b", &[r"'a\'", "b"]),
            (r"a b\", &["a", "b"]),
            (r"\", &[]),
            (r#""""#, &[r#""""#]),
            (r#"a "b c"#, &["a", "\"b c"]),
            ("", &[]),
        ];
        for (text, words) in cases {
            assert_eq!(quoted_words(text, '\\'), *words, "{text}");
        }
        assert_eq!(quoted_words(r"a` b c\", '`'), ["a` b", r"c\"]);
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        let text = |flags: &[RawFlag]| flags.iter().map(|flag| flag.text.clone()).collect::<Vec<_>>();
        let (found, rest) = flags(r#"--a=1 --b='x y' --c=\"z "--d" --e"#, '\\');
        assert_eq!((text(&found), rest), (vec!["--a=1".into(), "--b=x y".into(), "--c=\"z".into()], r#""--d" --e"#));
        assert_eq!(found[1].raw, "--b='x y'");
        assert_eq!(flags("-- --x /y", '\\').1, "--x /y");
        assert_eq!(flags("-x", '\\'), (vec![], "-x"));
        assert_eq!(text(&flags(r"--a=b\", '\\').0), ["--a=b"]);
        assert_eq!(text(&flags(r"--a=\b c", '`').0), [r"--a=\b"]);
    }

    #[test]
    fn markers_are_whole_words() {
        assert_eq!(heredoc_marker("<<EOF"), Some((false, "EOF")));
        assert_eq!(heredoc_marker("3<<-  EOF"), Some((true, "EOF")));
        assert_eq!(heredoc_marker("<< -EOF"), Some((false, "-EOF")));
        for word in ["<<", "<<-", "<<<x", "x<<EOF", "\"<<EOF\"", "<EOF"] {
            assert_eq!(heredoc_marker(word), None, "{word}");
        }
    }
}
