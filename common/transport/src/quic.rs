//! The seam between `h3` and `quinn`: our own, because a stream that is dropped half-way must be reset and never look
//! finished, and because `h3` by itself buffers whatever a peer frames.
//!
//! What it adds to the plain mapping: reset on drop, [`FrameWatch`] on everything received, a way to learn that the peer lost interest or has everything ([`StreamState::stopped`]), and notice of GOAWAY.

#[cfg(feature = "server")]
mod filter;
mod frames;
#[cfg(feature = "server")]
pub(crate) mod keys;
pub(crate) mod socket;
#[cfg(feature = "server")]
mod steer;
mod streams;
mod urgency;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use quinn::{ConnectionError, RecvStream as QuinnRecv, SendStream as QuinnSend, VarInt};
use tokio::sync::Notify;

pub(crate) use frames::FrameWatch;
use urgency::Urgency;

pub(crate) use streams::{BidiStream, RecvStream, SendStream};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;
type BiResult = Result<(QuinnSend, QuinnRecv), ConnectionError>;

/// What the stream's users share with the adapter beneath `h3`.
#[derive(Default)]
pub(crate) struct StreamState {
    /// The peer has ended its side, cleanly, and every byte of it was handed up.
    received_all: AtomicBool,
    /// The stream came before the peer's handshake was over.
    #[cfg(feature = "server")]
    early: bool,
    stopped: Mutex<Option<BoxFuture<()>>>,
    urgency: Urgency,
}

impl StreamState {
    /// Whether the stream came in early data, which may be a repetition of what somebody overheard.
    #[cfg(feature = "server")]
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    /// The request says how urgent it is. What the client said in a PRIORITY_UPDATE frame counts more (RFC 9218 §7).
    #[cfg(feature = "server")]
    pub(crate) fn ask_urgency(&self, urgency: u8) {
        self.urgency.ask(urgency);
    }

    /// Whether the stream was received to its clean end. `h3` alone takes an empty DATA frame for the end, too.
    pub(crate) fn received_all(&self) -> bool {
        self.received_all.load(Ordering::Relaxed)
    }

    /// Completes when the peer has acknowledged everything, or no longer wants it, or the connection is gone. The first
    /// caller gets the future.
    pub(crate) fn stopped(&self) -> BoxFuture<()> {
        let future = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
        future.unwrap_or_else(|| Box::pin(std::future::pending()))
    }
}

/// Facts of one connection that `h3` keeps to itself.
pub(crate) struct Shared {
    streams: Mutex<HashMap<u64, Arc<StreamState>>>,
    header_bytes_max: u64,
    going_away: AtomicBool,
    going_away_notify: Notify,
    /// How many streams of each urgency wait for room to send.
    waiting: [AtomicUsize; 8],
    /// What PRIORITY_UPDATE frames said of requests that have not come yet.
    announced: Mutex<HashMap<u64, u8>>,
}

impl Shared {
    /// The state of the request stream `id`, while it lives.
    pub(crate) fn stream(&self, id: quic::StreamId) -> Arc<StreamState> {
        self.lock().get(&id.into_inner()).cloned().unwrap_or_default()
    }

    /// Completes when the peer has sent GOAWAY.
    pub(crate) async fn peer_going_away(&self) {
        loop {
            let notified = self.going_away_notify.notified();
            if self.is_peer_going_away() {
                return;
            }
            notified.await;
        }
    }

    /// Whether the peer has sent GOAWAY.
    pub(crate) fn is_peer_going_away(&self) -> bool {
        self.going_away.load(Ordering::Acquire)
    }

    fn set_going_away(&self) {
        self.going_away.store(true, Ordering::Release);
        self.going_away_notify.notify_waiters();
    }

