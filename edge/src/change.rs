//! Another configuration for a running edge: all of it is checked before any of it changes. Nothing here opens a port or a
//! folder. Requests and flights under way go on with what they began with.

use colibri_service::AccessLogConfig;
use colibri_service::metrics::Registry;

use crate::Edge;
use crate::config::EdgeConfig;
use crate::error::EdgeError;
use crate::peers;
use crate::tokens::Tokens;
use crate::upstreams;

/// What was checked and is not yet in use.
#[derive(Debug)]
pub(crate) struct Change {
    upstreams: upstreams::Plan,
    tokens: Tokens,
    peers: Option<peers::change::Change>,
    /// Its lifetimes are taken from here: nothing can be wrong with numbers.
    config: EdgeConfig,
}

impl Edge {
    /// Checks what can change of `config`; the members of the region only if they are `others`.
    pub(crate) fn prepare(&self, config: &EdgeConfig, others: bool) -> Result<Change, EdgeError> {
        let peers = match (&self.peers, &config.peers) {
            (Some(peers), Some(config_of_peers)) if others => {
                Some(peers.prepare(config_of_peers, config.upstream_in_flight_max)?)
            }
            // Joining a region and leaving it take a start.
            _ => None,
        };
        Ok(Change {
            upstreams: upstreams::Plan::of(config)?,
            tokens: Tokens::new(&config.tokens)?,
            peers,
            config: config.clone(),
        })
    }

    /// Takes over what was checked.
    pub(crate) fn change(&self, change: Change) -> Result<(), EdgeError> {
        let Change { upstreams, tokens, peers: members, config } = change;
        if let (Some(peers), Some(members)) = (&self.peers, members) {
            peers.change(members)?;
        }
        let current = self.fetcher.current_sources();
        current.replace(upstreams.sources(&current.get()));
        self.serve.tokens().replace(tokens);
        self.serve.lifetimes().set(&config);
        Ok(())
    }

    /// Whether an edge could start with `config`: builds one that has no disk tier, no port and nobody to talk to, and drops it.
    pub(crate) fn check(config: &EdgeConfig) -> Result<(), EdgeError> {
        let access_log = AccessLogConfig::default();
        Self::build(&EdgeConfig { disk: None, access_log, ..config.clone() }, &Registry::new()).map(drop)
    }
}
