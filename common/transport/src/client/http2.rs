//! HTTP/2 connections: one per authority, many requests on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::connection::{Failure, Lease, Outgoing, Retry, settle, while_moving};
use super::count;
use super::dial::Dialer;
use super::http1::failed;
use crate::body::Body;
use crate::error::{ClientError, ClientErrorKind};
use crate::handler::{Protocol, Response};
use crate::{hyper_body, limits};

/// How often a silent connection with requests in flight is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// One HTTP/2 connection.
pub(super) struct Http2 {
    name: String,
    sender: SendRequest<Body>,
    streams: Arc<Semaphore>,
    used: AtomicBool,
}

impl Http2 {
    /// Starts HTTP/2 on a TLS stream.
    pub(super) async fn connect<S>(stream: S, name: &str, dialer: &Dialer) -> Result<Arc<Self>, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(limits::CLIENT_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CLIENT_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(limits::HEADER_BYTES_MAX as u32)
            .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::new(ClientErrorKind::Protocol, name, error))?;
        let streams = Arc::new(Semaphore::new(limits::STREAMS_MAX as usize));
        let idle = unused(streams.clone(), dialer.config.pool_idle_timeout);
        // The task ends when the connection breaks, all senders are dropped, or nobody used it for long.
        tokio::spawn(async move {
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "HTTP/2 connection ended");
                },
                () = idle => {}
            }
        });
        count(&dialer.counters.h2_connections);
        Ok(Arc::new(Self { name: name.to_owned(), sender, streams, used: AtomicBool::new(false) }))
    }

    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.streams.is_closed()
    }

    /// Closed, it admits no further request; those in flight go on.
    pub(super) fn admission(&self) -> Arc<Semaphore> {
        self.streams.clone()
    }

    pub(super) fn used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) async fn send(self: Arc<Self>, outgoing: Outgoing, dialer: &Dialer) -> Result<Response, Failure> {
        let Outgoing { mut head, body, progress } = outgoing;
        let unsent = |error: ClientError, body| Failure { error, retry: Retry::Always, untouched_body: Some(body) };
        let broken = |error: hyper::Error| ClientError::new(ClientErrorKind::Protocol, &self.name, error);
        let Ok(permit) = self.streams.clone().acquire_owned().await else {
            let error = ClientError::new(ClientErrorKind::Protocol, &self.name, "the connection was closed as unused");
            return Err(unsent(error, body));
        };
        self.used.store(true, Ordering::Relaxed);
        head.version = http::Version::HTTP_2;
        let method = head.method.clone();
        let mut sender = self.sender.clone();
        if let Err(error) = sender.ready().await {
            return Err(unsent(broken(error), body));
        }
        count(&dialer.counters.h2_requests);
        let sending = sender.try_send_request(http::Request::from_parts(head, body));
        let limit = dialer.config.header_timeout;
        let Some(result) = while_moving(sending, || progress.bytes(), limit).await else {
            return Err(Failure::header_timeout(&self.name, limit));
        };
        let response = result.map_err(|mut error| match error.take_message() {
            Some(request) => unsent(broken(error.into_error()), request.into_body()),
            None => failed(&self.name, error.into_error()),
        })?;
        let lease = Lease { _connection: self.clone(), _permit: permit, _upload: None };
        let response = response.map(hyper_body::incoming);
        settle(response, &method, Protocol::Http2, dialer.config.body_idle_timeout, lease, &self.name)
            .map_err(|error| Failure::new(error, Retry::Never))
    }
}

/// Completes once no stream of a connection was in use at two looks that lie `idle` apart; no request gets a stream after.
pub(super) async fn unused(streams: Arc<Semaphore>, idle: Duration) {
    let all = limits::STREAMS_MAX;
    let mut quiet = false;
    loop {
        sleep(idle).await;
        match streams.clone().try_acquire_many_owned(all) {
            Ok(_permits) if quiet => return streams.close(),
            Ok(_permits) => quiet = true,
            Err(_) => quiet = false,
        }
    }
}
