//! Control groups, for sandboxes with limits.
//!
//! The zygote makes a group for a sandbox, the sandbox's first process joins it before it does anything else, and the zygote removes it when that process has
//! ended, so that a program that is killed leaves no group behind.
//!
//! Each limit belongs to a controller. On today's systems all are in one hierarchy (version 2); older ones have a hierarchy for each (version 1), and some
//! have both. In version 1 the sandbox's group lies in rbuild's own. In version 2 a group that holds processes cannot give its controllers to groups inside of it,
//! so there it lies in the nearest group above that holds none and that this user may change: one that is delegated, or the root.

use super::child::{Failure, Result};
use super::limits::Resources;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const MOUNTS: &str = "/proc/self/mountinfo";
const MEMBERSHIP: &str = "/proc/self/cgroup";
/// Docker's period where only a quota is given, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A hierarchy that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    /// Empty for version 2, which says at each group what it has.
    controllers: Vec<String>,
    /// Where it is mounted, and rbuild's own group in it.
    mount: PathBuf,
    own: PathBuf,
}

/// One setting: a controller's file and what is written to it.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: &'static str,
    value: String,
    /// Left out where the kernel does not have it.
    optional: bool,
}

/// The groups of one sandbox, one in each hierarchy that it needs. Removed when dropped.
#[derive(Debug, Default)]
pub(super) struct Group {
    directories: Vec<(PathBuf, Version)>,
}

impl Group {
    /// Makes the groups and sets their limits.
    pub fn create(resources: &Resources, name: &str) -> Result<Group> {
        let hierarchies = hierarchies(&read(MOUNTS)?, &read(MEMBERSHIP)?);
        let mut group = Group::default();
        let mut made: Vec<(PathBuf, PathBuf)> = Vec::new();
        for controller in needed(resources) {
            let (parent, version) = parent(&hierarchies, controller, resources.parent.as_deref())?;
            let directory = match made.iter().find(|(known, _)| *known == parent) {
                Some((_, directory)) => directory.clone(),
                None => {
                    remove_dead(&parent);
                    let directory = create_directory(&parent, name, controller)?;
                    group.directories.push((directory.clone(), version));
                    made.push((parent.clone(), directory.clone()));
                    directory
                }
            };
            if version == Version::V1 && controller == "cpuset" {
                inherit_cpuset(&parent, &directory)?;
            }
            for setting in settings(resources, version).into_iter().filter(|setting| setting.controller == controller) {
                match fs::write(directory.join(setting.file), &setting.value) {
                    Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                    written => written.map_err(|error| {
                        let reason = format!(
                            "{} of {} does not take {}: {error}",
                            setting.file,
                            directory.display(),
                            setting.value
                        );
                        Failure { step: limiting(controller), reason }
                    })?,
                }
            }
        }
        Ok(group)
    }

