//! Git repositories: ADD, and contexts (D18.40 to D18.43).
//!
//! The git program does the work, as in BuildKit: its transports and its ways to log in are what users have set up and know. For each remote the
//! store keeps a bare repository, so that a second build fetches only what is new. A checkout becomes a layer, found again by its commit; a
//! reference is asked about in every build, a commit never again.
//!
//! The repository is hostile: no hooks, no configuration of the machine or of a repository that rbuild happens to be started in, no
//! transport but the network's, no links on the way to the directory that is wanted. Credentials in a URL are taken out of it and reach
//! git by its environment: git itself writes URLs into arguments of its helpers and into configurations of submodules.

mod login;
mod reference;
mod tree;

pub use login::GitKeys;

use super::material::{Material, Materials, git_uri};
use super::progress::Progress;
use crate::error::{Error, Result, blocking};
use crate::secrets::Secrets;
use crate::snapshot::{Draft, Snapshots};
use crate::ssh::{Agent, DEFAULT_ID, Forwarding};
use crate::value::Stack;
use cache::{KeyLock, Kind, LayerId};
use login::{Credentials, HELPER, Header, authorization, without_credentials};
use parser::git::is_commit;
use parser::source::redacted;
use reference::choose;
use solver::event::EventSink;
use solver::op::Git;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tree::{move_entries, normalise, real_directory};

const MEMO: &str = "git";
const TIME_MEMO: &str = "git-time";
/// Part of every memo's key: a change of what a checkout looks like makes all of them new.
const VERSION: &str = "rbuild git checkout 2";
/// How long a remote may take to say what a reference stands for; git itself waits for as long as it takes, except with HTTP.
const PATIENCE: Duration = Duration::from_secs(60);
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("cannot fetch {remote}: the program git is not there; install git")]
    NoGit { remote: String },
    #[error("cannot {action} {remote}: {problem}{hint}")]
    Failed { action: &'static str, remote: String, problem: String, hint: &'static str },
    #[error("{remote} did not answer within {} s", PATIENCE.as_secs())]
    Silent { remote: String },
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

/// Checks repositories out into a store. Cheap to clone.
#[derive(Clone)]
pub struct Repositories {
    snapshots: Snapshots,
    keys: Arc<GitKeys>,
    secrets: Secrets,
    materials: Materials,
}

/// What a reference stands for at the moment.
struct Resolved {
    /// A commit, or an annotated tag.
    object: String,
    /// `refs/…`; empty for a commit that was named by its hash.
    reference: String,
}

impl Repositories {
    pub fn new(snapshots: Snapshots, keys: GitKeys, secrets: Secrets) -> Self {
        Repositories { snapshots, keys: Arc::new(keys), secrets, materials: Materials::default() }
    }

    /// What was checked out so far.
    pub fn materials(&self) -> Vec<Material> {
        self.materials.list()
    }

    /// The commit that the reference of `git` stands for at the moment.
    pub async fn commit(&self, git: &Git) -> Result<String> {
        // A tag that is an object of its own counts as its commit.
        let git = Git { keep_git_dir: false, ..git.clone() };
        let (run, _forwarding) = self.run(&git).await?;
        Ok(run.resolve().await?.object)
    }

    /// When the commit was made that the reference of `git` stands for, in seconds since 1970 (D13.15).
    pub async fn time(&self, git: &Git) -> Result<Option<i64>> {
        let (run, _forwarding) = self.run(git).await?;
        let resolved = run.resolve().await?;
        let store = self.snapshots.store();
        let known = store.memo(TIME_MEMO, &resolved.object)?;
        if let Some(time) = known.and_then(|text| String::from_utf8(text).ok()?.parse().ok()) {
            return Ok(Some(time));
        }
        let (_lock, repository) = self.repository(git).await?;
        let commit = run.fetch(&repository, &resolved).await?;
        let show = run.command(&[("--git-dir", &repository)]);
        let text = run.run("read", show, &["show", "--no-patch", "--format=%ct", &commit]).await?;
        store.put_memo(TIME_MEMO, &resolved.object, text.trim().as_bytes())?;
        Ok(text.trim().parse().ok())
    }

