//! [`Report`]: what came of a run or simulation, judged: rules, invariants, and whether the run counts at all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::predict::Beside;
use crate::record::{Outcome, Record, RecordError, Step, StoredRecord};
use crate::runner::{Mark, Measured};
use crate::scenario::Scenario;
use crate::slice::Slice;
use crate::slo::{Judged, Verdict};

/// One row of percentiles, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Step.
    pub step: Step,
    /// How it ended.
    pub outcome: Outcome,
    /// Link class; nothing for all of them.
    pub link: Option<String>,
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Worst.
    pub max_ms: f64,
}

/// Something that must hold in every run, whatever the scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// What.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was counted.
    pub detail: String,
}

/// How a report was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Measured.
    Run,
    /// Computed.
    Simulation,
}

/// The whole outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Measured or computed.
    pub kind: Kind,
    /// Name of the scenario.
    pub scenario: String,
    /// What it is about.
    pub about: String,
    /// Its seed.
    pub seed: u64,
    /// Its link classes.
    pub links: Vec<String>,
    /// Devices that woke.
    pub devices: u64,
    /// From the start to the end of the last session, seconds.
    pub duration_s: f64,
    /// Why the run does not count; empty if it does.
    pub invalid_because: Vec<String>,
    /// Its rules.
    pub verdicts: Vec<Verdict>,
    /// What must always hold.
    pub invariants: Vec<Invariant>,
    /// Percentiles by step and outcome, and again by link class.
    pub rows: Vec<Row>,
    /// Counts and sums.
    pub counters: BTreeMap<String, u64>,
    /// Bad bytes by the address they came from.
    pub blames: BTreeMap<String, u64>,
    /// Faults and releases.
    pub marks: Vec<Mark>,
    /// When the last release came, seconds after the start.
    pub released_at_s: f64,
    /// Lag of the generator behind its plan, 99th percentile, milliseconds.
    pub lag_p99_ms: f64,
    /// What a simulation had predicted, beside what was measured.
    #[serde(default)]
    pub beside: Vec<Beside>,
    /// Where it was made.
    pub environment: BTreeMap<String, String>,
    /// The part of the plan that this is of; nothing for all of it.
    #[serde(default)]
    pub slice: Option<Slice>,
    /// Whether somebody ended the run before its plan was over.
    #[serde(default)]
    pub interrupted: bool,
    /// Everything, to be merged and compared.
    pub record: StoredRecord,
}

/// What a report means for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Every rule and invariant was kept.
    Passed,
    /// Some were not.
    Failed,
    /// The generator spoilt the run: it says nothing.
    Invalid,
}

impl Report {
    /// Judges what was measured. Without `times`, rules about times are shown only.
    pub fn of_run(scenario: &Scenario, measured: &Measured, times: bool) -> Self {
        let mut report =
            Self::judged(Kind::Run, scenario, &measured.record, measured.released_at_s, measured.devices, times);
        report.duration_s = measured.duration_s;
        report.marks.clone_from(&measured.marks);
        report.blames.clone_from(&measured.blames);
        report.invalid_because = spoilt(scenario, &measured.record);
        report.interrupted = measured.interrupted;
        if measured.interrupted {
            let (after_s, of_s) = (measured.duration_s, scenario.duration_s);
            report.invalid_because.push(format!("it was interrupted after {after_s:.1} of {of_s} s"));
        }
        report.invariants = invariants(&measured.record, measured.devices, measured.converges);
        report
    }

    /// What a record says of a scenario.
    pub(crate) fn judged(
        kind: Kind,
        scenario: &Scenario,
        record: &Record,
        released_at_s: f64,
        devices: u64,
        times: bool,
    ) -> Self {
        let links: Vec<_> = scenario.links.iter().map(|link| link.name.clone()).collect();
        let judged = Judged { record, links: &links, released_at_s, devices };
        Self {
            kind,
            scenario: scenario.name.clone(),
            about: scenario.about.clone(),
            seed: scenario.seed,
            devices,
            duration_s: scenario.duration_s,
            invalid_because: Vec::new(),
            verdicts: scenario.slo.iter().map(|rule| rule.judge(&judged, times)).collect(),
            invariants: Vec::new(),
            rows: rows(record, &links),
            counters: record.counters.clone(),
            blames: BTreeMap::new(),
            marks: Vec::new(),
            released_at_s,
            lag_p99_ms: record.lag.value_at_quantile(0.99) as f64 / 1e3,
            beside: Vec::new(),
            environment: environment(),
            slice: None,
            interrupted: false,
            record: record.store(),
            links,
        }
    }

