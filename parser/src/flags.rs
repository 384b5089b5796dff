//! Flags of instructions: which exist, and what values they take (D7).

use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::line::LogicalLine;
use crate::span::Spanned;
use crate::suggest;
use crate::words::RawFlag;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FlagKind {
    /// `--x`, `--x=true`, `--x=false`.
    Bool,
    /// `--x=value`, once.
    Text,
    /// `--x=value`, any number of times.
    List,
}

/// The flags of one instruction after validation.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks the flags as written against those that the instruction has, in the order of writing.
    pub fn check(
        line: &LogicalLine,
        written: &[RawFlag<'_>],
        known: &[(&'static str, FlagKind)],
    ) -> Result<Flags, Diagnostic> {
        let mut flags = Flags::default();
        for flag in written {
            let span = line.span_of(flag.raw);
            let error = |rule: ErrorRule, message: String| Diagnostic::error(rule, message, span);
            let text = flag.text.strip_prefix("--").unwrap_or(&flag.text);
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let Some((name, kind)) = known.iter().copied().find(|(known, _)| *known == name) else {
                let suggestion = suggest::closest(known.iter().map(|(name, _)| name), name);
                // Where the name holds quotes or escapes, all is underlined.
                let written = flag.raw.get(..name.len() + 2).filter(|written| written.ends_with(name));
                return Err(error(ErrorRule::UnknownFlag, format!("unknown flag: --{name}"))
                    .with_suggestion(suggestion)
                    .with_focus(written.map_or(span, |written| line.span_of(written))));
            };
            if kind != FlagKind::List && flags.get(name).is_some() {
                return Err(error(ErrorRule::RepeatedFlag, format!("duplicate flag specified: --{name}")));
            }
            let missing = || error(ErrorRule::InvalidFlagValue, format!("missing a value on flag: --{name}"));
            let value = match (kind, value) {
                (FlagKind::Bool, None) => "true".to_owned(),
                (FlagKind::Bool, Some("")) => return Err(missing()),
                (FlagKind::Bool, Some(value)) => match value.to_lowercase().as_str() {
                    truth @ ("true" | "false") => truth.to_owned(),
                    _ => {
                        return Err(error(
                            ErrorRule::InvalidFlagValue,
                            format!("expecting boolean value for flag --{name}, not: {value}"),
                        ));
                    }
                },
                (FlagKind::Text | FlagKind::List, value) => value.ok_or_else(missing)?.to_owned(),
            };
            let written_value = flag.raw.split_once('=').map_or(flag.raw, |(_, value)| value);
            flags.values.push((name, Spanned::new(value, line.span_of(written_value))));
        }
        Ok(flags)
    }

    fn get(&self, name: &str) -> Option<&Word> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn text(&self, name: &str) -> Option<Word> {
        self.get(name).cloned()
    }

    /// As [`Flags::text`], an empty value being as good as no flag.
    pub fn non_empty(&self, name: &str) -> Option<Word> {
        self.text(name).filter(|value| !value.is_empty())
    }

    pub fn list(&self, name: &str) -> Vec<Word> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }

    pub fn bool(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value.value == "true")
    }
}
