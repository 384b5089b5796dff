//! Build contexts: a directory, an archive, a URL or a repository (D19), and the named ones beside it.

use super::request::Request;
use crate::app::App;
use crate::definition::Definition;
use crate::error::{CliError, Result};
use crate::lockfile;
use executor::fileop::Recent;
use executor::fileop::statcache::StatCache;
use executor::source::git::Repositories;
use executor::source::http::Urls;
use executor::source::image::Images;
use executor::source::local::{self, LocalSource};

use executor::source::{archive, layout};
use executor::value::{Context, Stack, Value};
use oci::{Platform, Reference};
use parser::IgnoreFile;
use parser::git::GitReference;
use solver::event::{EventSink, Task, VertexDigest};
use solver::lock::Lock;
use solver::lower::{NamedContext, NamedContexts, git_op};
use solver::op::Source;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that a URL brings (D19.5, D19.7).
const URL_FILE: &str = "context";

/// What PATH names.
#[derive(Clone, Debug, PartialEq)]
pub enum MainContext {
    Directory(PathBuf),
    /// A Dockerfile or an archive.
    Stdin,
    Archive(PathBuf),
    Url(String),
    Git(GitReference),
}

impl MainContext {
    pub fn parse(path: &Path, build_args: &BTreeMap<String, String>) -> Result<MainContext> {
        let text = path.to_string_lossy();
        if text == "-" {
            return Ok(MainContext::Stdin);
        }
        // What is here is meant, whatever it looks like.
        if path.is_dir() {
            return Ok(MainContext::Directory(path.to_owned()));
        }
        if path.is_file() {
            return Ok(MainContext::Archive(path.to_owned()));
        }
        if let Some(git) = GitReference::of_context(&text) {
            let mut git = git.map_err(|error| CliError::Usage(format!("invalid context {text:?}: {error}")))?;
            let keep = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").map(String::as_str);
            if matches!(keep, Some("1" | "true" | "TRUE" | "True" | "t" | "T")) {
                git.keep_git_dir = Some(true);
            }
            // Times that do not depend on when it was fetched.
            git.commit_time |= build_args.get("SOURCE_DATE_EPOCH").is_some_and(|value| !value.is_empty());
            return Ok(MainContext::Git(git));
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(MainContext::Url(text.into_owned()));
        }
        if path.symlink_metadata().is_ok() {
            let reason =
                "it is neither a directory nor a file; an archive from a pipe is read from standard input, with `-`";
            return Err(CliError::Usage(format!("unable to prepare context: path {text:?}: {reason}")));
        }
        let reason = match text.contains("://") {
            true => "such URLs are not known; there are http, https, git and ssh",
            false => "no such file or directory",
        };
        Err(CliError::Usage(format!("unable to prepare context: path {text:?} not found: {reason}")))
    }
}

impl MainContext {
    /// As an op, where it is one with a time of its own.
    pub fn source(&self) -> Option<Source> {
        match self {
            MainContext::Url(url) => {
                Some(Source::Http { url: url.clone(), filename: URL_FILE.to_owned(), checksum: None })
            }
            MainContext::Git(git) => Some(Source::Git(git_op(git, git.keep_git_dir))),
            MainContext::Directory(_) | MainContext::Stdin | MainContext::Archive(_) => None,
        }
    }
}

/// What `--build-context NAME=VALUE` says.
#[derive(Clone, Debug)]
pub enum NamedSpec {
    Directory(PathBuf),
    Layout(PathBuf, Reference),
    /// Nothing to prepare.
    Ready(NamedContext),
}

