//! Parser directives: `# syntax=`, `# escape=` and `# check=` at the top of the file (D2).
//!
//! BuildKit looks for them twice, with different rules, and so do we. `escape` belongs to the reading of lines: leading blanks
//! are allowed, a shebang ends the run. `syntax` and `check` are found by a scan of their own, which skips one shebang
//! line and allows no leading blanks (D2.8 to D2.10).

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::span::{Span, Spanned};
use crate::words;

const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// The unbroken run of directive lines from line 1 (D2.3), as the reader of lines sees it.
#[derive(Debug)]
pub(crate) struct DirectiveRun {
    ended: bool,
    seen: Vec<&'static str>,
    pub escape: char,
}

impl Default for DirectiveRun {
    fn default() -> Self {
        DirectiveRun { ended: false, seen: Vec::new(), escape: '\\' }
    }
}

impl DirectiveRun {
    /// Takes one physical line, blanks around it removed, and says whether it is a directive. The first that is not ends the run.
    pub fn accept(&mut self, line: &str, span: Span) -> Result<bool, Diagnostic> {
        if self.ended {
            return Ok(false);
        }
        let Some((name, value)) = known(line) else {
            self.ended = true;
            return Ok(false);
        };
        if self.seen.contains(&name) {
            return Err(Diagnostic::error(
                ErrorRule::InvalidDirective,
                format!("only one {name} parser directive can be used"),
                span,
            ));
        }
        self.seen.push(name);
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let message = format!("invalid escape token '{value}' does not match ` or \\");
                    return Err(Diagnostic::error(ErrorRule::InvalidDirective, message, span));
                }
            };
        }
        Ok(true)
    }
}

fn known(line: &str) -> Option<(&'static str, &str)> {
    let (name, value) = words::directive(line)?;
    let name = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some((name, value))
}

/// The value of `syntax` or `check`, up to its first blank (D2.7).
pub(crate) fn scan(source: &str, wanted: &str) -> Option<Word> {
    let mut at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    if source[at..].starts_with("#!") {
        at += source[at..].find('\n').map_or(source.len() - at, |newline| newline + 1);
    }
    for line in source[at..].split_inclusive('\n') {
        let text = line.trim_end_matches(['\n', '\r']);
        let (name, value) = known(text)?;
        if name == wanted {
            let first = value.split(' ').next().unwrap_or(value);
            let start = at + text.trim_end().len() - value.len();
            return Some(Spanned::new(first.to_owned(), Span::new(start, start + first.len())));
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scan_skips_bom_and_shebang_and_stops_at_other_lines() {
        let value = |source: &str, name: &str| scan(source, name).map(|word| (word.value.clone(), word.span.start));
        assert_eq!(value("# syntax = a/b:1 c \nFROM x", "syntax"), Some(("a/b:1".into(), 11)));
        assert_eq!(value("\u{feff}#!/bin/x\r\n# check=skip=A, B", "check").map(|v| v.0), Some("skip=A,".into()));
        assert_eq!(value("# syntax=a\n# check=x", "check").map(|v| v.0), Some("x".into()));
        for source in ["  # syntax=a", "\n# syntax=a", "# note\n# syntax=a", "# a=b\n# syntax=a", "# syntax=\n", ""] {
            assert_eq!(value(source, "syntax"), None, "{source:?}");
        }
    }
}
