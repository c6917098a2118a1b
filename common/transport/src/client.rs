//! [`Client`]: sends a request the best way that works. HTTP/3 is raced against TCP, connections are pooled per authority,
//! and a UDP path that leads nowhere is remembered.

mod authority;
mod connection;
mod dial;
mod http1;
mod http2;
mod http3;
#[cfg(feature = "links")]
pub(crate) mod link;
pub(crate) mod network;
mod udp_paths;
pub mod unix;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Uri};

use crate::body::Body;
use crate::error::{ClientError, ClientErrorKind, TransportError};
use crate::handler::Response;
use crate::limits;
use crate::tls::trust::{ClientIdentity, Trust};
use authority::{Authority, Key};
use connection::{Outgoing, Retry};
use dial::Dialer;
use network::Network;
pub use udp_paths::{Routes, SystemRoutes};

/// How a [`Client`] behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Whom it believes.
    pub trust: Trust,
    /// What it shows to servers that ask who it is.
    pub identity: Option<ClientIdentity>,
    /// Whether it tries HTTP/3 on `https` authorities.
    pub http3: bool,
    /// Time to make a connection, name resolution and handshakes included.
    pub connect_timeout: Duration,
    /// Time without progress until the response head.
    pub header_timeout: Duration,
    /// Time without a byte while a response body is read.
    pub body_idle_timeout: Duration,
    /// HTTP/3 connections to one authority, each from a UDP socket of its own; further ones are made while those there are
    /// busy. With one, a single path and a single core of the server carry everything.
    pub udp_sockets: usize,
    /// What its connections leave this process by.
    pub network: Network,
    /// How long HTTP/3 may try alone before TCP joins the race. All that is ever paid for UDP that leads nowhere, and paid
    /// once on each network: afterwards nothing waits for HTTP/3 there until it has answered.
    pub http3_head_start: Duration,
    /// How long a UDP path that led nowhere is not tried again. Remembered for each network of this host: on another one it
    /// is tried at once.
    pub dead_udp_memory: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// HTTP/1.1 connections to one authority (HTTP/2 uses one).
    pub connections_per_authority_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            trust: Trust::None,
            identity: None,
            http3: true,
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(30),
            udp_sockets: 1,
            network: Network::Own,
            http3_head_start: Duration::from_millis(150),
            dead_udp_memory: Duration::from_secs(300),
            pool_idle_timeout: Duration::from_secs(60),
            connections_per_authority_max: limits::HTTP1_CONNECTIONS_MAX,
        }
    }
}

/// What a client has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests sent over HTTP/3.
    pub h3_requests: u64,
    /// Requests sent over HTTP/2.
    pub h2_requests: u64,
    /// Requests sent over HTTP/1.1.
    pub h1_requests: u64,
    /// HTTP/3 connections made.
    pub h3_connections: u64,
    /// HTTP/2 connections made.
    pub h2_connections: u64,
    /// HTTP/1.1 connections made.
    pub h1_connections: u64,
    /// Of all connections, those that were secured.
    pub tls_connections: u64,
    /// Handshakes in which a server proved who it is; the other connections resumed an earlier session.
    pub full_handshakes: u64,
    /// Requests on a connection that had carried others before.
    pub reused: u64,
    /// Requests sent a second time because their pooled connection was broken.
    pub retries: u64,
    /// Times a UDP path was found dead.
    pub dead_udp_paths: u64,
    /// Times TCP waited for HTTP/3 in vain.
    pub head_starts_lost: u64,
}

impl RequestCounts {
    /// What was counted after `earlier`, a former state of the same counts.
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            h3_requests: self.h3_requests - earlier.h3_requests,
            h2_requests: self.h2_requests - earlier.h2_requests,
            h1_requests: self.h1_requests - earlier.h1_requests,
            h3_connections: self.h3_connections - earlier.h3_connections,
            h2_connections: self.h2_connections - earlier.h2_connections,
            h1_connections: self.h1_connections - earlier.h1_connections,
            tls_connections: self.tls_connections - earlier.tls_connections,
            full_handshakes: self.full_handshakes - earlier.full_handshakes,
            reused: self.reused - earlier.reused,
            retries: self.retries - earlier.retries,
            dead_udp_paths: self.dead_udp_paths - earlier.dead_udp_paths,
            head_starts_lost: self.head_starts_lost - earlier.head_starts_lost,
        }
    }

    /// Requests over all protocols.
    pub const fn requests(&self) -> u64 {
        self.h3_requests + self.h2_requests + self.h1_requests
    }

    /// Connections over all protocols.
    pub const fn connections(&self) -> u64 {
        self.h3_connections + self.h2_connections + self.h1_connections
    }

    /// Connections that resumed an earlier session. A handshake that failed after the server had proved who it is makes one fewer.
    pub const fn resumed(&self) -> u64 {
        self.tls_connections.saturating_sub(self.full_handshakes)
    }
}