/// D19.7.
pub fn parse_named(text: &str) -> Result<(String, NamedSpec)> {
    let invalid = |why: String| CliError::Usage(format!("invalid --build-context {text:?}: {why}"));
    let (name, value) = text.split_once('=').ok_or_else(|| invalid("expected NAME=VALUE".into()))?;
    if name.is_empty() || value.is_empty() {
        return Err(invalid("expected NAME=VALUE".into()));
    }
    // As the worker and the solver compare names.
    if matches!(NamedContexts::name_of(name).as_str(), "scratch" | "context") {
        return Err(invalid(format!("{name} cannot be replaced")));
    }
    let spec = if let Some(image) = value.strip_prefix("docker-image://") {
        NamedSpec::Ready(match image {
            "scratch" => NamedContext::Scratch,
            image => NamedContext::Image(image.parse().map_err(|error| invalid(format!("{error}")))?),
        })
    } else if let Some(place) = value.strip_prefix("oci-layout://") {
        let (path, reference) = layout_place(place);
        // Only its tag or digest counts; the name is for messages.
        let reference = format!("{name}{reference}").parse().or_else(|_| format!("context{reference}").parse());
        NamedSpec::Layout(path, reference.map_err(|error: oci::InvalidReference| invalid(error.to_string()))?)
    } else if let Some(stage) = value.strip_prefix("target:") {
        NamedSpec::Ready(NamedContext::Stage(stage.to_owned()))
    } else if Path::new(value).is_dir() {
        NamedSpec::Directory(value.into())
    } else if let Some(git) = GitReference::of_context(value) {
        NamedSpec::Ready(NamedContext::Git(git.map_err(|error| invalid(error.to_string()))?))
    } else if value.starts_with("http://") || value.starts_with("https://") {
        NamedSpec::Ready(NamedContext::Url(value.to_owned()))
    } else if value.contains("://") || value.starts_with("input:") {
        let known = "a directory, docker-image://, oci-layout://, target:, https:// or a git repository";
        return Err(invalid(format!("unsupported context source; there are {known}")));
    } else if Path::new(value).exists() {
        return Err(invalid(format!("{value} is not a directory")));
    } else {
        return Err(invalid(format!("failed to get build context path {value}: no such file or directory")));
    };
    Ok((name.to_owned(), spec))
}

/// The named contexts as far as they are known without looking: for commands that build nothing.
pub fn names(given: &[String]) -> Result<NamedContexts> {
    let mut contexts = NamedContexts::default();
    for text in given {
        let (name, spec) = parse_named(text)?;
        let context = match spec {
            NamedSpec::Ready(context) => context,
            NamedSpec::Directory(_) | NamedSpec::Layout(..) => NamedContext::Local,
        };
        contexts.insert(&name, context);
    }
    Ok(contexts)
}

/// `PATH[:TAG][@DIGEST]`.
fn layout_place(place: &str) -> (PathBuf, String) {
    let (before, digest) = match place.split_once("@sha256:") {
        Some((before, hex)) => (before, format!("@sha256:{hex}")),
        None => (place, String::new()),
    };
    match before.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path.into(), format!(":{tag}{digest}")),
        _ => (before.into(), digest),
    }
}

/// A Dockerfile with its context, ready to be built.
pub struct Loaded {
    pub definition: Definition,
    /// Stands for the loading of the Dockerfile.
    pub vertex: VertexDigest,
    pub context: Value,
    pub ignore: Option<IgnoreFile>,
    pub has_owners: bool,
    /// What the lock file beside the Dockerfile says.
    pub lock: Option<Arc<Lock>>,
}

/// Brings contexts.
pub struct Loader<'a> {
    pub app: &'a App,
    pub request: &'a Request,
    pub images: &'a Images,
    pub urls: &'a Urls,
    pub repositories: &'a Repositories,
    pub events: &'a EventSink,
}

