//! [`Calibration`]: what a simulation cannot know and takes from one measured run: how long work takes on the machine.
//!
//! Few numbers, each with a meaning, in a file that people can read. How many bytes and requests there are is not among them:
//! that follows from the scenario and from how devices and edges work.

use serde::{Deserialize, Serialize};

use super::{SimulateError, Simulation};
use crate::outcome::{Kind, Report};
use crate::record::{Outcome, Record, Step};
use crate::scenario::Scenario;

/// Longest time of one step that a file may name, milliseconds.
const STEP_MS_MAX: f64 = 60_000.0;

/// Most cores that a file may name.
const CORES_MAX: f64 = 100_000.0;

/// What a machine takes for what a simulation counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Time of an update check beyond the network: handshake, requests, verification; milliseconds on an idle machine.
    pub check_ms: f64,
    /// Time for each request for blobs, with all that is verified and kept; milliseconds on an idle machine.
    pub request_ms: f64,
    /// Cores that are busy, on average, while such time passes: clients and servers together.
    pub busy_cores: f64,
    /// Cores of the machine that all of it runs on; zero if there is as much as is needed.
    pub cores: f64,
    /// From an edge to its upstream and back, milliseconds.
    pub upstream_round_trip_ms: f64,
    /// Whether link classes have their delay and bandwidth, or devices use the network that there is.
    pub shaped_links: bool,
}

/// Without a measurement: machines without bound, an upstream 40 ms away.
impl Default for Calibration {
    fn default() -> Self {
        Self {
            check_ms: 0.0,
            request_ms: 0.0,
            busy_cores: 0.0,
            cores: 0.0,
            upstream_round_trip_ms: 40.0,
            shaped_links: true,
        }
    }
}

/// Why a calibration cannot be made or used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// It is not TOML, or has other keys.
    #[error("{0}")]
    Syntax(String),
    /// A number is out of bounds.
    #[error("`{key}` is {value}: it must lie from 0 to {most}")]
    Number {
        /// Its key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The largest it may have.
        most: f64,
    },
    /// The report is of something else.
    #[error("calibrated is by a run that was measured; this report is {0}")]
    Report(String),
    /// The run has not what is needed.
    #[error(
        "the run measured no {0}: calibrate by one in which devices check and fetch, as `steady`, on servers of its own"
    )]
    Missing(&'static str),
    /// The scenario cannot be simulated.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
}

impl Calibration {
    /// Reads a file.
    ///
    /// # Errors
    /// A key is unknown or missing, or a number out of bounds.
    pub fn parse(text: &str) -> Result<Self, CalibrationError> {
        let read: Self =
            toml::from_str(text).map_err(|error: toml::de::Error| CalibrationError::Syntax(error.to_string()))?;
        for (key, value, most) in [
            ("check_ms", read.check_ms, STEP_MS_MAX),
            ("request_ms", read.request_ms, STEP_MS_MAX),
            ("busy_cores", read.busy_cores, CORES_MAX),
            ("cores", read.cores, CORES_MAX),
            ("upstream_round_trip_ms", read.upstream_round_trip_ms, STEP_MS_MAX),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(CalibrationError::Number { key, value, most });
            }
        }
        Ok(read)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let Self { check_ms, request_ms, busy_cores, cores, upstream_round_trip_ms, shaped_links } = self;
        format!(
            "# What a simulation takes from one measured run: `colibri loadtest calibrate`.\n\
             # An update check beyond the network, on an idle machine.\ncheck_ms = {check_ms:.4}\n\
             # Each request for blobs, likewise.\nrequest_ms = {request_ms:.4}\n\
             # Cores busy while such time passes, clients and servers together.\nbusy_cores = {busy_cores:.4}\n\
             # Cores of the machine; 0 for as many as are needed.\ncores = {cores:.1}\n\
             # From an edge to its upstream and back.\nupstream_round_trip_ms = {upstream_round_trip_ms:.4}\n\
             # Whether link classes have their delay and bandwidth.\nshaped_links = {shaped_links}\n"
        )
    }

    /// What makes the simulation of `scenario` as slow as `measured`, a run of it on servers of its own, was: its median check, its
    /// median fetch, and the processor time it took.
    ///
    /// # Errors
    /// The report is not of such a run.
    pub fn of_run(scenario: &Scenario, measured: &Report) -> Result<Self, CalibrationError> {
        if measured.kind != Kind::Run || measured.scenario != scenario.name {
            let kind = if measured.kind == Kind::Run { "of a run" } else { "a simulation" };
            return Err(CalibrationError::Report(format!("{kind} of `{}`", measured.scenario)));
        }
        let record = measured.load_record().map_err(|error| CalibrationError::Syntax(error.to_string()))?;
        let cpu_ms = record.counter("process_cpu_ms") as f64;
        if cpu_ms <= 0.0 {
            return Err(CalibrationError::Missing("processor time"));
        }
        // Upstream is the next port of the same machine.
        let idle = Self { upstream_round_trip_ms: 0.0, shaped_links: shapes(scenario, &record)?, ..Self::default() };
        let simulation = Simulation { calibration: idle, ..Simulation::of(scenario) };
        let simulated = simulation.run(&mut |_| ())?;
        let expected = simulated.load_record().map_err(|error| CalibrationError::Syntax(error.to_string()))?;
        let check_ms = beyond(&record, &expected, Step::Timestamp)?;
        let fetch_ms = beyond(&record, &expected, Step::Fetch)?;
        let counted = |name: &str| expected.counter(name) as f64;
        let fetches = expected.of(Step::Fetch, None, None).map_or(0, |all| all.len()).max(1) as f64;
        let per_fetch = (counted("blob_requests") / fetches).max(1.0);
        let request_ms = fetch_ms / per_fetch;
        let worked_ms = counted("sessions") * check_ms + counted("blob_requests") * request_ms;
        let cores = measured.environment.get("cores").and_then(|cores| cores.parse().ok()).unwrap_or(0.0);
        Ok(Self { check_ms, request_ms, busy_cores: cpu_ms / worked_ms.max(1e-3), cores, ..idle })
    }
}

