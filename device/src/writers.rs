//! [`Writers`]: one writer per blob at a time, so that two resolves that need the same blob fetch it once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use colibri_common::BlobId;
use tokio::sync::OwnedMutexGuard;

/// Who is writing which blob, in one device.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    by_blob: Mutex<HashMap<BlobId, Weak<tokio::sync::Mutex<()>>>>,
}

/// The right to write one blob, held as long as it lives.
#[derive(Debug)]
pub(crate) struct Alone {
    _guard: OwnedMutexGuard<()>,
}

impl Writers {
    /// Waits until nobody else writes the blob. Afterwards it may be there: look before fetching.
    pub async fn alone(&self, id: BlobId) -> Alone {
        Alone { _guard: self.place(id).lock_owned().await }
    }

    fn place(&self, id: BlobId) -> Arc<tokio::sync::Mutex<()>> {
        let mut by_blob = self.by_blob.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = by_blob.get(&id).and_then(Weak::upgrade) {
            return place;
        }
        // Only blobs being written right now stay: as many as the resolves under way write at once.
        by_blob.retain(|_, place| place.strong_count() > 0);
        let place = Arc::default();
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
        let first = writers.alone(a).await;
        let _other_blob = writers.alone(b).await;
        let mut second = Box::pin(writers.alone(a));
        assert!(poll_once(&mut second).await.is_none(), "a second writer waits");
        drop(first);
        drop(second.await);
        drop(writers.alone(BlobId::from_digest([3; 32])).await);
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
