//! [`Link`]: a way to the servers that is slow, far, lossy or restless, made in this process: below QUIC for datagrams, and around
//! the byte stream of TCP.
//!
//! [`Direction`] is the model alone: bytes and a time in, a time of arrival or a loss out, on whatever clock the caller keeps.
//! [`socket`] and [`stream`] do the waiting. Deliberately absent: what the system does itself (fragments, checksums), loss for
//! TCP (the system's own TCP would have to repeat, and this process cannot make it), and any use outside load tests.

mod socket;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::limits::LINK_HELD_BYTES_MAX;
pub(super) use socket::LinkSocket;
pub(super) use stream::over;

/// What IPv4 and UDP put in front of each datagram, bytes.
const HEADER_BYTES: u64 = 28;

/// A link as a device has one. Shares are in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bits per second towards the device.
    pub down_bits_per_s: u64,
    /// Bits per second from it.
    pub up_bits_per_s: u64,
    /// Time from one end to the other when nothing waits, microseconds.
    pub delay_us: u32,
    /// Each datagram takes up to so much longer, microseconds; order is kept.
    pub jitter_us: u32,
    /// Share of datagrams that are lost, millionths.
    pub loss_ppm: u32,
    /// How many are lost in a row, on average; at least 1.
    pub loss_run: u32,
    /// Share of datagrams that others overtake, millionths.
    pub reorder_ppm: u32,
    /// What may wait at the narrow place, in microseconds of its rate; what comes then is lost.
    pub queue_us: u32,
    /// Mean time between changes of the address that servers see, microseconds; zero for never.
    pub rebind_us: u64,
}

/// A stream of draws (SplitMix64): the same for the same seed.
#[derive(Debug, Clone)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Uniform in 0..count; zero if there is none.
    fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(count)) >> 64) as u64
    }

    /// True with a chance of so many millionths.
    fn happens(&mut self, ppm: u64) -> bool {
        self.below(1_000_000) < ppm
    }

    /// Exponentially distributed with this mean.
    fn exponential(&mut self, mean: u64) -> u64 {
        // In (0, 1]: its logarithm is finite.
        let unit = 1.0 - (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (-unit.ln() * mean as f64) as u64
    }
}

/// One direction of a link: what passes it leaves the narrow place one after the other, and arrives a while later. Times are
/// nanoseconds since a moment that the caller chose.
#[derive(Debug, Clone)]
pub struct Direction {
    bits_per_s: u64,
    link: Link,
    draw: Draw,
    /// When the narrow place is free again.
    free_at_ns: u64,
    /// When the last one arrives that keeps its order.
    last_at_ns: u64,
    /// In the middle of a run of losses.
    is_losing: bool,
}

impl Direction {
    /// The direction towards the device, or from it.
    pub fn new(link: Link, towards_device: bool, seed: u64) -> Self {
        let bits_per_s = if towards_device { link.down_bits_per_s } else { link.up_bits_per_s }.max(1);
        let draw = Draw(Draw(seed ^ u64::from(towards_device)).next());
        Self { bits_per_s, link, draw, free_at_ns: 0, last_at_ns: 0, is_losing: false }
    }

    /// A datagram of so many bytes begins its way: when it arrives, or nothing if it is lost.
    pub fn pass(&mut self, now_ns: u64, bytes: u64) -> Option<u64> {
        // Every datagram takes the same draws: the fate of a later one does not hang on the traffic before it.
        let is_lost = self.loses();
        let is_overtaken = self.draw.happens(u64::from(self.link.reorder_ppm));
        let late_ns = self.late_ns();
        if self.free_at_ns.saturating_sub(now_ns) > u64::from(self.link.queue_us) * 1_000 {
            return None;
        }
        let left_ns = self.leave(now_ns, bytes + HEADER_BYTES);
        if is_lost {
            return None;
        }
        let at_ns = left_ns + u64::from(self.link.delay_us) * 1_000 + late_ns;
        if is_overtaken {
            // Long enough for a few of the largest to go by.
            return Some(at_ns + self.took_ns(4 * 1_500) + u64::from(self.link.jitter_us) * 1_000);
        }
        self.last_at_ns = self.last_at_ns.max(at_ns);
        Some(self.last_at_ns)
    }

