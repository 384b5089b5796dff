//! Shells in a step's surroundings: in those of one that failed, or of one that could come next.
//!
//! A failed step's process is gone, and its sandbox with it. What it worked on is not: the layer in the making, the directories of its caches, what it
//! wrote to its other mounts, the sockets of its agents. A [`Session`] holds on to them and runs another process on them, in a new sandbox that is the
//! same as the first in everything else: environment, user, working directory, network, limits. It keeps locked what the step had locked.
//! Nothing of it becomes part of a result; all but what is written to caches is gone with the session.

use crate::error::{Error, Result};
use crate::exec::Prepared;
use crate::sandbox::{Network, Process, StartError, Stdio};
use crate::worker::LocalWorker;
use std::fmt;

/// What helps where there is nothing that could be run.
pub(crate) const NO_SHELL: &str = "Mount one into the step and name it, such as `RUN --mount=from=busybox,target=/busybox …` with \
                                   `--debug-shell=/busybox/bin/sh`";

/// A step that can be looked at.
pub struct Session {
    worker: LocalWorker,
    prepared: Prepared,
    network: Network,
}

/// A shell that runs in a session.
pub struct Shell {
    pub process: Process,
    /// The program that was found.
    pub program: String,
}

impl Session {
    pub(crate) fn new(worker: LocalWorker, prepared: Prepared, network: Network) -> Session {
        Session { worker, prepared, network }
    }

    /// As in `USER`; empty means root.
    pub fn user(&self) -> &str {
        &self.prepared.exec.user
    }

    pub fn working_directory(&self) -> &str {
        &self.prepared.exec.cwd
    }

    /// Starts `program`, or the first of the usual shells that can be started, that of the step before others. An earlier one of the session must
    /// have ended. Must be called within a tokio runtime.
    pub async fn open(&mut self, program: Option<&str>, stdio: impl Fn() -> std::io::Result<Stdio>) -> Result<Shell> {
        let shells = match program {
            Some(program) => vec![vec![program.to_owned()]],
            None => shells(&self.prepared.exec.args),
        };
        let mut tried = Vec::new();
        for args in shells {
            self.worker.snapshots.remount(&mut self.prepared.draft)?;
            let mut container = self.prepared.container(&self.worker, self.network.clone())?;
            let stdio = stdio().map_err(Error::write("a pipe"))?;
            if matches!(stdio, Stdio::Terminal { .. }) && !container.env.iter().any(|entry| entry.starts_with("TERM="))
            {
                container.env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
            }
            container.args.clone_from(&args);
            let mut process = self.worker.launcher.launch(container, stdio)?;
            match process.started().await? {
                Ok(_) => return Ok(Shell { process, program: args.join(" ") }),
                Err(StartError::NotFound | StartError::NotExecutable | StartError::WrongFormat(_)) => {
                    process.kill().await;
                    tried.push(args.join(" "));
                }
            }
        }
        Err(Error::NoShell(tried))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("step", &self.prepared.exec.args).finish_non_exhaustive()
    }
}

/// What to try for a step that runs `args`. A program that takes its commands from an argument, as SHELL has it, is one that takes them from a
/// terminal, too.
fn shells(args: &[String]) -> Vec<Vec<String>> {
    let mut shells: Vec<Vec<String>> = Vec::new();
    if let [program, .., flag, _] = args
        && flag.starts_with('-')
        && flag.ends_with('c')
    {
        shells.push(vec![program.clone()]);
    }
    for usual in [&["/bin/sh"][..], &["/bin/bash"], &["busybox", "sh"]] {
        if shells.first().is_none_or(|first| first != usual) {
            shells.push(usual.iter().map(|&word| word.to_owned()).collect());
        }
    }
    shells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_s_shell_comes_first() {
        let first = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
            shells(&args)[0].join(" ")
        };
        assert_eq!(first(&["/bin/bash", "-o", "pipefail", "-euc", "make"]), "/bin/bash");
        assert_eq!(first(&["/usr/bin/zsh", "-c", "make"]), "/usr/bin/zsh");
        assert_eq!(first(&["make", "-j", "all"]), "/bin/sh", "the exec form");
        assert_eq!(first(&["make"]), "/bin/sh");
        assert_eq!(shells(&["/bin/sh", "-c", "x"].map(str::to_owned)).len(), 3, "none is tried twice");
    }
}
