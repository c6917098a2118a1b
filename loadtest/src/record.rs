//! [`Record`]: what a run measured: a histogram per step, outcome and link class, counters, a timeline, and the generator's own
//! lag. Records of parts of a run merge into exactly the record of the whole.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::limits::{FAILURE_TEXTS_MAX, SLOWEST_MAX, TIMELINE_S_MAX};

/// Longest time told apart, microseconds: a day.
const LONGEST_US: u64 = 86_400_000_000;

/// A step in the life of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// From the intended wake until the device runs.
    Boot,
    /// From the intended wake until it knows that there is nothing new: one timestamp.
    Timestamp,
    /// From the intended wake until new metadata is proven.
    Refresh,
    /// From a name to the package hash.
    Resolve,
    /// Fetching what is missing of a package; each leaf is verified as it comes.
    Fetch,
    /// Proving that all of what was fetched is on the device. Leaves are verified as they come, within [`Step::Fetch`].
    Verify,
    /// Taking it: what it replaces is let go.
    Install,
    /// From the intended wake until the device is idle again.
    Session,
}

impl Step {
    /// All, in their order, with their names in rules.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Boot, "boot"),
        (Self::Timestamp, "timestamp"),
        (Self::Refresh, "refresh"),
        (Self::Resolve, "resolve"),
        (Self::Fetch, "fetch"),
        (Self::Verify, "verify"),
        (Self::Install, "install"),
        (Self::Session, "session"),
    ];

    /// Its name in rules.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// Not.
    Failed,
}

/// What a histogram is of: step, outcome, link class.
pub type Key = (Step, Outcome, u8);

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Sessions meant to begin.
    pub due: u64,
    /// Sessions that ended well.
    pub ok: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// Devices that took the newest release.
    pub updated: u64,
    /// Body bytes that devices received.
    pub device_bytes: u64,
}

/// A session that took long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slow {
    /// From the intended wake to its end, microseconds.
    pub took_us: u64,
    /// Which device.
    pub device: u32,
    /// When it was meant to wake, microseconds after the start.
    pub at_us: u64,
    /// Its link class.
    pub link: u8,
    /// Whether it ended well.
    pub ok: bool,
}

/// Everything measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    histograms: BTreeMap<Key, Histogram<u64>>,
    /// How far starts lagged behind the plan, microseconds.
    pub lag: Histogram<u64>,
    /// Counts and sums by name: what rules call counters.
    pub counters: BTreeMap<String, u64>,
    /// By second after the start.
    pub timeline: Vec<Second>,
    /// The first different failures.
    pub failure_texts: Vec<String>,
    /// The sessions that took longest, the longest first.
    pub slowest: Vec<Slow>,
}

/// Why a stored record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A histogram.
    #[error("a stored histogram cannot be read: {0}")]
    Histogram(String),
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("fixed bounds")
}

impl Default for Record {
    fn default() -> Self {
        Self {
            histograms: BTreeMap::new(),
            lag: histogram(),
            counters: BTreeMap::new(),
            timeline: Vec::new(),
            failure_texts: Vec::new(),
            slowest: Vec::new(),
        }
    }
}

impl Record {
    /// One step took this long.
    pub fn took(&mut self, key: Key, took_us: u64) {
        self.histograms.entry(key).or_insert_with(histogram).saturating_record(took_us);
    }

    /// Adds to a counter.
    pub fn add(&mut self, name: &str, count: u64) {
        match self.counters.get_mut(name) {
            Some(counter) => *counter += count,
            None => drop(self.counters.insert(name.to_owned(), count)),
        }
    }

    /// A counter; zero if nothing was counted.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// The second that a time falls into.
    pub fn second(&mut self, at_us: u64) -> &mut Second {
        let second = usize::try_from(at_us / 1_000_000).unwrap_or(usize::MAX).min(TIMELINE_S_MAX - 1);
        if self.timeline.len() <= second {
            self.timeline.resize(second + 1, Second::default());
        }
        &mut self.timeline[second]
    }

    /// Remembers why something failed, if there is room and it is new.
    pub fn failed(&mut self, text: &str) {
        if self.failure_texts.len() < FAILURE_TEXTS_MAX && !self.failure_texts.iter().any(|known| known == text) {
            self.failure_texts.push(text.to_owned());
        }
    }

