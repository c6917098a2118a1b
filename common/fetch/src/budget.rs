//! [`Budget`]: how much may be asked of a source: requests in flight, requests per second, bytes per second. Who is more
//! urgent goes first, and less urgent work leaves a part of everything free.
//!
//! Bytes are charged when a request is sent, as far as their number is known, and settled when its body ends; so the mean rate
//! holds exactly, and a burst is at most a second's worth and one answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::class::Class;
use crate::limits::SOURCE_IN_FLIGHT_MAX;

/// What may be asked of a source, or of several that share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Requests in flight, bodies being read included.
    pub in_flight_max: u32,
    /// Requests per second; 0 for any number.
    pub requests_per_s: u64,
    /// Bytes of bodies per second; 0 for any number.
    pub bytes_per_s: u64,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self { in_flight_max: SOURCE_IN_FLIGHT_MAX, requests_per_s: 0, bytes_per_s: 0 }
    }
}

/// A budget in use.
#[derive(Debug)]
pub struct Budget {
    in_flight_max: AtomicU32,
    state: Mutex<State>,
    waits: AtomicU64,
    waited_us: AtomicU64,
}

#[derive(Debug)]
struct State {
    in_flight: u32,
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Who waits, the most urgent first, among equals the first to come.
    waiting: BTreeMap<(Class, u64), Arc<Notify>>,
    next_ticket: u64,
}

/// What must happen before a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wait {
    /// Another must end.
    Release,
    /// Time must pass.
    Until(Instant),
}

/// Fills steadily up to a second's worth.
#[derive(Debug)]
struct Bucket {
    per_s: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_s: u64, now: Instant) -> Option<Self> {
        let per_s = per_s as f64;
        (per_s > 0.0).then_some(Self { per_s, level: per_s, at: now })
    }

    /// The same bucket for another rate, as full as it was. A debt takes no longer to pay off than before.
    fn at_rate(was: Option<Self>, per_s: u64, now: Instant) -> Option<Self> {
        let mut bucket = Self::new(per_s, now)?;
        if let Some(mut was) = was {
            // Only what was gained until now.
            _ = was.ready(0.0, now);
            let level = was.level / was.per_s * bucket.per_s;
            bucket.level = if was.level < 0.0 { level.max(was.level) } else { level };
        }
        Some(bucket)
    }

    /// Says from when on there is `wanted`, if that is not now.
    fn ready(&mut self, wanted: f64, now: Instant) -> Result<(), Wait> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_s;
        self.level = (self.level + gained).min(self.per_s);
        self.at = now;
        if self.level >= wanted {
            return Ok(());
        }
        // A little more than exact, so that rounding does not wake anybody too early.
        let missing_s = (wanted - self.level) / self.per_s + 0.000_1;
        Err(Wait::Until(now + Duration::from_secs_f64(missing_s)))
    }
}

