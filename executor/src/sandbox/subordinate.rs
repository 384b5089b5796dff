//! The ids that /etc/subuid and /etc/subgid grant a user.

use std::fs;
use std::path::{Path, PathBuf};

/// First ids and lengths. Both sides have at least one, and no more ids than there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
}

/// Why a user has a single id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// newuidmap or newgidmap.
    Program(&'static str),
    /// There is no line for the user in one of the two files; the first ids that are granted to nobody.
    Grant { first_free: u32 },
    /// The programs, or the kernel, did not do it.
    Refused { message: String },
}

impl Lack {
    /// What is missing, and what gives it.
    pub fn advice(&self, uid: u32) -> String {
        self.text(uid, &user_name(uid).unwrap_or_else(|| uid.to_string()), no_new_privileges())
    }

    fn text(&self, uid: u32, name: &str, no_new_privileges: bool) -> String {
        match self {
            Lack::Program(program) => {
                format!("{program} is not installed (`sudo apt-get install uidmap`, `sudo dnf install shadow-utils`)")
            }
            Lack::Grant { first_free } => format!(
                "/etc/subuid and /etc/subgid grant user {name} no ids (`echo {name}:{first_free}:65536 | sudo tee -a /etc/subuid \
                 /etc/subgid`)"
            ),
            Lack::Refused { message } if no_new_privileges => format!(
                "ids cannot be mapped ({message}), since this process may not gain privileges: leave out Docker's --security-opt \
                 no-new-privileges, Kubernetes' allowPrivilegeEscalation: false, systemd's NoNewPrivileges"
            ),
            Lack::Refused { message } if uid == 0 => format!(
                "ids cannot be mapped ({message}): root of this container lacks the capabilities SETUID, SETGID or SETFCAP"
            ),
            Lack::Refused { message } => format!(
                "ids cannot be mapped ({message}): /etc/subuid and /etc/subgid must grant them to {name}, and newuidmap and newgidmap \
                 must be set-uid (`sudo chmod u+s $(command -v newuidmap newgidmap)`)"
            ),
        }
    }
}

/// What the user may map.
pub(super) fn ranges_of(uid: u32) -> Result<Ranges, Lack> {
    for name in ["newuidmap", "newgidmap"] {
        if program(name).is_none() {
            return Err(Lack::Program(name));
        }
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (subuid, subgid, name) = (read("/etc/subuid"), read("/etc/subgid"), user_name(uid));
    let (uids, gids) = (granted(&subuid, uid, name.as_deref()), granted(&subgid, uid, name.as_deref()));
    match uids.is_empty() || gids.is_empty() {
        true => Err(Lack::Grant { first_free: first_free(&[&subuid, &subgid]) }),
        false => Ok(Ranges { uids, gids }),
    }
}

/// In the search path, or where it usually lies.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).chain([Path::new("/usr/bin").into()]);
    candidates.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()))
}

/// `owner:first:length`, where the owner is a name or a number.
fn grants(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (owner, first, length) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((owner, first, length)).filter(|_| length > 0)
    })
}

fn granted(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    let mut left = u32::MAX - 1;
    let own = grants(text).filter(|(owner, ..)| Some(*owner) == name || owner.parse() == Ok(uid));
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (_, first, length) in own {
        // The same line may stand there twice, by name and by number, and the kernel wants ranges apart.
        let overlaps = |(other, count): &(u32, u32)| {
            u64::from(first) < u64::from(*other) + u64::from(*count)
                && u64::from(*other) < u64::from(first) + u64::from(length)
        };
        if length <= left && !ranges.iter().any(overlaps) {
            left -= length;
            ranges.push((first, length));
        }
    }
    ranges
}

/// Where useradd would begin, too.
fn first_free(files: &[&str]) -> u32 {
    let ends = files.iter().flat_map(|text| grants(text)).map(|(_, first, length)| first.saturating_add(length));
    ends.fold(100_000, u32::max)
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    })
}

fn no_new_privileges() -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_found_by_name_and_by_number() {
        let text =
            "other:100000:65536\nci:200000:1000\n# a remark\n1001:300000:500\nci:200000:1000\nci:x:1\nci:7:0\n\n";
        assert_eq!(granted(text, 1001, Some("ci")), [(200_000, 1000), (300_000, 500)]);
        assert_eq!(granted(text, 1001, None), [(300_000, 500)]);
        assert_eq!(granted(text, 7, Some("nobody")), []);
        // More than there are ids.
        assert_eq!(granted("1:1:4294967295\n1:5:10\n", 1, None), [(5, 10)]);
    }

    #[test]
    fn the_first_free_ids_are_beyond_all() {
        assert_eq!(first_free(&["", ""]), 100_000);
        assert_eq!(first_free(&["a:100000:65536\n", "b:4294967295:9\nc:1:1\n"]), u32::MAX);
        assert_eq!(first_free(&["a:100000:65536\n", "b:165536:65536\n"]), 231_072);
    }

    #[test]
    fn each_lack_has_its_remedy() {
        let text = |lack: Lack, uid, locked| lack.text(uid, "ci", locked);
        assert!(
            text(Lack::Program("newgidmap"), 5, false)
                .starts_with("newgidmap is not installed (`sudo apt-get install uidmap`")
        );
        let grant = text(Lack::Grant { first_free: 165_536 }, 5, false);
        assert!(grant.contains("`echo ci:165536:65536 | sudo tee -a /etc/subuid /etc/subgid`"), "{grant}");
        let refused = || Lack::Refused { message: "newuidmap: not permitted".into() };
        assert!(text(refused(), 5, true).contains("no-new-privileges"));
        assert!(text(refused(), 5, false).contains("chmod u+s"));
        assert!(text(refused(), 0, false).contains("SETFCAP"));
    }
}
