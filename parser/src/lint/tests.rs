use crate::span::LineIndex;

fn findings(source: &str) -> Vec<(usize, &'static str, String)> {
    let index = LineIndex::new(source);
    let file = crate::parse(source).unwrap();
    let finding =
        |warning: crate::Diagnostic| (index.line(warning.span.start), warning.rule, warning.message.into_string());
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
            "FROM a\nMAINTAINER x",
            2,
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label",
        ),
        (
            "# other\nARG x\nFROM a",
            2,
            "InvalidDefinitionDescription",
            "Comment for ARG should follow the format: `# x <description>`",
        ),
        (
            "FROM a\n# z\nARG x y",
            3,
            "InvalidDefinitionDescription",
            "Comment for ARG should follow the format: `# <arg_key> <description>`",
        ),
        (
            "# b.\nFROM a AS b",
            2,
            "InvalidDefinitionDescription",
            "Comment for FROM should follow the format: `# b <description>`",
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
        "# b it is\nFROM a AS b\n# x\nFROM c\n# y an argument\nARG x y",
        "arg x\nFROM a",
    ] {
        assert_eq!(findings(source), [], "{source}");
    }
}
