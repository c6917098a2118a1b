//! [`Dialer`]: makes connections over TCP and QUIC; it keeps none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::authority::Key;
use super::http1::{self, Sender};
use super::http2::Http2;
use super::http3::Http3;
use super::network::Outlet;
use super::udp_paths::{Routes, UdpPaths};
use super::{ClientConfig, Counters, count};
use crate::error::{ClientError, ClientErrorKind, TransportError};
use crate::limits::ADDRESSES_MAX;
use crate::quic::socket;
use crate::tls::{ALPN_H1, ALPN_H2, ALPN_H3};

/// Pause before the next address of a name joins (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// A QUIC path is found dead after this long without a word from the peer.
const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a silent QUIC path is kept alive.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A new connection.
pub(super) enum Dialed {
    Http3(Arc<Http3>),
    Http2(Arc<Http2>),
    Http1(Sender),
}

/// Where an authority is, and until when there must be a connection to it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) addresses: Vec<SocketAddr>,
    until: Instant,
}

/// Everything needed to make connections.
pub(super) struct Dialer {
    pub(super) config: ClientConfig,
    pub(super) counters: Counters,
    pub(super) udp_paths: UdpPaths,
    tls: TlsConnector,
    quic: quinn::ClientConfig,
    outlet: Outlet,
}

impl Dialer {
    pub(super) fn new(config: ClientConfig, routes: Arc<dyn Routes>) -> Result<Self, TransportError> {
        let counters = Counters::default();
        let tls_config = |versions, alpn: &[&[u8]]| {
            config.trust.client_config(config.identity.as_ref(), versions, alpn, counters.full_handshakes.clone())
        };
        let tls = tls_config(rustls::DEFAULT_VERSIONS, &[ALPN_H2, ALPN_H1])?;
        let quic_tls = tls_config(&[&rustls::version::TLS13], &[ALPN_H3])?;
        let quic_tls = quinn::crypto::rustls::QuicClientConfig::try_from(quic_tls)
            .map_err(|error| TransportError::Tls(error.to_string()))?;
        let mut quic = quinn::ClientConfig::new(Arc::new(quic_tls));
        quic.transport_config(Arc::new(socket::client_transport(QUIC_IDLE_TIMEOUT, QUIC_KEEP_ALIVE)));
        let udp_paths = UdpPaths::new(routes, config.dead_udp_memory);
        let outlet = Outlet::new(&config.network, config.udp_sockets);
        Ok(Self { config, counters, udp_paths, tls: TlsConnector::from(Arc::new(tls)), quic, outlet })
    }

    /// Where it is. What is made with that must be made in the time that is left.
    pub(super) async fn find(&self, key: &Key, name: &str) -> Result<Target, ClientError> {
        let until = Instant::now() + self.config.connect_timeout;
        let addresses = self.in_time(name, until, addresses(key, name)).await?;
        Ok(Target { addresses, until })
    }

    /// An HTTP/2 or HTTP/1.1 connection, whichever the server prefers; plain connections speak HTTP/1.1.
    pub(super) async fn tcp(&self, key: &Key, name: &str, target: &Target) -> Result<Dialed, ClientError> {
        let dialing = async {
            let stream = first_of(target.addresses.clone(), |address| async move {
                TcpStream::connect(address)
                    .await
                    .map_err(|error| ClientError::new(ClientErrorKind::Unreachable, name, error))
            })
            .await?;
            _ = stream.set_nodelay(true);
            #[cfg(feature = "links")]
            if let Some(ends) = &self.outlet.link {
                // The system's own handshake went around the link: it takes one time there and back.
                sleep(2 * Duration::from_micros(ends.link().delay_us.into())).await;
                return self.over(super::link::over(stream, ends.clone()), key, name).await;
            }
            self.over(stream, key, name).await
        };
        // Boxed: a handshake's buffers would otherwise be part of every request's future.
        self.in_time(name, target.until, Box::pin(dialing)).await
    }

