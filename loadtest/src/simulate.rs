//! Fleets that no machine can run: the same plan on a virtual clock, against models of edges, shields and an origin.
//!
//! Each session is computed at the moment its plan says, in the order of the plan: what it meets are caches as they are then, fetches that
//! others have under way (joined, never repeated), and links that are busy for as long as what was asked of them before takes. Links
//! serve one after the other what comes; a session that waits does not come back into the order. Deliberately absent: faults, loss,
//! congestion on the way, and the CPU of servers. [`analysis`] has the closed forms that tests hold this against.

pub mod analysis;
mod cache;

use std::collections::HashMap;

use crate::limits::{HELD_PACKAGES_MAX, SIMULATED_ENTRIES_MAX};
use crate::outcome::{Kind, Report};
use crate::plan::{Plan, PlannedWake, microseconds};
use crate::record::{Outcome, Record, Step};
use crate::runner::Mark;
use crate::scenario::Scenario;
use cache::{Lru, Object};
use colibri_cluster::catalogue::file_version;

/// Assumed time from an edge to its upstream and back, seconds.
const UPSTREAM_ROUND_TRIP_S: f64 = 0.04;

/// Assumed size of a timestamp with its answer's head, bytes.
const TIMESTAMP_BYTES: u64 = 1_000;

/// Assumed size of all metadata that a release renews, bytes.
const METADATA_BYTES: u64 = 8_000;

/// Why a scenario cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    /// It breaks things.
    #[error("scenario `{0}` has faults: a simulation has none; run it")]
    Faults(String),
    /// It needs too much memory.
    #[error(
        "{edges} edges with {objects} objects each are more than a simulation holds: at most {SIMULATED_ENTRIES_MAX} of both multiplied"
    )]
    TooLarge {
        /// Edges.
        edges: usize,
        /// Blobs that there are.
        objects: u64,
    },
}

/// A link that serves one thing after the other.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    bits_per_s: f64,
    busy_until_s: f64,
}

impl Line {
    /// When so many bytes that are ready at `at_s` have gone through.
    fn through(&mut self, at_s: f64, bytes: u64) -> f64 {
        self.busy_until_s = self.busy_until_s.max(at_s) + bytes as f64 * 8.0 / self.bits_per_s;
        self.busy_until_s
    }
}

/// A cache with what is under way to it.
#[derive(Debug)]
struct Tier {
    cache: Lru,
    line: Line,
    /// When a blob that is on its way will be here.
    flights: HashMap<Object, f64>,
    /// When its timestamp was fetched, and the release that this one told of.
    timestamp: Option<(f64, u32)>,
}

impl Tier {
    fn new(capacity_bytes: u64, bits_per_s: f64) -> Self {
        let line = Line { bits_per_s, busy_until_s: 0.0 };
        Self { cache: Lru::new(capacity_bytes), line, flights: HashMap::new(), timestamp: None }
    }

    /// When this tier has a blob that is asked of it at `at_s`; nothing if it must be fetched from upstream.
    fn has(&mut self, object: Object, at_s: f64) -> Option<f64> {
        if self.cache.touch(object) {
            let ready_s = self.flights.get(&object).copied().unwrap_or(at_s);
            if ready_s <= at_s {
                self.flights.remove(&object);
            }
            return Some(ready_s.max(at_s));
        }
        None
    }

    fn takes(&mut self, object: Object, bytes: u64, ready_s: f64) {
        self.cache.insert(object, bytes);
        self.flights.insert(object, ready_s);
    }
}

/// A device between its sessions.
#[derive(Debug, Clone, Copy, Default)]
struct Sleeper {
    release: u32,
    others: [u16; HELD_PACKAGES_MAX],
}

struct World<'a> {
    scenario: &'a Scenario,
    devices: Vec<Sleeper>,
    edges: Vec<Tier>,
    shields: Vec<Tier>,
    origin: Line,
    releases_at_s: Vec<f64>,
    record: Record,
}

