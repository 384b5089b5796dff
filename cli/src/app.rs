//! What commands share: the configuration, the store, the registry client, the sandbox.

use crate::config::Config;
use crate::error::{CliError, Result};
use cache::{Found, Store};
use executor::container::Container;
use executor::network::DefaultNetwork;
use executor::sandbox::{self, Launcher};
use executor::snapshot::Snapshots;
use executor::source::image::Images;
use oci::registry::{Client, ClientConfig, Credentials};
use oci::{Platform, Reference, RegistriesConf};
use solver::lower::{ImageResolver, ResolvedImage};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const USER_AGENT: &str = concat!("rbuild/", env!("CARGO_PKG_VERSION"));

/// An opened rbuild. Made while the process has one thread.
pub struct App {
    pub config: Config,
    pub store: Store,
    pub launcher: Launcher,
    pub snapshots: Snapshots,
    /// Whether the user is root, rather than root of the user namespace.
    is_root: bool,
}

impl App {
    /// Enters the sandbox's world and opens the store.
    pub fn open(root: Option<PathBuf>) -> Result<App> {
        App::open_with(root, Store::open)
    }

    /// The same on a disk that may be full.
    pub fn open_to_prune(root: Option<PathBuf>) -> Result<App> {
        App::open_with(root, Store::open_to_prune)
    }

    fn open_with(root: Option<PathBuf>, open: impl FnOnce(&Path) -> cache::Result<Store>) -> Result<App> {
        let config = Config::load()?;
        let is_root = rustix::process::geteuid().is_root();
        let root = store_root(root, &config, is_root)?;
        // Before anything else: it needs a process with one thread.
        let sandbox::Entered { launcher, privileges, notice } = sandbox::enter()?;
        raise_file_limit();
        if let Some(notice) = notice {
            let _ = writeln!(std::io::stderr(), "note: {notice}");
        }
        let store = open(&root)?;
        if store.begins_anew() {
            let _ = writeln!(
                std::io::stderr(),
                "note: the database of {} was damaged: the cache is empty now, images are all there",
                root.display()
            );
        }
        let snapshots = Snapshots::new(store.clone(), privileges);
        snapshots.check_fitness()?;
        Ok(App { config, store, launcher, snapshots, is_root })
    }

    /// After a build: writes what it used, and keeps the cache within its budget. Nothing of that fails a build that is done.
    pub fn collect(&self) {
        let used = self.store.end_use();
        let collected = used.and_then(|used| match self.config.gc.budget() {
            Some(budget) => self.store.collect(used, &budget, &Container::images),
            None => Ok(()),
        });
        if let Err(error) = collected {
            tracing::debug!(%error, "the cache is not collected");
        }
    }

    pub fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        runtime()
    }

    /// What steps and containers get that ask for no network in particular: as root the host's, as of standalone BuildKit (R1.9.1).
    pub fn default_network(&self) -> DefaultNetwork {
        if self.is_root { DefaultNetwork::Host } else { DefaultNetwork::Isolated }
    }

    pub fn client(&self) -> Result<Client> {
        client()
    }

    /// A client that may ask this host by plain http, and does not verify its certificates.
    pub fn trusting_client(&self, host: &str) -> Result<Client> {
        client_of(registries()?.trusting(host))
    }

    pub fn images(&self, pull: bool) -> Result<Images> {
        Ok(Images::new(self.store.clone(), self.client()?, pull))
    }

    /// The image that the user means by `word`: a name, a digest or the first digits of an id.
    pub fn find(&self, word: &str) -> Result<Found> {
        let name = word.parse::<Reference>().ok().map(|reference| reference.to_string());
        Ok(self.store.find(word, name.as_deref())?)
    }
}

impl App {
    /// The image that the user means, from a registry if the store does not have it. Without a platform it is this machine's, or what there is.
    pub async fn resolve(
        &self,
        images: &Images,
        word: &str,
        platform: Option<&Platform>,
    ) -> Result<(Reference, ResolvedImage)> {
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let (reference, resolved) = match self.find(word) {
            // An id is nothing that a registry knows.
            Ok(Found { image, name: None }) => {
                let name = image.names.first().map_or("localhost/image:latest", String::as_str);
                let reference = reference(name)?;
                let resolved = images.stored(&image.descriptor, &reference, wanted)?;
                (reference, resolved.ok_or_else(|| no_platform(word, wanted))?)
            }
            Err(error @ CliError::Failed(_)) if self.store.images().is_err() => return Err(error),
            _ => {
                let reference = reference(word)?;
                let resolved = images.resolve(&reference, wanted).await?;
                (reference, resolved)
            }
        };
        let found = resolved.config.platform();
        if platform.is_some() && !wanted.matches(&found) {
            return Err(no_platform(word, wanted));
        }
        Ok((reference, resolved))
    }
}

