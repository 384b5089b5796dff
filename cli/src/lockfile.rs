//! The lock file beside a Dockerfile: where it lies, and what a build makes of it.

use crate::error::{CliError, Result};
use executor::source::local;
use solver::lock::{Key, Lock, Lockable, MAX_SIZE};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many names an error tells.
const SHOWN: usize = 10;

/// `rbuild.lock` beside a Dockerfile of the usual name, `NAME.lock` beside others.
pub fn path_beside(dockerfile: &Path) -> PathBuf {
    let name = dockerfile.file_name().unwrap_or_default().to_string_lossy();
    match name.as_ref() {
        "Dockerfile" | "dockerfile" => dockerfile.with_file_name("rbuild.lock"),
        name => dockerfile.with_file_name(format!("{name}.lock")),
    }
}

/// The lock file of a Dockerfile on this machine, if it is there.
pub fn read(dockerfile: &Path) -> Result<Option<Lock>> {
    let path = path_beside(dockerfile);
    let data = local::read_beside(&path);
    let data = data.map_err(|error| CliError::Failed(format!("cannot read {}: {error}", path.display())))?;
    if data.is_none() && path.symlink_metadata().is_ok() {
        let problem = "it is a link that leads nowhere, or out of its directory";
        return Err(CliError::Failed(format!("cannot read {}: {problem}", path.display())));
    }
    data.map(|data| parse(&data, &path)).transpose()
}

/// `path` is for messages.
pub fn parse(data: &[u8], path: &Path) -> Result<Lock> {
    let invalid = |problem: String| {
        let advice = "mend it, or write it anew with `rbuild lock --update`";
        CliError::Failed(format!("invalid lock file {}: {problem}; {advice}", path.display()))
    };
    if data.len() > MAX_SIZE {
        return Err(invalid(format!("it is larger than {} KiB", MAX_SIZE >> 10)));
    }
    let text = std::str::from_utf8(data).map_err(|_| invalid("it is no text".into()))?;
    Lock::parse(text).map_err(|error| invalid(error.to_string()))
}

/// What a build takes and its lock file does not hold: a warning, or with `--locked` an error.
pub fn missing(
    lock: Option<&Lock>,
    lockable: &BTreeMap<Key, Lockable>,
    must_be_complete: bool,
) -> Result<Option<String>> {
    let missing: Vec<&Key> = lockable.keys().filter(|key| lock.is_none_or(|lock| lock.get(key).is_none())).collect();
    if missing.is_empty() || (lock.is_none() && !must_be_complete) {
        return Ok(None);
    }
    let mut names: Vec<String> = missing.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more) = missing.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let names = names.join(", ");
    match (must_be_complete, lock) {
        (true, Some(_)) => {
            Err(CliError::build(format!("--locked: the lock file has no entry for {names}: add it with `rbuild lock`")))
        }
        (true, None) => Err(CliError::build(format!(
            "--locked: there is no lock file, and the build takes {names}: write one with `rbuild lock`"
        ))),
        (false, _) => Ok(Some(format!("the lock file has no entry for {names}: add it with `rbuild lock`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (dockerfile, expected) in [
            ("Dockerfile", "rbuild.lock"),
            ("a/dockerfile", "a/rbuild.lock"),
            ("/x/dev.Dockerfile", "/x/dev.Dockerfile.lock"),
            ("../Dockerfile.dev", "../Dockerfile.dev.lock"),
        ] {
            assert_eq!(path_beside(Path::new(dockerfile)), Path::new(expected));
        }
    }

    #[test]
    fn what_is_missing() {
        let image = |name: &str| Lockable::Image(name.parse().unwrap());
        let lockable: BTreeMap<_, _> = ["a", "b"].map(|name| (image(name).key(), image(name))).into();
        let mut lock = Lock::default();
        assert!(matches!(missing(None, &lockable, false), Ok(None)));
        assert!(missing(None, &lockable, true).is_err());
        lock.insert(image("a").key(), String::new());
        let warning = missing(Some(&lock), &lockable, false).unwrap().unwrap();
        assert!(warning.contains("docker.io/library/b:latest") && !warning.contains("library/a"), "{warning}");
        assert!(missing(Some(&lock), &lockable, true).is_err());
        lock.insert(image("b").key(), String::new());
        assert!(matches!(missing(Some(&lock), &lockable, true), Ok(None)));
    }
}
