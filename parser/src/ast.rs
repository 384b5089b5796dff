//! The syntax tree of a Dockerfile. Words are kept as written: expansion needs values that only a build knows.

use crate::heredoc::Heredoc;
use crate::span::{Span, Spanned};

/// A word of the Dockerfile before expansion, quotes and escapes included.
pub type Word = Spanned<String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    pub directives: Directives,
    /// ARG instructions before the first FROM (always [`InstructionKind::Arg`]).
    pub global_args: Vec<Instruction>,
    /// At least one, in file order.
    pub stages: Vec<Stage>,
    /// Findings that do not stop a build, in file order.
    pub warnings: Vec<crate::diagnostic::Diagnostic>,
}

/// `# syntax=`, `# escape=` and `# check=` at the top of the file (D2).
#[derive(Clone, Debug, PartialEq)]
pub struct Directives {
    pub syntax: Option<Word>,
    /// `\` or a backtick.
    pub escape: char,
    pub check: Option<Word>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub from: From,
    pub instructions: Vec<Instruction>,
}

/// `FROM [--platform=P] image [AS name]` (D12).
#[derive(Clone, Debug, PartialEq)]
pub struct From {
    /// The whole instruction.
    pub span: Span,
    pub platform: Option<Word>,
    pub image: Word,
    /// Lower-cased (D12.2); the span is that of the name as written.
    pub name: Option<Word>,
    /// The comment block directly above (D3.6).
    pub comments: Vec<String>,
    /// The logical line as written, continuations joined.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// First to last physical line, here-document bodies included (D4.8).
    pub span: Span,
    pub kind: InstructionKind,
    pub comments: Vec<String>,
    /// The logical line as written, continuations joined, without here-document bodies: what progress shows and ONBUILD stores.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InstructionKind {
    Add(Transfer),
    Arg(Vec<ArgDeclaration>),
    Cmd(CommandLine),
    Copy(Transfer),
    Entrypoint(CommandLine),
    Env(Pairs),
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label(Pairs),
    Maintainer(String),
    Onbuild(Onbuild),
    Run(Box<Run>),
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

impl Dockerfile {
    /// The comments directly above the instruction that holds the offset.
    pub fn comments_at(&self, offset: usize) -> &[String] {
        let at_or_before = |instructions: &'_ [Instruction]| {
            instructions.partition_point(|instruction| instruction.span.start <= offset).checked_sub(1)
        };
        let stage = self.stages.partition_point(|stage| stage.from.span.start <= offset).checked_sub(1);
        let Some(stage) = stage.map(|index| &self.stages[index]) else {
            return at_or_before(&self.global_args).map_or(&[], |index| &self.global_args[index].comments);
        };
        at_or_before(&stage.instructions).map_or(&stage.from.comments, |index| &stage.instructions[index].comments)
    }
}

impl Instruction {
    /// The instruction word as written.
    pub fn word(&self) -> &str {
        crate::words::head(&self.text).0
    }
}

impl InstructionKind {
    /// The instruction word in upper case, such as `COPY`.
    pub fn name(&self) -> &'static str {
        match self {
            InstructionKind::Add(_) => "ADD",
            InstructionKind::Arg(_) => "ARG",
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Copy(_) => "COPY",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            InstructionKind::Env(_) => "ENV",
            InstructionKind::Expose(_) => "EXPOSE",
            InstructionKind::Healthcheck(_) => "HEALTHCHECK",
            InstructionKind::Label(_) => "LABEL",
            InstructionKind::Maintainer(_) => "MAINTAINER",
            InstructionKind::Onbuild(_) => "ONBUILD",
            InstructionKind::Run(_) => "RUN",
            InstructionKind::Shell(_) => "SHELL",
            InstructionKind::Stopsignal(_) => "STOPSIGNAL",
            InstructionKind::User(_) => "USER",
            InstructionKind::Volume(_) => "VOLUME",
            InstructionKind::Workdir(_) => "WORKDIR",
        }
    }
}

/// Names and values of ENV and LABEL, both expanding (D14).
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    pub pairs: Vec<(Word, Word)>,
    /// Written `NAME VALUE`, without `=`: one pair (D14.2).
    pub is_legacy: bool,
}

/// One `name[=default]` of an ARG (D13). The name is verbatim; the default expands.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgDeclaration {
    pub name: Word,
    pub default: Option<Word>,
}

/// Exec form (JSON array) or shell form (D8).
#[derive(Clone, Debug, PartialEq)]
pub enum CommandLine {
    Exec(Vec<String>),
    Shell(String),
}

/// COPY and ADD (D18). Flags that the instruction does not have are `None`, `false` or empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    pub sources: Vec<TransferSource>,
    pub destination: Word,
    pub from: Option<Word>,
    pub chown: Option<Word>,
    pub chmod: Option<Word>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<Word>,
    pub checksum: Option<Word>,
    pub keep_git_dir: Option<bool>,
    pub unpack: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TransferSource {
    Path(Word),
    Heredoc(Heredoc),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Healthcheck {
    /// Nanoseconds; zero where the flag is absent (D15.32 to D15.33).
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
    /// As stored in the config: `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
}

/// ONBUILD: the trigger, unparsed but for what D15.50 forbids.
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// The trigger as stored in the config (D15.51, D5.27).
    pub trigger: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The text after the flags. For here-documents see `heredocs` and [`Run::script`](crate::instruction).
    pub command: CommandLine,
    /// Bodies in the order of their markers; empty for an ordinary RUN.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values, unexpanded: [`crate::mount::Mount::parse`] turns one into a mount (D17.5, D17.6).
    pub mounts: Vec<Word>,
    pub network: Option<RunNetwork>,
    pub security: Option<RunSecurity>,
    pub devices: Vec<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunNetwork {
    Default,
    None,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunSecurity {
    Sandbox,
    Insecure,
}
