//! [`Bandwidth`]: at most so many bytes of bodies per second, over all sources that share it. Bodies are read no faster, so that
//! the senders slow down; each class gets a share as long as it wants one. Deliberately absent: how many requests there are
//! (module `budget`).

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::class::Class;
use crate::limits::{BANDWIDTH_BURST, BANDWIDTH_SHARES};

/// A bound on bytes per second. Clones share it.
#[derive(Debug, Clone)]
pub struct Bandwidth {
    bytes_per_s: f64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Bytes that may pass at once; below zero after a large piece.
    level: f64,
    at: Instant,
    /// Who waits, by virtual time of beginning and order of coming.
    waiting: BTreeMap<(u64, u64), Arc<Notify>>,
    /// Virtual time: when what passed last began.
    passed: u64,
    /// Virtual time at which what each class wanted so far ends. It runs the slower the larger the share is, and never behind
    /// what has passed: who wanted nothing for a while has no claim on what was given to others meanwhile.
    ends: [u64; 3],
    next_ticket: u64,
}

impl State {
    fn wake_first(&self) {
        if let Some(first) = self.waiting.values().next() {
            first.notify_one();
        }
    }
}

/// Virtual time of a byte for a share of one; a multiple of each share.
const BYTE: u64 = 24;

impl Bandwidth {
    /// So many bytes per second.
    pub fn new(bytes_per_s: NonZeroU64) -> Self {
        let state =
            State { level: 0.0, at: Instant::now(), waiting: BTreeMap::new(), passed: 0, ends: [0; 3], next_ticket: 0 };
        Self { bytes_per_s: bytes_per_s.get() as f64, state: Arc::new(Mutex::new(state)) }
    }

    /// Waits until so many bytes that came may be taken.
    pub(crate) async fn pass(&self, class: Class, bytes: usize) {
        let waiting = Waiting::new(self, class, bytes);
        loop {
            let until = match waiting.try_pass(bytes) {
                Ok(()) => return,
                Err(until) => until,
            };
            match until {
                None => waiting.notify.notified().await,
                Some(until) => {
                    tokio::select! {
                        () = waiting.notify.notified() => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue.
struct Waiting<'a> {
    bandwidth: &'a Bandwidth,
    key: (u64, u64),
    notify: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn new(bandwidth: &'a Bandwidth, class: Class, bytes: usize) -> Self {
        let notify = Arc::new(Notify::new());
        let mut state = bandwidth.lock();
        let begins = state.passed.max(state.ends[class as usize]);
        state.ends[class as usize] = begins + bytes as u64 * BYTE / u64::from(BANDWIDTH_SHARES[class as usize]);
        let key = (begins, state.next_ticket);
        state.next_ticket += 1;
        state.waiting.insert(key, notify.clone());
        drop(state);
        Self { bandwidth, key, notify }
    }

    /// Takes the bytes; else says when there may be room, or nothing while it is another's turn.
    fn try_pass(&self, bytes: usize) -> Result<(), Option<Instant>> {
        let (mut state, now) = (self.bandwidth.lock(), Instant::now());
        if state.waiting.keys().next() != Some(&self.key) {
            return Err(None);
        }
        let rate = self.bandwidth.bytes_per_s;
        let gained = now.saturating_duration_since(state.at).as_secs_f64() * rate;
        state.level = (state.level + gained).min(rate * BANDWIDTH_BURST.as_secs_f64());
        state.at = now;
        if state.level < 0.0 {
            return Err(Some(now + Duration::from_secs_f64(-state.level / rate + 0.000_1)));
        }
        state.level -= bytes as f64;
        state.passed = self.key.0;
        Ok(())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.bandwidth.lock();
        state.waiting.remove(&self.key);
        state.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each class got in ten seconds, when these want as much as they can get.
    async fn shares(classes: &[Class]) -> Vec<u64> {
        let bandwidth = Bandwidth::new(NonZeroU64::new(1_000_000).unwrap());
        let took = |class: Class| {
            let bandwidth = bandwidth.clone();
            async move {
                let (mut bytes, end) = (0, Instant::now() + Duration::from_secs(10));
                while tokio::time::timeout_at(end, bandwidth.pass(class, 10_000)).await.is_ok() {
                    bytes += 10_000;
                }
                bytes
            }
        };
        let tasks: Vec<_> = classes.iter().map(|class| tokio::spawn(took(*class))).collect();
        let mut got = Vec::new();
        for task in tasks {
            got.push(task.await.unwrap());
        }
        got
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_and_each_class_gets_its_share() {
        let alone = shares(&[Class::Background]).await;
        assert!((9_900_000..10_300_000).contains(&alone[0]), "nobody else wants it: {alone:?}");
        let all =
            shares(&[Class::Demand, Class::Warm, Class::Background, Class::Demand, Class::Warm, Class::Background])
                .await;
        let sum: u64 = all.iter().sum();
        assert!((9_900_000..10_300_000).contains(&sum), "{all:?}");
        let share = |bytes: u64| bytes as f64 / sum as f64;
        let [demand, warm, background] = BANDWIDTH_SHARES.map(|part| f64::from(part) / 12.0);
        for (bytes, wanted) in [(all[0] + all[3], demand), (all[1] + all[4], warm), (all[2] + all[5], background)] {
            assert!((share(bytes) - wanted).abs() < 0.02, "{all:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_catches_nothing_up_and_who_gives_up_holds_nobody() {
        let bandwidth = Bandwidth::new(NonZeroU64::new(1000).unwrap());
        for _ in 0..100 {
            bandwidth.pass(Class::Demand, 1000).await;
        }
        let given_up = tokio::time::timeout(Duration::from_millis(1), bandwidth.pass(Class::Demand, 1000)).await;
        assert!(given_up.is_err());
        let began = Instant::now();
        bandwidth.pass(Class::Background, 1000).await;
        assert!(began.elapsed() <= Duration::from_millis(1010), "{:?}", began.elapsed());
    }
}
