//! What a collection deletes: a pure choice among what is here. On demand goes first, least recently used; automatic packages
//! go last; what is firm never goes. Deliberately absent: deleting.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use colibri_common::{BlobId, UnixSeconds};

/// How willingly a package is given up; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// There because somebody asked for it.
    OnDemand,
    /// Fetched by itself when there is space.
    Automatic,
}

/// How far a collection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What no index names. Packages that are there on demand stay.
    Garbage,
    /// Packages that are there on demand too, unless somebody has them open: what `pkgctl gc` does.
    Unused,
    /// What no index names; if that does not free so many bytes, packages that are not permanent until it does.
    Free {
        /// Stored bytes that should become free.
        bytes: u64,
    },
    /// The same, but automatic packages stay: to make room for one of them.
    FreeOnDemand {
        /// Stored bytes that should become free.
        bytes: u64,
    },
}

/// A package that may be given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evictable {
    pub package: BlobId,
    pub rank: Rank,
    pub last_used: UnixSeconds,
    /// All its blobs, those of subpackages included.
    pub blobs: BTreeSet<BlobId>,
}

/// What the indices protect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Never given up.
    pub firm: BTreeSet<BlobId>,
    /// Given up for space.
    pub evictable: Vec<Evictable>,
}

/// What will be deleted and what will not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Blobs that stay, here or not.
    pub protected: HashSet<BlobId>,
    /// Packages given up, in order.
    pub evicted: Vec<(BlobId, Rank)>,
    /// Bytes of whole blobs that are here and will go.
    pub freed_bytes: u64,
}

impl Holdings {
    /// Chooses among `resident` blobs and their lengths. For space no package is given up whose absence frees nothing.
    pub fn choose(mut self, resident: &BTreeMap<BlobId, u64>, depth: Depth) -> Choice {
        self.evictable.sort_by_key(|item| (item.rank, item.last_used, item.package));
        let mut users: BTreeMap<BlobId, usize> = BTreeMap::new();
        for blob in self.evictable.iter().flat_map(|item| &item.blobs).filter(|blob| !self.firm.contains(blob)) {
            *users.entry(*blob).or_default() += 1;
        }
        let garbage = resident.iter().filter(|(blob, _)| !self.firm.contains(blob) && !users.contains_key(blob));
        let mut freed_bytes: u64 = garbage.map(|(_, bytes)| bytes).sum();
        let mut given_up = Vec::new();
        for item in &self.evictable {
            let goes = match depth {
                Depth::Garbage => false,
                Depth::Unused => item.rank == Rank::OnDemand && item.blobs.iter().any(|blob| users.contains_key(blob)),
                Depth::Free { bytes } => freed_bytes < bytes,
                Depth::FreeOnDemand { bytes } => freed_bytes < bytes && item.rank == Rank::OnDemand,
            };
            if goes {
                freed_bytes += release(item, &mut users, resident);
                given_up.push(item);
            }
        }
        // Packages that all others of their blobs' users outlived went for nothing: the strongest come back first.
        if matches!(depth, Depth::Free { .. } | Depth::FreeOnDemand { .. }) {
            let mut gone = Vec::new();
            for item in given_up.into_iter().rev() {
                let is_free = item.blobs.iter().all(|blob| users.get(blob) != Some(&0) || !resident.contains_key(blob));
                if is_free {
                    item.blobs.iter().for_each(|blob| {
                        users.entry(*blob).and_modify(|count| *count += 1);
                    });
                } else {
                    gone.push(item);
                }
            }
            given_up = gone.into_iter().rev().collect();
        }
        let evicted = given_up.into_iter().map(|item| (item.package, item.rank)).collect();
        users.retain(|_, count| *count > 0);
        let protected = self.firm.iter().copied().chain(users.into_keys()).collect();
        Choice { protected, evicted, freed_bytes }
    }
}

