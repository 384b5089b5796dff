//! Findings as workflow commands of GitHub Actions: `::warning file=…,line=…::message`.

use super::{all_findings, is_error, location};
use crate::definition::Definition;
use parser::LineIndex;
use solver::check::Report;

pub fn commands(definition: &Definition, report: &Report) -> String {
    let index = LineIndex::new(&definition.text);
    let file = property(&location(definition));
    let command = |finding: &parser::Diagnostic| {
        let level = if is_error(finding, report) { "error" } else { "warning" };
        let (line, end_line) = index.lines(finding.focus);
        let title = property(finding.rule);
        let mut columns = String::new();
        // Columns count only within one line.
        if line == end_line {
            let column = index.column(&definition.text, finding.focus.start);
            let end = index.column(&definition.text, finding.focus.end);
            columns = format!(",col={column},endColumn={end}");
        }
        let notes: String = finding.notes.iter().map(|note| format!("\n{note}")).collect();
        let message = data(&format!("{finding}{notes}"));
        format!("::{level} file={file},line={line},endLine={end_line}{columns},title={title}::{message}\n")
    };
    all_findings(report).map(command).collect()
}

/// A message: line ends and `%` would end or change the command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property's value also ends at `,` and `:`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_are_escaped() {
        assert_eq!(data("50%\r\n: a,b"), "50%25%0D%0A: a,b");
        assert_eq!(property("a:b,c%"), "a%3Ab%2Cc%25");
    }

    #[test]
    fn a_command_for_each_finding() {
        let (definition, report) = super::super::report_of("FROM scratch\nRUN --mont=x y\nFOO");
        assert_eq!(
            commands(&definition, &report),
            "::error file=Dockerfile,line=2,endLine=2,col=5,endColumn=11,title=UnknownFlag::dockerfile parse error on line 2: unknown flag: --mont (did you mean mount?)\n\
             ::error file=Dockerfile,line=3,endLine=3,col=1,endColumn=4,title=UnknownInstruction::dockerfile parse error on line 3: unknown instruction: FOO (did you mean FROM?)\n"
        );
        let (definition, report) = super::super::report_of("FROM scratch\nWORKDIR é/ü");
        assert_eq!(
            commands(&definition, &report),
            "::warning file=Dockerfile,line=2,endLine=2,col=9,endColumn=12,title=WorkdirRelativePath::Relative workdir \"é/ü\" can have unexpected results if the base image changes\n"
        );
    }
}
