//! Git repositories: ADD, and contexts (D18.40 to D18.43).
//!
//! The git program does the work, as in BuildKit: its transports and its ways to log in are what users have set up and know. For each remote the
//! store keeps a bare repository, so that a second build fetches only what is new. A checkout becomes a layer, found again by its commit; a
//! reference is asked about in every build, a commit never again.
//!
//! The repository is hostile: no hooks, no configuration of the machine, no transport but the network's, no links on the way to the
//! directory that is wanted. Credentials in a URL reach git by its environment, not by its arguments or by files.

use super::progress::Progress;
use crate::error::{Error, Result, blocking};
use crate::snapshot::{Draft, Snapshots};
use crate::value::Stack;
use cache::LayerId;
use parser::git::is_commit;
use parser::source::redacted;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use solver::event::EventSink;
use solver::op::Git;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;

const MEMO: &str = "git";
/// Part of every memo's key: a change of what a checkout looks like makes all of them new.
const VERSION: &str = "rbuild git checkout 1";

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("cannot fetch {remote}: the program git is not there; install git")]
    NoGit { remote: String },
    #[error("cannot {action} {remote}: {problem}{hint}")]
    Failed { action: &'static str, remote: String, problem: String, hint: &'static str },
    #[error("repository {remote} does not contain ref {reference}")]
    NoReference { remote: String, reference: String },
    #[error("{remote}: expected checksum to match {expected}, got {found}")]
    Checksum { remote: String, expected: String, found: String },
    #[error("{remote}: {reference} moved while it was fetched, and {commit} is no longer there")]
    Moved { remote: String, reference: String, commit: String },
    #[error("invalid subdir {subdir:?} of {remote}: {problem}")]
    Subdir { remote: String, subdir: String, problem: String },
    #[error("{remote}: cannot {action} the checkout: {source}")]
    Io { remote: String, action: &'static str, source: io::Error },
}

/// Who may be asked to log in with keys.
#[derive(Clone, Debug, Default)]
pub struct SshAgent {
    /// The agent's socket, if there is one.
    pub socket: Option<PathBuf>,
    /// `--ssh default`: the Dockerfile's own sources may use it.
    pub for_all: bool,
    /// Remotes that the user named on the command line may use it in any case.
    pub for_remotes: Vec<String>,
}

/// Checks repositories out into a store. Cheap to clone.
#[derive(Clone)]
pub struct Repositories {
    snapshots: Snapshots,
    agent: Arc<SshAgent>,
}

/// What a reference stands for at the moment.
struct Resolved {
    /// A commit, or an annotated tag.
    object: String,
    /// `refs/…`; empty for a commit that was named by its hash.
    reference: String,
}

impl Repositories {
    pub fn new(snapshots: Snapshots, agent: SshAgent) -> Self {
        Repositories { snapshots, agent: Arc::new(agent) }
    }

    /// The files of `git`, owned by root, 0644 or 0755.
    pub async fn checkout(&self, git: &Git, vertex: &str, events: &EventSink) -> Result<Stack> {
        let run = Run { git, agent: &self.agent, store: self.snapshots.store().root() };
        let resolved = run.resolve().await?;
        let store = self.snapshots.store();
        let memo = memo_key(git, &resolved);
        let known = || -> Result<Option<Stack>> {
            let Some(layer) = store.memo(MEMO, &memo)? else { return Ok(None) };
            let Ok(layer) = serde_json::from_slice::<LayerId>(&layer) else { return Ok(None) };
            self.snapshots.stack_of(&layer)
        };
        if let Some(stack) = known()? {
            return Ok(stack);
        }
        // One at a time for a remote: they share a repository.
        let (locking, id) = (store.clone(), *blake3::hash(format!("git {}", git.remote).as_bytes()).as_bytes());
        let _lock = blocking(move || Ok(locking.lock_key(&id)?)).await?;
        if let Some(stack) = known()? {
            return Ok(stack);
        }
        let progress = Progress::new(events, vertex, format!("{} {}", redacted(&git.remote), resolved.object));
        let repository = store.root().join("git").join(hex::encode(&id[..16]));
        let commit = run.fetch(&repository, &resolved).await?;
        let draft = self.snapshots.plain()?;
        run.check_out(&repository, &resolved, &commit, &draft).await?;
        let snapshots = self.snapshots.clone();
        let stack = blocking(move || snapshots.commit(draft, true)).await?;
        if let Some(layer) = stack.layers().first() {
            store.put_memo(MEMO, &memo, &serde_json::to_vec(&layer.id).unwrap_or_default())?;
        }
        progress.done(0);
        Ok(stack)
    }
}