    /// Moves the calling process into the groups.
    pub fn join(&self) -> Result<()> {
        for (directory, _) in &self.directories {
            fs::write(directory.join("cgroup.procs"), "0").map_err(|error| Failure {
                step: format!("joining the control group {}", directory.display()),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// Groups of version 1 by the name of their hierarchy, for the sandbox to see.
    pub fn version_1(&self) -> impl Iterator<Item = (&str, &Path)> {
        let of_version_1 = self.directories.iter().filter(|(_, version)| *version == Version::V1);
        of_version_1.filter_map(|(directory, _)| {
            let controller = if directory.join("memory.limit_in_bytes").exists() {
                "memory"
            } else if directory.join("cpu.shares").exists() {
                "cpu"
            } else if directory.join("cpuset.cpus").exists() {
                "cpuset"
            } else if directory.join("pids.max").exists() {
                "pids"
            } else {
                return None;
            };
            Some((controller, directory.as_path()))
        })
    }

    /// Whether the kernel has killed a process for the group's limit of memory (R1.11.3).
    pub fn ran_out_of_memory(&self) -> bool {
        self.directories.iter().any(|(directory, version)| {
            let file = match version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
            text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (directory, _) in &self.directories {
            // Process 1 is reaped after all others, but the kernel may take a moment to forget them.
            for _ in 0..100 {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Removes the groups of zygotes that were killed, `rbuild-PID-NUMBER`, if nothing is left in them.
fn remove_dead(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("rbuild-").and_then(|rest| rest.split_once('-')?.0.parse::<u32>().ok());
        if pid.is_some_and(|pid| !is_alive(pid)) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A zombie is not: whoever ought to reap it may take its time.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn read(path: &'static str) -> Result<String> {
    fs::read_to_string(path)
        .map_err(|error| Failure { step: "finding the control groups".into(), reason: format!("{path}: {error}") })
}

fn limiting(controller: &str) -> String {
    let what = match controller {
        "memory" => "memory",
        "cpu" => "processor time",
        "cpuset" => "the processors",
        _ => "the number of processes",
    };
    format!("limiting {what}")
}

fn needed(resources: &Resources) -> Vec<&'static str> {
    let mut needed: Vec<&'static str> =
        settings(resources, Version::V2).into_iter().map(|setting| setting.controller).collect();
    needed.dedup();
    needed
}

/// What is written where, by controller.
fn settings(resources: &Resources, version: Version) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |controller, files: (&'static str, &'static str), value: String, optional| {
        let file = if version == Version::V1 { files.0 } else { files.1 };
        settings.push(Setting { controller, file, value, optional });
    };
    if let Some(memory) = resources.memory {
        set("memory", ("memory.limit_in_bytes", "memory.max"), memory.to_string(), false);
    }
    // Docker's rule: as much swap as memory where only that is limited.
    let is_default = resources.memory_swap.is_none_or(|swap| swap == 0);
    let total = match resources.memory_swap {
        Some(swap) if swap != 0 => Some(swap),
        _ => resources.memory.map(|memory| i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX)),
    };
    if let Some(total) = total {
        let swap = match (u64::try_from(total), version) {
            (Err(_), Version::V1) => "-1".to_owned(),
            (Err(_), Version::V2) => "max".to_owned(),
            (Ok(total), Version::V1) => total.to_string(),
            (Ok(total), Version::V2) => total.saturating_sub(resources.memory.unwrap_or(0)).to_string(),
        };
        set("memory", ("memory.memsw.limit_in_bytes", "memory.swap.max"), swap, is_default);
    }
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let period = resources.cpu_period.unwrap_or(DEFAULT_PERIOD);
        match version {
            Version::V1 => {
                set("cpu", ("cpu.cfs_period_us", ""), period.to_string(), false);
                if let Some(quota) = resources.cpu_quota {
                    set("cpu", ("cpu.cfs_quota_us", ""), quota.to_string(), false);
                }
            }
            Version::V2 => {
                let quota = resources.cpu_quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                set("cpu", ("", "cpu.max"), format!("{quota} {period}"), false);
            }
        }
    }
    if let Some(shares) = resources.cpu_shares {
        // runc's mapping of 2 to 262144 onto 1 to 10000.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        let value = if version == Version::V1 { shares } else { weight };
        set("cpu", ("cpu.shares", "cpu.weight"), value.to_string(), false);
    }
    if let Some(processors) = &resources.cpuset_cpus {
        set("cpuset", ("cpuset.cpus", "cpuset.cpus"), processors.clone(), false);
    }
    if let Some(nodes) = &resources.cpuset_mems {
        set("cpuset", ("cpuset.mems", "cpuset.mems"), nodes.clone(), false);
    }
    if let Some(pids) = resources.pids {
        set("pids", ("pids.max", "pids.max"), pids.to_string(), false);
    }
    settings
}

/// What is mounted, from `mountinfo` and `cgroup` of a process (proc(5)).
fn hierarchies(mounts: &str, membership: &str) -> Vec<Hierarchy> {
    let own = |controllers: &[String]| {
        membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_this = match controllers {
                [] => names.is_empty(),
                [first, ..] => names.split(',').any(|name| name == first),
            };
            is_this.then(|| path.to_owned())
        })
    };
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, mount) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let (version, controllers) = match kind {
            "cgroup2" => (Version::V2, Vec::new()),
            "cgroup" => (Version::V1, options.split(',').map(str::to_owned).collect()),
            _ => return None,
        };
        let known = ["memory", "cpu", "cpuset", "pids"];
        let controllers: Vec<String> =
            controllers.into_iter().filter(|name: &String| known.contains(&name.as_str())).collect();
        if version == Version::V1 && controllers.is_empty() {
            return None;
        }
        let path = own(&controllers)?;
        // In a container the mount shows a part of the hierarchy.
        let below = Path::new(&path).strip_prefix(root).map_or_else(|_| PathBuf::new(), Path::to_owned);
        let mount = PathBuf::from(mount);
        Some(Hierarchy { version, controllers, own: mount.join(below), mount })
    };
    mounts.lines().filter_map(parse).collect()
}

/// The group in which one with `controller` can be made, ready for it.
fn parent(hierarchies: &[Hierarchy], controller: &str, asked: Option<&str>) -> Result<(PathBuf, Version)> {
    let fault = |reason: String| Failure { step: limiting(controller), reason };
    let has = |directory: &Path, file: &str| {
        fs::read_to_string(directory.join(file))
            .is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
    };
    let version_2 = hierarchies.iter().find(|one| one.version == Version::V2 && has(&one.mount, "cgroup.controllers"));
    let version_1 = hierarchies.iter().find(|one| one.controllers.iter().any(|name| name == controller));
    match (version_2, version_1, asked) {
        (Some(hierarchy), _, Some(asked)) => {
            let mut directory = hierarchy.mount.clone();
            for part in Path::new(asked).components().filter(|part| matches!(part, std::path::Component::Normal(_))) {
                enable(&directory, controller).map_err(|error| fault(not_allowed(&directory, &error)))?;
                directory.push(part);
                made(&directory).map_err(|error| fault(not_allowed(&directory, &error)))?;
            }
            enable(&directory, controller).map_err(|error| fault(not_allowed(&directory, &error)))?;
            Ok((directory, Version::V2))
        }
        (Some(hierarchy), _, None) => {
            let mut first = None;
            for directory in hierarchy.own.ancestors().take_while(|above| above.starts_with(&hierarchy.mount)) {
                // Only the root has no type, and may hold processes beside groups.
                let is_root = !directory.join("cgroup.type").exists();
                let is_empty = fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
                if !is_root && !is_empty {
                    continue;
                }
                match enable(directory, controller).and_then(|()| writable(directory)) {
                    Ok(()) => return Ok((directory.to_owned(), Version::V2)),
                    Err(error) => drop(first.get_or_insert_with(|| not_allowed(directory, &error))),
                }
            }
            Err(fault(first.unwrap_or_else(|| {
                "rbuild's own control group holds processes, and none above it can be used".to_owned()
            })))
        }
        (None, Some(hierarchy), asked) => {
            let directory = match asked {
                Some(asked) => hierarchy.mount.join(asked.trim_start_matches('/')),
                None => hierarchy.own.clone(),
            };
            fs::create_dir_all(&directory).and_then(|()| writable(&directory)).map_err(|error| {
                let advice = "control groups of version 1 belong to root: run rbuild as root, or on a system with version 2 alone";
                fault(format!("{}: {error} ({advice})", directory.display()))
            })?;
            if controller == "cpuset" && asked.is_some() {
                inherit_cpuset(&hierarchy.mount, &directory)?;
            }
            Ok((directory, Version::V1))
        }
        (None, None, _) => {
            Err(fault(format!("no control group hierarchy with the controller {controller} is mounted")))
        }
    }
}

fn not_allowed(directory: &Path, error: &io::Error) -> String {
    format!(
        "{}: {error} (this user may make no control groups there: give rbuild one of its own by `systemd-run --user --scope -p Delegate=yes \
         rbuild ...`, or run it as root)",
        directory.display()
    )
}

fn enable(directory: &Path, controller: &str) -> io::Result<()> {
    let file = directory.join("cgroup.subtree_control");
    if fs::read_to_string(&file)?.split_whitespace().any(|name| name == controller) {
        return Ok(());
    }
    fs::write(file, format!("+{controller}"))
}

fn writable(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(directory, rustix::fs::Access::WRITE_OK)?)
}

fn made(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn create_directory(parent: &Path, name: &str, controller: &str) -> Result<PathBuf> {
    for number in 0..100 {
        let directory = parent.join(if number == 0 { name.to_owned() } else { format!("{name}.{number}") });
        match fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            // Left by a process of the same number that the machine's end caught: free unless somebody is in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::remove_dir(&directory).and_then(|()| fs::create_dir(&directory)).is_ok() {
                    return Ok(directory);
                }
            }
            Err(error) => return Err(Failure { step: limiting(controller), reason: not_allowed(&directory, &error) }),
        }
    }
    let reason = format!("{} is full of groups called {name}", parent.display());
    Err(Failure { step: limiting(controller), reason })
}

