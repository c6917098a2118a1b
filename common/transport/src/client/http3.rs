//! HTTP/3 connections: one per authority, many requests on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h3::client::{RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Failure, Lease, Outgoing, Retry, settle, while_moving};
use super::count;
use super::dial::Dialer;
use super::http2::unused;
use crate::body::Body;
use crate::error::{ClientError, ClientErrorKind};
use crate::handler::{Protocol, Response};
use crate::quic::{Connection, Opener, RecvStream, SendStream, Shared};
use crate::{http3_body, limits};

/// Interim responses (1xx) that are skipped before the real one.
const INTERIM_RESPONSES_MAX: usize = 8;

type Send = RequestStream<SendStream<Bytes>, Bytes>;
type Receive = RequestStream<RecvStream, Bytes>;

/// One HTTP/3 connection.
pub(super) struct Http3 {
    name: String,
    quic: quinn::Connection,
    requests: SendRequest<Opener, Bytes>,
    shared: Arc<Shared>,
    streams: Arc<Semaphore>,
    used: AtomicBool,
}

impl Http3 {
    /// Starts HTTP/3 on a QUIC connection.
    pub(super) async fn connect(quic: quinn::Connection, name: &str, idle: Duration) -> Result<Arc<Self>, ClientError> {
        let connection = Connection::new(quic.clone(), limits::HEADER_BYTES_MAX);
        let shared = connection.shared();
        let mut builder = h3::client::builder();
        builder.max_field_section_size(limits::HEADER_BYTES_MAX as u64).send_grease(false);
        let (mut driver, requests) = builder
            .build(connection)
            .await
            .map_err(|error| ClientError::new(ClientErrorKind::Protocol, name, error))?;
        let streams = Arc::new(Semaphore::new(limits::STREAMS_MAX as usize));
        let idle = unused(streams.clone(), idle);
        let done = no_longer_wanted(shared.clone(), streams.clone());
        // The task ends when the connection breaks, its last user is gone, the server went away, or nobody used it for long.
        tokio::spawn(async move {
            tokio::select! {
                error = driver.wait_idle() => tracing::debug!(%error, "HTTP/3 connection ended"),
                () = idle => {}
                () = done => {}
            }
        });
        Ok(Arc::new(Self { name: name.to_owned(), quic, requests, shared, streams, used: AtomicBool::new(false) }))
    }

    pub(super) fn is_usable(&self) -> bool {
        self.quic.close_reason().is_none() && !self.shared.is_peer_going_away() && !self.streams.is_closed()
    }

    /// Closed, it admits no further request; those in flight go on.
    pub(super) fn admission(&self) -> Arc<Semaphore> {
        self.streams.clone()
    }

    /// Requests in flight on it.
    pub(super) fn busy(&self) -> usize {
        (limits::STREAMS_MAX as usize).saturating_sub(self.streams.available_permits())
    }

    pub(super) fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) async fn send(self: Arc<Self>, outgoing: Outgoing, dialer: &Dialer) -> Result<Response, Failure> {
        let Outgoing { mut head, mut body, progress } = outgoing;
        let Ok(permit) = self.streams.clone().acquire_owned().await else {
            let error = ClientError::new(ClientErrorKind::Protocol, &self.name, "the connection was closed as unused");
            return Err(Failure { error, retry: Retry::Always, untouched_body: Some(body) });
        };
        self.used.store(true, Ordering::Relaxed);
        head.version = http::Version::HTTP_3;
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            head.headers.remove(name);
        }
        let method = head.method.clone();
        let limit = dialer.config.header_timeout;
        count(&dialer.counters.h3_requests);
        let mut requests = self.requests.clone();
        let opening = requests.send_request(http::Request::from_parts(head, ()));
        let stream = match while_moving(opening, || 0, limit).await {
            None => return Err(Failure { untouched_body: Some(body), ..self.silent(limit) }),
            Some(Err(error)) => return Err(Failure { untouched_body: Some(body), ..self.failed(&error) }),
            Some(Ok(stream)) => stream,
        };
        let state = self.shared.stream(stream.id());
        let (mut send, mut receive): (Send, Receive) = stream.split();
        let upload = if http_body::Body::is_end_stream(&body) {
            send.finish().await.map_err(|error| self.failed(&error))?;
            None
        } else {
            Some(AbortOnDropHandle::new(tokio::spawn(async move { upload(&mut send, &mut body).await })))
        };
        // Much of an upload may be under way long after its last byte was taken: packets count as progress, too.
        let moved = || match &upload {
            Some(_) => progress.bytes() + self.quic.stats().udp_tx.bytes / limits::PIECE_BYTES as u64,
            None => 0,
        };
        let response = match while_moving(receive_head(&mut receive), moved, limit).await {
            None => return Err(self.silent(limit)),
            Some(Err(error)) => return Err(self.failed(&error)),
            Some(Ok(response)) => response,
        };
        let lease = Lease { _connection: self.clone(), _permit: permit, _upload: upload };
        let response = response.map(|()| http3_body::client(receive, state));
        settle(response, &method, Protocol::Http3, dialer.config.body_idle_timeout, lease, &self.name)
            .map_err(|error| Failure::new(error, Retry::Never))
    }

    /// No answer in time: the path may be dead, so the next request makes a new connection.
    fn silent(&self, limit: Duration) -> Failure {
        self.streams.close();
        Failure::header_timeout(&self.name, limit)
    }

    fn failed(&self, error: &StreamError) -> Failure {
        let retry = match error {
            StreamError::RemoteClosing { .. } => Retry::Always,
            StreamError::RemoteTerminate { code: Code::H3_REQUEST_REJECTED, .. } => Retry::Always,
            StreamError::RemoteTerminate { .. } | StreamError::HeaderTooBig { .. } => Retry::Never,
            _ => Retry::IfIdempotent,
        };
        Failure::new(ClientError::new(ClientErrorKind::Protocol, &self.name, error.to_string()), retry)
    }
}

/// Sends the body; breaks the stream off where the body breaks off.
async fn upload(send: &mut Send, body: &mut Body) {
    while let Some(piece) = body.next_gathered(limits::PIECE_BYTES).await {
        match piece {
            // A server that has answered already may stop listening; its answer tells.
            Ok(piece) => {
                if send.send_data(piece).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "request body broke off");
                return send.stop_stream(Code::H3_REQUEST_CANCELLED);
            }
        }
    }
    _ = send.finish().await;
}

async fn receive_head(receive: &mut Receive) -> Result<http::Response<()>, StreamError> {
    let mut response = receive.recv_response().await?;
    for _ in 0..INTERIM_RESPONSES_MAX {
        if !response.status().is_informational() {
            break;
        }
        response = receive.recv_response().await?;
    }
    Ok(response)
}

/// Completes when the server has said GOAWAY and no request is in flight any more.
async fn no_longer_wanted(shared: Arc<Shared>, streams: Arc<Semaphore>) {
    shared.peer_going_away().await;
    if let Ok(_all) = streams.clone().acquire_many_owned(limits::STREAMS_MAX).await {
        streams.close();
    }
}
