//! What can go wrong when a process starts, apart from its configuration ([`crate::ConfigErrors`]).

use colibri_transport::TransportError;

/// A process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The admin port cannot be opened.
    #[error("admin port: {0}")]
    Admin(#[from] TransportError),
    /// A port without TLS would be a way around client certificates.
    #[error(
        "listen_plain {address} would serve clients without a certificate, which listener.client_ca_file forbids: leave one of them out"
    )]
    PlainBesideClientAuthority {
        /// The address without TLS.
        address: std::net::SocketAddr,
    },
    /// What the ports of clients need cannot be used.
    #[error("listener: {0}")]
    Listener(TransportError),
    /// Tickets are to be shared, and there is nothing to share them with.
    #[error("listener.shared_tickets needs listener.quic_keys_file: tickets are made under that secret")]
    TicketsWithoutKeys,
    /// The admin thread cannot be started.
    #[error("admin thread cannot be started: {0}")]
    AdminThread(std::io::Error),
    /// The log filter is not valid.
    #[error("log filter {filter:?} is not valid: {reason}; use for example info or colibri_edge=debug,warn")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The access log cannot be opened.
    #[error("access log {path}: {source}; access_log.to is off, stdout or the path of a file that can be written")]
    AccessLog {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A metric.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// Logging was set up before.
    #[error("logging was already set up in this process")]
    TelemetryTwice,
}
