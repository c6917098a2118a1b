//! What can go wrong: [`TransportError`] when something is set up, [`ClientError`] when a request fails, [`BodyError`]
//! while a body is read.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A cause that may be shared by many waiters.
pub(crate) type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Wraps any error, or any text, as a shared cause.
pub(crate) fn cause(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Cause {
    Arc::from(error.into())
}

/// The error and all its sources on one line.
pub(crate) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    text
}

/// A server or client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Another socket has the port.
    #[error(
        "{transport} address {address} is already in use: stop the other program or choose another port (port 0 picks a free one)"
    )]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        transport: &'static str,
    },
    /// The system refuses the address for another reason.
    #[error("cannot listen on {transport} address {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another server answers at a socket.
    #[error("{}: a server answers there already: stop it or choose another place", path.display())]
    SocketInUse {
        /// The socket.
        path: PathBuf,
    },
    /// A socket in the file system cannot be made.
    #[error("socket {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of certificates or keys cannot be read or written.
    #[error("cannot use file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key is not what it should be.
    #[error("certificate or key of {what} is not usable: {reason}")]
    Certificate {
        /// Which one.
        what: String,
        /// Why.
        reason: String,
    },
    /// A TLS or QUIC configuration was refused by its library.
    #[error("TLS cannot be configured: {0}")]
    Tls(String),
    /// A trust setting is not one of the known forms.
    #[error(
        "trust setting {text:?} is not valid ({reason}): use none, system, ca-file:PATH or pin:HEX[,HEX], HEX being 64 hexadecimal digits"
    )]
    Trust {
        /// The setting.
        text: String,
        /// Why.
        reason: &'static str,
    },
}

/// Why a body ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The sender gave up.
    #[error("body was aborted by its sender: {reason}")]
    Aborted {
        /// What the sender said.
        reason: String,
    },
    /// Fewer bytes than announced.
    #[error("body ended after {got_bytes} of {expected_bytes} bytes")]
    Truncated {
        /// Announced length.
        expected_bytes: u64,
        /// Bytes received.
        got_bytes: u64,
    },
    /// More bytes than announced.
    #[error("body is longer than the announced {expected_bytes} bytes")]
    TooLong {
        /// Announced length.
        expected_bytes: u64,
    },
    /// More bytes than the reader allows.
    #[error("body is longer than the allowed {bytes_max} bytes")]
    OverLimit {
        /// The limit.
        bytes_max: u64,
    },
    /// No byte arrived for too long.
    #[error("no byte of the body arrived for {} ms", .0.as_millis())]
    Idle(Duration),
    /// The connection or stream broke.
    #[error("connection broke while the body was read: {0}")]
    Connection(String),
}

impl From<BodyError> for std::io::Error {
    fn from(error: BodyError) -> Self {
        std::io::Error::other(error)
    }
}

/// The reader of a [`crate::Body::channel`] is gone: stop producing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the body is gone")]
pub struct ReaderGone;

/// What kind of failure a request met; decides whether trying elsewhere makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The request itself is not sendable (no absolute http or https URI).
    Request,
    /// No connection could be made.
    Unreachable,
    /// Connecting or the response head took too long.
    Timeout,
    /// The peer's certificate or its TLS is not acceptable.
    Tls,
    /// The connection broke or the peer broke the protocol.
    Protocol,
    /// The request body failed on our side.
    Body,
    /// This client was closed.
    Closed,
}

impl fmt::Display for ClientErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request cannot be sent",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timed out",
            Self::Tls => "TLS refused",
            Self::Protocol => "connection failed",
            Self::Body => "request body failed",
            Self::Closed => "client is closed",
        })
    }
}

/// A request got no response. One line, naming the authority.
#[derive(Debug, Clone)]
pub struct ClientError {
    /// What kind of failure.
    pub kind: ClientErrorKind,
    /// `host:port` of the peer, as far as known.
    pub authority: String,
    /// What caused it.
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}

impl ClientError {
    pub(crate) fn new(
        kind: ClientErrorKind,
        authority: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, authority: authority.to_owned(), source: cause(source) }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.authority, self.kind, one_line(&*self.source))
    }
}

impl std::error::Error for ClientError {}

/// Why a coded document cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// It decodes to more than was to be taken, perhaps to much more: a bomb.
    #[error("the {coding} body decodes to more than the {bytes_max} bytes allowed")]
    TooLong {
        /// Its coding.
        coding: &'static str,
        /// How many bytes it may decode to.
        bytes_max: u64,
    },
    /// It is cut short or not in this coding.
    #[error("the {coding} body cannot be decoded: {reason}")]
    Broken {
        /// Its coding.
        coding: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

impl CodingError {
    pub(crate) fn broken(coding: &'static str, error: &std::io::Error) -> Self {
        Self::Broken { coding, reason: error.to_string() }
    }
}
