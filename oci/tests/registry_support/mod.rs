//! Registries for tests: Debian's `docker-registry` for real round trips, and a scripted one for faults.

pub mod docker_registry;
pub mod scripted;
