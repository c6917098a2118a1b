//! [`ListenerConfig`]: what operators choose about the ports that clients reach, the same for origins and edges; and how
//! [`ServerCounters`] become metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use colibri_transport::{
    EarlyRule, QuicKeys, Segments, ServerConfig, ServerCounters, ServerLimits, ServerTls, ShareLimits,
};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};
use serde::{Deserialize, Serialize};

use crate::certificates::TlsFiles;
use crate::error::ServiceError;
use crate::metrics::{MetricsError, Registry};

/// The keys of a [`ListenerConfig`] at `listener` that can change while a process runs.
pub const CHANGEABLE: &[&str] = &[
    "listener.connections_max",
    "listener.client_connections_max",
    "listener.requests_max",
    "listener.requests_per_s",
    "listener.bytes_per_s",
    "listener.client_requests_max",
    "listener.client_requests_per_s",
    "listener.client_bytes_per_s",
    "listener.retry_from_connections",
];

/// What is chosen about the ports of the read API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerConfig {
    /// How often the certificate's files are looked at, in seconds; 0 for never. SIGHUP has them read at once.
    pub tls_reload_s: u64,
    /// PEM file of authorities for client certificates. With it, a client without a certificate of theirs gets nothing on any
    /// protocol, and there may be no port without TLS.
    pub client_ca_file: Option<PathBuf>,
    /// For how long new connections are still taken when the process is told to end, in seconds.
    pub drain_pause_s: u64,
    /// Connections at a time, TCP and QUIC together.
    pub connections_max: usize,
    /// Connections at a time of one client: an IPv4 address or an IPv6 /64; 0 for no bound.
    pub client_connections_max: usize,
    /// Requests at a time of all clients; 0 for no bound. Of this and the bounds below a part is kept free for what is more
    /// important: warming is turned away first, then background, then read-ahead (429 with `Retry-After`).
    pub requests_max: usize,
    /// Requests a second of all clients; 0 for no bound.
    pub requests_per_s: u64,
    /// Body bytes a second to all clients; 0 for no bound.
    pub bytes_per_s: u64,
    /// Requests at a time of one client; 0 for no bound.
    pub client_requests_max: usize,
    /// Requests a second of one client; 0 for no bound.
    pub client_requests_per_s: u64,
    /// Body bytes a second to one client; 0 for no bound.
    pub client_bytes_per_s: u64,
    /// Answer requests that come in the early data of a resumed HTTP/3 connection, where that does no harm.
    pub early_data: bool,
    /// From how many connections on new QUIC clients must first prove their address (Retry).
    pub retry_from_connections: usize,
    /// UDP sockets on the port: one for each core that is to receive.
    pub quic_sockets: usize,
    /// File of a secret that the servers behind one address share, for Retry tokens, stateless resets and connection ids. Their
    /// names must differ.
    pub quic_keys_file: Option<PathBuf>,
    /// Make session tickets that all servers with the secret understand, instead of remembering sessions. There is no early
    /// data then.
    pub shared_tickets: bool,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        let limits = ServerLimits::default();
        Self {
            tls_reload_s: 10,
            client_ca_file: None,
            drain_pause_s: 1,
            connections_max: limits.connections_max,
            client_connections_max: limits.client_connections_max,
            requests_max: limits.total.requests_max,
            requests_per_s: limits.total.requests_per_s,
            bytes_per_s: limits.total.bytes_per_s,
            client_requests_max: limits.client.requests_max,
            client_requests_per_s: limits.client.requests_per_s,
            client_bytes_per_s: limits.client.bytes_per_s,
            early_data: true,
            retry_from_connections: limits.retry_from_connections,
            quic_sockets: 1,
            quic_keys_file: None,
            shared_tickets: false,
        }
    }
}

impl ListenerConfig {
    /// The files of a certificate in this folder, and of what is asked of clients.
    pub fn files(&self, tls_dir: &Path) -> TlsFiles {
        TlsFiles::new(tls_dir).requiring(self.client_ca_file.as_ref())
    }

    /// How often the certificate's files are looked at.
    pub fn tls_reload(&self) -> Duration {
        Duration::from_secs(self.tls_reload_s)
    }

    /// A port with TLS of the server `name`; `early` says which paths may be answered early.
    ///
    /// # Errors
    /// The file of shared keys cannot be used, or there are to be tickets without it.
    pub fn secure(
        &self,
        address: SocketAddr,
        tls: ServerTls,
        name: &str,
        early: EarlyRule,
        counters: &Arc<ServerCounters>,
    ) -> Result<ServerConfig, ServiceError> {
        let keys = self.quic_keys_file.as_ref().map(|path| QuicKeys::load(path, name));
        let keys = match keys.transpose().map_err(ServiceError::Listener)? {
            None if self.shared_tickets => return Err(ServiceError::TicketsWithoutKeys),
            Some(keys) if self.shared_tickets => Some(keys.with_tickets()),
            keys => keys,
        };
        let early = self.early_data.then_some(early);
        let sockets = self.quic_sockets;
        Ok(ServerConfig { keys, early, sockets, ..self.chosen(ServerConfig::secure(address, tls), counters) })
    }

