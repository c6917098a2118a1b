//! [`Flight`]: the fill of one unit that any number of readers may follow while it runs. The task that fills it is detached:
//! no reader, slow or gone, delays or kills it. Readers wake by event and read at their own pace from verified segments.

use std::sync::OnceLock;

use colibri_common::ByteRange;
use colibri_fetch::{Class, FetchError, Urgency};
use tokio::sync::watch;

use crate::freshness::Freshness;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::unit::{Segment, Slice, slice_at};

/// A fill under way, or just ended.
#[derive(Debug)]
pub(crate) struct Flight {
    segments: Mutex<Vec<Segment>>,
    /// How it ended; touched at every segment, so that readers wake.
    progress: watch::Sender<Progress>,
    /// As urgent as the most urgent of those who wait.
    urgency: Urgency,
    /// Where it comes from, known before its first bytes are here.
    from: OnceLock<Freshness>,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    outcome: Option<Result<(), FetchError>>,
}

impl Flight {
    pub fn new(class: Class) -> Self {
        let progress = watch::Sender::new(Progress::default());
        Self { segments: Mutex::default(), progress, urgency: Urgency::new(class), from: OnceLock::new() }
    }

    /// Says where it comes from, before there are bytes of it.
    pub fn begins(&self, from: Freshness) {
        _ = self.from.set(from);
    }

    /// Where it comes from, if that is known yet.
    pub fn comes_from(&self) -> Option<Freshness> {
        self.from.get().copied()
    }

    /// How urgent it is; whoever joins raises it.
    pub const fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    /// Adds verified bytes, in whatever order they come; readers wake.
    pub fn push(&self, segment: Segment) {
        let mut segments = self.lock();
        let place = segments.partition_point(|known| known.range().start() < segment.range().start());
        segments.insert(place, segment);
        drop(segments);
        self.progress.send_modify(|_| ());
    }

    /// What has arrived so far.
    pub fn segments(&self) -> Vec<Segment> {
        self.lock().clone()
    }

    /// Ends the fill; readers wake.
    pub fn end(&self, outcome: Result<(), FetchError>) {
        self.progress.send_modify(|progress| {
            progress.outcome.get_or_insert(outcome);
        });
    }

    /// Waits for the end of the fill.
    pub async fn ended(&self) -> Result<(), FetchError> {
        let mut progress = self.progress.subscribe();
        loop {
            let outcome = progress.borrow_and_update().outcome.clone();
            match outcome {
                Some(outcome) => return outcome,
                // Cannot fail while the flight itself is borrowed: it owns the sender.
                None => _ = progress.changed().await,
            }
        }
    }

    /// The next verified bytes of `wanted` from offset `from` on, as soon as there are some.
    pub async fn read(&self, from: u64, wanted: ByteRange) -> Result<Slice, FetchError> {
        let mut progress = self.progress.subscribe();
        loop {
            let outcome = progress.borrow_and_update().outcome.clone();
            if let Some(slice) = slice_at(&self.lock(), from, wanted) {
                return Ok(slice);
            }
            match outcome {
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => return Err(FetchError::Local(format!("offset {from} is not in this unit"))),
                // Cannot fail while the flight itself is borrowed: it owns the sender.
                None => _ = progress.changed().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
