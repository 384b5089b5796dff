//! `--ssh`: agents and key files whose signatures steps may ask for, in docker buildx's spelling.

use crate::error::{CliError, Result};
use executor::ssh::{Agent, Agents, DEFAULT_ID, Keyring};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `ID[=SOCKET|KEY[,KEY]]` each; without a path, the agent of SSH_AUTH_SOCK. Key files are read now.
pub fn agents(given: &[String]) -> Result<Agents> {
    given.iter().filter(|text| !text.is_empty()).map(|text| agent(text)).collect()
}

/// The agent that the user works with.
pub fn own_agent() -> Option<Agent> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(|path| Agent::Socket(PathBuf::from(path)))
}

fn agent(text: &str) -> Result<(String, Agent)> {
    let invalid = |why: String| CliError::Usage(format!("--ssh {text}: {why}"));
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { DEFAULT_ID } else { id }.to_owned();
    if paths.is_empty() {
        let none = "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or name a socket or key files";
        return Ok((id, own_agent().ok_or_else(|| invalid(none.into()))?));
    }
    let paths: Vec<&Path> = paths.split(',').map(Path::new).collect();
    let mut sockets = 0;
    for path in &paths {
        let found = path.metadata().map_err(|error| invalid(format!("stat {}: {error}", path.display())))?;
        sockets += usize::from(found.file_type().is_socket());
    }
    match (sockets, paths.as_slice()) {
        (0, files) => {
            let keys = Keyring::load(files).map_err(|error| invalid(error.to_string()))?;
            Ok((id, Agent::Keys(Arc::new(keys))))
        }
        (1, [socket]) => Ok((id, Agent::Socket(socket.to_path_buf()))),
        (sockets, paths) if sockets == paths.len() => Err(invalid("only single socket allowed".into())),
        _ => Err(invalid("invalid combination of keys and sockets".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_sockets_or_keys() {
        let tmp = tempfile::tempdir().unwrap();
        let path = |name: &str| tmp.path().join(name).display().to_string();
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::fs::write(path("text"), "no key").unwrap();
        let (id, agent) = agent(&format!("a={}", path("socket"))).unwrap();
        assert!(id == "a" && matches!(agent, Agent::Socket(found) if found == Path::new(&path("socket"))));
        for (text, why) in [
            (format!("a={},{}", path("socket"), path("text")), "invalid combination of keys and sockets"),
            (format!("a={0},{0}", path("socket")), "only single socket allowed"),
            (format!("a={}", path("missing")), "No such file"),
            (format!("a={}", path("text")), "neither a private key nor the socket of an agent"),
        ] {
            let error = super::agent(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
