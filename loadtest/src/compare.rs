//! Two reports side by side: what changed by more than chance.
//!
//! The 99th percentile and the median of each step are compared by bootstrap: both are drawn again many times, as if from new samples of
//! the same histograms, and the middle 95 % of the ratio is its confidence interval. Shares of failures are compared likewise.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::draw::{Draw, Purpose};
use crate::outcome::Report;
use crate::record::{Outcome, Record, RecordError, Step};

/// Times that quantities are drawn again.
const RESAMPLES: u64 = 1_000;

/// Samples beyond a quantile, on either side, from which on it is compared.
const SAMPLES_MIN: f64 = 10.0;

/// What became of a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Smaller beyond chance and tolerance.
    Better,
    /// Neither.
    Same,
    /// Larger beyond chance and tolerance.
    Worse,
}

/// One quantity in both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// What.
    pub what: String,
    /// In the first report, milliseconds or a share.
    pub before: f64,
    /// In the second.
    pub after: f64,
    /// 95 % confidence interval of second / first.
    pub ratio_low: f64,
    /// Its upper end.
    pub ratio_high: f64,
    /// What became of it.
    pub change: Change,
}

/// Why two reports cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// They are of different things.
    #[error("the reports are of different scenarios, {0} and {1}: what changed between them would say nothing")]
    Scenarios(String, String),
    /// They were made in different ways.
    #[error("one report was measured and the other simulated")]
    Kinds,
    /// One cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// One says nothing.
    #[error("the {0} report is of a run that its generator spoilt")]
    Invalid(&'static str),
}

/// Compares `after` with `before`. A change below `tolerance`, as a share, is none.
pub fn compare(before: &Report, after: &Report, tolerance: f64) -> Result<Vec<Compared>, CompareError> {
    if before.scenario != after.scenario {
        return Err(CompareError::Scenarios(before.scenario.clone(), after.scenario.clone()));
    }
    if before.kind != after.kind {
        return Err(CompareError::Kinds);
    }
    for (report, which) in [(before, "first"), (after, "second")] {
        if !report.invalid_because.is_empty() {
            return Err(CompareError::Invalid(which));
        }
    }
    let (before, after) = (before.load_record()?, after.load_record()?);
    let mut all = vec![failures(&before, &after, tolerance)];
    for (number, (step, name)) in (0..).zip(Step::ALL) {
        let of = |record: &Record| record.of(step, Some(Outcome::Ok), None);
        let (Some(before), Some(after)) = (of(&before), of(&after)) else { continue };
        for (quantile, title) in [(0.5, "p50"), (0.99, "p99")] {
            if [&before, &after].into_iter().any(|of| of.len() as f64 * (1.0 - quantile) < SAMPLES_MIN) {
                continue;
            }
            let mut draw = Draw::of(1, Purpose::Resample, number, (quantile * 100.0) as u64);
            let [one, other] = [Law::of(&before), Law::of(&after)];
            let ratios = (0..RESAMPLES)
                .map(|_| other.quantile_drawn(quantile, &mut draw) / one.quantile_drawn(quantile, &mut draw));
            let ms = |of: &Histogram<u64>| of.value_at_quantile(quantile) as f64 / 1e3;
            all.push(compared(
                format!("{title}(step={name}) ms"),
                ms(&before),
                ms(&after),
                ratios.collect(),
                tolerance,
            ));
        }
    }
    Ok(all)
}

fn compared(what: String, before: f64, after: f64, mut ratios: Vec<f64>, tolerance: f64) -> Compared {
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    let (ratio_low, ratio_high) = (at(0.025), at(0.975));
    let change = match () {
        () if ratio_low > 1.0 + tolerance => Change::Worse,
        () if ratio_high < 1.0 - tolerance => Change::Better,
        () => Change::Same,
    };
    Compared { what, before, after, ratio_low, ratio_high, change }
}

/// A histogram as a law: its values and how many samples are at most as large.
struct Law {
    values: Vec<(u64, f64)>,
    count: f64,
}

