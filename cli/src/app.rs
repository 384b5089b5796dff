//! What commands share: the configuration, the store, the registry client, the sandbox.

use crate::config::Config;
use crate::error::{CliError, Result};
use cache::{Found, Store};
use executor::sandbox::{self, Launcher, Privileges};
use executor::snapshot::Snapshots;
use executor::source::image::Images;
use oci::registry::{Client, ClientConfig, Credentials};
use oci::{Reference, RegistriesConf};
use std::path::PathBuf;

/// An opened rbuild. Made while the process has one thread.
pub struct App {
    pub config: Config,
    pub store: Store,
    pub launcher: Launcher,
    pub snapshots: Snapshots,
}

impl App {
    /// Enters the sandbox's world and opens the store.
    pub fn open(root: Option<PathBuf>) -> Result<App> {
        let config = Config::load()?;
        let is_root = rustix::process::geteuid().is_root();
        let root = match root.or_else(|| config.root.clone()) {
            Some(root) => root,
            None => Store::default_root(is_root)?,
        };
        // Before anything else: it needs a process with one thread.
        let sandbox::Entered { launcher, privileges } = sandbox::enter()?;
        if privileges == Privileges::SingleId {
            eprintln!(
                "note: this user has no subordinate ids (/etc/subuid, /etc/subgid, newuidmap): all files belong to one user in RUN steps"
            );
        }
        let store = Store::open(&root)?;
        let snapshots = Snapshots::new(store.clone(), privileges);
        Ok(App { config, store, launcher, snapshots })
    }

    pub fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
    }

    pub fn client(&self) -> Result<Client> {
        let registries = RegistriesConf::from_environment().map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(Client::new(ClientConfig {
            registries,
            credentials: Credentials::from_environment(None),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        }))
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
