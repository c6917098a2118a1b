//! [`merge`]: reports of all slices of one plan become the report of the whole: histograms are merged exactly, counters added, rules
//! judged once, on all of it.

use std::collections::BTreeSet;

use crate::outcome::{self, Kind, Report};
use crate::record::Record;
use crate::slo::{Judged, Rule};

/// Why reports cannot be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// None was given.
    #[error("there is no report to merge")]
    Nothing,
    /// One is not of a slice of a run.
    #[error("report {0} is not of a slice of a run (`run --slice`)")]
    NoSlice(usize),
    /// Two are not of the same plan.
    #[error("report {number} is not of the same run as the first: another {what}")]
    Other {
        /// Which, from 1.
        number: usize,
        /// What differs.
        what: &'static str,
    },
    /// Two are of the same slice.
    #[error("slice {0} is there twice")]
    Twice(String),
    /// One cannot be read.
    #[error("report {number}: {reason}")]
    Record {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// The report of the whole run. A slice that is missing makes it invalid: `lost` says why, if somebody knows.
///
/// # Errors
/// The reports are not of slices of one run.
pub fn merge(reports: &[Report], lost: &[String]) -> Result<Report, MergeError> {
    let first = reports.first().ok_or(MergeError::Nothing)?;
    let mut whole = first.clone();
    let mut record = Record::default();
    let mut seen = BTreeSet::new();
    whole.slice = None;
    (whole.devices, whole.duration_s) = (0, 0.0);
    whole.invalid_because.clear();
    whole.marks.clear();
    whole.blames.clear();
    for (number, report) in (1..).zip(reports) {
        let slice = report.slice.filter(|_| report.kind == Kind::Run).ok_or(MergeError::NoSlice(number))?;
        same(first, report).map_err(|what| MergeError::Other { number, what })?;
        if !seen.insert(slice.number()) {
            return Err(MergeError::Twice(slice.to_string()));
        }
        let part = report.load_record();
        record.merge(&part.map_err(|error| MergeError::Record { number, reason: error.to_string() })?);
        whole.devices += report.devices;
        whole.duration_s = whole.duration_s.max(report.duration_s);
        whole.invalid_because.extend(report.invalid_because.iter().map(|because| format!("slice {slice}: {because}")));
        whole.marks.extend(report.marks.iter().cloned());
        for (source, count) in &report.blames {
            *whole.blames.entry(source.clone()).or_default() += count;
        }
    }
    let count = first.slice.map_or(1, |slice| slice.count());
    whole.invalid_because.extend(lost.iter().cloned());
    let missing: Vec<_> =
        (1..=count).filter(|number| !seen.contains(number)).map(|number| number.to_string()).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        whole.invalid_because.push(format!("of {count} slices these are missing: {missing}"));
    }
    whole.marks.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    whole.environment.insert("workers".to_owned(), seen.len().to_string());
    judge(&mut whole, &record);
    Ok(whole)
}

/// What two slices of one run have in common.
fn same(first: &Report, other: &Report) -> Result<(), &'static str> {
    let rules = |report: &Report| {
        report.verdicts.iter().map(|verdict| (verdict.rule.clone(), verdict.kept.is_some())).collect::<Vec<_>>()
    };
    let slices = |report: &Report| report.slice.map(|slice| slice.count());
    let version = |report: &Report| report.environment.get("version").cloned();
    for (differs, what) in [
        (first.scenario != other.scenario, "scenario"),
        (first.seed != other.seed, "seed"),
        (first.links != other.links, "set of link classes"),
        (rules(first) != rules(other), "set of rules"),
        (slices(first) != slices(other), "number of slices"),
        (version(first) != version(other), "version of the program"),
    ] {
        if differs {
            return Err(what);
        }
    }
    Ok(())
}

