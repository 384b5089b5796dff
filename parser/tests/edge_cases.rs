//! The edge cases of D24 that are the parser's: each assertion names its row.

use std::collections::HashMap;

use parser::ast::{CommandLine, InstructionKind, Transfer, TransferSource};
use parser::{Dockerfile, Expander, Heredoc, Instruction, Mount, RunForm, parse};

fn parsed(row: &str, source: &str) -> Dockerfile {
    parse(source).unwrap_or_else(|errors| panic!("{row}: {errors:?}\n{source}"))
}

/// The only instruction behind `FROM a`.
fn instruction(row: &str, text: &str) -> Instruction {
    let file = parsed(row, &format!("FROM a\n{text}"));
    let [instruction] = file.stages[0].instructions.as_slice() else {
        panic!("{row}: not one instruction: {:?}", file.stages[0].instructions)
    };
    instruction.clone()
}

/// The first error of a file that starts with `FROM a`.
fn error(row: &str, text: &str) -> String {
    match parse(&format!("FROM a\n{text}")) {
        Ok(file) => panic!("{row}: no error: {file:?}"),
        Err(errors) => errors[0].to_string(),
    }
}

fn assert_error(row: &str, text: &str, expected: &str) {
    let message = error(row, text);
    assert!(message.contains(expected), "{row}: {message}");
}

fn shell(row: &str, text: &str) -> String {
    match instruction(row, text).kind {
        InstructionKind::Cmd(CommandLine::Shell(text)) => text,
        InstructionKind::Run(run) => match run.script() {
            RunForm::Command(CommandLine::Shell(text)) => text,
            other => panic!("{row}: {other:?}"),
        },
        other => panic!("{row}: {other:?}"),
    }
}

fn transfer(row: &str, text: &str) -> Transfer {
    match instruction(row, text).kind {
        InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => transfer,
        other => panic!("{row}: {other:?}"),
    }
}

fn bodies(row: &str, text: &str) -> Vec<Heredoc> {
    let sources = transfer(row, text).sources;
    let heredocs = sources.into_iter().map(|source| match source {
        TransferSource::Heredoc(heredoc) => heredoc,
        TransferSource::Path(path) => panic!("{row}: path {path:?}"),
    });
    heredocs.collect()
}