impl State {
    fn take(&mut self, class: Class, bytes: u64, in_flight_max: u32, now: Instant) -> Result<(), Wait> {
        let reserve = class.reserve();
        let reserved = (f64::from(in_flight_max) * reserve) as u32;
        if self.in_flight >= in_flight_max - reserved {
            return Err(Wait::Release);
        }
        if let Some(bucket) = &mut self.requests {
            let wanted = 1.0 + reserve * (bucket.per_s - 1.0).max(0.0);
            bucket.ready(wanted.min(bucket.per_s), now)?;
        }
        if let Some(bucket) = &mut self.bytes {
            bucket.ready(reserve * bucket.per_s, now)?;
        }
        self.in_flight += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.level -= 1.0;
        }
        self.charge(bytes as f64);
        Ok(())
    }

    fn charge(&mut self, bytes: f64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.level = (bucket.level - bytes).min(bucket.per_s);
        }
    }

    fn wake_first(&self) {
        if let Some(first) = self.waiting.values().next() {
            first.notify_one();
        }
    }
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(limits: BudgetLimits) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            in_flight: 0,
            requests: Bucket::new(limits.requests_per_s, now),
            bytes: Bucket::new(limits.bytes_per_s, now),
            waiting: BTreeMap::new(),
            next_ticket: 0,
        };
        let in_flight_max = AtomicU32::new(limits.in_flight_max.max(1));
        Arc::new(Self {
            in_flight_max,
            state: Mutex::new(state),
            waits: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
        })
    }

    /// Has these limits hold from now on. What is in flight stays, and is counted.
    pub fn set_limits(&self, limits: BudgetLimits) {
        let (mut state, now) = (self.lock(), Instant::now());
        self.in_flight_max.store(limits.in_flight_max.max(1), Ordering::Relaxed);
        state.requests = Bucket::at_rate(state.requests.take(), limits.requests_per_s, now);
        state.bytes = Bucket::at_rate(state.bytes.take(), limits.bytes_per_s, now);
        state.wake_first();
    }

    /// Has at most so many requests in flight from now on, whatever the rates.
    pub fn set_in_flight_max(&self, in_flight_max: u32) {
        if self.in_flight_max.swap(in_flight_max.max(1), Ordering::Relaxed) != in_flight_max.max(1) {
            self.lock().wake_first();
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.lock().in_flight
    }

    /// How many requests had to wait, and for how long all together.
    pub fn waited(&self) -> (u64, Duration) {
        let waited = Duration::from_micros(self.waited_us.load(Ordering::Relaxed));
        (self.waits.load(Ordering::Relaxed), waited)
    }

    /// Waits for a place for a request whose answer will have so many bytes (0 if that is not known).
    pub async fn acquire(self: &Arc<Self>, class: Class, bytes: u64) -> Permit {
        if let Some(permit) = self.try_acquire(class, bytes) {
            return permit;
        }
        let ticket = Ticket::new(self, class);
        loop {
            match ticket.try_take(bytes) {
                Ok(permit) => return permit,
                Err(Wait::Release) => ticket.notify.notified().await,
                Err(Wait::Until(then)) => {
                    tokio::select! {
                        () = ticket.notify.notified() => {}
                        () = sleep_until(then) => {}
                    }
                }
            }
        }
    }

    /// A place, if there is one at once and nobody as urgent waits for it.
    pub(crate) fn try_acquire(self: &Arc<Self>, class: Class, bytes: u64) -> Option<Permit> {
        let mut state = self.lock();
        let is_first = state.waiting.keys().next().is_none_or(|(waiting, _)| *waiting > class);
        let taken = is_first && state.take(class, bytes, self.in_flight_max(), Instant::now()).is_ok();
        taken.then(|| Permit { budget: self.clone(), charged: bytes, received: 0 })
    }

    fn in_flight_max(&self) -> u32 {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue.
struct Ticket<'a> {
    budget: &'a Arc<Budget>,
    key: (Class, u64),
    notify: Arc<Notify>,
    since: Instant,
}

impl<'a> Ticket<'a> {
    fn new(budget: &'a Arc<Budget>, class: Class) -> Self {
        let notify = Arc::new(Notify::new());
        let mut state = budget.lock();
        let key = (class, state.next_ticket);
        state.next_ticket += 1;
        state.waiting.insert(key, notify.clone());
        drop(state);
        budget.waits.fetch_add(1, Ordering::Relaxed);
        Self { budget, key, notify, since: Instant::now() }
    }

    fn try_take(&self, bytes: u64) -> Result<Permit, Wait> {
        let mut state = self.budget.lock();
        if state.waiting.keys().next() != Some(&self.key) {
            // Whoever is first wakes the next when it leaves.
            return Err(Wait::Release);
        }
        state.take(self.key.0, bytes, self.budget.in_flight_max(), Instant::now())?;
        Ok(Permit { budget: self.budget.clone(), charged: bytes, received: 0 })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.budget.waited_us.fetch_add(waited, Ordering::Relaxed);
        let mut state = self.budget.lock();
        state.waiting.remove(&self.key);
        state.wake_first();
    }
}

/// A place of one request, kept while its body is read.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    charged: u64,
    received: u64,
}

impl Permit {
    /// Accounts for bytes that came.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if self.received > self.charged {
            let more = self.received - self.charged;
            self.charged = self.received;
            self.budget.lock().charge(more as f64);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.in_flight -= 1;
        state.charge(-((self.charged - self.received) as f64));
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn budget(in_flight_max: u32, requests_per_s: u64, bytes_per_s: u64) -> Arc<Budget> {
        Budget::new(BudgetLimits { in_flight_max, requests_per_s, bytes_per_s })
    }

    #[tokio::test]
    async fn the_more_urgent_goes_first_and_the_less_urgent_never_takes_the_last_place() {
        let budget = budget(4, 0, 0);
        let background: Vec<_> = (0..3).map_while(|_| budget.try_acquire(Class::Background, 0)).collect();
        assert_eq!(background.len(), 2);
        let warm: Vec<_> = (0..3).map_while(|_| budget.try_acquire(Class::Warm, 0)).collect();
        assert_eq!(warm.len(), 1);
        let demand = budget.try_acquire(Class::Demand, 0).unwrap();
        assert!(budget.try_acquire(Class::Demand, 0).is_none());
        let mut late = Box::pin(budget.acquire(Class::Warm, 0));
        assert!(late.as_mut().now_or_never().is_none());
        let mut urgent = Box::pin(budget.acquire(Class::Demand, 0));
        assert!(urgent.as_mut().now_or_never().is_none());
        drop(demand);
        assert!(late.as_mut().now_or_never().is_none(), "the demand that came later goes first");
        let urgent = urgent.as_mut().now_or_never().unwrap();
        drop(warm);
        assert!(late.as_mut().now_or_never().is_none(), "the last place is not for it");
        drop((urgent, background));
        let late = late.as_mut().now_or_never().unwrap();
        assert_eq!((budget.in_flight(), budget.waited().0), (1, 2));
        drop(late);
        assert_eq!(budget.in_flight(), 0);
    }

