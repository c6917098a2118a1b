//! [`Edges`]: models of edges, shields and the origin: what they keep, what is on its way to them, what they ask upstream.

use std::collections::HashMap;

use super::cache::{Lru, Object};
use super::lines::Line;
use super::wire::Wire;
use crate::record::Record;
use crate::scenario::System;

/// How long an edge answers that there is no next root without asking again, seconds, though devices insist on the newest.
const NO_ROOT_LIFE_S: f64 = 1.0;

/// Sizes of answers about metadata, body bytes, as an origin gives them for generated repositories.
pub(super) mod documents {
    /// "There is no such root."
    pub const NO_ROOT_BYTES: u64 = 100;
    /// A timestamp. An edge that has it is told that nothing has changed, without a body.
    pub const TIMESTAMP_BYTES: u64 = 500;
    /// A snapshot, and targets without packages.
    const BASE_BYTES: u64 = 1_500;
    /// A package in the targets.
    const PACKAGE_BYTES: u64 = 150;

    /// All that a release renews besides the timestamp.
    pub const fn release_bytes(packages: usize) -> u64 {
        BASE_BYTES + PACKAGE_BYTES * (packages as u64 + 1)
    }
}

/// All blobs of a catalogue on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    meta_far: Wire,
    tag: Wire,
    file: Wire,
    package_meta: Wire,
    package: Wire,
}

impl Content {
    pub fn of(system: &System) -> Self {
        let files = (0..system.release_files).map(|file| format!("data/file-{file:05}"));
        let release: Vec<_> = files.chain(["data/release".to_owned()]).collect();
        Self {
            meta_far: Wire::of_meta_far("system", &release),
            tag: Wire::of_content(2),
            file: Wire::of_content(system.release_file_bytes),
            package_meta: Wire::of_meta_far("package-0001", &["data/content".to_owned()]),
            package: Wire::of_content(system.package_bytes),
        }
    }

