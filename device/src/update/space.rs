//! What a system costs that is told as a list of blobs, before anything is done: the steps of its installation, gone through
//! with numbers alone. Pure; sizes are stored logical bytes, as those of a release's [`Plan`].
//!
//! Old and new system must fit together, and before that, while images are staged, the old one and the blobs of images. What
//! is there on demand or automatically makes way.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;

use crate::cache::{Depth, Holdings, Rank};
use crate::sets::{CannotFit, Cost, Plan, Situation};

/// What is to come here.
#[derive(Debug, Clone)]
pub(super) struct SystemBlobs {
    /// For messages.
    pub name: String,
    /// Images that are not in their places, by blob, with their lengths.
    pub images: BTreeMap<BlobId, u64>,
    /// Blobs of the system, with their lengths.
    pub system: BTreeMap<BlobId, u64>,
}

/// How it gets here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemPlan {
    pub plan: Plan,
    /// Blobs of the new system that are here can stay while images are staged.
    pub keeps_all: bool,
}

/// Plans it.
///
/// # Errors
/// What must coexist does not fit, however much is given up.
pub(super) fn plan(blobs: &SystemBlobs, situation: Situation) -> Result<SystemPlan, CannotFit> {
    let system: BTreeSet<BlobId> = blobs.system.keys().copied().collect();
    let images: BTreeSet<BlobId> = blobs.images.keys().copied().collect();
    let walked = |keeps_all: bool, situation: Situation| {
        let mut walk = Walk::from(situation);
        let staged = if keeps_all { &images | &system } else { images.clone() };
        walk.step(&blobs.name, &blobs.images, &staged)?;
        walk.step(&blobs.name, &blobs.system, &system)?;
        let stored_after_bytes = sum(&blobs.system);
        Ok(SystemPlan { plan: walk.plan(stored_after_bytes), keeps_all })
    };
    walked(true, situation.clone()).or_else(|_: CannotFit| walked(false, situation))
}

/// The device on its way.
struct Walk {
    resident: BTreeMap<BlobId, u64>,
    holdings: Holdings,
    free_bytes: u64,
    cost: Cost,
    evicted: Vec<(BlobId, Rank)>,
    freed_bytes: u64,
    peak_bytes: u64,
}

impl From<Situation> for Walk {
    fn from(Situation { resident, holdings, free_bytes }: Situation) -> Self {
        let peak_bytes = sum(&resident);
        let (cost, evicted) = (Cost::default(), Vec::new());
        Self { resident, holdings, free_bytes, cost, evicted, freed_bytes: 0, peak_bytes }
    }
}

impl Walk {
    /// Everything that nothing keeps goes, `retained` not; then `wanted` comes.
    fn step(
        &mut self,
        name: &str,
        wanted: &BTreeMap<BlobId, u64>,
        retained: &BTreeSet<BlobId>,
    ) -> Result<(), CannotFit> {
        let mut holdings = self.holdings.clone();
        let kept_bytes = holdings.firm.iter().filter_map(|id| self.resident.get(id)).sum();
        holdings.firm.extend(retained);
        self.remove_all_but(&holdings.clone().choose(&self.resident, Depth::Garbage).protected);
        let absent = wanted.iter().filter(|(id, _)| !self.resident.contains_key(id));
        let cost = Cost::of_lengths(absent.map(|(_, bytes)| *bytes));
        let short_bytes = cost.space_bytes().saturating_sub(self.free_bytes);
        if short_bytes > 0 {
            let choice = holdings.choose(&self.resident, Depth::Free { bytes: short_bytes });
            if choice.freed_bytes < short_bytes {
                return Err(CannotFit {
                    what: name.to_owned(),
                    stored_bytes: cost.stored_bytes,
                    margin_bytes: cost.margin_bytes,
                    free_bytes: self.free_bytes,
                    freeable_bytes: choice.freed_bytes,
                    short_bytes: short_bytes - choice.freed_bytes,
                    kept_bytes,
                });
            }
            self.remove_all_but(&choice.protected);
            self.holdings.evictable.retain(|item| choice.evicted.iter().all(|(gone, _)| *gone != item.package));
            self.evicted.extend(choice.evicted);
        }
        self.resident.extend(wanted);
        self.free_bytes = self.free_bytes.saturating_sub(cost.space_bytes());
        self.cost = self.cost.plus(cost);
        self.peak_bytes = self.peak_bytes.max(sum(&self.resident));
        Ok(())
    }