/// A checkout depends on the commit and on little else; with `.git` in it, or with submodules at relative URLs, on where it came from too.
fn memo_key(git: &Git, resolved: &Resolved) -> String {
    let mut hasher = blake3::Hasher::new();
    let from = if git.keep_git_dir || git.submodules { redacted(&git.remote) } else { String::new() };
    let reference = if git.keep_git_dir { resolved.reference.as_str() } else { "" };
    let flags = format!("{} {} {}", git.keep_git_dir, git.submodules, git.commit_time);
    for part in [VERSION, &resolved.object, &git.subdir, &from, reference, &flags] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

struct Run<'a> {
    git: &'a Git,
    agent: &'a SshAgent,
    store: &'a Path,
}

impl Run<'_> {
    fn remote(&self) -> String {
        redacted(&self.git.remote)
    }

    /// A git command that sees the remote as `origin`.
    fn command(&self, directories: &[(&str, &Path)]) -> Command {
        let mut command = Command::new("git");
        command.stdin(Stdio::null()).kill_on_drop(true).env_clear();
        const KEPT: [&str; 14] = [
            "PATH",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "all_proxy",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "GIT_SSL_CAINFO",
            "GIT_SSL_CAPATH",
            "TMPDIR",
        ];
        for name in KEPT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0").env("HOME", "/dev/null");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let config = [
            ("remote.origin.url", self.git.remote.as_str()),
            // Submodules must not bring files of this machine.
            ("protocol.file.allow", "user"),
            ("protocol.ext.allow", "never"),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("safe.directory", "*"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "master"),
        ];
        command.env("GIT_CONFIG_COUNT", config.len().to_string());
        for (index, (key, value)) in config.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        self.set_up_ssh(&mut command);
        for (flag, directory) in directories {
            command.arg(flag).arg(directory);
        }
        command
    }

    /// Host keys: those that the user knows, and new ones, which are remembered in the store; one that changed is refused.
    fn set_up_ssh(&self, command: &mut Command) {
        let own = self.store.join("known_hosts");
        let mut known = own.display().to_string();
        if let Some(home) = std::env::var_os("HOME") {
            known = format!("{known} {}", Path::new(&home).join(".ssh/known_hosts").display());
        }
        let known = known.replace('\'', "");
        let ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile={known}'"
        );
        command.env("GIT_SSH_COMMAND", ssh);
        let may = self.agent.for_all || self.agent.for_remotes.contains(&self.git.remote);
        if let Some(socket) = self.agent.socket.as_ref().filter(|_| may) {
            command.env("SSH_AUTH_SOCK", socket);
        }
    }

    async fn run(&self, action: &'static str, mut command: Command, args: &[&str]) -> Result<String> {
        let output = command.args(args).output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::NoGit { remote: self.remote() },
            _ => GitError::Io { remote: self.remote(), action: "run git for", source: error },
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).replace(&self.git.remote, &self.remote());
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let problem = lines[lines.len().saturating_sub(4)..].join("; ");
        let needs_key = problem.contains("Permission denied") && !self.agent.for_all;
        let hint = match problem.as_str() {
            _ if needs_key => ": keys of the ssh agent are offered with --ssh default",
            text if text.contains("could not read Username") => ": it wants a user name and a password",
            _ => "",
        };
        Err(GitError::Failed { action, remote: self.remote(), problem, hint }.into())
    }

    /// Asks the remote, unless a commit is wanted.
    async fn resolve(&self) -> Result<Resolved> {
        let git = self.git;
        let checked = |object: &str, peeled: &str| -> Result<()> {
            match &git.checksum {
                Some(expected) if !object.starts_with(expected.as_str()) && !peeled.starts_with(expected.as_str()) => {
                    let found = if peeled.is_empty() { object.to_owned() } else { format!("{object} or {peeled}") };
                    Err(GitError::Checksum { remote: self.remote(), expected: expected.clone(), found }.into())
                }
                _ => Ok(()),
            }
        };
        if is_commit(&git.reference) {
            checked(&git.reference, "")?;
            return Ok(Resolved { object: git.reference.clone(), reference: String::new() });
        }
        if let (true, Some(commit)) = (git.fetch_by_commit, &git.checksum) {
            let reference = match git.reference.as_str() {
                "" => String::new(),
                full if full.starts_with("refs/") => full.to_owned(),
                branch => format!("refs/heads/{branch}"),
            };
            return Ok(Resolved { object: commit.clone(), reference });
        }
        let wanted = if git.reference.is_empty() { "HEAD" } else { &git.reference };
        let peeled = format!("{wanted}^{{}}");
        let list =
            self.run("ask", self.command(&[]), &["ls-remote", "--symref", "--", "origin", wanted, &peeled]).await?;
        let missing = || GitError::NoReference { remote: self.remote(), reference: wanted.to_owned() };
        let found = choose(&list, wanted).ok_or_else(missing)?;
        checked(&found.object, &found.peeled)?;
        // Without `.git` a tag is as good as its commit, and a branch there gives the same checkout.
        let object = if git.keep_git_dir || found.peeled.is_empty() { found.object } else { found.peeled };
        Ok(Resolved { object, reference: found.reference })
    }

    /// Sees to it that the repository has the object, and gives the commit that it stands for.
    async fn fetch(&self, repository: &Path, resolved: &Resolved) -> Result<String> {
        let bare = || self.command(&[("--git-dir", repository)]);
        let commit = format!("{}^{{commit}}", resolved.object);
        if !repository.join("HEAD").exists() {
            let made = fs::create_dir_all(repository);
            made.map_err(|source| GitError::Io { remote: self.remote(), action: "make room for", source })?;
            let format = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
            let format = format!("--object-format={format}");
            self.run("prepare", bare(), &["init", "--quiet", "--bare", "--template=", &format]).await?;
        }
        let has = async || self.run("look at", bare(), &["rev-parse", "--quiet", "--verify", &commit]).await;
        if has().await.is_err() {
            // Left by a git that was killed; nobody else is at work here.
            let _ = fs::remove_file(repository.join("shallow.lock"));
            let name = match resolved.reference.as_str() {
                "" => resolved.object.as_str(),
                reference => reference,
            };
            let one = format!("+{name}:refs/rbuild/fetched");
            let mut tried =
                self.run("fetch", bare(), &["fetch", "--quiet", "--depth=1", "--no-tags", "origin", &one]).await;
            if has().await.is_err() && name != resolved.object {
                let one = format!("+{}:refs/rbuild/fetched", resolved.object);
                tried =
                    self.run("fetch", bare(), &["fetch", "--quiet", "--depth=1", "--no-tags", "origin", &one]).await;
            }
            if has().await.is_err() {
                // A server that serves no single commits, or that knows no depth.
                let mut all = vec!["fetch", "--quiet", "--tags"];
                if repository.join("shallow").exists() {
                    all.push("--unshallow");
                }
                all.extend(["origin", "+refs/heads/*:refs/rbuild/heads/*"]);
                tried = self.run("fetch", bare(), &all).await.map(|_| String::new());
            }
            if has().await.is_err() {
                tried?;
                let (reference, commit) = (self.git.reference.clone(), resolved.object.clone());
                return Err(GitError::Moved { remote: self.remote(), reference, commit }.into());
            }
        }
        Ok(has().await?.trim().to_owned())
    }

    async fn check_out(&self, repository: &Path, resolved: &Resolved, commit: &str, draft: &Draft) -> Result<()> {
        let git = self.git;
        let keep = git.keep_git_dir && git.subdir.is_empty();
        let tree = if git.subdir.is_empty() { draft.upper().to_owned() } else { draft.scratch().join("tree") };
        let io = |action| move |source| Error::from(GitError::Io { remote: redacted(&git.remote), action, source });
        fs::create_dir_all(&tree).map_err(io("prepare"))?;
        // Its own index: the repository's would hold that of the last checkout.
        let index = draft.scratch().join("index");
        let git_dir = if keep { tree.join(".git") } else { repository.to_owned() };
        let here = || {
            let mut command = self.command(&[("--git-dir", &git_dir), ("--work-tree", &tree)]);
            command.current_dir(&tree);
            if !keep {
                command.env("GIT_INDEX_FILE", &index);
            }
            command
        };
        if keep {
            self.clone_into(repository, resolved, &here).await?;
        } else if !self.run("read", here(), &["ls-tree", commit]).await?.is_empty() {
            let args = ["checkout", "--quiet", "--force", "--no-overlay", commit, "--", "."];
            self.run("check out", here(), &args).await?;
        }
        if keep {
            // It names the store.
            let _ = fs::remove_file(git_dir.join("FETCH_HEAD"));
        }
        if git.submodules && tree.join(".gitmodules").is_file() {
            self.run("prepare submodules of", here(), &["submodule", "--quiet", "sync", "--recursive"]).await?;
            let args = ["submodule", "--quiet", "update", "--init", "--recursive", "--force", "--depth=1"];
            self.run("fetch submodules of", here(), &args).await?;
        }
        let time = match git.commit_time {
            true => {
                let text = self.run("read", here(), &["show", "--no-patch", "--format=%ct", commit]).await?;
                text.trim().parse::<i64>().ok()
            }
            false => None,
        };
        let (upper, subdir, remote) = (draft.upper().to_owned(), git.subdir.clone(), self.remote());
        blocking(move || {
            if !subdir.is_empty() {
                let from = real_directory(&tree, &subdir).map_err(|problem| GitError::Subdir {
                    remote: remote.clone(),
                    subdir,
                    problem,
                })?;
                move_entries(&from, &upper).map_err(|source| GitError::Io {
                    remote: remote.clone(),
                    action: "move",
                    source,
                })?;
            }
            normalise(&upper, keep, time).map_err(|source| GitError::Io { remote, action: "finish", source })?;
            Ok(())
        })
        .await
    }

    /// A repository of its own in the checkout, with the one commit (D18.42).
    async fn clone_into(&self, repository: &Path, resolved: &Resolved, here: &impl Fn() -> Command) -> Result<()> {
        let bare = self.command(&[("--git-dir", repository)]);
        self.run("prepare", bare, &["update-ref", "refs/rbuild/wanted", &resolved.object]).await?;
        let format = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
        self.run("prepare", here(), &["init", "--quiet", &format!("--object-format={format}")]).await?;
        let wanted = match resolved.reference.as_str() {
            "" => "+refs/rbuild/wanted".to_owned(),
            reference => format!("+refs/rbuild/wanted:{reference}"),
        };
        // By the protocol and not as a local clone, which would share files.
        let url = format!("file://{}", repository.display());
        let args = ["fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags", "--", &url, &wanted];
        self.run("copy", here(), &args).await?;
        self.run("check out", here(), &["checkout", "--quiet", "--force", "FETCH_HEAD"]).await?;
        for (key, value) in [
            ("remote.origin.url", self.remote().as_str()),
            ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
        ] {
            self.run("finish", here(), &["config", "--local", key, value]).await?;
        }
        self.run("finish", here(), &["reflog", "expire", "--all", "--expire=now"]).await?;
        Ok(())
    }
}