    async fn run<'a>(&'a self, git: &'a Git) -> Result<(Run<'a>, Option<Forwarding>)> {
        let (url, credentials) = without_credentials(&git.remote);
        let (secrets, remote) = (self.secrets.clone(), url.clone());
        let header = blocking(move || Ok(authorization(&secrets, &remote)?)).await?;
        let (socket, forwarding) = match self.keys.agent(&git.remote).filter(|_| !url.starts_with("http")) {
            Some(Agent::Socket(path)) => (Some(path.clone()), None),
            Some(agent @ Agent::Keys(_)) => {
                let forwarding = Forwarding::start(agent.clone(), &self.snapshots, (0, 0), 0o600)?;
                (Some(forwarding.path()), Some(forwarding))
            }
            None => (None, None),
        };
        let store = self.snapshots.store().root();
        Ok((Run { git, url, credentials, header, keys: &self.keys, socket, store }, forwarding))
    }

    /// Where the store keeps what was fetched of a remote, and the right to change it.
    async fn repository(&self, git: &Git) -> Result<(KeyLock, PathBuf)> {
        let store = self.snapshots.store();
        let (locking, id) = (store.clone(), *blake3::hash(format!("git {}", git.remote).as_bytes()).as_bytes());
        let lock = blocking(move || Ok(locking.lock_key(&id)?)).await?;
        Ok((lock, store.git_repository(&id, &redacted(&git.remote))))
    }

    /// The files of `git`, owned by root, 0644 or 0755.
    pub async fn checkout(&self, git: &Git, vertex: &str, events: &EventSink) -> Result<Stack> {
        let (run, _forwarding) = self.run(git).await?;
        let resolved = run.resolve().await?;
        self.materials.note(material(git, &resolved));
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
        let (_lock, repository) = self.repository(git).await?;
        if let Some(stack) = known()? {
            return Ok(stack);
        }
        let progress = Progress::new(events, vertex, format!("{} {}", redacted(&git.remote), resolved.object));
        let commit = run.fetch(&repository, &resolved).await?;
        let draft = self.snapshots.plain()?;
        run.check_out(&repository, &resolved, &commit, &draft).await?;
        let snapshots = self.snapshots.clone();
        let stack = blocking(move || snapshots.commit(draft, true)).await?;
        if let Some(layer) = stack.layers().first() {
            let text = format!("checkout of {} {}", redacted(&git.remote), resolved.object);
            store.describe_layer(&layer.id, Kind::GitCheckout, &text);
            store.put_memo(MEMO, &memo, &serde_json::to_vec(&layer.id).unwrap_or_default())?;
        }
        progress.done(0);
        Ok(stack)
    }
}

/// R12.12.
fn material(git: &Git, resolved: &Resolved) -> Material {
    let algorithm = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
    Material { uri: git_uri(git), algorithm, digest: resolved.object.clone() }
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
    /// The remote as git is told it.
    url: String,
    credentials: Option<Credentials>,
    header: Option<Header>,
    keys: &'a GitKeys,
    /// Of the agent that ssh may ask.
    socket: Option<PathBuf>,
    store: &'a Path,
}

