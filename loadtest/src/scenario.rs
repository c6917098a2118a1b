//! [`Scenario`]: what a load test is: so many devices, their arrivals, links and wishes, what breaks when, and what must hold.
//!
//! Read from TOML. A key that is not known is refused, and all mistakes are told together. Nothing here runs anything.

mod arrivals;
mod keys;
pub mod shipped;

use std::fmt;

use toml::Table;

use crate::limits::{
    DURATION_S_MAX, FAULTS_MAX, LINKS_MAX, PACKAGES_MAX, RULES_MAX, SCENARIO_BYTES_MAX, SCENARIO_DEVICES_MAX,
};
use crate::slo::Rule;
pub use arrivals::Arrivals;
use keys::Keys;

/// A whole scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// One sentence about it.
    pub about: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Number of devices.
    pub devices: u32,
    /// How long wakes are planned, seconds.
    pub duration_s: f64,
    /// When devices wake.
    pub arrivals: Arrivals,
    /// What they want.
    pub popularity: Popularity,
    /// Link classes.
    pub links: Vec<Link>,
    /// Whether devices hold the first release when the test begins.
    pub installed: bool,
    /// Releases published in the middle, seconds after the start.
    pub releases_at_s: Vec<f64>,
    /// What breaks when.
    pub faults: Vec<Fault>,
    /// The system and the content that are made for it, if it is to start one; what a simulation assumes.
    pub system: System,
    /// From when on a run counts as one that its generator spoilt.
    pub generator: Generator,
    /// What must hold.
    pub slo: Vec<Rule>,
}

/// What devices want. Package 0 is the release, which every device has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Popularity {
    /// Whether every device wants the release package.
    pub base: bool,
    /// Packages besides the release that each wake wants.
    pub on_demand: usize,
    /// Exponent of Zipf's law over these packages.
    pub zipf: f64,
}

/// A link class.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Share of the devices.
    pub share: f64,
    /// Bits per second towards the device.
    pub down_bits_per_s: f64,
    /// Time to the edge and back, milliseconds.
    pub round_trip_ms: f64,
}

/// What a link class is if a scenario says only its name: name, Mb/s, round trip in ms.
pub const LINK_CLASSES: &[(&str, f64, f64)] = &[
    ("fibre", 200.0, 10.0),
    ("cable", 80.0, 20.0),
    ("lte", 20.0, 60.0),
    ("dsl", 6.0, 40.0),
    ("satellite", 10.0, 600.0),
    ("wifi", 30.0, 15.0),
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Blob bodies have a bit flipped.
    Corrupt,
    /// Blob bodies end in the middle.
    Truncate,
    /// Metadata stays what it was when the fault began.
    Freeze,
    /// Answers wait until the fault ends.
    Stall,
    /// Each answer is delayed by 250 ms.
    Slow,
    /// Everything is answered with 429.
    Refuse,
    /// Everything is answered with 503.
    Error,
    /// The node is killed at once, and started again on the same port when the fault ends.
    Kill,
}

