//! Clauses of the specification's language part that no edge case and no message shows; each row cites its clause.

use parser::ast::{CommandLine, InstructionKind};
use parser::{Dockerfile, Expander, Instruction, parse};
use std::collections::BTreeMap;

fn parsed(clause: &str, source: &str) -> Dockerfile {
    parse(source).unwrap_or_else(|errors| panic!("{clause}: {errors:?}"))
}

/// The instructions of the only stage, as written.
fn texts(clause: &str, source: &str) -> Vec<String> {
    let file = parsed(clause, source);
    file.stages[0].instructions.iter().map(|instruction| instruction.text.clone()).collect()
}

fn error(clause: &str, source: &str) -> String {
    match parse(source) {
        Ok(file) => panic!("{clause}: {file:?}"),
        Err(errors) => errors[0].to_string(),
    }
}

#[test]
fn lines() {
    for (clause, source, expected) in [
        ("D1.2", "\u{feff}FROM a\nRUN x\u{feff}", &["RUN x\u{feff}"][..]),
        ("D1.3", "FROM a\nRUN x", &["RUN x"]),
        ("D1.4", "FROM a\r\nRUN x \\\r\n y\r\r\n", &["RUN x  y"]),
        ("D1.7", "FROM a\n \u{a0}\tRUN x", &["RUN x"]),
        ("D1.8", "FROM a\nRUN x\\\n  y", &["RUN x  y"]),
        ("D3.1", "FROM a\n  # c\nRUN x", &["RUN x"]),
        ("D3.2", "FROM a\nRUN x # y", &["RUN x # y"]),
        ("D3.3", "FROM a\nRUN x \\\n# c \\\n  y", &["RUN x   y"]),
        ("D3.4", "FROM a\n\n\nRUN x\n\n", &["RUN x"]),
        ("D4.2", "FROM a\nRUN x\\\n\\  \ny", &["RUN xy"]),
        ("D4.4", "FROM a\nRUN ab\\\ncd", &["RUN abcd"]),
        ("D4.5", "FROM a\nRUN x \\", &["RUN x"]),
        ("D4.6", "FROM a\nRUN 'x \\\n# y\nz'", &["RUN 'x z'"]),
        ("D4.7", "# escape=`\nFROM a\nRUN x \\\nRUN y", &["RUN x \\", "RUN y"]),
        ("D6.2", "FROM a\nrUn x", &["rUn x"]),
    ] {
        assert_eq!(texts(clause, source), expected, "{clause}");
    }
}

#[test]
fn directives() {
    for (clause, source, escape) in [
        ("D2.1", "# ESCAPE=`\nFROM a", '`'),
        ("D2.4", "# foo=bar\n# escape=`\nFROM a", '\\'),
        ("D2.13", "# syntax=x\n# escape=`\nFROM a", '`'),
    ] {
        assert_eq!(parsed(clause, source).directives.escape, escape, "{clause}");
    }
    let file = parsed("D2.15", "# check=skip=A;error=true rest\n# syntax=docker/dockerfile:1\nFROM a");
    assert_eq!(file.directives.check.as_deref().map(String::as_str), Some("skip=A;error=true"), "D2.15");
    assert_eq!(file.directives.syntax.as_deref().map(String::as_str), Some("docker/dockerfile:1"), "D2.14");
    assert_eq!(file.stages[0].from.comments, [""; 0], "D2.16");
    assert_eq!(error("D2.6", "# check=a\n# check=b\nFROM a"), "only one check parser directive can be used");
    assert!(error("D2.12", "# escape=x\nFROM a").contains("invalid escape token 'x'"), "D2.12");
}

fn only(clause: &str, text: &str) -> Instruction {
    parsed(clause, &format!("FROM a\n{text}")).stages.remove(0).instructions.remove(0)
}

