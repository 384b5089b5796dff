//! System calls that Docker's default profile allows, by number. The profile is that of `moby/profiles/seccomp/default.json` (Apache-2.0).

#[cfg(target_arch = "x86_64")]
pub(super) mod i386;
pub(super) mod native;
