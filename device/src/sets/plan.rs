//! [`Plan`]: what taking a release would cost a device, before anything is done. Pure; all sizes are stored logical bytes, which
//! is what blobs have, plus a stated margin for what a file system adds.
//!
//! Before the commit old and new must fit together: what the running system needs, and the permanent packages of the new
//! one. Automatic packages of the old one may be given up for that, and those of the new one come afterwards.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;
use colibri_release::ReleaseBlob;

use super::table::Table;
use crate::cache::{Depth, Holdings, Rank};
use crate::limits::{MARGIN_BYTES_PER_BLOB, MARGIN_LEAVES_SHARE};

/// Blobs to fetch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many.
    pub blobs: u64,
    /// Bytes that travel, in the form that every client reads; where that is not known, at most so many.
    pub fetched_bytes: u64,
    /// Bytes that they take, as content.
    pub stored_bytes: u64,
    /// What a file system and the index may add to that.
    pub margin_bytes: u64,
}

/// How a release gets onto a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Fetched before the commit.
    pub before_commit: Cost,
    /// Fetched after it, of automatic packages.
    pub after_commit: Cost,
    /// Packages given up before, in order.
    pub evicted: Vec<(BlobId, Rank)>,
    /// Bytes that giving them up frees, with what no index names.
    pub freed_bytes: u64,
    /// Most bytes stored at any moment before the commit.
    pub peak_bytes: u64,
    /// Bytes that the permanent and automatic packages take in the end.
    pub stored_after_bytes: u64,
    /// Automatic packages for which there is no space in the end.
    pub deferred: Vec<BlobId>,
}

/// Why a release cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} does not fit: before it is committed it needs {stored_bytes} more bytes and a margin of {margin_bytes}; {free_bytes} are free and {freeable_bytes} can be freed, which is {short_bytes} too few: {kept_bytes} stored bytes belong to what runs, to what is retained or to open packages, and must stay"
)]
pub struct CannotFit {
    /// A release by product and version, or a system.
    pub what: String,
    /// Bytes to store before the commit.
    pub stored_bytes: u64,
    /// The margin on top.
    pub margin_bytes: u64,
    /// Bytes free now.
    pub free_bytes: u64,
    /// Bytes of everything here that may go.
    pub freeable_bytes: u64,
    /// Bytes that are missing.
    pub short_bytes: u64,
    /// Bytes here that must stay.
    pub kept_bytes: u64,
}

/// What is on the device.
#[derive(Debug, Clone)]
pub(crate) struct Situation {
    /// Whole blobs and their lengths.
    pub resident: BTreeMap<BlobId, u64>,
    /// Why they are here.
    pub holdings: Holdings,
    /// Bytes that may still be written.
    pub free_bytes: u64,
}

impl Cost {
    fn of<'a>(blobs: impl IntoIterator<Item = &'a ReleaseBlob>) -> Self {
        blobs.into_iter().fold(Self::default(), |sum, blob| {
            let fetched_bytes = blob.fetched_bytes();
            sum.plus(Self { fetched_bytes, ..Self::of_lengths([blob.raw_bytes]) })
        })
    }

    /// Of blobs with these lengths, of which no other form is known.
    pub(crate) fn of_lengths(lengths: impl IntoIterator<Item = u64>) -> Self {
        lengths.into_iter().fold(Self::default(), |sum, bytes| {
            sum.plus(Self { blobs: 1, fetched_bytes: bytes, stored_bytes: bytes, margin_bytes: margin_of(bytes) })
        })
    }

    /// Both.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            blobs: self.blobs + other.blobs,
            fetched_bytes: self.fetched_bytes.saturating_add(other.fetched_bytes),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
            margin_bytes: self.margin_bytes.saturating_add(other.margin_bytes),
        }
    }

    /// What must be free for it.
    pub const fn space_bytes(&self) -> u64 {
        self.stored_bytes.saturating_add(self.margin_bytes)
    }
}

/// What a blob may take beyond its content: a block that is not full, and its leaves and row in the index.
pub(crate) const fn margin_of(raw_bytes: u64) -> u64 {
    MARGIN_BYTES_PER_BLOB + raw_bytes.div_ceil(MARGIN_LEAVES_SHARE)
}

