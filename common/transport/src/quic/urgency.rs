//! Whose turn it is to send: [`Urgency`] of a stream (RFC 9218), and [`Turn`], which lets what is more urgent go first.
//!
//! QUIC sends what it holds by priority, but a connection holds only so much: a stream that waits for room there would wait
//! behind less urgent ones. So less urgent streams hold back a little while a more urgent one waits; never for long, because
//! that one may wait only because its own reader is slow.

use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// How long a piece is held back at most.
const HOLD_BACK: Duration = Duration::from_millis(50);
/// Bit that says that a PRIORITY_UPDATE frame has spoken.
const UPDATED: u16 = 0x100;
const DEFAULT: u16 = 3;

/// How urgent a stream is: 0 (most) to 7.
pub(super) struct Urgency(AtomicU16);

impl Default for Urgency {
    fn default() -> Self {
        Self(AtomicU16::new(DEFAULT))
    }
}

impl Urgency {
    /// What the request's header says: nothing, if a frame has spoken already.
    #[cfg(feature = "server")]
    pub(super) fn ask(&self, urgency: u8) {
        let asked = |now: u16| (now & UPDATED == 0).then(|| u16::from(urgency.min(7)));
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, asked);
    }

    /// What a frame says.
    pub(super) fn update(&self, urgency: u8) {
        self.0.store(u16::from(urgency.min(7)) | UPDATED, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        usize::from(self.0.load(Ordering::Relaxed) & 7)
    }
}

/// One stream's place among those of its connection.
#[derive(Default)]
pub(super) struct Turn {
    /// The urgency that QUIC was told.
    told: Option<usize>,
    /// Counted among those that wait, as of this urgency.
    waits: Option<usize>,
    held_back: Option<Pin<Box<Sleep>>>,
    /// The piece has been held back once.
    has_waited: bool,
}

impl Turn {
    /// Ready when the stream may write.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &quinn::SendStream,
        urgency: &Urgency,
        waiting: &[AtomicUsize; 8],
    ) -> Poll<()> {
        let urgency = urgency.get();
        if self.told != Some(urgency) {
            // The default is QUIC's own, zero. A stream that is gone says so when it is written to.
            _ = stream.set_priority(i32::from(DEFAULT) - urgency as i32);
            self.told = Some(urgency);
        }
        if self.held_back.is_none() {
            let more_urgent = waiting[..urgency].iter().any(|count| count.load(Ordering::Relaxed) > 0);
            if self.has_waited || !more_urgent {
                return Poll::Ready(());
            }
            self.held_back = Some(Box::pin(sleep(HOLD_BACK)));
        }
        if let Some(held_back) = &mut self.held_back {
            ready!(held_back.as_mut().poll(cx));
        }
        self.held_back = None;
        self.has_waited = true;
        Poll::Ready(())
    }

    /// The stream tried to write, and did or has to wait for room.
    pub(super) fn wrote(&mut self, did: bool, urgency: &Urgency, waiting: &[AtomicUsize; 8]) {
        if did {
            self.has_waited = false;
            self.leave(waiting);
        } else if self.waits.is_none() {
            let urgency = urgency.get();
            waiting[urgency].fetch_add(1, Ordering::Relaxed);
            self.waits = Some(urgency);
        }
    }

    /// The stream waits no longer.
    pub(super) fn leave(&mut self, waiting: &[AtomicUsize; 8]) {
        if let Some(urgency) = self.waits.take() {
            waiting[urgency].fetch_sub(1, Ordering::Relaxed);
        }
    }
}
