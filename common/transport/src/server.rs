//! [`Server`]: one port number, every protocol, one handler; bounded, and drained on request.

pub mod admission;
mod bounds;
pub mod counters;
mod dispatch;
mod http3;
pub mod identity;
mod patience;
mod refusal;
mod tcp;
pub mod unix;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::TransportError;
use crate::handler::{EarlyRule, Handler};
use crate::limits;
use crate::quic::keys::QuicKeys;
use crate::quic::socket;
use crate::tls::identity::{ServerTls, Sessions};
use admission::ShareLimits;
use bounds::Bounds;
use counters::ServerCounters;
use dispatch::Dispatch;
use identity::TlsHandle;

pub use bounds::BoundsHandle;

/// How often a free port is looked for when TCP's choice is taken on UDP.
const PORT_ATTEMPTS: u32 = 20;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What a [`Server`] is to be.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 picks a port that is free for TCP and UDP.
    pub address: SocketAddr,
    /// Certificate and key; without them the server speaks plain HTTP/1.1 and HTTP/2 with prior knowledge.
    pub tls: Option<ServerTls>,
    /// Whether to answer HTTP/3 too (only with `tls`).
    pub quic: bool,
    /// Bounds on everything a client could grow.
    pub limits: ServerLimits,
    /// The port that `Alt-Svc` announces where it differs from the one listened on (port mapping, load balancer).
    pub alt_svc_port: Option<u16>,
    /// For how long a draining server still takes new connections: whoever sends clients here learns only after a while that
    /// they should go elsewhere.
    pub drain_pause: Duration,
    /// Which requests may run before their client's handshake is over, where it resumes a session; without a rule none may.
    pub early: Option<EarlyRule>,
    /// Keys of Retry tokens, stateless resets and connection ids; without them they are made at start and known here only.
    pub keys: Option<QuicKeys>,
    /// UDP sockets on the port, each with a part of the connections; at most [`limits::SOCKETS_MAX`]. With more than one, another
    /// process of the same user can open the same port.
    pub sockets: usize,
    /// Whether the system brings datagrams to their socket by connection id, as far as it can; else user space does it all.
    pub steered_by_system: bool,
    /// What is counted; several servers of a process may share it.
    pub counters: Arc<ServerCounters>,
}

impl ServerConfig {
    /// Plain HTTP on `address` with default limits.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            quic: false,
            limits: ServerLimits::default(),
            alt_svc_port: None,
            drain_pause: Duration::ZERO,
            early: None,
            keys: None,
            sockets: 1,
            steered_by_system: true,
            counters: Arc::default(),
        }
    }

    /// TLS with HTTP/3, 2 and 1.1 on `address` with default limits.
    pub fn secure(address: SocketAddr, tls: ServerTls) -> Self {
        Self { tls: Some(tls), quic: true, ..Self::plain(address) }
    }
}

/// Bounds of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at a time, TCP and QUIC together. TCP beyond waits in the backlog, QUIC beyond is refused.
    pub connections_max: usize,
    /// Connections at a time of one client: an IPv4 address or an IPv6 /64. Zero stands for no bound.
    pub client_connections_max: usize,
    /// From how many connections on a new QUIC client must first prove that it can receive at its address (Retry).
    pub retry_from_connections: usize,
    /// What one client may have.
    pub client: ShareLimits,
    /// What all clients together may have.
    pub total: ShareLimits,
    /// Requests at a time on one HTTP/3 or HTTP/2 connection, at most [`limits::STREAMS_MAX`].
    pub streams_max: u32,
    /// Largest header section of a request in bytes, 32 more counted for each field. One of up to twice as much is answered with
    /// 431 and a reason, a larger one with what its protocol has for that.
    pub header_bytes_max: usize,
    /// Largest request body in bytes.
    pub request_body_bytes_max: u64,
    /// Time for a TLS or QUIC handshake and for a request's header section.
    pub header_timeout: Duration,
    /// Time without a request in flight after which a connection is closed.
    pub idle_timeout: Duration,
    /// Time without progress of a body, in either direction, after which its stream or connection is broken.
    pub stall_timeout: Duration,
}

