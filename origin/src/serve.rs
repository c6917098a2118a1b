//! [`OriginServer`]: an origin as a process: its ports, its certificate, its metrics, its end.

use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use colibri_api::{Route, parse_path};
use colibri_common::{Clock, hex};
use colibri_repository::KeySources;
use colibri_service::metrics::{IntCounterVec, Registry};
use colibri_service::{
    Admin, Health, ListenerConfig, MetricsError, ReloadMetrics, Reloading, TlsFiles, certificates, register_counters,
};
use colibri_transport::{EarlyRule, Server, ServerConfig, ServerCounters, ServerLimits, ServerTls};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config::{OriginConfig, RepositoryConfig};
use crate::error::OriginError;
use crate::limits::WRITE_JSON_BYTES_MAX;
use crate::observe::{ObservedRequest, RequestObserver};
use crate::origin::Origin;
use crate::refresher::{RefreshMetrics, Refresher};
use crate::reload::Reloader;
use crate::write::{WriteApi, WriteConfig};

/// Configuration of an origin process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginServerConfig {
    /// Where to answer HTTP/3, 2 and 1.1 with TLS; port 0 picks one.
    pub listen: SocketAddr,
    /// Where to answer HTTP/1.1 and 2 without TLS, as the real tools do; nothing for nowhere.
    pub listen_plain: Option<SocketAddr>,
    /// Whether to answer HTTP/3.
    pub http3: bool,
    /// Folder of `tls.crt` and `tls.key`; both are made on first start.
    pub tls_dir: PathBuf,
    /// Host names and addresses in a certificate that is made.
    pub tls_names: Vec<String>,
    /// The port that `Alt-Svc` announces, if it is not the one listened on.
    pub alt_svc_port: Option<u16>,
    /// Where metrics and health are answered; nothing for nowhere.
    pub listen_admin: Option<SocketAddr>,
    /// How long requests under way may take when the process is told to end, in seconds.
    pub drain_s: u64,
    /// What is logged, such as `info` or `colibri_origin=debug,warn`.
    pub log: String,
    /// What is chosen about the ports of the read API.
    pub listener: ListenerConfig,
    /// See [`OriginConfig::repositories`].
    pub repositories: Vec<RepositoryConfig>,
    /// See [`OriginConfig::timestamp_max_age_s`].
    pub timestamp_max_age_s: u64,
    /// See [`OriginConfig::cache_name`].
    pub cache_name: String,
    /// See [`OriginConfig::keep_computed_leaves`].
    pub keep_computed_leaves: bool,
    /// Whether snapshots and timestamps are signed again in time, where their keys are at hand.
    pub refresh: bool,
    /// See [`OriginConfig::subscribe`].
    pub subscribe: bool,
    /// The write API.
    pub write: WriteConfig,
}

impl Default for OriginServerConfig {
    fn default() -> Self {
        let OriginConfig { repositories, timestamp_max_age_s, cache_name, keep_computed_leaves, subscribe } =
            OriginConfig::default();
        Self {
            listen: (Ipv6Addr::UNSPECIFIED, 8443).into(),
            listen_plain: None,
            http3: true,
            tls_dir: PathBuf::from("tls"),
            tls_names: vec!["localhost".to_owned()],
            alt_svc_port: None,
            listen_admin: None,
            drain_s: 25,
            log: "info".to_owned(),
            listener: ListenerConfig::default(),
            repositories,
            timestamp_max_age_s,
            cache_name,
            keep_computed_leaves,
            refresh: true,
            subscribe,
            write: WriteConfig::default(),
        }
    }
}

impl OriginServerConfig {
    /// The part that concerns the repositories.
    pub fn origin(&self) -> OriginConfig {
        OriginConfig {
            repositories: self.repositories.clone(),
            timestamp_max_age_s: self.timestamp_max_age_s,
            cache_name: self.cache_name.clone(),
            keep_computed_leaves: self.keep_computed_leaves,
            subscribe: self.subscribe,
        }
    }
}

/// An origin whose ports are open and which answers once [`OriginServer::serve`] runs.
pub struct OriginServer {
    secure: Server,
    plain: Option<Server>,
    write: Option<Server>,
    write_plain: Option<Server>,
    admin: Option<Admin>,
    health: Arc<Health>,
    origin: Origin,
    tls: ServerTls,
    drain: Duration,
    refresher: Option<Refresher>,
    tls_files: [TlsFiles; 2],
    tls_reload: Duration,
    reloads: ReloadMetrics,
    registry: Registry,
    reloader: Option<Reloader>,
}

