//! Users and groups of an image: its `/etc/passwd` and `/etc/group`, read below its root (X1.23 to X1.34, X3.49 to X3.53).

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

/// Larger files are an error.
const MAX_SIZE: u64 = 10 << 20;
const MAX_ID: u32 = i32::MAX as u32;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// BuildKit's words, and what they mean (X3.54).
    #[error("invalid user index: -1: there are no files yet to look {0:?} up in, so give numbers")]
    NoFiles(String),
    #[error("uids and gids must be in range 0-{MAX_ID}")]
    OutOfRange,
    #[error("{0:?} exceeds {MAX_SIZE} bytes")]
    TooLarge(&'static str),
    #[error("{0} is not a regular file")]
    NotRegular(&'static str),
    #[error("cannot read {0}: {1}")]
    Unreadable(&'static str, String),
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `USER` for a process: a name or uid, with or without a group.
pub fn process_identity(root: BorrowedFd, user: &str) -> Result<Identity, UserError> {
    let (name, group) = split(user);
    let (Some(uid), Some(gid)) = (plain_id(name), group.and_then(plain_id)) else {
        return looked_up(root, name, group);
    };
    if uid > MAX_ID || gid > MAX_ID {
        return Err(UserError::OutOfRange);
    }
    let home = users(root).unwrap_or_default().into_iter().find(|user| user.uid == uid);
    Ok(Identity { uid, gid, groups: Vec::new(), home: home_of(home.as_ref()) })
}

fn looked_up(root: BorrowedFd, name: &str, group: Option<&str>) -> Result<Identity, UserError> {
    let users = match users(root) {
        // Without a user nothing needs to be known (X1.23).
        Err(_) if name.is_empty() => Vec::new(),
        users => users?,
    };
    let mut identity = Identity::default();
    let known = match (name.is_empty(), name.parse::<i64>()) {
        (true, _) => users.iter().find(|user| user.uid == 0),
        (false, Ok(number)) => {
            identity.uid = in_range(number)?;
            users.iter().find(|user| user.uid == identity.uid)
        }
        (false, Err(_)) => {
            let found = users.iter().find(|user| user.name == name);
            Some(found.ok_or_else(|| UserError::NoUser(name.to_owned()))?)
        }
    };
    identity.home = home_of(known);
    if let Some(user) = known {
        identity.uid = user.uid;
        identity.gid = user.gid;
    }
    match group {
        Some(group) => {
            identity.gid = match group.parse::<i64>() {
                Ok(number) => in_range(number)?,
                Err(_) => {
                    let found = groups(root)?.into_iter().find(|known| known.name == group);
                    found.ok_or_else(|| UserError::NoGroup(group.to_owned()))?.gid
                }
            };
        }
        None => {
            if let Some(user) = known {
                let groups = groups(root)?;
                let member = groups.iter().filter(|group| group.members.contains(&user.name));
                identity.groups = member.map(|group| group.gid).collect();
            }
        }
    }
    Ok(identity)
}

/// Resolves `--chown`, or the owner of a WORKDIR: a number alone is uid and gid; unknown names are 0, as in the norm (X3.52).
pub fn owner(root: BorrowedFd, spec: &str) -> Result<(u32, u32), UserError> {
    let (name, group) = split(spec);
    let group = group.filter(|group| !group.is_empty());
    let (uid, primary) = match plain_id(name) {
        Some(id) => (id, if name == "root" { 0 } else { id }),
        None if name.is_empty() => (0, 0),
        None => users(root)?.iter().find(|user| user.name == name).map_or((0, 0), |user| (user.uid, user.gid)),
    };
    let gid = match group {
        None => primary,
        Some(group) => match plain_id(group) {
            Some(id) => id,
            None => groups(root)?.iter().find(|known| known.name == group).map_or(0, |known| known.gid),
        },
    };
    Ok((uid, gid))
}

/// Whether `--chown` can be resolved without /etc/passwd and /etc/group.
pub fn is_numeric(spec: &str) -> bool {
    let (name, group) = split(spec);
    (name.is_empty() || plain_id(name).is_some()) && group.is_none_or(|group| plain_id(group).is_some())
}

fn split(spec: &str) -> (&str, Option<&str>) {
    match spec.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    }
}

fn plain_id(text: &str) -> Option<u32> {
    if text == "root" {
        return Some(0);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn in_range(number: i64) -> Result<u32, UserError> {
    u32::try_from(number).ok().filter(|id| *id <= MAX_ID).ok_or(UserError::OutOfRange)
}

fn home_of(user: Option<&User>) -> String {
    match user {
        Some(user) if !user.home.is_empty() => user.home.clone(),
        _ => "/".to_owned(),
    }
}

fn users(root: BorrowedFd) -> Result<Vec<User>, UserError> {
    let text = read(root, "/etc/passwd")?;
    let users = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() > 1);
    Ok(users
        .map(|fields| User {
            name: fields[0].trim().to_owned(),
            uid: number(fields.get(2)),
            gid: number(fields.get(3)),
            home: fields.get(5).copied().unwrap_or_default().trim().to_owned(),
        })
        .collect())
}

fn groups(root: BorrowedFd) -> Result<Vec<Group>, UserError> {
    let text = read(root, "/etc/group")?;
    let groups = text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() > 1);
    Ok(groups
        .map(|fields| Group {
            name: fields[0].trim().to_owned(),
            gid: number(fields.get(2)),
            members: fields.get(3).copied().unwrap_or_default().split(',').map(|name| name.trim().to_owned()).collect(),
        })
        .collect())
}

/// Bad numbers read as 0 (X6.20).
fn number(field: Option<&&str>) -> u32 {
    field.and_then(|field| field.trim().parse().ok()).unwrap_or(0)
}

/// An absent file is empty; a fifo never blocks.
fn read(root: BorrowedFd, path: &'static str) -> Result<String, UserError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(file) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) else { return Ok(String::new()) };
    let unreadable = |error: std::io::Error| UserError::Unreadable(path, error.to_string());
    let stat = rustix::fs::fstat(&file).map_err(|errno| unreadable(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(UserError::NotRegular(path));
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(UserError::TooLarge(path));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    fn root(passwd: Option<&str>) -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        if let Some(passwd) = passwd {
            std::fs::write(directory.path().join("etc/passwd"), passwd).unwrap();
            let group = "root:x:0:\nmail:x:8:app\nwww:x:33:app,other\n";
            std::fs::write(directory.path().join("etc/group"), group).unwrap();
        }
        let fd = crate::mount::open_directory(directory.path()).unwrap();
        (directory, fd)
    }

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nbroken\napp:x:1000:50::/home/app:\napp:x:7:7:::\nbad:x:y:z\n";

    #[test]
    fn processes_run_as_the_norm_says() {
        let (_directory, root) = root(Some(PASSWD));
        let identity = |user: &str| process_identity(root.as_fd(), user).map_err(|error| error.to_string());
        let id = |uid, gid, groups: &[u32], home: &str| {
            Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        for (clause, user, expected) in [
            ("X1.23", "", id(0, 0, &[], "/root")),
            ("X1.24", "5:6", id(5, 6, &[], "/")),
            ("X1.24", "root:root", id(0, 0, &[], "/root")),
            ("X1.27", "app", id(1000, 50, &[8, 33], "/home/app")),
            ("X1.25", "1000", id(1000, 50, &[8, 33], "/home/app")),
            ("X1.28", "4242", id(4242, 0, &[], "/")),
            ("X1.30", "app:www", id(1000, 33, &[], "/home/app")),
            ("X6.18", "1000:", id(1000, 50, &[8, 33], "/home/app")),
            ("X6.20", "bad", id(0, 0, &[], "/")),
            ("X1.29", "nope", Err("unable to find user nope: no matching entries in passwd file".into())),
            ("X1.31", "app:nope", Err("unable to find group nope: no matching entries in group file".into())),
            ("X1.32", "3000000000", Err("uids and gids must be in range 0-2147483647".into())),
            ("X1.32", "3000000000:1", Err("uids and gids must be in range 0-2147483647".into())),
            ("X6.18", "-1", Err("uids and gids must be in range 0-2147483647".into())),
        ] {
            assert_eq!(identity(user), expected, "{clause} {user}");
        }
    }

    #[test]
    fn images_without_passwd_know_numbers_only() {
        let (_directory, root) = root(None);
        let identity = |user: &str| process_identity(root.as_fd(), user);
        assert_eq!(identity("").unwrap().uid, 0, "X6.14");
        assert_eq!(identity("root:root").unwrap().uid, 0);
        assert_eq!(identity("0").unwrap().uid, 0);
        assert_eq!(identity("daemon"), Err(UserError::NoUser("daemon".into())));
    }

    #[test]
    fn owners_of_files() {
        let (_directory, root) = root(Some(PASSWD));
        for (spec, expected) in [
            ("7", (7, 7)),
            ("1:2", (1, 2)),
            ("root", (0, 0)),
            ("app", (1000, 50)),
            ("app:www", (1000, 33)),
            ("0:33", (0, 33)),
            (":33", (0, 33)),
            ("app:", (1000, 50)),
            ("nobody:nobody", (0, 0)),
        ] {
            assert_eq!(owner(root.as_fd(), spec), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn odd_files_never_block() {
        let (directory, root) = root(None);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("etc/passwd"), kind, Mode::RUSR, 0).unwrap();
        assert_eq!(owner(root.as_fd(), "name"), Err(UserError::NotRegular("/etc/passwd")));
        assert_eq!(process_identity(root.as_fd(), "").unwrap().uid, 0);
    }
}
