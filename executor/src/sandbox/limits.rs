//! What a sandbox may use up.

use serde::{Deserialize, Serialize};

/// Limits of a sandbox. Those that are not set are the ones that rbuild itself has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Kept by a control group, one for each sandbox.
    pub resources: Resources,
    pub rlimits: Vec<Rlimit>,
    /// Bytes of /dev/shm; 64 MiB if not set.
    pub shm_size: Option<u64>,
}

/// What a control group limits (R1.7.5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 for as much swap as there is.
    pub memory_swap: Option<i64>,
    /// Microseconds of processor time in each period.
    pub cpu_quota: Option<u64>,
    /// Microseconds; 100 ms if not set.
    pub cpu_period: Option<u64>,
    /// Weight against others, 2 to 262144; Docker's 1024 is the normal one.
    pub cpu_shares: Option<u64>,
    /// As the kernel writes lists: `0-2,5`.
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// The group in which the sandbox's own is made, below the mount point of each hierarchy.
    pub parent: Option<String>,
}

impl Resources {
    /// Whether a group is needed at all.
    pub fn is_limited(&self) -> bool {
        *self != Resources::default()
    }
}

/// A limit of each process (R1.7.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub resource: RlimitName,
    /// `None` is unlimited.
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// By the names of `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RlimitName {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl RlimitName {
    pub const ALL: [(&str, RlimitName); 15] = [
        ("core", RlimitName::Core),
        ("cpu", RlimitName::Cpu),
        ("data", RlimitName::Data),
        ("fsize", RlimitName::Fsize),
        ("locks", RlimitName::Locks),
        ("memlock", RlimitName::Memlock),
        ("msgqueue", RlimitName::Msgqueue),
        ("nice", RlimitName::Nice),
        ("nofile", RlimitName::Nofile),
        ("nproc", RlimitName::Nproc),
        ("rss", RlimitName::Rss),
        ("rtprio", RlimitName::Rtprio),
        ("rttime", RlimitName::Rttime),
        ("sigpending", RlimitName::Sigpending),
        ("stack", RlimitName::Stack),
    ];

    pub(super) fn resource(self) -> rustix::process::Resource {
        use rustix::process::Resource;
        match self {
            RlimitName::Core => Resource::Core,
            RlimitName::Cpu => Resource::Cpu,
            RlimitName::Data => Resource::Data,
            RlimitName::Fsize => Resource::Fsize,
            RlimitName::Locks => Resource::Locks,
            RlimitName::Memlock => Resource::Memlock,
            RlimitName::Msgqueue => Resource::Msgqueue,
            RlimitName::Nice => Resource::Nice,
            RlimitName::Nofile => Resource::Nofile,
            RlimitName::Nproc => Resource::Nproc,
            RlimitName::Rss => Resource::Rss,
            RlimitName::Rtprio => Resource::Rtprio,
            RlimitName::Rttime => Resource::Rttime,
            RlimitName::Sigpending => Resource::Sigpending,
            RlimitName::Stack => Resource::Stack,
        }
    }
}