/// A new group of version 1 has no processors and no memory nodes, and takes no process without them.
fn inherit_cpuset(parent: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(directory.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
            fs::write(directory.join(file), inherited.trim()).map_err(|error| Failure {
                step: limiting("cpuset"),
                reason: format!("{}: {error}", directory.join(file).display()),
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        33 30 0:29 /docker/1 /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";

    #[test]
    fn hierarchies_are_found_with_the_own_group() {
        let found =
            hierarchies(HYBRID, "5:memory:/ci/job\n4:cpu,cpuacct:/docker/1/inner\n3:devices:/\n0::/user.slice\n");
        let own: Vec<_> = found.iter().map(|one| (one.version, one.own.to_str().unwrap())).collect();
        assert_eq!(
            own,
            [
                (Version::V2, "/sys/fs/cgroup/unified/user.slice"),
                (Version::V1, "/sys/fs/cgroup/memory/ci/job"),
                (Version::V1, "/sys/fs/cgroup/cpu,cpuacct/inner"),
            ]
        );
    }

    #[test]
    fn settings_of_both_versions() {
        let resources = Resources {
            memory: Some(1000),
            cpu_quota: Some(5000),
            cpu_shares: Some(1024),
            pids: Some(7),
            cpuset_cpus: Some("0".into()),
            ..Resources::default()
        };
        let text = |version| {
            let settings = settings(&resources, version).into_iter();
            settings.map(|setting| format!("{}={}", setting.file, setting.value)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            text(Version::V2),
            "memory.max=1000 memory.swap.max=1000 cpu.max=5000 100000 cpu.weight=39 cpuset.cpus=0 pids.max=7"
        );
        assert_eq!(
            text(Version::V1),
            "memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=2000 cpu.cfs_period_us=100000 cpu.cfs_quota_us=5000 \
             cpu.shares=1024 cpuset.cpus=0 pids.max=7"
        );
        assert_eq!(needed(&resources), ["memory", "cpu", "cpuset", "pids"]);
    }

    #[test]
    fn swap_without_a_limit() {
        let resources = Resources { memory: Some(1000), memory_swap: Some(-1), ..Resources::default() };
        assert_eq!(settings(&resources, Version::V2)[1].value, "max");
        assert_eq!(settings(&resources, Version::V1)[1].value, "-1");
    }

    #[test]
    fn a_delegated_group_of_version_2_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let group = |path: &str, processes: &str, given: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cgroup.type"), "domain\n").unwrap();
            fs::write(path.join("cgroup.procs"), processes).unwrap();
            fs::write(path.join("cgroup.controllers"), "memory pids\n").unwrap();
            fs::write(path.join("cgroup.subtree_control"), given).unwrap();
        };
        group("", "", "memory");
        group("user", "", "memory");
        group("user/session", "12\n", "");
        let hierarchy = Hierarchy {
            version: Version::V2,
            controllers: Vec::new(),
            mount: directory.path().to_owned(),
            own: directory.path().join("user/session"),
        };
        let found = parent(std::slice::from_ref(&hierarchy), "memory", None).ok().unwrap();
        assert_eq!(found, (directory.path().join("user"), Version::V2));
        let error = parent(&[hierarchy], "cpu", None).err().unwrap();
        assert_eq!(error.reason, "no control group hierarchy with the controller cpu is mounted");
    }
}
