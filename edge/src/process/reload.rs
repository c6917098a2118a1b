//! [`Reloader`]: the configuration of a running edge process, read again and taken over as far as it can be.

use std::path::PathBuf;
use std::sync::Arc;

use colibri_service::telemetry::Filter;
use colibri_service::{
    Changes, LogFilter, MetricsError, Registry, Reload, ReloadError, ReloadMetrics, Reloading, TlsFiles, certificates,
    listener,
};
use colibri_transport::{Body, BoundsHandle, Handler, Response, TlsHandle, handler};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{EdgeProcessError, EdgeServerConfig};
use crate::Edge;

/// The keys of [`EdgeServerConfig`] besides logging's and the listener's that can change while the process runs. A key stands for what
/// is below it, too. The certificate's files are read again besides (`tls_dir`, `listener.client_ca_file`).
const OWN: &[&str] = &[
    "edge.upstreams",
    "edge.upstream_order",
    "edge.upstream_in_flight_max",
    "edge.upstream_hedge_percent",
    "edge.upstream_hedge_delay_ms",
    "edge.origins",
    "edge.origin_requests_per_s",
    "edge.origin_bytes_per_s",
    "edge.peers.members",
    "edge.peers.dns",
    "edge.peers.dns_server",
    "edge.peers.endpoint_slices",
    "edge.peers.refresh_s",
    "edge.tokens",
    "edge.metadata_max_age_s",
    "edge.metadata_stale_max_s",
    "edge.unknown_blob_s",
];

/// All keys that can change while an edge runs, in the order of the operator's page.
pub fn changeable() -> Vec<&'static str> {
    [&["log"], listener::CHANGEABLE, OWN].concat()
}

/// Reads the configuration of one process again. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reloader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Reload<EdgeServerConfig>,
    log: Option<LogFilter>,
    edge: Edge,
    bounds: Vec<BoundsHandle>,
    certificates: Vec<(TlsFiles, TlsHandle)>,
    certificate_reloads: ReloadMetrics,
}

/// What of the process's ports can change.
pub(super) struct Ports {
    pub bounds: Vec<BoundsHandle>,
    pub certificates: Vec<(TlsFiles, TlsHandle)>,
    pub certificate_reloads: ReloadMetrics,
}

impl Reloader {
    pub(super) fn new(
        reloading: Reloading,
        running: &EdgeServerConfig,
        edge: Edge,
        ports: Ports,
        registry: &Registry,
    ) -> Result<Self, MetricsError> {
        let Reloading { sources, log } = reloading;
        let config = Reload::new(sources, running, changeable(), registry)?;
        let Ports { bounds, certificates, certificate_reloads } = ports;
        Ok(Self(Arc::new(Inner { config, log, edge, bounds, certificates, certificate_reloads })))
    }

    /// Reads all layers of the configuration again and takes over what is new, inside a tokio runtime. What was found is logged
    /// and counted as well as returned. May take a while: it reads files.
    ///
    /// # Errors
    /// What is wrong with the configuration; then nothing has changed.
    pub fn reload(&self) -> Result<Changes, ReloadError> {
        self.0.config.reload(|new, changes| self.0.take(new, changes))
    }

    /// Reads the files of the certificate again; false if what is there is not usable, and the old one stays.
    pub fn reload_certificates(&self) -> bool {
        let Inner { certificates, certificate_reloads, .. } = &*self.0;
        let reloaded = certificates.iter().map(|(files, tls)| certificates::reload(files, tls, certificate_reloads));
        reloaded.fold(true, |all, one| all & one)
    }

    /// A handler for the admin port: `POST /reload`, and `others` for everything else. Call it where the edge runs; that port has
    /// a thread of its own.
    pub(super) fn control(self, others: Handler) -> Handler {
        let runtime = Handle::current();
        handler(move |request| {
            let (reloader, others, runtime) = (self.clone(), others.clone(), runtime.clone());
            async move {
                match (request.uri().path(), request.method()) {
                    ("/reload", &Method::POST) => {
                        let read = runtime.spawn_blocking(move || (reloader.reload(), reloader.reload_certificates()));
                        match read.await {
                            Ok((changes, certificates)) => told(&changes, certificates),
                            Err(_) => {
                                respond(StatusCode::SERVICE_UNAVAILABLE, &json!({"error": "the edge is stopping"}))
                            }
                        }
                    }
                    ("/reload", method) => {
                        let error = format!("/reload does not take {method}");
                        respond(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": error }))
                    }
                    _ => others(request).await,
                }
            }
        })
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        self.0.config.file().map(PathBuf::from)
    }
}

impl Inner {
    fn take(&self, new: &EdgeServerConfig, changes: &Changes) -> Result<(), EdgeProcessError> {
        let filter: Filter = new.log.parse()?;
        new.listener.check(new.listen_plain)?;
        if !changes.at_next_start.is_empty() {
            // Better told now than by a process that does not come up again.
            Edge::check(&new.edge)?;
        }
        let changed = |key: &str| changes.applied.iter().any(|changed| changed.starts_with(key));
        let members_changed = changed("edge.peers.") || changed("edge.upstream_in_flight_max");
        let change = self.edge.prepare(&new.edge, members_changed)?;
        // From here on nothing is refused.
        self.edge.change(change)?;
        let limits = new.listener.limits();
        self.bounds.iter().for_each(|bounds| bounds.set(&limits));
        if let Some(log) = self.log.as_ref().filter(|_| changed("log")) {
            log.set(filter);
        }
        Ok(())
    }
}

/// What the admin port says about a reload.
fn told(changes: &Result<Changes, ReloadError>, certificates: bool) -> Response {
    let certificate = "the certificate is not usable, and the old one stays: the log says what is wrong with it";
    let error = match (changes, certificates) {
        (Ok(changes), true) => return respond(StatusCode::OK, &json!(changes)),
        (Ok(_), false) => certificate.to_owned(),
        (Err(error), true) => error.to_string(),
        (Err(error), false) => format!("{error}; {certificate}"),
    };
    respond(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "error": error }))
}

fn respond(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::full(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