    async fn over<S>(&self, stream: S, key: &Key, name: &str) -> Result<Dialed, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if !key.secure {
            return http1::connect(stream, name, &self.counters).await.map(Dialed::Http1);
        }
        let server_name = ServerName::try_from(key.host.clone())
            .map_err(|error| ClientError::new(ClientErrorKind::Request, name, error))?;
        let stream = self.tls.connect(server_name, stream).await.map_err(|error| tls_error(name, error))?;
        count(&self.counters.tls_connections);
        if stream.get_ref().1.alpn_protocol() == Some(ALPN_H2) {
            Http2::connect(stream, name, self).await.map(Dialed::Http2)
        } else {
            http1::connect(stream, name, &self.counters).await.map(Dialed::Http1)
        }
    }

    /// An HTTP/3 connection. Owns what it needs, so that it can outlive a lost race.
    pub(super) async fn quic_owned(
        self: Arc<Self>,
        key: Key,
        name: String,
        Target { addresses, until }: Target,
    ) -> Result<Arc<Http3>, ClientError> {
        let dialing = async {
            let quic = first_of(addresses, |address| self.quic_connect(address, &key, &name)).await?;
            let connection = Http3::connect(quic, &name, self.config.pool_idle_timeout).await?;
            count(&self.counters.h3_connections);
            count(&self.counters.tls_connections);
            Ok(connection)
        };
        self.in_time(&name, until, dialing).await
    }

    async fn quic_connect(&self, address: SocketAddr, key: &Key, name: &str) -> Result<quinn::Connection, ClientError> {
        let endpoint = self
            .outlet
            .endpoint(address)
            .map_err(|error| ClientError::new(ClientErrorKind::Unreachable, name, error))?;
        let connecting = endpoint
            .connect_with(self.quic.clone(), address, &key.host)
            .map_err(|error| ClientError::new(ClientErrorKind::Unreachable, name, error))?;
        connecting.await.map_err(|error| ClientError::new(quic_error_kind(&error), name, error))
    }

    async fn in_time<T>(
        &self,
        name: &str,
        until: Instant,
        dialing: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let limit = self.config.connect_timeout;
        timeout_at(until, dialing).await.unwrap_or_else(|_| {
            let reason = format!("no connection within {} ms", limit.as_millis());
            Err(ClientError::new(ClientErrorKind::Timeout, name, reason))
        })
    }
}

/// The addresses of an authority, in the resolver's order.
async fn addresses(key: &Key, name: &str) -> Result<Vec<SocketAddr>, ClientError> {
    let found = tokio::net::lookup_host((key.host.as_str(), key.port)).await;
    let found = found.map_err(|error| ClientError::new(ClientErrorKind::Unreachable, name, error))?;
    let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
    if found.is_empty() {
        return Err(ClientError::new(ClientErrorKind::Unreachable, name, "the name has no address"));
    }
    Ok(found)
}

/// Tries the addresses, each a moment after the one before; the first success wins, else the last failure is told.
async fn first_of<T, F>(addresses: Vec<SocketAddr>, attempt: impl Fn(SocketAddr) -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut left = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        match left.next() {
            Some(address) => running.push(attempt(address)),
            None if running.is_empty() => break,
            None => {}
        }
        let more = !left.as_slice().is_empty();
        tokio::select! {
            Some(result) = running.next() => match result {
                Ok(connected) => return Ok(connected),
                Err(error) => last_error = Some(error),
            },
            () = sleep(NEXT_ADDRESS_AFTER), if more => {}
        }
    }
    Err(last_error.unwrap_or_else(|| ClientError::new(ClientErrorKind::Unreachable, "", "no address to try")))
}

fn tls_error(name: &str, error: io::Error) -> ClientError {
    let by_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    ClientError::new(if by_tls { ClientErrorKind::Tls } else { ClientErrorKind::Unreachable }, name, error)
}

/// QUIC reports TLS alerts as transport errors 0x100 to 0x1ff (RFC 9001 §4.8).
fn quic_error_kind(error: &quinn::ConnectionError) -> ClientErrorKind {
    let is_alert = |code: u64| (0x100..0x200).contains(&code);
    match error {
        quinn::ConnectionError::TransportError(error) if is_alert(error.code.into()) => ClientErrorKind::Tls,
        quinn::ConnectionError::ConnectionClosed(close) if is_alert(close.error_code.into()) => ClientErrorKind::Tls,
        quinn::ConnectionError::TimedOut => ClientErrorKind::Timeout,
        _ => ClientErrorKind::Unreachable,
    }
}
