//! What the three kinds of connection have in common: a request on its way, its failure, and the settling of a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode, request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::dial::Dialer;
use super::http1::Http1;
use super::http2::Http2;
use super::http3::Http3;
use crate::body::{Body, Held};
use crate::content_length::content_length;
use crate::error::{ClientError, ClientErrorKind};
use crate::handler::{Protocol, Response};

/// A request ready to be sent.
pub(super) struct Outgoing {
    pub(super) head: request::Parts,
    pub(super) body: Body,
    /// Bytes of the body taken so far: an upload that moves is not a peer that is silent.
    pub(super) progress: Progress,
}

/// Counts bytes of a body as they are taken.
#[derive(Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Outgoing {
    pub(super) fn new(head: request::Parts, body: Body) -> Self {
        let progress = Progress::default();
        Self { head, body: body.in_pieces().counting(progress.0.clone()), progress }
    }
}

/// Whether a failed request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// It may be in work, or it failed by itself.
    Never,
    /// The connection broke before a response byte.
    IfIdempotent,
    /// The peer certainly has not worked on it.
    Always,
}

/// A request that got no response.
pub(super) struct Failure {
    pub(super) error: ClientError,
    pub(super) retry: Retry,
    /// The body, where nothing of it was taken.
    pub(super) untouched_body: Option<Body>,
}

impl Failure {
    pub(super) fn new(error: ClientError, retry: Retry) -> Self {
        Self { error, retry, untouched_body: None }
    }

    pub(super) fn header_timeout(authority: &str, limit: Duration) -> Self {
        let reason = format!("no response for {} ms", limit.as_millis());
        Self::new(ClientError::new(ClientErrorKind::Timeout, authority, reason), Retry::Never)
    }
}

/// A connection that may carry a request now.
pub(super) enum Connection {
    Http3(Arc<Http3>),
    Http2(Arc<Http2>),
    Http1(Http1),
}

impl Connection {
    /// Whether other requests were sent on it before.
    pub(super) fn reused(&self) -> bool {
        match self {
            Self::Http3(connection) => connection.used(),
            Self::Http2(connection) => connection.used(),
            Self::Http1(connection) => connection.reused,
        }
    }

    /// What closes a shared connection to further requests; HTTP/1.1 connections are not shared.
    pub(super) fn admission(&self) -> Option<Arc<Semaphore>> {
        match self {
            Self::Http3(connection) => Some(connection.admission()),
            Self::Http2(connection) => Some(connection.admission()),
            Self::Http1(_) => None,
        }
    }

    /// Sends the request and waits for the response head.
    pub(super) async fn send(self, outgoing: Outgoing, dialer: &Dialer) -> Result<Response, Failure> {
        match self {
            Self::Http3(connection) => connection.send(outgoing, dialer).await,
            Self::Http2(connection) => connection.send(outgoing, dialer).await,
            Self::Http1(connection) => connection.send(outgoing, dialer).await,
        }
    }
}

/// Awaits `future` for as long as each `limit` sees it complete or `progress` change.
pub(super) async fn while_moving<F: Future>(
    future: F,
    progress: impl Fn() -> u64,
    limit: Duration,
) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut seen = progress();
    loop {
        if let Ok(output) = timeout(limit, future.as_mut()).await {
            return Some(output);
        }
        let now = progress();
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// Keeps a shared connection, one of its streams, and whatever else belongs to a response while its body is read.
pub(super) struct Lease<C> {
    pub(super) _connection: Arc<C>,
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _upload: Option<tokio_util::task::AbortOnDropHandle<()>>,
}

impl<C: Send + Sync> Held for Lease<C> {
    fn read_to_end(&mut self) {}
}

/// Gives a response its bounds: the announced length, the time a piece may take, and what must live as long as it is read.
pub(super) fn settle(
    mut response: Response,
    method: &Method,
    protocol: Protocol,
    idle_limit: Duration,
    mut held: impl Held + 'static,
    authority: &str,
) -> Result<Response, ClientError> {
    response.extensions_mut().insert(protocol);
    let status = response.status();
    let bodiless = method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let length = content_length(response.headers()).map_err(|()| {
        ClientError::new(
            ClientErrorKind::Protocol,
            authority,
            "the response's Content-Length is not one decimal number",
        )
    })?;
    let body = std::mem::take(response.body_mut());
    if bodiless || http_body::Body::is_end_stream(&body) && length.is_none_or(|length| length == 0) {
        held.read_to_end();
        return Ok(response);
    }
    *response.body_mut() = body.expecting(length).idle_limit(idle_limit).holding(held);
    Ok(response)
}
