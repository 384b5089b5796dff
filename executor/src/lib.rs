//! Runs operations.

pub mod fileop;
pub mod mount;
pub mod sandbox;
pub mod source;
pub mod users;
