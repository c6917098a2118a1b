//! [`ProductVersion`]: one to four numbers with dots, as Omaha compares them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

const PARTS: usize = limits::VERSION_PARTS_MAX as usize;

/// A version such as `8.20220622.2.1`. Compared number by number; absent numbers are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProductVersion([u32; PARTS]);

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version: one to {PARTS} numbers of 32 bits with dots between")]
pub struct VersionError(String);

impl ProductVersion {
    /// The version of these numbers.
    pub const fn new(parts: [u32; PARTS]) -> Self {
        Self(parts)
    }

    /// Its numbers.
    pub const fn parts(self) -> [u32; PARTS] {
        self.0
    }
}

impl FromStr for ProductVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let refuse = || VersionError(text.chars().take(64).collect());
        let mut parts = [0; PARTS];
        for (index, part) in text.split('.').enumerate() {
            // `u32` alone would accept `+1`; leading zeros would give one version two texts.
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            let number = part.parse().ok().filter(|_| plain).ok_or_else(refuse)?;
            *parts.get_mut(index).ok_or_else(refuse)? = number;
        }
        Ok(Self(parts))
    }
}

impl TryFrom<String> for ProductVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<ProductVersion> for String {
    fn from(version: ProductVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for ProductVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let version = |text: &str| text.parse::<ProductVersion>().unwrap();
        assert!(version("2.10") > version("2.9.9.9"));
        assert_eq!(version("1"), version("1.0.0.0"));
        assert_eq!(version("8.20220622.2.1").to_string(), "8.20220622.2.1");
        for bad in ["", ".", "1.", "1.2.3.4.5", "a", "-1", "+1", "01", "1. 2", "4294967296"] {
            assert!(bad.parse::<ProductVersion>().is_err(), "{bad:?}");
        }
    }
}