struct Found {
    object: String,
    peeled: String,
    reference: String,
}

/// The line of `ls-remote` that is meant: a full ref, a branch, or a tag, in that order, as git itself prefers.
fn choose(list: &str, wanted: &str) -> Option<Found> {
    let mut lines: Vec<(&str, &str)> = list.lines().filter_map(|line| line.split_once('\t')).collect();
    let mut wanted = wanted.to_owned();
    if wanted == "HEAD" {
        let target = lines.iter().find_map(|(left, name)| left.strip_prefix("ref: ").filter(|_| *name == "HEAD"));
        lines.retain(|(object, _)| is_commit(object));
        let object = lines.iter().find(|(_, name)| *name == "HEAD")?.0.to_owned();
        // A detached HEAD has no branch.
        return Some(Found { object, peeled: String::new(), reference: target.unwrap_or_default().to_owned() });
    }
    lines.retain(|(object, _)| is_commit(object));
    let find = |name: &str| lines.iter().find(|(_, found)| *found == name).map(|(object, _)| (*object).to_owned());
    if let Some(rest) = wanted.strip_prefix("refs/") {
        wanted = rest.to_owned();
    }
    let candidates = [
        format!("refs/{wanted}"),
        format!("refs/heads/{}", wanted.strip_prefix("heads/").unwrap_or(&wanted)),
        format!("refs/tags/{}", wanted.strip_prefix("tags/").unwrap_or(&wanted)),
    ];
    let (reference, object) = candidates.into_iter().find_map(|name| find(&name).map(|object| (name, object)))?;
    let peeled = find(&format!("{reference}^{{}}")).unwrap_or_default();
    Some(Found { object, peeled, reference })
}

