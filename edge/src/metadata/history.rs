//! [`History`]: sets that were served, for as long as somebody may still hold a timestamp of theirs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::published::Published;
use crate::limits::{PAST_BYTES_MAX, PAST_LIFE_S_MIN, PAST_SETS_MAX};

/// Sets that are no longer the newest, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    past: VecDeque<Past>,
    bytes: u64,
}

#[derive(Debug)]
struct Past {
    published: Arc<Published>,
    until: Instant,
    bytes: u64,
}

impl History {
    /// Keeps a set that `newer` replaces now. Its timestamp expires after `life`.
    pub fn push(&mut self, published: Arc<Published>, newer: &Published, life: Duration, now: Instant) {
        self.past.retain(|past| past.until > now);
        if !published.reaches_the_same(newer) {
            let bytes = published.bytes_beside(newer);
            let until = now + life.max(Duration::from_secs(PAST_LIFE_S_MIN));
            self.past.push_back(Past { published, until, bytes });
        }
        self.bytes = self.past.iter().map(|past| past.bytes).sum();
        while self.past.len() > PAST_SETS_MAX || self.bytes > PAST_BYTES_MAX {
            let Some(oldest) = self.past.pop_front() else { break };
            self.bytes -= oldest.bytes;
            tracing::warn!("more metadata was served lately than is kept: old files are fetched again if asked for");
        }
    }

    /// All of them, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Published>> {
        self.past.iter().rev().map(|past| &past.published)
    }
}
