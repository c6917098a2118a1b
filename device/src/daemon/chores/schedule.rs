//! When a chore is due: pure arithmetic on times that others give. It reads no clock, draws no lots and does nothing.
//!
//! Pauses are shortened at random by up to a share, so that devices that were switched on together do not ask together; what
//! did not get done is tried again after pauses that double. Times are the wall clock's, which may be set: what seems to have
//! happened in the future counts as never.

use colibri_common::UnixSeconds;

/// How often something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Seconds from one time to the next.
    pub every_s: u64,
    /// Seconds after which what did not get done is tried again, and within which what is due at a start is done.
    pub retry_first_s: u64,
    /// Seconds beyond which that does not double any more.
    pub retry_max_s: u64,
    /// The share of a pause that chance may take from it, percent.
    pub spread_percent: u8,
}

/// What is known of the times before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Past {
    /// When it ended last, or began without coming to an end.
    pub last: Option<UnixSeconds>,
    /// Times in a row that it did not get done.
    pub failures: u32,
    /// The lot that was drawn for the pause after that.
    pub lot: u16,
}

impl Cadence {
    /// When it is due. `began` is when somebody began to keep this schedule.
    pub fn due(&self, past: &Past, began: UnixSeconds, now: UnixSeconds) -> UnixSeconds {
        let began = began.min(now);
        let first = began.plus(share(self.retry_first_s.min(self.every_s), past.lot));
        match past.last.filter(|last| *last <= now) {
            // What is overdue at a start is not done by everybody at once either.
            Some(last) => last.plus(self.pause_s(past)).max(if last < began { first } else { last }),
            None => first,
        }
    }

    fn pause_s(&self, past: &Past) -> u64 {
        let pause = match past.failures.checked_sub(1) {
            None => self.every_s,
            Some(doublings) => {
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                self.retry_first_s.saturating_mul(factor).min(self.retry_max_s.max(self.retry_first_s))
            }
        };
        let most = pause / 100 * u64::from(self.spread_percent.min(100));
        (pause - share(most, past.lot)).max(1)
    }
}

/// The share of a time that a lot stands for.
const fn share(seconds: u64, lot: u16) -> u64 {
    ((seconds as u128 * lot as u128) >> 16) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAILY: Cadence = Cadence { every_s: 86_400, retry_first_s: 60, retry_max_s: 3600, spread_percent: 10 };
    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn at(offset: i64) -> UnixSeconds {
        UnixSeconds(NOW.0.checked_add_signed(offset).unwrap())
    }

    #[test]
    fn what_never_happened_happens_soon_after_the_start_but_not_everywhere_at_once() {
        for (lot, expected) in [(0, 0), (1 << 15, 30), (u16::MAX, 59)] {
            let past = Past { lot, ..Past::default() };
            assert_eq!(DAILY.due(&past, NOW, at(5)), at(expected), "lot {lot}");
        }
        // What is done every few seconds does not wait longer for its first time.
        let often = Cadence { every_s: 2, ..DAILY };
        assert_eq!(often.due(&Past { lot: 1 << 15, ..Past::default() }, NOW, NOW), at(1));
    }

    #[test]
    fn the_next_time_is_a_pause_later_less_what_chance_takes() {
        for (lot, pause) in [(0, 86_400), (1 << 15, 86_400 - 4320), (u16::MAX, 86_400 - 8639)] {
            let past = Past { last: Some(at(-10)), failures: 0, lot };
            assert_eq!(DAILY.due(&past, at(-1000), NOW), at(pause - 10), "lot {lot}");
        }
        let no_chance = Cadence { spread_percent: 0, ..DAILY };
        let past = Past { last: Some(NOW), failures: 0, lot: u16::MAX };
        assert_eq!(no_chance.due(&past, NOW, NOW), at(86_400));
    }

    #[test]
    fn what_fails_is_tried_again_after_pauses_that_double_to_a_bound() {
        let pauses = (1..=9).chain([64, 65, u32::MAX]).map(|failures| {
            let past = Past { last: Some(NOW), failures, lot: 0 };
            DAILY.due(&past, NOW, NOW).0 - NOW.0
        });
        let expected = [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600, 3600, 3600];
        assert_eq!(pauses.collect::<Vec<_>>(), expected);
        let odd = Cadence { retry_max_s: 5, ..DAILY };
        assert_eq!(odd.due(&Past { last: Some(NOW), failures: 3, lot: 0 }, NOW, NOW), at(60));
    }

    #[test]
    fn what_was_missed_while_the_device_was_off_is_caught_up_once_and_spread() {
        let past = Past { last: Some(at(-1_000_000)), failures: 0, lot: 1 << 15 };
        assert_eq!(DAILY.due(&past, NOW, NOW), at(30));
        // What is not due yet is not done because of a start.
        let past = Past { last: Some(at(-100)), failures: 0, lot: 0 };
        assert_eq!(DAILY.due(&past, NOW, NOW), at(86_300));
    }

    #[test]
    fn a_clock_that_was_set_back_stops_nothing() {
        let past = Past { last: Some(at(1_000_000)), failures: 2, lot: 0 };
        assert_eq!(DAILY.due(&past, NOW, NOW), NOW);
        // Also if it was set back since the start.
        assert_eq!(DAILY.due(&past, at(500_000), NOW), NOW);
    }

    #[test]
    fn no_values_make_it_overflow_or_stand_still() {
        let most = Cadence { every_s: u64::MAX, retry_first_s: u64::MAX, retry_max_s: u64::MAX, spread_percent: 255 };
        for (cadence, failures) in [(most, 0), (most, 9), (Cadence { every_s: 0, ..most }, 0)] {
            let past = Past { last: Some(NOW), failures, lot: u16::MAX };
            assert!(cadence.due(&past, NOW, NOW) > NOW);
        }
    }
}