    #[tokio::test]
    async fn who_stops_waiting_holds_nobody_up() {
        let budget = budget(1, 0, 0);
        let held = budget.acquire(Class::Demand, 0).await;
        let mut first = Box::pin(budget.acquire(Class::Demand, 0));
        let mut second = Box::pin(budget.acquire(Class::Demand, 0));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(held);
        drop(first);
        assert!(second.as_mut().now_or_never().is_some());
    }

    /// Over any long time exactly the rate, whatever the bodies turn out to be.
    #[test]
    fn rates_hold_and_what_did_not_come_is_given_back() {
        let budget = budget(100, 0, 1000);
        let start = Instant::now();
        let mut state = budget.lock();
        assert_eq!(state.take(Class::Demand, 3000, 100, start), Ok(()), "a request may be larger than what is there");
        let Err(Wait::Until(then)) = state.take(Class::Demand, 1, 100, start) else { panic!("the debt is not seen") };
        assert!((then - start).abs_diff(Duration::from_secs(2)) < Duration::from_millis(10), "{:?}", then - start);
        assert_eq!(state.take(Class::Demand, 500, 100, then), Ok(()));
        assert!(state.take(Class::Demand, 1, 100, then).is_err());
        // Half of it never came.
        state.charge(-250.0);
        assert_eq!(state.take(Class::Demand, 0, 100, then + Duration::from_millis(251)), Ok(()));
        let later = then + Duration::from_secs(60);
        assert_eq!(state.take(Class::Background, 600, 100, later), Ok(()));
        assert!(matches!(state.take(Class::Background, 1, 100, later), Err(Wait::Until(_))), "half is kept for others");
        assert_eq!(state.take(Class::Warm, 1, 100, later), Ok(()));
    }

    #[tokio::test]
    async fn limits_change_for_those_who_wait_already() {
        let budget = budget(1, 0, 0);
        let held = budget.acquire(Class::Demand, 0).await;
        let mut first = Box::pin(budget.acquire(Class::Demand, 0));
        let mut second = Box::pin(budget.acquire(Class::Demand, 0));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        budget.set_limits(BudgetLimits { in_flight_max: 3, ..BudgetLimits::default() });
        let first = first.as_mut().now_or_never().unwrap();
        let second = second.as_mut().now_or_never().unwrap();
        budget.set_limits(BudgetLimits { in_flight_max: 2, ..BudgetLimits::default() });
        drop(first);
        assert!(budget.try_acquire(Class::Demand, 0).is_none(), "two are in flight");
        drop((held, second));
        assert_eq!(budget.in_flight(), 0);
    }

    #[test]
    fn a_debt_takes_no_longer_when_the_rate_changes() {
        let budget = budget(100, 0, 1000);
        assert!(budget.lock().take(Class::Demand, 11_000, 100, Instant::now()).is_ok());
        // Ten seconds' worth; the time that this test takes pays some of it off.
        for (bytes_per_s, secs) in [(10, 10), (10_000, 1)] {
            budget.set_limits(BudgetLimits { bytes_per_s, ..BudgetLimits::default() });
            let now = Instant::now();
            let waits = budget.lock().take(Class::Demand, 1, 100, now);
            let Err(Wait::Until(then)) = waits else { panic!("the debt is forgotten") };
            assert!(then - now <= Duration::from_secs(secs) + Duration::from_millis(10), "{:?}", then - now);
        }
        budget.set_limits(BudgetLimits::default());
        let taken = budget.lock().take(Class::Demand, 1, 100, Instant::now());
        assert_eq!(taken, Ok(()), "there is no rate any more");
    }

    #[test]
    fn requests_per_second() {
        let budget = budget(100, 2, 0);
        let start = Instant::now();
        let mut state = budget.lock();
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(10) {
            match state.take(Class::Demand, 0, 100, now) {
                Ok(()) => sent += 1,
                Err(Wait::Until(then)) => now = then,
                Err(Wait::Release) => panic!("there are places"),
            }
        }
        assert!((20..=22).contains(&sent), "{sent}");
    }
}