    /// Remembers a session if it is among the longest.
    pub fn slow(&mut self, session: Slow) {
        if self.slowest.len() == SLOWEST_MAX && self.slowest.last().is_some_and(|last| *last >= session) {
            return;
        }
        let place = self.slowest.partition_point(|known| *known >= session);
        self.slowest.insert(place, session);
        self.slowest.truncate(SLOWEST_MAX);
    }

    /// The histograms of a step, optionally of one outcome and one link class, in one; nothing if nothing was recorded.
    pub fn of(&self, step: Step, outcome: Option<Outcome>, link: Option<u8>) -> Option<Histogram<u64>> {
        let fits = |key: &Key| {
            key.0 == step && outcome.is_none_or(|outcome| key.1 == outcome) && link.is_none_or(|link| key.2 == link)
        };
        let mut fitting = self.histograms.iter().filter(|(key, _)| fits(key)).map(|(_, histogram)| histogram);
        let mut sum = fitting.next()?.clone();
        // All have the same bounds.
        fitting.for_each(|other| sum.add(other).expect("equal bounds"));
        Some(sum)
    }

    /// All histograms.
    pub fn histograms(&self) -> impl Iterator<Item = (&Key, &Histogram<u64>)> {
        self.histograms.iter()
    }

    /// Takes in what another part of the same run measured.
    pub fn merge(&mut self, other: &Self) {
        for (key, theirs) in &other.histograms {
            self.histograms.entry(*key).or_insert_with(histogram).add(theirs).expect("equal bounds");
        }
        self.lag.add(&other.lag).expect("equal bounds");
        other.counters.iter().for_each(|(name, count)| self.add(name, *count));
        if self.timeline.len() < other.timeline.len() {
            self.timeline.resize(other.timeline.len(), Second::default());
        }
        for (ours, theirs) in self.timeline.iter_mut().zip(&other.timeline) {
            ours.due += theirs.due;
            ours.ok += theirs.ok;
            ours.failed += theirs.failed;
            ours.updated += theirs.updated;
            ours.device_bytes += theirs.device_bytes;
        }
        other.failure_texts.iter().for_each(|text| self.failed(text));
        other.slowest.iter().for_each(|session| self.slow(*session));
    }

    /// Seconds after `from_s` by which `goal` devices had taken the newest release; nothing if that never happened.
    pub fn updated_after_s(&self, from_s: f64, goal: u64) -> Option<f64> {
        let mut sum = 0;
        let second = self.timeline.iter().position(|second| {
            sum += second.updated;
            sum >= goal.max(1)
        })?;
        // The end of the second: later than the truth by at most one.
        Some(((second + 1) as f64 - from_s).max(0.0))
    }

    /// As it is stored.
    pub fn store(&self) -> StoredRecord {
        let stored = |(key, histogram): (&Key, &Histogram<u64>)| StoredHistogram {
            step: key.0,
            outcome: key.1,
            link: key.2,
            hdr_v2: encode(histogram),
        };
        StoredRecord {
            histograms: self.histograms.iter().map(stored).collect(),
            lag_hdr_v2: encode(&self.lag),
            counters: self.counters.clone(),
            timeline: self.timeline.clone(),
            failure_texts: self.failure_texts.clone(),
            slowest: self.slowest.clone(),
        }
    }

    /// Reads what was stored.
    pub fn load(stored: StoredRecord) -> Result<Self, RecordError> {
        let mut record = Self {
            lag: decode(&stored.lag_hdr_v2)?,
            counters: stored.counters,
            timeline: stored.timeline,
            failure_texts: stored.failure_texts,
            ..Self::default()
        };
        record.failure_texts.truncate(FAILURE_TEXTS_MAX);
        stored.slowest.iter().for_each(|session| record.slow(*session));
        record.timeline.truncate(TIMELINE_S_MAX);
        for one in stored.histograms {
            let key = (one.step, one.outcome, one.link);
            let theirs = decode(&one.hdr_v2)?;
            record.histograms.entry(key).or_insert_with(histogram).add(&theirs).expect("equal bounds");
        }
        Ok(record)
    }
}

