//! How building an edge fails. Errors of requests are [`colibri_fetch::FetchError`]; `serve` maps them to statuses.

use colibri_api::RepositoryName;
use colibri_fetch::FetchError;
use colibri_service::ServiceError;
use colibri_service::metrics::MetricsError;
use colibri_store::StoreError;
use colibri_transport::TransportError;

/// Why an edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// An edge without upstream has nothing to serve.
    #[error("an edge needs at least one upstream: set `upstreams` to the origin's URL")]
    NoUpstream,
    /// An upstream URL cannot be used.
    #[error("upstream: {0}")]
    Upstream(FetchError),
    /// What `origins` names is not an upstream.
    #[error("origins: `{0}` is not one of `upstreams`")]
    Origin(String),
    /// The other edges of the region are not usable as configured.
    #[error("peers: {0}")]
    Peers(String),
    /// `upstream_tls` is not understood.
    #[error("upstream_tls: {0}")]
    Trust(String),
    /// A repository cannot be followed.
    #[error("repository {repository}: {reason}")]
    Repository {
        /// Which.
        repository: RepositoryName,
        /// Why not.
        reason: String,
    },
    /// A window of time is none.
    #[error("warm.windows: {0}")]
    Window(String),
    /// The folder for state cannot be opened.
    #[error("state_dir: {0}")]
    State(StoreError),
    /// The disk tier cannot be opened.
    #[error("disk tier: {0}")]
    Disk(#[from] StoreError),
    /// Sockets or certificates.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A key for tokens is none.
    #[error("tokens.keys.{name}: {reason}; give the public key as 64 hexadecimal digits (ed25519)")]
    TokenKey {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// There are too many of them.
    #[error("tokens.keys: {0} keys are more than an edge takes ({max})", max = crate::limits::TOKEN_KEYS_MAX)]
    TokenKeys(usize),
    /// The access log.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}
