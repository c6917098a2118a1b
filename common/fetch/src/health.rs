//! `Health` of one source: how it failed lately, and how quick it is.
//!
//! A demotion grows each time there is new trouble, and shrinks with time and success, but is never shorter than its floor.

use std::time::Duration;

use tokio::time::Instant;

use crate::class::Class;
use crate::limits::{
    BLAME_DEMOTION, BLAME_DEMOTION_MAX, DEMOTION_HALF_LIFE, FAILURE_DEMOTION, FAILURE_DEMOTION_MAX, LATENCIES_KEPT,
    LATENCIES_MIN, LATENCY_LIFE, LEAVING_MEMORY,
};

/// Weight of a new value in a mean.
const NEW_WEIGHT: f64 = 0.2;

/// How eagerly a source is asked; smaller comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// It failed lately, or it said that it is about to stop, or it ignores ranges.
    Failing,
    /// It served bad bytes lately.
    Blamed,
}

/// A time during which a source is asked after others.
#[derive(Debug)]
struct Demotion {
    floor: Duration,
    max: Duration,
    length: Duration,
    struck_at: Option<Instant>,
    until: Option<Instant>,
}

impl Demotion {
    const fn new(floor: Duration, max: Duration) -> Self {
        Self { floor, max, length: Duration::ZERO, struck_at: None, until: None }
    }

    fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// New trouble. Fetches under way at the same time meet the same trouble: it counts once.
    fn strike(&mut self, now: Instant) {
        if !self.holds(now) {
            self.length = self.decayed(now).saturating_mul(2).clamp(self.floor, self.max);
        }
        self.struck_at = Some(now);
        self.until = Some(now + self.length);
    }

    /// It did well: it is asked again, and half of what it did is forgotten.
    fn ease(&mut self, now: Instant) {
        if self.length > Duration::ZERO {
            self.length = self.forget_if_small(self.decayed(now) / 2);
            self.until = None;
        }
    }

    fn decayed(&self, now: Instant) -> Duration {
        let Some(at) = self.struck_at else { return Duration::ZERO };
        let half_lives = now.saturating_duration_since(at).as_secs() / DEMOTION_HALF_LIFE.as_secs();
        let shift = u32::try_from(half_lives.min(31)).unwrap_or(31);
        self.forget_if_small(self.length / (1 << shift))
    }

    fn forget_if_small(&self, length: Duration) -> Duration {
        if length < self.floor { Duration::ZERO } else { length }
    }
}

/// A mean in which older values fade.
#[derive(Debug, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |mean| mean + (value - mean) * NEW_WEIGHT));
    }
}

/// What is known of one source.
#[derive(Debug)]
pub(crate) struct Health {
    blame: Demotion,
    failure: Demotion,
    leaving_until: Option<Instant>,
    /// When it may be asked again for something as urgent as each class.
    resting_until: [Option<Instant>; 3],
    head_s: Mean,
    bytes_per_s: Mean,
    measured_at: Option<Instant>,
    /// Times to the first byte of units, a ring.
    first_bytes: Vec<Duration>,
    next_first_byte: usize,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            blame: Demotion::new(BLAME_DEMOTION, BLAME_DEMOTION_MAX),
            failure: Demotion::new(FAILURE_DEMOTION, FAILURE_DEMOTION_MAX),
            leaving_until: None,
            resting_until: [None; 3],
            head_s: Mean::default(),
            bytes_per_s: Mean::default(),
            measured_at: None,
            first_bytes: Vec::new(),
            next_first_byte: 0,
        }
    }
}

impl Health {
    pub fn standing(&self, now: Instant) -> Standing {
        if self.blame.holds(now) {
            Standing::Blamed
        } else if self.failure.holds(now) || self.leaving_until.is_some_and(|until| now < until) {
            Standing::Failing
        } else {
            Standing::Good
        }
    }

    pub fn succeeded(&mut self, now: Instant) {
        self.failure.ease(now);
    }

    pub fn failed(&mut self, now: Instant) {
        self.failure.strike(now);
    }

    pub fn blamed(&mut self, now: Instant) {
        self.blame.strike(now);
    }

    /// It said that it is about to stop.
    pub fn leaving(&mut self, now: Instant) {
        self.leaving_until = Some(now + LEAVING_MEMORY);
    }

    /// It asked to be left alone for so long by who is as urgent as `class`; those who are less urgent are meant, too.
    pub fn rests(&mut self, class: Class, until: Instant) {
        for resting in &mut self.resting_until[class as usize..] {
            *resting = Some(resting.map_or(until, |was| was.max(until)));
        }
    }

