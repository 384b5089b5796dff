//! Sources.
pub mod local;
