//! [`Authority`]: the connections to one server, and what was learnt about the way to it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connection::Connection;
use super::count;
use super::dial::{Dialed, Dialer, Target};
use super::http1::{Http1, Sender};
use super::http2::Http2;
use super::http3::Http3;
use super::udp_paths::{Networks, Prospect};
use crate::error::{ClientError, ClientErrorKind};
use crate::limits::{HTTP3_BUSY_STREAMS, UDP_SOCKETS_MAX};

/// How long QUIC may still try once TCP has failed.
const QUIC_LAST_MOMENT: Duration = Duration::from_millis(500);
/// How often the system is asked which network leads to an authority, at most.
const NETWORKS_LOOKED_AT_EVERY: Duration = Duration::from_millis(250);

/// An attempt over HTTP/3, on its way.
type QuicAttempt = Pin<Box<dyn Future<Output = Result<Arc<Http3>, ClientError>> + Send>>;

/// What a connection pool is keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) secure: bool,
    /// Host name or address, lower case, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Key {
    pub(super) fn of(uri: &Uri) -> Result<Self, ClientError> {
        let refused = |reason: &str| ClientError::new(ClientErrorKind::Request, &uri.to_string(), reason);
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(refused("the URI must begin with http:// or https://")),
        };
        let Some(authority) = uri.authority() else { return Err(refused("the URI names no host")) };
        if authority.as_str().contains('@') {
            return Err(refused("the URI must not carry a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(refused("the URI names no host"));
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host, port })
    }
}

/// An HTTP/3 connection, and the networks that it was made over.
struct OverUdp {
    connection: Arc<Http3>,
    networks: Networks,
}

#[derive(Default)]
struct State {
    http3: Vec<OverUdp>,
    http2: Option<Arc<Http2>>,
    idle_http1: Vec<(Sender, Instant)>,
    speaks_http1: bool,
    /// Where it was found last.
    addresses: Vec<SocketAddr>,
    /// What led there, and when that was asked.
    networks: Option<(Networks, Instant)>,
    probe: Option<AbortOnDropHandle<()>>,
    /// Makes one more HTTP/3 connection.
    widening: Option<AbortOnDropHandle<()>>,
    attempts: u64,
    failure: Option<(u64, ClientError)>,
}

/// One server as a client knows it.
pub(super) struct Authority {
    key: Key,
    name: String,
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
    http1_permits: Arc<Semaphore>,
}