/// `subdir` of `tree`, if every part of it is a directory and no link.
fn real_directory(tree: &Path, subdir: &str) -> std::result::Result<PathBuf, String> {
    let mut path = tree.to_owned();
    for name in subdir.split('/') {
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => return Err(format!("{name:?} is a symbolic link")),
            Ok(_) => return Err(format!("{name:?} is not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(format!("there is no {name:?}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(path)
}

fn move_entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Modes that do not depend on the umask, the commit's time where that is wanted, and no `.git` files, which point at where the
/// repositories of submodules are on this machine.
fn normalise(root: &Path, keep_git_dir: bool, time: Option<i64>) -> io::Result<()> {
    let mut pending = vec![root.to_owned()];
    let mut directories = Vec::new();
    let date = |path: &Path| match time {
        Some(seconds) => {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
        }
        None => Ok(()),
    };
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                pending.push(path);
                continue;
            }
            if kind.is_file() && entry.file_name() == ".git" && !keep_git_dir {
                fs::remove_file(&path)?;
                continue;
            }
            if kind.is_file() {
                let is_executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
                fs::set_permissions(&path, fs::Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))?;
            }
            date(&path)?;
        }
        directories.push(directory);
    }
    // Innermost last in, first out: an entry's change moves the time of its directory.
    directories.iter().rev().try_for_each(|directory| date(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D18.41: what a name means where several things have it.
    #[test]
    fn references() {
        let a = "a".repeat(40);
        let (b, c) = ("b".repeat(40), "c".repeat(40));
        let list = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\nnonsense\trefs/heads/x\n"
        );
        let chosen = |wanted| choose(&list, wanted).map(|found| (found.object, found.peeled, found.reference));
        assert_eq!(chosen("HEAD"), Some((a.clone(), String::new(), "refs/heads/main".into())));
        assert_eq!(chosen("v1"), Some((a.clone(), String::new(), "refs/heads/v1".into())));
        for tag in ["tags/v1", "refs/tags/v1"] {
            assert_eq!(chosen(tag), Some((b.clone(), c.clone(), "refs/tags/v1".into())), "{tag}");
        }
        assert_eq!(chosen("x"), None);
    }

    #[test]
    fn subdirectories_are_no_links() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        fs::write(tmp.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("/", tmp.path().join("a/l")).unwrap();
        assert_eq!(real_directory(tmp.path(), "a/b").unwrap(), tmp.path().join("a/b"));
        assert_eq!(real_directory(tmp.path(), "a/l/etc").unwrap_err(), "\"l\" is a symbolic link");
        assert_eq!(real_directory(tmp.path(), "f").unwrap_err(), "\"f\" is not a directory");
        assert_eq!(real_directory(tmp.path(), "x").unwrap_err(), "there is no \"x\"");
    }
}
