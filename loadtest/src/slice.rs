//! [`Slice`]: the part of a plan that one of several workers does. A device belongs to one slice whole, so that what it holds from
//! one wake to the next is in one place.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::WORKERS_MAX;

/// One of `count` slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct Slice {
    number: u32,
    count: u32,
}

/// A slice as it is stored.
#[derive(Deserialize)]
struct Parts {
    number: u32,
    count: u32,
}

/// Why there is no such slice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// It is not written as one.
    #[error("`{0}` is no slice: write NUMBER/COUNT, as 2/5")]
    Form(String),
    /// Its numbers are none of a slice.
    #[error("there is no slice {number} of {count}: slices are numbered from 1, and there are at most {WORKERS_MAX}")]
    Range {
        /// Its number.
        number: u32,
        /// How many there are.
        count: u32,
    },
}

impl Slice {
    /// Slice `number`, from 1, of `count`.
    ///
    /// # Errors
    /// There is no such slice.
    pub const fn new(number: u32, count: u32) -> Result<Self, SliceError> {
        if number == 0 || number > count || count as usize > WORKERS_MAX {
            return Err(SliceError::Range { number, count });
        }
        Ok(Self { number, count })
    }

    /// Its number, from 1.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// How many there are.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Whether a device belongs to it.
    pub const fn has(self, device: u32) -> bool {
        device % self.count == self.number - 1
    }
}

impl TryFrom<Parts> for Slice {
    type Error = SliceError;

    fn try_from(parts: Parts) -> Result<Self, SliceError> {
        Self::new(parts.number, parts.count)
    }
}

impl FromStr for Slice {
    type Err = SliceError;

    fn from_str(text: &str) -> Result<Self, SliceError> {
        let wrong = || SliceError::Form(text.to_owned());
        let (number, count) = text.split_once('/').ok_or_else(wrong)?;
        Self::new(number.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::scenario::Scenario;

    #[test]
    fn slices_cover_a_plan_exactly_once() {
        for arrivals in [
            "kind = 'poll'\ninterval_s = 7",
            "kind = 'cold'\nrate_per_s = 9",
            "kind = 'herd'\nlife_s = 9\nwithin_s = 2",
        ] {
            let text = format!(
                "name = 'p'\ndevices = 101\nduration_s = 60\n[arrivals]\n{arrivals}\n[popularity]\non_demand = 1\n"
            );
            let scenario = Scenario::parse(&text).unwrap();
            let whole: Vec<_> = Plan::of(&scenario).collect();
            let mut parts = Vec::new();
            for number in 1..=4 {
                let slice = Slice::new(number, 4).unwrap();
                let part: Vec<_> = Plan::of(&scenario).filter(|planned| slice.has(planned.wake.device)).collect();
                assert!(part.len() * 3 > whole.len() / 4, "{arrivals}: slice {slice} has {} wakes", part.len());
                parts.extend(part);
            }
            parts.sort_by_key(|planned| planned.wake);
            assert!(parts == whole, "{arrivals}: the slices are not the plan");
        }
    }

    #[test]
    fn slices_are_written_and_read() {
        assert_eq!("2/5".parse(), Slice::new(2, 5));
        assert_eq!(Slice::new(2, 5).unwrap().to_string(), "2/5");
        for text in ["0/5", "6/5", "1/0", "1/100000"] {
            assert!(matches!(text.parse::<Slice>(), Err(SliceError::Range { .. })), "{text}");
        }
        for text in ["", "2", "a/5", "2/5/6", "-1/5"] {
            assert!(matches!(text.parse::<Slice>(), Err(SliceError::Form(_))), "{text}");
        }
        assert!(serde_json::from_str::<Slice>("{\"number\":3,\"count\":2}").is_err());
    }
}
