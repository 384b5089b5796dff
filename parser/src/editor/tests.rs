use super::*;

/// The text without its `|`, and where that stood.
fn marked(text: &str) -> (String, usize) {
    let at = text.find('|').unwrap();
    (text.replacen('|', "", 1), at)
}

fn files(directory: &str) -> Vec<(String, bool)> {
    match directory {
        "" => vec![("src".into(), true), ("main.c".into(), false), ("a b".into(), false)],
        "src" => vec![("lib.c".into(), false)],
        _ => Vec::new(),
    }
}

/// What the text becomes with each completion.
fn completed(text: &str) -> Vec<String> {
    let (source, at) = marked(text);
    let items = complete(&source, at, &files);
    items
        .iter()
        .map(|item| format!("{}{}{}", &source[..item.span.start], item.text, &source[item.span.end..]))
        .collect()
}

fn labels(text: &str) -> Vec<String> {
    let (source, at) = marked(text);
    complete(&source, at, &files).into_iter().map(|item| item.text).collect()
}

#[test]
fn instructions_complete() {
    assert_eq!(labels("|"), ["ARG", "FROM"]);
    assert_eq!(labels("F|"), ["ARG", "FROM"]);
    assert_eq!(labels("FROM a\n|").len(), 18);
    assert!(completed("FROM a\nco|").contains(&"FROM a\nCOPY".to_owned()));
    assert!(completed("FROM a\nONBUILD |").contains(&"FROM a\nONBUILD RUN".to_owned()));
    assert!(labels("FROM a\nRUN <<E\n|\nE").is_empty());
    assert!(labels("FROM a\nRUN x|").is_empty());
}

#[test]
fn flags_and_their_values_complete() {
    assert_eq!(labels("FROM a\nRUN --|"), ["--mount=", "--network=", "--security=", "--device="]);
    assert!(completed("FROM a\nCOPY --li| a /").contains(&"FROM a\nCOPY --link a /".to_owned()));
    assert_eq!(labels("FROM a\nRUN --network=|"), ["default", "none", "host"]);
    assert!(labels("FROM a\nRUN --mount=ty|").contains(&"type=".to_owned()));
    assert_eq!(completed("FROM a\nRUN --mount=type=ca|")[1], "FROM a\nRUN --mount=type=cache");
    assert_eq!(labels("FROM a\nRUN --mount=type=cache,sharing=|"), ["shared", "private", "locked"]);
    assert_eq!(labels("FROM a\nHEALTHCHECK |"), ["CMD", "NONE"]);
}

#[test]
fn stages_complete() {
    let file = "FROM a AS one\nFROM b AS two\n";
    assert_eq!(labels(&format!("{file}FROM |")), ["one", "two"]);
    assert_eq!(labels(&format!("{file}COPY --from=o| x /")), ["one"]);
    assert_eq!(labels(&format!("{file}RUN --mount=from=| x")), ["one"]);
    assert_eq!(labels("FROM a |"), ["AS"]);
}

#[test]
fn variables_complete() {
    let file = "ARG G=1\nFROM a\nARG V=1 W\nENV E=2\n";
    assert_eq!(labels(&format!("{file}COPY $|")), ["E", "V", "W"]);
    assert_eq!(completed("FROM a\nARG VV\nCOPY x${V|} /")[0], "FROM a\nARG VV\nCOPY x${VV} /");
    let from = labels("ARG G=1\nFROM --platform=$|");
    assert!(from.contains(&"G".to_owned()) && from.contains(&"BUILDPLATFORM".to_owned()));
}

#[test]
fn context_files_complete() {
    assert_eq!(labels("FROM a\nCOPY |"), ["src/", "main.c"]);
    assert_eq!(completed("FROM a\nCOPY --link src/l|"), ["FROM a\nCOPY --link src/lib.c"]);
    assert_eq!(completed("FROM a\nCOPY a \\\n  ma|")[1], "FROM a\nCOPY a \\\n  main.c");
    assert_eq!(labels("FROM a\nRUN --mount=source=|,target=/x y"), ["src/", "main.c"]);
    assert!(labels("FROM a\nCOPY --from=b |").is_empty());
}

#[test]
fn directives_complete() {
    assert_eq!(labels("# |"), ["check=", "escape=", "syntax="]);
    assert!(labels("FROM a\n# |").is_empty());
    assert_eq!(labels("# check=|"), ["skip=", "experimental=", "error=true"]);
    assert!(completed("# check=skip=all,Und|").contains(&"# check=skip=all,UndefinedVar".to_owned()));
}