#[test]
fn here_documents() {
    // D5.3, D5.4: no markers, so that the next line is an instruction.
    for text in ["RUN cat <<<x", "RUN x<<EOF", "RUN \"<<EOF\" '<<EOF'", "RUN $((1<<2))"] {
        assert_eq!(parsed("D5.3", &format!("FROM a\n{text}\nRUN y")).stages[0].instructions.len(), 2, "{text}");
    }
    assert!(error("D5.8", "FROM a\nRUN <<\"EOF\nx\nEOF").contains("unknown instruction"), "D5.8, D5.9");
    let InstructionKind::Run(run) = only("D3.8", "RUN <<E\n# no comment\n\nE\n").kind else { panic!("D3.8") };
    assert_eq!(run.heredocs[0].body, "# no comment\n\n", "D3.8");
    let InstructionKind::Run(run) = only("D5.23", "RUN <<E\n$x\\n\nE\n").kind else { panic!("D5.23") };
    assert_eq!(run.script(), parser::RunForm::Command(CommandLine::Shell("$x\\n\n".into())), "D5.23");
}

#[test]
fn flags_and_forms() {
    for (clause, text, message) in [
        ("D6.4", "FOO", "unknown instruction: FOO"),
        ("D7.4", "COPY --From=x a /", "unknown flag: --From"),
        ("D7.5", "COPY --formm=x a /", "unknown flag: --formm (did you mean from?)"),
        ("D7.6", "COPY --link --link a /", "duplicate flag specified: --link"),
        ("D14.1", "ENV a=1 b", "can't find = in \"b\""),
        ("D14.3", "ENV a", "ENV must have two arguments"),
        ("D14.3", "LABEL =x", "LABEL names can not be blank"),
        ("D15.15", "MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("D15.21", "USER", "USER requires exactly one argument"),
    ] {
        assert!(error(clause, &format!("FROM a\n{text}")).contains(message), "{clause}: {text}");
    }
    // D7.10: text, not bytes.
    let InstructionKind::Copy(copy) = only("D7.10", "COPY --chown=\"ü é\" a /").kind else { panic!("D7.10") };
    assert_eq!(copy.chown.unwrap().value, "ü é", "D7.10");
    let InstructionKind::Run(run) = only("D8.5", "RUN [ -f x ] && y").kind else { panic!("D8.5") };
    assert_eq!(run.command, CommandLine::Shell("[ -f x ] && y".into()), "D8.5, D8.9");
    let InstructionKind::Env(pairs) = only("D14.5", "ENV a=b=c d=").kind else { panic!("D14.5") };
    assert_eq!((pairs.pairs[0].1.as_str(), pairs.pairs[1].1.as_str()), ("b=c", ""), "D14.5, D14.9");
    let InstructionKind::Maintainer(author) = only("D15.15", "MAINTAINER \"a\" $b").kind else { panic!("D15.15") };
    assert_eq!(author, "\"a\" $b", "D15.15");
}

#[test]
fn expansion() {
    let scope = BTreeMap::from([("v".to_owned(), "a/b".to_owned()), ("e".to_owned(), String::new())]);
    let expand = |word: &str| match Expander::new('\\').word(word, &scope) {
        Ok(expansion) => Ok(expansion.text),
        Err(error) => Err(error.reason.to_string()),
    };
    for (clause, word, expected) in [
        ("D9.9", "'x'\"y\"z", "xyz"),
        ("D11.5", "\\$v '$v' \\${v}", "$v $v ${v}"),
        ("D11.13", "${v/a*/x}${v/#a/y}", "xa/b"),
        ("D11.16", "${u:-'x y'}", "x y"),
        ("D11.17", "$V", ""),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(expected), "{clause}");
    }
    for (clause, word, message) in [
        ("D11.6", "${}", "bad substitution"),
        ("D11.6", "${v", "missing '}'"),
        ("D11.8", "${u:?}", "u: is not allowed to be unset"),
        ("D11.8", "${e:?}", "e: is not allowed to be empty"),
        ("D11.9", "${v:#a}", "unsupported modifier (:#) in substitution"),
        ("D11.14", "${v/a}", "missing '/' in ${}"),
    ] {
        assert!(expand(word).is_err_and(|error| error.contains(message)), "{clause}: {word}: {:?}", expand(word));
    }
}
