//! Seeded draws: the same bits on every machine and in every version, because a plan is promised byte for byte. Laws that take a
//! logarithm take the platform's.
//!
//! SplitMix64, each stream derived from (seed, what, who, which). Deliberately not a general source of randomness: nothing secret
//! may hang on it.

/// What a stream of draws is for: no two purposes share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Where in its interval a device begins.
    Phase = 1,
    /// The gap to its next wake.
    Gap = 2,
    /// Which link class it has.
    Link = 3,
    /// Which time zone it is in.
    Zone = 4,
    /// Which packages it wants.
    Wants = 5,
    /// Which edge it goes to.
    Edge = 6,
    /// Its place in a rollout.
    Rank = 7,
    /// Histograms drawn again, for confidence.
    Resample = 8,
    /// What its link does to each datagram.
    Weather = 9,
}

/// One stream.
#[derive(Debug, Clone)]
pub(crate) struct Draw(u64);

/// The finaliser of SplitMix64: a bijection that scatters neighbours.
const fn scatter(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Draw {
    /// The stream of `purpose` for number `which` of `who`.
    pub const fn of(seed: u64, purpose: Purpose, who: u64, which: u64) -> Self {
        let mut state = scatter(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        state = scatter(state ^ (purpose as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
        state = scatter(state ^ who.wrapping_mul(0xa076_1d64_78bd_642f));
        Self(scatter(state ^ which.wrapping_mul(0xe703_7ed1_a0b4_28db)))
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        // 1 - unit() lies in (0, 1]: its logarithm is finite.
        -(1.0 - self.unit()).ln() * mean
    }

    /// Normally distributed with mean 0 and variance 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential(1.0)).sqrt();
        radius * (self.unit() * std::f64::consts::TAU).cos()
    }

    /// Uniform in 0..count; zero if there is none.
    pub const fn below(&mut self, count: u64) -> u64 {
        // The bias of a 128-bit product is below 2^-64 × count.
        ((self.next() as u128 * count as u128) >> 64) as u64
    }
}

/// A discrete law given by weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weighted {
    /// Running sums, the last one being 1.
    sums: Vec<f64>,
}

impl Weighted {
    /// Shares need not sum to 1.
    pub fn new(shares: impl Iterator<Item = f64>) -> Self {
        let mut sums: Vec<f64> = shares
            .scan(0.0, |sum, share| {
                Some({
                    *sum += share;
                    *sum
                })
            })
            .collect();
        let total = sums.last().copied().unwrap_or(0.0);
        sums.iter_mut().for_each(|sum| *sum /= total);
        Self { sums }
    }

    /// Zipf's law over `count` ranks: weight 1/(rank+1)^alpha.
    pub fn zipf(count: usize, alpha: f64) -> Self {
        Self::new((1..=count).map(|rank| (rank as f64).powf(-alpha)))
    }

    /// The index for a point of [0, 1).
    pub fn pick(&self, draw: &mut Draw) -> usize {
        let point = draw.unit();
        self.sums.partition_point(|sum| *sum <= point).min(self.sums.len().saturating_sub(1))
    }

    /// Probability of an index.
    pub fn probability(&self, index: usize) -> f64 {
        let before = if index == 0 { 0.0 } else { self.sums[index - 1] };
        self.sums[index] - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_for_ever_and_apart() {
        // A change of these numbers changes every plan that was ever written down.
        let mut draw = Draw::of(7, Purpose::Phase, 3, 0);
        assert_eq!([draw.next(), draw.next()], FIRST);
        let first = |purpose, who, which| Draw::of(7, purpose, who, which).next();
        let all = [
            first(Purpose::Phase, 3, 0),
            first(Purpose::Gap, 3, 0),
            first(Purpose::Phase, 4, 0),
            first(Purpose::Phase, 3, 1),
        ];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])), "{all:?}");
    }

    const FIRST: [u64; 2] = [0x7f90_11cf_d755_9973, 0xd569_98c5_53aa_73f8];

    #[test]
    fn laws_have_their_means() {
        let mut draw = Draw::of(1, Purpose::Gap, 0, 0);
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let exponential = mean((0..20_000).map(|_| draw.exponential(3.0)).collect());
        assert!((exponential - 3.0).abs() < 0.1, "{exponential}");
        let uniform = mean((0..20_000).map(|_| draw.between(2.0, 4.0)).collect());
        assert!((uniform - 3.0).abs() < 0.03, "{uniform}");
        assert!((0..1000).all(|_| draw.below(7) < 7));
        let normal: Vec<_> = (0..20_000).map(|_| draw.normal()).collect();
        let spread = mean(normal.iter().map(|value| value * value).collect());
        assert!(mean(normal).abs() < 0.03 && (spread - 1.0).abs() < 0.05, "{spread}");
    }

    #[test]
    fn zipf_by_rank() {
        let law = Weighted::zipf(100, 1.0);
        let total: f64 = (0..100).map(|index| law.probability(index)).sum();
        assert!((total - 1.0).abs() < 1e-9);
        let mut draw = Draw::of(1, Purpose::Wants, 0, 0);
        let mut counts = [0u32; 100];
        (0..50_000).for_each(|_| counts[law.pick(&mut draw)] += 1);
        for rank in [0, 1, 9] {
            let (found, expected) = (f64::from(counts[rank]), law.probability(rank) * 50_000.0);
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {found} for {expected}");
        }
    }
}
