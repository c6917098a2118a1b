//! [`Bins`]: the targets of a `scale` repository spread over delegated roles by the hash of their names (specification §4.5,
//! `path_hash_prefixes`), so that a change of one target is a change of one small file.
//!
//! Which bins there are is read from the signed targets role itself: there is no second place that could say otherwise.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::sha256;
use colibri_metadata::{Covers, DelegatedRole, Delegations, RoleName, TargetName};
use serde_json::{Value, json};

/// What the names of bins begin with. The rest is the first hash prefix of the bin.
const NAME: &str = "bin-";

/// Most bits of the hash that choose a bin.
const BITS_MAX: u32 = 16;

/// A division of all targets into 2^`bits` bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bins {
    bits: u32,
}

impl Bins {
    /// What new repositories get: 2,048, about fifty targets in each when there are a hundred thousand (the measurements
    /// are in `docs/benchmarks.md`).
    pub const NEW: Self = Self { bits: 11 };

    /// How many bins there are.
    pub const fn count(self) -> u32 {
        1 << self.bits
    }

    /// Hex digits of a prefix.
    const fn digits(self) -> usize {
        self.bits.div_ceil(4) as usize
    }

    /// Prefixes of one bin.
    const fn prefixes_per_bin(self) -> u32 {
        1 << (4 * self.bits.div_ceil(4) - self.bits)
    }

    fn prefixes(self, bin: u32) -> impl Iterator<Item = String> {
        let (digits, each) = (self.digits(), self.prefixes_per_bin());
        (bin * each..(bin + 1) * each).map(move |prefix| format!("{prefix:0digits$x}"))
    }

    /// The bin that `name` falls into.
    pub fn of_target(self, name: &TargetName) -> u32 {
        let [a, b, c, d, ..] = sha256(name.as_str().as_bytes());
        u32::from_be_bytes([a, b, c, d]) >> (u32::BITS - self.bits)
    }

    /// For each bin that is `wanted` a name that falls into it.
    pub fn names_in(self, wanted: impl Fn(u32) -> bool) -> BTreeMap<u32, TargetName> {
        let mut open: BTreeSet<u32> = (0..self.count()).filter(|bin| wanted(*bin)).collect();
        let mut names = BTreeMap::new();
        let mut candidates = (0_u64..).filter_map(|number| number.to_string().parse::<TargetName>().ok());
        while !open.is_empty()
            && let Some(name) = candidates.next()
        {
            let bin = self.of_target(&name);
            if open.remove(&bin) {
                names.insert(bin, name);
            }
        }
        names
    }

    /// The role of a bin.
    pub fn role(self, bin: u32) -> RoleName {
        let name = format!("{NAME}{:0digits$x}", bin * self.prefixes_per_bin(), digits = self.digits());
        name.parse().unwrap_or_else(|_| unreachable!("a few letters and digits are a role name"))
    }

    /// The delegations to all bins, as `delegations` lists them.
    pub fn to_json(self, key_ids: &[impl AsRef<str>], threshold: u32) -> Vec<Value> {
        let key_ids: Vec<&str> = key_ids.iter().map(AsRef::as_ref).collect();
        let role = |bin| {
            json!({
                "keyids": key_ids,
                "name": self.role(bin).as_str(),
                "path_hash_prefixes": self.prefixes(bin).collect::<Vec<_>>(),
                "terminating": true,
                "threshold": threshold,
            })
        };
        (0..self.count()).map(role).collect()
    }

    /// Whether a delegated role has the name of a bin.
    pub fn is_bin(name: &str) -> bool {
        name.strip_prefix(NAME).is_some_and(|rest| u32::from_str_radix(rest, 16).is_ok())
    }

    /// The bins that a targets role delegates to, if it delegates all targets to bins as we make them. Other delegations come
    /// before them: each bin is terminating.
    pub fn of(delegations: &Delegations) -> Option<Self> {
        let roles: Vec<_> = delegations.roles().iter().filter(|role| Self::is_bin(role.name.as_str())).collect();
        let count = u32::try_from(roles.len()).ok().filter(|count| count.is_power_of_two())?;
        let bins = Self { bits: count.trailing_zeros() };
        let all = (1..=BITS_MAX).contains(&bins.bits) && (0..).zip(roles).all(|(bin, role)| bins.is(bin, role));
        all.then_some(bins)
    }

    /// Whether a delegation is the one to this bin. Compares numbers: this is asked of every bin in every publish.
    fn is(self, bin: u32, role: &DelegatedRole) -> bool {
        let Covers::HashPrefixes(prefixes) = &role.covers else { return false };
        let each = self.prefixes_per_bin();
        let number = |digits: &str| {
            let plain = digits.len() == self.digits() && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
        };
        let numbers = prefixes.iter().map(|prefix| number(prefix.as_str()));
        let name = role.name.as_str().strip_prefix(NAME).and_then(number);
        role.terminating && name == Some(bin * each) && numbers.eq((bin * each..(bin + 1) * each).map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_falls_into_one_bin_and_its_prefixes_say_so() {
        for bits in [1, 4, 7, 10, 11, 12, 16] {
            let bins = Bins { bits };
            let all: Vec<String> = (0..bins.count()).flat_map(|bin| bins.prefixes(bin)).collect();
            let expected: Vec<String> = (0..16_u32.pow(bins.digits() as u32))
                .map(|n| format!("{n:0digits$x}", digits = bins.digits()))
                .collect();
            assert_eq!(all, expected, "{bits} bits");
            for name in ["a", "package/0", "ü", "x y", "rollout/z"] {
                let name: TargetName = name.parse().unwrap();
                let hash = colibri_common::hex(&sha256(name.as_str().as_bytes()));
                let bin = bins.of_target(&name);
                assert_eq!(bins.prefixes(bin).filter(|prefix| hash.starts_with(prefix)).count(), 1, "{bits} bits");
                assert!(bins.role(bin).as_str().starts_with(NAME) && Bins::is_bin(bins.role(bin).as_str()));
            }
        }
        for bins in [Bins { bits: 1 }, Bins::NEW] {
            let names = bins.names_in(|bin| bin % 3 != 1);
            assert!(names.iter().all(|(bin, name)| bins.of_target(name) == *bin));
            assert!(names.keys().copied().eq((0..bins.count()).filter(|bin| bin % 3 != 1)));
        }
        assert_eq!(
            (Bins::NEW.role(0).to_string(), Bins::NEW.role(2047).to_string()),
            ("bin-000".into(), "bin-ffe".into())
        );
        assert_eq!(Bins::NEW.prefixes(2047).collect::<Vec<_>>(), ["ffe", "fff"]);
        for other in ["bins-00", "bin", "bin-", "bin-xyz", "rollout"] {
            assert!(!Bins::is_bin(other), "{other}");
        }
    }
}
