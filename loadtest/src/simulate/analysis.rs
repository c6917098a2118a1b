//! Closed forms: what caches and waves come to without simulating them, and the fluid picture of fleets up to thousands of millions.
//!
//! The hit ratio of LRU is Che's approximation (Che, Tung and Wang 2002; why it is so good: Fricker, Robert and Roberts 2012).

use serde::Serialize;

use super::wire::Wire;
use crate::record::Record;
use crate::scenario::{Arrivals, Scenario};
use crate::slo::{Judged, Verdict};

/// Hit ratio of an LRU cache with room for `capacity` objects of equal size under independent requests with these
/// probabilities, by Che's approximation: an object is there if it was asked for within the characteristic time.
pub fn lru_hit_ratio(probabilities: &[f64], capacity: f64) -> f64 {
    if capacity >= probabilities.len() as f64 {
        return 1.0;
    }
    let held = |time: f64| probabilities.iter().map(|p| 1.0 - (-p * time).exp()).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    while held(high) < capacity {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        *(if held(middle) < capacity { &mut low } else { &mut high }) = middle;
    }
    probabilities.iter().map(|p| p * (1.0 - (-p * high).exp())).sum()
}

/// Share of a wave's bytes that the origin is spared when each of `edges` fetches every unique byte once.
pub fn wave_offload(edges: f64, unique_bytes: f64, devices: f64, bytes_per_device: f64) -> f64 {
    1.0 - edges * unique_bytes / (devices * bytes_per_device)
}

/// A release that goes out to a fleet, as a fluid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FluidWave {
    /// Devices.
    pub devices: u64,
    /// Edges of the scenario.
    pub edges: u64,
    /// Update checks per second.
    pub checks_per_s: f64,
    /// Bytes that each device fetches.
    pub bytes_per_device: f64,
    /// All bytes that edges send.
    pub edge_bytes: f64,
    /// Bytes that the origin sends: every edge, or shield, once.
    pub origin_bytes: f64,
    /// Share that the origin is spared.
    pub offload: f64,
    /// What devices would draw if edges could send without bound, bits per second.
    pub wanted_peak_bits_per_s: f64,
    /// What the scenario's edges can send, bits per second.
    pub capacity_bits_per_s: f64,
    /// Edges that would be needed to send what is wanted at the peak.
    pub edges_needed: u64,
    /// Seconds after the release until half of the devices have it.
    pub half_s: f64,
    /// Until 99 % have it.
    pub most_s: f64,
    /// Requests for the timestamp that reach the origin, per second, between releases.
    pub origin_checks_per_s: f64,
}

impl FluidWave {
    /// The rules of a scenario, as far as they are about bytes that a fluid has; others find nothing to measure and are not judged.
    pub fn verdicts(&self, scenario: &Scenario) -> Vec<Verdict> {
        let mut record = Record::default();
        for (name, bytes) in [("edge_bytes", self.edge_bytes), ("origin_bytes", self.origin_bytes)] {
            record.add(name, bytes as u64);
        }
        let judged = Judged { record: &record, links: &[], released_at_s: 0.0, devices: self.devices };
        let verdicts = scenario.slo.iter().map(|rule| rule.judge(&judged, true));
        verdicts
            .map(|verdict| Verdict { kept: verdict.kept.filter(|_| verdict.measured.is_some()), ..verdict })
            .collect()
    }
}

/// The fluid picture of a scenario's release for `devices`; nothing if its devices do not poll.
pub fn fluid_wave(scenario: &Scenario, devices: u64) -> Option<FluidWave> {
    let Arrivals::Poll { interval_s, jitter } = scenario.arrivals else { return None };
    let system = &scenario.system;
    let fleet = devices as f64;
    let changed_files = if scenario.installed {
        (system.release_files as f64 * system.changed).ceil()
    } else {
        system.release_files as f64
    };
    let bytes_per_device = changed_files * Wire::of_content(system.release_file_bytes).bytes as f64;
    let fetchers = match system.edges_per_shield {
        0 => system.edges,
        per_shield => system.edges.div_ceil(per_shield),
    } as f64;
    let checks_per_s = fleet / interval_s;
    let wanted_peak_bits_per_s = checks_per_s * bytes_per_device * 8.0;
    let capacity_bits_per_s = system.edges as f64 * system.edge_bits_per_s;
    // Devices hear of it evenly over one interval, the last of them after the longest one.
    let served_per_s = checks_per_s.min(capacity_bits_per_s / (bytes_per_device * 8.0));
    let slowest = scenario.links.iter().map(|link| link.down_bits_per_s).fold(f64::INFINITY, f64::min);
    let own_link_s = bytes_per_device * 8.0 / slowest;
    let after = |share: f64| share * fleet / served_per_s + system.timestamp_life_s / 2.0 + own_link_s;
    let per_edge_per_s = checks_per_s / system.edges as f64;
    Some(FluidWave {
        devices,
        edges: system.edges as u64,
        checks_per_s,
        bytes_per_device,
        edge_bytes: fleet * bytes_per_device,
        origin_bytes: fetchers * bytes_per_device,
        offload: wave_offload(fetchers, bytes_per_device, fleet, bytes_per_device),
        wanted_peak_bits_per_s,
        capacity_bits_per_s,
        edges_needed: (wanted_peak_bits_per_s / system.edge_bits_per_s).ceil() as u64,
        half_s: after(0.5),
        most_s: after(0.99) + interval_s * jitter,
        // One miss, then a life of hits: a renewal process.
        origin_checks_per_s: fetchers
            / (system.timestamp_life_s + 1.0 / (per_edge_per_s * system.edges as f64 / fetchers)),
    })
}