#[derive(Default)]
struct Counters {
    h3_requests: AtomicU64,
    h2_requests: AtomicU64,
    h1_requests: AtomicU64,
    h3_connections: AtomicU64,
    h2_connections: AtomicU64,
    h1_connections: AtomicU64,
    tls_connections: AtomicU64,
    full_handshakes: Arc<AtomicU64>,
    reused: AtomicU64,
    retries: AtomicU64,
    dead_udp_paths: AtomicU64,
    head_starts_lost: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sends requests; cheap to clone, all clones share connections. Dropping the last clone closes the idle ones.
#[derive(Clone)]
pub struct Client {
    dialer: Arc<Dialer>,
    authorities: Arc<Mutex<HashMap<Key, Arc<Authority>>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.dialer.config).finish_non_exhaustive()
    }
}

impl Client {
    /// A client without connections yet.
    ///
    /// # Errors
    /// The trust setting names a file or system store that is not usable.
    pub fn new(config: ClientConfig) -> Result<Self, TransportError> {
        Self::with_routes(config, Arc::new(SystemRoutes))
    }

    /// [`Client::new`], for a host whose networks somebody else than the system knows.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_routes(config: ClientConfig, routes: Arc<dyn Routes>) -> Result<Self, TransportError> {
        Ok(Self { dialer: Arc::new(Dialer::new(config, routes)?), authorities: Arc::default() })
    }

    /// Sends `request`, whose URI is absolute, and returns once the response head is there.
    ///
    /// A request that met a broken pooled connection is sent once more on a new one if it is idempotent and its body is in
    /// memory. The response's extensions hold the [`crate::Protocol`] it came over; its body fails on any early end.
    ///
    /// # Errors
    /// [`ClientError`] names the authority and the kind of failure.
    pub async fn send(&self, request: http::Request<Body>) -> Result<Response, ClientError> {
        let authority = self.authority(request.uri())?;
        let outgoing = prepare(request, &authority)?;
        let replay = outgoing.body.replay();
        let idempotent = is_idempotent(&outgoing.head.method);
        let head = outgoing.head.clone();
        let connection = authority.acquire().await?;
        let (reused, admission) = (connection.reused(), connection.admission());
        if reused {
            count(&self.dialer.counters.reused);
        }
        let failure = match connection.send(outgoing, &self.dialer).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        let again = match failure.retry {
            Retry::Never => false,
            Retry::IfIdempotent => reused && idempotent,
            Retry::Always => true,
        };
        let Some(body) = failure.untouched_body.or(replay).filter(|_| again) else { return Err(failure.error) };
        tracing::debug!(error = %failure.error, "request is sent again on a new connection");
        count(&self.dialer.counters.retries);
        if let Some(admission) = admission {
            admission.close();
        }
        authority.drop_idle();
        let connection = authority.acquire().await?;
        connection.send(Outgoing::new(head, body), &self.dialer).await.map_err(|failure| failure.error)
    }

    /// HTTP/3 connections that could carry a request now.
    pub fn live_http3_connections(&self) -> usize {
        let authorities = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        authorities.values().map(|authority| authority.live_http3_connections()).sum()
    }

    /// What this client and its clones have done so far.
    pub fn counts(&self) -> RequestCounts {
        let counters = &self.dialer.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            h3_requests: read(&counters.h3_requests),
            h2_requests: read(&counters.h2_requests),
            h1_requests: read(&counters.h1_requests),
            h3_connections: read(&counters.h3_connections),
            h2_connections: read(&counters.h2_connections),
            h1_connections: read(&counters.h1_connections),
            tls_connections: read(&counters.tls_connections),
            full_handshakes: read(&counters.full_handshakes),
            reused: read(&counters.reused),
            retries: read(&counters.retries),
            dead_udp_paths: read(&counters.dead_udp_paths),
            head_starts_lost: read(&counters.head_starts_lost),
        }
    }

    fn authority(&self, uri: &Uri) -> Result<Arc<Authority>, ClientError> {
        let key = Key::of(uri)?;
        let mut authorities = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = authorities.get(&key) {
            return Ok(authority.clone());
        }
        if authorities.len() >= limits::AUTHORITIES_MAX {
            // Somebody's map of a thousand servers: those nobody uses right now can be met anew.
            authorities.retain(|_, authority| Arc::strong_count(authority) > 1);
        }
        let authority = Authority::new(key.clone(), self.dialer.clone());
        authorities.insert(key, authority.clone());
        Ok(authority)
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE].contains(method)
}

/// Settles what every protocol needs alike: no `Host` beside the URI, a `Content-Length` where it is known.
fn prepare(request: http::Request<Body>, authority: &Authority) -> Result<Outgoing, ClientError> {
    let (mut head, body) = request.into_parts();
    if head.method == Method::CONNECT {
        return Err(ClientError::new(ClientErrorKind::Request, authority.name(), "CONNECT is not offered"));
    }
    head.headers.remove(HOST);
    if let Some(length) = body.exact_length() {
        let expects_body = [Method::POST, Method::PUT, Method::PATCH].contains(&head.method);
        if length > 0 || expects_body {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
    }
    Ok(Outgoing::new(head, body))
}
