//! [`History`]: what is remembered of units for people who ask why: from which source they came, when they were let go, why a
//! fill failed. Bounded, in memory only, and nothing on the read path depends on it.

use std::sync::Arc;

use colibri_common::{BlobId, Clock, UnixSeconds};
use colibri_fetch::Given;
use colibri_package::delivery::Encoding;
use quick_cache::sync::Cache;
use serde::Serialize;

use crate::limits::{HISTORY_TEXT_BYTES_MAX, HISTORY_UNITS_MAX};
use crate::unit::UnitKey;

/// What names a unit here: which of several encoded forms it was of is not told apart.
type Key = (BlobId, Encoding, u32);

/// What happened to one unit last.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Past {
    /// The source that gave it.
    #[serde(serialize_with = "text")]
    pub source: Option<Arc<str>>,
    /// When that was, seconds since 1970.
    pub came_at: Option<UnixSeconds>,
    /// Why it was not here when it was fetched last.
    pub last_miss: Option<Miss>,
    /// When memory let it go.
    pub evicted_at: Option<UnixSeconds>,
    /// Why the last fill failed, if it did.
    #[serde(serialize_with = "text")]
    pub failure: Option<Arc<str>>,
    /// When that was.
    pub failed_at: Option<UnixSeconds>,
}

/// Why a unit was not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Miss {
    /// Nothing is known of it since the start, or it was too long ago.
    NeverSeen,
    /// It was here, and had to make room.
    Evicted,
    /// It was asked for before, and no source could give it.
    Failed,
    /// It was here, and was lost or found damaged.
    Lost,
}

/// The memory of one edge.
pub(crate) struct History {
    units: Cache<Key, Past>,
    clock: Arc<dyn Clock>,
    since: UnixSeconds,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("units", &self.units.len()).finish_non_exhaustive()
    }
}

impl History {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let since = clock.now();
        Arc::new(Self { units: Cache::new(HISTORY_UNITS_MAX), clock, since })
    }

    /// Since when it remembers.
    pub const fn since(&self) -> UnixSeconds {
        self.since
    }

    /// What is remembered of a unit.
    pub fn of(&self, id: BlobId, encoding: Encoding, unit: u32) -> Option<Past> {
        self.units.peek(&(id, encoding, unit))
    }

    /// Memory let it go.
    pub fn evicted(&self, key: &UnitKey) {
        self.change(key_of(key), |past, now| past.evicted_at = Some(now));
    }

    /// Its fill failed.
    pub fn failed(&self, key: &UnitKey, reason: &str) {
        let reason = clip(reason, HISTORY_TEXT_BYTES_MAX);
        self.change(key_of(key), |past, now| {
            (past.failure, past.failed_at) = (Some(Arc::from(reason)), Some(now));
        });
    }

    fn change(&self, key: Key, change: impl FnOnce(&mut Past, UnixSeconds)) {
        let mut past = self.units.peek(&key).unwrap_or_default();
        change(&mut past, self.clock.now());
        self.units.insert(key, past);
    }

    /// A source gave it.
    pub fn gave(&self, authority: &str, given: Given) {
        let Given::Unit { blob, encoding, unit } = given else { return };
        self.change((blob, encoding, unit), |past, now| {
            let source = past.source.take().filter(|source| **source == *authority);
            let last_miss = match past {
                Past { failure: Some(_), .. } => Miss::Failed,
                Past { evicted_at: Some(_), .. } => Miss::Evicted,
                Past { came_at: Some(_), .. } => Miss::Lost,
                Past { .. } => Miss::NeverSeen,
            };
            *past = Past {
                source: Some(source.unwrap_or_else(|| Arc::from(authority))),
                came_at: Some(now),
                last_miss: Some(last_miss),
                ..Past::default()
            };
        });
    }
}

/// The beginning of a text, in at most so many bytes.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn text<S: serde::Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

const fn key_of(key: &UnitKey) -> Key {
    (key.id, key.encoding, key.unit)
}
