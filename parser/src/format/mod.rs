//! The formatter: one way to lay out a Dockerfile, with the same meaning.
//!
//! It works on the lines of the file, because the tree knows neither line breaks nor comments inside of an instruction:
//!
//! - Instruction words, AS, and the CMD and NONE of HEALTHCHECK are in upper case.
//! - Between the parts of an instruction that blanks separate stands one blank; continuation lines are indented by four.
//! - A shell's text is left alone, but for blanks behind a continuation: blanks in it are part of the command, and of what the cache
//!   knows it by. So are triggers, here-documents, and what stands in quotes.
//! - JSON arrays on one line are `["a", "b"]`.
//! - Comments begin with `# `. No two empty lines follow each other, none stands inside of an instruction, one stands before each
//!   FROM but the first.
//! - Lines end as the first one does, CRLF or LF, but for here-documents: their line ends are content (D1.5).
//!
//! The result is parsed again and compared with the source. Should they ever differ, the source is given back as it is.

mod instruction;

use crate::diagnostic::Diagnostic;
use crate::line::{self, LogicalLine};
use crate::{parse, words};
use std::ops::Range;

/// Formats a Dockerfile. The errors are those of parsing it.
pub fn format(source: &str) -> Result<String, Vec<Diagnostic>> {
    let tree = parse(source)?;
    let formatted = layout(source);
    let is_same = parse(&formatted).is_ok_and(|again| again.means_the_same_as(&tree));
    debug_assert!(is_same, "formatting changed the meaning:\n{source}\n---\n{formatted}");
    Ok(if is_same { formatted } else { source.to_owned() })
}

fn layout(source: &str) -> String {
    let reading = line::read(source);
    let mut layout = Layout { out: String::new(), stages: 0, heredocs: Vec::new() };
    let mut at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    at += layout.directives(&source[at..]);
    for line in &reading.lines {
        layout.gap(&source[at..line_start(source, line).max(at)], is_from(line));
        layout.instruction(source, line, reading.escape);
        at = next_line(source, line.span.end);
    }
    layout.gap(&source[at..], false);
    // An empty line at the end of the last here-document is content.
    let heredocs_end = layout.heredocs.last().map_or(0, |heredoc| heredoc.end);
    while layout.out.ends_with("\n\n") && layout.out.len() - 1 > heredocs_end {
        layout.out.pop();
    }
    match source.split_once('\n') {
        Some((first, _)) if first.ends_with('\r') => with_crlf(&layout.out, &layout.heredocs),
        _ => layout.out,
    }
}

struct Layout {
    out: String,
    stages: usize,
    /// Where in `out` the bodies and terminators of an instruction's here-documents stand.
    heredocs: Vec<Range<usize>>,
}

impl Layout {
    /// A shebang and the directives stay as they are: even the blanks around them count (D2.8). Gives their length.
    fn directives(&mut self, source: &str) -> usize {
        let mut length = 0;
        for (index, line) in source.split_inclusive('\n').enumerate() {
            let text = line.trim_end();
            let is_shebang = index == 0 && text.starts_with("#!");
            if !is_shebang && words::directive(text.trim_start()).is_none() {
                break;
            }
            self.out.push_str(text);
            self.out.push('\n');
            length += line.len();
        }
        length
    }

    /// Comments and empty lines between instructions.
    fn gap(&mut self, gap: &str, before_from: bool) {
        let mut lines: Vec<&str> = gap.lines().map(str::trim).collect();
        lines.dedup_by(|line, before| line.is_empty() && before.is_empty());
        // What stands directly above a FROM belongs to it.
        let attached = lines.iter().rposition(|line| line.is_empty()).map_or(0, |blank| blank + 1);
        let separate = before_from && self.stages > 0;
        for (index, line) in lines.iter().enumerate() {
            if separate && index == attached {
                self.blank();
            }
            match line.is_empty() {
                true => self.blank_before(lines.get(index + 1)),
                false => self.comment(line),
            }
        }
        if separate && attached == lines.len() {
            self.blank();
        }
    }

    /// An empty line at the top is needed only where a comment would become a directive or a shebang without it.
    fn blank_before(&mut self, next: Option<&&str>) {
        let is_special = |next: &&str| next.starts_with("#!") || words::directive(next).is_some();
        if !self.out.is_empty() || next.is_some_and(is_special) {
            self.blank();
        }
    }

    fn blank(&mut self) {
        if self.out.is_empty() || !(self.out.ends_with("\n\n") || self.out == "\n") {
            self.out.push('\n');
        }
    }

    fn comment(&mut self, comment: &str) {
        self.out.push_str(&comment_text(comment));
        self.out.push('\n');
    }

    fn instruction(&mut self, source: &str, line: &LogicalLine, escape: char) {
        self.stages += usize::from(is_from(line));
        // Bodies of here-documents stay as they are.
        let head_end = line.heredocs.first().map_or(line.span.end, |heredoc| heredoc.span.start);
        let head = &source[line.span.start..head_end.min(line.span.end)];
        instruction::layout(head, line, escape, &mut self.out);
        if head_end < line.span.end {
            let start = self.out.len();
            self.out.push_str(&source[head_end..line.span.end]);
            self.heredocs.push(start..self.out.len());
            self.out.push('\n');
        }
    }
}

fn is_from(line: &LogicalLine) -> bool {
    line.head().0.eq_ignore_ascii_case("FROM")
}

/// Words stand off the `#`; ornaments stay.
fn comment_text(comment: &str) -> String {
    match comment.strip_prefix('#') {
        Some(text) if text.starts_with(char::is_alphanumeric) => format!("# {text}"),
        _ => comment.to_owned(),
    }
}

/// Where the physical line begins on which the instruction does.
fn line_start(source: &str, line: &LogicalLine) -> usize {
    source[..line.span.start].rfind('\n').map_or(0, |newline| newline + 1)
}

fn next_line(source: &str, at: usize) -> usize {
    source[at..].find('\n').map_or(source.len(), |newline| at + newline + 1)
}

/// The text with other line ends everywhere but in the ranges given, which are in order.
fn with_crlf(text: &str, except: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    let mut at = 0;
    for kept in except {
        out.push_str(&text[at..kept.start].replace('\n', "\r\n"));
        out.push_str(&text[kept.clone()]);
        at = kept.end;
    }
    out + &text[at..].replace('\n', "\r\n")
}
