//! Fleets that no machine can run: the same plan on a virtual clock, against models of edges, shields and an origin.
//!
//! Each session is computed at the moment its plan says, in the order of the plan: what it meets are caches as they are then, fetches that
//! others have under way (joined, never repeated), links with what waits for them, and the cores of the machine as far as a
//! [`Calibration`] says what work costs. What is asked for and how many bytes that is follows the real fetch (module `wire`).
//! Deliberately absent: faults, loss, and congestion on the way. [`analysis`] has the closed forms that tests hold this against.

pub mod analysis;
mod cache;
pub mod calibration;
mod edges;
mod lines;
pub mod operator;
mod wire;

use crate::limits::{HELD_PACKAGES_MAX, SIMULATED_ENTRIES_MAX};
use crate::outcome::{Kind, Report};
use crate::plan::{Plan, PlannedWake, microseconds};
use crate::record::{Outcome, Record, Slow, Step};
use crate::runner::Mark;
use crate::scenario::Scenario;
use cache::Object;
pub use calibration::{Calibration, CalibrationError};
use colibri_cluster::catalogue::file_version;
use edges::{Content, Edges, documents};
use lines::Cpu;

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

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Simulation<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// What work costs.
    pub calibration: Calibration,
}

/// A device between its sessions.
#[derive(Debug, Clone, Copy, Default)]
struct Sleeper {
    release: u32,
    others: [u16; HELD_PACKAGES_MAX],
}

struct World<'a> {
    scenario: &'a Scenario,
    calibration: Calibration,
    devices: Vec<Sleeper>,
    edges: Edges,
    content: Content,
    cpu: Cpu,
    releases_at_s: Vec<f64>,
    record: Record,
}

/// The link of a device for one session.
#[derive(Debug, Clone, Copy)]
struct Access {
    edge: usize,
    round_trip_s: f64,
    down_bits_per_s: f64,
}

impl<'a> Simulation<'a> {
    /// A scenario on machines without bound.
    pub fn of(scenario: &'a Scenario) -> Self {
        Self { scenario, calibration: Calibration::default() }
    }

    /// Simulates it; `tick` hears now and then how many seconds of the scenario are over.
    ///
    /// # Errors
    /// The scenario has faults, or is too large.
    pub fn run(&self, tick: &mut dyn FnMut(f64)) -> Result<Report, SimulateError> {
        let mut world = World::new(self)?;
        let plan = Plan::of(self.scenario);
        let edges = self.scenario.system.edges;
        let population = plan.population().clone();
        let mut woken = vec![false; self.scenario.devices as usize];
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
}

impl<'a> World<'a> {
    fn new(simulation: &Simulation<'a>) -> Result<Self, SimulateError> {
        let Simulation { scenario, calibration } = *simulation;
        let system = &scenario.system;
        if !scenario.faults.is_empty() {
            return Err(SimulateError::Faults(scenario.name.clone()));
        }
        // Each release has a meta.far and a file of its own, each other package a meta.far.
        let releases = scenario.releases_at_s.len() + 1;
        let objects = ((system.release_files + 2) * releases + 2 * system.packages) as u64;
        if objects.saturating_mul(system.edges as u64) > SIMULATED_ENTRIES_MAX {
            return Err(SimulateError::TooLarge { edges: system.edges, objects });
        }
        let mut releases_at_s = scenario.releases_at_s.clone();
        releases_at_s.sort_by(f64::total_cmp);
        let first = Sleeper { release: u32::from(scenario.installed), ..Sleeper::default() };
        Ok(Self {
            scenario,
            calibration,
            devices: vec![first; scenario.devices as usize],
            edges: Edges::new(system, calibration.upstream_round_trip_ms / 1e3),
            content: Content::of(system),
            cpu: Cpu::new(if calibration.cores > 0.0 { calibration.cores } else { f64::INFINITY }),
            releases_at_s,
            record: Record::default(),
        })
    }

    /// When work that begins at `at_s` and takes so many milliseconds on an idle machine is done.
    fn work(&mut self, at_s: f64, work_ms: f64) -> f64 {
        self.cpu.through(at_s, work_ms / 1e3, self.calibration.busy_cores)
    }

