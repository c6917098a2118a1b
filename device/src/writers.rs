//! [`Writers`]: one writer per blob at a time, so that two resolves that need the same blob fetch it once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use colibri_common::BlobId;
use colibri_fetch::{Class, Urgency};
use tokio::sync::OwnedMutexGuard;

/// Who is writing which blob, in one device.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    by_blob: Mutex<HashMap<BlobId, Weak<Place>>>,
}

/// Where the writers of one blob wait, and how urgent the most urgent of them is.
#[derive(Debug)]
struct Place {
    turn: Arc<tokio::sync::Mutex<()>>,
    urgency: Urgency,
}

/// The right to write one blob, held as long as it lives.
#[derive(Debug)]
pub(crate) struct Alone {
    _guard: OwnedMutexGuard<()>,
    place: Arc<Place>,
}

impl Alone {
    /// How urgent the blob is: as urgent as for any who waits for it.
    pub fn urgency(&self) -> &Urgency {
        &self.place.urgency
    }
}

impl Writers {
    /// Waits until nobody else writes the blob, and has whoever does so hurry if this is more urgent. Afterwards it may be
    /// there: look before fetching.
    pub async fn alone(&self, id: BlobId, class: Class) -> Alone {
        let place = self.place(id, class);
        place.urgency.raise(class);
        Alone { _guard: place.turn.clone().lock_owned().await, place }
    }

    fn place(&self, id: BlobId, class: Class) -> Arc<Place> {
        let mut by_blob = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = by_blob.get(&id).and_then(Weak::upgrade) {
            return place;
        }
        // Only blobs being written right now stay: as many as the resolves under way write at once.
        by_blob.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Place { turn: Arc::default(), urgency: Urgency::new(class) });
        by_blob.insert(id, Arc::downgrade(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_writer_per_blob_and_nothing_is_remembered() {
        let writers = Writers::default();
        let (a, b) = (BlobId::from_digest([1; 32]), BlobId::from_digest([2; 32]));
        let first = writers.alone(a, Class::Background).await;
        let _other_blob = writers.alone(b, Class::Demand).await;
        let mut second = Box::pin(writers.alone(a, Class::Warm));
        assert!(poll_once(&mut second).await.is_none(), "a second writer waits");
        assert_eq!(first.urgency().class(), Class::Warm, "and the first one hurries");
        drop(first);
        drop(second.await);
        drop(writers.alone(BlobId::from_digest([3; 32]), Class::Demand).await);
        assert_eq!(writers.by_blob.lock().unwrap().len(), 2, "b and the newest");
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