fn scope(variables: &[(&str, &str)]) -> HashMap<String, String> {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn expanded(word: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let expansion = Expander::new('\\').word(word, &scope(variables));
    expansion.map(|expansion| expansion.text).map_err(|error| error.to_string())
}

/// The expanded value of the only ENV, ARG or LABEL pair.
fn value(row: &str, text: &str, variables: &[(&str, &str)]) -> Result<(String, String), String> {
    let (name, value) = match instruction(row, text).kind {
        InstructionKind::Env(mut pairs) | InstructionKind::Label(mut pairs) => pairs.pairs.pop().unwrap(),
        other => panic!("{row}: {other:?}"),
    };
    Ok((expanded(&name, variables)?, expanded(&value, variables)?))
}

fn pair(name: &str, value: &str) -> Result<(String, String), String> {
    Ok((name.to_owned(), value.to_owned()))
}

#[test]
fn directives() {
    let escape = |row, source: &str| parsed(row, source).directives.escape;
    assert_eq!(escape("E1", "#!/usr/bin/x\n# escape=`\nFROM a"), '\\', "E1");
    let file = parsed("E2", "#!/usr/bin/x\n# check=skip=all\nFROM a");
    assert_eq!(file.directives.check.unwrap().value, "skip=all", "E2");
    assert_eq!(escape("E3", "\n# escape=`\nFROM a"), '\\', "E3");
    assert_eq!(escape("E4", "# note\n# escape=`\nFROM a"), '\\', "E4");
    assert_eq!(escape("E5", "# foo=bar\n# escape=`\nFROM a"), '\\', "E5");
    assert_eq!(escape("E6", "# EsCaPe=`\nFROM a"), '`', "E6");
    let first = |source: &str| parse(source).unwrap_err()[0].to_string();
    assert_eq!(first("# escape=`\n# escape=`\nFROM a"), "only one escape parser directive can be used", "E7");
    assert_eq!(first("# escape=x\nFROM a"), "invalid escape token 'x' does not match ` or \\", "E8");
    let file = parsed("E9", "# check=skip=A, B\nFROM a");
    assert_eq!(file.directives.check.unwrap().value, "skip=A,", "E9");
    assert_eq!(escape("E10", "\u{feff}# escape=`\nFROM a"), '`', "E10");
    assert_eq!(escape("D2.8", "  # escape=`\nFROM a"), '`', "D2.8");
    assert_eq!(escape("D2.5", "# escape=\n# escape=`\nFROM a"), '\\', "D2.5");
    let file = parsed("D2.16", "# syntax=docker/dockerfile:1\n# doc\nFROM a");
    assert_eq!(file.stages[0].from.comments, ["doc"], "D2.16");
    assert_eq!(file.directives.syntax.unwrap().value, "docker/dockerfile:1");
}

#[test]
fn continuations() {
    assert_eq!(shell("E11", "RUN a \\\r\n  b\r\n"), "a   b", "E11");
    assert_eq!(shell("E12", "RUN a \\  \n b"), "a  b", "E12");
    let file = parsed("E13", "FROM a\nENV C x\\\\\nENV D y");
    let InstructionKind::Env(pairs) = &file.stages[0].instructions[0].kind else { panic!("E13") };
    assert_eq!(expanded(&pairs.pairs[0].1, &[]).as_deref(), Ok("x\\"), "E13");
    assert_eq!(file.stages[0].instructions.len(), 2, "E13");
    assert_eq!(value("E14", "ENV E hello\\\n\\\nworld", &[]), pair("E", "helloworld"), "E14");
    assert_eq!(shell("E15", "RUN a && \\\n# note \\\n b"), "a &&  b", "E15");
    assert_eq!(shell("E16", "RUN a \\\n\n b"), "a  b", "E16");
    assert_eq!(parsed("E16", "FROM a\nRUN a \\\n\n b").warnings[0].rule, "NoEmptyContinuation", "E16");
    assert_eq!(shell("E17", "RUN x \\"), "x", "E17");
    assert_eq!(shell("E18", "RUN echo a # b"), "echo a # b", "E18");
    let errors = parse("FROM a AS b # c").unwrap_err();
    let expected = "dockerfile parse error on line 1: FROM requires either one or three arguments";
    assert_eq!(errors[0].to_string(), expected, "E19");
    assert_eq!(shell("E20", "RUN echo \"x\\\n# y\\\nz\""), "echo \"xz\"", "E20");
}

#[test]
fn what_is_no_heredoc() {
    assert_eq!(shell("E21", "RUN cat <<<foo"), "cat <<<foo", "E21");
    assert_eq!(shell("E22", "RUN echo $((1<<2))"), "echo $((1<<2))", "E22");
    assert_eq!(shell("E23", "RUN echo \"<<EOF\""), "echo \"<<EOF\"", "E23");
    let InstructionKind::Run(run) = instruction("E24", "RUN [\"<<EOF\"]").kind else { panic!("E24") };
    assert_eq!(run.command, CommandLine::Exec(vec!["<<EOF".into()]), "E24");
    assert_error("E25", "RUN echo it's <<EOF\nx\nEOF", "parse error on line 3: unknown instruction: x");
    assert_error("E26", "USER <<X\nX", "unknown instruction: X");
    assert!(matches!(instruction("E26", "USER <<X").kind, InstructionKind::User(user) if user.value == "<<X"), "E26");
}

#[test]
fn heredocs_of_copy() {
    let content = |row: &str, text: &str, variables: &[(&str, &str)]| {
        let heredoc = bodies(row, text).remove(0);
        match heredoc.expand {
            true => Expander::new('\\').heredoc(&heredoc.content(), &scope(variables)).unwrap().text,
            false => heredoc.content(),
        }
    };
    let v = [("v", "1")];
    assert_eq!(content("E27", "COPY <<EOF /f\na\\nb\nEOF", &[]), "anb\n", "E27");
    assert_eq!(content("E28", "COPY <<EOF /f\n\"$v\" '$v'\nEOF", &v), "\"1\" '1'\n", "E28");
    assert_eq!(content("E29", "COPY <<\"EOF\" /f\n$v\nEOF", &v), "$v\n", "E29");
    assert_eq!(content("E30", "COPY <<E'O'F /f\n$v\nEOF", &v), "$v\n", "E30");
    assert_eq!(bodies("E30", "COPY <<E'O'F /f\n$v\nEOF")[0].name, "EOF", "E30");
    assert_eq!(content("E31", "COPY <<-EOF /f\n\t a\n\tEOF", &[]), " a\n", "E31");
    let both = bodies("E32", "COPY <<A <<B /d/\nB\nA\nA\nB");
    let named: Vec<_> = both.iter().map(|heredoc| (heredoc.name.as_str(), heredoc.body.as_str())).collect();
    assert_eq!(named, [("A", "B\n"), ("B", "A\n")], "E32");
    assert_error("E33", "COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination");
    assert_eq!(content("D5.14", "COPY <<EOF /f\nEOF", &[]), "", "D5.14");
    assert_eq!(content("D5.13", "COPY <<EOF /f\n# a \\\\\nEOF", &[]), "# a \\\n", "D5.13");
    assert_eq!(bodies("D1.5", "COPY <<EOF /f\r\na\r\nEOF\r\n")[0].body, "a\r\n", "D1.5");
    let twice = bodies("D5.21", "COPY <<A <<A /d/\n1\nA\n2\nA");
    assert_eq!((twice[0].body.as_str(), twice[1].body.as_str()), ("2\n", "2\n"), "D5.21");
    assert_eq!(bodies("D5.5", "COPY << EOF /f\na\nEOF")[0].body, "a\n", "D5.5");
    let mixed = transfer("D5.20", "ADD a <<B c /d/\nx\nB").sources;
    assert_eq!(mixed.len(), 3, "D5.20");
    assert_error("E38", "COPY <<EOF /f\nx\nEOF ", "unterminated heredoc");
}

#[test]
fn heredocs_of_run() {
    let form = |row: &str, text: &str| match instruction(row, text).kind {
        InstructionKind::Run(run) => run.script(),
        other => panic!("{row}: {other:?}"),
    };
    let script = RunForm::Script { name: "EOF".into(), content: "#!/usr/bin/env python3\nprint(1)\n".into() };
    assert_eq!(form("E34", "RUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF"), script, "E34");
    assert_eq!(shell("E35", "RUN <<'EOF'\necho $v\nEOF"), "echo $v\n", "E35");
    assert_eq!(shell("E36", "RUN <<EOF python3\nprint(1)\nEOF"), "<<EOF python3\nprint(1)\nEOF", "E36");
    assert_eq!(shell("E37", "RUN 3<<EOF\nx\nEOF"), "x\n", "E37");
    assert_eq!(shell("D5.25", "RUN cat <<-'A' <<B\n\ta\nA\nb\nB"), "cat <<-'A' <<B\n\ta\nA\nb\nB", "D5.25");
    assert_eq!(shell("D5.24", "RUN --network=none <<-EOF\n\techo\nEOF"), "echo\n", "D5.24");
    let InstructionKind::Onbuild(onbuild) = instruction("D5.27", "ONBUILD RUN <<EOF cat\nx\nEOF").kind else {
        panic!("D5.27")
    };
    assert_eq!(onbuild.trigger, "RUN <<EOF cat\nx\nEOF", "D5.27");
    let trigger = parser::parse_trigger(&onbuild.trigger).unwrap();
    assert!(matches!(trigger.kind, InstructionKind::Run(run) if run.heredocs[0].body == "x\n"), "D15.58");
}

#[test]
fn exec_and_shell_form() {
    assert_eq!(shell("E39", "CMD ['a', 'b']"), "['a', 'b']", "E39");
    let message = "when using JSON array syntax, arrays must be comprised of strings only";
    assert_eq!(error("E40", "CMD [\"a\", 1]"), message, "E40");
    assert_eq!(shell("E41", "CMD [ \"a\", \"b\" ] && c"), "[ \"a\", \"b\" ] && c", "E41");
    assert_eq!(shell("E42", "RUN [ -f /x ] && y"), "[ -f /x ] && y", "E42");
    assert_error("E43", "CMD --x a", "dockerfile parse error on line 2: unknown flag: --x");
    assert!(
        matches!(instruction("E44", "CMD -- [\"a\"]").kind, InstructionKind::Cmd(CommandLine::Exec(words)) if words == ["a"]),
        "E44"
    );
    assert_eq!(shell("D8.8", "RUN"), "", "D8.8");
}

#[test]
fn flags() {
    assert_error("E45", "COPY --chown=a --chown=b f /", "duplicate flag specified: --chown");
    assert_error("E46", "COPY --link= f /", "missing a value on flag: --link");
    assert!(
        matches!(instruction("E47", "HEALTHCHECK --bogus NONE").kind, InstructionKind::Healthcheck(check) if check.test == ["NONE"]),
        "E47"
    );
    assert_error("D7.7", "COPY --link=yes f /", "expecting boolean value for flag --link, not: yes");
    assert_error("D7.8", "COPY --chown f /", "missing a value on flag: --chown");
    let copy = transfer("D7.2", "COPY -- --x /y");
    assert!(matches!(&copy.sources[0], TransferSource::Path(path) if path.value == "--x"), "D7.2");
    let copy = transfer("D18.2", "COPY --link --parents=FALSE --exclude=a --exclude=b --chmod=u+x f /");
    assert_eq!((copy.link, copy.parents, copy.exclude.len()), (true, false, 2), "D18.2");
    assert_eq!(transfer("D18.9", "COPY --from= f /").from, None, "D18.9");
}

#[test]
fn names_and_values() {
    assert_eq!(value("E48", "ENV a b=c d", &[]), pair("a", "b=c d"), "E48");
    let message = "Syntax error - can't find = in \"b\". Must be of the form: name=value";
    assert_eq!(error("E49", "ENV a=1 b"), message, "E49");
    assert_eq!(value("E50", "ENV a=1 b=$a", &[("a", "0")]), pair("b", "0"), "E50");
    let InstructionKind::Arg(args) = instruction("E51", "ARG a=1 b=$a").kind else { panic!("E51") };
    assert_eq!(expanded(args[1].default.as_deref().unwrap(), &[("a", "1")]).as_deref(), Ok("1"), "E51");
    assert_eq!(value("E52", "ENV a \"x  y\" z", &[]), pair("a", "x  y z"), "E52");
    assert_eq!(value("E53", "ENV x=$$y", &[("y", "1")]), pair("x", "y"), "E53");
    assert_eq!(value("E54", "ENV x='$HOME'", &[("HOME", "h")]), pair("x", "$HOME"), "E54");
    assert_eq!(value("E55", "ENV x=\"a\\tb\"", &[]), pair("x", "a\\tb"), "E55");
    assert_eq!(value("E56", "ENV x=a\\tb", &[]), pair("x", "atb"), "E56");
    let message = value("E57", "LABEL l=${v:=1}", &[]).unwrap_err();
    assert!(message.contains("unsupported modifier (:=) in substitution"), "E57: {message}");
}

#[test]
fn modifiers() {
    let v = [("v", "a/b/c")];
    let cases = [
        ("E58", "${v#*/}", "b/c"),
        ("E59", "${v##*/}", "c"),
        ("E59", "${v%/*}", "a/b"),
        ("E59", "${v%%/*}", "a"),
        ("E60", "${v/b/x}", "a/x/c"),
        ("E60", "${v//\\//-}", "a-b-c"),
        ("E61", "${v#[ab]}", "a/b/c"),
        ("E62", "${x:-${w:-x}}", "x"),
    ];
    for (row, word, expected) in cases {
        assert_eq!(expanded(word, &v).as_deref(), Ok(expected), "{row}");
    }
    assert!(expanded("${V:?need V}", &[]).unwrap_err().contains("V: need V"), "E63");
}

#[test]
fn references_and_mounts() {
    let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
    assert_eq!(error("E77", "COPY --from=$S /x /"), message, "E77");
    // That `later` comes too late is for the solver to say.
    assert_eq!(transfer("E78", "COPY --from=later /x /").from.unwrap().value, "later", "E78");
    parsed("E79", "FROM a AS unused\nRUN --mount=typ=x y\nFROM b");
    let errors = parse("FROM a AS unused\nFOO bar\nFROM b").unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
        "E80"
    );
    let InstructionKind::Run(run) = instruction("E81", "RUN --mount=size=1m,type=tmpfs,target=/t x").kind else {
        panic!("E81")
    };
    let error = Mount::parse(&run.mounts[0], &mut |value| Ok(value.to_owned())).unwrap_err();
    assert_eq!(error.to_string(), "unexpected key 'size' for mount type 'bind'", "E81");
    assert_error("D17.5", "RUN --mount=from=$x,target=/t y", "'from' doesn't support variable expansion");
}