    /// A piece of a byte stream begins its way: when it arrives. Nothing is lost, and nothing overtakes.
    pub fn carry(&mut self, now_ns: u64, bytes: u64) -> u64 {
        let late_ns = self.late_ns();
        let at_ns = self.leave(now_ns, bytes) + u64::from(self.link.delay_us) * 1_000 + late_ns;
        self.last_at_ns = self.last_at_ns.max(at_ns);
        self.last_at_ns
    }

    fn late_ns(&mut self) -> u64 {
        self.draw.below(u64::from(self.link.jitter_us) * 1_000)
    }

    fn took_ns(&self, bytes: u64) -> u64 {
        let ns = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_s);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// When so many bytes have gone through the narrow place.
    fn leave(&mut self, now_ns: u64, bytes: u64) -> u64 {
        self.free_at_ns = self.free_at_ns.max(now_ns).saturating_add(self.took_ns(bytes));
        self.free_at_ns
    }

    /// Whether the next one is lost: runs of this mean length begin so often that the share is what it should be.
    fn loses(&mut self) -> bool {
        let (share, run) = (u64::from(self.link.loss_ppm).min(999_999), u64::from(self.link.loss_run.max(1)));
        self.is_losing = match self.is_losing {
            true => !self.draw.happens(1_000_000 / run),
            false => self.draw.happens(share * 1_000_000 / (run * (1_000_000 - share))),
        };
        self.is_losing
    }
}

/// One client's link: all its connections share it.
#[derive(Debug)]
pub(super) struct Ends {
    link: Link,
    start: Instant,
    up: Mutex<Direction>,
    down: Mutex<Direction>,
    rebinds: Mutex<Draw>,
}

