//! Sources: where files come from that no step made.

pub mod digest;
pub mod image;
pub mod local;
pub mod statcache;