impl FaultKind {
    /// All, with their names in a scenario.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Corrupt, "corrupt"),
        (Self::Truncate, "truncate"),
        (Self::Freeze, "freeze"),
        (Self::Stall, "stall"),
        (Self::Slow, "slow"),
        (Self::Refuse, "refuse"),
        (Self::Error, "error"),
        (Self::Kill, "kill"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The origin.
    Origin,
    /// One edge, counted from 1.
    Edge(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("origin"),
            Self::Edge(number) => write!(f, "edge-{number}"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub place: Place,
    /// From when, seconds.
    pub at_s: f64,
    /// For how long, seconds.
    pub for_s: f64,
}

/// The system that a run starts, and what a simulation assumes.
#[derive(Debug, Clone, PartialEq)]
pub struct System {
    /// Number of edges.
    pub edges: usize,
    /// Cache of each edge, bytes.
    pub edge_cache_bytes: u64,
    /// Packages besides the release.
    pub packages: usize,
    /// Files of the release package.
    pub release_files: usize,
    /// Bytes of each of its files.
    pub release_file_bytes: u64,
    /// Share of these files that a new release changes.
    pub changed: f64,
    /// Bytes of each other package.
    pub package_bytes: u64,
    /// For the simulation: what an edge can send, bits per second.
    pub edge_bits_per_s: f64,
    /// For the simulation: what the origin can send, bits per second.
    pub origin_bits_per_s: f64,
    /// For the simulation: for how long an edge answers with the timestamp it has, seconds.
    pub timestamp_life_s: f64,
    /// For the simulation: edges behind one shield, zero for none.
    pub edges_per_shield: usize,
}

impl Default for System {
    fn default() -> Self {
        within(Keys::of("", Table::new(), &mut Vec::new()), system)
    }
}

/// Bounds on the generator's own lag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Generator {
    /// 99th percentile of the lag behind the plan, milliseconds.
    pub lag_p99_ms_max: f64,
    /// Sessions at once; a start beyond is dropped, and one dropped start spoils the run.
    pub sessions_at_once: usize,
}

/// Why a scenario cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// What is in it is wrong.
    #[error("{} in the scenario:\n  {}", if .0.len() == 1 { "one mistake".to_owned() } else { format!("{} mistakes", .0.len()) }, .0.join("\n  "))]
    Mistakes(Vec<String>),
    /// It is too long.
    #[error("a scenario has at most {SCENARIO_BYTES_MAX} bytes, this one {0}")]
    TooLong(usize),
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// All mistakes together.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        if text.len() > SCENARIO_BYTES_MAX {
            return Err(ScenarioError::TooLong(text.len()));
        }
        let table: Table = text.parse().map_err(|error: toml::de::Error| ScenarioError::Syntax(error.to_string()))?;
        let mut mistakes = Vec::new();
        let scenario = Self::read(Keys::of("", table, &mut mistakes));
        if mistakes.is_empty() { Ok(scenario) } else { Err(ScenarioError::Mistakes(mistakes)) }
    }

    /// One device that never wakes.
    pub(crate) fn empty() -> Self {
        let mut scenario = Self::read(Keys::of("", Table::new(), &mut Vec::new()));
        scenario.devices = 1;
        scenario
    }

    fn read(mut keys: Keys<'_>) -> Self {
        let mut scenario = Self {
            name: keys.text("name", true),
            about: keys.text("about", false),
            seed: keys.seed("seed", 1),
            devices: keys.count("devices", None, 1, u64::from(SCENARIO_DEVICES_MAX)) as u32,
            duration_s: keys.number("duration_s", None, 0.1, DURATION_S_MAX),
            installed: keys.flag("installed", true),
            arrivals: within(keys.table("arrivals"), arrivals::read),
            popularity: within(keys.table("popularity"), popularity),
            links: keys.each("link", |keys| Some(link(keys))),
            releases_at_s: keys.each("release", |keys| Some(keys.number("at_s", None, 0.0, DURATION_S_MAX))),
            faults: keys.each("fault", fault),
            system: within(keys.table("system"), system),
            generator: within(keys.table("generator"), generator),
            slo: rules(&mut keys),
        };
        scenario.check(&mut keys);
        if scenario.links.is_empty() {
            scenario.links.push(class("fibre", 1.0));
        }
        keys.finish();
        scenario
    }

    /// What hangs together.
    fn check(&self, keys: &mut Keys<'_>) {
        if self.links.len() > LINKS_MAX {
            keys.mistake("link", &format!("stands {} times: at most {LINKS_MAX} classes", self.links.len()));
        }
        if !self.links.is_empty() && self.links.iter().map(|link| link.share).sum::<f64>() <= 0.0 {
            keys.mistake("link", "classes have no share between them");
        }
        if self.faults.len() > FAULTS_MAX {
            keys.mistake("fault", &format!("stands {} times: at most {FAULTS_MAX}", self.faults.len()));
        }
        for fault in &self.faults {
            if let Place::Edge(number) = fault.place
                && number > self.system.edges
            {
                keys.mistake(
                    "fault",
                    &format!("is on edge-{number}, beyond the {} (`system.edges`)", self.system.edges),
                );
            }
        }
        if self.popularity.on_demand > self.system.packages {
            let (wanted, there) = (self.popularity.on_demand, self.system.packages);
            keys.mistake("popularity.on_demand", &format!("is {wanted}, of {there} packages (`system.packages`)"));
        }
        if !self.popularity.base && self.popularity.on_demand == 0 {
            keys.mistake("popularity", "wants neither the release nor any other package");
        }
        if let Arrivals::Trace { wakes } = &self.arrivals
            && let Some((_, device)) = wakes.iter().find(|(_, device)| *device >= self.devices)
        {
            keys.mistake("arrivals.wakes", &format!("names device {device} of {} (counted from 0)", self.devices));
        }
        if self.releases_at_s.iter().any(|at_s| *at_s > self.duration_s) {
            keys.mistake("release", "comes after the end");
        }
    }
}

fn within<T>(mut keys: Keys<'_>, read: impl FnOnce(&mut Keys<'_>) -> T) -> T {
    let value = read(&mut keys);
    keys.finish();
    value
}

fn popularity(keys: &mut Keys<'_>) -> Popularity {
    Popularity {
        base: keys.flag("base", true),
        on_demand: keys.count("on_demand", Some(0), 0, 8) as usize,
        zipf: keys.number("zipf", Some(0.9), 0.0, 4.0),
    }
}

