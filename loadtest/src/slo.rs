//! Rules that a run must keep, as `p99(step=timestamp) < 200ms`, and their verdicts.
//!
//! A rule is `QUANTITY OPERATOR LIMIT`. Quantities: `p50` to `p99.999`, `mean` and `max` of a step, optionally by link class and
//! outcome; `ratio(failed)` of all sessions; `time_to(99% updated)`; counters, and one counter divided by another. Limits are times
//! (`us ms s m h`), shares (`%` or plain), bytes (`B kB MB GB TB`) or plain numbers, as the quantity asks.

mod parse;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::{Outcome, Record, Step};

/// One rule, as it was written and understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    text: String,
    quantity: Quantity,
    operator: Operator,
    limit: f64,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq)]
enum Quantity {
    /// Seconds: a quantile of a step.
    Quantile { quantile: f64, of: Selection },
    /// Seconds: the mean of a step.
    Mean(Selection),
    /// Seconds: the longest of a step.
    Max(Selection),
    /// Share of sessions that ended so.
    Ratio(Outcome),
    /// Seconds after the last release until this share of the devices had it.
    TimeTo { updated: f64 },
    /// A counter.
    Counter(String),
    /// One counter divided by another.
    Quotient(String, String),
}

/// Which histograms.
#[derive(Debug, Clone, PartialEq)]
struct Selection {
    step: Step,
    outcome: Option<Outcome>,
    link: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessEqual,
    More,
    MoreEqual,
    Equal,
}

/// What kind of number a quantity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Time,
    Share,
    Count,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in `{text}`, at character {position}: {what}")]
pub struct RuleError {
    /// The rule.
    pub text: String,
    /// Where, counted from 1.
    pub position: usize,
    /// What was expected there.
    pub what: String,
}

/// What rules are judged on.
#[derive(Debug)]
pub struct Judged<'a> {
    /// Measurements.
    pub record: &'a Record,
    /// Names of the link classes, in the order of the scenario.
    pub links: &'a [String],
    /// When the last release was published, seconds after the start.
    pub released_at_s: f64,
    /// Devices that should have it.
    pub devices: u64,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule.
    pub rule: String,
    /// What was measured, in the unit of the rule: seconds, a share, or a count. Nothing if there was nothing to measure.
    pub measured: Option<f64>,
    /// The same for people.
    pub shown: String,
    /// Whether it was kept; what cannot be measured is not kept. Nothing if it was not to be judged.
    pub kept: Option<bool>,
}

impl Rule {
    /// Reads a rule.
    ///
    /// # Errors
    /// The place of the mistake and what was expected there.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        parse::rule(text)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about times, which a loaded machine stretches.
    pub const fn is_about_time(&self) -> bool {
        matches!(self.quantity.unit(), Unit::Time)
    }

    /// Judges. With `times` false, rules about times are shown but not judged.
    pub fn judge(&self, judged: &Judged<'_>, times: bool) -> Verdict {
        let measured = self.quantity.measure(judged);
        let kept = measured.is_some_and(|value| self.operator.holds(value, self.limit));
        let shown =
            measured.map_or_else(|| "nothing was measured".to_owned(), |value| self.quantity.unit().show(value));
        let kept = (times || !self.is_about_time()).then_some(kept);
        Verdict { rule: self.text.clone(), measured, shown, kept }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Quantity {
    const fn unit(&self) -> Unit {
        match self {
            Self::Quantile { .. } | Self::Mean(_) | Self::Max(_) | Self::TimeTo { .. } => Unit::Time,
            Self::Ratio(_) | Self::Quotient(..) => Unit::Share,
            Self::Counter(_) => Unit::Count,
        }
    }

    fn measure(&self, judged: &Judged<'_>) -> Option<f64> {
        let record = judged.record;
        match self {
            Self::Quantile { quantile, of } => Some(of.histogram(judged)?.value_at_quantile(*quantile) as f64 / 1e6),
            Self::Mean(of) => Some(of.histogram(judged)?.mean() / 1e6),
            Self::Max(of) => Some(of.histogram(judged)?.max() as f64 / 1e6),
            Self::Ratio(outcome) => {
                let all = record.of(Step::Session, None, None)?.len();
                let these = record.of(Step::Session, Some(*outcome), None).map_or(0, |histogram| histogram.len());
                Some(these as f64 / all as f64)
            }
            Self::TimeTo { updated } => {
                let goal = (judged.devices as f64 * updated).ceil() as u64;
                record.updated_after_s(judged.released_at_s, goal)
            }
            Self::Counter(name) => record.counters.get(name).map(|count| *count as f64),
            Self::Quotient(above, below) => {
                let (above, below) = (record.counters.get(above)?, record.counters.get(below)?);
                (*below > 0).then(|| *above as f64 / *below as f64)
            }
        }
    }
}

impl Selection {
    fn histogram(&self, judged: &Judged<'_>) -> Option<hdrhistogram::Histogram<u64>> {
        let link = match &self.link {
            None => None,
            Some(name) => Some(u8::try_from(judged.links.iter().position(|known| known == name)?).ok()?),
        };
        judged.record.of(self.step, self.outcome, link)
    }
}

impl Operator {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::LessEqual => value <= limit,
            Self::More => value > limit,
            Self::MoreEqual => value >= limit,
            Self::Equal => value == limit,
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Time => seconds(value),
            Self::Share => format!("{:.3} %", value * 100.0),
            Self::Count => format!("{value}"),
        }
    }
}

/// Seconds for people.
pub fn seconds(value: f64) -> String {
    match value {
        value if value < 1.0 => format!("{:.1} ms", value * 1e3),
        value if value < 120.0 => format!("{value:.2} s"),
        value if value < 7_200.0 => format!("{:.1} min", value / 60.0),
        value => format!("{:.1} h", value / 3_600.0),
    }
}

#[cfg(test)]
mod tests;