    /// A PRIORITY_UPDATE frame arrived (RFC 9218 §7.2).
    fn priority_update(&self, stream: u64, urgency: u8) {
        if let Some(state) = self.lock().get(&stream) {
            return state.urgency.update(urgency);
        }
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        // Request streams only, and no more than can be open at a time.
        if stream.is_multiple_of(4) && announced.len() < crate::limits::STREAMS_MAX as usize {
            announced.insert(stream, urgency);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<StreamState>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bidi(self: &Arc<Self>, (send, recv): (QuinnSend, QuinnRecv)) -> BidiStream<bytes::Bytes> {
        let stopped = send.stopped();
        let state = Arc::new(StreamState {
            received_all: AtomicBool::new(false),
            #[cfg(feature = "server")]
            early: recv.is_0rtt(),
            stopped: Mutex::new(Some(Box::pin(async move { drop(stopped.await) }))),
            urgency: Urgency::default(),
        });
        let id = send.id().into();
        self.lock().insert(id, state.clone());
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(urgency) = announced {
            state.urgency.update(urgency);
        }
        BidiStream {
            send: SendStream::new(send, Some((self.clone(), state.clone()))),
            recv: RecvStream::request(recv, self.header_bytes_max, state),
        }
    }
}

/// A QUIC connection as `h3` wants it.
pub(crate) struct Connection {
    opener: Opener,
    accepting_bi: Option<BoxFuture<BiResult>>,
    accepting_uni: Option<BoxFuture<Result<QuinnRecv, ConnectionError>>>,
}

impl Connection {
    /// Wraps `connection`; peers may send header sections of at most `header_bytes_max`.
    pub(crate) fn new(connection: quinn::Connection, header_bytes_max: usize) -> Self {
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            header_bytes_max: header_bytes_max as u64,
            going_away: AtomicBool::new(false),
            going_away_notify: Notify::new(),
            waiting: Default::default(),
            announced: Mutex::default(),
        });
        let opener = Opener { connection, shared, opening_bi: None, opening_uni: None };
        Self { opener, accepting_bi: None, accepting_uni: None }
    }

    /// What `h3` keeps to itself.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.opener.shared.clone()
    }
}

impl quic::Connection<bytes::Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let connection = &self.opener.connection;
        let accepting = self.accepting_uni.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let result = ready!(accepting.as_mut().poll(cx));
        self.accepting_uni = None;
        let shared = self.opener.shared.clone();
        Poll::Ready(result.map(|recv| RecvStream::unidirectional(recv, shared)).map_err(connection_error))
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream<bytes::Bytes>, ConnectionErrorIncoming>> {
        let connection = &self.opener.connection;
        let accepting = self.accepting_bi.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let result = ready!(accepting.as_mut().poll(cx));
        self.accepting_bi = None;
        Poll::Ready(result.map(|pair| self.opener.shared.bidi(pair)).map_err(connection_error))
    }

    fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl quic::OpenStreams<bytes::Bytes> for Connection {
    type BidiStream = BidiStream<bytes::Bytes>;
    type SendStream = SendStream<bytes::Bytes>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens streams on a connection.
pub(crate) struct Opener {
    connection: quinn::Connection,
    shared: Arc<Shared>,
    opening_bi: Option<BoxFuture<BiResult>>,
    opening_uni: Option<BoxFuture<Result<QuinnSend, ConnectionError>>>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { connection: self.connection.clone(), shared: self.shared.clone(), opening_bi: None, opening_uni: None }
    }
}

impl quic::OpenStreams<bytes::Bytes> for Opener {
    type BidiStream = BidiStream<bytes::Bytes>;
    type SendStream = SendStream<bytes::Bytes>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        let opening = self.opening_bi.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let result = ready!(opening.as_mut().poll(cx));
        self.opening_bi = None;
        Poll::Ready(result.map(|pair| self.shared.bidi(pair)).map_err(stream_error))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        let opening = self.opening_uni.get_or_insert_with(|| {
            let connection = self.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let result = ready!(opening.as_mut().poll(cx));
        self.opening_uni = None;
        Poll::Ready(result.map(|send| SendStream::new(send, None)).map_err(stream_error))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX), reason);
    }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn stream_error(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

/// Takes all of `buffer` as one piece, without copying when it is one already.
pub(crate) fn take_all(mut buffer: impl Buf) -> bytes::Bytes {
    buffer.copy_to_bytes(buffer.remaining())
}
