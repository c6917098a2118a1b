//! What an operator asks before a release: how many edges and shields, how much leaves the origin, how long it takes, what it costs, and
//! what breaks first when a region dies.
//!
//! Answers follow from the fluid picture of a scenario's release ([`fluid_wave`](super::analysis::fluid_wave)); where a simulation of
//! it was made, times and bytes are its. Deliberately absent: prices of anything but bytes and edges, and what depends on a
//! provider's network.

use serde::{Deserialize, Serialize};

use super::analysis::FluidWave;
use crate::outcome::Report;
use crate::scenario::Scenario;

/// Share of what an edge or shield can send that is planned with: beyond, queues grow.
const PLANNED_SHARE: f64 = 0.7;

/// Seconds of a month.
const MONTH_S: f64 = 30.0 * 86_400.0;

/// What things cost, in whatever money, and how the fleet is spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// A terabyte that edges send.
    pub edge_tb: f64,
    /// A terabyte that the origin sends.
    pub origin_tb: f64,
    /// An edge for a month.
    pub edge_month: f64,
    /// Regions among which edges and devices are spread evenly.
    pub regions: u32,
}

/// A part of the system under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Which.
    pub part: String,
    /// Wanted of it at the peak, bits per second.
    pub wanted_bits_per_s: f64,
    /// What it can send, bits per second.
    pub can_bits_per_s: f64,
}

impl Load {
    /// Share of it that is used; above 1 it is the bottleneck.
    pub fn share(&self) -> f64 {
        self.wanted_bits_per_s / self.can_bits_per_s
    }
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// Devices.
    pub devices: u64,
    /// Edges that the peak needs, with room.
    pub edges_needed: u64,
    /// Edges of the scenario.
    pub edges: u64,
    /// Shields that edges need while they fill, with room; zero if the scenario has none.
    pub shields_needed: u64,
    /// Bytes that the origin sends for a release.
    pub origin_bytes: f64,
    /// Most that the origin sends at a time, bits per second: while edges or shields fill.
    pub origin_peak_bits_per_s: f64,
    /// Most that devices draw at a time, bits per second.
    pub peak_bits_per_s: f64,
    /// Seconds after a release until 99 % of the devices have it.
    pub most_s: f64,
    /// Whether times and bytes were simulated, not computed as a fluid.
    pub simulated: bool,
    /// Cost of a release: its bytes, and the edges for as long as it takes.
    pub release_cost: f64,
    /// Cost of each terabyte that reaches devices.
    pub cost_per_tb: f64,
    /// Regions before one dies.
    pub regions: u32,
    /// Parts of the system after that, the most loaded first.
    pub without_a_region: Vec<Load>,
    /// Seconds until 99 % after that.
    pub most_without_a_region_s: f64,
}