#[test]
fn hovers_tell() {
    let cases = [
        ("FROM a\nCO|PY a b", "COPY", "COPY [FLAGS]"),
        ("FROM a\nONBUILD ru|n x", "run", "RUN [FLAGS]"),
        ("FROM a\nRUN --mo|unt=type=cache x", "--mount=type=cache", "--mount=type=TYPE"),
        ("FROM a\nRUN --mount=type=cac|he,target=/x x", "type=cache,target=/x", "outlives the build"),
        ("FROM a\nRUN --mount=type=cache,ds|t=/x x", "type=cache,dst=/x", "Where it is mounted"),
        ("FROM a\nRUN --network=no|ne x", "none", "--network=default"),
        ("FROM a\nARG V=1\nCOPY $|V /", "$V", "ARG V=1"),
        ("FROM --platform=$TARGET|ARCH a", "$TARGETARCH", "A part of TARGETPLATFORM"),
        ("FROM a\nCOPY ${NO|PE} /", "${NOPE}", "not declared"),
        ("# one does it\nFROM a AS one\nFROM on|e", "one", "does it"),
        ("FROM a AS one\nFROM b\nCOPY --from=|0 x /", "0", "FROM a AS one"),
        ("# esc|ape=`\nFROM a", "escape", "backtick"),
        ("# check=skip=Undefin|edVar\nFROM a", "UndefinedVar", "Variables should be defined"),
    ];
    for (text, underlined, expected) in cases {
        let (source, at) = marked(text);
        let hover = hover(&source, at).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(&source[hover.span.start..hover.span.end], underlined, "{text}");
        assert!(hover.text.contains(expected), "{text}: {}", hover.text);
    }
    for text in ["|", "FROM a\nRUN x| y", "FROM a\nFO|O x", "FROM a\nRUN <<E\nCO|PY\nE", "# no|te\nFROM a"] {
        let (source, at) = marked(text);
        assert_eq!(hover(&source, at), None, "{text}");
    }
}

#[test]
fn definitions_are_found() {
    let cases = [
        ("FROM a AS one\nFROM on|e", 10),
        ("FROM a AS one\nFROM b AS one\nFROM one|", 24),
        ("FROM a AS one\nFROM b\nCOPY --from=o|ne x /", 10),
        ("FROM a AS one\nFROM b\nCOPY --from=0| x /", 10),
        ("FROM a AS one\nFROM b\nRUN --mount=type=bind,from=on|e,target=/x y", 10),
        ("FROM a\nARG V=1\nENV V=2\nCOPY $V| /", 19),
        ("ARG V=1\nFROM a:$|V", 4),
    ];
    for (text, expected) in cases {
        let (source, at) = marked(text);
        assert_eq!(define(&source, at).map(|span| span.start), Some(expected), "{text}");
    }
    for text in ["FROM a|", "FROM a\nCOPY --from=b| x /", "FROM a\nCOPY $N| /", "ARG V\nFROM a\nCOPY $V| /"] {
        let (source, at) = marked(text);
        assert_eq!(define(&source, at), None, "{text}");
    }
}

#[test]
fn stages_are_listed_with_their_instructions() {
    let symbols = symbols("ARG V\nFROM a AS one\nRUN x \\\n y\nFROM b\n");
    let names: Vec<_> = symbols.iter().map(|symbol| (symbol.name.as_str(), symbol.children.len())).collect();
    assert_eq!(names, [("ARG", 0), ("one", 1), ("stage 1", 0)]);
    assert_eq!((symbols[1].detail.as_str(), symbols[1].span.end), ("FROM a", 30));
}

/// An editor asks at any offset of any text.
#[test]
fn any_offset_can_be_asked_about() {
    let text = "# check=skip=é\nFROM a AS é\nCOPY --from=é \\\n # x\n ${é:-ü} <<É /\nÉ\nRUN --mount=,= é\nENV é=$é\nONBUILD  \\\n";
    for source in [text.to_owned(), text.replace('\n', "\r\n"), text.replace(' ', "")] {
        for at in 0..=source.len() + 2 {
            let _ = (hover(&source, at), define(&source, at), complete(&source, at, &files));
        }
        symbols(&source);
    }
}