    /// A port without TLS.
    ///
    /// # Errors
    /// Clients must show certificates: there is no way around that.
    pub fn plain(&self, address: SocketAddr, counters: &Arc<ServerCounters>) -> Result<ServerConfig, ServiceError> {
        match self.client_ca_file {
            Some(_) => Err(ServiceError::PlainBesideClientAuthority { address }),
            None => Ok(self.chosen(ServerConfig::plain(address), counters)),
        }
    }

    fn chosen(&self, config: ServerConfig, counters: &Arc<ServerCounters>) -> ServerConfig {
        let drain_pause = Duration::from_secs(self.drain_pause_s);
        ServerConfig { drain_pause, counters: counters.clone(), limits: self.limits(), ..config }
    }

    /// Checks what can be checked before a port is open, for a server with a port without TLS at `plain`, if anywhere.
    ///
    /// # Errors
    /// What [`Self::secure`] and [`Self::plain`] would refuse, but for the content of files.
    pub fn check(&self, plain: Option<SocketAddr>) -> Result<(), ServiceError> {
        match (plain, &self.client_ca_file) {
            (Some(address), Some(_)) => Err(ServiceError::PlainBesideClientAuthority { address }),
            _ if self.shared_tickets && self.quic_keys_file.is_none() => Err(ServiceError::TicketsWithoutKeys),
            _ => Ok(()),
        }
    }

    /// The bounds of a server.
    pub fn limits(&self) -> ServerLimits {
        ServerLimits {
            connections_max: self.connections_max.max(1),
            client_connections_max: self.client_connections_max,
            retry_from_connections: self.retry_from_connections,
            total: ShareLimits {
                requests_max: self.requests_max,
                requests_per_s: self.requests_per_s,
                bytes_per_s: self.bytes_per_s,
            },
            client: ShareLimits {
                requests_max: self.client_requests_max,
                requests_per_s: self.client_requests_per_s,
                bytes_per_s: self.client_bytes_per_s,
            },
            ..ServerLimits::default()
        }
    }
}

/// Has `counters` rendered with all other metrics, as `colibri_listener_NAME_total`.
///
/// # Errors
/// A name is taken.
pub fn register_counters(registry: &Registry, counters: Arc<ServerCounters>) -> Result<(), MetricsError> {
    let mut vectors = BTreeMap::new();
    for count in counters.all() {
        if !vectors.contains_key(count.name) {
            let name = format!("colibri_listener_{}_total", count.name);
            let opts = Opts::new(&name, format!("{} at the listeners", count.name.replace('_', " ")));
            let made = IntCounterVec::new(opts, &[count.label])
                .map_err(|error| MetricsError::Register { name, reason: error.to_string() })?;
            vectors.insert(count.name, made);
        }
    }
    let segments = registry.gauge_vec(
        "colibri_listener_udp_segments",
        "datagrams that go through the system at once, sent (GSO) and received (GRO); 1 for one by one",
        &["direction"],
    )?;
    let watched = counters.clone();
    registry.before_rendering(move || {
        // Without HTTP/3 there is nothing to tell.
        if let Some(Segments { sent_max, received_max }) = watched.segments() {
            for (direction, count) in [("sent", sent_max), ("received", received_max)] {
                segments.with_label_values(&[direction]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    });
    let descriptions: Vec<Desc> = vectors.values().flat_map(|vector| vector.desc().into_iter().cloned()).collect();
    let exported = Exported { counters, vectors: Arc::new(Mutex::new(vectors)), descriptions };
    registry.register("colibri_listener", Ok(exported)).map(drop)
}

/// Brings Prometheus' counters up to date whenever they are looked at.
#[derive(Clone)]
struct Exported {
    counters: Arc<ServerCounters>,
    vectors: Arc<Mutex<BTreeMap<&'static str, IntCounterVec>>>,
    descriptions: Vec<Desc>,
}

impl Collector for Exported {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let vectors = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        for count in self.counters.all() {
            if let Some(vector) = vectors.get(count.name) {
                let counter = vector.with_label_values(&[count.kind]);
                counter.inc_by(count.value.saturating_sub(counter.get()));
            }
        }
        vectors.values().flat_map(Collector::collect).collect()
    }
}