impl Authority {
    pub(super) fn new(key: Key, dialer: Arc<Dialer>) -> Arc<Self> {
        let name = if key.host.contains(':') {
            format!("[{}]:{}", key.host, key.port)
        } else {
            format!("{}:{}", key.host, key.port)
        };
        let state = State { speaks_http1: !key.secure, ..State::default() };
        let permits = dialer.config.connections_per_authority_max.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            key,
            name,
            dialer,
            state: Mutex::new(state),
            connecting: tokio::sync::Mutex::new(()),
            http1_permits: Arc::new(Semaphore::new(permits)),
        })
    }

    /// `host:port`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP/3 connections that could carry a request now.
    pub(super) fn live_http3_connections(&self) -> usize {
        self.lock().http3.iter().filter(|over| over.connection.is_usable()).count()
    }

    /// Forgets idle HTTP/1.1 connections: one was broken, its siblings are likely too.
    pub(super) fn drop_idle(&self) {
        self.lock().idle_http1.clear();
    }

    /// Takes back an HTTP/1.1 connection whose response was read to its end.
    pub(super) fn give_back(&self, sender: Sender) {
        if !sender.is_closed() {
            self.lock().idle_http1.push((sender, Instant::now()));
        }
    }

    /// A connection for one request: a pooled one, or a new one. However many wait, one attempt is made at a time, and all
    /// who waited for it share its failure.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Connection, ClientError> {
        let seen = self.lock().attempts;
        loop {
            if let Some(connection) = self.multiplexed() {
                return Ok(connection);
            }
            if self.lock().speaks_http1 {
                return self.acquire_http1(seen).await;
            }
            let turn = self.connecting.lock().await;
            if self.lock().speaks_http1 {
                continue;
            }
            if let Some(connection) = self.multiplexed() {
                return Ok(connection);
            }
            self.shared_failure(seen)?;
            let dialed = self.attempt().await?;
            let connection = self.store(dialed);
            drop(turn);
            if let Some(connection) = connection {
                return Ok(connection);
            }
        }
    }

    /// A pooled HTTP/3 or else HTTP/2 connection; looks after the UDP path on the way. What was made over another network
    /// than this host is in now ends what it has in hand, and gets nothing more.
    fn multiplexed(self: &Arc<Self>) -> Option<Connection> {
        let mut state = self.lock();
        let networks = self.networks(&mut state);
        state.http3.retain(|path| path.connection.is_usable() && (networks.is_empty() || path.networks == networks));
        let least_busy = state.http3.iter().min_by_key(|path| path.connection.busy());
        if let Some(connection) = least_busy.map(|path| path.connection.clone()) {
            self.widen(&mut state, &connection);
            return Some(Connection::Http3(connection));
        }
        state.http2.take_if(|connection| !connection.is_usable());
        let connection = state.http2.clone()?;
        self.reprobe(&mut state);
        Some(Connection::Http2(connection))
    }

    async fn acquire_http1(self: &Arc<Self>, seen: u64) -> Result<Connection, ClientError> {
        let permit = self.http1_permits.clone().acquire_owned().await;
        let permit =
            permit.map_err(|_| ClientError::new(ClientErrorKind::Closed, &self.name, "its pool was closed"))?;
        if let Some(sender) = self.idle_http1() {
            return Ok(self.http1(sender, permit, true));
        }
        self.shared_failure(seen)?;
        let dialed = self.recorded(async { self.dialer.tcp(&self.key, &self.name, &self.find().await?).await }).await?;
        if let Dialed::Http1(sender) = dialed {
            let mut state = self.lock();
            self.reprobe(&mut state);
            drop(state);
            return Ok(self.http1(sender, permit, false));
        }
        // The server has learnt HTTP/2 since.
        self.lock().speaks_http1 = false;
        self.store(dialed).ok_or_else(|| ClientError::new(ClientErrorKind::Closed, &self.name, "connection was lost"))
    }

    fn http1(self: &Arc<Self>, sender: Sender, permit: OwnedSemaphorePermit, reused: bool) -> Connection {
        Connection::Http1(Http1 { sender, reused, authority: self.clone(), _permit: permit })
    }

    fn idle_http1(&self) -> Option<Sender> {
        let mut state = self.lock();
        let keep = self.dialer.config.pool_idle_timeout;
        while let Some((sender, since)) = state.idle_http1.pop() {
            if !sender.is_closed() && since.elapsed() < keep {
                return Some(sender);
            }
        }
        None
    }

    /// Pools a new connection; an HTTP/1.1 one goes through the idle list.
    fn store(&self, dialed: Dialed) -> Option<Connection> {
        let mut state = self.lock();
        match dialed {
            Dialed::Http3(connection) => {
                let networks = self.networks(&mut state);
                state.http3.push(OverUdp { connection: connection.clone(), networks });
                Some(Connection::Http3(connection))
            }
            Dialed::Http2(connection) => {
                state.http2 = Some(connection.clone());
                Some(Connection::Http2(connection))
            }
            Dialed::Http1(sender) => {
                state.speaks_http1 = true;
                state.idle_http1.push((sender, Instant::now()));
                None
            }
        }
    }

    /// The failure of an attempt that began after this caller came.
    fn shared_failure(&self, seen: u64) -> Result<(), ClientError> {
        match &self.lock().failure {
            Some((attempt, error)) if *attempt > seen => Err(error.clone()),
            _ => Ok(()),
        }
    }

    async fn recorded(
        &self,
        attempt: impl Future<Output = Result<Dialed, ClientError>>,
    ) -> Result<Dialed, ClientError> {
        let result = attempt.await;
        let mut state = self.lock();
        state.attempts += 1;
        state.failure = result.as_ref().err().map(|error| (state.attempts, error.clone()));
        result
    }

    /// Where it is now.
    async fn find(&self) -> Result<Target, ClientError> {
        let target = self.dialer.find(&self.key, &self.name).await?;
        let mut state = self.lock();
        state.addresses.clone_from(&target.addresses);
        state.networks = None;
        Ok(target)
    }

    /// Which networks lead to it; a moment old at most.
    fn networks(&self, state: &mut State) -> Networks {
        match &state.networks {
            Some((networks, at)) if at.elapsed() < NETWORKS_LOOKED_AT_EVERY => networks.clone(),
            _ => {
                let networks = self.dialer.udp_paths.networks(&state.addresses);
                state.networks = Some((networks.clone(), Instant::now()));
                networks
            }
        }
    }

    async fn attempt(self: &Arc<Self>) -> Result<Dialed, ClientError> {
        self.recorded(async {
            let target = self.find().await?;
            if !self.dialer.config.http3 {
                return self.dialer.tcp(&self.key, &self.name, &target).await;
            }
            let networks = self.networks(&mut self.lock());
            match self.dialer.udp_paths.prospect(&networks, &self.key) {
                Prospect::Good => self.race(target, networks, self.dialer.config.http3_head_start).await,
                Prospect::Doubtful => self.race(target, networks, Duration::ZERO).await,
                Prospect::Dead => self.dialer.tcp(&self.key, &self.name, &target).await,
            }
        })
        .await
    }

    fn quic(&self, target: Target) -> QuicAttempt {
        Box::pin(self.dialer.clone().quic_owned(self.key.clone(), self.name.clone(), target))
    }

    /// HTTP/3, joined by TCP after the head start; the first usable connection wins. A QUIC attempt that loses goes on in
    /// the background and decides what is remembered about the UDP path.
    async fn race(
        self: &Arc<Self>,
        target: Target,
        networks: Networks,
        head_start: Duration,
    ) -> Result<Dialed, ClientError> {
        let mut quic = self.quic(target.clone());
        let tcp = self.dialer.tcp(&self.key, &self.name, &target);
        let quic_error = match timeout(head_start, quic.as_mut()).await {
            Ok(Ok(connection)) => return Ok(self.over_udp(connection, &networks)),
            Ok(Err(error)) => error,
            Err(_) => {
                let mut tcp = std::pin::pin!(tcp);
                tokio::select! {
                    biased;
                    result = quic.as_mut() => match result {
                        Ok(connection) => return Ok(self.over_udp(connection, &networks)),
                        Err(error) => return self.after_quic_failed(&error, &networks, tcp.await),
                    },
                    result = tcp.as_mut() => match result {
                        Ok(dialed) => {
                            if !head_start.is_zero() {
                                count(&self.dialer.counters.head_starts_lost);
                            }
                            self.dialer.udp_paths.doubt(&networks);
                            self.watch_probe(&mut self.lock(), networks, quic);
                            return Ok(dialed);
                        }
                        Err(tcp_error) => {
                            // Most likely nobody is there; QUIC gets a last moment.
                            return match timeout(QUIC_LAST_MOMENT, quic).await {
                                Ok(Ok(connection)) => Ok(self.over_udp(connection, &networks)),
                                Ok(Err(error)) => Err(both(&self.name, &error, &tcp_error)),
                                Err(_) => Err(tcp_error),
                            };
                        }
                    },
                }
            }
        };
        self.after_quic_failed(&quic_error, &networks, tcp.await)
    }

    fn over_udp(&self, connection: Arc<Http3>, networks: &Networks) -> Dialed {
        self.dialer.udp_paths.works(networks, &self.key);
        Dialed::Http3(connection)
    }

    /// Only if TCP gets through is UDP at fault and not the whole way.
    fn after_quic_failed(
        &self,
        error: &ClientError,
        networks: &Networks,
        tcp: Result<Dialed, ClientError>,
    ) -> Result<Dialed, ClientError> {
        let dialed = tcp.map_err(|tcp_error| both(&self.name, error, &tcp_error))?;
        self.udp_died(networks, error);
        Ok(dialed)
    }

    fn udp_died(&self, networks: &Networks, error: &ClientError) {
        tracing::info!(authority = self.name, %error, "HTTP/3 does not get through; using TCP");
        count(&self.dialer.counters.dead_udp_paths);
        let paths = &self.dialer.udp_paths;
        match error.kind {
            // Said over UDP.
            ClientErrorKind::Tls | ClientErrorKind::Protocol => paths.refused(networks, &self.key),
            _ => paths.died(networks, &self.key),
        }
    }

    /// Tries HTTP/3 again, beside a TCP connection that works, once the memory of a dead UDP path has faded or this host is
    /// in another network.
    fn reprobe(self: &Arc<Self>, state: &mut State) {
        let running = state.probe.as_ref().is_some_and(|probe| !probe.is_finished());
        if !self.key.secure || !self.dialer.config.http3 || running {
            return;
        }
        let networks = self.networks(state);
        if self.dialer.udp_paths.prospect(&networks, &self.key) != Prospect::Dead {
            let (dialer, key, name) = (self.dialer.clone(), self.key.clone(), self.name.clone());
            let quic = async move {
                let target = dialer.find(&key, &name).await?;
                dialer.quic_owned(key, name, target).await
            };
            self.watch_probe(state, networks, Box::pin(quic));
        }
    }

    /// Makes one more HTTP/3 connection, beside those that work, while even the least busy has much to do.
    fn widen(self: &Arc<Self>, state: &mut State, least_busy: &Http3) {
        let wanted = self.dialer.config.udp_sockets.clamp(1, UDP_SOCKETS_MAX);
        let running = state.widening.as_ref().is_some_and(|widening| !widening.is_finished());
        if running || state.http3.len() >= wanted || least_busy.busy() < HTTP3_BUSY_STREAMS {
            return;
        }
        let authority = Arc::downgrade(self);
        let networks = self.networks(state);
        let (dialer, key, name) = (self.dialer.clone(), self.key.clone(), self.name.clone());
        state.widening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let result = match dialer.find(&key, &name).await {
                Ok(target) => dialer.quic_owned(key, name, target).await,
                Err(error) => Err(error),
            };
            match (result, authority.upgrade()) {
                (Ok(connection), Some(authority)) => authority.lock().http3.push(OverUdp { connection, networks }),
                (Err(error), _) => tracing::debug!(%error, "one more HTTP/3 connection could not be made"),
                (Ok(_), None) => {}
            }
        })));
    }

    fn watch_probe(self: &Arc<Self>, state: &mut State, networks: Networks, quic: QuicAttempt) {
        let authority = Arc::downgrade(self);
        state.probe = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let result = quic.await;
            let Some(authority) = authority.upgrade() else { return };
            match result {
                Ok(connection) => {
                    authority.dialer.udp_paths.works(&networks, &authority.key);
                    authority.lock().http3.push(OverUdp { connection, networks });
                }
                Err(error) => authority.udp_died(&networks, &error),
            }
        })));
    }
}

/// Both ways failed: the clearer kind leads, both reasons are told.
fn both(name: &str, quic: &ClientError, tcp: &ClientError) -> ClientError {
    let kind = if quic.kind == ClientErrorKind::Tls { quic.kind } else { tcp.kind };
    let reason = format!(
        "{} (and over HTTP/3: {})",
        crate::error::one_line(&*tcp.source),
        crate::error::one_line(&*quic.source)
    );
    ClientError::new(kind, name, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fold_case_and_default_ports() {
        let key = |text: &str| {
            Key::of(&text.parse().unwrap()).map(|key| (key.secure, key.host, key.port)).map_err(|e| e.kind)
        };
        assert_eq!(key("https://Edge.Example/x"), Ok((true, "edge.example".to_owned(), 443)));
        assert_eq!(key("http://[::1]/"), Ok((false, "::1".to_owned(), 80)));
        assert_eq!(key("https://[::1]:8443/"), Ok((true, "::1".to_owned(), 8443)));
        for refused in ["/path", "ftp://host/", "https://user@host/"] {
            assert_eq!(key(refused), Err(ClientErrorKind::Request), "{refused}");
        }
    }
}
