//! From a logical line to an instruction: its flags, then its arguments, in the shape that the instruction takes (D6.5).

mod config;
mod from;
mod healthcheck;
mod onbuild;
mod pairs;
pub mod run;
mod transfer;

use crate::ast::{CommandLine, From, InstructionKind, Word};
use crate::diagnostic::Diagnostic;
use crate::flags::{self, Flags, Problem};
use crate::json;
use crate::line::{LogicalLine, split_keyword};
use crate::span::Span;
use crate::suggest;

pub(crate) enum Parsed {
    From(From),
    Instruction(InstructionKind),
}

/// All instruction words (D6.3).
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

type Result<T> = std::result::Result<T, Problem>;

/// Parses one instruction. With its line's number, errors carry the prefix of D6.6.
pub(crate) fn parse(
    line: &LogicalLine,
    escape: char,
    number: Option<usize>,
) -> std::result::Result<Parsed, Diagnostic> {
    let (keyword, rest) = split_keyword(&line.text);
    let upper = keyword.to_ascii_uppercase();
    let (flags, rest) = flags::split(line, rest, escape);
    let mut arguments =
        Arguments { line, keyword: &upper, keyword_span: line.span_of_part(keyword), rest, escape, flags };
    dispatch(&mut arguments).map_err(|(message, span, suggestion)| {
        let message = match number {
            Some(number) if !is_line_error(&message) => format!("dockerfile parse error on line {number}: {message}"),
            _ => message,
        };
        Diagnostic { suggestion, ..Diagnostic::error(message, span) }
    })
}

/// Errors that BuildKit finds before it knows the instruction have no prefix (D6.6).
fn is_line_error(message: &str) -> bool {
    message.starts_with("when using JSON array syntax") || message.starts_with("Syntax error - can't find = in")
}

fn dispatch(arguments: &mut Arguments) -> Result<Parsed> {
    let kind = match arguments.keyword {
        "FROM" => return from::parse(arguments).map(Parsed::From),
        "ADD" => transfer::parse(arguments).map(InstructionKind::Add),
        "COPY" => transfer::parse(arguments).map(InstructionKind::Copy),
        "ARG" => pairs::arg(arguments).map(InstructionKind::Arg),
        "ENV" => pairs::pairs(arguments).map(InstructionKind::Env),
        "LABEL" => pairs::pairs(arguments).map(InstructionKind::Label),
        "RUN" => run::parse(arguments).map(|run| InstructionKind::Run(Box::new(run))),
        "CMD" => arguments.command().map(InstructionKind::Cmd),
        "ENTRYPOINT" => arguments.command().map(InstructionKind::Entrypoint),
        "HEALTHCHECK" => healthcheck::parse(arguments).map(InstructionKind::Healthcheck),
        "ONBUILD" => onbuild::parse(arguments).map(InstructionKind::Onbuild),
        "EXPOSE" => config::expose(arguments).map(InstructionKind::Expose),
        "VOLUME" => config::volume(arguments).map(InstructionKind::Volume),
        "MAINTAINER" => config::exactly_one(arguments).map(|word| InstructionKind::Maintainer(word.value)),
        "USER" => config::exactly_one(arguments).map(InstructionKind::User),
        "WORKDIR" => config::exactly_one(arguments).map(InstructionKind::Workdir),
        "STOPSIGNAL" => config::stopsignal(arguments).map(InstructionKind::Stopsignal),
        "SHELL" => config::shell(arguments).map(InstructionKind::Shell),
        unknown => {
            let suggestion = suggest::closest(KEYWORDS, unknown);
            return Err((format!("unknown instruction: {unknown}"), arguments.keyword_span, suggestion));
        }
    };
    kind.map(Parsed::Instruction)
}

/// What an instruction has behind its keyword.
pub(crate) struct Arguments<'a> {
    pub line: &'a LogicalLine,
    /// Upper case.
    pub keyword: &'a str,
    pub keyword_span: Span,
    /// Behind the flags, trimmed.
    pub rest: &'a str,
    pub escape: char,
    pub flags: Flags,
}

impl Arguments<'_> {
    /// The arguments, or the keyword where there are none: what an error about them underlines.
    pub fn span(&self) -> Span {
        if self.rest.is_empty() { self.keyword_span } else { self.line.span_of_part(self.rest) }
    }

    pub fn problem<T>(&self, message: impl Into<String>) -> Result<T> {
        Err((message.into(), self.span(), None))
    }

    /// Refuses flags that the instruction has not taken.
    pub fn no_more_flags(&mut self, known: &[&str]) -> Result<()> {
        let none = Flags::none();
        std::mem::replace(&mut self.flags, none).finish(known)
    }

    /// JSON strings, if the rest is a JSON array.
    pub fn json(&self) -> Result<Option<Vec<String>>> {
        match json::strings(self.rest) {
            None => Ok(None),
            Some(Ok(strings)) => Ok(Some(strings)),
            Some(Err(message)) => self.problem(message),
        }
    }

    /// Members of a JSON array, else words between blanks.
    pub fn json_or_words(&self) -> Result<Vec<Word>> {
        let span = self.span();
        Ok(match self.json()? {
            Some(members) => members.into_iter().map(|value| Word { value, span }).collect(),
            None => self.words(),
        })
    }

    pub fn words(&self) -> Vec<Word> {
        self.rest.split_whitespace().map(|word| self.line.word(word)).collect()
    }

    fn command(&mut self) -> Result<CommandLine> {
        self.no_more_flags(&[])?;
        Ok(match self.json()? {
            Some(words) => CommandLine::Exec(words),
            None => CommandLine::Shell(self.rest.to_owned()),
        })
    }
}
