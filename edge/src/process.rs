//! An edge as a process: configuration of listeners, start, reload, drain. Nothing starts before everything is built, so a bad
//! certificate stops the process before a port is open.

mod reload;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use colibri_api::parse_path;
use colibri_service::metrics::Registry;
use colibri_service::{
    Admin, Health, ListenerConfig, MetricsError, ReloadMetrics, Reloading, ServiceError, TlsFiles, certificates,
    on_hangup, register_counters,
};
use colibri_transport::{EarlyRule, Server, ServerConfig, ServerCounters, TlsHandle};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{Edge, EdgeConfig, EdgeError};
use reload::Ports;
pub use reload::{Reloader, changeable};

/// Configuration of an edge process. The edge's own keys stand in the table `edge`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeServerConfig {
    /// Address for HTTP/3 (UDP) and TLS (TCP).
    pub listen: SocketAddr,
    /// Address for HTTP/1.1 and HTTP/2 without TLS, if any.
    pub listen_plain: Option<SocketAddr>,
    /// Address for metrics and health, if any.
    pub listen_admin: Option<SocketAddr>,
    /// Answer HTTP/3.
    pub http3: bool,
    /// Folder of `tls.crt` and `tls.key`; both are made on first start.
    pub tls_dir: PathBuf,
    /// Host names in a certificate that is made.
    pub tls_names: Vec<String>,
    /// The port that `Alt-Svc` announces, if clients see another than the one listened on.
    pub alt_svc_port: Option<u16>,
    /// How long requests in flight may take after SIGTERM.
    pub drain_s: u64,
    /// What is logged, such as `info` or `colibri_edge=debug,warn`.
    pub log: String,
    /// What is chosen about these ports.
    pub listener: ListenerConfig,
    /// The edge itself.
    pub edge: EdgeConfig,
}

impl Default for EdgeServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 8443),
            listen_plain: None,
            listen_admin: None,
            http3: true,
            tls_dir: PathBuf::from("colibri-edge-tls"),
            tls_names: vec!["localhost".to_owned()],
            alt_svc_port: None,
            drain_s: 25,
            log: "info".to_owned(),
            listener: ListenerConfig::default(),
            edge: EdgeConfig::default(),
        }
    }
}

/// Why an edge process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeProcessError {
    /// The edge or a listener.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The admin port, or ports that contradict each other.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// A metric.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// An edge with its ports open, not yet answering.
#[derive(Debug)]
pub struct EdgeProcess {
    edge: Edge,
    secure: Server,
    plain: Option<Server>,
    admin: Option<Admin>,
    health: Arc<Health>,
    drain: Duration,
    certificates: Vec<(TlsFiles, TlsHandle)>,
    tls_reload: Duration,
    reloads: ReloadMetrics,
    reloader: Option<Reloader>,
}

impl EdgeProcess {
    /// Builds the edge, then opens its ports. Its configuration stays as it is.
    pub fn start(config: &EdgeServerConfig) -> Result<Self, EdgeProcessError> {
        Self::start_from(config, None)
    }

    /// Builds the edge, then opens its ports. While it serves, its configuration is read again.
    pub fn start_from(config: &EdgeServerConfig, reloading: Option<Reloading>) -> Result<Self, EdgeProcessError> {
        let registry = Registry::new();
        let edge = Edge::build(&config.edge, &registry)?;
        let counters = Arc::<ServerCounters>::default();
        register_counters(&registry, counters.clone())?;
        let reloads = ReloadMetrics::register(&registry)?;
        let listener = &config.listener;
        let plain = config.listen_plain.map(|address| listener.plain(address, &counters)).transpose()?;
        let tls_files = listener.files(&config.tls_dir);
        let tls = tls_files.load_or_create(&config.tls_names).map_err(EdgeError::from)?;
        let early = EarlyRule::new(|path| parse_path(path).is_ok_and(|route| route.may_run_early()));
        let secure = ServerConfig {
            quic: config.http3,
            alt_svc_port: config.alt_svc_port,
            ..listener.secure(config.listen, tls, &config.edge.name, early, &counters)?
        };
        let secure = Server::bind(secure, edge.handler()).map_err(EdgeError::from)?;
        let plain = plain.map(|plain| Server::bind(plain, edge.handler())).transpose().map_err(EdgeError::from)?;
        let ports = Ports {
            bounds: std::iter::once(&secure).chain(&plain).map(Server::bounds).collect(),
            certificates: secure.tls().map(|tls| (tls_files, tls)).into_iter().collect(),
            certificate_reloads: reloads.clone(),
        };
        let certificates = ports.certificates.clone();
        let reloader = reloading.map(|reloading| Reloader::new(reloading, config, edge.clone(), ports, &registry));
        let reloader = reloader.transpose()?;
        let health = Health::new();
        let control = match reloader.clone() {
            Some(reloader) => reloader.control(edge.control()),
            None => edge.control(),
        };
        let start = |address| Admin::start_with(address, registry, health.clone(), Some(control));
        let admin = config.listen_admin.map(start).transpose()?;
        let (drain, tls_reload) = (Duration::from_secs(config.drain_s), listener.tls_reload());
        Ok(Self { edge, secure, plain, admin, health, drain, certificates, tls_reload, reloads, reloader })
    }

    /// Where HTTP/3 and TLS are answered.
    pub fn address(&self) -> SocketAddr {
        self.secure.address()
    }

    /// Where plain HTTP is answered.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(Server::address)
    }

    /// Where metrics and health are answered.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// What reads its configuration again, if it was said where from.
    pub fn reloader(&self) -> Option<Reloader> {
        self.reloader.clone()
    }

    /// Answers until `stop`, then drains. Readiness stays true while draining: a load balancer that sees it fall would take
    /// the datagrams of requests in flight elsewhere.
    pub async fn serve(self, stop: CancellationToken) {
        self.health.set_ready(true);
        let certificates = certificates::follow(self.certificates, self.tls_reload, self.reloads);
        let secure = self.secure.serve(stop.clone(), self.drain);
        let plain = async {
            if let Some(plain) = self.plain {
                plain.serve(stop.clone(), self.drain).await;
            }
        };
        // From then on, peers ask this edge for nothing new.
        let leaving = async {
            stop.cancelled().await;
            self.edge.leave();
        };
        let serving = async { tokio::join!(secure, plain, self.edge.follow(stop.clone()), leaving) };
        let hangups = on_hangup(|| self.edge.reopen_logs());
        let configuration = follow_configuration(self.reloader, self.tls_reload);
        tokio::select! { _ = serving => {}, () = certificates => {}, () = hangups => {}, () = configuration => {} }
        self.edge.finish().await;
        self.health.set_ready(false);
    }
}

/// Reads the configuration again on SIGHUP and when its file has changed. Never completes.
async fn follow_configuration(reloader: Option<Reloader>, every: Duration) {
    let Some(reloader) = reloader else { return std::future::pending().await };
    let read_again = || {
        let reloader = reloader.clone();
        async move {
            // It reads files. What became of it is logged and counted.
            _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
        }
    };
    colibri_service::reload::follow(reloader.file(), every, read_again).await;
}
