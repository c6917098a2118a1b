//! [`Handler`]: the one type behind which every protocol version answers, and what a server tells it about a request.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::body::Body;

/// A request as handlers and callers see it, whatever the protocol.
pub type Request = http::Request<Body>;
/// A response as handlers and callers see it, whatever the protocol.
pub type Response = http::Response<Body>;
/// Answers requests. Its future is dropped when the client goes away, so it must not rely on running to its end.
pub type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// Makes a [`Handler`] of an async closure.
pub fn handler<F, R>(answer: F) -> Handler
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    Arc::new(move |request| Box::pin(answer(request)))
}

/// The protocol a request or response came over; in the extensions of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/3 over QUIC.
    Http3,
    /// HTTP/2.
    Http2,
    /// HTTP/1.1 or 1.0.
    Http1,
}

impl Protocol {
    /// Short name for logs and metric labels: `h3`, `h2`, `h1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http3 => "h3",
            Self::Http2 => "h2",
            Self::Http1 => "h1",
        }
    }
}

/// The remote address of a request; in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Whether the request came encrypted; in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secure(pub bool);

/// The request came before its client's handshake was over, and may be a repetition of what somebody overheard (RFC 8470); in
/// the extensions of such requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyData;

/// Which paths may be answered in early data. Only GET and HEAD ever are; all else waits for the handshake.
#[derive(Clone)]
pub struct EarlyRule(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl EarlyRule {
    /// Those that `rule` says yes to: it must hold for paths whose answer does no harm if it is given twice.
    pub fn new(rule: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    /// Whether this request may be answered at once.
    #[cfg(feature = "server")]
    pub(crate) fn allows(&self, request: &http::Request<()>) -> bool {
        let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        reads && (self.0)(request.uri().path())
    }
}

impl std::fmt::Debug for EarlyRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EarlyRule")
    }
}

/// SHA-256 of the SubjectPublicKeyInfo of the certificate that the client showed and that an authority named to
/// [`crate::ServerTls::with_client_authorities`] vouches for; in a request's extensions if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientCertificate(pub [u8; 32]);

/// In the extensions of a response: it is not sent. The stream is reset (HTTP/3 and 2) or the connection closed (HTTP/1.1), for
/// who may not answer in the name of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hangup;

/// The authority (`host[:port]`) a request was made to: `:authority` of HTTP/2 and 3, else the `Host` header.
pub fn authority<B>(request: &http::Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(http::header::HOST)?.to_str().ok(),
    }
}
