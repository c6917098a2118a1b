//! Rendezvous hashing: every edge of a region finds the same member for a part of a blob, from nothing but the members' names.
//!
//! A member that comes or goes moves only its own share. And a question only ever goes to a member with a higher score than
//! the one who asks, so questions among members cannot run in a circle, whatever each of them believes the membership to be.

use colibri_common::{BlobId, sha256};
use colibri_fetch::Part;

use crate::limits::PEER_RUN_UNITS;

/// What a member's scores are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u64);

/// A run of units of one blob, which has one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share(u64);

impl Seed {
    pub fn of(name: &str) -> Self {
        Self(number(&sha256(name.as_bytes())))
    }

    /// How much this member wants a share; the highest gets it.
    pub const fn score(self, share: Share) -> u64 {
        mix(self.0 ^ share.0)
    }
}

impl Share {
    /// The head of a blob, its first units and its last one are one share: opening a blob needs all three.
    pub fn of(blob: &BlobId, part: Part) -> Self {
        let run = match part {
            Part::Head => 0,
            Part::Unit { unit, of } if unit + 1 >= of => 0,
            Part::Unit { unit, .. } => unit / PEER_RUN_UNITS,
        };
        Self(mix(number(blob.as_bytes()).wrapping_add(mix(run.into()))))
    }
}

fn number(bytes: &[u8; 32]) -> u64 {
    bytes[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A mixer of which every output bit depends on every input bit (Stafford's variant 13).
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(count: u64) -> Vec<Share> {
        let blob = |number: u64| BlobId::from_digest(sha256(&number.to_le_bytes()));
        (0..count).map(|number| Share::of(&blob(number), Part::Head)).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("10.0.0.{number}:8443")).collect()
    }

    fn owner(names: &[String], share: Share) -> &String {
        names.iter().max_by_key(|name| Seed::of(name).score(share)).unwrap()
    }

    #[test]
    fn a_member_that_comes_or_goes_moves_its_share_and_nothing_else() {
        let (before, after) = (names(9), names(10));
        let mut moved = 0;
        for share in shares(10_000) {
            let (old, new) = (owner(&before, share), owner(&after, share));
            if old != new {
                assert_eq!(new, after.last().unwrap(), "what moves, moves to the new one");
                moved += 1;
            }
        }
        assert!((850..1150).contains(&moved), "{moved} of 10,000, expected a tenth");
    }

    #[test]
    fn shares_are_even() {
        let names = names(8);
        let mut counts = std::collections::BTreeMap::new();
        for share in shares(16_000) {
            *counts.entry(owner(&names, share)).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (1800..2200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_run_is_one_share_and_the_last_unit_goes_with_the_head() {
        let blob = BlobId::from_digest([7; 32]);
        let of = 5 * PEER_RUN_UNITS;
        let share = |unit| Share::of(&blob, Part::Unit { unit, of });
        assert_eq!(share(0), Share::of(&blob, Part::Head));
        assert_eq!(share(0), share(PEER_RUN_UNITS - 1));
        assert_ne!(share(0), share(PEER_RUN_UNITS));
        assert_eq!(share(of - 1), share(0));
        assert_ne!(share(of - 2), share(0));
    }
}