    pub const fn wire(&self, object: Object) -> Wire {
        match object {
            Object::MetaFar(_) => self.meta_far,
            Object::Tag(_) => self.tag,
            Object::File { .. } => self.file,
            Object::PackageMeta(_) => self.package_meta,
            Object::Package(_) => self.package,
        }
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
    /// The release whose metadata it has.
    metadata: u32,
    /// When it was last told that there is no next root.
    no_root_s: f64,
}

impl Tier {
    fn new(system: &System) -> Self {
        Self {
            cache: Lru::new(system.edge_cache_bytes),
            line: Line::new(system.edge_bits_per_s),
            flights: HashMap::new(),
            timestamp: None,
            metadata: 0,
            no_root_s: f64::NEG_INFINITY,
        }
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

/// All servers.
#[derive(Debug)]
pub(super) struct Edges {
    edges: Vec<Tier>,
    shields: Vec<Tier>,
    edges_per_shield: usize,
    origin: Line,
    metadata_bytes: u64,
    /// From a server to its upstream, one way, seconds.
    half_s: f64,
}

impl Edges {
    pub fn new(system: &System, upstream_round_trip_s: f64) -> Self {
        let shields = if system.edges_per_shield == 0 { 0 } else { system.edges.div_ceil(system.edges_per_shield) };
        Self {
            edges: (0..system.edges).map(|_| Tier::new(system)).collect(),
            shields: (0..shields).map(|_| Tier::new(system)).collect(),
            edges_per_shield: system.edges_per_shield,
            origin: Line::new(system.origin_bits_per_s),
            metadata_bytes: documents::release_bytes(system.packages),
            half_s: upstream_round_trip_s / 2.0,
        }
    }

    fn shield_of(&self, edge: usize) -> Option<usize> {
        edge.checked_div(self.edges_per_shield)
    }

    /// When an edge has sent a blob that it is asked for at `at_s`.
    pub fn serve(&mut self, edge: usize, object: Object, wire: Wire, at_s: f64, record: &mut Record) -> f64 {
        record.add("edge_requests", wire.asked);
        let ready_s = match self.edges[edge].has(object, at_s) {
            Some(ready_s) => {
                record.add("edge_hits", wire.asked);
                // Who comes while it is on its way takes part in the fetch of another.
                record.add(if ready_s > at_s { "units_joined" } else { "units_memory" }, wire.asked);
                ready_s
            }
            None => {
                record.add("edge_hits", wire.asked.saturating_sub(wire.units));
                record.add("units_upstream", wire.units);
                let ready_s = self.fill(edge, object, wire, at_s, record);
                self.edges[edge].takes(object, wire.kept_bytes, ready_s);
                ready_s
            }
        };
        self.edges[edge].line.through(ready_s, wire.bytes)
    }

    fn fill(&mut self, edge: usize, object: Object, wire: Wire, at_s: f64, record: &mut Record) -> f64 {
        let asked_s = at_s + self.half_s;
        let Some(shield) = self.shield_of(edge) else { return self.ask_origin(wire.bytes, at_s, record) };
        record.add("shield_bytes", wire.bytes);
        let at_shield_s = match self.shields[shield].has(object, asked_s) {
            Some(ready_s) => ready_s,
            None => {
                let ready_s = self.ask_origin(wire.bytes, asked_s, record);
                self.shields[shield].takes(object, wire.kept_bytes, ready_s);
                ready_s
            }
        };
        self.shields[shield].line.through(at_shield_s, wire.bytes) + self.half_s
    }

    /// When what is asked of the origin at `at_s` is here.
    fn ask_origin(&mut self, bytes: u64, at_s: f64, record: &mut Record) -> f64 {
        record.add("origin_bytes", bytes);
        record.add("origin_requests", 1);
        self.origin.through(at_s + self.half_s, bytes) + self.half_s
    }

    /// When an edge says that there is no next root.
    pub fn next_root(&mut self, edge: usize, at_s: f64, record: &mut Record) -> f64 {
        if at_s < self.edges[edge].no_root_s + NO_ROOT_LIFE_S {
            return at_s.max(self.edges[edge].no_root_s);
        }
        let mut asked_s = at_s;
        if let Some(shield) = self.shield_of(edge) {
            asked_s += self.half_s;
            if asked_s < self.shields[shield].no_root_s + NO_ROOT_LIFE_S {
                self.edges[edge].no_root_s = asked_s + self.half_s;
                return asked_s + self.half_s;
            }
            self.shields[shield].no_root_s = asked_s;
        }
        let told_s = self.ask_origin(documents::NO_ROOT_BYTES, asked_s, record) + (asked_s - at_s);
        self.edges[edge].no_root_s = told_s;
        told_s
    }

    /// When an edge answers with its timestamp, and the release that this tells of. `newest` says what the origin has at a time.
    pub fn timestamp(
        &mut self,
        edge: usize,
        at_s: f64,
        life_s: f64,
        newest: impl Fn(f64) -> u32,
        record: &mut Record,
    ) -> (f64, u32) {
        // Fetched by somebody who came before, and maybe on its way still.
        let fresh = |tier: &Tier, at_s: f64| tier.timestamp.filter(|(came_s, _)| at_s < came_s + life_s);
        if let Some((came_s, release)) = fresh(&self.edges[edge], at_s) {
            return (came_s.max(at_s), release);
        }
        let before = self.edges[edge].timestamp.map_or(0, |(_, release)| release);
        let told = match self.shield_of(edge) {
            None => self.timestamp_of_origin(at_s, before, newest, record),
            Some(shield) => {
                let asked_s = at_s + self.half_s;
                let (came_s, release) = match fresh(&self.shields[shield], asked_s) {
                    Some((came_s, release)) => (came_s.max(asked_s), release),
                    None => {
                        let before = self.shields[shield].timestamp.map_or(0, |(_, release)| release);
                        let told = self.timestamp_of_origin(asked_s, before, newest, record);
                        self.shields[shield].timestamp = Some(told);
                        told
                    }
                };
                (came_s + self.half_s, release)
            }
        };
        self.edges[edge].timestamp = Some(told);
        told
    }

    fn timestamp_of_origin(
        &mut self,
        at_s: f64,
        before: u32,
        newest: impl Fn(f64) -> u32,
        record: &mut Record,
    ) -> (f64, u32) {
        record.add("origin_checks", 1);
        let release = newest(at_s + self.half_s);
        let bytes = if release == before { 0 } else { documents::TIMESTAMP_BYTES };
        (self.ask_origin(bytes, at_s, record), release)
    }

    /// When an edge has all metadata of a release: each of its files is fetched once.
    pub fn metadata(&mut self, edge: usize, release: u32, at_s: f64, record: &mut Record) -> f64 {
        if self.edges[edge].metadata >= release {
            return at_s;
        }
        self.edges[edge].metadata = release;
        let bytes = self.metadata_bytes;
        let Some(shield) = self.shield_of(edge) else { return self.ask_origin(bytes, at_s, record) };
        if self.shields[shield].metadata >= release {
            return at_s + 2.0 * self.half_s;
        }
        self.shields[shield].metadata = release;
        self.ask_origin(bytes, at_s + self.half_s, record) + self.half_s
    }
}
