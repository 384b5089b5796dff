//! From a logical line to an instruction: one file an instruction, or one for those of the same shape (D6.5).
//!
//! There are two kinds of errors (D6.6). Those of the line stage (shapes: JSON members, ENV words) have a place but no prefix; those
//! of the instruction stage (flags, counts, values) are prefixed with the line number. BuildKit finds all of the first kind
//! in the whole file before it looks for the second, and so do we.

mod arg;
mod command;
mod env;
mod expose;
mod from;
mod healthcheck;
mod onbuild;
pub mod run;
mod text;
mod transfer;
mod volume;

use crate::ast::{From, Instruction, InstructionKind};
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::flags::{FlagKind, Flags};
use crate::json::{self, JsonArray};
use crate::line::LogicalLine;
use crate::span::Span;
use crate::suggest;
use crate::words::{self, RawFlag};

/// All instruction words (D6.3).
pub const NAMES: [&str; 18] = [
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

/// An error of a line, and at which stage it was found.
#[derive(Debug)]
pub(crate) enum Fault {
    Line(Diagnostic),
    Instruction(Diagnostic),
    /// Found when stages are put together: no prefix, and last in order.
    Stage(Diagnostic),
}

impl Fault {
    /// Puts the place of the error, whose focus stays.
    pub fn at(mut self, span: Span) -> Fault {
        let (Fault::Line(error) | Fault::Instruction(error) | Fault::Stage(error)) = &mut self;
        error.span = span;
        self
    }
}

type Parse<T> = Result<T, Fault>;

#[derive(Debug)]
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// A logical line, taken apart into word, flags and the rest.
pub(crate) struct Input<'a> {
    pub line: &'a LogicalLine,
    /// The instruction word as written.
    pub word: &'a str,
    flags: Vec<RawFlag<'a>>,
    /// Behind the flags, trimmed.
    pub rest: &'a str,
    pub escape: char,
}

impl<'a> Input<'a> {
    pub fn new(line: &'a LogicalLine, escape: char) -> Self {
        let (word, arguments) = line.head();
        let (flags, rest) = words::flags(arguments, escape);
        Input { line, word, flags, rest, escape }
    }

    fn flags(&self, known: &[(&'static str, FlagKind)]) -> Parse<Flags> {
        Flags::check(self.line, &self.flags, known).map_err(Fault::Instruction)
    }

    /// For the instructions that have none.
    fn no_flags(&self) -> Parse<()> {
        self.flags(&[]).map(|_| ())
    }

    /// The arguments' place, or the whole instruction's where there are none.
    fn rest_span(&self) -> Span {
        if self.rest.is_empty() { self.line.text_span() } else { self.line.span_of(self.rest) }
    }

    /// An error of the instruction stage, about the arguments.
    fn fault(&self, rule: ErrorRule, message: impl Into<String>) -> Fault {
        Fault::Instruction(Diagnostic::error(rule, message, self.rest_span()))
    }

    /// An error of the instruction stage, about a slice of the line.
    fn fault_at(&self, rule: ErrorRule, part: &str, message: impl Into<String>) -> Fault {
        Fault::Instruction(Diagnostic::error(rule, message, self.line.span_of(part)))
    }

    fn line_fault(&self, rule: ErrorRule, message: impl Into<String>) -> Fault {
        Fault::Line(Diagnostic::error(rule, message, self.rest_span()))
    }

    /// A JSON array of strings, if the text is one (D8.1 to D8.4).
    fn json(&self, text: &str) -> Parse<Option<Vec<String>>> {
        match json::array(text) {
            JsonArray::No => Ok(None),
            JsonArray::Strings(strings) => Ok(Some(strings)),
            JsonArray::Mixed => Err(self.line_fault(
                ErrorRule::InvalidJsonForm,
                "when using JSON array syntax, arrays must be comprised of strings only",
            )),
        }
    }
}

/// Whether the instruction may carry here-documents: RUN, COPY, ADD, also behind ONBUILD, but not in JSON form (D5.1).
pub(crate) fn may_have_heredocs(text: &str, escape: char) -> bool {
    let (word, arguments) = words::head(text.trim());
    let rest = words::flags(arguments, escape).1;
    let (word, rest) = if word.eq_ignore_ascii_case("ONBUILD") {
        let (word, arguments) = words::head(rest);
        (word, words::flags(arguments, escape).1)
    } else {
        (word, rest)
    };
    let has = ["RUN", "COPY", "ADD"].iter().any(|name| name.eq_ignore_ascii_case(word));
    has && json::array(rest) == JsonArray::No
}

pub(crate) fn parse(line: &LogicalLine, escape: char) -> Parse<Parsed> {
    let input = Input::new(line, escape);
    let kind = match input.word.to_uppercase().as_str() {
        "FROM" => return from::parse(&input).map(Parsed::From),
        "ADD" => InstructionKind::Add(transfer::add(&input)?),
        "ARG" => InstructionKind::Arg(arg::parse(&input)?),
        "CMD" => InstructionKind::Cmd(command::parse(&input)?),
        "COPY" => InstructionKind::Copy(transfer::copy(&input)?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(command::parse(&input)?),
        "ENV" => InstructionKind::Env(env::parse(&input, "ENV")?),
        "EXPOSE" => InstructionKind::Expose(expose::parse(&input)?),
        "HEALTHCHECK" => InstructionKind::Healthcheck(healthcheck::parse(&input)?),
        "LABEL" => InstructionKind::Label(env::parse(&input, "LABEL")?),
        "MAINTAINER" => InstructionKind::Maintainer(text::parse(&input, "MAINTAINER")?.value),
        "ONBUILD" => InstructionKind::Onbuild(onbuild::parse(&input)?),
        "RUN" => InstructionKind::Run(Box::new(run::parse(&input)?)),
        "SHELL" => InstructionKind::Shell(command::shell(&input)?),
        "STOPSIGNAL" => InstructionKind::Stopsignal(text::stopsignal(&input)?),
        "USER" => InstructionKind::User(text::parse(&input, "USER")?),
        "VOLUME" => InstructionKind::Volume(volume::parse(&input)?),
        "WORKDIR" => InstructionKind::Workdir(text::parse(&input, "WORKDIR")?),
        _ => return Err(unknown(&input)),
    };
    Ok(Parsed::Instruction(Instruction {
        span: line.span,
        kind,
        comments: line.comments.clone(),
        text: line.text.trim().to_owned(),
    }))
}

fn unknown(input: &Input<'_>) -> Fault {
    let message = format!("unknown instruction: {}", input.word);
    let suggestion = suggest::closest_keyword(&NAMES, input.word);
    Fault::Instruction(
        Diagnostic::error(ErrorRule::UnknownInstruction, message, input.line.span_of(input.word))
            .with_suggestion(suggestion),
    )
}
