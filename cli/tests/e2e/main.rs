//! End-to-end tests: the real binary, its images read with other people's tools.
//!
//! Each test has a store of its own with a busybox base in it, imported from Debian's busybox-static. They run as root and as an
//! ordinary user; what only root can do says so. `RBUILD_TEST_BINARY` and `RBUILD_TEST_DATA` name the binary and the `testdata` folder where
//! they are not in their usual places.

mod attacks;
mod browser;
mod build;
mod check;
mod containers;
mod contexts;
mod damage;
mod debug;
mod edits;
mod errors;
mod explain;
mod fmt;
mod full;
mod harness;
mod images;
mod interplay;
mod limits;
mod lock;
mod lsp;
mod network;
mod platforms;
mod privileges;
mod processes;
mod prune;
mod registry;
mod remote;
mod remote_cache;
mod remote_services;
mod report;
mod reproducible;
mod rootless;
mod run;
mod scheduling;
mod secrets;
mod servers;
mod signals;
mod soak;
mod stores;
