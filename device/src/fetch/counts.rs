//! [`FetchCounts`]: how far a fetch is, for whoever watches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fetch::{Event, Observer};

/// What was counted of one fetch, or of several.
#[derive(Debug, Default)]
pub struct FetchCounts {
    known: AtomicU64,
    done: AtomicU64,
    content_bytes: AtomicU64,
}

impl FetchCounts {
    /// Counts what it hears of.
    pub fn observer(self: &Arc<Self>) -> Observer {
        let counts = self.clone();
        Arc::new(move |event| {
            match event {
                Event::Announced { blobs } => counts.known.fetch_add(blobs as u64, Ordering::Relaxed),
                Event::Present { .. } | Event::Kept { .. } => counts.done.fetch_add(1, Ordering::Relaxed),
                Event::Verified { content_bytes, .. } | Event::Reused { content_bytes, .. } => {
                    counts.content_bytes.fetch_add(content_bytes, Ordering::Relaxed)
                }
            };
        })
    }

    /// Blobs that are known to be needed.
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Of these, blobs that are here.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes of content that were verified.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes.load(Ordering::Relaxed)
    }
}