/// Takes a package's reasons away; the bytes that nobody else needs.
fn release(item: &Evictable, users: &mut BTreeMap<BlobId, usize>, resident: &BTreeMap<BlobId, u64>) -> u64 {
    let mut freed_bytes = 0;
    for blob in &item.blobs {
        let Some(count) = users.get_mut(blob) else { continue };
        *count -= 1;
        if *count == 0 {
            freed_bytes += resident.get(blob).copied().unwrap_or(0);
        }
    }
    freed_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> BlobId {
        BlobId::from_digest([number; 32])
    }

    fn item(package: u8, rank: Rank, last_used: u64, blobs: &[u8]) -> Evictable {
        let blobs = blobs.iter().chain([&package]).map(|number| id(*number)).collect();
        Evictable { package: id(package), rank, last_used: UnixSeconds(last_used), blobs }
    }

    fn gone(holdings: &Holdings, depth: Depth) -> (Vec<BlobId>, u64) {
        let resident = (0..100).map(|number| (id(number), 10)).collect();
        let choice = holdings.clone().choose(&resident, depth);
        let freed = resident.keys().filter(|blob| !choice.protected.contains(blob)).count() as u64 * 10;
        assert_eq!(choice.freed_bytes, freed, "the forecast is exact");
        (choice.evicted.into_iter().map(|(package, _)| package).collect(), freed)
    }

    /// Blobs 50 to 99 are garbage, 40 to 49 firm.
    fn holdings() -> Holdings {
        let firm = (40..50).map(id).collect();
        let evictable = vec![
            item(0, Rank::Automatic, 1, &[1, 2]),
            item(10, Rank::OnDemand, 7, &[11, 12, 45]),
            item(20, Rank::OnDemand, 5, &[21, 12]),
            item(30, Rank::OnDemand, 6, &(31..40).chain(3..10).chain(13..20).chain(22..30).collect::<Vec<_>>()),
        ];
        Holdings { firm, evictable }
    }

    #[test]
    fn on_demand_goes_first_by_last_use_and_automatic_last() {
        let holdings = holdings();
        assert_eq!(gone(&holdings, Depth::Garbage), (vec![], 500));
        assert_eq!(gone(&holdings, Depth::Free { bytes: 500 }), (vec![], 500));
        assert_eq!(gone(&holdings, Depth::Free { bytes: 501 }), (vec![id(20)], 520), "12 is still needed by 10");
        assert_eq!(gone(&holdings, Depth::Free { bytes: 521 }).0, [id(20), id(30)]);
        assert_eq!(gone(&holdings, Depth::Free { bytes: 841 }).0, [id(20), id(30), id(10)]);
        assert_eq!(gone(&holdings, Depth::Unused).0, [id(20), id(30), id(10)]);
        assert_eq!(gone(&holdings, Depth::FreeOnDemand { bytes: u64::MAX }).0, [id(20), id(30), id(10)]);
        let all = gone(&holdings, Depth::Free { bytes: u64::MAX });
        assert_eq!(all, (vec![id(20), id(30), id(10), id(0)], 900), "never what is firm");
    }

    #[test]
    fn a_package_whose_absence_frees_nothing_stays() {
        let evictable = vec![
            item(0, Rank::OnDemand, 1, &[1]),
            Evictable { package: id(2), rank: Rank::OnDemand, last_used: UnixSeconds(2), blobs: [id(40)].into() },
            item(3, Rank::OnDemand, 3, &[4]),
        ];
        let holdings = Holdings { firm: [id(40)].into(), evictable };
        assert_eq!(gone(&holdings, Depth::Free { bytes: u64::MAX }).0, [id(0), id(3)]);
        // Two that share everything go together or not at all.
        let twins = |last| Evictable {
            package: id(0),
            rank: Rank::OnDemand,
            last_used: UnixSeconds(last),
            blobs: [id(0), id(1)].into(),
        };
        let twins =
            Holdings { firm: BTreeSet::new(), evictable: vec![twins(1), Evictable { package: id(1), ..twins(2) }] };
        let garbage = gone(&twins, Depth::Garbage).1;
        assert_eq!(gone(&twins, Depth::Free { bytes: garbage + 1 }), (vec![id(0), id(1)], garbage + 20));
        let resident = [(id(9), 10)].into();
        assert_eq!(twins.choose(&resident, Depth::Free { bytes: 100 }).evicted, [], "none of it is here");
    }
}
