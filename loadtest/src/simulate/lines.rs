//! What serves one thing after the other: [`Line`], a link with a backlog, and [`Cpu`], the cores of a machine.
//!
//! Both take what is asked of them for a time that may lie before what they took last: sessions are computed one by one, and a
//! later step of one comes before an early step of the next.

use std::collections::VecDeque;

/// How finely the use of cores is kept, seconds.
const BIN_S: f64 = 0.005;

/// Bins kept behind the newest: what is older is forgotten.
const BINS_MAX: usize = 120_000;

/// A link with what waits for it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    bits_per_s: f64,
    at_s: f64,
    backlog_bits: f64,
}

impl Line {
    pub fn new(bits_per_s: f64) -> Self {
        Self { bits_per_s, ..Self::default() }
    }

    /// When so many bytes that are ready at `at_s` have gone through.
    pub fn through(&mut self, at_s: f64, bytes: u64) -> f64 {
        if at_s > self.at_s {
            self.backlog_bits = (self.backlog_bits - (at_s - self.at_s) * self.bits_per_s).max(0.0);
            self.at_s = at_s;
        }
        self.backlog_bits += bytes as f64 * 8.0;
        at_s + self.backlog_bits / self.bits_per_s
    }
}

/// The cores of one machine, used by everything that runs on it.
#[derive(Debug)]
pub(super) struct Cpu {
    cores: f64,
    /// Number of the first bin that is kept.
    first: usize,
    /// Seconds of cores that are used, by bin.
    used_s: VecDeque<f64>,
}

impl Cpu {
    pub fn new(cores: f64) -> Self {
        Self { cores, first: 0, used_s: VecDeque::new() }
    }

    /// When work that begins at `at_s`, takes `work_s` on an idle machine and keeps `share` cores busy meanwhile is done.
    pub fn through(&mut self, at_s: f64, work_s: f64, share: f64) -> f64 {
        let (mut now_s, mut left_s) = (at_s.max(self.first as f64 * BIN_S), work_s);
        if share <= 0.0 {
            return at_s + work_s;
        }
        while left_s > 0.0 {
            let bin = (now_s / BIN_S + 1e-9) as usize;
            let end_s = (bin + 1) as f64 * BIN_S;
            let room_s = self.cores * BIN_S;
            let used_s = self.bin(bin);
            // Of what is left of the cores; of one bin at most what fits into its time.
            let free_s = ((room_s - *used_s) / share).max(0.0);
            let takes_s = left_s.min(end_s - now_s).min(free_s);
            *used_s += takes_s * share;
            left_s -= takes_s;
            now_s = if left_s > 0.0 { end_s } else { now_s + takes_s };
        }
        now_s
    }

    fn bin(&mut self, bin: usize) -> &mut f64 {
        let over = (bin + 1).saturating_sub(self.first + BINS_MAX);
        self.used_s.drain(..over.min(self.used_s.len()));
        self.first += over;
        let place = bin.saturating_sub(self.first);
        if self.used_s.len() <= place {
            self.used_s.resize(place + 1, 0.0);
        }
        &mut self.used_s[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_serves_what_waits_and_nobody_waits_for_the_future() {
        let mut line = Line::new(8_000.0);
        assert_eq!(line.through(0.0, 1_000), 1.0);
        assert_eq!(line.through(0.0, 1_000), 2.0);
        assert_eq!(line.through(10.0, 1_000), 11.0);
        assert!(line.through(9.0, 0) <= 10.0 + 1e-9, "what is asked earlier does not wait until then");
    }

    #[test]
    fn cores_are_shared() {
        let mut cpu = Cpu::new(2.0);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 0.011, "{found} for {expected}");
        near(cpu.through(1.0, 0.1, 1.0), 1.1);
        near(cpu.through(1.0, 0.1, 1.0), 1.1);
        near(cpu.through(1.0, 0.1, 1.0), 1.2);
        near(cpu.through(0.5, 0.1, 1.0), 0.6);
        near(cpu.through(5.0, 0.1, 4.0), 5.2);
        near(cpu.through(100_000.0, 0.1, 1.0), 100_000.1);
        assert!(cpu.used_s.len() <= BINS_MAX, "what is long over is forgotten");
        let mut idle = Cpu::new(1.0);
        assert_eq!(idle.through(3.0, 0.5, 0.0), 3.5);
    }
}
