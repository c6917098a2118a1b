//! [`Peers`]: the other edges of a region. Each part of a blob has one member that asks the parent for it; the others ask that
//! member, also while it is still being filled there. So a region asks its parent once for each unit.
//!
//! A member that fails is passed over for a while, and its share goes to the next in order; what it did not give, the parent
//! does. Deliberately absent: trust. What comes from a peer is verified like anything else.

pub(crate) mod change;
mod dns;
mod rendezvous;
mod slices;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use colibri_common::BlobId;
use colibri_fetch::nearby::FROM_PEER;
use colibri_fetch::{Budget, BudgetLimits, Nearby, Part, Source, SourceCounts, SourceUrl, Standing};
use colibri_transport::{Client, ClientConfig};
use http::{HeaderMap, HeaderValue};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{EdgeConfig, PeersConfig};
use crate::error::EdgeError;
use crate::limits::{PEER_LOAD_MIN, PEERS_MAX};
use crate::metrics::Metrics;
use dns::HeadlessName;
use rendezvous::{Seed, Share};
use slices::EndpointSlices;

/// Requests in flight at one member may exceed the mean by this part.
const LOAD_FACTOR: f64 = 1.25;

/// The members of a region as one of them sees it.
#[derive(Debug)]
pub struct Peers {
    own: Seed,
    own_name: String,
    secure: bool,
    client: Client,
    in_flight_max: AtomicU32,
    members: RwLock<Arc<Vec<Arc<Member>>>>,
    /// What former members were counted.
    former: RwLock<Totals>,
    metrics: Metrics,
    following: Mutex<Following>,
}

/// Who follows the membership.
#[derive(Debug, Default)]
struct Following {
    /// Which in the order of changes: only the latest has a say.
    term: u64,
    task: Option<AbortOnDropHandle<()>>,
}

/// Another edge.
#[derive(Debug)]
struct Member {
    name: String,
    seed: Seed,
    source: Arc<Source>,
}

/// What all members together were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests sent to them.
    pub requests: u64,
    /// Body bytes received from them.
    pub body_bytes: u64,
    /// Times one served bad bytes.
    pub blames: u64,
    /// Other failures.
    pub failures: u64,
}

impl Totals {
    const fn add(&mut self, counts: &SourceCounts) {
        self.requests += counts.requests;
        self.body_bytes += counts.body_bytes;
        self.blames += counts.blames;
        self.failures += counts.failures;
    }
}

/// The region that `config` names, if any.
pub(crate) fn join(config: &EdgeConfig, metrics: &Metrics) -> Result<Option<Arc<Peers>>, EdgeError> {
    let Some(peers_config) = &config.peers else { return Ok(None) };
    let peers = Peers::new(peers_config, config.upstream_in_flight_max, metrics.clone())?;
    peers.change(peers.prepare(peers_config, config.upstream_in_flight_max)?)?;
    Ok(Some(peers))
}

impl Peers {
    /// The members that the configuration lists; those that a directory names come later, see [`follow`].
    fn new(config: &PeersConfig, in_flight_max: u32, metrics: Metrics) -> Result<Arc<Self>, EdgeError> {
        if config.own.is_empty() {
            let reason = "`own` must be this edge's HOST:PORT as the others see it: it decides what is its share";
            return Err(EdgeError::Peers(reason.to_owned()));
        }
        let trust = config.tls.parse().map_err(|error| EdgeError::Peers(format!("tls: {error}")))?;
        let own_name = config.own.to_ascii_lowercase();
        let peers = Self {
            own: Seed::of(&own_name),
            own_name,
            secure: config.secure,
            client: Client::new(ClientConfig { trust, http3: config.http3, ..ClientConfig::default() })?,
            in_flight_max: AtomicU32::new(in_flight_max),
            members: RwLock::default(),
            former: RwLock::default(),
            metrics,
            following: Mutex::default(),
        };
        peers.set(&config.members)?;
        Ok(Arc::new(peers))
    }

    /// Replaces the members, at most [`PEERS_MAX`], as `HOST:PORT`. This edge itself may be among them or not. Who stays keeps
    /// its health and its connections.
    ///
    /// # Errors
    /// A name is not one; then nothing changes.
    pub fn set(&self, names: &[String]) -> Result<(), EdgeError> {
        let before = self.members();
        let mut wanted = BTreeMap::new();
        for name in names {
            let name = name.to_ascii_lowercase();
            if name == self.own_name || wanted.contains_key(&name) || wanted.len() == PEERS_MAX {
                continue;
            }
            let member = match before.iter().find(|member| member.name == name) {
                Some(member) => member.clone(),
                None => self.member(&name)?,
            };
            wanted.insert(name, member);
        }
        let members: Vec<_> = wanted.into_values().collect();
        let is_same = members.len() == before.len() && members.iter().zip(before.iter()).all(|(a, b)| a.name == b.name);
        if !is_same {
            tracing::info!(members = ?members.iter().map(|member| &member.name).collect::<Vec<_>>(), "peers");
            let mut former = self.former.write().unwrap_or_else(PoisonError::into_inner);
            for gone in before.iter().filter(|old| !members.iter().any(|member| member.name == old.name)) {
                former.add(&gone.source.counts());
            }
        }
        self.metrics.peers.set(i64::try_from(members.len()).unwrap_or(i64::MAX));
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
        Ok(())
    }

    /// Names of the other members.
    pub fn names(&self) -> Vec<String> {
        self.members().iter().map(|member| member.name.clone()).collect()
    }

    /// The member that is asked for a part of a blob; nothing if that is this edge itself.
    pub fn owner(&self, blob: &BlobId, part: Part) -> Option<String> {
        self.choose(blob, part).map(|member| member.name.clone())
    }

