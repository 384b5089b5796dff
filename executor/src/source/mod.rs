//! Sources: where files come from that no step made.

pub mod archive;
pub mod git;
pub mod http;
pub mod image;
pub mod layout;
pub mod local;
pub mod material;
pub(crate) mod progress;