#[test]
fn other_instructions() {
    assert!(
        matches!(instruction("E90", "WORKDIR /a b").kind, InstructionKind::Workdir(path) if path.value == "/a b"),
        "E90"
    );
    let copy = transfer("E102", "COPY \"a b\" /d/");
    let TransferSource::Path(first) = &copy.sources[0] else { panic!("E102") };
    assert!(expanded(first, &[]).unwrap_err().contains("double-quote"), "E102");
    let copy = transfer("E112", "COPY https://h/f /d");
    let TransferSource::Path(url) = &copy.sources[0] else { panic!("E112") };
    let refused = parser::source::SourceKind::of(url).refused_by_copy();
    assert_eq!(refused, Some("source can't be a URL for COPY"), "E112");
    let InstructionKind::Expose(ports) = instruction("E118", "EXPOSE $P").kind else { panic!("E118") };
    let (words, _) = Expander::new('\\').words(&ports[0], &scope(&[("P", "80 81/udp")])).unwrap();
    let ports: Vec<String> = words.iter().flat_map(|word| parser::expose::parse_port(word).unwrap()).collect();
    assert_eq!(ports, ["80/tcp", "81/udp"], "E118");
    assert_eq!(parser::expose::parse_port("8080:80").unwrap(), ["80/tcp"], "E119");
    let valid: Vec<bool> = ["kill", "9", "0"].into_iter().map(parser::signal::is_valid).collect();
    assert_eq!(valid, [true, true, false], "E120");
    assert_error("E121", "HEALTHCHECK --interval=500us CMD x", "Interval \"interval\" cannot be less than 1ms");
    assert_error("E122", "SHELL /bin/bash -c", "SHELL requires the arguments to be in JSON form");
    assert!(
        matches!(instruction("E128", "MAINTAINER \"A $B\"").kind, InstructionKind::Maintainer(text) if text == "\"A $B\""),
        "E128"
    );
}

#[test]
fn ignore_files() {
    let excluded =
        |file: &str, path: &str| parser::IgnoreFile::parse(file).unwrap().matcher().is_excluded(path.as_bytes());
    assert!(!excluded("a\n!a/b", "a/b") && excluded("a\n!a/b", "a/c"), "E113");
    assert!(!excluded("foo", "x/foo") && excluded("foo", "foo"), "E114");
    assert!(excluded(" #x", "#x"), "E115");
    assert!(excluded("Dockerfile", "Dockerfile"), "E117");
}