/// A class with what is usual for its name.
fn class(name: &str, share: f64) -> Link {
    let known = LINK_CLASSES.iter().find(|(known, ..)| *known == name).unwrap_or(&LINK_CLASSES[0]);
    Link { name: name.to_owned(), share, down_bits_per_s: known.1 * 1e6, round_trip_ms: known.2 }
}

fn link(keys: &mut Keys<'_>) -> Link {
    let name = keys.text("class", true);
    let is_known = LINK_CLASSES.iter().any(|(known, ..)| *known == name);
    if !(name.is_empty() || is_known || keys.has("down_mbit_per_s") && keys.has("round_trip_ms")) {
        let known: Vec<_> = LINK_CLASSES.iter().map(|(name, ..)| *name).collect();
        let known = known.join(", ");
        keys.mistake("class", &format!("is `{name}`: {known}, or one with `down_mbit_per_s` and `round_trip_ms`"));
    }
    let usual = class(&name, 1.0);
    Link {
        share: keys.number("share", None, 0.0, 1e9),
        down_bits_per_s: keys.number("down_mbit_per_s", Some(usual.down_bits_per_s / 1e6), 0.001, 1e6) * 1e6,
        round_trip_ms: keys.number("round_trip_ms", Some(usual.round_trip_ms), 0.0, 60_000.0),
        name,
    }
}

fn fault(keys: &mut Keys<'_>) -> Option<Fault> {
    let name = keys.text("kind", true);
    let kind = FaultKind::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind);
    if kind.is_none() && !name.is_empty() {
        let known: Vec<_> = FaultKind::ALL.iter().map(|(_, name)| *name).collect();
        keys.mistake("kind", &format!("is `{name}`: it must be one of {}", known.join(", ")));
    }
    let node = keys.text("node", true);
    let edge = node.strip_prefix("edge-").and_then(|number| number.parse().ok()).filter(|number| *number > 0);
    let place = if node == "origin" { Some(Place::Origin) } else { edge.map(Place::Edge) };
    if place.is_none() && !node.is_empty() {
        keys.mistake("node", &format!("is `{node}`: it must be origin, edge-1, edge-2 …"));
    }
    let at_s = keys.number("at_s", None, 0.0, DURATION_S_MAX);
    let for_s = keys.number("for_s", Some(DURATION_S_MAX), 0.001, DURATION_S_MAX);
    Some(Fault { kind: kind?, place: place?, at_s, for_s })
}

fn system(keys: &mut Keys<'_>) -> System {
    let most = 1e15;
    System {
        edges: keys.count("edges", Some(2), 1, 100_000) as usize,
        edge_cache_bytes: keys.number("edge_cache_mb", Some(256.0), 1.0, 1e9) as u64 * 1_000_000,
        packages: keys.count("packages", Some(8), 0, PACKAGES_MAX as u64) as usize,
        release_files: keys.count("release_files", Some(16), 1, 10_000) as usize,
        release_file_bytes: keys.count("release_file_bytes", Some(65_536), 1, 1 << 40),
        changed: keys.number("changed", Some(0.25), 0.0, 1.0),
        package_bytes: keys.count("package_bytes", Some(32_768), 1, 1 << 40),
        edge_bits_per_s: keys.number("edge_mbit_per_s", Some(10_000.0), 0.001, most) * 1e6,
        origin_bits_per_s: keys.number("origin_mbit_per_s", Some(10_000.0), 0.001, most) * 1e6,
        timestamp_life_s: keys.number("timestamp_life_s", Some(30.0), 0.0, DURATION_S_MAX),
        edges_per_shield: keys.count("edges_per_shield", Some(0), 0, 100_000) as usize,
    }
}

fn generator(keys: &mut Keys<'_>) -> Generator {
    Generator {
        lag_p99_ms_max: keys.number("lag_p99_ms_max", Some(250.0), 0.0, 1e9),
        sessions_at_once: keys.count("sessions_at_once", Some(512), 1, crate::limits::SESSIONS_AT_ONCE_MAX as u64)
            as usize,
    }
}

fn rules(keys: &mut Keys<'_>) -> Vec<Rule> {
    let texts = keys.texts("slo");
    if texts.len() > RULES_MAX {
        keys.mistake("slo", &format!("has {} rules: at most {RULES_MAX}", texts.len()));
    }
    let mut rules = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match Rule::parse(text) {
            Ok(rule) => rules.push(rule),
            Err(error) => keys.mistake(&format!("slo[{index}]"), &format!("{error}")),
        }
    }
    rules
}

#[cfg(test)]
mod tests;