/// Plans taking the release of `table`.
///
/// # Errors
/// What must coexist does not fit, however much is given up.
pub(crate) fn plan(table: &Table<'_>, situation: Situation) -> Result<Plan, CannotFit> {
    let release = table.release();
    let permanent = release.blobs_needed(table.from_the_start().into_iter().map(|(_, hash)| hash));
    let to_fetch = |needed: &BTreeSet<BlobId>, here: &dyn Fn(&BlobId) -> bool| {
        Cost::of(needed.iter().filter(|id| !here(id)).filter_map(|id| release.blob(*id)))
    };
    let Situation { resident, mut holdings, free_bytes } = situation;
    let before_commit = to_fetch(&permanent, &|id| resident.contains_key(id));
    let kept_bytes = sum(holdings.firm.iter().filter_map(|id| resident.get(id)));
    let stored_bytes = sum(resident.values());
    holdings.firm.extend(&permanent);
    let needed = before_commit.space_bytes().saturating_sub(free_bytes);
    let (evicted, freed_bytes, left): (_, _, BTreeSet<BlobId>) = match needed {
        0 => (Vec::new(), 0, resident.keys().copied().collect()),
        bytes => {
            let choice = holdings.choose(&resident, Depth::Free { bytes });
            if choice.freed_bytes < bytes {
                return Err(CannotFit {
                    what: format!("release {}", table.name()),
                    stored_bytes: before_commit.stored_bytes,
                    margin_bytes: before_commit.margin_bytes,
                    free_bytes,
                    freeable_bytes: choice.freed_bytes,
                    short_bytes: bytes - choice.freed_bytes,
                    kept_bytes,
                });
            }
            let left = resident.keys().filter(|id| choice.protected.contains(id)).copied().collect();
            (choice.evicted, choice.freed_bytes, left)
        }
    };
    // In the end the old release is gone, and what is there on demand makes way: all bytes here count but those that stay.
    let fits = |blobs: &BTreeSet<BlobId>| {
        let staying = sum(blobs.iter().filter(|id| left.contains(id)).filter_map(|id| resident.get(id)));
        let space_bytes = to_fetch(blobs, &|id| left.contains(id)).space_bytes();
        space_bytes <= free_bytes.saturating_add(stored_bytes - staying)
    };
    let (mut kept, mut deferred) = (permanent.clone(), Vec::new());
    for (_, package) in table.after_commit() {
        let with: BTreeSet<_> = kept.union(&release.blobs_needed([package])).copied().collect();
        match fits(&with) {
            true => kept = with,
            false => deferred.push(package),
        }
    }
    let after_commit = to_fetch(&kept, &|id| left.contains(id) || permanent.contains(id));
    Ok(Plan {
        before_commit,
        after_commit,
        evicted,
        freed_bytes,
        peak_bytes: stored_bytes - freed_bytes + before_commit.stored_bytes,
        stored_after_bytes: to_fetch(&kept, &|_| false).stored_bytes,
        deferred,
    })
}

