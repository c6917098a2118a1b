//! HTTP/2 and HTTP/1.1 over TCP, plain or with TLS.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::admission::{Bucket, Seat};
use super::bounds::Place;
use super::counters::count;
use super::dispatch::Origin;
use super::identity::TlsHandle;
use super::patience::Patience;
use crate::body::{Body, Held};
use crate::handler::{ClientCertificate, Hangup, Protocol};
use crate::hyper_body;
use crate::limits;
use crate::stall::StallGuard;
use crate::tls::{ALPN_H2, pin_of};

/// Pause after the system refused a connection (out of file descriptors): trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until they are to be refused.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsHandle>, context: Arc<Context>) {
    loop {
        let accepted = async {
            let place = context.bounds.connections.enter().await?;
            Some((place, listener.accept().await))
        };
        let accepted = tokio::select! {
            biased;
            () = context.refuse.cancelled() => return,
            () = context.abort.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            None => return,
            Some((place, Ok((stream, peer)))) => {
                let Some(seat) = context.bounds.admission.connection(peer) else {
                    count(&context.counters.refused_client);
                    continue;
                };
                let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.tcp()));
                let connection = connection(stream, (peer, seat), acceptor, context.clone(), place);
                context.tracker.spawn(connection);
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    (peer, seat): (SocketAddr, Seat),
    acceptor: Option<TlsAcceptor>,
    context: Arc<Context>,
    _place: Place,
) {
    count(if acceptor.is_some() { &context.counters.tls_connections } else { &context.counters.plain_connections });
    _ = stream.set_nodelay(true);
    let stream = StallGuard::new(stream, context.limits.stall_timeout);
    let farewell = context.farewell();
    let work = async {
        match acceptor {
            None => {
                let origin = Origin { protocol: Protocol::Http1, peer, secure: false, client: None };
                serve(stream, (origin, seat), None, &context, &farewell).await;
            }
            Some(acceptor) => match timeout(context.limits.header_timeout, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    // Only a certificate that the handshake has verified gets here.
                    let client = shown.and_then(|certificate| pin_of(certificate).ok()).map(ClientCertificate);
                    let origin = Origin { protocol: Protocol::Http1, peer, secure: true, client };
                    serve(stream, (origin, seat), Some(http2), &context, &farewell).await;
                }
                Ok(Err(error)) => {
                    count(&context.counters.tls_handshake_failures);
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                }
                Err(_) => {
                    count(&context.counters.tls_handshake_failures);
                    tracing::debug!(%peer, "TLS handshake took too long");
                }
            },
        }
    };
    tokio::select! {
        () = context.abort.cancelled() => {}
        () = work => {}
    }
}

/// Serves one connection; `http2` is what ALPN chose, `None` finds out from the first bytes.
pub(super) async fn serve<S>(
    stream: S,
    (origin, seat): (Origin, Seat),
    http2: Option<bool>,
    context: &Arc<Context>,
    farewell: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let (patience, seat) = (Arc::new(Patience::default()), Arc::new(seat));
    let builder = builder(context, http2);
    let service = {
        let (dispatch, activity, patience) = (context.dispatch.clone(), activity.clone(), patience.clone());
        service_fn(move |request: http::Request<Incoming>| {
            let (dispatch, patience, busy) = (dispatch.clone(), patience.clone(), Busy::new(activity.clone()));
            let seat = seat.clone();
            async move {
                let version = request.version();
                let protocol = if version == http::Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
                let request = request.map(hyper_body::incoming);
                let response = dispatch.answer(request, Origin { protocol, ..origin }, &seat).await;
                if response.extensions().get::<Hangup>().is_some() {
                    // The client has not given it up.
                    drop(busy.done());
                    return Err(HungUp);
                }
                let response = response.map(|body| match body.is_end_stream() {
                    true => body.holding(busy.done()),
                    false => patience.watch(body.in_pieces()).holding(busy),
                });
                Ok::<http::Response<Body>, HungUp>(response)
            }
        })
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = %origin.peer, error = %error, "connection ended with an error");
                }
                return;
            }
            () = farewell.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = patience.end_after(context.limits.stall_timeout) => {}
            () = activity.flooded.notified() => {
                count(&context.counters.refused_resets);
                return tracing::debug!(peer = %origin.peer, "closed: the client gives up requests without end");
            }
            () = activity.idle_for(context.limits.idle_timeout) => {
                if closing {
                    return;
                }
                closing = true;
                activity.touch();
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(context: &Context, http2: Option<bool>) -> auto::Builder<TokioExecutor> {
    let bounds = &context.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_headers(2 * limits::HEADER_FIELDS_MAX)
        // hyper needs room for at least 8 KiB and reads bodies through the same buffer.
        .max_buf_size(bounds.header_bytes_read_max().max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams_max.min(limits::STREAMS_MAX))
        .max_header_list_size(u32::try_from(bounds.header_bytes_read_max()).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits::SERVER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::SERVER_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::HTTP2_SEND_BUFFER_BYTES)
        .keep_alive_interval(bounds.stall_timeout)
        .keep_alive_timeout(bounds.stall_timeout);
    match http2 {
        Some(true) => builder.http2_only(),
        Some(false) => builder.http1_only(),
        None => builder,
    }
}

/// There is to be no answer ([`Hangup`]).
#[derive(Debug, thiserror::Error)]
#[error("this request gets no answer")]
struct HungUp;

/// Requests in flight on a connection, and when the last one ended.
struct Activity {
    in_flight: AtomicUsize,
    start: Instant,
    last_ms: AtomicU64,
    /// Requests that the client gave up.
    given_up: Bucket,
    /// They are too many.
    flooded: Notify,
}

impl Activity {
    fn new() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            start: Instant::now(),
            last_ms: AtomicU64::new(0),
            given_up: Bucket::new(limits::RESETS_PER_S_MAX),
            flooded: Notify::new(),
        }
    }

    fn touch(&self) {
        self.last_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Completes when nothing was in flight for `limit`.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let due = match self.in_flight.load(Ordering::Relaxed) {
                0 => last + limit,
                _ => Instant::now() + limit,
            };
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// One request in flight, from its arrival to the last byte of its response.
struct Busy {
    activity: Arc<Activity>,
    whole: bool,
}

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { activity, whole: false }
    }

    /// There is no body to wait for.
    fn done(mut self) -> Self {
        self.whole = true;
        self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.whole && self.activity.given_up.take(0).is_err() {
            self.activity.flooded.notify_one();
        }
    }
}

impl Held for Busy {
    fn read_to_end(&mut self) {
        self.whole = true;
    }
}