/// Answers for a scenario from its fluid picture, and from a simulation of the same devices if there is one.
pub fn answers(scenario: &Scenario, wave: &FluidWave, simulated: Option<&Report>, prices: &Prices) -> Answers {
    let system = &scenario.system;
    let peak = wave.wanted_peak_bits_per_s;
    let shields = if system.edges_per_shield == 0 { 0 } else { system.edges.div_ceil(system.edges_per_shield) };
    let goal = (wave.devices as f64 * 0.99).ceil() as u64;
    let of_simulation = simulated.and_then(|report| {
        let record = report.load_record().ok()?;
        let most_s = record.updated_after_s(report.released_at_s, goal)?;
        Some((record.counter("edge_bytes") as f64, record.counter("origin_bytes") as f64, most_s))
    });
    let (edge_bytes, origin_bytes, most_s) = of_simulation.unwrap_or((wave.edge_bytes, wave.origin_bytes, wave.most_s));
    // Each edge fetches the release as fast as its first devices draw it; all of them begin at once.
    let per_edge = peak / system.edges as f64;
    let fill = per_edge.max(wave.bytes_per_device * 8.0).min(system.edge_bits_per_s);
    let edges_fill = fill * system.edges as f64;
    let origin_peak = if shields == 0 { edges_fill } else { fill.max(per_edge) * shields as f64 };
    let edges_needed = (peak / (system.edge_bits_per_s * PLANNED_SHARE)).ceil().max(1.0) as u64;
    let shields_needed =
        if shields == 0 { 0 } else { (edges_fill / (system.edge_bits_per_s * PLANNED_SHARE)).ceil().max(1.0) as u64 };
    let tb = 1e12;
    let edges_cost = prices.edge_month * system.edges as f64 * most_s / MONTH_S;
    let release_cost = edge_bytes / tb * prices.edge_tb + origin_bytes / tb * prices.origin_tb + edges_cost;
    let left = f64::from(prices.regions - 1).max(0.0) / f64::from(prices.regions);
    let load = |part: &str, wanted_bits_per_s: f64, can_bits_per_s: f64| Load {
        part: part.to_owned(),
        wanted_bits_per_s,
        can_bits_per_s,
    };
    let mut without_a_region =
        vec![load("edges that are left", peak, system.edges as f64 * left * system.edge_bits_per_s)];
    // Edges that are left keep what they have; devices of the dead region come with nothing new to fetch for the others, but
    // the first of them find edges that have to fill.
    without_a_region.push(load("origin", origin_peak.min(peak), system.origin_bits_per_s));
    if shields > 0 {
        without_a_region.push(load(
            "shields that are left",
            edges_fill * left,
            shields as f64 * left * system.edge_bits_per_s,
        ));
    }
    without_a_region.sort_by(|a, b| b.share().total_cmp(&a.share()));
    let served_share = without_a_region.first().map_or(1.0, |first| first.share().max(1.0));
    let base_share = (peak / wave.capacity_bits_per_s).max(1.0);
    Answers {
        devices: wave.devices,
        edges_needed,
        edges: wave.edges,
        shields_needed,
        origin_bytes,
        origin_peak_bits_per_s: origin_peak.min(system.origin_bits_per_s),
        peak_bits_per_s: peak.min(wave.capacity_bits_per_s),
        most_s,
        simulated: of_simulation.is_some(),
        release_cost,
        cost_per_tb: release_cost / (edge_bytes / tb).max(f64::MIN_POSITIVE),
        regions: prices.regions,
        without_a_region,
        most_without_a_region_s: most_s * served_share / base_share,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Simulation;
    use crate::simulate::analysis::fluid_wave;

    const TEXT: &str = "name = 'o'\ndevices = 20000\nduration_s = 300\n[arrivals]\nkind = 'poll'\ninterval_s = 100\n\
        [[release]]\nat_s = 50\n[system]\nedges = 10\npackages = 0\nrelease_files = 10\nrelease_file_bytes = 1000000\n\
        changed = 1.0\nedge_mbit_per_s = 2000\norigin_mbit_per_s = 100000\n";
    const PRICES: Prices = Prices { edge_tb: 10.0, origin_tb: 50.0, edge_month: 0.0, regions: 4 };

    #[test]
    fn the_numbers_of_a_wave() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let wave = fluid_wave(&scenario, 20_000).unwrap();
        let found = answers(&scenario, &wave, None, &PRICES);
        // 200 checks a second, each of 10 MB: 16 Gb/s, of edges with 2 Gb/s that are planned with seven tenths.
        assert!((found.peak_bits_per_s / 16e9 - 1.0).abs() < 0.05, "{found:?}");
        assert_eq!((found.edges_needed, found.shields_needed), (12, 0));
        // 200 GB of content, and no more than a twentieth around it.
        assert!((200e9..210e9).contains(&wave.edge_bytes), "{wave:?}");
        // At 10 a TB, and what each of ten edges fetches at 50.
        let edge_tb = wave.edge_bytes / 1e12;
        let expected = edge_tb * 10.0 + found.origin_bytes / 1e12 * 50.0;
        assert!((found.release_cost / expected - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.cost_per_tb * edge_tb / expected - 1.0).abs() < 1e-9, "{found:?}");
        // Of 20 Gb/s 15 are left for 16.
        assert_eq!(found.without_a_region[0].part, "edges that are left");
        assert!((found.without_a_region[0].share() - 16.0 / 15.0).abs() < 0.05, "{found:?}");
        assert!(found.most_without_a_region_s > found.most_s);
    }

    #[test]
    fn a_simulation_is_believed_before_the_fluid() {
        let scenario = Scenario::parse(TEXT).unwrap();
        let wave = fluid_wave(&scenario, 20_000).unwrap();
        let report = Simulation::of(&scenario).run(&mut |_| ()).unwrap();
        let found = answers(&scenario, &wave, Some(&report), &PRICES);
        assert!(found.simulated);
        assert_eq!(found.origin_bytes, report.counters["origin_bytes"] as f64);
        assert!((found.most_s / wave.most_s - 1.0).abs() < 0.15, "{} s for {} s", found.most_s, wave.most_s);
    }
}