fn no_platform(word: &str, platform: &Platform) -> CliError {
    executor::Error::NoPlatform { reference: word.to_owned(), platform: platform.to_string() }.into()
}

/// Walks hold directories open as deep as they are. Steps keep the limit that they would have without this: they are children of the zygote.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, there is the limit as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// The store alone, for commands that neither run anything nor touch files of other users.
pub fn open_store(root: Option<PathBuf>) -> Result<Store> {
    let root = store_root(root, &Config::load()?, rustix::process::geteuid().is_root())?;
    Ok(Store::open(&root)?)
}

/// How long a command that runs nothing waits for what is known of a base image: a registry that never answers must not hold up a check.
const BASE_IMAGE_PATIENCE: Duration = Duration::from_secs(20);

/// Base images for commands that run nothing: no sandbox is entered, so that they work on any kernel.
pub struct BaseImages {
    /// `None`: what a registry answers can be kept nowhere.
    images: Option<Images>,
    /// Stands in for a store that cannot be opened; removed at the end.
    _temporary: Option<tempfile::TempDir>,
}

impl BaseImages {
    pub fn open(root: Option<PathBuf>, pull: bool) -> Result<BaseImages> {
        let (config, client) = (Config::load()?, client()?);
        let root = store_root(root, &config, rustix::process::geteuid().is_root());
        let store = root.and_then(|root| Ok((Store::open(&root)?, None)));
        let store = store.or_else(|_| {
            let directory = tempfile::tempdir()?;
            Ok::<_, CliError>((Store::open(&directory.path().join("store"))?, Some(directory)))
        });
        Ok(match store {
            Ok((store, temporary)) => {
                BaseImages { images: Some(Images::new(store, client, pull)), _temporary: temporary }
            }
            Err(_) => BaseImages { images: None, _temporary: None },
        })
    }
}

/// Why nothing is known of a base image.
pub enum Unknown {
    Failed(executor::Error),
    NoAnswer,
    NoStore,
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unknown::Failed(error) => error.fmt(f),
            Unknown::NoStore => f.write_str("neither the store nor a temporary directory can be written"),
            Unknown::NoAnswer => write!(f, "the registry did not answer within {} s", BASE_IMAGE_PATIENCE.as_secs()),
        }
    }
}

impl ImageResolver for BaseImages {
    type Error = Unknown;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> std::result::Result<ResolvedImage, Unknown> {
        let images = self.images.as_ref().ok_or(Unknown::NoStore)?;
        let resolved = tokio::time::timeout(BASE_IMAGE_PATIENCE, images.resolve(reference, platform)).await;
        resolved.map_or(Err(Unknown::NoAnswer), |resolved| resolved.map_err(Unknown::Failed))
    }

    fn is_definite(&self, error: &Unknown) -> bool {
        match error {
            Unknown::Failed(executor::Error::Registry(error)) => error.is_not_found(),
            Unknown::Failed(executor::Error::NoPlatform { .. }) => true,
            _ => false,
        }
    }
}

/// For where nobody is to be asked about base images.
pub struct NoImages;

impl ImageResolver for NoImages {
    type Error = &'static str;

    async fn resolve(&self, _: &Reference, _: &Platform) -> std::result::Result<ResolvedImage, &'static str> {
        Err("base images are not looked at here")
    }

    fn is_definite(&self, _: &&'static str) -> bool {
        false
    }
}

fn store_root(given: Option<PathBuf>, config: &Config, is_root: bool) -> Result<PathBuf> {
    match given.or_else(|| config.root.clone()) {
        Some(root) => Ok(root),
        None => Ok(Store::default_root(is_root)?),
    }
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn client() -> Result<Client> {
    client_of(registries()?)
}

fn registries() -> Result<RegistriesConf> {
    RegistriesConf::from_environment().map_err(|error| CliError::Usage(error.to_string()))
}

fn client_of(registries: RegistriesConf) -> Result<Client> {
    Ok(Client::new(ClientConfig {
        registries,
        credentials: Credentials::from_environment(None),
        user_agent: USER_AGENT.to_owned(),
    }))
}

/// A stored name as its users write it, with its tag: `user/name:latest`.
pub fn familiar(name: &str) -> String {
    let Ok(reference) = name.parse::<Reference>() else { return name.to_owned() };
    let familiar = reference.familiar();
    let is_tagged = familiar.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if is_tagged || reference.digest().is_some() { familiar } else { format!("{familiar}:latest") }
}

/// A name of an image, as the user writes it.
pub fn reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: oci::InvalidReference| CliError::Usage(format!("invalid reference {text:?}: {error}")))
}
