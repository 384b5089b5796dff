//! Linux capabilities by name, and the set that a sandbox has where nothing else is asked for.

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// By number, as in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default (R1.7.2).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {given:?}{}", suggestion.as_ref().map(|name| format!(" (did you mean {name}?)")).unwrap_or_default())]
pub struct UnknownCapability {
    given: String,
    suggestion: Option<String>,
}

impl Capabilities {
    pub const NONE: Capabilities = Capabilities(0);
    pub const ALL: Capabilities = Capabilities((1 << NAMES.len()) - 1);

    /// One by its name, in any case, with or without `CAP_`; or `ALL`.
    pub fn named(given: &str) -> Result<Capabilities, UnknownCapability> {
        let upper = given.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == name) {
            Some(number) => Ok(Capabilities(1 << number)),
            None if name == "ALL" => Ok(Capabilities::ALL),
            None => {
                let suggestion = parser::suggest::closest(NAMES, name);
                Err(UnknownCapability { given: given.to_owned(), suggestion })
            }
        }
    }

    /// Docker's rule for `--cap-add` and `--cap-drop`: `ALL` is taken first, and a name that is in both is dropped.
    pub fn adjusted(self, add: &[Capabilities], drop: &[Capabilities]) -> Capabilities {
        let all = |given: &[Capabilities]| given.contains(&Capabilities::ALL);
        let singles = |given: &[Capabilities]| {
            let singles = given.iter().filter(|one| **one != Capabilities::ALL);
            Capabilities(singles.fold(0, |set, one| set | one.0))
        };
        let base = match (all(add), all(drop)) {
            (true, _) => Capabilities::ALL,
            (false, true) => Capabilities::NONE,
            (false, false) => self,
        };
        Capabilities((base.0 | singles(add).0) & !singles(drop).0)
    }

    pub fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn contains_named(self, name: &str) -> bool {
        Capabilities::named(name).is_ok_and(|one| self.contains(one))
    }

    pub(super) fn set(self) -> CapabilitySet {
        CapabilitySet::from_bits_truncate(self.0)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        let set = DEFAULT.iter().filter_map(|name| Capabilities::named(name).ok()).fold(0, |set, one| set | one.0);
        Capabilities(set)
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(NAMES.iter().enumerate().filter(|(number, _)| self.0 & 1 << number != 0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(Capabilities::default(), Capabilities(0xa804_25fb), "R1.7.2");
    }

    #[test]
    fn names_are_taken_as_users_write_them() {
        assert_eq!(Capabilities::named("cap_net_admin"), Capabilities::named("NET_ADMIN"));
        let error = Capabilities::named("NET_ADMINN").unwrap_err();
        assert_eq!(error.to_string(), "unknown capability \"NET_ADMINN\" (did you mean NET_ADMIN?)");
    }

    #[test]
    fn all_is_taken_first() {
        let one = |name| Capabilities::named(name).unwrap();
        let default = Capabilities::default();
        assert_eq!(default.adjusted(&[one("CHOWN")], &[Capabilities::ALL]), one("CHOWN"));
        assert!(!default.adjusted(&[Capabilities::ALL], &[one("SYS_ADMIN")]).contains(one("SYS_ADMIN")));
        assert!(default.adjusted(&[one("SYS_TIME")], &[]).contains(one("SYS_TIME")));
        assert!(!default.adjusted(&[one("KILL")], &[one("KILL")]).contains(one("KILL")));
    }
}
