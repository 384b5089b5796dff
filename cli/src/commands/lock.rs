//! `rbuild lock`: which versions builds take from now on.

use super::build::{context, secret, ssh};
use super::check::DefinitionArgs;
use crate::app::{App, USER_AGENT};
use crate::definition;
use crate::error::{CliError, Result};
use crate::file::to_file;
use crate::lockfile;
use crate::progress::{Display, Mode};
use crate::stdout;
use clap::Args;
use executor::source::git::{GitKeys, Repositories};
use executor::source::http::Urls;
use executor::source::image::Images;
use oci::fetch::Downloader;
use oci::{Digest, Platform, Reference};
use solver::event::{EventSink, Stream};
use solver::lock::{Key, Lock, Lockable};
use solver::lower::{ImageResolver, LowerOptions, NamedContext, Purpose, ResolvedImage, lower_all};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Args)]
pub struct LockArgs {
    /// The build context, or a Dockerfile
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// The Dockerfile (default: PATH/Dockerfile); its lock file lies beside it
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The stage to look at, with those that it needs (default: all)
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,

    /// The platforms that are built for: what they name may differ
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    platform: Vec<String>,

    /// A context by name, as for build
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    build_contexts: Vec<String>,

    /// A secret, as for build: for URLs and repositories that want a login
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|env=NAME|command=COMMAND]")]
    secrets: Vec<String>,

    /// An agent for repositories, as for build
    #[arg(long, value_name = "default|ID[=SOCKET|KEY[,KEY]]")]
    ssh: Vec<String>,

    /// Look everything up again; with NAME only that: an image with or without its tag, a URL, a repository with or without its reference
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    update: Vec<String>,

    /// Write nothing, and fail if a lock file that is written now would be another
    #[arg(long, conflicts_with = "update")]
    check: bool,
}

impl LockArgs {
    /// Whether the Dockerfile says something else without the flags: then what they do not need may be needed all the same.
    fn is_narrowed(&self) -> bool {
        self.target.is_some() || !self.build_args.is_empty() || !self.build_contexts.is_empty()
    }

    /// What of an existing file is not looked up again.
    fn kept(&self, existing: &Lock) -> Result<Lock> {
        if self.check || self.update.iter().any(String::is_empty) {
            return Ok(Lock::default());
        }
        let mut kept = existing.clone();
        for name in &self.update {
            let named: Vec<Key> =
                existing.entries().map(|(key, _)| key).filter(|key| is_meant(key, name)).cloned().collect();
            if named.is_empty() {
                let names = existing.entries().map(|(key, _)| key.name.as_str());
                let hint = parser::suggest::closest(names, name).map(|name| format!(" (did you mean {name}?)"));
                let message = format!("--update={name}: the lock file has no such entry{}", hint.unwrap_or_default());
                return Err(CliError::Usage(message));
            }
            named.iter().for_each(|key| kept.remove(key));
        }
        Ok(kept)
    }
}

/// Whether the user means an entry by `name`.
fn is_meant(key: &Key, name: &str) -> bool {
    if key.name == name || key.name.split_once('#').is_some_and(|(remote, _)| remote == name) {
        return true;
    }
    match (key.name.parse::<Reference>(), name.parse::<Reference>()) {
        (Ok(entry), Ok(wanted)) => {
            // A name without a tag means all tags.
            let has_tag = wanted.tag().is_some_and(|tag| name.ends_with(&format!(":{tag}")));
            entry == wanted || (!has_tag && entry.name() == wanted.name())
        }
        _ => false,
    }
}

pub fn run(args: &LockArgs, app: &App) -> Result<ExitCode> {
    let definition_args = DefinitionArgs {
        path: args.path.clone(),
        file: args.file.clone(),
        build_args: args.build_args.clone(),
        platform: args.platform.clone(),
    };
    if args.file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(CliError::Usage("a Dockerfile on standard input has no place for a lock file".into()));
    }
    let (definition, options) = definition_args.load(args.target.clone())?;
    let path = lockfile::path_beside(&definition.path);
    let existing = match lockfile::read(&definition.path) {
        // It is written anew.
        Err(_) if args.update.iter().any(String::is_empty) => Lock::default(),
        existing => existing?.unwrap_or_default(),
    };
    let kept = args.kept(&existing)?;
    let dockerfile = parser::parse(&definition.text).map_err(|errors| definition.errors(&errors))?;
    let options = LowerOptions {
        purpose: Purpose::Lock,
        contexts: context::names(&args.build_contexts)?,
        lock: Some(Arc::new(kept.clone())),
        ..options
    };
    let mut platforms = definition::platforms(&args.platform)?.into_iter().map(Some).collect::<Vec<_>>();
    if platforms.is_empty() {
        platforms.push(options.platform.clone());
    }
    let options: Vec<_> = platforms.into_iter().map(|platform| LowerOptions { platform, ..options.clone() }).collect();

    let runtime = app.runtime()?;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let display = Display::start(Mode::parse("auto")?, false, receiver);
    let events = EventSink::new(sender);
    let looked_up = runtime.block_on(async {
        let lookup = Lookup::new(args, app, &events)?;
        let lowered = lower_all(&dockerfile, &options, &lookup).await;
        lowered.plans.map_err(|errors| definition.errors(&errors))?;
        let mut lock = Lock::default();
        for (key, lockable) in lowered.lockable {
            let value = match kept.get(&key) {
                Some(value) => value.to_owned(),
                None => lookup.version(&lockable).await?,
            };
            lock.insert(key, value);
        }
        Ok::<_, CliError>(lock)
    });
    drop(events);
    display.finish();
    let mut lock = looked_up?;
    if args.is_narrowed() {
        for (key, value) in existing.entries() {
            if lock.get(key).is_none() {
                lock.insert(key.clone(), value.to_owned());
            }
        }
    }
    let changes = changes(&existing, &lock);
    stdout::print(&changes)?;
    let name = path.display();
    if args.check {
        let is_there = path.exists();
        return match (is_there, changes.is_empty()) {
            (true, true) => Ok(ExitCode::SUCCESS),
            (false, _) => Err(CliError::Failed(format!("there is no {name}: write it with `rbuild lock`"))),
            (true, false) => Err(CliError::Failed(format!("{name} is not up to date: see `rbuild lock --help`"))),
        };
    }
    if !changes.is_empty() || lockfile::read(&definition.path).ok().flatten().is_none() {
        to_file(&path, |out| write!(out, "{lock}").map_err(executor::Error::output))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each entry that is new, gone or another.
fn changes(old: &Lock, new: &Lock) -> String {
    let keys: BTreeSet<&Key> = old.entries().chain(new.entries()).map(|(key, _)| key).collect();
    let mut text = String::new();
    for key in keys {
        match (old.get(key), new.get(key)) {
            (old, new) if old == new => {}
            (None, Some(new)) => text.push_str(&format!("+ {key} {new}\n")),
            (Some(old), Some(new)) => text.push_str(&format!("~ {key} {old} -> {new}\n")),
            (old, _) => text.push_str(&format!("- {key} {}\n", old.unwrap_or_default())),
        }
    }
    text
}

/// Finds out what references stand for now.
struct Lookup<'a> {
    app: &'a App,
    /// Ask the registry.
    images: Images,
    urls: Urls,
    repositories: Repositories,
    events: &'a EventSink,
    /// By their names, what images stand for.
    found: Mutex<BTreeMap<String, Digest>>,
}

