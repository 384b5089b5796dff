//! Printing: what is printed parses to the tree that was printed.

use parser::{parse, print};
use proptest::prelude::*;

/// Prints what parses, and parses it again.
fn check(source: &str) {
    let Ok(tree) = parse(source) else { return };
    let printed = print(&tree);
    match parse(&printed) {
        Ok(again) => assert_eq!(again.meaning(), tree.meaning(), "{source:?}\n{printed:?}"),
        Err(errors) => panic!("{errors:?}\n{source:?}\n{printed:?}"),
    }
    assert_eq!(print(&parse(&printed).unwrap()), printed, "{source:?}");
}

#[test]
fn forms_survive() {
    for text in [
        "# syntax=a/b\n# escape=`\n# check=skip=all\n\n# note\n# a it is\nARG a=1 b=\"x y\"\nFROM --platform=$P x AS Name",
        "FROM a\n# escape=`\n",
        "# escape=`\nFROM a\nCOPY --chown=\"a b\" c:\\x d:\\\nRUN dir ``",
        "FROM a\nRUN --mount=type=bind,source=\"a b\",target=/x --mount='type=cache,\"target=/a,b\"' --network=none --security=sandbox --device=a [\"a\", \"\\u0007\\n\"]",
        "FROM a\nRUN -- --x\nUSER -- --y\nCOPY -- --a --b\nFROM -- --c\nONBUILD -- RUN x",
        "FROM a\nCOPY [\"a b\", \"\", \"/x\"]\nCOPY [\"<<EOF\", \"/x\"]\nVOLUME [\"a b\"]\nVOLUME a b\nCOPY [a] /\nADD --keep-git-dir=false --unpack --checksum=x --exclude=*.md --exclude=\"a b\" --link a /",
        "FROM a\nCOPY <<A <<-\"B\" <<'it\"s' x <<C\\'D /d/\na $x\nA\n\tb\nB\nd\nit\"s\ne\nC'D",
        "FROM a\nRUN <<EOF cat <<'X' > y\na\nEOF\nb\nX\nRUN <<-EOF\n\tx\n\tEOF\nONBUILD RUN <<EOF\na\nEOF\nONBUILD COPY <<A /b\nA",
        "FROM a\nHEALTHCHECK --interval=90s --timeout=1500us --retries=3 CMD x y\nHEALTHCHECK NONE\nHEALTHCHECK --start-period=1h CMD [\"a\"]",
        "FROM a\nENV a b=c  d\nENV a=b c='d e' f=\"\"\nLABEL \"x y\"=z\nEXPOSE 80 81/udp\nSHELL [\"a\"]\nCMD\nENTRYPOINT []\nMAINTAINER \"x\" y\nSTOPSIGNAL 9\nWORKDIR /a b",
        "FROM a\nRUN a \\\n  # c\n\n  b\nRUN x \\\\\nRUN y \\",
        "FROM a\r\nRUN <<EOF\r\nx\r\nEOF\r\n# c\r\n#\r\n# d\r\nRUN y\r\n",
        "FROM a\nRUN it's <<EOF\nCOPY it's <<EOF /x",
    ] {
        assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        check(text);
    }
}

#[test]
fn long_lines_are_continued() {
    check(&format!("FROM a\nRUN {}\\\n{}", "a b ".repeat(15_000), "# ".repeat(15_000)));
}

#[test]
fn the_form_is_canonical() {
    let source =
        "from a as B\ncopy --chown='x' [ \"a\",\"/b\" ]\nhealthcheck --interval=120s cmd x\nfrom b\nrun [\"x\"]";
    assert_eq!(
        print(&parse(source).unwrap()),
        "\nFROM a AS b\nCOPY --chown=x a /b\nHEALTHCHECK --interval=2m CMD x\n\nFROM b\nRUN [\"x\"]\n"
    );
}

/// Quotes in flags may change which here-documents the line has, which a tree cannot say.
fn has_quoted_flags_and_markers(source: &str) -> bool {
    let Ok(tree) = parse(source) else { return false };
    let mut instructions = tree.stages.iter().flat_map(|stage| &stage.instructions);
    instructions
        .any(|line| line.text.contains("<<") && line.text.contains("--") && line.text.contains(['\'', '"', '\\', '`']))
}

/// Valid instructions from pieces that need care.
fn instruction() -> impl Strategy<Value = String> {
    let piece = || {
        prop::sample::select(vec![
            "a", "/b", "x y", "'q r'", "\"s t\"", "\\ ", "\\\\", "`", "$V", "${V:-w}", "é", "#", "=", "[", "]", "{",
            "--", ":", ",", "\\\n ", "`\n", "\t", "it's", "\\\"", "<<", "\u{a0}", "\u{c}", "\r",
        ])
    };
    let text = move || prop::collection::vec(piece(), 1..6).prop_map(|pieces| pieces.concat());
    let words = move || prop::collection::vec(text(), 1..4).prop_map(|words| words.join(" "));
    let flag = move || {
        let names =
            prop::sample::select(vec!["", "chown=", "chmod=", "exclude=", "mount=", "from=", "platform=", "device="]);
        (names, text(), any::<bool>()).prop_map(|(name, value, quoted)| match (name, quoted) {
            ("", _) => String::new(),
            (name, true) => format!("--{name}\"{}\" ", value.replace(['"', '\\', '`'], "")),
            (name, false) => format!("--{name}{} ", value.replace(char::is_whitespace, "")),
        })
    };
    let json = move || prop::collection::vec(text(), 1..4).prop_map(|words| serde_json::Value::from(words).to_string());
    let heredoc = prop::sample::select(vec!["<<A", "<<-A", "<<\"A\"", "<<-'A'", "3<<A", "<< A", "<<A\\ B"]);
    let name = prop::sample::select(vec![
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "LABEL",
        "ARG",
        "VOLUME",
        "EXPOSE",
        "USER",
        "WORKDIR",
        "CMD",
        "ENTRYPOINT",
        "SHELL",
        "HEALTHCHECK CMD",
        "ONBUILD RUN",
        "ONBUILD COPY",
        "MAINTAINER",
        "STOPSIGNAL",
        "FROM",
        "ONBUILD",
    ]);
    prop_oneof![
        (name.clone(), flag(), words()).prop_map(|(name, flag, words)| format!("{name} {flag}{words}\n")),
        (name, flag(), json()).prop_map(|(name, flag, json)| format!("{name} {flag}{json}\n")),
        (flag(), heredoc.clone(), words())
            .prop_map(|(flag, heredoc, body)| format!("COPY {flag}a {heredoc} /d/\n{body}\nA\n")),
        (flag(), heredoc, words()).prop_map(|(flag, heredoc, body)| format!("RUN {flag}{heredoc} x\n{body}\n\tA\nA\n")),
        text().prop_map(|text| format!("# {text}\n")),
    ]
}

proptest! {
    #[test]
    fn printed_trees_parse_to_themselves(
        directive in prop::sample::select(vec!["", "# escape=`\n", "# syntax=x\n# escape=`\n", "#!/x\n# check=skip=all\n", "# check = a b\n"]),
        instructions in prop::collection::vec(instruction(), 0..5),
    ) {
        // Instructions that are wrong are left out, so that most files parse.
        let mut source = format!("{directive}FROM a\n");
        for instruction in instructions {
            let longer = format!("{source}{instruction}");
            if parse(&longer).is_ok() && !has_quoted_flags_and_markers(&longer) {
                source = longer;
            }
        }
        check(&source);
    }
}
