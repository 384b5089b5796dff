//! A build as a page for people: when what ran and what it waited for, what it said, and what came out.
//!
//! A [`Report`] is put together by whoever ran the build: its [trace](crate::trace), what a [`Collector`] saw of its events, and what the result holds. [`page`] makes
//! one HTML document of it, which needs nothing else. Everything in it comes from others, and so is escaped in one place ([`escaped`](crate::draw::svg::escaped));
//! a policy in the page forbids all scripts and styles but its own, and all of the network.

mod collect;
mod log;
mod page;
mod reasons;
mod timeline;

pub use collect::{Collector, Observed};
pub use page::page;

use crate::event::VertexDigest;
use crate::record::{Identity, Outcome};
use crate::trace::{Trace, Waits};
use std::collections::HashMap;
use std::time::SystemTime;

/// All that the page tells.
pub struct Report {
    pub identity: Identity,
    pub outcome: Outcome,
    pub started: SystemTime,
    pub completed: SystemTime,
    /// Names that the image got.
    pub names: Vec<String>,
    /// Of the image's manifest or index.
    pub digest: Option<String>,
    /// Why the build failed.
    pub error: Option<String>,
    /// `rbuild 0.1.0`.
    pub version: String,
    /// None for a build that ended before it was known what to do.
    pub trace: Option<Trace>,
    pub waits: HashMap<VertexDigest, Waits>,
    pub observed: Observed,
    /// One for each platform.
    pub images: Vec<ImageContents>,
}

/// What the layers of a result hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageContents {
    pub platform: String,
    /// Bottom first.
    pub layers: Vec<LayerContents>,
    /// Bytes of files that a later layer replaces or deletes.
    pub hidden: u64,
    /// The biggest of them: path, bytes, and the position of the layer that holds them.
    pub hidden_files: Vec<(String, u64, usize)>,
    /// There were too many files to look at all.
    pub is_partial: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerContents {
    /// What a trace calls it.
    pub id: String,
    /// The image that it comes from.
    pub image: Option<String>,
    /// Bytes of its files, if they are unpacked.
    pub size: Option<u64>,
    /// Bytes of its blob, if it comes from an image.
    pub packed: Option<u64>,
    /// How many entries it has.
    pub entries: usize,
    /// Path and bytes.
    pub biggest: Vec<(String, u64)>,
}

#[cfg(test)]
mod tests;
