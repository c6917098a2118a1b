//! Hears upstream's `/REPO/auto`, if it has one: an event means that there may be something new, and no more refreshes come
//! of it than the pause between two allows.

use std::sync::Arc;
use std::time::Duration;

use colibri_fetch::Source;
use colibri_fetch::listen::{Heard, Listening, Pauses};
use tokio_util::sync::CancellationToken;

use super::Followed;
use crate::limits::{AUTO_ABSENT_MS, AUTO_BACKOFF_MS_MAX, AUTO_SILENCE_MS_MAX};

const PAUSES: Pauses =
    Pauses { away_max: Duration::from_millis(AUTO_BACKOFF_MS_MAX), absent_max: Duration::from_millis(AUTO_ABSENT_MS) };

impl Followed {
    /// Listens until `stop`, to the first upstream that has events.
    pub(super) async fn listen(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = self.listen_once() => heard,
            };
            failures = if heard == Heard::Ended { 0 } else { failures + 1 };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSES.after(heard, failures)) => {}
            }
        }
    }

    async fn listen_once(&self) -> Heard {
        let mut heard = Heard::Absent;
        let sources = self.fetcher.sources();
        for source in sources.candidates(None, 0) {
            match self.listen_to(source).await {
                Heard::Ended => return Heard::Ended,
                Heard::Away => heard = Heard::Away,
                Heard::Absent => {}
            }
        }
        heard
    }

    async fn listen_to(&self, source: &Source) -> Heard {
        let listening = Listening {
            client: self.fetcher.client(),
            place: &self.place,
            agent: &self.agent,
            headers: self.fetcher.headers().clone(),
            silence: Duration::from_millis(AUTO_SILENCE_MS_MAX),
        };
        let event = || {
            self.metrics.auto_heard.inc();
            self.news.notify_one();
        };
        // If it is no upstream any more, others are to be heard.
        let still = || self.fetcher.sources().list().iter().any(|known| std::ptr::eq(&**known, source));
        listening.listen_to(source, event, still).await
    }
}
