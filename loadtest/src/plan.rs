//! Who wakes up when, and what it wants: pure, and the same for the same seed.

use std::time::Duration;

use crate::limits::DEVICES_MAX;

/// What a plan is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanConfig {
    /// Number of devices.
    pub devices: u32,
    /// Arrivals per second, on average; their gaps are exponentially distributed.
    pub arrivals_per_s: f64,
    /// Packages that there are to choose from.
    pub packages: usize,
    /// Packages each device resolves.
    pub packages_per_device: usize,
    /// Seed of everything random.
    pub seed: u64,
}

/// One device's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// When it wakes, after the start.
    pub at: Duration,
    /// Indices of the packages it resolves, in order, each once.
    pub packages: Vec<usize>,
}

/// The whole plan, by time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The devices.
    pub wakes: Vec<Wake>,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(config: &PlanConfig) -> Self {
        let mut random = fastrand::Rng::with_seed(config.seed);
        let mut at = 0.0_f64;
        let wakes = (0..config.devices.min(DEVICES_MAX)).map(|_| {
            // 1 - f64() lies in (0, 1]: its logarithm is finite.
            at += -(1.0 - random.f64()).ln() / config.arrivals_per_s.max(f64::MIN_POSITIVE);
            let packages = random.choose_multiple(0..config.packages, config.packages_per_device.max(1));
            Wake { at: Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX), packages }
        });
        Self { wakes: wakes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: PlanConfig =
        PlanConfig { devices: 1000, arrivals_per_s: 100.0, packages: 5, packages_per_device: 2, seed: 7 };

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(Plan::draw(&CONFIG), Plan::draw(&CONFIG));
        assert_ne!(Plan::draw(&CONFIG), Plan::draw(&PlanConfig { seed: 8, ..CONFIG }));
    }

    #[test]
    fn arrivals_are_in_order_at_about_the_wanted_rate() {
        let plan = Plan::draw(&CONFIG);
        assert!(plan.wakes.is_sorted_by_key(|wake| wake.at));
        let last_s = plan.wakes.last().unwrap().at.as_secs_f64();
        assert!((8.0..12.0).contains(&last_s), "1000 arrivals at 100/s took {last_s} s");
        assert!(plan.wakes.iter().all(|wake| wake.packages.len() == 2 && wake.packages[0] != wake.packages[1]));
    }
}
