//! A stateless cache tier in front of anything that speaks the read API.
//!
//! [`Edge`] answers the read API from memory, from disk, or from its upstream, and verifies every byte before it stores or
//! forwards it. It holds no software-signing key and no truth: wiping its disk is always safe. The read path is
//! `Cache::unit` of module `cache`, which decides once: memory, join a flight, or start one (which looks on disk, then upstream).
//!
//! What an edge deliberately does not do: sign, decide what is current, or keep anything it cannot fetch again.

mod access;
mod auto;
mod cache;
mod catalog;
mod cdn_loop;
mod change;
mod circle;
pub mod config;
mod control;
mod disk;
mod documents;
mod error;
mod flight;
mod flights;
mod forms;
mod freshness;
mod gauges;
mod history;
mod import;
mod ledger;
mod lifetimes;
pub mod limits;
mod memory;
mod metadata;
pub mod metrics;
mod peers;
mod pins;
pub mod process;
mod quarantine;
mod quotas;
mod reader;
mod relay;
mod repair;
mod serve;
mod shapes;
mod single_flight;
mod sync;
mod tokens;
mod unit;
mod unknown;
mod upstreams;
mod warm;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use colibri_common::{BlobId, Clock, SystemClock};
use colibri_fetch::{BlobFetcher, Class, FetchError, Nearby, Patience, Sources};
use colibri_package::delivery::Encoding;
use colibri_service::AccessLog;
use colibri_service::metrics::Registry;
use colibri_transport::{Client, ClientConfig, Handler};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cdn_loop::OwnHop;
use crate::lifetimes::Lifetimes;

pub use config::{
    Admission, DiskTierConfig, EdgeConfig, EndpointSlicesConfig, FollowedConfig, PeersConfig, UpstreamOrder, WarmConfig,
};
pub use error::EdgeError;
pub use metrics::Metrics;
pub use peers::{Peers, Totals};
pub use tokens::TokensConfig;
use tokens::{CurrentTokens, Tokens};

/// A built edge: everything but its listeners.
#[derive(Debug, Clone)]
pub struct Edge {
    serve: Arc<serve::ReadApi>,
    fetcher: BlobFetcher,
    cache: Arc<cache::Cache>,
    disk: Option<disk::DiskTier>,
    metrics: Metrics,
    tasks: TaskTracker,
    peers: Option<Arc<Peers>>,
}

impl Edge {
    /// Builds an edge from its configuration, inside a tokio runtime; opens no port, and asks nobody but a name server.
    pub fn build(config: &EdgeConfig, registry: &Registry) -> Result<Self, EdgeError> {
        Self::build_with_clock(config, registry, Arc::new(SystemClock))
    }

