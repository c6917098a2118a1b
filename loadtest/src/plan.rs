//! Who wakes up when, and what it wants: pure, drawn lazily, and the same byte for byte for the same scenario and seed.
//!
//! Each device has streams of draws of its own, derived from the seed and its number, so that no device hangs on another one. A
//! scheduled device is one [`Wake`] in a heap. [`mod@file`] writes a plan out and reads it back, [`access_log`] makes one of what was logged.

pub mod access_log;
pub mod file;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::draw::{Draw, Purpose, Weighted};
use crate::scenario::{Arrivals, Popularity, Scenario};

/// One wake of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wake {
    /// When it is meant to wake, microseconds after the start.
    pub at_us: u64,
    /// Which device, from 0.
    pub device: u32,
    /// Which of its wakes, from 0.
    pub number: u32,
}

/// A wake with all that was drawn for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedWake {
    /// Who and when.
    pub wake: Wake,
    /// Its link class, an index into those of the scenario.
    pub link: u8,
    /// Packages it wants, each once; 0 is the release.
    pub wants: Vec<u16>,
}

/// What each device is and wants, by number.
#[derive(Debug, Clone)]
pub struct Population {
    seed: u64,
    links: Weighted,
    packages: Weighted,
    popularity: Popularity,
}

impl Population {
    /// The devices of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        Self {
            seed: scenario.seed,
            links: Weighted::new(scenario.links.iter().map(|link| link.share)),
            packages: Weighted::zipf(scenario.system.packages, scenario.popularity.zipf),
            popularity: scenario.popularity,
        }
    }

    /// Link class of a device, an index into those of the scenario.
    pub fn link_of(&self, device: u32) -> u8 {
        let mut draw = Draw::of(self.seed, Purpose::Link, u64::from(device), 0);
        u8::try_from(self.links.pick(&mut draw)).unwrap_or(u8::MAX)
    }

    /// The edge, of `count`, that a device goes to.
    pub fn edge_of(&self, device: u32, count: usize) -> usize {
        Draw::of(self.seed, Purpose::Edge, u64::from(device), 0).below(count as u64) as usize
    }

    /// Packages that a wake wants, each once; 0 is the release, others follow by popularity.
    pub fn wants(&self, wake: Wake) -> Vec<u16> {
        let base = self.popularity.base.then_some(0);
        let mut wants: Vec<u16> = base.into_iter().collect();
        let goal = wants.len() + self.popularity.on_demand;
        let mut draw = Draw::of(self.seed, Purpose::Wants, u64::from(wake.device), u64::from(wake.number));
        while wants.len() < goal {
            let package = u16::try_from(self.packages.pick(&mut draw) + 1).unwrap_or(u16::MAX);
            if !wants.contains(&package) {
                wants.push(package);
            }
        }
        wants
    }

    /// Probability that one draw picks package `number`, from 1.
    pub fn popularity_of(&self, number: usize) -> f64 {
        self.packages.probability(number - 1)
    }
}

/// The plan of a scenario: wakes in the order of their time.
#[derive(Debug)]
pub struct Plan {
    population: Population,
    arrivals: Arc<Arrivals>,
    seed: u64,
    devices: u32,
    end_us: u64,
    /// The next wake of each device that has one; of a Poisson process or trace, the next one of all.
    queue: BinaryHeap<Reverse<Wake>>,
}

impl Plan {
    /// The plan of a scenario.
    pub fn of(scenario: &Scenario) -> Self {
        let mut plan = Self {
            population: Population::of(scenario),
            arrivals: Arc::new(scenario.arrivals.clone()),
            seed: scenario.seed,
            devices: scenario.devices,
            end_us: microseconds(scenario.duration_s),
            queue: BinaryHeap::new(),
        };
        let one_by_one = matches!(*plan.arrivals, Arrivals::Cold { .. } | Arrivals::Trace { .. });
        let first = 0..if one_by_one { 1 } else { plan.devices };
        let wakes: Vec<_> = first.filter_map(|device| plan.first(device)).map(Reverse).collect();
        // From a vector a heap is made in linear time and without spare room.
        plan.queue = BinaryHeap::from(wakes);
        plan
    }

    /// What devices are and want.
    pub const fn population(&self) -> &Population {
        &self.population
    }

