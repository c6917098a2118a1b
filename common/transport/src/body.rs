//! [`Body`]: bytes of a request or response, with the promise that an early end is an error and never looks like the end.
//!
//! It deliberately has no trailers and no buffering beyond what its source already holds.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

use crate::error::{BodyError, ReaderGone};
use crate::limits::{BODY_CHANNEL_CHUNKS, PIECE_BYTES};

/// Bytes from somewhere, pulled by the reader.
pub(crate) type Stream = Pin<Box<dyn PieceStream>>;

/// A source of pieces; after `None` or an error it is not polled again.
pub(crate) trait PieceStream: Send + Sync {
    /// The next piece, the end, or why there is none.
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>>;
}

/// Something held while a body is read. Dropped at the end, on an error, or with the body.
pub(crate) trait Held: Send + Sync {
    /// Called once when the body was read to its clean end.
    fn read_to_end(&mut self);
}

enum Source {
    Segments(VecDeque<Bytes>),
    Channel(mpsc::Receiver<Bytes>, Arc<OnceLock<Outcome>>),
    Stream(Stream),
}

enum Outcome {
    Finished,
    Aborted(String),
}

struct Idle {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    armed: bool,
}

/// Told how many bytes were taken from a body, and whether that was all of it.
type Watcher = Box<dyn FnOnce(u64, bool) + Send + Sync>;

/// A request or response body.
///
/// Dropping it unread is fine: the peer is told to stop. Whoever reads gets every announced byte or a [`BodyError`].
pub struct Body {
    source: Source,
    expected: Option<u64>,
    bytes_max: Option<u64>,
    read: u64,
    ended: bool,
    idle: Option<Idle>,
    held: Option<Box<dyn Held>>,
    pieces: Option<Bytes>,
    progress: Option<Arc<AtomicU64>>,
    watcher: Option<Watcher>,
    /// The clean end was read.
    complete: bool,
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("expected", &self.expected).field("read", &self.read).finish_non_exhaustive()
    }
}

impl Body {
    fn new(source: Source, expected: Option<u64>) -> Self {
        Self {
            source,
            expected,
            bytes_max: None,
            read: 0,
            ended: false,
            idle: None,
            held: None,
            pieces: None,
            progress: None,
            watcher: None,
            complete: false,
        }
    }

    /// No bytes.
    pub fn empty() -> Self {
        Self::new(Source::Segments(VecDeque::new()), Some(0))
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::segments(vec![bytes.into()])
    }

    /// These bytes one after the other, without joining them.
    pub fn segments(segments: Vec<Bytes>) -> Self {
        let segments: VecDeque<Bytes> = segments.into_iter().filter(|segment| !segment.is_empty()).collect();
        let length = segments.iter().map(|segment| segment.len() as u64).sum();
        Self::new(Source::Segments(segments), Some(length))
    }

    /// A body that another task feeds; at most [`BODY_CHANNEL_CHUNKS`] chunks wait. With a `length`, exactly so many bytes
    /// must be sent. A sender dropped without [`BodySender::finish`] makes the reader's end an error.
    pub fn channel(length: Option<u64>) -> (BodySender, Body) {
        let (sender, receiver) = mpsc::channel(BODY_CHANNEL_CHUNKS);
        let outcome = Arc::new(OnceLock::new());
        let body = Self::new(Source::Channel(receiver, outcome.clone()), length);
        (BodySender { sender, outcome }, body)
    }

    pub(crate) fn stream(stream: Stream) -> Self {
        Self::new(Source::Stream(stream), None)
    }

    /// The same body, which must have exactly `length` bytes.
    pub(crate) fn expecting(mut self, length: Option<u64>) -> Self {
        if length.is_some() {
            self.expected = length;
        }
        self
    }

    /// The same body, which fails beyond `bytes_max`.
    pub(crate) fn at_most(mut self, bytes_max: u64) -> Self {
        self.bytes_max = Some(bytes_max);
        self
    }

    /// The same body, which fails when one piece takes longer than `limit`.
    pub(crate) fn idle_limit(mut self, limit: Duration) -> Self {
        self.idle = Some(Idle { limit, sleep: Box::pin(sleep(limit)), armed: false });
        self
    }

