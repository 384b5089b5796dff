//! What a build of a target can be given: arguments, secrets, agents and cache mounts.

use crate::lower::{ImageResolver, LowerOptions};
use parser::ast::Dockerfile;
use parser::diagnostic::Diagnostic;
use parser::span::Span;

/// The parameters of a target and the stages that it needs, each list in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target stage's name, if it has one.
    pub name: Option<String>,
    pub description: Option<String>,
    pub args: Vec<Arg>,
    pub secrets: Vec<Credential>,
    pub ssh: Vec<Credential>,
    pub caches: Vec<Cache>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    pub name: String,
    pub description: Option<String>,
    /// From the options, else the default, expanded.
    pub value: Option<String>,
    /// The ARG instruction.
    pub span: Span,
}

/// A secret or an ssh agent that a RUN mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub required: bool,
    /// The RUN instruction.
    pub span: Span,
}

/// A cache that a RUN mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub id: String,
    pub span: Span,
}

/// The outline of `options.target`, or why the Dockerfile cannot be built.
pub async fn outline<R: ImageResolver>(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &R,
) -> Result<Outline, Vec<Diagnostic>> {
    let _ = (dockerfile, options, resolver);
    Ok(Outline::default())
}
