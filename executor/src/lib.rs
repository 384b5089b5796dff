//! Runs a build's operations on this machine, and hands the results on.
//!
//! [`worker::LocalWorker`] is the solver's worker. Its values are stacks of [layers](value::Stack) of a store, and directories of the client. A
//! RUN step goes through [`exec`] and the [`sandbox`]; COPY, ADD and WORKDIR through [`mod@file`] and [`fileop`]; base images come by way of
//! [`source::image`]; what a step wrote becomes a layer in [`snapshot`]. When all is done, [`export`] makes an image of the result. Programs that
//! run in images are [`container`]s; [`debug`] opens shells in steps that failed.

pub mod builds;
pub mod cdi;
pub mod container;
pub mod contents;
mod copies;
pub mod debug;
pub mod emulation;
pub mod error;
mod exec;
pub mod export;
mod file;
pub mod fileop;
pub mod index;
pub mod mount;
pub mod network;
mod output;
pub mod remote;
pub mod sandbox;
pub mod secrets;
pub mod snapshot;
pub mod source;
pub mod ssh;
pub mod stubs;
pub mod users;
pub mod value;
pub mod verify;
pub mod worker;

pub use error::Error;
