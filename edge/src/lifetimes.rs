//! [`Lifetimes`]: how long what upstream said is believed, as it is configured now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::EdgeConfig;

/// Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Lifetimes(Arc<Seconds>);

#[derive(Debug)]
struct Seconds {
    max_age: AtomicU64,
    stale_max: AtomicU64,
    unknown: AtomicU64,
}

impl Lifetimes {
    pub fn new(config: &EdgeConfig) -> Self {
        Self(Arc::new(Seconds {
            max_age: AtomicU64::new(config.metadata_max_age_s),
            stale_max: AtomicU64::new(config.metadata_stale_max_s),
            unknown: AtomicU64::new(config.unknown_blob_s),
        }))
    }

    /// Has what `config` says hold from now on, for what is here, too.
    pub fn set(&self, config: &EdgeConfig) {
        self.0.max_age.store(config.metadata_max_age_s, Ordering::Relaxed);
        self.0.stale_max.store(config.metadata_stale_max_s, Ordering::Relaxed);
        self.0.unknown.store(config.unknown_blob_s, Ordering::Relaxed);
    }

    /// Of unnumbered metadata, seconds.
    pub fn max_age_s(&self) -> u64 {
        self.0.max_age.load(Ordering::Relaxed)
    }

    /// Of unnumbered metadata.
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_age_s())
    }

    /// Of metadata when upstream cannot be asked.
    pub fn stale_max(&self) -> Duration {
        Duration::from_secs(self.0.stale_max.load(Ordering::Relaxed))
    }

    /// Of the answer that there is no such blob.
    pub fn unknown(&self) -> Duration {
        Duration::from_secs(self.0.unknown.load(Ordering::Relaxed))
    }
}
