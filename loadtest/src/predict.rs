//! A prediction beside what was measured: hit ratio, origin bytes, and the time until the fleet has a release.

use serde::{Deserialize, Serialize};

use crate::outcome::{Kind, Report};

/// One quantity, predicted and measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// What.
    pub what: String,
    /// In what: `%`, `B`, `s`.
    pub unit: String,
    /// By the simulation.
    pub predicted: f64,
    /// By the run.
    pub measured: f64,
}

/// Why two reports cannot be put side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// The first is no simulation, or the second no run.
    #[error("the first report must be of a simulation and the second of a run")]
    Kinds,
    /// They are of two things.
    #[error("the prediction is of {predicted}, the run of {measured}")]
    Other {
        /// Scenario, seed and devices of the prediction.
        predicted: String,
        /// Of the run.
        measured: String,
    },
    /// One of them has not what is to be compared.
    #[error("the {which} has no {what}")]
    Missing {
        /// Which report.
        which: &'static str,
        /// What it has not.
        what: &'static str,
    },
    /// A histogram cannot be read.
    #[error("the {which} cannot be read: {reason}")]
    Record {
        /// Which report.
        which: &'static str,
        /// Why not.
        reason: String,
    },
}

impl Beside {
    /// How far the prediction is off, as a share of what was measured.
    pub fn off(&self) -> f64 {
        if self.measured == 0.0 {
            return if self.predicted == 0.0 { 0.0 } else { f64::INFINITY };
        }
        (self.predicted - self.measured).abs() / self.measured.abs()
    }
}

/// Puts a simulation and a run of one scenario, seed and number of devices side by side.
///
/// # Errors
/// They are of two things, or one of them lacks what is compared.
pub fn beside(predicted: &Report, measured: &Report) -> Result<Vec<Beside>, PredictError> {
    if predicted.kind != Kind::Simulation || measured.kind != Kind::Run {
        return Err(PredictError::Kinds);
    }
    let named = |report: &Report| format!("{}, seed {}, {} devices", report.scenario, report.seed, report.devices);
    if named(predicted) != named(measured) {
        return Err(PredictError::Other { predicted: named(predicted), measured: named(measured) });
    }
    let (ours, theirs) = (Quantities::of("prediction", predicted)?, Quantities::of("run", measured)?);
    let one = |what: &str, unit: &str, predicted, measured| Beside {
        what: what.to_owned(),
        unit: unit.to_owned(),
        predicted,
        measured,
    };
    let mut all = vec![
        one("hit ratio of edges", "%", ours.hit_percent, theirs.hit_percent),
        one("bytes from the origin", "B", ours.origin_bytes, theirs.origin_bytes),
    ];
    if let Some((predicted, measured)) = ours.most_s.zip(theirs.most_s) {
        all.push(one("time until 99 % have the release", "s", predicted, measured));
    }
    Ok(all)
}

struct Quantities {
    hit_percent: f64,
    origin_bytes: f64,
    most_s: Option<f64>,
}

impl Quantities {
    fn of(which: &'static str, report: &Report) -> Result<Self, PredictError> {
        let counter = |what: &'static str| {
            report.counters.get(what).map(|count| *count as f64).ok_or(PredictError::Missing { which, what })
        };
        let record = report.load_record().map_err(|error| PredictError::Record { which, reason: error.to_string() })?;
        let goal = (report.devices as f64 * 0.99).ceil() as u64;
        let released = report.released_at_s > 0.0;
        let most_s = record.updated_after_s(report.released_at_s, goal);
        if released && most_s.is_none() {
            return Err(PredictError::Missing { which, what: "99 % of the devices updated" });
        }
        let asked = counter("edge_requests")?;
        if asked == 0.0 {
            return Err(PredictError::Missing { which, what: "requests for blobs" });
        }
        Ok(Self {
            hit_percent: counter("edge_hits")? / asked * 100.0,
            origin_bytes: counter("origin_bytes")?,
            most_s: most_s.filter(|_| released),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::simulate::Simulation;

    fn simulated(seed: u64) -> Report {
        let text = format!(
            "name = 'w'\nseed = {seed}\ndevices = 200\nduration_s = 60\n[arrivals]\nkind = 'poll'\ninterval_s = 20\n\
             [[release]]\nat_s = 10\n[system]\npackages = 0\n"
        );
        Simulation::of(&Scenario::parse(&text).unwrap()).run(&mut |_| ()).unwrap()
    }

    #[test]
    fn what_is_off_is_told() {
        let predicted = simulated(3);
        let mut run = predicted.clone();
        run.kind = Kind::Run;
        let same = beside(&predicted, &run).unwrap();
        assert_eq!(same.len(), 3);
        assert!(same.iter().all(|one| one.off() == 0.0 && one.measured > 0.0), "{same:?}");
        let bytes = run.counters["origin_bytes"];
        run.counters.insert("origin_bytes".to_owned(), bytes * 2);
        let off = beside(&predicted, &run).unwrap();
        assert_eq!(off[1].off(), 0.5);
        assert_eq!(beside(&run, &predicted), Err(PredictError::Kinds));
        let mut other = simulated(4);
        other.kind = Kind::Run;
        assert!(matches!(beside(&predicted, &other), Err(PredictError::Other { .. })));
        run.counters.remove("edge_hits");
        assert!(matches!(beside(&predicted, &run), Err(PredictError::Missing { which: "run", .. })));
    }
}