    /// The same body, keeping `held` alive while it is read.
    pub(crate) fn holding(mut self, held: impl Held + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// The same body in pieces of at most [`PIECE_BYTES`]: time limits per piece must not depend on how it was fed.
    pub(crate) fn in_pieces(mut self) -> Self {
        self.pieces = Some(Bytes::new());
        self
    }

    /// The same body, adding to `progress` every byte that is taken from it.
    pub(crate) fn counting(mut self, progress: Arc<AtomicU64>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The same body, which tells `watcher` when it is let go how many bytes were taken from it, and whether that was all. Those
    /// who watched it before are told, too.
    #[must_use]
    pub fn watched(mut self, watcher: impl FnOnce(u64, bool) + Send + Sync + 'static) -> Self {
        self.watcher = Some(match self.watcher.take() {
            None => Box::new(watcher),
            Some(first) => Box::new(move |bytes, complete| {
                first(bytes, complete);
                watcher(bytes, complete);
            }),
        });
        self
    }

    /// A second copy, if the bytes are in memory and nothing was read.
    pub(crate) fn replay(&self) -> Option<Self> {
        match &self.source {
            Source::Segments(segments) if self.read == 0 => {
                Some(Self::new(Source::Segments(segments.clone()), self.expected))
            }
            _ => None,
        }
    }

    /// The whole length in bytes, if it is known beforehand.
    pub fn exact_length(&self) -> Option<u64> {
        self.expected
    }

    /// The next piece; `None` is the proven end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// All remaining bytes, at most `bytes_max` of them.
    pub async fn read_all(mut self, bytes_max: u64) -> Result<Bytes, BodyError> {
        if let Some(expected) = self.expected
            && expected - self.read > bytes_max
        {
            return Err(BodyError::OverLimit { bytes_max });
        }
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let mut total = first.len() as u64;
        let mut all: Option<BytesMut> = None;
        loop {
            if total > bytes_max {
                return Err(BodyError::OverLimit { bytes_max });
            }
            let Some(piece) = self.next().await.transpose()? else {
                return Ok(all.map_or(first, BytesMut::freeze));
            };
            total += piece.len() as u64;
            if total <= bytes_max {
                all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&piece);
            }
        }
    }

    /// Like [`Body::next`], but joins further pieces that are ready until `bytes_min` are together: small writes are dear.
    pub(crate) async fn next_gathered(&mut self, bytes_min: usize) -> Option<Result<Bytes, BodyError>> {
        let first = match self.next().await? {
            Ok(piece) if piece.len() < bytes_min => piece,
            other => return Some(other),
        };
        let mut joined: Option<BytesMut> = None;
        while joined.as_ref().map_or(first.len(), BytesMut::len) < bytes_min {
            let ready = poll_fn(|cx| Poll::Ready(self.poll_next(cx))).await;
            match ready {
                Poll::Ready(Some(Ok(piece))) => {
                    joined.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&piece);
                }
                Poll::Ready(Some(Err(error))) => return Some(Err(error)),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Some(Ok(joined.map_or(first, BytesMut::freeze)))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(rest) = self.pieces.as_mut().filter(|rest| !rest.is_empty()) {
            return Poll::Ready(Some(Ok(rest.split_to(rest.len().min(PIECE_BYTES)))));
        }
        let polled = self.poll_source(cx);
        match (polled, &mut self.pieces) {
            (Poll::Ready(Some(Ok(mut piece))), Some(rest)) if piece.len() > PIECE_BYTES => {
                *rest = piece.split_off(PIECE_BYTES);
                Poll::Ready(Some(Ok(piece)))
            }
            (polled, _) => polled,
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.source {
            Source::Segments(segments) => Poll::Ready(segments.pop_front().map(Ok)),
            Source::Stream(stream) => stream.as_mut().poll_piece(cx),
            Source::Channel(receiver, outcome) => match std::task::ready!(receiver.poll_recv(cx)) {
                Some(piece) => Poll::Ready(Some(Ok(piece))),
                None => Poll::Ready(match outcome.get() {
                    Some(Outcome::Finished) => None,
                    Some(Outcome::Aborted(reason)) => Some(Err(BodyError::Aborted { reason: reason.clone() })),
                    None => Some(Err(BodyError::Aborted { reason: "the sender went away".to_owned() })),
                }),
            },
        }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let Poll::Ready(piece) = self.poll_piece(cx) else {
                return self.poll_idle(cx).map(|error| Some(Err(self.fail(error))));
            };
            if let Some(idle) = &mut self.idle {
                idle.armed = false;
            }
            match piece {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => return Poll::Ready(Some(self.account(piece))),
                Some(Err(error)) => return Poll::Ready(Some(Err(self.fail(error)))),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if !idle.armed {
            idle.armed = true;
            idle.sleep.as_mut().reset(Instant::now() + idle.limit);
        }
        idle.sleep.as_mut().poll(cx).map(|()| BodyError::Idle(idle.limit))
    }

    fn account(&mut self, piece: Bytes) -> Result<Bytes, BodyError> {
        self.read += piece.len() as u64;
        if let Some(progress) = &self.progress {
            progress.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        match (self.expected, self.bytes_max) {
            (Some(expected_bytes), _) if self.read > expected_bytes => {
                Err(self.fail(BodyError::TooLong { expected_bytes }))
            }
            (_, Some(bytes_max)) if self.read > bytes_max => Err(self.fail(BodyError::OverLimit { bytes_max })),
            _ => Ok(piece),
        }
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.ended = true;
        self.held = None;
        error
    }

    fn end(&mut self) -> Option<Result<Bytes, BodyError>> {
        match self.expected {
            Some(expected_bytes) if self.read < expected_bytes => {
                let got_bytes = self.read;
                Some(Err(self.fail(BodyError::Truncated { expected_bytes, got_bytes })))
            }
            _ => {
                self.ended = true;
                self.complete = true;
                if let Some(mut held) = self.held.take() {
                    held.read_to_end();
                }
                None
            }
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.expected == Some(self.read)
            && let Some(held) = &mut self.held
        {
            held.read_to_end();
        }
        if let Some(watcher) = self.watcher.take() {
            watcher(self.read, self.complete || self.expected == Some(self.read));
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_next(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
            || (matches!(&self.source, Source::Segments(left) if left.is_empty()) && self.expected == Some(self.read))
    }

    fn size_hint(&self) -> SizeHint {
        match self.expected {
            Some(expected) => SizeHint::with_exact(expected.saturating_sub(self.read)),
            None => SizeHint::default(),
        }
    }
}

/// The feeding end of [`Body::channel`].
#[derive(Debug)]
pub struct BodySender {
    sender: mpsc::Sender<Bytes>,
    outcome: Arc<OnceLock<Outcome>>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("Finished"),
            Self::Aborted(reason) => write!(f, "Aborted({reason})"),
        }
    }
}

impl BodySender {
    /// Hands over a chunk, waiting while the reader is behind.
    ///
    /// # Errors
    /// The reader is gone; nothing more needs to be produced.
    pub async fn send(&mut self, chunk: Bytes) -> Result<(), ReaderGone> {
        self.sender.send(chunk).await.map_err(|_| ReaderGone)
    }

    /// Waits until the reader has taken every chunk that was handed over.
    ///
    /// # Errors
    /// The reader is gone; nothing more needs to be produced.
    pub async fn drained(&self) -> Result<(), ReaderGone> {
        self.sender.reserve_many(BODY_CHANNEL_CHUNKS).await.map(drop).map_err(|_| ReaderGone)
    }

    /// Completes when the reader is gone.
    pub async fn closed(&self) {
        self.sender.closed().await;
    }

    /// Says that all bytes were sent.
    pub fn finish(self) {
        _ = self.outcome.set(Outcome::Finished);
    }

    /// Says that the rest will not come; the reader gets [`BodyError::Aborted`] with this reason.
    pub fn abort(self, reason: impl Display) {
        _ = self.outcome.set(Outcome::Aborted(reason.to_string()));
    }
}
