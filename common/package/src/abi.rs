//! [`AbiRevision`]: the number that says which platform interface a package was built for, and the known API levels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::PackageError;

/// An ABI revision: `meta/fuchsia.abi/abi-revision`, 8 bytes little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbiRevision(pub u64);

/// API levels and their ABI revisions, as Fuchsia's published version history lists them.
const LEVELS: &[(u32, u64)] = &[
    (7, 0xECCE_A2F7_0ACD_6FC0),
    (8, 0xA567_35A6_690E_09D8),
    (9, 0xECDB_841C_251A_8CB9),
    (10, 0xED74_D730_09C2_B4E3),
    (11, 0x406C_7CA7_EF07_7DB4),
    (12, 0x5790_4F5A_17FA_3B22),
    (13, 0x521F_A1E6_E1B1_88D8),
    (14, 0x099D_5AB9_C26B_64DA),
    (15, 0x7D68_E46C_02F8_19AE),
    (16, 0x5669_335A_144B_052A),
    (17, 0x30FA_7BA4_F2FF_24E0),
    (18, 0x8C83_EBE2_8BA3_45FC),
    (19, 0x3325_05FB_3A9C_DC6C),
    (20, 0xDB83_211C_067E_1052),
    (21, 0x9C46_2E1B_5EF9_AE5F),
    (22, 0xEE3B_E92B_E27C_6DEB),
    (23, 0x4C44_4771_E8DD_ABE1),
    (24, 0x2C14_9766_5AFD_4223),
    (25, 0x851A_CAA1_43F5_2ABB),
    (26, 0xB5D2_EBDA_9DA5_0585),
    (27, 0x826A_F640_460E_C304),
    (28, 0x755F_6F1D_48E8_7748),
    (29, 0x08A5_ACA0_909D_1405),
    (30, 0x9F57_AD49_1624_6E87),
    (31, 0x9080_590D_E550_3F82),
];

impl AbiRevision {
    /// The revision of the newest API level that is known here.
    pub const LATEST: Self = Self(LEVELS[LEVELS.len() - 1].1);

    /// The revision of an API level, if it is known here.
    pub fn of_api_level(level: u32) -> Option<Self> {
        LEVELS.iter().find(|(known, _)| *known == level).map(|(_, revision)| Self(*revision))
    }

    /// The API levels that are known here, lowest first.
    pub fn api_levels() -> impl Iterator<Item = u32> {
        LEVELS.iter().map(|(level, _)| *level)
    }

    /// The content of `meta/fuchsia.abi/abi-revision`.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// Parses the content of `meta/fuchsia.abi/abi-revision`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        let exact: [u8; 8] = bytes.try_into().map_err(|_| PackageError::AbiRevisionLength(bytes.len() as u64))?;
        Ok(Self(u64::from_le_bytes(exact)))
    }
}

impl FromStr for AbiRevision {
    type Err = PackageError;

    fn from_str(text: &str) -> Result<Self, PackageError> {
        let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
            _ => text.parse(),
        };
        number.map(Self).map_err(|_| PackageError::AbiRevision(text.to_owned()))
    }
}

impl fmt::Display for AbiRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016X}", self.0)
    }
}

impl Serialize for AbiRevision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AbiRevision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_number_and_bytes_agree() {
        let revision = AbiRevision::of_api_level(7).unwrap();
        assert_eq!(revision.to_string(), "0xECCEA2F70ACD6FC0");
        assert_eq!("0xeccea2f70acd6fc0".parse(), Ok(revision));
        assert_eq!(revision.0.to_string().parse(), Ok(revision));
        assert_eq!(AbiRevision::parse(&revision.to_bytes()), Ok(revision));
        assert_eq!(serde_json::from_str::<AbiRevision>("12").unwrap(), AbiRevision(12));
        assert_eq!(serde_json::from_str::<AbiRevision>("\"0xC\"").unwrap(), AbiRevision(12));
        for bad in ["", "0x", "x", "-1", "0x+1", "0x10000000000000000"] {
            assert!(bad.parse::<AbiRevision>().is_err(), "{bad}");
        }
        assert_eq!(AbiRevision::parse(&[0; 7]), Err(PackageError::AbiRevisionLength(7)));
        assert!(AbiRevision::of_api_level(1_000_000).is_none());
        assert!(AbiRevision::api_levels().is_sorted());
    }
}