    /// What it means.
    pub fn standing(&self) -> Standing {
        let kept = self.verdicts.iter().all(|verdict| verdict.kept != Some(false));
        let held = self.invariants.iter().all(|invariant| invariant.held);
        match (held, self.invalid_because.is_empty(), kept) {
            // Bad bytes are bad however busy the generator was.
            (false, ..) => Standing::Failed,
            (true, false, _) => Standing::Invalid,
            (true, true, true) => Standing::Passed,
            (true, true, false) => Standing::Failed,
        }
    }

    /// Its measurements.
    pub fn load_record(&self) -> Result<Record, RecordError> {
        Record::load(self.record.clone())
    }

    /// Percentiles as CSV, one line for each step, outcome and link class; then a line for each counter.
    pub fn csv(&self) -> String {
        let mut text = "step,outcome,link,count,p50_ms,p90_ms,p99_ms,p999_ms,max_ms\n".to_owned();
        for row in &self.rows {
            let outcome = if row.outcome == Outcome::Ok { "ok" } else { "failed" };
            // Names of link classes are texts of a scenario: a quote in one is doubled.
            let link = row.link.as_deref().unwrap_or("all").replace('"', "\"\"");
            let numbers =
                [row.p50_ms, row.p90_ms, row.p99_ms, row.p999_ms, row.max_ms].map(|ms| format!("{ms:.3}")).join(",");
            text.push_str(&format!("{},{outcome},\"{link}\",{},{numbers}\n", row.step.name(), row.count));
        }
        for (name, count) in &self.counters {
            text.push_str(&format!("{name},counter,\"all\",{count},,,,,\n"));
        }
        text
    }
}

/// Why a run says nothing about the system.
fn spoilt(scenario: &Scenario, record: &Record) -> Vec<String> {
    let mut because = Vec::new();
    let (lag_ms, most_ms) = (record.lag.value_at_quantile(0.99) as f64 / 1e3, scenario.generator.lag_p99_ms_max);
    if lag_ms > most_ms {
        because.push(format!("the generator lagged {lag_ms:.1} ms behind its plan (p99), more than {most_ms} ms"));
    }
    let dropped = record.counter("dropped_starts");
    if dropped > 0 {
        let most = scenario.generator.sessions_at_once;
        because.push(format!("{dropped} sessions were not started: {most} were under way, the most that are allowed"));
    }
    if record.counter("sessions") == 0 {
        because.push("no session took place".to_owned());
    }
    because
}

/// What must hold in every run; `converges` if there was a release for all of these devices.
pub(crate) fn invariants(record: &Record, devices: u64, converges: bool) -> Vec<Invariant> {
    let count = |name: &str| record.counter(name);
    let invariant = |name: &str, held, detail: String| Invariant { name: name.to_owned(), held, detail };
    let (audited, unverified) = (count("audited_bytes"), count("unverified_bytes"));
    let detail = format!("{unverified} of {audited} bytes that were hashed once more");
    let mut all = vec![
        invariant("no unverified byte is accepted", unverified == 0, detail),
        invariant(
            "no device goes back to an older version",
            count("rollbacks") == 0,
            format!("{} did", count("rollbacks")),
        ),
    ];
    if converges {
        let behind = count("not_converged");
        all.push(invariant(
            "every device converges on the newest release",
            behind == 0,
            format!("{behind} of {devices} did not"),
        ));
    }
    all
}

pub(crate) fn rows(record: &Record, links: &[String]) -> Vec<Row> {
    let mut rows = Vec::new();
    let classes = std::iter::once(None).chain((0..links.len()).filter(|_| links.len() > 1).map(Some));
    for class in classes {
        for (step, _) in Step::ALL {
            for outcome in [Outcome::Ok, Outcome::Failed] {
                let link = class.and_then(|class| u8::try_from(class).ok());
                let Some(histogram) = record.of(step, Some(outcome), link) else { continue };
                let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
                rows.push(Row {
                    step,
                    outcome,
                    link: class.map(|class| links[class].clone()),
                    count: histogram.len(),
                    p50_ms: ms(0.5),
                    p90_ms: ms(0.9),
                    p99_ms: ms(0.99),
                    p999_ms: ms(0.999),
                    max_ms: histogram.max() as f64 / 1e3,
                });
            }
        }
    }
    rows
}

fn environment() -> BTreeMap<String, String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let rows = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("cores", cores.to_string()),
        ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
    ];
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
