//! [`Hedging`]: when the first source has sent nothing for longer than it nearly ever takes, the next one is asked as well. A
//! bounded share of fetches may do so: a slow fleet must not be asked twice as much.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::HEDGES_SAVED_MAX;

/// When a second source is asked besides the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedging {
    /// At most this part of the fetches of units, in percent; 0 for never.
    pub share_percent: u8,
    /// After the time within which the first byte came in this part of the latest fetches from that source, in percent.
    pub quantile_percent: u8,
    /// But not before this.
    pub delay_min: Duration,
}

impl Default for Hedging {
    fn default() -> Self {
        Self { share_percent: 5, quantile_percent: 95, delay_min: Duration::from_millis(20) }
    }
}

impl Hedging {
    /// Never.
    pub const OFF: Self = Self { share_percent: 0, quantile_percent: 100, delay_min: Duration::ZERO };
}

/// What is left of the share, in hundredths of a hedge.
#[derive(Debug, Default)]
pub(crate) struct HedgeShare(Mutex<u32>);

impl HedgeShare {
    /// A fetch that may be hedged begins.
    pub fn earn(&self, hedging: &Hedging) {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *saved = (*saved + u32::from(hedging.share_percent.min(100))).min(HEDGES_SAVED_MAX * 100);
    }

    /// Takes a hedge out of the share; false if there is none left.
    pub fn spend(&self) -> bool {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *saved >= 100;
        *saved -= if enough { 100 } else { 0 };
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_holds_and_little_is_saved_up() {
        let (share, hedging) = (HedgeShare::default(), Hedging::default());
        let hedged = (0..1000).filter(|_| {
            share.earn(&hedging);
            share.spend()
        });
        assert_eq!(hedged.count(), 50);
        (0..10_000).for_each(|_| share.earn(&hedging));
        assert_eq!((0..100).filter(|_| share.spend()).count(), HEDGES_SAVED_MAX as usize);
        assert!(!share.spend());
    }
}