impl Run<'_> {
    fn remote(&self) -> String {
        redacted(&self.git.remote)
    }

    /// A git command that knows no repositories but those in `directories`.
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
        // The one that rbuild is started in, most often that of the project, has a configuration too, and an origin.
        command.env("GIT_DIR", "/dev/null");
        let mut config = vec![
            // Submodules must not bring files of this machine.
            ("protocol.file.allow".to_owned(), "user"),
            ("protocol.ext.allow".to_owned(), "never"),
            ("core.hooksPath".to_owned(), "/dev/null"),
            ("core.fsmonitor".to_owned(), "false"),
            ("safe.directory".to_owned(), "*"),
            ("gc.auto".to_owned(), "0"),
            ("maintenance.auto".to_owned(), "false"),
            ("advice.detachedHead".to_owned(), "false"),
            ("init.defaultBranch".to_owned(), "master"),
            // A pack is there as a whole or not at all; of single objects some may be missing when git is killed.
            ("fetch.unpackLimit".to_owned(), "1"),
            // A server that says nothing more.
            ("http.lowSpeedLimit".to_owned(), "1"),
            ("http.lowSpeedTime".to_owned(), "60"),
        ];
        if let Some(Credentials { place, user, password }) = &self.credentials {
            config.push((format!("credential.{place}.helper"), HELPER));
            command.env("RBUILD_GIT_USER", user).env("RBUILD_GIT_PASSWORD", password);
        }
        if let Some(Header { scope, value }) = &self.header {
            config.push((format!("http.{scope}.extraHeader"), value));
        }
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
        let may = self.keys.may_log_in(&self.git.remote);
        // Keys that lie in files are the user's as well.
        let keys = if may { "" } else { " -o IdentityFile=none" };
        let ssh = format!(
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o 'UserKnownHostsFile={known}' \
             -o ConnectTimeout=30 -o ServerAliveInterval=20{keys}"
        );
        command.env("GIT_SSH_COMMAND", ssh);
        if let Some(socket) = &self.socket {
            command.env("SSH_AUTH_SOCK", socket);
        }
    }

    async fn run(&self, action: &'static str, mut command: Command, args: &[&str]) -> Result<String> {
        crate::sandbox::end_with_this_thread(command.as_std_mut());
        let output = command.args(args).output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => GitError::NoGit { remote: self.remote() },
            _ => GitError::Io { remote: self.remote(), action: "run git for", source: error },
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).replace(&self.git.remote, &self.remote());
        // Some of it is the server's.
        let stderr: String = stderr.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let problem = lines[lines.len().saturating_sub(4)..].join("; ");
        let needs_key = problem.contains("Permission denied") && self.keys.agents.get(DEFAULT_ID).is_none();
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
        let args = ["ls-remote", "--symref", "--", &self.url, wanted, &peeled];
        let answer = tokio::time::timeout(PATIENCE, self.run("ask", self.command(&[]), &args)).await;
        let list = answer.map_err(|_| GitError::Silent { remote: self.remote() })??;
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
        // Left by a git that was killed; nobody else is at work here.
        remove_locks(repository);
        if !repository.join("HEAD").exists() {
            let made = fs::create_dir_all(repository);
            made.map_err(|source| GitError::Io { remote: self.remote(), action: "make room for", source })?;
            let format = if resolved.object.len() == 64 { "sha256" } else { "sha1" };
            let format = format!("--object-format={format}");
            self.run("prepare", bare(), &["init", "--quiet", "--bare", "--template=", &format]).await?;
        }
        // What relative URLs of submodules are relative to.
        self.run("prepare", bare(), &["config", "--local", "remote.origin.url", &self.url]).await?;
        let has = async || self.run("look at", bare(), &["rev-parse", "--quiet", "--verify", &commit]).await;
        if has().await.is_err() {
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
        self.run("prepare", here(), &["init", "--quiet", "--template=", &format!("--object-format={format}")]).await?;
        let wanted = match resolved.reference.as_str() {
            "" => "+refs/rbuild/wanted".to_owned(),
            reference => format!("+refs/rbuild/wanted:{reference}"),
        };
        // By the protocol and not as a local clone, which would share files.
        let url = format!("file://{}", repository.display());
        let args = ["fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags", "--", &url, &wanted];
        self.run("copy", here(), &args).await?;
        self.run("check out", here(), &["checkout", "--quiet", "--force", "FETCH_HEAD"]).await?;
        for (key, value) in
            [("remote.origin.url", self.url.as_str()), ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")]
        {
            self.run("finish", here(), &["config", "--local", key, value]).await?;
        }
        self.run("finish", here(), &["reflog", "expire", "--all", "--expire=now"]).await?;
        Ok(())
    }
}

/// Removes the locks of files and references in a repository and in those of its submodules, as far as that is possible.
fn remove_locks(repository: &Path) {
    let mut pending = vec![repository.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, is_dir) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if is_dir && entry.file_name() != "objects" {
                pending.push(path);
            } else if !is_dir && path.extension().is_some_and(|extension| extension == "lock") {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str) -> Git {
        Git {
            remote: url.into(),
            reference: String::new(),
            subdir: String::new(),
            checksum: None,
            keep_git_dir: false,
            submodules: false,
            commit_time: false,
            fetch_by_commit: false,
        }
    }

    /// They are for the URL's own host, and stand nowhere but in the environment.
    #[test]
    fn credentials_stay_out_of_arguments() {
        let tmp = tempfile::tempdir().unwrap();
        let (git, keys) = (remote("https://us%65r:p%40ss@h:1/r.git"), GitKeys::default());
        let (url, credentials) = without_credentials(&git.remote);
        assert_eq!(url, "https://h:1/r.git");
        let run = Run { git: &git, url, credentials, header: None, keys: &keys, socket: None, store: tmp.path() };
        let ask = |url: &str| {
            let mut command = run.command(&[]).into_std();
            command.args(["credential", "fill"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            for (name, value) in command.get_envs() {
                let value = value.unwrap_or_default().to_string_lossy();
                assert!(!value.contains("p@ss") || name == "RBUILD_GIT_PASSWORD", "{name:?}");
            }
            let mut child = command.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("url={url}\n\n").as_bytes()).unwrap();
            String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
        };
        assert!(ask("https://h:1/other.git").ends_with("username=user\npassword=p@ss\n"));
        assert!(!ask("https://h:2/r.git").contains("p@ss") && !ask("http://h:1/r.git").contains("p@ss"));
        for whole in ["ssh://me@h/r", "git@h:r", "https://h/a@b.git"] {
            assert_eq!(without_credentials(whole), (whole.to_owned(), None));
        }
    }

    #[test]
    fn locks_that_were_left_are_removed() {
        let tmp = tempfile::tempdir().unwrap();
        for (path, stays) in
            [("config.lock", false), ("refs/rbuild/x.lock", false), ("modules/m/index.lock", false), ("config", true)]
        {
            let file = tmp.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            remove_locks(tmp.path());
            assert_eq!(file.exists(), stays, "{path}");
        }
    }
}
