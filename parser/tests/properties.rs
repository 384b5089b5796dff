//! Nothing that a file contains makes the parser panic.

use std::collections::BTreeMap;

use parser::{Expander, IgnoreFile, Mount, PatternMatcher, parse, parse_bytes};
use proptest::prelude::*;

/// Text made of what the grammar reacts to, which random characters seldom hit.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM a",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "SHELL ",
        "VOLUME ",
        "EXPOSE ",
        "--mount=",
        "--from=",
        "--interval=",
        "--",
        "<<EOF",
        "<<-",
        "<<",
        "EOF",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        "\\",
        "`",
        "# escape=`\n",
        "# syntax=",
        "#",
        "'",
        "\"",
        "$",
        "${",
        "}",
        ":-",
        "#",
        "%",
        "/",
        "*",
        "?",
        "[",
        "]",
        "{\"",
        ",",
        "=",
        " ",
        "\t",
        "a",
        "1",
        "é",
        "\u{feff}",
        "\u{a0}",
        "AS ",
        "type=cache,",
        "size=1g",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// All spans lie in the source, and every diagnostic can be drawn.
fn check(source: &str) {
    match parse(source) {
        Ok(file) => {
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                assert!(source.get(instruction.span.start..instruction.span.end).is_some());
            }
            for warning in file.warnings {
                warning.render(source, "Dockerfile", true);
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(source.get(error.span.start..error.span.end).is_some(), "{error:?}");
                error.render(source, "Dockerfile", false);
            }
        }
    }
    let _ = parser::parse_trigger(source);
}

proptest! {
    #[test]
    fn any_text_parses_or_fails(source in any::<String>()) {
        check(&source);
    }

    #[test]
    fn any_dockerfile_like_text_parses_or_fails(source in dockerfile_like()) {
        check(&source);
    }

    #[test]
    fn any_bytes_parse_or_fail(source in any::<Vec<u8>>()) {
        let (text, result) = parse_bytes(&source);
        prop_assert!(result.is_ok() || !text.starts_with("FROM a\n") || text.len() > 7);
    }

    #[test]
    fn any_word_expands_or_fails(word in dockerfile_like(), other in any::<String>(), value in any::<String>()) {
        let scope = BTreeMap::from([("a".to_owned(), value)]);
        for escape in ['\\', '`'] {
            let expander = Expander::new(escape);
            for word in [&word, &other] {
                let _ = expander.word(word, &scope);
                let _ = expander.words(word, &scope);
                let _ = expander.heredoc(word, &scope);
                let _ = expander.display(word, &scope);
            }
        }
    }

    #[test]
    fn quoted_text_expands_to_itself(text in "[^']*") {
        let expansion = Expander::new('\\').word(&format!("'{text}'"), &BTreeMap::new()).unwrap();
        prop_assert_eq!(expansion.text, text);
    }

    #[test]
    fn any_ignore_file_parses_or_fails(text in "[a-c*?\\[\\]\\\\/!# \n^-]{0,40}", path in any::<Vec<u8>>()) {
        if let Ok(file) = IgnoreFile::parse(&text) {
            let matcher = file.matcher();
            let is_excluded = matcher.is_excluded(&path);
            prop_assert!(!is_excluded || matcher.deciding_pattern(&path).is_some());
        }
    }

    /// Pruning is safe: below a directory that may be pruned nothing is included.
    #[test]
    fn pruned_directories_hold_nothing(
        patterns in prop::collection::vec("!?[ab*/]{1,6}", 1..5),
        directory in "[ab]{1,2}(/[ab]){0,2}",
        below in "[ab]{1,2}(/[ab]){0,2}",
    ) {
        let Ok(matcher) = PatternMatcher::new(&patterns) else { return Ok(()) };
        if matcher.is_excluded(directory.as_bytes()) && !matcher.may_reinclude_below(directory.as_bytes()) {
            let path = format!("{directory}/{below}");
            prop_assert!(matcher.is_excluded(path.as_bytes()), "{patterns:?} {path}");
        }
    }

    #[test]
    fn any_value_is_parsed_or_refused(text in any::<String>(), like in "[0-9a-z:/.,=\"+-]{0,20}") {
        for text in [&text, &like] {
            let _ = Mount::parse(text, &mut |value| Ok(value.to_owned()));
            let _ = parser::expose::parse_port(text);
            let _ = parser::signal::is_valid(text);
            let _ = parser::chmod::parse(text);
            let _ = parser::glob::match_path(text, text);
            let _ = parser::glob::split_wildcard(text);
            let _ = parser::path::destination(text, text);
            let _ = parser::source::SourceKind::of(text);
            let _ = parser::lint::CheckOptions::parse(text);
        }
    }
}
