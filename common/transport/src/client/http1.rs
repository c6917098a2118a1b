//! HTTP/1.1 connections: one request at a time, given back to the pool when the response was read to its end.

use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::authority::Authority;
use super::connection::{Failure, Outgoing, Retry, settle, while_moving};
use super::dial::Dialer;
use super::{Counters, count};
use crate::body::{Body, Held};
use crate::error::{ClientError, ClientErrorKind};
use crate::handler::{Protocol, Response};
use crate::{hyper_body, limits};

/// The sending end of a connection.
pub(super) type Sender = SendRequest<Body>;

/// Starts HTTP/1.1 on a byte stream.
pub(super) async fn connect<S>(stream: S, name: &str, counters: &Counters) -> Result<Sender, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(limits::HEADER_BYTES_MAX.max(limits::PIECE_BYTES))
        .max_headers(limits::HEADER_FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ClientError::new(ClientErrorKind::Protocol, name, error))?;
    // The task ends when the sender and the body in progress are dropped, or the connection breaks.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/1.1 connection ended");
        }
    });
    count(&counters.h1_connections);
    Ok(sender)
}

/// A connection taken from, or meant for, the pool.
pub(super) struct Http1 {
    pub(super) sender: Sender,
    pub(super) reused: bool,
    pub(super) authority: Arc<Authority>,
    pub(super) _permit: OwnedSemaphorePermit,
}

struct Lease {
    sender: Option<Sender>,
    authority: Arc<Authority>,
    _permit: OwnedSemaphorePermit,
}

impl Held for Lease {
    fn read_to_end(&mut self) {
        if let Some(sender) = self.sender.take() {
            self.authority.give_back(sender);
        }
    }
}

impl Http1 {
    pub(super) async fn send(mut self, outgoing: Outgoing, dialer: &Dialer) -> Result<Response, Failure> {
        let Outgoing { mut head, body, progress } = outgoing;
        let name = self.authority.name();
        let host = head.uri.authority().map(|authority| HeaderValue::try_from(authority.as_str()));
        if let Some(Ok(host)) = host {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        head.uri = path
            .parse()
            .map_err(|error| Failure::new(ClientError::new(ClientErrorKind::Request, name, error), Retry::Never))?;
        head.version = http::Version::HTTP_11;
        let method = head.method.clone();
        let broken = |error: hyper::Error| ClientError::new(ClientErrorKind::Protocol, name, error);
        if let Err(error) = self.sender.ready().await {
            return Err(Failure { error: broken(error), retry: Retry::Always, untouched_body: Some(body) });
        }
        count(&dialer.counters.h1_requests);
        let sending = self.sender.try_send_request(http::Request::from_parts(head, body));
        let limit = dialer.config.header_timeout;
        let Some(result) = while_moving(sending, || progress.bytes(), limit).await else {
            return Err(Failure::header_timeout(name, limit));
        };
        let response = result.map_err(|mut error| match error.take_message() {
            Some(request) => Failure {
                error: broken(error.into_error()),
                retry: Retry::Always,
                untouched_body: Some(request.into_body()),
            },
            None => failed(name, error.into_error()),
        })?;
        let lease = Lease { sender: Some(self.sender), authority: self.authority.clone(), _permit: self._permit };
        let response = response.map(hyper_body::incoming);
        let idle = dialer.config.body_idle_timeout;
        settle(response, &method, Protocol::Http1, idle, lease, self.authority.name())
            .map_err(|error| Failure::new(error, Retry::Never))
    }
}

/// Sorts an error that came after the request was handed over.
pub(super) fn failed(name: &str, error: hyper::Error) -> Failure {
    let by_body = error.is_user();
    let kind = if by_body { ClientErrorKind::Body } else { ClientErrorKind::Protocol };
    let retry = if by_body || error.is_parse() { Retry::Never } else { Retry::IfIdempotent };
    Failure::new(ClientError::new(kind, name, error), retry)
}