    fn remove_all_but(&mut self, protected: &std::collections::HashSet<BlobId>) {
        let before = sum(&self.resident);
        self.resident.retain(|id, _| protected.contains(id));
        let freed_bytes = before - sum(&self.resident);
        self.freed_bytes += freed_bytes;
        self.free_bytes = self.free_bytes.saturating_add(freed_bytes);
    }

    fn plan(self, stored_after_bytes: u64) -> Plan {
        Plan {
            before_commit: self.cost,
            after_commit: Cost::default(),
            evicted: self.evicted,
            freed_bytes: self.freed_bytes,
            peak_bytes: self.peak_bytes,
            stored_after_bytes,
            deferred: Vec::new(),
        }
    }
}

fn sum(lengths: &BTreeMap<BlobId, u64>) -> u64 {
    lengths.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use colibri_common::UnixSeconds;

    use super::*;
    use crate::cache::Evictable;
    use crate::sets::margin_of;

    const BLOB_BYTES: u64 = 1_000_000;

    fn ids(numbers: impl IntoIterator<Item = u8>) -> BTreeMap<BlobId, u64> {
        numbers.into_iter().map(|number| (BlobId::from_digest([number; 32]), BLOB_BYTES)).collect()
    }

    fn space(blobs: u64) -> u64 {
        blobs * (BLOB_BYTES + margin_of(BLOB_BYTES))
    }

    /// The running system needs blobs 100 to 103; package 50 is automatic, 60 there on demand, 90 garbage.
    fn situation(free_bytes: u64) -> Situation {
        let item = |package: u8, rank| {
            let package = BlobId::from_digest([package; 32]);
            Evictable { package, rank, last_used: UnixSeconds(1), blobs: [package].into() }
        };
        let firm = ids(100..104).into_keys().collect();
        let evictable = vec![item(50, Rank::Automatic), item(60, Rank::OnDemand)];
        Situation {
            resident: ids([50, 60, 90, 100, 101, 102, 103]),
            holdings: Holdings { firm, evictable },
            free_bytes,
        }
    }

    /// Three images; a system of four blobs, of which two are here.
    fn blobs() -> SystemBlobs {
        SystemBlobs { name: "system 2".to_owned(), images: ids(1..4), system: ids([10, 11, 100, 101]) }
    }

    #[test]
    fn images_are_gone_before_the_system_comes() {
        let SystemPlan { plan, keeps_all } = plan(&blobs(), situation(u64::MAX / 2)).unwrap();
        assert!(keeps_all);
        assert_eq!((plan.peak_bytes, plan.stored_after_bytes), (9 * BLOB_BYTES, 4 * BLOB_BYTES));
        assert_eq!((plan.before_commit.blobs, plan.freed_bytes, plan.evicted), (5, 4 * BLOB_BYTES, vec![]));
    }

    #[test]
    fn what_is_there_on_demand_goes_first_and_what_cannot_fit_says_why() {
        // Garbage makes way for one of the three images.
        let evicted = |free_bytes| plan(&blobs(), situation(free_bytes)).map(|planned| planned.plan.evicted.len());
        assert_eq!(evicted(space(3) - BLOB_BYTES), Ok(0));
        assert_eq!(evicted(space(3) - BLOB_BYTES - 1), Ok(1));
        assert_eq!(evicted(space(3) - 2 * BLOB_BYTES - 1), Ok(2));
        let refused = plan(&blobs(), situation(space(3) - 3 * BLOB_BYTES - 1)).unwrap_err();
        assert_eq!(
            (refused.short_bytes, refused.kept_bytes, refused.freeable_bytes),
            (1, 4 * BLOB_BYTES, 2 * BLOB_BYTES)
        );
        assert!(refused.to_string().starts_with("system 2 does not fit: "), "{refused}");
    }

    #[test]
    fn what_an_attempt_before_fetched_goes_only_if_images_need_its_space() {
        let again = |free_bytes| {
            let mut situation = situation(free_bytes);
            situation.holdings.evictable.clear();
            situation.resident = ids([10, 11, 100, 101, 102, 103]);
            plan(&blobs(), situation).unwrap()
        };
        assert!(again(space(3)).keeps_all);
        let squeezed = again(space(3) - 1);
        assert!(!squeezed.keeps_all);
        assert_eq!((squeezed.plan.before_commit.blobs, squeezed.plan.peak_bytes), (5, 7 * BLOB_BYTES));
    }
}
