//! The network of a build's steps (R1.9).
//!
//! An isolated one is made when the first step asks for the build's default, and is all the build's steps'. A build that runs nothing makes
//! none.

use crate::sandbox::{Launcher, Network};
use crate::worker::LocalWorker;
use solver::event::{Event, EventSink, WarningEvent};
use solver::op;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// What a step gets that says nothing of its network. No part of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultNetwork {
    #[default]
    Host,
    /// One that pasta connects; the host's, with a notice, where that cannot be had.
    Isolated,
}

/// The default network of one build. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct BuildNetwork {
    default: DefaultNetwork,
    made: Arc<OnceCell<Network>>,
}

impl BuildNetwork {
    pub(crate) fn new(default: DefaultNetwork) -> Self {
        BuildNetwork { default, made: Arc::default() }
    }

    async fn get(&self, launcher: &Launcher, scratch_point: &Path, vertex: &str, events: &EventSink) -> Network {
        if self.default == DefaultNetwork::Host {
            return Network::Host;
        }
        let make = || async {
            match launcher.isolated_network(&[], scratch_point).await {
                Ok(namespace) => {
                    tracing::debug!("steps have an isolated network, connected by pasta");
                    Network::Joined(Arc::new(namespace))
                }
                Err(error) => {
                    events.send(Event::Warning(WarningEvent {
                        vertex: vertex.to_owned(),
                        level: 1,
                        short: format!("RUN steps used the host's network, as there is no isolated one: {error}"),
                        detail: vec!["--network=host asks for the host's network, and gives no warning.".into()],
                        url: String::new(),
                        lines: None,
                        source: None,
                    }));
                    Network::Host
                }
            }
        };
        self.made.get_or_init(make).await.clone()
    }
}

impl LocalWorker {
    /// The network of a step that asks for `mode`.
    pub(crate) async fn network(&self, mode: op::Network, vertex: &str, events: &EventSink) -> Network {
        match mode {
            op::Network::None => Network::None,
            op::Network::Host => Network::Host,
            op::Network::Default => {
                let scratch_point = self.store().root().join("trash");
                self.network.get(&self.launcher, &scratch_point, vertex, events).await
            }
        }
    }
}