    /// [`Self::build`], with another clock for the expiry of metadata.
    pub fn build_with_clock(
        config: &EdgeConfig,
        registry: &Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EdgeError> {
        let sources = Arc::new(upstreams::sources(config)?);
        let trust = config.upstream_tls.parse().map_err(|error| EdgeError::Trust(format!("{error}")))?;
        let (http3, udp_sockets) = (config.upstream_http3, config.upstream_udp_sockets);
        let client = Client::new(ClientConfig { trust, http3, udp_sockets, ..ClientConfig::default() })?;
        let patience = Patience::of(Duration::from_secs(config.upstream_patience_s.max(1)));
        let agent = format!("colibri-edge/{} ({})", env!("CARGO_PKG_VERSION"), config.name);
        let fetcher = BlobFetcher::new(client, sources, &agent).with_patience(patience).with_clock(clock.clone());
        let metrics = Metrics::register(registry)?;
        let peers = peers::join(config, &metrics)?;
        let fetcher = fetcher.with_nearby(peers.clone().map(|peers| peers as Arc<dyn Nearby>));
        upstreams::export(fetcher.current_sources(), peers.as_ref(), registry)?;
        let tasks = TaskTracker::new();
        let disk = config.disk.as_ref().map(|disk| disk::DiskTier::open(disk, metrics.clone())).transpose()?;
        let history = history::History::new(clock.clone());
        let quarantine = Arc::new(quarantine::Quarantine::new(clock.clone(), metrics.clone()));
        let seen = Arc::new(quarantine::Seen { history: history.clone(), quarantine });
        let fetcher = fetcher.with_witness(Some(seen.clone()));
        let lifetimes = Lifetimes::new(config);
        let unknown = unknown::Unknown::new(lifetimes.clone());
        let cache =
            Arc::new(cache::Cache::new(config, disk.clone(), metrics.clone(), history, unknown.clone(), tasks.clone()));
        gauges::export(config, &cache, registry)?;
        let documents = documents::Documents::new(lifetimes.clone(), metrics.clone(), &tasks);
        let hop = OwnHop::new(&config.name);
        let own = fetcher.clone().with_headers(hop.via().headers());
        let common = metadata::Common {
            config,
            clock: clock.clone(),
            unknown: unknown.clone(),
            lifetimes: lifetimes.clone(),
            fetcher: own.clone(),
            agent,
            patience,
            forms: documents.forms.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
        };
        let repositories = metadata::Repositories::open(&common)?;
        metadata::export(&repositories, registry)?;
        let shared = warm::Shared::new(config, cache.clone(), disk.clone(), &own, clock.clone(), metrics.clone())?;
        if let Some(disk) = &disk {
            let places = config.repositories.iter().map(|followed| format!("/{}", followed.name));
            repair::start(&cache, disk, &own, std::iter::once(String::new()).chain(places).collect());
        }
        let warmers = Arc::new(warm::Warmers::open(config, &repositories, &shared)?);
        let listeners = auto::Listeners::new(config.auto_listeners_max, metrics.clone(), tasks.clone());
        let log = AccessLog::open(&config.access_log, registry)?.map(Arc::new);
        let access = access::Access::new(log, clock.clone(), seen.clone(), metrics.clone());
        let relay = relay::Relay::new(
            config.name.clone(),
            Duration::from_secs(config.upstream_patience_s.max(1)),
            metrics.clone(),
        );
        let parts = serve::Parts {
            access,
            lifetimes,
            tokens: CurrentTokens::new(Tokens::new(&config.tokens)?),
            clock,
            relay,
            hop,
            fetcher: fetcher.clone(),
            cache: cache.clone(),
            documents,
            repositories,
            listeners,
            unknown,
            warmers,
            seen,
            metrics: metrics.clone(),
        };
        let serve = Arc::new(serve::ReadApi::new(config, parts, tasks.clone()));
        Ok(Self { serve, fetcher, cache, disk, metrics, tasks, peers })
    }

    /// Follows the configured repositories until `stop`: refreshes by the clock and by upstream's events. Without this they
    /// are refreshed when clients ask. In the end the streams of those who listen end, too.
    pub async fn follow(&self, stop: CancellationToken) {
        tokio::join!(self.serve.repositories().follow(&stop), self.serve.warmers().run(&stop));
        stop.cancelled().await;
        self.serve.end_events();
    }

    /// Opens the file of the access log anew, if there is one: somebody has moved the old one away.
    pub fn reopen_logs(&self) {
        self.serve.access().reopen();
    }

    /// The handler to give to listeners.
    pub fn handler(&self) -> Handler {
        let serve = self.serve.clone();
        colibri_transport::handler(move |request| {
            let serve = serve.clone();
            async move { serve.answer(request).await }
        })
    }

    /// The handler for the admin port: status of warming, pins, imports. Call it where the edge runs.
    pub fn control(&self) -> Handler {
        control::control(self.serve.clone())
    }

    /// What it counted.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Its upstreams, with health and blame.
    pub fn sources(&self) -> Arc<Sources> {
        self.fetcher.sources()
    }

    /// The other edges of its region, if there are any.
    pub const fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// Tells peers from now on that this edge is about to stop: they ask it for nothing new. What they ask is answered.
    pub fn leave(&self) {
        self.serve.leave();
    }

    /// Brings all of a blob, in one encoding, onto the disk before anybody asks for it; gives its encoded length, bytes.
    /// `place` is `/REPO` for upstreams that serve several repositories, else empty. What is there already is not fetched.
    pub async fn warm(&self, place: &str, id: BlobId, encoding: Encoding) -> Result<u64, FetchError> {
        let fetcher = self.fetcher.clone().with_class(Class::Warm);
        let opened = self.cache.open(&fetcher, place, id, encoding).await.0?;
        for unit in 0..opened.layout.unit_count() {
            if !opened.layout.unit_range(unit).is_empty() {
                self.cache.warm(&fetcher, place, &opened, unit).await?;
            }
        }
        Ok(opened.layout.encoded_length().0)
    }

    /// The blobs that the disk tier is to keep longest: those of the current release. What was named before and is not
    /// named now goes when others go.
    pub fn keep_longest(&self, blobs: HashSet<BlobId>) {
        if let Some(disk) = &self.disk {
            disk.prefer(blobs);
        }
    }

    /// Waits for flights and bodies that are still under way, and closes the disk tier; call after the listeners have
    /// drained.
    pub async fn finish(&self) {
        self.serve.end_events();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }
}