    /// Bytes that the plan holds on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<Reverse<Wake>>()
    }

    fn draw(&self, purpose: Purpose, device: u32, number: u32) -> Draw {
        Draw::of(self.seed, purpose, u64::from(device), u64::from(number))
    }

    fn first(&self, device: u32) -> Option<Wake> {
        let mut draw = self.draw(Purpose::Phase, device, 0);
        let at_s = match &*self.arrivals {
            Arrivals::Poll { interval_s, .. } => draw.between(0.0, *interval_s),
            Arrivals::Diurnal { interval_s, .. } => {
                return self.awake(Wake { at_us: microseconds(draw.between(0.0, *interval_s)), device, number: 0 });
            }
            Arrivals::Flash { at_s, within_s } => draw.between(*at_s, at_s + within_s),
            Arrivals::Reboot { at_s, spread_s } => at_s + draw.exponential(*spread_s),
            Arrivals::Herd { life_s, within_s } => life_s + draw.between(0.0, *within_s),
            Arrivals::Cold { rate_per_s } => draw.exponential(1.0 / rate_per_s),
            Arrivals::Ramp { stages } => {
                let percent = self.draw(Purpose::Rank, device, 0).between(0.0, 100.0);
                stage_time_s(stages, percent)?
            }
            Arrivals::Trace { .. } => return self.traced(0),
        };
        self.in_time(Wake { at_us: microseconds(at_s), device, number: 0 })
    }

    fn in_time(&self, wake: Wake) -> Option<Wake> {
        (wake.at_us < self.end_us).then_some(wake)
    }

    fn after(&self, wake: Wake) -> Option<Wake> {
        let number = wake.number + 1;
        match &*self.arrivals {
            Arrivals::Poll { interval_s, jitter } => self.in_time(self.polled(wake, *interval_s, *jitter)),
            Arrivals::Diurnal { interval_s, jitter, .. } => self.awake(self.polled(wake, *interval_s, *jitter)),
            Arrivals::Herd { life_s, within_s } => {
                let late_s = self.draw(Purpose::Phase, wake.device, number).between(0.0, *within_s);
                let at_us = microseconds(f64::from(number + 1) * life_s + late_s);
                self.in_time(Wake { at_us, device: wake.device, number })
            }
            Arrivals::Cold { rate_per_s } => {
                let device = wake.device + 1;
                let gap_s = self.draw(Purpose::Phase, device, 0).exponential(1.0 / rate_per_s);
                let next = Wake { at_us: wake.at_us.saturating_add(microseconds(gap_s)), device, number: 0 };
                (device < self.devices).then_some(next).and_then(|next| self.in_time(next))
            }
            Arrivals::Trace { .. } => self.traced(number),
            Arrivals::Flash { .. } | Arrivals::Reboot { .. } | Arrivals::Ramp { .. } => None,
        }
    }

    fn polled(&self, wake: Wake, interval_s: f64, jitter: f64) -> Wake {
        let number = wake.number + 1;
        let share = self.draw(Purpose::Gap, wake.device, number).between(1.0 - jitter, 1.0 + jitter);
        Wake { at_us: wake.at_us.saturating_add(microseconds(interval_s * share).max(1)), device: wake.device, number }
    }

    /// The first poll from `wake` on at which the device is awake, by the local time of its zone.
    fn awake(&self, mut wake: Wake) -> Option<Wake> {
        let Arrivals::Diurnal { interval_s, jitter, day_s, peak_hour, trough } = *self.arrivals else { return None };
        let zone = self.draw(Purpose::Zone, wake.device, 0).below(24);
        loop {
            self.in_time(wake)?;
            let hour = wake.at_us as f64 / 1e6 / day_s * 24.0 + zone as f64;
            let angle = (hour - peak_hour) / 24.0 * std::f64::consts::TAU;
            let rate = trough + (1.0 - trough) * (1.0 + angle.cos()) / 2.0;
            if self.draw(Purpose::Zone, wake.device, wake.number + 1).unit() < rate {
                return Some(wake);
            }
            wake = self.polled(wake, interval_s, jitter);
        }
    }

    fn traced(&self, number: u32) -> Option<Wake> {
        let Arrivals::Trace { wakes } = &*self.arrivals else { return None };
        let (at_us, device) = *wakes.get(number as usize)?;
        self.in_time(Wake { at_us, device, number })
    }
}

impl Iterator for Plan {
    type Item = PlannedWake;

    fn next(&mut self) -> Option<PlannedWake> {
        let Reverse(wake) = self.queue.pop()?;
        self.queue.extend(self.after(wake).map(Reverse));
        let (link, wants) = (self.population.link_of(wake.device), self.population.wants(wake));
        Some(PlannedWake { wake, link, wants })
    }
}

/// When a ramp reaches `percent`; nothing if it never does.
fn stage_time_s(stages: &[(f64, f64)], percent: f64) -> Option<f64> {
    let (mut from_s, mut from) = (0.0, 0.0);
    for &(at_s, to) in stages {
        if percent < to {
            return Some(from_s + (at_s - from_s) * (percent - from) / (to - from));
        }
        (from_s, from) = (at_s, to);
    }
    None
}

/// Seconds to whole microseconds; what does not fit is the end of time.
pub(crate) fn microseconds(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests;