fn sum<'a>(bytes: impl Iterator<Item = &'a u64>) -> u64 {
    bytes.fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use colibri_common::UnixSeconds;
    use colibri_package::delivery::{DeliveryType, Identity};
    use colibri_release::{
        Availability, EncodedForm, Missing, PackageContents, Release, ReleaseBuilder, ReleasePackage, Versioning,
    };

    use super::*;
    use crate::cache::Evictable;

    const BLOB_BYTES: u64 = 1_000_000;

    fn id(number: u8) -> BlobId {
        BlobId::from_digest([number; 32])
    }

    /// A release of packages, each with so many blobs that follow its own number, all of a million bytes.
    fn release(packages: &[(u8, u8, Availability)]) -> Release {
        let mut builder = ReleaseBuilder::new("lamp", "2".parse().unwrap());
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/tuf-repo/1.root.json");
        builder.repository("fuchsia-pkg://a.com".parse().unwrap(), std::fs::read_to_string(root).unwrap());
        for (package, _, availability) in packages {
            builder.package(ReleasePackage {
                url: format!("fuchsia-pkg://a.com/p{package}").parse().unwrap(),
                availability: *availability,
                versioning: Versioning::Anchored,
                hash: Some(id(*package)),
                minimum_version: None,
            });
        }
        while let Some(missing) = builder.missing() {
            match missing {
                Missing::Contents(hash) => {
                    let (package, blobs, _) = packages.iter().find(|(package, ..)| id(*package) == hash).unwrap();
                    let blobs = (1..=*blobs).map(|blob| id(package + blob)).collect();
                    builder.contents(PackageContents { hash, blobs, subpackages: Vec::new() });
                }
                Missing::Blob(hash) => {
                    let identity = Identity::of_unit_h(hash.as_bytes());
                    let encoded = vec![EncodedForm { ty: DeliveryType::Type1, bytes: 400, identity }];
                    builder.blob(ReleaseBlob { hash, raw_bytes: BLOB_BYTES, encoded });
                }
            }
        }
        builder.finish().unwrap()
    }

    /// The running release needs blobs 100 to 104; package 50 is automatic, package 60 there on demand, blob 90 is garbage.
    fn situation(free_bytes: u64) -> Situation {
        let item = |package: u8, rank| {
            let blobs = [id(package), id(package + 1)].into();
            Evictable { package: id(package), rank, last_used: UnixSeconds(1), blobs }
        };
        let firm: BTreeSet<_> = (100..105).map(id).collect();
        let evictable = vec![item(50, Rank::Automatic), item(60, Rank::OnDemand)];
        let resident = firm.iter().copied().chain([50, 51, 60, 61, 90].map(id));
        let resident = resident.map(|blob| (blob, BLOB_BYTES)).collect();
        Situation { resident, holdings: Holdings { firm, evictable }, free_bytes }
    }

    fn space(blobs: u64) -> u64 {
        blobs * (BLOB_BYTES + margin_of(BLOB_BYTES))
    }

    fn planned(release: &Release, free_bytes: u64) -> Result<Plan, CannotFit> {
        plan(&Table::new(release, &BTreeMap::new()), situation(free_bytes))
    }

    #[test]
    fn what_fits_displaces_nothing() {
        // Blob 100 is here already, as content of the old release.
        let release = release(&[(98, 3, Availability::Permanent), (10, 1, Availability::Automatic)]);
        let plan = planned(&release, space(2)).unwrap();
        assert_eq!((plan.before_commit.blobs, plan.before_commit.fetched_bytes), (2, 800));
        assert_eq!((plan.before_commit.stored_bytes, plan.peak_bytes), (2 * BLOB_BYTES, 12 * BLOB_BYTES));
        assert_eq!((plan.evicted, plan.freed_bytes), (vec![], 0));
        assert_eq!((plan.after_commit.blobs, plan.stored_after_bytes), (2, 6 * BLOB_BYTES));
    }

    #[test]
    fn garbage_goes_first_then_what_is_there_on_demand_then_what_is_automatic() {
        let release = release(&[(10, 6, Availability::Permanent), (50, 1, Availability::Automatic)]);
        let with = |short: u64| planned(&release, space(7) - short).unwrap();
        assert_eq!((with(1).evicted, with(1).freed_bytes), (vec![], BLOB_BYTES));
        let more = with(BLOB_BYTES + 1);
        assert_eq!((more.evicted, more.freed_bytes), (vec![(id(60), Rank::OnDemand)], 3 * BLOB_BYTES));
        let most = with(5 * BLOB_BYTES);
        assert_eq!(most.evicted, [(id(60), Rank::OnDemand), (id(50), Rank::Automatic)]);
        assert_eq!((most.freed_bytes, most.peak_bytes), (5 * BLOB_BYTES, (10 - 5 + 7) * BLOB_BYTES));
        assert_eq!(with(0).after_commit.blobs, 0, "50 is still here");
        assert_eq!(most.after_commit.blobs, 2, "and is fetched again afterwards");
    }

    #[test]
    fn what_cannot_fit_says_exactly_why() {
        let release = release(&[(10, 6, Availability::Permanent)]);
        let least = space(7) - 5 * BLOB_BYTES;
        let refused = planned(&release, least - 1).unwrap_err();
        assert_eq!((refused.short_bytes, refused.freeable_bytes), (1, 5 * BLOB_BYTES));
        assert_eq!((refused.kept_bytes, refused.stored_bytes), (5 * BLOB_BYTES, 7 * BLOB_BYTES));
        assert_eq!(refused.margin_bytes, space(7) - 7 * BLOB_BYTES);
        assert!(refused.to_string().starts_with("release lamp 2.0.0.0 does not fit"), "{refused}");
        assert!(planned(&release, least).is_ok());
    }

    #[test]
    fn automatic_packages_that_never_fit_are_named() {
        let (permanent, automatic) = (Availability::Permanent, Availability::Automatic);
        let release = release(&[(10, 0, permanent), (20, 10, automatic), (40, 1, automatic)]);
        let plan = planned(&release, space(1)).unwrap();
        assert_eq!(plan.deferred, [id(20)], "twelve blobs");
        assert_eq!((plan.after_commit.blobs, plan.stored_after_bytes), (2, 3 * BLOB_BYTES));
    }
}
