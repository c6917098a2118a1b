//! HTTP/3, 2 and 1.1 behind one handler type: listeners, connection pool, TLS, bodies, back-off.
//!
//! [`Server`] answers all protocols on one port number (feature `server`); [`Client`] picks the best protocol that works
//! (feature `client`). What is deliberately absent: routes, caching, retries against other peers, any knowledge of blobs.

// With one end only, what the other end alone uses is still compiled.
#![cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]

pub mod backoff;
pub mod body;
#[cfg(feature = "client")]
pub mod client;
pub mod coding;
mod content_length;
pub mod error;
pub mod handler;
mod http3_body;
mod hyper_body;
pub mod limits;
pub mod priority;
mod quic;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod stall;
mod tls;

pub use backoff::Backoff;
pub use body::{Body, BodySender};
#[cfg(feature = "links")]
pub use client::link::{Direction, Link};
#[cfg(feature = "client")]
pub use client::network::{Network, SharedSockets};
#[cfg(feature = "client")]
pub use client::unix::UnixClient;
#[cfg(feature = "client")]
pub use client::{Client, ClientConfig, RequestCounts, Routes, SystemRoutes};
pub use error::{BodyError, ClientError, ClientErrorKind, CodingError, ReaderGone, TransportError};
pub use handler::{
    ClientCertificate, EarlyData, EarlyRule, Handler, Hangup, Peer, Protocol, Request, Response, Secure, authority,
    handler,
};
pub use priority::{Class, Priority};
#[cfg(feature = "server")]
pub use quic::keys::QuicKeys;
#[cfg(feature = "server")]
pub use server::admission::ShareLimits;
#[cfg(feature = "server")]
pub use server::counters::{Segments, ServerCounters};
#[cfg(feature = "server")]
pub use server::identity::TlsHandle;
#[cfg(feature = "server")]
pub use server::unix::{UnixConnection, UnixPeer, UnixServer, UnixServerConfig};
#[cfg(feature = "server")]
pub use server::{BoundsHandle, Server, ServerConfig, ServerLimits};
#[cfg(feature = "server")]
pub use tls::identity::ServerTls;
#[cfg(feature = "client")]
pub use tls::trust::{ClientIdentity, Trust};
