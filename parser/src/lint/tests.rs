use crate::span::LineIndex;

fn findings(source: &str) -> Vec<(usize, &'static str, String)> {
    let index = LineIndex::new(source);
    let file = crate::parse(source).unwrap();
    let finding = |warning: crate::Diagnostic| (index.line(warning.span.start), warning.rule.unwrap(), warning.message);
    file.warnings.into_iter().map(finding).collect()
}

#[test]
fn each_rule_has_its_trigger() {
    let cases = [
        ("FROM a AS Base", 1, "StageNameCasing", "Stage name 'Base' should be lowercase"),
        ("FROM a as b", 1, "FromAsCasing", "'as' and 'FROM' keywords' casing do not match"),
        ("FROM a\nRUN x \\\n\n y", 4, "NoEmptyContinuation", "Empty continuation line"),
        (
            "FROM a\nRUN x\nrun y",
            3,
            "ConsistentInstructionCasing",
            "Command 'run' should match the case of the command majority (uppercase)",
        ),
        (
            "FROM a\nRun y",
            2,
            "ConsistentInstructionCasing",
            "Command 'Run' should match the case of the command majority (uppercase)",
        ),
        (
            "FROM a AS b\nFROM a AS b",
            2,
            "DuplicateStageName",
            "Duplicate stage name \"b\", stage names should be unique",
        ),
        (
            "FROM a AS scratch",
            1,
            "ReservedStageName",
            "Stage name should not use the same name as reserved stage \"scratch\"",
        ),
        (
            "FROM a\nCMD x",
            2,
            "JSONArgsRecommended",
            "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        ),
        (
            "FROM a\nMAINTAINER x",
            2,
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "FROM a\nENV a b",
            2,
            "LegacyKeyValueFormat",
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
        ),
        (
            "FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
            2,
            "MultipleInstructionsDisallowed",
            "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
        ),
    ];
    for (source, line, rule, message) in cases {
        assert_eq!(findings(source), [(line, rule, message.to_owned())], "{source}");
    }
}

#[test]
fn clean_files_have_no_findings() {
    for source in [
        "FROM a AS b\nENV a=1\nCMD [\"x\"]",
        "from a as b\nrun x",
        "FROM a AS b\nSHELL [\"s\"]\nCMD x\nFROM b\nENTRYPOINT y",
        "arg x\nFROM a",
        "FROM a\nCMD [\"x\"]\nFROM b\nCMD [\"x\"]",
    ] {
        assert_eq!(findings(source), [], "{source}");
    }
}
