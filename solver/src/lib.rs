//! From a syntax tree to results: what to run, in which order, and what need not run at all.
//!
//! [`check`] and [`outline`] use the first step only: they say what is wrong with a Dockerfile, and what it can be given.
//!
//! The crate knows no Linux, no disk and no network; it works against traits, and its tests against an in-memory worker.
//! A build passes through it in three steps:
//!
//! 1. [`lower`] turns a parsed Dockerfile into a [`Plan`](lower::Plan): a [`Graph`](graph::Graph) of [`Op`](op::Op)s and the
//!    config of the image that comes out.
//! 2. [`key`] gives each vertex its content key, from its op and the content of its inputs.
//! 3. [`schedule::solve`] asks a [`CacheIndex`](schedule::CacheIndex) for each key and has a [`Worker`](schedule::Worker) run
//!    the others, as wide as the graph allows, reporting [`Event`](event::Event)s.
//!
//! What became of each vertex is a [`Trace`](trace::Trace), which is kept; [`explain`] compares it with earlier ones and says why steps ran.

pub mod check;
pub mod draw;
pub mod entitlements;
pub mod event;
pub mod explain;
pub mod graph;
pub mod key;
pub mod lock;
pub mod lower;
pub mod op;
pub mod outline;
pub mod record;
pub mod report;
pub mod schedule;
pub mod trace;