/// A histogram in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHistogram {
    /// Step.
    pub step: Step,
    /// Outcome.
    pub outcome: Outcome,
    /// Link class.
    pub link: u8,
    /// HdrHistogram V2, base64; microseconds.
    pub hdr_v2: String,
}

/// A record in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// By step, outcome and link class.
    pub histograms: Vec<StoredHistogram>,
    /// The generator's lag.
    pub lag_hdr_v2: String,
    /// Counters.
    pub counters: BTreeMap<String, u64>,
    /// By second.
    pub timeline: Vec<Second>,
    /// Failures.
    pub failure_texts: Vec<String>,
    /// Sessions that took longest.
    #[serde(default)]
    pub slowest: Vec<Slow>,
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes every histogram");
    STANDARD.encode(bytes)
}

fn decode(text: &str) -> Result<Histogram<u64>, RecordError> {
    let wrong = |error: &dyn std::fmt::Display| RecordError::Histogram(error.to_string());
    let bytes = STANDARD.decode(text).map_err(|error| wrong(&error))?;
    // The header names the bounds, and memory is taken for them: only our own are read.
    let ours = encode_header();
    let length = bytes.get(4..8).and_then(|field| field.try_into().ok()).map(u32::from_be_bytes);
    if bytes.get(8..40) != Some(&ours[8..40]) || length.map(u64::from) != Some(bytes.len() as u64 - 40) {
        return Err(wrong(&"its bounds are not those of a record"));
    }
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| wrong(&format!("{error:?}")))?;
    let mut exact = histogram();
    exact.add(&read).map_err(|error| wrong(&format!("{error:?}")))?;
    Ok(exact)
}

/// The first bytes of a serialised empty histogram: cookie, length, offset, digits, lowest, highest, ratio.
fn encode_header() -> Vec<u8> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(&histogram(), &mut bytes).expect("a vector takes every histogram");
    bytes.truncate(40);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Draw, Purpose};

    fn sample(draw: &mut Draw) -> (Key, u64) {
        let step = Step::ALL[draw.below(7) as usize].0;
        let outcome = if draw.below(10) == 0 { Outcome::Failed } else { Outcome::Ok };
        ((step, outcome, draw.below(3) as u8), draw.exponential(50_000.0) as u64)
    }

    #[test]
    fn merged_is_one_record_of_all_samples() {
        let mut draw = Draw::of(5, Purpose::Gap, 0, 0);
        let mut parts = [Record::default(), Record::default(), Record::default()];
        let mut whole = Record::default();
        for number in 0..30_000 {
            let (key, took_us) = sample(&mut draw);
            for record in [&mut parts[draw.below(3) as usize], &mut whole] {
                record.took(key, took_us);
                record.lag.saturating_record(took_us / 100);
                record.add("sessions", 1);
                record.slow(Slow { took_us, device: number as u32, at_us: number, link: key.2, ok: true });
                record.second(number * 1_000).ok += 1;
            }
        }
        let mut merged = Record::default();
        for part in parts {
            // As between processes: stored, read, merged.
            let text = serde_json::to_string(&part.store()).unwrap();
            merged.merge(&Record::load(serde_json::from_str(&text).unwrap()).unwrap());
        }
        assert!(merged == whole, "merged records differ from one record of all samples");
        assert_eq!(
            merged.of(Step::Fetch, None, None).unwrap().value_at_quantile(0.99),
            whole.of(Step::Fetch, None, None).unwrap().value_at_quantile(0.99)
        );
    }

    #[test]
    fn a_stored_histogram_of_other_bounds_is_refused() {
        let other = Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 5).unwrap();
        assert!(decode(&encode(&other)).is_err());
        assert!(decode("AAAA").is_err());
        assert!(decode("not base64!").is_err());
        let mut cut = STANDARD.decode(encode(&histogram())).unwrap();
        cut.truncate(20);
        assert!(decode(&STANDARD.encode(cut)).is_err());
    }

    #[test]
    fn when_so_many_were_updated() {
        let mut record = Record::default();
        record.second(3_500_000).updated += 90;
        record.second(7_200_000).updated += 10;
        assert_eq!(record.updated_after_s(2.0, 90), Some(2.0));
        assert_eq!(record.updated_after_s(2.0, 99), Some(6.0));
        assert_eq!(record.updated_after_s(2.0, 101), None);
    }
}