/// Simulates a scenario; `tick` hears now and then how many seconds of the scenario are over.
pub fn simulate(scenario: &Scenario, tick: &mut dyn FnMut(f64)) -> Result<Report, SimulateError> {
    let mut world = World::new(scenario)?;
    let plan = Plan::of(scenario);
    let edges = scenario.system.edges;
    let population = plan.population().clone();
    let mut woken = vec![false; scenario.devices as usize];
    for (number, planned) in plan.enumerate() {
        if number % 65_536 == 0 {
            tick(planned.wake.at_us as f64 / 1e6);
        }
        woken[planned.wake.device as usize] = true;
        let edge = population.edge_of(planned.wake.device, edges);
        world.session(&planned, edge);
    }
    let devices = woken.iter().filter(|woken| **woken).count() as u64;
    Ok(world.report(devices))
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Result<Self, SimulateError> {
        let system = &scenario.system;
        if !scenario.faults.is_empty() {
            return Err(SimulateError::Faults(scenario.name.clone()));
        }
        let objects = (system.release_files * (scenario.releases_at_s.len() + 1) + system.packages) as u64;
        if objects.saturating_mul(system.edges as u64) > SIMULATED_ENTRIES_MAX {
            return Err(SimulateError::TooLarge { edges: system.edges, objects });
        }
        let mut releases_at_s = scenario.releases_at_s.clone();
        releases_at_s.sort_by(f64::total_cmp);
        let tier = || Tier::new(system.edge_cache_bytes, system.edge_bits_per_s);
        let shields = if system.edges_per_shield == 0 { 0 } else { system.edges.div_ceil(system.edges_per_shield) };
        let first = Sleeper { release: u32::from(scenario.installed), ..Sleeper::default() };
        Ok(Self {
            scenario,
            devices: vec![first; scenario.devices as usize],
            edges: (0..system.edges).map(|_| tier()).collect(),
            shields: (0..shields).map(|_| tier()).collect(),
            origin: Line { bits_per_s: system.origin_bits_per_s, busy_until_s: 0.0 },
            releases_at_s,
            record: Record::default(),
        })
    }

    /// The newest release at a time, from 1.
    fn newest(&self, at_s: f64) -> u32 {
        1 + self.releases_at_s.partition_point(|release_s| *release_s <= at_s) as u32
    }

    fn session(&mut self, planned: &PlannedWake, edge: usize) {
        let at_s = planned.wake.at_us as f64 / 1e6;
        let link = &self.scenario.links[usize::from(planned.link)];
        let (round_trip_s, down_bits_per_s) = (link.round_trip_ms / 1e3, link.down_bits_per_s);
        let device = planned.wake.device as usize;
        // A handshake, then the question.
        let asked_s = at_s + 1.5 * round_trip_s;
        let (told_s, release) = self.timestamp(edge, asked_s);
        let mut now_s = told_s + round_trip_s / 2.0;
        let sleeper = self.devices[device];
        let is_new = release > sleeper.release && planned.wants.contains(&0);
        self.took(
            planned,
            if is_new { Step::Refresh } else { Step::Timestamp },
            at_s,
            if is_new { now_s + 2.0 * round_trip_s } else { now_s },
        );
        let mut received = TIMESTAMP_BYTES;
        if is_new {
            now_s += 2.0 * round_trip_s;
            received += METADATA_BYTES;
        }
        let wanted = self.wanted(planned, sleeper, release);
        if !wanted.is_empty() {
            let (done_s, bytes) = self.fetch(edge, &wanted, now_s, round_trip_s, down_bits_per_s);
            self.took(planned, Step::Fetch, now_s, done_s);
            now_s = done_s;
            received += bytes;
            self.record.add("blobs", wanted.len() as u64);
            self.record.add("content_bytes", bytes);
        }
        self.settle(planned, release, is_new, now_s);
        self.took(planned, Step::Session, at_s, now_s);
        let record = &mut self.record;
        record.add("sessions", 1);
        record.add("device_bytes", received);
        record.add("edge_bytes", received);
        record.second(planned.wake.at_us).due += 1;
        let second = record.second(microseconds(now_s));
        second.ok += 1;
        second.device_bytes += received;
    }

    fn took(&mut self, planned: &PlannedWake, step: Step, from_s: f64, to_s: f64) {
        self.record.took((step, Outcome::Ok, planned.link), microseconds(to_s - from_s));
    }

    /// What a device becomes.
    fn settle(&mut self, planned: &PlannedWake, release: u32, is_new: bool, now_s: f64) {
        let sleeper = &mut self.devices[planned.wake.device as usize];
        for package in planned.wants.iter().filter(|package| **package != 0) {
            if !sleeper.others.contains(package) {
                sleeper.others.rotate_right(1);
                sleeper.others[0] = *package;
            }
        }
        if is_new {
            sleeper.release = release;
            if release as usize == self.releases_at_s.len() + 1 {
                self.record.second(microseconds(now_s)).updated += 1;
            }
        }
    }

    /// When an edge answers with its timestamp, and the release that this tells of.
    fn timestamp(&mut self, edge: usize, at_s: f64) -> (f64, u32) {
        let life_s = self.scenario.system.timestamp_life_s;
        let shield = self.shield_of(edge);
        let held = self.edges[edge].timestamp;
        if let Some((fetched_s, release)) = held.filter(|(fetched_s, _)| at_s < fetched_s + life_s) {
            // Fetched by somebody who came before, and maybe on its way still.
            return (fetched_s.max(at_s), release);
        }
        let (came_s, release) = match shield {
            Some(shield) => {
                let asked_s = at_s + UPSTREAM_ROUND_TRIP_S / 2.0;
                let held = self.shields[shield].timestamp.filter(|(fetched_s, _)| asked_s < fetched_s + life_s);
                let (at_shield_s, release) = match held {
                    Some((fetched_s, release)) => (fetched_s.max(asked_s), release),
                    None => {
                        let told = self.timestamp_of_origin(asked_s);
                        self.shields[shield].timestamp = Some(told);
                        told
                    }
                };
                (at_shield_s + UPSTREAM_ROUND_TRIP_S / 2.0, release)
            }
            None => self.timestamp_of_origin(at_s),
        };
        self.edges[edge].timestamp = Some((came_s, release));
        (came_s, release)
    }

    fn timestamp_of_origin(&mut self, at_s: f64) -> (f64, u32) {
        let asked_s = at_s + UPSTREAM_ROUND_TRIP_S / 2.0;
        self.record.add("origin_bytes", TIMESTAMP_BYTES);
        self.record.add("origin_requests", 1);
        let sent_s = self.origin.through(asked_s, TIMESTAMP_BYTES);
        (sent_s + UPSTREAM_ROUND_TRIP_S / 2.0, self.newest(asked_s))
    }

    fn shield_of(&self, edge: usize) -> Option<usize> {
        edge.checked_div(self.scenario.system.edges_per_shield)
    }

    /// Blobs that a device lacks, with their bytes.
    fn wanted(&self, planned: &PlannedWake, sleeper: Sleeper, release: u32) -> Vec<(Object, u64)> {
        let system = &self.scenario.system;
        let mut wanted = Vec::new();
        for package in &planned.wants {
            if *package != 0 {
                if !sleeper.others.contains(package) {
                    wanted.push((Object::Package(*package), system.package_bytes));
                }
                continue;
            }
            for file in 0..if release > sleeper.release { system.release_files } else { 0 } {
                let version = |release| file_version(file, release, system.release_files, system.changed);
                if sleeper.release == 0 || version(release) != version(sleeper.release) {
                    wanted.push((
                        Object::File { file: file as u32, version: version(release) },
                        system.release_file_bytes,
                    ));
                }
            }
        }
        wanted
    }

    /// When all of `wanted` is on the device, and how many bytes that were.
    fn fetch(
        &mut self,
        edge: usize,
        wanted: &[(Object, u64)],
        at_s: f64,
        round_trip_s: f64,
        down_bits_per_s: f64,
    ) -> (f64, u64) {
        // The meta.far first, then what it names: two questions.
        let asked_s = at_s + 1.5 * round_trip_s;
        let (mut last_s, mut bytes) = (asked_s, 0);
        for (object, object_bytes) in wanted {
            let ready_s = self.at_edge(edge, *object, *object_bytes, asked_s);
            last_s = last_s.max(self.edges[edge].line.through(ready_s, *object_bytes));
            bytes += object_bytes;
        }
        (last_s.max(asked_s + bytes as f64 * 8.0 / down_bits_per_s) + round_trip_s / 2.0, bytes)
    }

    /// When an edge has a blob that it is asked for.
    fn at_edge(&mut self, edge: usize, object: Object, bytes: u64, at_s: f64) -> f64 {
        self.record.add("edge_requests", 1);
        if let Some(ready_s) = self.edges[edge].has(object, at_s) {
            self.record.add("edge_hits", 1);
            return ready_s;
        }
        let half_s = UPSTREAM_ROUND_TRIP_S / 2.0;
        let ready_s = match self.shield_of(edge) {
            None => self.through_origin(bytes, at_s),
            Some(shield) => {
                let asked_s = at_s + half_s;
                let at_shield_s = self.shields[shield].has(object, asked_s).unwrap_or_else(|| {
                    let ready_s = self.through_origin(bytes, asked_s);
                    self.shields[shield].takes(object, bytes, ready_s);
                    ready_s
                });
                self.shields[shield].line.through(at_shield_s, bytes) + half_s
            }
        };
        self.edges[edge].takes(object, bytes, ready_s);
        ready_s
    }

    fn through_origin(&mut self, bytes: u64, at_s: f64) -> f64 {
        self.record.add("origin_bytes", bytes);
        self.record.add("origin_requests", 1);
        self.origin.through(at_s + UPSTREAM_ROUND_TRIP_S / 2.0, bytes) + UPSTREAM_ROUND_TRIP_S / 2.0
    }

    fn report(mut self, devices: u64) -> Report {
        let updated = self.record.timeline.iter().map(|second| second.updated).sum();
        for (name, count) in [
            ("devices", devices),
            ("devices_updated", updated),
            ("sessions_failed", 0),
            ("edge_hits", 0),
            ("edge_requests", 0),
            ("origin_bytes", 0),
            ("edge_bytes", 0),
        ] {
            self.record.add(name, count);
        }
        let released_at_s = self.releases_at_s.last().copied().unwrap_or(0.0);
        let mut report = Report::judged(Kind::Simulation, self.scenario, &self.record, released_at_s, devices, true);
        report.marks = (2..)
            .zip(&self.releases_at_s)
            .map(|(number, at_s)| Mark { at_s: *at_s, what: format!("release {number} is out") })
            .collect();
        report
    }
}

#[cfg(test)]
mod tests;
