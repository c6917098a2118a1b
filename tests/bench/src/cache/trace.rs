//! Traces of requests for a cache: which object is asked for, in which order, and how long each object is. From a seed, so
//! that a run can be repeated.

/// Requests, and how many bytes each object has.
#[derive(Debug)]
pub struct Trace {
    /// What it stands for.
    pub name: &'static str,
    /// Length of each object, bytes.
    pub sizes: Vec<u32>,
    /// Objects asked for, by number.
    pub requests: Vec<u32>,
}

/// Objects are between these lengths, bytes, the logarithm evenly spread; no longer than a unit, so that one is one.
const SIZES: std::ops::Range<f64> = 4_096.0..262_144.0;

impl Trace {
    /// Bytes of all objects together.
    pub fn unique_bytes(&self) -> u64 {
        self.sizes.iter().map(|&size| u64::from(size)).sum()
    }

    /// Bytes of all requests together.
    pub fn requested_bytes(&self) -> u64 {
        self.requests.iter().map(|&key| u64::from(self.sizes[key as usize])).sum()
    }
}

/// `count` requests for 20,000 objects by Zipf's law with exponent 0.9.
pub fn zipf(count: usize, seed: u64) -> Trace {
    let mut random = fastrand::Rng::with_seed(seed);
    let sizes = sizes(20_000, &mut random);
    let popularity = Zipf::new(sizes.len(), 0.9);
    let requests = (0..count).map(|_| popularity.draw(&mut random)).collect();
    Trace { name: "Zipf 0.9", sizes, requests }
}

/// Packages common to all devices, and those that some have, in blobs.
const SHARED: usize = 4_000;
const TAIL: usize = 8_000;

/// Of the shared blobs, what a release replaces.
const REPLACED: usize = 320;

/// `count` requests as an edge sees them when release follows release. In each wave, devices fetch what the release has
/// replaced, all in the same order, each beginning at its own time, most of them early in the wave. One request in ten is of a
/// device that is set up anew and fetches everything once, one in five goes to optional packages by Zipf's law.
pub fn release_wave(count: usize, seed: u64) -> Trace {
    let mut random = fastrand::Rng::with_seed(seed);
    let per_wave = 40_000.min(count.max(1));
    let waves = count.div_ceil(per_wave);
    let sizes = sizes(SHARED + TAIL + waves * REPLACED, &mut random);
    let popularity = Zipf::new(TAIL, 0.9);
    let mut release: Vec<u32> = (0..SHARED as u32).collect();
    let mut requests = Vec::with_capacity(count);
    let mut fresh_device = 0;
    for wave in 0..waves {
        let first = SHARED + TAIL + wave * REPLACED;
        let replaced: Vec<u32> = (first as u32..(first + REPLACED) as u32).collect();
        for &blob in &replaced {
            let place = random.usize(..SHARED);
            release[place] = blob;
        }
        let wave_requests = per_wave.min(count - requests.len());
        let devices = wave_requests * 7 / 10 / REPLACED;
        let mut updating = arrivals(devices, wave_requests, &mut random);
        let mut under_way: Vec<usize> = Vec::new();
        for now in 0..wave_requests {
            while updating.last().is_some_and(|&at| at <= now) {
                updating.pop();
                under_way.push(0);
            }
            let kind = random.u32(..10);
            let key = if kind >= 3 && !under_way.is_empty() {
                let device = random.usize(..under_way.len());
                let key = replaced[under_way[device]];
                under_way[device] += 1;
                if under_way[device] == replaced.len() {
                    under_way.swap_remove(device);
                }
                key
            } else if kind == 0 {
                fresh_device = (fresh_device + 1) % SHARED;
                release[fresh_device]
            } else {
                SHARED as u32 + popularity.draw(&mut random)
            };
            requests.push(key);
        }
    }
    Trace { name: "release wave", sizes, requests }
}

/// When devices begin, latest first: the square of an even draw, so that half of them begin in the first quarter.
fn arrivals(devices: usize, span: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let mut at: Vec<usize> = (0..devices).map(|_| (random.f64().powi(2) * span as f64 * 0.8) as usize).collect();
    at.sort_unstable_by(|a, b| b.cmp(a));
    at
}

fn sizes(count: usize, random: &mut fastrand::Rng) -> Vec<u32> {
    let (low, high) = (SIZES.start.ln(), SIZES.end.ln());
    (0..count).map(|_| (low + random.f64() * (high - low)).exp() as u32).collect()
}

/// Draws numbers by Zipf's law. The most popular are spread over the objects, so that rank says nothing about length.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self { cumulative: cumulative.collect() }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> u32 {
        let total = self.cumulative[self.cumulative.len() - 1];
        let wanted = random.f64() * total;
        self.cumulative.partition_point(|&sum| sum < wanted).min(self.cumulative.len() - 1) as u32
    }
}