    /// For how long it may not be asked for something of this class.
    pub fn rest(&self, class: Class, now: Instant) -> Duration {
        self.resting_until[class as usize].map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The head of an answer took this long.
    pub fn head_came(&mut self, after: Duration, now: Instant) {
        self.head_s.add(after.as_secs_f64());
        self.measured_at = Some(now);
    }

    /// A body of this size took this long after its head.
    pub fn body_came(&mut self, bytes: u64, within: Duration) {
        self.bytes_per_s.add(bytes as f64 / within.as_secs_f64().max(0.000_1));
    }

    /// The first byte of a unit took this long, or at least this long.
    pub fn first_byte_came(&mut self, after: Duration) {
        match self.first_bytes.get_mut(self.next_first_byte) {
            Some(slot) => *slot = after,
            None => self.first_bytes.push(after),
        }
        self.next_first_byte = (self.next_first_byte + 1) % LATENCIES_KEPT;
    }

    /// Mean time to the head of an answer, while it is fresh: what was measured long ago says nothing.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        let fresh = self.measured_at.is_some_and(|at| now.saturating_duration_since(at) < LATENCY_LIFE);
        self.head_s.0.filter(|_| fresh).map(Duration::from_secs_f64)
    }

    /// Mean rate of bodies, bytes per second.
    pub fn bytes_per_s(&self) -> Option<u64> {
        self.bytes_per_s.0.map(|rate| rate as u64)
    }

    /// The time within which the first byte of a unit came in `percent` of the latest cases; nothing while they are few.
    pub fn first_byte_within(&self, percent: u8) -> Option<Duration> {
        if self.first_bytes.len() < LATENCIES_MIN {
            return None;
        }
        let mut sorted = self.first_bytes.clone();
        let index = (sorted.len() * usize::from(percent.min(100)) / 100).min(sorted.len() - 1);
        Some(*sorted.select_nth_unstable(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Failing from `at` on: when it is good again.
    fn span(health: &Health, at: Instant) -> Duration {
        let good = (0..10_000).find(|step| health.standing(at + s(*step)) == Standing::Good);
        s(good.unwrap())
    }

    #[test]
    fn demotions_grow_with_new_trouble_and_shrink_with_success_and_time() {
        let (mut health, start) = (Health::default(), Instant::now());
        health.failed(start);
        health.failed(start);
        assert_eq!(span(&health, start), FAILURE_DEMOTION, "the same trouble counts once");
        let mut at = start;
        for expected in [10, 20, 40, 60, 60] {
            at += s(61);
            health.failed(at);
            assert_eq!(span(&health, at), s(expected));
        }
        health.succeeded(at + s(1));
        assert_eq!(span(&health, at + s(1)), s(0), "who did well is asked again");
        health.failed(at + s(2));
        assert_eq!(span(&health, at + s(2)), s(60), "but it is not forgotten at once");
        health.succeeded(at + s(3));
        health.succeeded(at + s(3));
        health.succeeded(at + s(3));
        health.failed(at + s(4));
        assert_eq!(span(&health, at + s(4)), s(15), "three successes: an eighth, doubled");
        at += DEMOTION_HALF_LIFE * 8;
        health.failed(at);
        assert_eq!(span(&health, at), FAILURE_DEMOTION, "the floor");
    }

    #[test]
    fn blame_outlives_success_and_who_leaves_is_left() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.blamed(now);
        health.succeeded(now);
        assert_eq!(health.standing(now + BLAME_DEMOTION - s(1)), Standing::Blamed);
        assert_eq!(health.standing(now + BLAME_DEMOTION), Standing::Good);
        health.leaving(now + BLAME_DEMOTION);
        assert_eq!(health.standing(now + BLAME_DEMOTION), Standing::Failing);
    }

    #[test]
    fn who_asks_to_be_left_alone_rests_for_the_less_urgent_too() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.rests(Class::Warm, now + s(9));
        health.rests(Class::Background, now + s(3));
        let rests = [Class::Demand, Class::Warm, Class::Background].map(|class| health.rest(class, now));
        assert_eq!(rests, [s(0), s(9), s(9)]);
        assert_eq!(health.rest(Class::Warm, now + s(9)), s(0));
    }

    #[test]
    fn latencies_are_means_and_quantiles_of_what_was_lately() {
        let (mut health, now) = (Health::default(), Instant::now());
        assert_eq!((health.latency(now), health.first_byte_within(95)), (None, None));
        health.head_came(s(1), now);
        health.head_came(s(2), now);
        assert_eq!(health.latency(now), Some(Duration::from_millis(1200)));
        assert_eq!(health.latency(now + LATENCY_LIFE), None);
        (0..1000).for_each(|_| health.first_byte_came(s(100)));
        (0..LATENCIES_KEPT as u64).for_each(|number| health.first_byte_came(s(number)));
        let within = health.first_byte_within(95).unwrap();
        assert_eq!(within, s(LATENCIES_KEPT as u64 * 95 / 100));
        assert_eq!(health.first_byte_within(100), Some(s(LATENCIES_KEPT as u64 - 1)));
    }
}
