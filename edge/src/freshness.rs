//! [`Freshness`]: where an answer comes from, and what is said of it in `Cache-Status` (RFC 9211).

use colibri_api::{CacheStatus, Forward};

/// Where something comes from; of an answer that is made of several, the last in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freshness {
    /// It was in memory.
    Hit,
    /// It was on disk.
    Disk,
    /// It was here and is old, but upstream cannot be asked.
    Stale,
    /// Somebody else was fetching it.
    Joined,
    /// It was on disk, but for pieces that were fetched for this request.
    Partial,
    /// It was fetched for this request.
    Miss,
}

impl Freshness {
    /// What is fetched, for whoever asked first or joined.
    pub const fn of_flight(joined: bool) -> Self {
        Self::Miss.seen_by(joined)
    }

    /// The same for who joined: what is fetched is not fetched for him.
    pub const fn seen_by(self, joined: bool) -> Self {
        match self {
            Self::Partial | Self::Miss if joined => Self::Joined,
            other => other,
        }
    }

    /// True if upstream was asked for this request: what other caches did is part of the answer's history.
    pub const fn is_forwarded(self) -> bool {
        matches!(self, Self::Partial | Self::Miss)
    }

    /// What the cache called so says of it.
    pub fn status(self, name: &str) -> CacheStatus {
        let forwarded = |reason| CacheStatus::forwarded(name, reason);
        match self {
            Self::Hit => CacheStatus::hit(name),
            Self::Disk => CacheStatus::hit(name).with_detail("disk"),
            Self::Stale => CacheStatus::hit(name).with_detail("stale"),
            Self::Joined => CacheStatus { collapsed: true, ..forwarded(Forward::Miss) },
            Self::Partial => CacheStatus { stored: true, ..forwarded(Forward::Partial) },
            Self::Miss => CacheStatus { stored: true, ..forwarded(Forward::Miss) },
        }
    }

    /// Its name in the access log.
    pub const fn tier(self) -> &'static str {
        match self {
            Self::Hit => "memory",
            Self::Disk | Self::Partial => "disk",
            Self::Stale => "stale",
            Self::Joined => "flight",
            Self::Miss => "upstream",
        }
    }
}