impl ServerLimits {
    /// What is read of a header section, so that one that is too large can be answered.
    const fn header_bytes_read_max(&self) -> usize {
        self.header_bytes_max.saturating_mul(2)
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            client_connections_max: limits::CLIENT_CONNECTIONS_MAX,
            retry_from_connections: limits::CONNECTIONS_MAX / 2,
            client: ShareLimits::default(),
            total: ShareLimits::default(),
            streams_max: limits::STREAMS_MAX,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            request_body_bytes_max: limits::REQUEST_BODY_BYTES_MAX,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// What all connections of a server share.
struct Context {
    dispatch: Arc<Dispatch>,
    limits: ServerLimits,
    bounds: Arc<Bounds>,
    counters: Arc<ServerCounters>,
    early: Option<EarlyRule>,
    tracker: TaskTracker,
    /// GOAWAY, finish, close.
    drain: CancellationToken,
    /// The same for connections that came after the drain had begun; no further ones.
    refuse: CancellationToken,
    /// Close now.
    abort: CancellationToken,
}

impl Context {
    /// What tells a connection that begins now to go away.
    fn farewell(&self) -> CancellationToken {
        if self.drain.is_cancelled() { self.refuse.clone() } else { self.drain.clone() }
    }
}

/// A server whose ports are open and which answers once [`Server::serve`] runs.
pub struct Server {
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsHandle>,
    endpoints: Vec<quinn::Endpoint>,
    drain_pause: Duration,
    context: Arc<Context>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Opens TCP and, with TLS and `quic`, UDP on the same port number. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::AddressInUse`] and [`TransportError::Bind`] name the address, [`TransportError::Certificate`] the
    /// certificate.
    pub fn bind(config: ServerConfig, handler: Handler) -> Result<Self, TransportError> {
        let keys = config.keys.as_ref();
        let make_quic = config.quic.then_some(|crypto| quic_config(crypto, &config.limits, keys));
        let tickets = keys.filter(|keys| keys.tickets).map(QuicKeys::ticketer).transpose()?;
        let sessions = Sessions::new(config.early.is_some(), tickets);
        let tls = config.tls.map(|tls| TlsHandle::new(tls, &sessions, make_quic)).transpose()?;
        let quic = tls.as_ref().and_then(TlsHandle::quic);
        let sockets = socket::Sockets { count: config.sockets, steered_by_system: config.steered_by_system };
        let open = |address| match &quic {
            Some(quic) => socket::server_endpoints(address, sockets, &quic.config, keys, &config.counters),
            None => Ok(Vec::new()),
        };
        let (listener, address, endpoints) = bind_both(config.address, open)?;
        let alt_svc = endpoints.first().and_then(|_| {
            config.counters.udp_port.store(address.port().into(), Ordering::Relaxed);
            let port = config.alt_svc_port.unwrap_or(address.port());
            HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
        });
        let context = Arc::new(Context {
            dispatch: Arc::new(Dispatch {
                handler,
                limits: config.limits.clone(),
                alt_svc,
                counters: config.counters.clone(),
            }),
            bounds: Bounds::new(&config.limits),
            limits: config.limits,
            counters: config.counters,
            early: config.early,
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            refuse: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        Ok(Self { address, listener, tls, endpoints, drain_pause: config.drain_pause, context })
    }

    /// The certificate, to be replaced while the server runs; nothing without TLS.
    pub fn tls(&self) -> Option<TlsHandle> {
        self.tls.clone()
    }

    /// The bounds that can change while the server runs.
    pub fn bounds(&self) -> BoundsHandle {
        BoundsHandle(self.context.bounds.clone())
    }

    /// The address listened on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`; then tells clients to go away (GOAWAY on HTTP/3 and 2, `Connection: close` on 1.1), refuses new
    /// ones after [`ServerConfig::drain_pause`], finishes requests in flight for at most `drain` (the pause included), and
    /// closes. Returns when no task of the server is left.
    pub async fn serve(self, stop: CancellationToken, drain: Duration) {
        let Self { listener, tls, endpoints, context, drain_pause, .. } = self;
        let accepting = context.tracker.spawn(tcp::accept(listener, tls.clone(), context.clone()));
        for endpoint in endpoints.clone() {
            context.tracker.spawn(http3::accept(endpoint, tls.clone(), context.clone()));
        }
        // Should this future be dropped instead of stopped, its tasks end too.
        let guard = context.abort.clone().drop_guard();
        stop.cancelled().await;
        let deadline = Instant::now() + drain;
        context.drain.cancel();
        sleep_until(deadline.min(Instant::now() + drain_pause)).await;
        context.refuse.cancel();
        context.tracker.close();
        tokio::select! {
            ended = timeout_at(deadline, context.tracker.wait()) => if ended.is_err() {
                tracing::warn!(tasks = context.tracker.len(), "drain deadline passed: closing connections that still work");
            },
            () = http3::refuse(&endpoints, &context) => {}
        }
        drop(guard);
        _ = accepting.await;
        context.tracker.wait().await;
        for endpoint in endpoints {
            endpoint.close(0u32.into(), b"");
            endpoint.wait_idle().await;
        }
    }
}

fn quic_config(crypto: Arc<QuicServerConfig>, limits: &ServerLimits, keys: Option<&QuicKeys>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    let streams = limits.streams_max.min(limits::STREAMS_MAX);
    config.transport_config(Arc::new(socket::server_transport(limits.idle_timeout, streams)));
    if let Some(keys) = keys {
        config.token_key(keys.token_key());
    }
    config
}

/// Opens TCP, and what `open` opens on UDP, on one port number.
fn bind_both(
    address: SocketAddr,
    open: impl Fn(SocketAddr) -> std::io::Result<Vec<quinn::Endpoint>>,
) -> Result<(TcpListener, SocketAddr, Vec<quinn::Endpoint>), TransportError> {
    let mut attempt = 1;
    loop {
        let (listener, bound) = bind_tcp(address).map_err(|source| bind_error(address, "TCP", source))?;
        match open(bound) {
            Ok(endpoints) => return Ok((listener, bound, endpoints)),
            Err(_) if address.port() == 0 && attempt < PORT_ATTEMPTS => attempt += 1,
            Err(source) => return Err(bind_error(bound, "UDP", source)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for old connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

fn bind_error(address: SocketAddr, transport: &'static str, source: std::io::Error) -> TransportError {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => TransportError::AddressInUse { address, transport },
        _ => TransportError::Bind { address, transport, source },
    }
}
