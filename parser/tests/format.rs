//! The formatter: what it makes of files, and that it never changes what they mean.

use parser::{format, parse};
use proptest::prelude::*;

fn formatted(source: &str) -> String {
    format(source).unwrap_or_else(|errors| panic!("{source}: {errors:?}"))
}

#[test]
fn layouts() {
    let cases = [
        // Words and blanks.
        ("from a as b\nrun  x  y\n", "FROM a AS b\nRUN x  y\n"),
        ("FROM   --platform=x   a  \ncopy  --from=b   c   d\t/e", "FROM --platform=x a\nCOPY --from=b c d /e\n"),
        (
            "FROM a\nENV  a=1   b='x  y'\nENV c  d  e\nARG  x  y=1\nLABEL a=b  \\\n   c=d",
            "FROM a\nENV a=1 b='x  y'\nENV c d  e\nARG x y=1\nLABEL a=b \\\n    c=d\n",
        ),
        (
            "FROM a\nhealthcheck  --retries=3  cmd  x  y\nHEALTHCHECK none",
            "FROM a\nHEALTHCHECK --retries=3 CMD x  y\nHEALTHCHECK NONE\n",
        ),
        ("FROM a\nRUN -- --x\nonbuild  run  x", "FROM a\nRUN -- --x\nONBUILD run  x\n"),
        // Arrays.
        (
            "FROM a\nCMD [ \"a\",\"b\" ]\nCOPY [\"a b\",\"/\"]\nVOLUME  [\"x\"]",
            "FROM a\nCMD [\"a\", \"b\"]\nCOPY [\"a b\", \"/\"]\nVOLUME [\"x\"]\n",
        ),
        ("FROM a\nCMD [ \\\n   \"a\" \\\n]", "FROM a\nCMD [ \\\n   \"a\" \\\n]\n"),
        // A shell's text is its own, continuations are not.
        (
            "FROM a\nRUN  a && \\   \n  b   \\\n\n  # why\n     c\n",
            "FROM a\nRUN a && \\\n  b   \\\n    # why\n     c\n",
        ),
        (
            "FROM a\nRUN --mount=type=cache,target=/c   \\\n --network=none \\\n  make  \\\n  all",
            "FROM a\nRUN --mount=type=cache,target=/c \\\n    --network=none \\\n    make  \\\n  all\n",
        ),
        (
            "FROM a\nCOPY a \\\n# one\n\n  b \\\n#two\n /c/",
            "FROM a\nCOPY a \\\n    # one\n    b \\\n    # two\n    /c/\n",
        ),
        ("FROM a\nENV A=\"x \\\n   y\" \\\n  B=1", "FROM a\nENV A=\"x \\\n   y\" \\\n    B=1\n"),
        ("FROM a\nENV A=ab\\\ncd \\\n  B=1", "FROM a\nENV A=ab\\\ncd \\\n    B=1\n"),
        ("# escape=`\nFROM a\nCOPY a `\n b c:\\", "# escape=`\nFROM a\nCOPY a `\n    b c:\\\n"),
        // Here-documents.
        (
            "FROM a\ncopy  <<E   /f\n  x  \n\n\nE\nRUN <<E\nrun\nE",
            "FROM a\nCOPY <<E /f\n  x  \n\n\nE\nRUN <<E\nrun\nE\n",
        ),
        ("FROM a\nCOPY <<\u{c} a  /b", "FROM a\nCOPY <<\u{c} a /b\n"),
        ("FROM a\nCOPY <<  <<\u{c}c d", "FROM a\nCOPY <<  <<\u{c}c d\n"),
        ("FROM a\nVOLUME [\"a\rb\"]", "FROM a\nVOLUME [\"a\rb\"]\n"),
        ("FROM a\r\nCOPY <<E /f\nx\r\ny\nE\nRUN z", "FROM a\r\nCOPY <<E /f\r\nx\r\ny\nE\r\nRUN z\r\n"),
        // Comments and empty lines.
        ("\n\n#a\nFROM a\n\n\n\n  #  b\n#\n##c\nRUN x\n\n\n", "# a\nFROM a\n\n#  b\n#\n##c\nRUN x\n"),
        (
            "ARG v\nFROM a\nRUN x\nFROM b\n# c\nFROM d\n\n# e\n\n# f\nFROM g",
            "ARG v\nFROM a\nRUN x\n\nFROM b\n\n# c\nFROM d\n\n# e\n\n# f\nFROM g\n",
        ),
        ("#syntax = x\n# check=skip=all\n#note\nFROM a", "#syntax = x\n# check=skip=all\n# note\nFROM a\n"),
        ("\n# escape=`\nFROM a", "\n# escape=`\nFROM a\n"),
        ("\n#!/x\n# check=x\nFROM a", "\n#!/x\n# check=x\nFROM a\n"),
        ("#!/x\n# check=skip=all\nFROM a", "#!/x\n# check=skip=all\nFROM a\n"),
        ("\u{feff}from a", "FROM a\n"),
        ("from a\r\nrun x \\\r\n y\r\n", "FROM a\r\nRUN x \\\r\n y\r\n"),
        ("FROM a\nRUN x \\", "FROM a\nRUN x\n"),
        ("FROM a\nRUN x \\\n# end", "FROM a\nRUN x\n# end\n"),
    ];
    for (source, expected) in cases {
        assert_eq!(formatted(source), expected, "{source}");
        assert_eq!(formatted(expected), expected, "again: {source}");
    }
}

#[test]
fn errors_are_those_of_parsing() {
    assert_eq!(format("FROM a\nFOO").unwrap_err(), parse("FROM a\nFOO").unwrap_err());
}

/// Text made of what layout reacts to.
fn dockerfile_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM a",
        "from b as c",
        "RUN ",
        "copy ",
        "ADD ",
        "ENV ",
        "ARG ",
        "label ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "cmd ",
        "SHELL ",
        "VOLUME ",
        "EXPOSE ",
        "USER ",
        "--mount=",
        "--from=x ",
        "-- ",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "E",
        "\n",
        "\n",
        "\n",
        "\r\n",
        "\\\n",
        "\\ \n",
        "`\n",
        "\\",
        "`",
        "# escape=`\n",
        "# syntax=x\n",
        "# check=skip=all\n",
        "#",
        "#!",
        "# c\n",
        "'",
        "\"",
        "$",
        "[\"a\",\"b\"]",
        "[",
        "]",
        "=",
        " ",
        "  ",
        "\t",
        "a",
        "b=c",
        "é",
        "\u{a0}",
        "\u{c}",
        "\u{feff}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// In these builds the formatter itself fails where it would fall back to the source.
    #[test]
    fn formatting_keeps_the_meaning_and_is_done_once(source in dockerfile_like(), from in any::<bool>()) {
        let source = if from { std::format!("FROM a\n{source}") } else { source };
        if let Ok(formatted) = format(&source) {
            prop_assert_eq!(format(&formatted).unwrap(), formatted, "{:?}", source);
        }
    }
}
