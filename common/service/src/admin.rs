//! [`Admin`]: `/metrics`, `/healthz` and `/readyz` on a thread of their own, so that they answer while the data path is
//! saturated. Draining does not go through readiness: keep it true until the process ends (architecture, decision 9).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use colibri_transport::{Body, Handler, Request, Response, Server, ServerConfig, ServerLimits, handler};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::error::ServiceError;
use crate::limits;
use crate::metrics::Registry;

/// How long scrapes in flight may take when the admin port closes.
const DRAIN: Duration = Duration::from_secs(1);

/// Whether a process can serve. It starts not ready.
#[derive(Debug, Default)]
pub struct Health(AtomicBool);

impl Health {
    /// A process that cannot serve yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Says whether the process can serve.
    pub fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether the process can serve.
    pub fn ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A running admin port. Dropping it closes the port.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Opens `address` (port 0 picks one) and answers until dropped.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(address: SocketAddr, registry: Registry, health: Arc<Health>) -> Result<Self, ServiceError> {
        Self::start_with(address, registry, health, None)
    }

    /// [`Self::start`], with a handler for all other paths, which then may have small bodies. It runs on the admin thread.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(
        address: SocketAddr,
        registry: Registry,
        health: Arc<Health>,
        others: Option<Handler>,
    ) -> Result<Self, ServiceError> {
        let stop = CancellationToken::new();
        let (opened, wait) = sync_channel(1);
        let on_thread = stop.clone();
        let thread = std::thread::Builder::new()
            .name("colibri-admin".to_owned())
            .spawn(move || {
                let body_bytes_max = if others.is_some() { limits::ADMIN_BODY_BYTES_MAX } else { 0 };
                run(address, body_bytes_max, answers(registry, health, others), on_thread, &opened);
            })
            .map_err(ServiceError::AdminThread)?;
        let ended = || ServiceError::AdminThread(std::io::Error::other("it ended before it began"));
        let address = wait.recv().map_err(|_| ended())??;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address listened on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

fn run(
    address: SocketAddr,
    body_bytes_max: u64,
    handler: Handler,
    stop: CancellationToken,
    opened: &SyncSender<Result<SocketAddr, ServiceError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(ServiceError::AdminThread(error)))),
    };
    runtime.block_on(async {
        let bounds = ServerLimits {
            connections_max: limits::ADMIN_CONNECTIONS_MAX,
            header_bytes_max: limits::ADMIN_HEADER_BYTES_MAX,
            request_body_bytes_max: body_bytes_max,
            ..ServerLimits::default()
        };
        match Server::bind(ServerConfig { limits: bounds, ..ServerConfig::plain(address) }, handler) {
            Ok(server) => {
                _ = opened.send(Ok(server.address()));
                server.serve(stop, DRAIN).await;
            }
            Err(error) => _ = opened.send(Err(error.into())),
        }
    });
}

/// What every admin port answers.
const PATHS: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

fn answers(registry: Registry, health: Arc<Health>, others: Option<Handler>) -> Handler {
    handler(move |request: Request| {
        let answer = match &others {
            Some(others) if !PATHS.contains(&request.uri().path()) => Err(others(request)),
            _ => Ok(answer(&request, &registry, &health)),
        };
        async move {
            match answer {
                Ok(answer) => answer,
                Err(other) => other.await,
            }
        }
    })
}

fn answer(request: &Request, registry: &Registry, health: &Health) -> Response {
    let path = request.uri().path();
    if !PATHS.contains(&path) {
        return text(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz\n".to_owned());
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let mut response = text(StatusCode::OK, registry.render());
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, format);
            response
        }
        "/readyz" if !health.ready() => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        _ => text(StatusCode::OK, "ok\n".to_owned()),
    }
}

fn text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
