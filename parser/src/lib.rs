//! Dockerfiles and `.dockerignore` files: text to syntax tree, words to values. No I/O.
//!
//! The one path through the crate:
//!
//! 1. [`parse()`] reads logical lines (`line`: comments, continuations, [`heredoc`] bodies), turns each into an instruction
//!    (`instruction`, a file for each), and gives a [`Dockerfile`] of [`ast::Stage`]s, or the [`Diagnostic`]s of all that is wrong.
//!    Every part keeps its [`Span`].
//! 2. Words stay as written. When a build dispatches an instruction, an [`Expander`] gives the word's value in a [`Scope`].
//! 3. Values that have a grammar of their own are parsed after that: [`mount::Mount`], [`expose`] ports, [`chmod`], [`signal`]s,
//!    [`path`]s, [`source::SourceKind`], [`git::GitReference`].
//! 4. [`ignore::IgnoreFile`] and [`ignore::PatternMatcher`] say which files of a context exist for the build; [`glob`] matches
//!    the wildcards of COPY and ADD.
//!
//! The language is BuildKit's. Rules are cited as clauses of the project's specification: D5.24.

pub mod ast;
pub mod boolean;
pub mod chmod;
mod description;
pub mod device;
pub mod diagnostic;
mod directive;
mod duration;
pub mod editor;
mod error_rule;
pub mod expand;
pub mod expose;
mod flags;
mod format;
pub mod git;
pub mod glob;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
mod json;
mod line;
pub mod lint;
mod meaning;
pub mod mount;
mod parse;
pub mod path;
mod print;
pub mod quote;
pub mod signal;
pub mod source;
pub mod span;
pub mod suggest;
mod words;

pub use ast::{Dockerfile, Instruction, InstructionKind, Stage};
pub use diagnostic::{Diagnostic, Severity};
pub use error_rule::ErrorRule;
pub use expand::{ExpandError, Expander, Expansion, Scope};
pub use format::format;
pub use heredoc::Heredoc;
pub use ignore::{IgnoreFile, PatternMatcher};
pub use instruction::run::RunForm;
pub use mount::Mount;
pub use parse::{parse, parse_bytes, parse_partly, parse_trigger};
pub use print::print;
pub use span::{LineIndex, Span, Spanned};
