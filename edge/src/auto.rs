//! `/REPO/auto` at edges: server-sent events, one per new timestamp that this edge serves.
//!
//! Each listener is one small task behind one shared value, the version: nothing is queued for it but the few events that fit
//! its body, so a slow one loses what came in between and gets the newest. What is told is a hint to look, never something
//! to believe. Deliberately absent: repositories that pass through, of which an edge does not know what is current.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_api::ApiError;
use colibri_metadata::Role;
use colibri_service::metrics::IntGauge;
use colibri_transport::{Body, BodySender};
use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{AUTO_HEARTBEAT_MS, AUTO_RETRY_AFTER_S};
use crate::metrics::Metrics;

/// Media type of the answer.
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Keeps connections from looking dead; clients ignore it.
const HEARTBEAT: &[u8] = b": still here\n\n";

/// Everybody who listens to this edge.
#[derive(Debug)]
pub(crate) struct Listeners {
    places: Arc<Semaphore>,
    end: CancellationToken,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// One listener's place, counted while it is held.
struct Place {
    _permit: OwnedSemaphorePermit,
    listeners: IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listeners.dec();
    }
}

impl Listeners {
    pub fn new(listeners_max: usize, metrics: Metrics, tasks: TaskTracker) -> Self {
        let places = Arc::new(Semaphore::new(listeners_max.min(Semaphore::MAX_PERMITS)));
        Self { places, end: CancellationToken::new(), metrics, tasks }
    }

    /// The body for one more listener. It hears the current version first, if there is one.
    pub fn listen(&self, mut versions: watch::Receiver<Option<u32>>) -> Result<Body, ApiError> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            self.metrics.auto_turned_away.inc();
            return Err(ApiError::TooManyRequests { retry_after_s: AUTO_RETRY_AFTER_S });
        };
        let listeners = self.metrics.auto_listeners.clone();
        listeners.inc();
        let place = Place { _permit: permit, listeners };
        versions.mark_changed();
        let (sender, body) = Body::channel(None);
        self.tasks.spawn(feed(versions, sender, self.end.clone(), place));
        Ok(body)
    }

    /// Ends every stream: the process drains.
    pub fn end(&self) {
        self.end.cancel();
    }
}

/// Tells versions until the reader is gone or the edge drains.
async fn feed(
    mut versions: watch::Receiver<Option<u32>>,
    mut sender: BodySender,
    end: CancellationToken,
    place: Place,
) {
    // The first one is due at once: it brings the head of the answer on its way.
    let mut heartbeat = tokio::time::interval(Duration::from_millis(AUTO_HEARTBEAT_MS));
    loop {
        let next = tokio::select! {
            biased;
            () = end.cancelled() => break,
            () = sender.closed() => break,
            changed = versions.changed() => match (changed, *versions.borrow_and_update()) {
                (Err(_), _) => break,
                (Ok(()), None) => continue,
                (Ok(()), Some(version)) => event(version),
            },
            _ = heartbeat.tick() => Bytes::from_static(HEARTBEAT),
        };
        tokio::select! {
            () = end.cancelled() => break,
            sent = sender.send(next) => if sent.is_err() { break },
        }
    }
    sender.finish();
    drop(place);
}

fn event(version: u32) -> Bytes {
    format!("event: {}\ndata: {version}\n\n", Role::Timestamp.file()).into()
}