impl OriginServer {
    /// Opens repositories, certificate and ports. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Names the repository, the file or the address at fault.
    pub fn bind(config: &OriginServerConfig, clock: Arc<dyn Clock>) -> Result<Self, OriginError> {
        Self::bind_with_keys(config, clock, &KeySources::default())
    }

    /// [`Self::bind`], with keys besides those in the repositories' folders, and passphrases.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_with_keys(
        config: &OriginServerConfig,
        clock: Arc<dyn Clock>,
        keys: &KeySources,
    ) -> Result<Self, OriginError> {
        let registry = Registry::new();
        let metrics = RequestMetrics::register(&registry)?;
        let refreshes = RefreshMetrics::register(&registry)?;
        let refresher = Refresher::new(&config.repositories, keys.clone(), clock.clone(), refreshes);
        let refresher = config.refresh.then_some(refresher);
        let origin = Origin::open(config.origin(), clock.clone())?.with_observer(Arc::new(metrics));
        let counters = Arc::<ServerCounters>::default();
        register_counters(&registry, counters.clone())?;
        let reloads = ReloadMetrics::register(&registry)?;
        let listener = &config.listener;
        let plain = config.listen_plain.map(|address| listener.plain(address, &counters)).transpose()?;
        let files = listener.files(&config.tls_dir);
        let write_files = TlsFiles::new(&config.tls_dir).asking(config.write.client_ca_file.as_ref());
        let tls = files.load_or_create(&config.tls_names)?;
        let early = EarlyRule::new(|path| parse_path(path).is_ok_and(|route| route.may_run_early()));
        let secure = ServerConfig {
            quic: config.http3,
            alt_svc_port: config.alt_svc_port,
            ..listener.secure(config.listen, tls.clone(), &config.cache_name, early, &counters)?
        };
        let secure = Server::bind(secure, origin.handler())?;
        let plain = plain.map(|plain| Server::bind(plain, origin.handler())).transpose()?;
        let [write, write_plain] = bind_write(config, &write_files, clock, &registry, keys)?;
        let health = Health::new();
        let admin =
            config.listen_admin.map(|address| Admin::start(address, registry.clone(), health.clone())).transpose()?;
        let drain = Duration::from_secs(config.drain_s);
        let (tls_files, tls_reload) = ([files, write_files], listener.tls_reload());
        Ok(Self {
            secure,
            plain,
            write,
            write_plain,
            admin,
            health,
            origin,
            tls,
            drain,
            refresher,
            tls_files,
            tls_reload,
            reloads,
            registry,
            reloader: None,
        })
    }

    /// The same server, whose configuration, which was `config`, is read again while it serves.
    ///
    /// # Errors
    /// That was said before.
    pub fn reloading(self, config: &OriginServerConfig, reloading: Reloading) -> Result<Self, OriginError> {
        let bounds = std::iter::once(&self.secure).chain(&self.plain).map(Server::bounds).collect();
        let reloader = Some(Reloader::new(reloading, config, bounds, &self.registry)?);
        Ok(Self { reloader, ..self })
    }

    /// What reads its configuration again, if it was said where from.
    pub fn reloader(&self) -> Option<Reloader> {
        self.reloader.clone()
    }

    /// The origin that answers.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Where it answers with TLS, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.secure.address()
    }

    /// Where it answers without TLS, with the real port.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain.as_ref().map(Server::address)
    }

    /// Where the write API answers with TLS, with the real port.
    pub fn write_address(&self) -> Option<SocketAddr> {
        self.write.as_ref().map(Server::address)
    }

    /// Where the write API answers without TLS, with the real port.
    pub fn write_plain_address(&self) -> Option<SocketAddr> {
        self.write_plain.as_ref().map(Server::address)
    }

    /// Where metrics and health are, with the real port.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// SHA-256 of the certificate's SubjectPublicKeyInfo, for a client's `pin:`.
    pub fn certificate_pin(&self) -> [u8; 32] {
        self.tls.certificate_pin()
    }

    /// Answers until `stop`, then finishes the requests under way. Readiness stays true while it drains.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { secure, plain, write, write_plain, admin, health, origin, drain, refresher, tls_files, .. } = self;
        let [files, write_files] = tls_files;
        let read_tls = secure.tls().map(|tls| (files, tls));
        let write_tls = write.as_ref().and_then(Server::tls).map(|tls| (write_files, tls));
        let listeners = read_tls.into_iter().chain(write_tls).collect();
        let certificates = certificates::follow(listeners, self.tls_reload, self.reloads);
        let (reloader, every) = (self.reloader, self.tls_reload);
        let configuration = async {
            match reloader {
                Some(reloader) => reloader.follow(every).await,
                None => std::future::pending().await,
            }
        };
        let refresher = refresher.map(|refresher| tokio::spawn(refresher.run(stop.clone())));
        health.set_ready(true);
        let serve = |server: Option<Server>| {
            let stop = stop.clone();
            async move {
                if let Some(server) = server {
                    server.serve(stop, drain).await;
                }
            }
        };
        let events = async {
            stop.cancelled().await;
            origin.end_events();
        };
        let serving =
            async { tokio::join!(serve(Some(secure)), serve(plain), serve(write), serve(write_plain), events) };
        tokio::select! { _ = serving => {}, () = certificates => {}, () = configuration => {} }
        if let Some(refresher) = refresher {
            // What is being signed is finished, unless a command takes longer than everything else may.
            _ = tokio::time::timeout(drain, refresher).await;
        }
        // Closing the admin port waits for its thread.
        _ = tokio::task::spawn_blocking(move || drop(admin)).await;
    }
}