/// Everything that follows from the record, from the whole of it.
fn judge(whole: &mut Report, record: &Record) {
    let times = whole.verdicts.iter().all(|verdict| verdict.kept.is_some());
    let judged = Judged { record, links: &whole.links, released_at_s: whole.released_at_s, devices: whole.devices };
    // Each was written by a rule that could be read; one of a later version stays as the first slice saw it.
    let rules = whole.verdicts.iter().map(|verdict| match Rule::parse(&verdict.rule) {
        Ok(rule) => rule.judge(&judged, times),
        Err(_) => verdict.clone(),
    });
    let verdicts = rules.collect();
    whole.verdicts = verdicts;
    let converges = whole.invariants.len() > 2;
    whole.invariants = outcome::invariants(record, whole.devices, converges);
    whole.rows = outcome::rows(record, &whole.links);
    whole.counters.clone_from(&record.counters);
    whole.lag_p99_ms = record.lag.value_at_quantile(0.99) as f64 / 1e3;
    whole.record = record.store();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Standing;
    use crate::record::{Outcome, Step};
    use crate::scenario::Scenario;
    use crate::slice::Slice;

    const TEXT: &str = "name = 's'\ndevices = 9\nduration_s = 9\nslo = ['ratio(failed) < 20%', 'p99(step=fetch) < 1s']\n\
        [arrivals]\nkind = 'flash'\nwithin_s = 1\n";

    /// The report of a slice in which so many of ten sessions failed, and the record of it.
    fn part(number: u32, failed: u64) -> (Report, Record) {
        let mut record = Record::default();
        for session in 0..10 {
            let outcome = if session < failed { Outcome::Failed } else { Outcome::Ok };
            record.took((Step::Session, outcome, 0), 1_000 * u64::from(number) + session);
            record.took((Step::Fetch, outcome, 0), 700 * u64::from(number) + session);
        }
        record.add("sessions", 10);
        let scenario = Scenario::parse(TEXT).unwrap();
        let mut report = Report::judged(Kind::Run, &scenario, &record, 0.0, 3, true);
        report.invariants = outcome::invariants(&record, 3, true);
        report.slice = Slice::new(number, 3).ok();
        (report, record)
    }

    #[test]
    fn the_whole_is_judged_not_its_parts() {
        let parts = [part(1, 4), part(2, 0), part(3, 0)];
        assert_eq!(parts[0].0.standing(), Standing::Failed, "one slice alone had too many failures");
        let reports: Vec<_> = parts.iter().map(|(report, _)| report.clone()).collect();
        let whole = merge(&reports, &[]).unwrap();
        assert_eq!(whole.standing(), Standing::Passed, "{whole:?}");
        assert_eq!((whole.devices, whole.counters["sessions"]), (9, 30));
        let mut record = Record::default();
        parts.iter().for_each(|(_, part)| record.merge(part));
        assert!(whole.load_record().unwrap() == record, "histograms are merged exactly");
        assert_eq!(whole.rows.iter().find(|row| row.step == Step::Session).unwrap().count, 26);
    }

    #[test]
    fn what_is_missing_or_foreign_is_told() {
        let (one, two) = (part(1, 0).0, part(2, 0).0);
        let whole = merge(&[one.clone(), two.clone()], &["worker 3 was lost".to_owned()]).unwrap();
        assert_eq!(whole.standing(), Standing::Invalid);
        assert_eq!(whole.invalid_because, ["worker 3 was lost", "of 3 slices these are missing: 3"]);
        assert_eq!(merge(&[], &[]), Err(MergeError::Nothing));
        assert_eq!(merge(&[one.clone(), one.clone()], &[]), Err(MergeError::Twice("1/3".to_owned())));
        let mut other = two.clone();
        other.seed = 9;
        assert_eq!(merge(&[one.clone(), other], &[]), Err(MergeError::Other { number: 2, what: "seed" }));
        let mut whole = two;
        whole.slice = None;
        assert_eq!(merge(&[one, whole], &[]), Err(MergeError::NoSlice(2)));
    }
}