impl<'a> Lookup<'a> {
    fn new(args: &LockArgs, app: &'a App, events: &'a EventSink) -> Result<Self> {
        let (secrets, agents) = (secret::secrets(&args.secrets)?, ssh::agents(&args.ssh)?);
        let contexts = args.build_contexts.iter().map(|text| context::parse_named(text));
        let named = contexts.filter_map(|context| match context {
            Ok((_, context::NamedSpec::Ready(NamedContext::Git(git)))) => Some(git.remote),
            _ => None,
        });
        let keys = GitKeys { agents, own: ssh::own_agent(), named: named.collect() };
        Ok(Lookup {
            app,
            images: app.images(true)?,
            urls: Urls::new(app.snapshots.clone(), Downloader::new(USER_AGENT), secrets.clone()),
            repositories: Repositories::new(app.snapshots.clone(), keys, secrets),
            events,
            found: Mutex::default(),
        })
    }

    async fn version(&self, lockable: &Lockable) -> Result<String> {
        let name = lockable.key().name;
        if let Lockable::Image(reference) = lockable {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&reference.to_string()).copied();
            return found
                .map(|digest| digest.to_string())
                .ok_or_else(|| CliError::Failed(format!("{name} was not looked up")));
        }
        let task = self.events.start(format!("[internal] look up {name}"));
        let version = match lockable {
            Lockable::Url(url) => {
                // Under the name that a build gives it, which then finds it.
                let file = parser::source::url_file_name(url);
                let fetched = self.urls.fetch_version(url, &file, None, task.digest(), self.events).await;
                fetched.map(|fetched| fetched.digest.to_string())
            }
            Lockable::Repository(git) => self.repositories.commit(git).await,
            Lockable::Image(_) => Ok(String::new()),
        };
        match &version {
            Ok(_) => task.done(),
            Err(error) => task.failed(error),
        }
        Ok(version?)
    }
}

impl ImageResolver for Lookup<'_> {
    type Error = executor::Error;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> executor::error::Result<ResolvedImage> {
        let task = self.events.start(format!("[internal] load metadata for {reference}"));
        let resolved = match self.images.resolve(reference, platform).await {
            // An image that was never pushed can be locked, for builds with this store.
            Err(error) => match self.stored(reference, platform) {
                Some(image) => {
                    task.log(Stream::Stderr, format!("{error}\nonly this store has {reference}: that one is locked\n"));
                    Ok(image)
                }
                None => Err(error),
            },
            resolved => resolved,
        };
        match &resolved {
            Ok(image) => {
                task.done();
                self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.to_string(), image.digest);
            }
            Err(error) => task.failed(error),
        }
        resolved
    }
}

impl Lookup<'_> {
    fn stored(&self, reference: &Reference, platform: &Platform) -> Option<ResolvedImage> {
        let found = self.app.find(&reference.to_string()).ok()?;
        self.images.stored(&found.image.descriptor, reference, platform).ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solver::lock::Kind;

    #[test]
    fn names_of_entries() {
        let key = |kind, name: &str| Key { kind, name: name.to_owned() };
        let image = key(Kind::Image, "docker.io/library/alpine:3.20");
        for (name, expected) in [
            ("alpine:3.20", true),
            ("alpine", true),
            ("docker.io/library/alpine", true),
            ("alpine:3.19", false),
            ("b", false),
        ] {
            assert_eq!(is_meant(&image, name), expected, "{name}");
        }
        assert!(is_meant(&key(Kind::Image, "localhost:5000/x:latest"), "localhost:5000/x"));
        let repository = key(Kind::Repository, "https://h/r.git#main");
        assert!(is_meant(&repository, "https://h/r.git") && is_meant(&repository, "https://h/r.git#main"));
        assert!(!is_meant(&repository, "https://h/r.git#other"));
    }
}