    fn session(&mut self, planned: &PlannedWake, edge: usize) {
        let at_s = planned.wake.at_us as f64 / 1e6;
        let link = &self.scenario.links[usize::from(planned.link)];
        let access = match self.calibration.shaped_links || self.scenario.shaped {
            true => Access { edge, round_trip_s: link.round_trip_ms / 1e3, down_bits_per_s: link.down_bits_per_s },
            false => Access { edge, round_trip_s: 0.0, down_bits_per_s: f64::INFINITY },
        };
        let sleeper = self.devices[planned.wake.device as usize];
        let (mut now_s, release, mut received) = self.check(access, at_s);
        let wants_new = release > sleeper.release && planned.wants.contains(&0);
        if wants_new {
            // Snapshot, then targets.
            now_s = self.edges.metadata(edge, release, now_s, &mut self.record) + 2.0 * access.round_trip_s;
            received += documents::release_bytes(self.scenario.system.packages);
        }
        self.took(planned, if wants_new { Step::Refresh } else { Step::Timestamp }, at_s, now_s);
        for package in &planned.wants {
            let wanted = self.wanted(*package, sleeper, release);
            if !wanted.is_empty() {
                let since_s = now_s;
                let bytes;
                (now_s, bytes) = self.fetch(access, &wanted, since_s);
                self.took(planned, Step::Fetch, since_s, now_s);
                received += bytes;
            }
        }
        self.settle(planned, release, wants_new, now_s);
        self.took(planned, Step::Session, at_s, now_s);
        let record = &mut self.record;
        let (wake, took_us) = (planned.wake, microseconds(now_s - at_s));
        record.slow(Slow { took_us, device: wake.device, at_us: wake.at_us, link: planned.link, ok: true });
        record.add("sessions", 1);
        record.add("device_bytes", received);
        record.add("edge_bytes", received);
        record.second(planned.wake.at_us).due += 1;
        let second = record.second(microseconds(now_s));
        second.ok += 1;
        second.device_bytes += received;
    }

    /// The update check: a handshake, a question for the next root, one for the timestamp. When it is over, what it told, and the
    /// bytes of both answers.
    fn check(&mut self, access: Access, at_s: f64) -> (f64, u32, u64) {
        let Access { edge, round_trip_s, .. } = access;
        let half_s = round_trip_s / 2.0;
        let life_s = self.scenario.system.timestamp_life_s;
        let at_s = self.edges.next_root(edge, at_s + round_trip_s + half_s, &mut self.record) + half_s;
        let releases = &self.releases_at_s;
        let newest = |at_s: f64| 1 + releases.partition_point(|release_s| *release_s <= at_s) as u32;
        let (told_s, release) = self.edges.timestamp(edge, at_s + half_s, life_s, newest, &mut self.record);
        let done_s = self.work(told_s + half_s, self.calibration.check_ms);
        (done_s, release, documents::NO_ROOT_BYTES + documents::TIMESTAMP_BYTES)
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

    /// Blobs that a device lacks of a package, its meta.far first; nothing if it has it.
    fn wanted(&self, package: u16, sleeper: Sleeper, release: u32) -> Vec<Object> {
        let system = &self.scenario.system;
        if package != 0 {
            let held = sleeper.others.contains(&package);
            return if held { Vec::new() } else { vec![Object::PackageMeta(package), Object::Package(package)] };
        }
        if release <= sleeper.release {
            return Vec::new();
        }
        let mut wanted = vec![Object::MetaFar(release), Object::Tag(release)];
        for file in 0..system.release_files {
            let version = |release| file_version(file, release, system.release_files, system.changed);
            if sleeper.release == 0 || version(release) != version(sleeper.release) {
                wanted.push(Object::File { file: file as u32, version: version(release) });
            }
        }
        wanted
    }

    /// When all of `wanted` is on the device, and how many bytes that were: the meta.far first, then what it names, all at once.
    fn fetch(&mut self, access: Access, wanted: &[Object], at_s: f64) -> (f64, u64) {
        let (first, rest) = wanted.split_at(1);
        let (mut now_s, mut bytes) = (at_s, 0);
        for blobs in [first, rest] {
            let (came_s, came_bytes) = self.blobs(access, blobs, now_s);
            (now_s, bytes) = (came_s, bytes + came_bytes);
        }
        (now_s, bytes)
    }

    fn blobs(&mut self, access: Access, blobs: &[Object], at_s: f64) -> (f64, u64) {
        let Access { edge, round_trip_s, down_bits_per_s } = access;
        let asked_s = at_s + round_trip_s / 2.0;
        let (mut last_s, mut bytes, mut requests, mut rounds) = (asked_s, 0, 0, 1);
        for object in blobs {
            let wire = self.content.wire(*object);
            last_s = last_s.max(self.edges.serve(edge, *object, wire, asked_s, &mut self.record));
            bytes += wire.bytes;
            requests += wire.requests;
            rounds = rounds.max(wire.rounds);
            self.record.add("content_bytes", wire.content_bytes);
        }
        self.record.add("blobs", blobs.len() as u64);
        self.record.add("blob_requests", u64::from(requests));
        let came_s = last_s.max(asked_s + bytes as f64 * 8.0 / down_bits_per_s);
        let came_s = came_s + round_trip_s / 2.0 + f64::from(rounds - 1) * round_trip_s;
        (self.work(came_s, f64::from(requests) * self.calibration.request_ms), bytes)
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
