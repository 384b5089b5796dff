//! From a syntax tree to results.

pub mod event;
pub mod op;