impl Ends {
    pub(super) fn new(link: Link, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            link,
            start: Instant::now(),
            up: Mutex::new(Direction::new(link, false, seed)),
            down: Mutex::new(Direction::new(link, true, seed)),
            rebinds: Mutex::new(Draw(seed.wrapping_mul(3))),
        })
    }

    pub(super) const fn link(&self) -> &Link {
        &self.link
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn up(&self) -> MutexGuard<'_, Direction> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn down(&self) -> MutexGuard<'_, Direction> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the address changes next.
    fn next_rebind_ns(&self) -> Option<u64> {
        let mut draw = self.rebinds.lock().unwrap_or_else(PoisonError::into_inner);
        let mean_ns = self.link.rebind_us.saturating_mul(1_000);
        (mean_ns > 0).then(|| self.now_ns().saturating_add(draw.exponential(mean_ns)))
    }

    /// How many bytes of a direction may be on their way: what fills it, and some.
    fn held_bytes_max(&self, bits_per_s: u64) -> usize {
        let full_us = u64::from(self.link.delay_us) + u64::from(self.link.jitter_us) + u64::from(self.link.queue_us);
        let full = u128::from(bits_per_s) * u128::from(full_us) / 8_000_000;
        usize::try_from(full).unwrap_or(usize::MAX).saturating_add(64 * 1024).min(LINK_HELD_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    const CLEAN: Link = Link {
        down_bits_per_s: 1_000_000,
        up_bits_per_s: 250_000,
        delay_us: 20_000,
        jitter_us: 0,
        loss_ppm: 0,
        loss_run: 1,
        reorder_ppm: 0,
        queue_us: 200_000,
        rebind_us: 0,
    };

    #[test]
    fn a_full_link_passes_what_its_rate_says() {
        for (towards_device, bits_per_s) in [(true, 1_000_000), (false, 250_000)] {
            let mut direction = Direction::new(CLEAN, towards_device, 1);
            // Offered four times as much as fits for ten seconds: the queue fills, and the rest is lost.
            let (mut last_ns, mut bits, mut lost) = (0, 0, 0);
            let gap_ns = 1_228 * 8 * SECOND_NS / bits_per_s / 4;
            for number in 0..10 * SECOND_NS / gap_ns {
                match direction.pass(number * gap_ns, 1_200) {
                    Some(at_ns) => {
                        assert!(at_ns >= last_ns, "order is kept");
                        (last_ns, bits) = (at_ns, bits + 1_228 * 8);
                    }
                    None => lost += 1,
                }
            }
            let found = bits as f64 / ((last_ns - 20_000_000) as f64 / SECOND_NS as f64);
            assert!((found / bits_per_s as f64 - 1.0).abs() < 0.01, "{found} bit/s");
            let waited_ns = last_ns.saturating_sub(10 * SECOND_NS);
            assert!(waited_ns <= 260_000_000 && lost > 0, "{waited_ns} ns behind, {lost} lost");
        }
    }

    #[test]
    fn an_empty_link_takes_its_delay_and_no_more() {
        let mut direction = Direction::new(CLEAN, true, 1);
        let took_ns = 1_228 * 8 * SECOND_NS / 1_000_000;
        for second in 0..5 {
            assert_eq!(direction.pass(second * SECOND_NS, 1_200), Some(second * SECOND_NS + took_ns + 20_000_000));
        }
        assert_eq!(direction.carry(9 * SECOND_NS, 125_000), 10 * SECOND_NS + 20_000_000);
    }

    #[test]
    fn losses_come_in_runs_and_in_their_share() {
        for (loss_ppm, loss_run) in [(10_000, 1), (20_000, 4), (200_000, 8)] {
            let link = Link { loss_ppm, loss_run, down_bits_per_s: 1 << 40, ..CLEAN };
            let mut direction = Direction::new(link, true, 7);
            let lost: Vec<bool> = (0..400_000).map(|number| direction.pass(number * 1_000, 1_000).is_none()).collect();
            let share = lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
            let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
            let run = share * lost.len() as f64 / runs;
            assert!((share * 1e6 / f64::from(loss_ppm) - 1.0).abs() < 0.15, "{share} of {loss_ppm} ppm");
            assert!((run / f64::from(loss_run) - 1.0).abs() < 0.15, "{run} in a row, of {loss_run}");
        }
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let arrivals = |link| {
            let mut direction = Direction::new(link, true, 3);
            (0..20_000).map(|number| direction.pass(number * 50_000, 1_000).unwrap()).collect::<Vec<_>>()
        };
        let fast = Link { down_bits_per_s: 1 << 40, jitter_us: 5_000, ..CLEAN };
        let jittered = arrivals(fast);
        assert!(jittered.is_sorted());
        let latest = jittered.iter().zip(0u64..).map(|(at_ns, number)| at_ns - number * 50_000).max().unwrap();
        assert!((24_000_000..25_100_000).contains(&latest), "{latest} ns");
        let overtaken = arrivals(Link { reorder_ppm: 50_000, ..fast });
        let out_of_order = overtaken.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!((500..1_500).contains(&out_of_order), "{out_of_order}");
    }

    #[test]
    fn the_same_seed_gives_the_same_fate() {
        let link = Link { loss_ppm: 100_000, loss_run: 3, reorder_ppm: 10_000, jitter_us: 3_000, ..CLEAN };
        let fate = |seed, towards_device| {
            let mut direction = Direction::new(link, towards_device, seed);
            (0..1_000).map(|number| direction.pass(number * SECOND_NS, 700)).collect::<Vec<_>>()
        };
        assert_eq!(fate(5, true), fate(5, true));
        assert_ne!(fate(5, true), fate(6, true));
        assert_ne!(fate(5, true), fate(5, false));
    }
}