impl Loader<'_> {
    /// The Dockerfile and the context. Those that are no directory have no ignore file (D19.6).
    pub async fn main(&self) -> Result<Loaded> {
        match &self.request.context {
            MainContext::Directory(directory) => self.directory(directory).await,
            MainContext::Stdin => {
                let task = self.events.start("[internal] load remote build context");
                self.told(task, self.stream(io::stdin(), "standard input", true)).await
            }
            MainContext::Archive(path) => {
                let name = path.display().to_string();
                let file = File::open(path)
                    .map_err(|error| CliError::Usage(format!("unable to prepare context: open {name}: {error}")))?;
                let task = self.events.start("[internal] load remote build context");
                self.told(task, self.stream(file, &name, false)).await
            }
            MainContext::Url(url) => {
                let task = self.events.start("[internal] load remote build context");
                let vertex = task.digest().clone();
                self.told(task, self.url(url, &vertex)).await
            }
            MainContext::Git(git) => {
                let task =
                    self.events.start(format!("[internal] load git source {}", parser::source::redacted(&git.remote)));
                let vertex = task.digest().clone();
                let checkout = async {
                    let op = git_op(git, git.keep_git_dir);
                    Ok(self.repositories.checkout(&op, &vertex, self.events).await?)
                };
                let stack = self.told(task, checkout).await?;
                self.packed(stack).await
            }
        }
    }

    /// The named contexts for each platform, and those of them that are directories.
    pub async fn named(&self, platforms: &[Platform]) -> Result<(Vec<NamedContexts>, BTreeMap<String, Value>)> {
        let mut contexts = vec![NamedContexts::default(); platforms.len()];
        let mut values = BTreeMap::new();
        for (name, spec) in &self.request.named_contexts {
            let context = match spec {
                NamedSpec::Ready(context) => context.clone(),
                NamedSpec::Directory(path) => {
                    let key = NamedContexts::name_of(name);
                    let source =
                        LocalSource::open(path, &key, None).map_err(|error| CliError::build(error.to_string()))?;
                    values.insert(key, self.local(source, path)?);
                    NamedContext::Local
                }
                NamedSpec::Layout(path, reference) => {
                    let task = self.events.start(format!("[context {name}] OCI load from client"));
                    let import = async {
                        let import = |platform| layout::import(&self.app.store, self.images, path, reference, platform);
                        Ok(platforms.iter().map(import).collect::<executor::error::Result<Vec<_>>>()?)
                    };
                    for (contexts, image) in contexts.iter_mut().zip(self.told(task, import).await?) {
                        let reference = reference.with_digest(image.digest);
                        contexts.insert(name, NamedContext::Stored(reference, Box::new(image)));
                    }
                    continue;
                }
            };
            contexts.iter_mut().for_each(|contexts| contexts.insert(name, context.clone()));
        }
        Ok((contexts, values))
    }

    async fn told<T>(&self, task: Task, work: impl Future<Output = Result<T>>) -> Result<T> {
        let result = work.await;
        match &result {
            Ok(_) => task.done(),
            Err(error) => task.failed(error.message()),
        }
        result.map_err(|error| match error {
            CliError::Failed(message) => CliError::build(message),
            other => other,
        })
    }

    async fn directory(&self, directory: &Path) -> Result<Loaded> {
        let (definition, vertex) =
            self.definition(|| Definition::load(directory, self.request.file.as_deref())).await?;
        let task = self.events.start("[internal] load .dockerignore");
        let source = LocalSource::open(directory, "context", Some(&definition.path))
            .map_err(|error| CliError::build(error.to_string()))?;
        task.done();
        let ignore = source.ignore.clone();
        let lock = self.lock_beside(&definition.path)?;
        let context = self.local(source, directory)?;
        Ok(Loaded { definition, vertex, ignore, context, has_owners: false, lock })
    }

    /// Of a Dockerfile on this machine, unless that came by way of standard input or from a URL.
    fn lock_beside(&self, dockerfile: &Path) -> Result<Option<Arc<Lock>>> {
        let file = self.request.file.as_deref().unwrap_or(Path::new(""));
        if file == Path::new("-") || is_url(&file.to_string_lossy()) {
            return Ok(None);
        }
        Ok(lockfile::read(dockerfile)?.map(Arc::new))
    }

    fn local(&self, source: LocalSource, directory: &Path) -> Result<Value> {
        let directory = directory.canonicalize()?;
        let digests_path = self.app.store.file_digests(&directory);
        let digests = StatCache::load(&digests_path);
        Ok(Value::Local(Arc::new(Context { source, digests, recent: Recent::default(), digests_path })))
    }

    /// An archive, or where `may_be_dockerfile` a Dockerfile, which then has an empty context (D19.3).
    async fn stream(&self, input: impl Read + Send + 'static, name: &str, may_be_dockerfile: bool) -> Result<Loaded> {
        // Not here, since it may wait for long, and signals have to be heard.
        let (head, input) = read_up_to(input, archive::HEAD as u64).await?;
        if archive::is_archive(&head) {
            let (snapshots, name) = (self.app.snapshots.clone(), name.to_owned());
            let input = io::Cursor::new(head).chain(input);
            let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&snapshots, input, &name)).await?;
            return self.packed(unpacked?).await;
        }
        if !may_be_dockerfile {
            let message = format!("unable to prepare context: {name} is neither a directory nor a tar archive");
            return Err(CliError::Usage(message));
        }
        if let Some(file) = &self.request.file {
            let message = format!(
                "ambiguous Dockerfile source: standard input is a Dockerfile, and -f names {}; with -f, the context on \
                 standard input must be a tar archive",
                file.display()
            );
            return Err(CliError::Usage(message));
        }
        let rest = local::MAX_TEXT + 1 - head.len() as u64;
        let text = [head, read_up_to(input, rest).await?.0].concat();
        if text.is_empty() {
            return Err(CliError::Usage(
                "standard input is empty where a Dockerfile or a tar archive was expected".into(),
            ));
        }
        if text.len() as u64 > local::MAX_TEXT {
            return Err(CliError::Usage(
                "standard input is neither a tar archive nor a Dockerfile: it is too long".into(),
            ));
        }
        self.only_dockerfile(&text, Stack::default()).await
    }

    async fn url(&self, url: &str, vertex: &VertexDigest) -> Result<Loaded> {
        let stack = self.urls.fetch(url, URL_FILE, None, vertex, self.events).await?;
        let view = self.app.snapshots.view(&stack.ids())?;
        let file = executor::fileop::open_regular(view.as_fd(), URL_FILE)?;
        let mut head = Vec::new();
        File::from(file.try_clone()?).take(archive::HEAD as u64).read_to_end(&mut head)?;
        if !archive::is_archive(&head) {
            let text = local::read_dockerfile_in(view.as_fd(), URL_FILE)?;
            return self.only_dockerfile(&text, stack).await;
        }
        let mut file = File::from(file);
        io::Seek::rewind(&mut file)?;
        let (snapshots, name) = (self.app.snapshots.clone(), parser::source::redacted(url));
        let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&snapshots, file, &name)).await?;
        self.packed(unpacked?).await
    }

    /// A Dockerfile that came without a context, or is all there is in it.
    async fn only_dockerfile(&self, text: &[u8], context: Stack) -> Result<Loaded> {
        let (definition, vertex) = self.definition(|| Ok(Definition::new(PathBuf::from("Dockerfile"), text))).await?;
        let context = Value::Files(Arc::new(context));
        Ok(Loaded { definition, vertex, context, ignore: None, has_owners: true, lock: None })
    }

    /// A context that lies in the store. `-f` is a path in it, unless that is absolute (D19.3).
    async fn packed(&self, stack: Stack) -> Result<Loaded> {
        let load = || match self.request.file.as_deref() {
            Some(file) if file == Path::new("-") || file.is_absolute() => Definition::load(Path::new("."), Some(file)),
            file => {
                let name = file.unwrap_or(Path::new("Dockerfile")).to_string_lossy();
                let view = self.app.snapshots.view(&stack.ids())?;
                let text = local::read_dockerfile_in(view.as_fd(), &name)
                    .map_err(|error| CliError::build(format!("{error}: it is looked for in the context")))?;
                Ok(Definition::new(PathBuf::from(name.as_ref()), &text))
            }
        };
        let (definition, vertex) = self.definition(load).await?;
        let lock = match &self.request.file {
            // One of this machine.
            Some(file) if file == Path::new("-") || file.is_absolute() || is_url(&file.to_string_lossy()) => {
                self.lock_beside(&definition.path)?
            }
            _ => {
                let (view, path) = (self.app.snapshots.view(&stack.ids())?, lockfile::path_beside(&definition.path));
                let data = local::read_optional_in(view.as_fd(), &path.to_string_lossy())?;
                data.map(|data| lockfile::parse(&data, &path)).transpose()?.map(Arc::new)
            }
        };
        let context = Value::Files(Arc::new(stack));
        Ok(Loaded { definition, vertex, context, ignore: None, has_owners: true, lock })
    }

    async fn definition(&self, load: impl FnOnce() -> Result<Definition>) -> Result<(Definition, VertexDigest)> {
        let shown = self.request.file.as_deref().unwrap_or(Path::new("Dockerfile")).to_string_lossy();
        let is_url = is_url(&shown);
        let named = parser::source::redacted(&shown);
        let task = self.events.start(format!("[internal] load build definition from {named}"));
        let vertex = task.digest().clone();
        let definition = async {
            if !is_url {
                return load();
            }
            let stack = self.urls.fetch(&shown, "Dockerfile", None, &vertex, self.events).await?;
            let view = self.app.snapshots.view(&stack.ids())?;
            let text = local::read_dockerfile_in(view.as_fd(), "Dockerfile")?;
            Ok(Definition::new(PathBuf::from("Dockerfile"), &text))
        };
        let definition = self.told(task, definition).await?;
        Ok((definition, vertex))
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// At most so many bytes, and what is left.
async fn read_up_to<R: Read + Send + 'static>(mut input: R, most: u64) -> Result<(Vec<u8>, R)> {
    let read = move || -> io::Result<_> {
        let mut bytes = Vec::new();
        input.by_ref().take(most).read_to_end(&mut bytes)?;
        Ok((bytes, input))
    };
    let (done, result) = tokio::sync::oneshot::channel();
    // A thread of its own: those of the runtime are waited for when a build is given up, and this one may wait for a terminal.
    std::thread::spawn(move || done.send(read()));
    Ok(result.await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_told_apart() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("x.tar");
        std::fs::write(&file, "").unwrap();
        let parse = |text: &str| MainContext::parse(Path::new(text), &BTreeMap::new());
        assert_eq!(parse("-").unwrap(), MainContext::Stdin);
        assert_eq!(parse("/").unwrap(), MainContext::Directory("/".into()));
        assert_eq!(parse(&file.display().to_string()).unwrap(), MainContext::Archive(file));
        assert_eq!(parse("https://h/x.tar").unwrap(), MainContext::Url("https://h/x.tar".into()));
        for git in ["https://h/r.git#v1", "git@h:r", "github.com/a/b", "ssh://h/r"] {
            assert!(matches!(parse(git).unwrap(), MainContext::Git(_)), "{git}");
        }
        let args = BTreeMap::from([("BUILDKIT_CONTEXT_KEEP_GIT_DIR".to_owned(), "1".to_owned())]);
        match MainContext::parse(Path::new("https://h/r.git"), &args).unwrap() {
            MainContext::Git(git) => assert_eq!(git.keep_git_dir, Some(true)),
            other => panic!("{other:?}"),
        }
        for bad in ["/nowhere", "ftp://h/x", "https://h/r.git?x=y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn named_contexts() {
        let kind = |text: &str| {
            let (name, spec) = parse_named(text).map_err(|error| error.message().to_owned())?;
            Ok::<String, String>(match spec {
                NamedSpec::Directory(path) => format!("{name} dir {}", path.display()),
                NamedSpec::Layout(path, reference) => format!("{name} layout {} {reference}", path.display()),
                NamedSpec::Ready(context) => format!("{name} {context:?}").chars().take(30).collect(),
            })
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, expected) in [
            ("a=/", "a dir /".to_owned()),
            ("a=docker-image://scratch", "a Scratch".into()),
            ("a=target:b", "a Stage(\"b\")".into()),
            ("a=oci-layout:///x:v1", "a layout /x docker.io/library/a:v1".into()),
            ("a=oci-layout://rel/x", "a layout rel/x docker.io/library/a:latest".into()),
        ] {
            assert_eq!(kind(text), Ok(expected), "{text}");
        }
        assert!(kind(&format!("a=oci-layout:///x@{digest}")).unwrap().ends_with(&digest));
        assert!(kind("a=https://h/r.git").unwrap().starts_with("a Git("));
        assert!(kind("a=https://h/r").unwrap().starts_with("a Url("));
        for bad in [
            "a",
            "=x",
            "a=",
            "scratch=/",
            "Context=/",
            "context:latest=/",
            "a=ftp://x",
            "a=/nowhere",
            "a=/etc/passwd",
            "a=docker-image://A B",
        ] {
            assert!(kind(bad).is_err(), "{bad}");
        }
    }
}
