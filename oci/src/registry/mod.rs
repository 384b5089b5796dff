//! A client for registries (opencontainers/distribution-spec; spec R6).
//!
//! A [`Client`] turns a [`Reference`] into endpoints by registries.conf, and asks them in turn: `resolve` for what a tag
//! means now, `manifest` and `blob` for content, which is verified against its digest before it counts. Pushing goes to
//! the registry itself, never to a mirror.
//!
//! From the bottom: [`crate::fetch`] moves HTTP requests, `challenge`, `scope`, `credentials` and `auth` log in,
//! `request` sends one request to one endpoint for as long as it makes sense, `pull` and `push` are what callers use.

mod auth;
mod body;
mod challenge;
mod credentials;
mod endpoints;
mod error;
mod pull;
mod push;
mod request;
mod response;
mod scope;
mod writer;

pub use crate::fetch::transport::Timing;
pub use credentials::{Credential, Credentials};
pub use error::{Action, Error};
pub use pull::Resolved;
pub use push::Pushed;
pub use writer::SyncWriter;

#[cfg(test)]
pub(crate) use request::wants_plain_http;
pub(crate) use response::{beginning, collect, http_date, retry_after};

#[cfg(doc)]
use crate::Reference;
use crate::RegistriesConf;
use crate::fetch::transport::Transport;
use auth::Authenticator;
use request::Shared;
use std::sync::Arc;

/// Larger manifests are refused (R6.3.5).
pub const MAX_MANIFEST: usize = 4 << 20;

/// Talks to registries. Cheap to clone; clones share connections, tokens and turns.
///
/// Needs a tokio runtime with time and io, and belongs to the one that it was first used on.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    registries: Arc<RegistriesConf>,
}

#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    pub registries: RegistriesConf,
    pub credentials: Credentials,
    /// `name/version` (R6.1.11).
    pub user_agent: String,
}

impl Client {
    /// Opens nothing and reads nothing yet, apart from the proxy variables of the environment.
    pub fn new(config: ClientConfig) -> Self {
        Self::with_timing(config, Timing::default())
    }

    pub fn with_timing(config: ClientConfig, timing: Timing) -> Self {
        let transport = Transport::new(&config.user_agent, timing);
        Client {
            shared: Arc::new(Shared::new(transport, Authenticator::new(config.credentials))),
            registries: Arc::new(config.registries),
        }
    }
}
