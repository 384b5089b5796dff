//! The edge cases of the language's last table (D24), as far as text alone decides them.

use super::*;
use crate::ast::{CommandLine, TransferSource};
use crate::instruction::run::RunForm;
use proptest::prelude::*;

fn kinds(body: &str) -> Vec<InstructionKind> {
    let dockerfile = parse(&format!("FROM a\n{body}")).unwrap_or_else(|errors| panic!("{body}: {errors:?}"));
    dockerfile.stages[0].instructions.iter().map(|instruction| instruction.kind.clone()).collect()
}

fn kind(body: &str) -> InstructionKind {
    kinds(body).remove(0)
}

fn error(source: &str) -> String {
    parse(source).expect_err(source)[0].to_string()
}

fn run_form(body: &str) -> RunForm {
    match kind(body) {
        InstructionKind::Run(run) => run.form(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_have_the_norm_s_texts() {
    for (id, source, message) in [
        ("D1.9", "", "the Dockerfile cannot be empty"),
        ("D1.10", "# only\n\n", "file with no instructions"),
        ("D1.11", "ARG a\n", "dockerfile contains no stages to build"),
        ("D1.12", "RUN x\nFROM a", "no build stage in current context"),
        (
            "D6.4",
            "FROM a\nFNTRYPOINT x",
            "dockerfile parse error on line 2: unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)",
        ),
        ("D12.1", "FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("E19", "FROM a AS b # c", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        (
            "D12.2",
            "FROM a AS 1x",
            "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols",
        ),
        ("E25", "FROM a\nRUN echo it's <<EOF\nx\nEOF", "dockerfile parse error on line 3: unknown instruction: X"),
        ("E26", "FROM a\nUSER <<X\nX", "dockerfile parse error on line 3: unknown instruction: X"),
        (
            "E33",
            "FROM a\nCOPY a <<EOF\nEOF",
            "dockerfile parse error on line 2: COPY cannot accept a heredoc as a destination",
        ),
        ("E40", "FROM a\nCMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("E43", "FROM a\nCMD --x a", "dockerfile parse error on line 2: unknown flag: --x"),
        (
            "D7.5",
            "FROM a\nRUN --mont=x y",
            "dockerfile parse error on line 2: unknown flag: --mont (did you mean mount?)",
        ),
        (
            "E45",
            "FROM a\nCOPY --chown=a --chown=b f /",
            "dockerfile parse error on line 2: duplicate flag specified: --chown",
        ),
        ("E46", "FROM a\nCOPY --link= f /", "dockerfile parse error on line 2: missing a value on flag: --link"),
        (
            "D7.7",
            "FROM a\nCOPY --link=x f /",
            "dockerfile parse error on line 2: expecting boolean value for flag --link, not: x",
        ),
        ("E49", "FROM a\nENV a=1 b", "Syntax error - can't find = in \"b\". Must be of the form: name=value"),
        ("D14.3", "FROM a\nENV a", "dockerfile parse error on line 2: ENV must have two arguments"),
        ("D14.3", "FROM a\nLABEL", "dockerfile parse error on line 2: LABEL requires at least one argument"),
        ("D14.3", "FROM a\nENV =x", "dockerfile parse error on line 2: ENV names can not be blank"),
        ("D13.1", "FROM a\nARG =x", "dockerfile parse error on line 2: ARG names can not be blank"),
        (
            "D15.50",
            "FROM a\nONBUILD ONBUILD RUN x",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "D15.50",
            "FROM a\nONBUILD FROM x",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "D18.1",
            "FROM a\nCOPY x",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "E121",
            "FROM a\nHEALTHCHECK --interval=500us CMD x",
            "dockerfile parse error on line 2: Interval \"interval\" cannot be less than 1ms",
        ),
        (
            "D15.35",
            "FROM a\nHEALTHCHECK NONE x",
            "dockerfile parse error on line 2: HEALTHCHECK NONE takes no arguments",
        ),
        (
            "D15.35",
            "FROM a\nHEALTHCHECK CMD",
            "dockerfile parse error on line 2: Missing command after HEALTHCHECK CMD",
        ),
        (
            "E122",
            "FROM a\nSHELL /bin/bash -c",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
        (
            "D15.6",
            "FROM a\nRUN --network=nope x",
            "dockerfile parse error on line 2: invalid network mode \"nope\" (did you mean none?)",
        ),
    ] {
        assert_eq!(error(source), message, "{id}");
    }
}

#[test]
fn several_errors_are_reported_together() {
    let errors = parse("FROM a\nCOPPY x y\nRUN ok\nCMD --bad x\n").unwrap_err();
    assert_eq!(errors.len(), 2);
}

#[test]
fn json_and_shell_forms() {
    let shell = |text: &str| InstructionKind::Cmd(CommandLine::Shell(text.into()));
    let exec =
        |words: &[&str]| InstructionKind::Cmd(CommandLine::Exec(words.iter().map(|word| word.to_string()).collect()));
    for (id, body, expected) in [
        ("E39", "CMD ['a', 'b']", shell("['a', 'b']")),
        ("E41", "CMD [ \"a\", \"b\" ] && c", shell("[ \"a\", \"b\" ] && c")),
        ("E44", "CMD -- [\"a\"]", exec(&["a"])),
        ("D8.2", "CMD []", exec(&[])),
        ("D8.8", "CMD", shell("")),
    ] {
        assert_eq!(kind(body), expected, "{id}");
    }
}

#[test]
fn here_documents_of_run() {
    let shell = |text: &str| RunForm::Command(CommandLine::Shell(text.into()));
    for (id, body, expected) in [
        ("E21", "RUN cat <<<foo", shell("cat <<<foo")),
        ("E22", "RUN echo $((1<<2))", shell("echo $((1<<2))")),
        ("E23", "RUN echo \"<<EOF\"", shell("echo \"<<EOF\"")),
        ("E34", "RUN <<EOF\n#!/bin/x\ny\nEOF", RunForm::Script { name: "EOF".into(), content: "#!/bin/x\ny\n".into() }),
        ("E35", "RUN <<'EOF'\necho $v\nEOF", shell("echo $v\n")),
        ("E36", "RUN <<EOF python3\nprint(1)\nEOF", shell("<<EOF python3\nprint(1)\nEOF")),
        ("E37", "RUN 3<<EOF\nx\nEOF", shell("x\n")),
        ("D5.24", "RUN <<-EOF\n\tx\n\tEOF", shell("x\n")),
        ("D5.25", "RUN cat <<-A <<B\n\t1\nA\n2\nB", shell("cat <<-A <<B\n\t1\nA\n2\nB")),
    ] {
        assert_eq!(run_form(body), expected, "{id}");
    }
}

#[test]
fn here_documents_of_copy() {
    let InstructionKind::Copy(copy) = kind("COPY <<A f <<\"B\" /d/\n1\nA\n2\nB") else { panic!("not a COPY") };
    let sources: Vec<_> = copy
        .sources
        .iter()
        .map(|source| match source {
            TransferSource::Path(word) => word.value.clone(),
            TransferSource::Heredoc(heredoc) => format!("{}={}{}", heredoc.name, heredoc.body, heredoc.expand),
        })
        .collect();
    assert_eq!(sources, ["A=1\ntrue", "f", "B=2\nfalse"]);
}

#[test]
fn flags_end_where_arguments_begin() {
    let InstructionKind::Copy(copy) = kind("COPY --chown='a b' -- --x /y") else { panic!("not a COPY") };
    assert_eq!(copy.chown.unwrap().value, "a b", "D7.3");
    let [TransferSource::Path(source)] = copy.sources.as_slice() else { panic!("not one path") };
    assert_eq!(source.value, "--x", "D7.2");
    assert!(
        matches!(kind("HEALTHCHECK --bogus NONE"), InstructionKind::Healthcheck(check) if check.test == ["NONE"]),
        "E47"
    );
}

#[test]
fn words_know_their_place() {
    let source = "FROM a\nCOPY one \\\n  two /d/\n";
    let dockerfile = parse(source).unwrap();
    let InstructionKind::Copy(copy) = &dockerfile.stages[0].instructions[0].kind else { panic!("not a COPY") };
    let TransferSource::Path(two) = &copy.sources[1] else { panic!("not a path") };
    assert_eq!(&source[two.span.start..two.span.end], "two");
}

#[test]
fn legacy_pairs_take_the_whole_rest() {
    let InstructionKind::Env(pairs) = kind("ENV a b=c  d") else { panic!("not an ENV") };
    assert_eq!((pairs[0].0.value.as_str(), pairs[0].1.value.as_str()), ("a", "b=c  d"), "E48");
}

proptest! {
    #[test]
    fn never_panics(source in "(?s)(FROM a\n)?([A-Z]{3,6} [ -~\n\\\\<\"'\\[\\]=-]*\n?){0,4}") {
        let _ = parse(&source);
    }

    #[test]
    fn never_panics_on_any_text(source in "\\PC*") {
        let _ = parse(&source);
        let _ = parse_trigger(&source);
    }
}