impl Law {
    fn of(histogram: &Histogram<u64>) -> Self {
        let mut sum = 0;
        let cumulated = histogram.iter_recorded().map(|at| {
            sum += at.count_at_value();
            (at.value_iterated_to(), sum as f64)
        });
        Self { values: cumulated.collect(), count: histogram.len() as f64 }
    }

    /// The quantile of a new sample of the same size: its place in the law is an order statistic, which is about normal.
    fn quantile_drawn(&self, quantile: f64, draw: &mut Draw) -> f64 {
        let place = quantile + draw.normal() * (quantile * (1.0 - quantile) / self.count).sqrt();
        let at = self.values.partition_point(|(_, sum)| *sum < place * self.count).min(self.values.len() - 1);
        self.values[at].0.max(1) as f64
    }
}

fn failures(before: &Record, after: &Record, tolerance: f64) -> Compared {
    let counts = |record: &Record| (record.counter("sessions_failed"), record.counter("sessions").max(1));
    let (before, after) = (counts(before), counts(after));
    let share = |(failed, all): (u64, u64)| failed as f64 / all as f64;
    let drawn = |(failed, all): (u64, u64), draw: &mut Draw| {
        // One half more on either side: a ratio of nothing to nothing is one.
        let share = (failed as f64 + 0.5) / (all as f64 + 1.0);
        (share + draw.normal() * (share * (1.0 - share) / all as f64).sqrt()).max(0.5 / (all as f64 + 1.0))
    };
    let mut draw = Draw::of(1, Purpose::Resample, u64::MAX, 0);
    let ratios = (0..RESAMPLES).map(|_| drawn(after, &mut draw) / drawn(before, &mut draw)).collect();
    compared("ratio(failed)".to_owned(), share(before), share(after), ratios, tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Kind;
    use crate::scenario::Scenario;

    fn report(name: &str, seed: u64, mean_us: f64, failed_in_1000: u64) -> Report {
        let text = format!("name = '{name}'\ndevices = 3\nduration_s = 9\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n");
        let mut draw = Draw::of(seed, Purpose::Gap, 0, 0);
        let mut record = Record::default();
        for _ in 0..3_000 {
            let failed = draw.below(1_000) < failed_in_1000;
            let outcome = if failed { Outcome::Failed } else { Outcome::Ok };
            record.took((Step::Session, outcome, 0), draw.exponential(mean_us) as u64);
            record.add("sessions", 1);
            record.add("sessions_failed", u64::from(failed));
        }
        Report::judged(Kind::Run, &Scenario::parse(&text).unwrap(), &record, 0.0, 3, true)
    }

    fn changes(before: &Report, after: &Report) -> Vec<Change> {
        compare(before, after, 0.05).unwrap().iter().map(|compared| compared.change).collect()
    }

    #[test]
    fn chance_is_no_change_and_a_change_is_seen() {
        use Change::{Better, Same, Worse};
        let before = report("x", 1, 20_000.0, 10);
        assert_eq!(changes(&before, &before), [Same, Same, Same]);
        assert_eq!(changes(&before, &report("x", 2, 20_000.0, 10)), [Same, Same, Same], "failures, p50, p99");
        assert_eq!(changes(&before, &report("x", 3, 30_000.0, 100)), [Worse, Worse, Worse]);
        assert_eq!(changes(&report("x", 3, 30_000.0, 100), &before), [Better, Better, Better]);
    }

    #[test]
    fn only_like_is_compared_with_like() {
        let (one, other) = (report("x", 1, 1.0, 0), report("y", 1, 1.0, 0));
        assert!(matches!(compare(&one, &other, 0.0), Err(CompareError::Scenarios(..))));
        let spoilt = Report { invalid_because: vec!["lag".to_owned()], ..one.clone() };
        assert!(matches!(compare(&one, &spoilt, 0.0), Err(CompareError::Invalid("second"))));
        let computed = Report { kind: Kind::Simulation, ..one.clone() };
        assert!(matches!(compare(&computed, &one, 0.0), Err(CompareError::Kinds)));
    }
}
