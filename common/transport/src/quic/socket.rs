//! UDP sockets and QUIC transport settings, with the measured traps avoided (project document "performance facts").

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "server")]
use quinn::Runtime as _;
use quinn::{EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;
#[cfg(feature = "server")]
use crate::quic::filter;
#[cfg(feature = "server")]
use crate::quic::keys::QuicKeys;
#[cfg(feature = "server")]
use crate::quic::steer::{Steered, Steering};
#[cfg(feature = "server")]
use crate::server::counters::ServerCounters;

/// A UDP socket bound to `address` with large buffers, as far as the system gives them.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    bind_beside(address, false)
}

/// The same; if `shared`, beside other sockets of this user on the same port.
fn bind_beside(address: SocketAddr, shared: bool) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    for result in
        [socket.set_recv_buffer_size(limits::UDP_BUFFER_BYTES), socket.set_send_buffer_size(limits::UDP_BUFFER_BYTES)]
    {
        if let Err(error) = result {
            tracing::debug!(%error, "UDP buffer size refused");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let got_bytes = socket.recv_buffer_size().unwrap_or(0);
    tracing::debug!(%address, asked_bytes = limits::UDP_BUFFER_BYTES, got_bytes, "UDP receive buffer");
    Ok(socket.into())
}

/// A QUIC endpoint on `socket` that only asks. Must be called inside a tokio runtime.
pub(crate) fn endpoint(socket: std::net::UdpSocket) -> std::io::Result<quinn::Endpoint> {
    quinn::Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

/// The same on any socket.
#[cfg(feature = "links")]
pub(crate) fn endpoint_over(socket: Arc<dyn quinn::AsyncUdpSocket>) -> std::io::Result<quinn::Endpoint> {
    quinn::Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

/// How many sockets there are on a port, and who brings datagrams to the right one.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets {
    pub count: usize,
    pub steered_by_system: bool,
}

/// QUIC endpoints that answer at `address`, one for each socket. Must be called inside a tokio runtime.
#[cfg(feature = "server")]
pub(crate) fn server_endpoints(
    address: SocketAddr,
    sockets: Sockets,
    server: &quinn::ServerConfig,
    keys: Option<&QuicKeys>,
    counters: &Arc<ServerCounters>,
) -> std::io::Result<Vec<quinn::Endpoint>> {
    let Sockets { count, steered_by_system } = sockets;
    let sockets = count.clamp(1, limits::SOCKETS_MAX) as u8;
    // Several sockets tell connections apart by the index in their ids.
    let keys = if sockets > 1 { keys.cloned().or_else(QuicKeys::fresh) } else { keys.cloned() };
    let steering = Steering::new(sockets.into(), counters.clone());
    let endpoint = |index: u8| {
        let mut config = EndpointConfig::default();
        if let Some(keys) = keys.clone() {
            config.reset_key(keys.reset_key()).cid_generator(move || Box::new(keys.ids(index)));
        }
        let socket = bind_beside(address, sockets > 1)?;
        // The program counts sockets in the order in which they were bound, and there is one for all of them.
        if sockets > 1
            && steered_by_system
            && index + 1 == sockets
            && let Err(error) = filter::attach(&socket, sockets)
        {
            tracing::info!(%error, "the system does not steer datagrams by connection id: done in user space");
        }
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        counters.watch(&socket);
        let socket = match sockets {
            1 => socket,
            _ => Steered::new(socket, index.into(), steering.clone()),
        };
        quinn::Endpoint::new_with_abstract_socket(config, Some(server.clone()), socket, Arc::new(TokioRuntime))
    };
    (0..sockets).map(endpoint).collect()
}

fn base(idle_timeout: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle_ms = u32::try_from(idle_timeout.as_millis()).unwrap_or(u32::MAX);
    config
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::UNI_STREAMS_MAX))
        .send_window(limits::SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None);
    config
}

/// Settings of the answering side.
pub(crate) fn server_transport(idle_timeout: Duration, streams_max: u32) -> TransportConfig {
    let mut config = base(idle_timeout);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
        .stream_receive_window(VarInt::from_u32(limits::SERVER_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::SERVER_CONNECTION_WINDOW_BYTES));
    config
}

/// Settings of the asking side: it accepts no streams of requests and keeps the path alive.
pub(crate) fn client_transport(idle_timeout: Duration, keep_alive: Duration) -> TransportConfig {
    let mut config = base(idle_timeout);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(limits::CLIENT_STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(limits::CLIENT_CONNECTION_WINDOW_BYTES))
        .keep_alive_interval(Some(keep_alive));
    config
}
