//! [`Scenario`]: what a load test is: so many devices, their arrivals, links and wishes, what breaks when, and what must hold.
//!
//! Read from TOML. A key that is not known is refused, and all mistakes are told together. Nothing here runs anything.

mod arrivals;
mod faults;
mod keys;
mod links;
pub mod shipped;

use toml::Table;

use crate::limits::{
    DURATION_S_MAX, FAULTS_MAX, FLUID_DEVICES_MAX, LINKS_MAX, PACKAGES_MAX, RULES_MAX, SCENARIO_BYTES_MAX,
    SCENARIO_DEVICES_MAX,
};
use crate::slo::Rule;
pub use arrivals::Arrivals;
pub use faults::{Fault, FaultKind, Place};
use keys::Keys;
pub use links::Link;

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
    /// Devices that `simulate` has in mind: so many that it computes them as a fluid. Nothing if each is simulated.
    pub fluid_devices: Option<u64>,
    /// How long wakes are planned, seconds.
    pub duration_s: f64,
    /// When devices wake.
    pub arrivals: Arrivals,
    /// What they want.
    pub popularity: Popularity,
    /// Link classes.
    pub links: Vec<Link>,
    /// Whether a run makes these links for its devices, below QUIC and around TCP. If not, a class is a name that devices are
    /// counted under.
    pub shaped: bool,
    /// Whether devices keep their connections when a session is over.
    pub hold_connections: bool,
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
    /// For the simulation: for how long an edge answers with the timestamp it has, seconds; zero if devices insist on the newest,
    /// as ours do, so that only who asks at the same time shares an answer.
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

    /// Whether it does something to servers: that is done only to those that a run started itself.
    pub fn acts_on_servers(&self) -> bool {
        !self.releases_at_s.is_empty() || self.faults.iter().any(|fault| fault.place != Place::Devices)
    }

    fn read(mut keys: Keys<'_>) -> Self {
        let mut scenario = Self {
            name: keys.text("name", true),
            about: keys.text("about", false),
            seed: keys.seed("seed", 1),
            devices: keys.count("devices", None, 1, u64::from(SCENARIO_DEVICES_MAX)) as u32,
            fluid_devices: keys.has("fluid_devices").then(|| keys.count("fluid_devices", None, 1, FLUID_DEVICES_MAX)),
            duration_s: keys.number("duration_s", None, 0.1, DURATION_S_MAX),
            installed: keys.flag("installed", true),
            arrivals: within(keys.table("arrivals"), arrivals::read),
            popularity: within(keys.table("popularity"), popularity),
            links: keys.each("link", |keys| Some(links::read(keys))),
            shaped: keys.flag("shaped", false),
            hold_connections: keys.flag("hold_connections", false),
            releases_at_s: keys.each("release", |keys| Some(keys.number("at_s", None, 0.0, DURATION_S_MAX))),
            faults: keys.each("fault", faults::read),
            system: within(keys.table("system"), system),
            generator: within(keys.table("generator"), generator),
            slo: rules(&mut keys),
        };
        scenario.check(&mut keys);
        if scenario.links.is_empty() {
            scenario.links.push(Link::usual("fibre", 1.0));
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
        timestamp_life_s: keys.number("timestamp_life_s", Some(0.0), 0.0, DURATION_S_MAX),
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
