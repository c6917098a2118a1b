//! The two halves of a QUIC stream as `h3` wants them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ReadError, VarInt, WriteError};

use super::frames::{FrameFault, VarIntReader};
use super::urgency::Turn;
use super::{FrameWatch, Shared, StreamState, stream_error};

/// Stream type of the HTTP/3 control stream (RFC 9114 §6.2.1).
const CONTROL_STREAM: u64 = 0x0;
/// Most bytes of one control frame: SETTINGS is the largest and small.
const CONTROL_FRAME_BYTES_MAX: u64 = 16 * 1024;

/// Converts quinn's stream number; both count alike, so it always fits.
fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(VarInt::from(id).into_inner()).expect("stream numbers have 62 bits on both sides")
}

fn code(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

/// The sending half. Dropped before it was finished, a request stream is reset: the peer must not take a part for the whole.
pub(crate) struct SendStream<B: Buf> {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<B>>,
    /// Present on request streams.
    shared: Option<(Arc<Shared>, Arc<StreamState>)>,
    turn: Turn,
    finished: bool,
}

impl<B: Buf> SendStream<B> {
    pub(super) fn new(stream: quinn::SendStream, shared: Option<(Arc<Shared>, Arc<StreamState>)>) -> Self {
        if shared.is_none() {
            // What steers the connection goes before everything.
            _ = stream.set_priority(i32::MAX);
        }
        Self { stream, writing: None, shared, turn: Turn::default(), finished: false }
    }
}

impl<B: Buf> Drop for SendStream<B> {
    fn drop(&mut self) {
        if let Some((shared, _)) = &self.shared {
            self.turn.leave(&shared.waiting);
            shared.lock().remove(&self.stream.id().into());
            if !self.finished {
                _ = self.stream.reset(code(Code::H3_REQUEST_CANCELLED.value()));
            }
        }
    }
}

impl<B: Buf> quic::SendStream<B> for SendStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            if !data.has_remaining() {
                self.writing = None;
                break;
            }
            if let Some((shared, state)) = &self.shared {
                ready!(self.turn.poll(cx, &self.stream, &state.urgency, &shared.waiting));
            }
            let written = Pin::new(&mut self.stream).poll_write(cx, data.chunk());
            if let Some((shared, state)) = &self.shared {
                self.turn.wrote(written.is_ready(), &state.urgency, &shared.waiting);
            }
            data.advance(ready!(written).map_err(write_error)?);
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("a write was begun before the last one was done".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let result = self.stream.finish().map_err(|error| StreamErrorIncoming::Unknown(Box::new(error)));
        self.finished |= result.is_ok();
        Poll::Ready(result)
    }

    fn reset(&mut self, reset_code: u64) {
        self.finished = true;
        _ = self.stream.reset(code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

enum Watch {
    /// A request stream: frames from the first byte.
    Request { frames: FrameWatch, state: Arc<StreamState> },
    /// A unidirectional stream whose type is still arriving.
    Unknown { kind: VarIntReader, shared: Arc<Shared> },
    /// The peer's control stream.
    Control { frames: FrameWatch, shared: Arc<Shared> },
    /// A unidirectional stream that `h3` does not read frames from.
    Other,
}

/// The receiving half. Dropped early, it tells the peer to stop.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    /// Received and not yet handed up.
    pending: Bytes,
    watch: Watch,
}

impl RecvStream {
    pub(super) fn request(stream: quinn::RecvStream, header_bytes_max: u64, state: Arc<StreamState>) -> Self {
        let watch = Watch::Request { frames: FrameWatch::new(header_bytes_max), state };
        Self { stream, pending: Bytes::new(), watch }
    }

    pub(super) fn unidirectional(stream: quinn::RecvStream, shared: Arc<Shared>) -> Self {
        let watch = Watch::Unknown { kind: VarIntReader::default(), shared };
        Self { stream, pending: Bytes::new(), watch }
    }

    /// The next portion of what is pending.
    fn portion(&mut self) -> Result<Bytes, FrameFault> {
        let length = match &mut self.watch {
            Watch::Request { frames, .. } => frames.element(&self.pending)?,
            Watch::Control { frames, shared } => {
                let length = frames.element(&self.pending)?;
                if frames.saw_goaway() {
                    shared.set_going_away();
                }
                if let Some((stream, urgency)) = frames.priority_update() {
                    shared.priority_update(stream, urgency);
                }
                length
            }
            Watch::Unknown { kind, shared } => {
                let found = kind.push(self.pending[0]);
                match found {
                    None => {}
                    Some(CONTROL_STREAM) => {
                        let frames = FrameWatch::new(CONTROL_FRAME_BYTES_MAX);
                        self.watch = Watch::Control { frames, shared: shared.clone() };
                    }
                    Some(_) => self.watch = Watch::Other,
                }
                1
            }
            Watch::Other => self.pending.len(),
        };
        Ok(self.pending.split_to(length))
    }

    fn end(&self) -> Result<(), FrameFault> {
        if let Watch::Request { frames, state } = &self.watch {
            frames.end()?;
            state.received_all.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        while self.pending.is_empty() {
            // Reading is cancel-safe and the waker stays registered, so the future need not outlive this call.
            let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx)).map_err(read_error)?;
            match chunk {
                Some(chunk) => self.pending = chunk.bytes,
                None => return Poll::Ready(self.end().map(|()| None).map_err(frame_fault)),
            }
        }
        Poll::Ready(self.portion().map(Some).map_err(frame_fault))
    }

    fn stop_sending(&mut self, error_code: u64) {
        _ = self.stream.stop(code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// Both halves of a request stream.
pub(crate) struct BidiStream<B: Buf> {
    pub(super) send: SendStream<B>,
    pub(super) recv: RecvStream,
}

impl<B: Buf> quic::BidiStream<B> for BidiStream<B> {
    type SendStream = SendStream<B>;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream<B>, RecvStream) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::RecvStream for BidiStream<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl<B: Buf> quic::SendStream<B> for BidiStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

fn frame_fault(fault: FrameFault) -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown(Box::new(fault))
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        WriteError::ConnectionLost(error) => stream_error(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        ReadError::ConnectionLost(error) => stream_error(error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