/// Whether links had their delay: no check is faster than one round trip of its link.
fn shapes(scenario: &Scenario, record: &Record) -> Result<bool, CalibrationError> {
    let slowest = scenario.links.iter().zip(0_u8..).max_by(|a, b| a.0.round_trip_ms.total_cmp(&b.0.round_trip_ms));
    let (link, number) = slowest.ok_or(CalibrationError::Missing("links"))?;
    let checks = record.of(Step::Timestamp, Some(Outcome::Ok), Some(number));
    let checks = checks.ok_or(CalibrationError::Missing("update check on the slowest link"))?;
    Ok(checks.value_at_quantile(0.5) as f64 / 1e3 >= link.round_trip_ms)
}

/// By how much the median of a step was longer than a machine without bound would have made it, milliseconds.
fn beyond(measured: &Record, expected: &Record, step: Step) -> Result<f64, CalibrationError> {
    let median = |record: &Record| {
        let all = record.of(step, Some(Outcome::Ok), None)?;
        Some(all.value_at_quantile(0.5) as f64 / 1e3)
    };
    let measured = median(measured).ok_or(CalibrationError::Missing("update check or fetch"))?;
    Ok((measured - median(expected).unwrap_or(0.0)).max(1e-3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: &str = "name = 's'\ndevices = 40\nduration_s = 60\n[arrivals]\nkind = 'poll'\ninterval_s = 10\n\
        [popularity]\non_demand = 1\n[system]\nedges = 1\npackages = 20\n";

    #[test]
    fn a_file_is_read_as_it_was_written_and_nonsense_is_refused() {
        let written = Calibration { check_ms: 1.5, cores: 2.0, busy_cores: 0.75, ..Calibration::default() };
        assert_eq!(Calibration::parse(&written.text()), Ok(written));
        let wrong = written.text().replace("check_ms = 1.5", "check_ms = -1.5");
        assert!(matches!(Calibration::parse(&wrong), Err(CalibrationError::Number { key: "check_ms", .. })));
        for text in [written.text() + "more = 1\n", "check_ms = 1".to_owned(), "check_ms = nan".to_owned()] {
            assert!(Calibration::parse(&text).is_err(), "{text}");
        }
    }

    /// A run that was in truth a simulation with known costs gives these costs back.
    #[test]
    fn what_was_put_in_comes_out() {
        let scenario = Scenario::parse(STEADY).unwrap();
        let truth = Calibration {
            check_ms: 8.0,
            request_ms: 2.0,
            busy_cores: 1.25,
            cores: 2.0,
            upstream_round_trip_ms: 0.0,
            shaped_links: true,
        };
        let mut run = Simulation { calibration: truth, ..Simulation::of(&scenario) }.run(&mut |_| ()).unwrap();
        run.kind = Kind::Run;
        run.environment.insert("cores".to_owned(), "2".to_owned());
        assert_eq!(Calibration::of_run(&scenario, &run), Err(CalibrationError::Missing("processor time")));
        let counted = |name: &str| run.counters[name] as f64;
        let cpu_ms = 1.25 * (8.0 * counted("sessions") + 2.0 * counted("blob_requests"));
        let mut record = run.load_record().unwrap();
        record.add("process_cpu_ms", cpu_ms as u64);
        run.record = record.store();
        let found = Calibration::of_run(&scenario, &run).unwrap();
        let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.05, "{found} for {expected}");
        near(found.check_ms, 8.0);
        near(found.request_ms, 2.0);
        near(found.busy_cores, 1.25);
        assert!(found.shaped_links && found.cores == 2.0);
        run.kind = Kind::Simulation;
        assert!(matches!(Calibration::of_run(&scenario, &run), Err(CalibrationError::Report(_))));
    }
}