/// The listeners of the write API, with and without TLS: TCP only, and so without early data.
fn bind_write(
    config: &OriginServerConfig,
    files: &TlsFiles,
    clock: Arc<dyn Clock>,
    registry: &Registry,
    keys: &KeySources,
) -> Result<[Option<Server>; 2], OriginError> {
    let write = &config.write;
    if !write.is_on() {
        return Ok([None, None]);
    }
    let api = WriteApi::open(write, &config.repositories, clock, registry, keys)?;
    let limits = ServerLimits {
        connections_max: write.connections_max,
        request_body_bytes_max: write.upload_bytes_max.max(WRITE_JSON_BYTES_MAX),
        ..ServerLimits::default()
    };
    let tls = files.load()?;
    let secure = |address| ServerConfig { quic: false, limits: limits.clone(), ..ServerConfig::secure(address, tls) };
    let plain = |address| ServerConfig { limits: limits.clone(), ..ServerConfig::plain(address) };
    let configs = [write.listen.map(secure), write.listen_plain.map(plain)];
    let [secure, plain] = configs.map(|config| config.map(|config| Server::bind(config, api.handler())).transpose());
    Ok([secure?, plain?])
}

/// Binds, says where it answers, serves until `shutdown` completes, drains.
///
/// # Errors
/// As [`OriginServer::bind`].
pub async fn run(
    config: &OriginServerConfig,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), OriginError> {
    let server = OriginServer::bind(config, clock)?;
    let (address, pin) = (server.address(), hex(&server.certificate_pin()));
    let plain_address = server.plain_address().map(tracing::field::display);
    let admin_address = server.admin_address().map(tracing::field::display);
    let write_address = server.write_address().map(tracing::field::display);
    let write_plain_address = server.write_plain_address().map(tracing::field::display);
    tracing::info!(%address, plain_address, write_address, write_plain_address, admin_address, pin, "the origin serves");
    let stop = CancellationToken::new();
    let stopping = async {
        shutdown.await;
        tracing::info!("the origin stops accepting and finishes what is under way");
        stop.cancel();
    };
    tokio::join!(server.serve(stop.clone()), stopping);
    Ok(())
}

/// Requests and bytes, for Prometheus.
struct RequestMetrics {
    requests: IntCounterVec,
    body_bytes: IntCounterVec,
}

impl RequestMetrics {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let requests = "Requests answered, by kind of path and status.";
        let body_bytes = "Body bytes handed to connections, by kind of path.";
        Ok(Self {
            requests: registry.counter_vec("colibri_origin_requests_total", requests, &["route", "status"])?,
            body_bytes: registry.counter_vec("colibri_origin_body_bytes_total", body_bytes, &["route"])?,
        })
    }
}

impl RequestObserver for RequestMetrics {
    fn observe(&self, request: &ObservedRequest) {
        let kind = request.route.as_ref().map_or("none", Route::kind);
        self.requests.with_label_values(&[kind, request.status.as_str()]).inc();
        self.body_bytes.with_label_values(&[kind]).inc_by(request.body_bytes);
    }
}
