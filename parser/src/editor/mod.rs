//! What an editor asks while a Dockerfile is being typed: completion, hover, definitions, the list of stages.
//!
//! All of it works on logical lines, never on the tree, because a file that is being typed seldom parses. Offsets are bytes.

mod completion;
mod cursor;
mod definition;
mod hover;
mod manual;
mod scope;
mod symbols;

pub use completion::{Completion, CompletionKind, ContextFiles, complete};
pub use definition::define;
pub use hover::{Hover, hover};
pub use symbols::{Symbol, symbols};

#[cfg(test)]
mod tests;
