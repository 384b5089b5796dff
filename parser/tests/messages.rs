//! The texts of errors (D22.2 and the clauses of each instruction), and how diagnostics are drawn.

use parser::{LineIndex, parse, parse_trigger};

fn all(source: &str) -> Vec<String> {
    parse(source).unwrap_err().into_iter().map(|error| error.to_string()).collect()
}

#[test]
fn whole_files() {
    let cases = [
        ("", "the Dockerfile cannot be empty"),
        ("# only\n\n# comments\n", "file with no instructions"),
        ("\u{feff}", "file with no instructions"),
        ("ARG a=1\n", "dockerfile contains no stages to build"),
        ("RUN x\nFROM a\n", "no build stage in current context"),
        ("FROM a\nCOPY <<E /f\nx", "unterminated heredoc"),
    ];
    for (source, message) in cases {
        assert_eq!(all(source), [message], "{source:?}");
    }
}

#[test]
fn instructions() {
    let cases = [
        ("FNTRYPOINT x", "unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"),
        ("runn x", "unknown instruction: runn (did you mean run?)"),
        ("FROM a AS 1x", "invalid name for build stage: \"1x\", name can't start with a number or contain symbols"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM --x=1 a", "unknown flag: --x"),
        ("RUN --mont=type=bind x", "unknown flag: --mont (did you mean mount?)"),
        ("RUN --network=hots x", "invalid network mode \"hots\" (did you mean host?)"),
        ("RUN --security=x y", "security \"x\" is not valid"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL", "SHELL requires at least one argument"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK foo x", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ];
    for (text, message) in cases {
        let expected = format!("dockerfile parse error on line 2: {message}");
        assert_eq!(all(&format!("FROM a\n{text}")), [expected], "{text}");
    }
    for (text, message) in [
        ("ENV a", "ENV must have two arguments"),
        ("LABEL a", "LABEL must have two arguments"),
        ("ONBUILD ENV a", "ENV must have two arguments"),
    ] {
        assert_eq!(all(&format!("FROM a\n{text}")), [message], "{text}");
    }
}

#[test]
fn accepted_oddities() {
    for text in ["ARG --x a", "STOPSIGNAL --x 9", "RUN --network=host x", "ONBUILD FOO bar", "ENTRYPOINT []", "CMD"] {
        parse(&format!("FROM a\n{text}")).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    }
}

#[test]
fn several_errors_are_reported_together_and_buildkits_first() {
    let source = "FROM a\nFOO x\nCOPY a\nENV a=1 b\n";
    assert_eq!(
        all(source),
        [
            "Syntax error - can't find = in \"b\". Must be of the form: name=value",
            "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
            "dockerfile parse error on line 3: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ]
    );
    assert_eq!(all("FROM\nRUN x\nCOPY a b\n").len(), 1);
    assert_eq!(all("RUN x\nRUN y\n"), ["no build stage in current context"]);
}

#[test]
fn triggers() {
    let error = |text: &str| parse_trigger(text).unwrap_err().to_string();
    assert_eq!(error("RUN x\nRUN y"), "onbuild trigger should be a single expression");
    assert_eq!(error("FROM x"), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(error("XYZZY x"), "unknown instruction: XYZZY");
    assert_eq!(error(""), "file with no instructions");
    assert_eq!(parse_trigger("COPY a b").unwrap().kind.name(), "COPY");
}

#[test]
fn spans_point_at_the_words() {
    let source = "FROM a AS Base\nRUN --mount=type=bind,from=b,target='/x' y \\\n  z\nENV a=1 \\\n  b='2 3'\n";
    let file = parse(source).unwrap();
    let text = |span: parser::Span| &source[span.start..span.end];
    let stage = &file.stages[0];
    assert_eq!(text(stage.from.name.as_ref().unwrap().span), "Base");
    let parser::InstructionKind::Run(run) = &stage.instructions[0].kind else { panic!("no RUN") };
    assert_eq!(text(run.mounts[0].span), "type=bind,from=b,target='/x'");
    assert_eq!(LineIndex::new(source).lines(stage.instructions[0].span), (2, 3));
    let parser::InstructionKind::Env(parser::ast::Pairs { pairs, .. }) = &stage.instructions[1].kind else {
        panic!("no ENV")
    };
    assert_eq!((text(pairs[1].0.span), text(pairs[1].1.span)), ("b", "'2 3'"));
}

#[test]
fn drawing() {
    let source = "FROM alpine\nRUN --mont=type=cache \\\n    echo hi\nFOO bar\n";
    let errors = parse(source).unwrap_err();
    insta::assert_snapshot!(errors[0].render(source, "Dockerfile", false), @r"
    error[UnknownFlag]: dockerfile parse error on line 2: unknown flag: --mont
     --> Dockerfile:2:5
      |
    2 | RUN --mont=type=cache \
      |     ^^^^^^
      |
      = help: did you mean mount?
    ");
    insta::assert_snapshot!(errors[1].render(source, "Dockerfile", false), @r"
    error[UnknownInstruction]: dockerfile parse error on line 4: unknown instruction: FOO
     --> Dockerfile:4:1
      |
    4 | FOO bar
      | ^^^
      |
      = help: did you mean FROM?
    ");
    let source = "FROM alpine\nCOPY <<EOF \\\n  /f\nhello\n";
    let errors = parse(source).unwrap_err();
    insta::assert_snapshot!(errors[0].render(source, "Dockerfile", false), @r"
    error[UnterminatedHeredoc]: unterminated heredoc
     --> Dockerfile:2:1
      |
    2 | / COPY <<EOF \
    3 | |   /f
      | |____^
      |
      = note: there is no line `EOF` that would end the here-document
    ");
}

/// One mistake of each kind: all are said, each underlines what is wrong and no more.
#[test]
fn mistakes_underline_what_is_wrong() {
    let cases = [
        ("FROM a\nRUN --network=hos x", "InvalidFlagValue", "hos", Some("host")),
        ("FROM a\nRUN --security=insecur x", "InvalidFlagValue", "insecur", Some("insecure")),
        ("FROM a\nCOPY --form=b x /", "UnknownFlag", "--form", Some("from")),
        ("FROM a\nCOPY --link=maybe x /", "InvalidFlagValue", "--link=maybe", None),
        ("FROM a\nHEALTHCHECK --interval=1x CMD y", "InvalidFlagValue", "1x", None),
        ("FROM a\nHEALTHCHECK CMDD y", "WrongArgumentCount", "CMDD", Some("CMD")),
        ("FROM a AS 1b", "InvalidStageName", "1b", None),
        ("FROM a # first", "WrongArgumentCount", "a # first", None),
        ("FROM a\nENV a=1 b", "InvalidKeyValue", "b", None),
        ("FROM a\nCOPY x", "WrongArgumentCount", "x", None),
        ("FROM a\nCOPY --from=$b x /", "InvalidExpansion", "$b", None),
        ("FROM a\nSHELL /bin/sh", "InvalidJsonForm", "/bin/sh", None),
        ("FROM a\nONBUILD FROM b", "InvalidTrigger", "FROM", None),
        ("RUN x\nFROM a", "InstructionBeforeFrom", "RUN x", None),
        ("# escape=x\nFROM a", "InvalidDirective", "# escape=x", None),
    ];
    for (source, rule, underlined, suggestion) in cases {
        let errors = parse(source).unwrap_err();
        let [error] = errors.as_slice() else { panic!("{source}: {errors:?}") };
        assert_eq!((error.rule, &source[error.focus.start..error.focus.end]), (rule, underlined), "{source}");
        assert_eq!(error.suggestion.as_deref(), suggestion, "{source}");
    }
}

#[test]
fn repeated_heredocs_cannot_multiply_memory() {
    let body = "x".repeat(1000) + "\n";
    let markers = "<<A ".repeat(5000);
    let source = format!("FROM a\nCOPY {markers}/\n{}{}A\n", "A\n".repeat(4999), body.repeat(100));
    assert!(all(&source)[0].contains("the here-documents are longer than"));
}
