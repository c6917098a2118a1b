//! [`Backoff`]: how long to wait before the next attempt. Pure arithmetic; it neither sleeps nor rolls dice.

use std::time::Duration;

/// Exponential back-off with full jitter above a floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end of the first delay.
    pub base: Duration,
    /// Upper end of every delay.
    pub ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(100), ceiling: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The delay before retry number `attempt` (0 is the first retry): between half of and the whole of
    /// `min(ceiling, base · 2^attempt)`, where `jitter` in 0.0 ..= 1.0 picks the place. A jitter outside (or NaN) is clamped.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let whole = self.base.saturating_mul(2u32.saturating_pow(attempt)).min(self.ceiling);
        let jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
        whole.mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_ceiling() {
        let backoff = Backoff { base: Duration::from_millis(100), ceiling: Duration::from_secs(1) };
        let full: Vec<_> = (0..5).map(|attempt| backoff.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(full, [100, 200, 400, 800, 1000]);
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn jitter_takes_up_to_half_and_is_clamped() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 0.0), Duration::from_millis(50));
        assert_eq!(backoff.delay(0, -7.0), Duration::from_millis(50));
        assert_eq!(backoff.delay(0, f64::INFINITY), Duration::from_millis(100));
        assert_eq!(backoff.delay(0, f64::NAN), Duration::from_millis(100));
    }
}