    /// What all members together were counted, former ones included.
    pub fn totals(&self) -> Totals {
        let mut totals = *self.former.read().unwrap_or_else(PoisonError::into_inner);
        self.members().iter().for_each(|member| totals.add(&member.source.counts()));
        totals
    }

    fn members(&self) -> Arc<Vec<Arc<Member>>> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn member(&self, name: &str) -> Result<Arc<Member>, EdgeError> {
        let scheme = if self.secure { "https" } else { "http" };
        let url: SourceUrl = format!("{scheme}://{name}").parse().map_err(EdgeError::Upstream)?;
        if url.authority() != name {
            return Err(EdgeError::Peers(format!("member `{name}` must be HOST:PORT")));
        }
        let limits =
            BudgetLimits { in_flight_max: self.in_flight_max.load(Ordering::Relaxed), ..BudgetLimits::default() };
        let source = Source::new(url)
            .with_client(self.client.clone())
            .with_headers(HeaderMap::from_iter([(FROM_PEER, HeaderValue::from_static("1"))]))
            .with_budget(Budget::new(limits));
        Ok(Arc::new(Member { name: name.to_owned(), seed: Seed::of(name), source: Arc::new(source) }))
    }

    /// The best of those that want the share more than this edge does, are well, and have not got too much to do. Most parts
    /// are chosen alike by all; while one is overloaded or ill, they may be asked of the parent more than once.
    fn choose(&self, blob: &BlobId, part: Part) -> Option<Arc<Member>> {
        let (members, share) = (self.members(), Share::of(blob, part));
        let own = self.own.score(share);
        let mut better: Vec<_> = members
            .iter()
            .map(|member| (member.seed.score(share), member))
            .filter(|(score, member)| *score > own && member.source.standing() == Standing::Good)
            .collect();
        better.sort_unstable_by_key(|(score, _)| std::cmp::Reverse(*score));
        let in_flight = |member: &Member| member.source.budget().in_flight();
        let all: u32 = members.iter().map(|member| in_flight(member)).sum();
        let fair = f64::from(all + 1) / (members.len() + 1) as f64 * LOAD_FACTOR;
        let bound = PEER_LOAD_MIN.max(fair.ceil() as u32);
        let chosen = better.iter().position(|(_, member)| in_flight(member) < bound);
        if chosen != Some(0) && !better.is_empty() {
            self.metrics.peers_overloaded.inc();
        }
        chosen.map(|index| better[index].1.clone())
    }
}

impl Nearby for Peers {
    fn first(&self, blob: &BlobId, part: Part) -> Option<Arc<Source>> {
        self.choose(blob, part).map(|member| member.source.clone())
    }
}

/// Knows the members as they are now.
#[derive(Debug)]
enum Directory {
    Dns(Box<HeadlessName>),
    Kubernetes(EndpointSlices),
}

impl Directory {
    /// Where the configuration says that members are asked for, if anywhere.
    fn of(config: &PeersConfig) -> Result<Option<Self>, EdgeError> {
        Ok(match (&config.dns, &config.endpoint_slices) {
            (None, None) => None,
            (Some(name), None) => Some(Self::Dns(Box::new(HeadlessName::new(name, config.dns_server)?))),
            (None, Some(service)) => Some(Self::Kubernetes(EndpointSlices::new(service)?)),
            (Some(_), Some(_)) => {
                return Err(EdgeError::Peers("`dns` and `endpoint_slices` cannot both name the members".to_owned()));
            }
        })
    }

    async fn look(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Dns(name) => name.look().await,
            Self::Kubernetes(service) => service.look().await,
        }
    }
}

/// Keeps the members up to date in its `term`: those that are listed, and those that the directory names. When the directory
/// fails, the last ones stay.
async fn follow(peers: Weak<Peers>, directory: Directory, listed: Vec<String>, refresh: Duration, term: u64) {
    loop {
        let found = directory.look().await;
        let Some(peers) = peers.upgrade() else { return };
        let set = found.and_then(|found| {
            let all: Vec<_> = listed.iter().cloned().chain(found).collect();
            let following = peers.following.lock().unwrap_or_else(PoisonError::into_inner);
            if following.term != term {
                return Ok(());
            }
            peers.set(&all).map_err(|error| error.to_string())
        });
        if let Err(error) = set {
            tracing::warn!(%error, "the peers are not known anew; the last ones stay");
            peers.metrics.peers_unknown.inc();
        }
        drop(peers);
        // Members that were started together do not ask together.
        tokio::time::sleep(refresh.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use colibri_service::metrics::Registry;

    use super::dns::tests::{Zone, name_server};
    use super::*;

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..3_000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come to pass");
    }

    #[tokio::test]
    async fn membership_follows_dns_and_stays_when_dns_fails() {
        let zone: Zone = Arc::new(Mutex::new(Some(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])));
        let config = PeersConfig {
            own: "10.0.0.1:1".to_owned(),
            dns: Some("edges.example.:1".to_owned()),
            dns_server: Some(name_server(zone.clone()).await),
            refresh_s: 1,
            ..PeersConfig::default()
        };
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let peers = Peers::new(&config, 9, metrics.clone()).unwrap();
        peers.change(peers.prepare(&config, 9).unwrap()).unwrap();
        until(|| peers.names() == ["10.0.0.2:1"]).await;
        let kept = peers.members()[0].source.clone();
        *zone.lock().unwrap() = Some(vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()]);
        until(|| peers.names() == ["10.0.0.2:1", "10.0.0.3:1"]).await;
        assert!(Arc::ptr_eq(&kept, &peers.members()[0].source), "who stays keeps its health");
        *zone.lock().unwrap() = None;
        until(|| metrics.peers_unknown.get() > 0).await;
        assert_eq!(peers.names(), ["10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(metrics.peers.get(), 2);
    }
}
