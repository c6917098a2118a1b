//! [`Network`]: what a client's connections leave this process by: sockets of its own, sockets that many clients share, or a link.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "links")]
use super::link::{Ends, Link, LinkSocket};
use crate::limits::{SHARED_SOCKETS_MAX, UDP_SOCKETS_MAX};
use crate::quic::socket;

/// Ways out of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Network {
    /// UDP sockets of its own, as many as [`super::ClientConfig::udp_sockets`] says.
    #[default]
    Own,
    /// UDP sockets that several clients share.
    Shared(SharedSockets),
    /// A socket of its own behind a link that is made in this process; everything random comes from the seed.
    #[cfg(feature = "links")]
    Link(Link, u64),
}

/// UDP sockets for many clients, each with its QUIC endpoint, used in turn: connections spread over the cores of servers that
/// tell clients apart by their ports, and ten thousand of them do not need ten thousand sockets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SharedSockets {
    count: usize,
    endpoints: Arc<Mutex<[Endpoints; 2]>>,
}

impl SharedSockets {
    /// So many sockets for each address family, made when they are first needed; from 1 to a limit.
    pub fn new(count: usize) -> Self {
        Self { count: count.clamp(1, SHARED_SOCKETS_MAX), endpoints: Arc::default() }
    }

    fn next(&self, any: SocketAddr, make: impl FnOnce() -> io::Result<quinn::Endpoint>) -> io::Result<quinn::Endpoint> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let family = &mut endpoints[usize::from(any.is_ipv6())];
        let turn = family.next;
        family.next = (turn + 1) % self.count;
        if let Some(endpoint) = family.made.get(turn) {
            return Ok(endpoint.clone());
        }
        let endpoint = make()?;
        family.made.push(endpoint.clone());
        Ok(endpoint)
    }
}

impl PartialEq for SharedSockets {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoints, &other.endpoints)
    }
}

impl Eq for SharedSockets {}

/// The endpoints of one address family.
#[derive(Debug, Default)]
struct Endpoints {
    made: Vec<quinn::Endpoint>,
    next: usize,
}

/// One client's way out.
pub(super) struct Outlet {
    sockets: SharedSockets,
    #[cfg(feature = "links")]
    pub(super) link: Option<Arc<Ends>>,
}

impl Outlet {
    pub(super) fn new(network: &Network, udp_sockets: usize) -> Self {
        let own = || SharedSockets::new(udp_sockets.clamp(1, UDP_SOCKETS_MAX));
        match network {
            Network::Own => Self::of(own()),
            Network::Shared(sockets) => Self::of(sockets.clone()),
            #[cfg(feature = "links")]
            Network::Link(link, seed) => Self { sockets: SharedSockets::new(1), link: Some(Ends::new(*link, *seed)) },
        }
    }

    fn of(sockets: SharedSockets) -> Self {
        Self {
            sockets,
            #[cfg(feature = "links")]
            link: None,
        }
    }

    /// A QUIC endpoint for a connection to `address`. Must be called inside a tokio runtime.
    pub(super) fn endpoint(&self, address: SocketAddr) -> io::Result<quinn::Endpoint> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let any = SocketAddr::new(any, 0);
        self.sockets.next(any, || {
            #[cfg(feature = "links")]
            if let Some(ends) = &self.link {
                return socket::endpoint_over(LinkSocket::bind(any, ends.clone())?);
            }
            socket::endpoint(socket::bind(any)?)
        })
    }
}
