//! [`ListenerConfig`]: what operators choose about the ports that clients reach, the same for origins and edges; and how
//! [`ServerCounters`] become metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use colibri_transport::{ServerConfig, ServerCounters, ServerTls};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};
use serde::{Deserialize, Serialize};

use crate::certificates::TlsFiles;
use crate::error::ServiceError;
use crate::metrics::{MetricsError, Registry};

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
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self { tls_reload_s: 10, client_ca_file: None, drain_pause_s: 1 }
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

    /// A port with TLS.
    pub fn secure(&self, address: SocketAddr, tls: ServerTls, counters: &Arc<ServerCounters>) -> ServerConfig {
        self.chosen(ServerConfig::secure(address, tls), counters)
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
        ServerConfig { drain_pause, counters: counters.clone(), ..config }
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
