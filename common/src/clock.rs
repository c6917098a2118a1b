//! [`Clock`]: where "now" comes from. Pure code takes `now` as an argument; programs hold a clock; nothing else reads time.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole seconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// This moment plus `seconds`, saturating.
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// A source of wall-clock time. Two implementations live: [`SystemClock`] and [`ManualClock`].
///
/// A wrong answer is safe in one direction only: a clock that runs behind makes expired metadata look fresh (freeze),
/// one that runs ahead only refuses too early. Callers that keep trust state therefore use a floor.
pub trait Clock: Send + Sync {
    /// The current time.
    fn now(&self) -> UnixSeconds;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> UnixSeconds {
        UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
    }
}

/// A clock that moves only when told to, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(Mutex<UnixSeconds>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: UnixSeconds) -> Self {
        Self(Mutex::new(start))
    }

    /// Moves the clock to `now`, forwards or backwards.
    pub fn set(&self, now: UnixSeconds) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixSeconds {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
