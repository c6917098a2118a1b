//! [`Plan`]: what is to be here, in which order; [`Status`]: how much of it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, OnceLock};

use colibri_api::RepositoryName;
use colibri_common::BlobId;
use colibri_package::delivery::{DeliveryType, Encoding, Identity, Layout};
use colibri_release::{Availability, Release};
use serde::Serialize;

use super::pins::Pin;
use crate::unit::UnitKey;

/// A blob that is to be here.
#[derive(Debug)]
pub(crate) struct Item {
    pub id: BlobId,
    /// Length of its delivery form, if a release says so.
    pub listed_bytes: Option<u64>,
    /// Its form, once it was opened.
    pub shape: OnceLock<Shape>,
}

impl Item {
    /// Whether all of it is here, as far as its form is known.
    pub fn is_here(&self, has: impl Fn(&UnitKey) -> bool) -> bool {
        self.shape.get().is_some_and(|shape| shape.missing_bytes(self.id, has) == 0)
    }
}

/// The form in which a blob is kept here.
#[derive(Debug)]
pub(crate) struct Shape {
    encoding: Encoding,
    identity: Option<Identity>,
    /// Length of each unit.
    units_bytes: Box<[u64]>,
}

impl Shape {
    pub fn of(layout: &Layout) -> Self {
        let units_bytes = (0..layout.unit_count()).map(|unit| layout.unit_range(unit).len()).collect();
        Self { encoding: layout.encoding(), identity: layout.identity(), units_bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.units_bytes.iter().sum()
    }

    fn missing_bytes(&self, id: BlobId, has: impl Fn(&UnitKey) -> bool) -> u64 {
        let units = (0..).zip(&self.units_bytes).filter(|(_, bytes)| **bytes > 0);
        let key = |unit| UnitKey { id, encoding: self.encoding, identity: self.identity, unit };
        units.filter(|(unit, _)| !has(&key(*unit))).map(|(_, bytes)| *bytes).sum()
    }
}

/// A release, or what the set lists besides releases.
#[derive(Debug)]
pub(crate) struct Group {
    pub name: String,
    pub pinned: bool,
    /// All that it needs, in order.
    pub items: Vec<Arc<Item>>,
}

/// What is to be here: groups in order of importance. A blob may be in several, as one item.
#[derive(Debug)]
pub(crate) struct Plan {
    pub timestamp: Option<u32>,
    pub groups: Vec<Group>,
    /// What the operator's space budget leaves out.
    pub space_bytes: u64,
}

/// Puts a plan together.
#[derive(Debug, Default)]
pub(crate) struct PlanBuilder {
    items: BTreeMap<BlobId, Arc<Item>>,
    groups: Vec<Group>,
}

impl PlanBuilder {
    /// A group of these blobs, in this order.
    pub fn group(&mut self, name: String, pinned: bool, blobs: impl IntoIterator<Item = (BlobId, Option<u64>)>) {
        let (mut seen, mut items) = (HashSet::new(), Vec::new());
        for (id, listed_bytes) in blobs {
            if seen.insert(id) {
                let new = || Arc::new(Item { id, listed_bytes, shape: OnceLock::new() });
                items.push(self.items.entry(id).or_insert_with(new).clone());
            }
        }
        if !items.is_empty() {
            self.groups.push(Group { name, pinned, items });
        }
    }

    pub fn finish(self, timestamp: Option<u32>, space_bytes: u64) -> Plan {
        Plan { timestamp, groups: self.groups, space_bytes }
    }
}

impl Plan {
    /// Every blob once, the most important first.
    pub fn in_order(&self) -> Vec<Arc<Item>> {
        let mut seen = HashSet::new();
        let all = self.groups.iter().flat_map(|group| &group.items);
        all.filter(|item| seen.insert(item.id)).cloned().collect()
    }
}

/// The blobs of a release in the order in which devices need them: what is permanent first, on demand last.
pub(crate) fn in_set_order(release: &Release) -> Vec<(BlobId, Option<u64>)> {
    let mut order = Vec::new();
    for availability in Availability::ALL {
        let packages = release.packages().iter().filter(|package| package.availability == availability);
        for hash in packages.filter_map(|package| package.hash) {
            // The meta.far first: nothing can be done without it.
            order.push(hash);
            order.extend(release.blobs_needed([hash]).into_iter().filter(|id| *id != hash));
        }
    }
    // What is beside the grid is brought when a device is flashed, if at all.
    for hash in release.hashes() {
        order.push(hash);
        order.extend(release.blobs_needed([hash]).into_iter().filter(|id| *id != hash));
    }
    let mut seen = BTreeSet::new();
    order.retain(|id| seen.insert(*id));
    let listed = |id: BlobId| {
        let encoded = &release.blob(id)?.encoded;
        encoded.iter().find(|form| form.ty == DeliveryType::Type1).map(|form| form.bytes)
    };
    order.into_iter().map(|id| (id, listed(id))).collect()
}

/// How far a repository is warmed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Status {
    /// The repository.
    pub repository: String,
    /// Version of the timestamp whose set was walked; nothing before the first walk.
    pub timestamp: Option<u32>,
    /// Releases and the rest, the most important first.
    pub releases: Vec<GroupStatus>,
    /// What is pinned.
    pub pins: Vec<Pin>,
}

/// How much of a release, or of a set, is here.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Whether it is pinned.
    pub pinned: bool,
    /// Blobs that it needs.
    pub blobs: u64,
    /// Of these, not wholly here.
    pub blobs_missing: u64,
    /// Bytes that are missing, as far as their lengths are known.
    pub bytes_missing: u64,
    /// Blobs of which not even the length is known.
    pub blobs_of_unknown_length: u64,
}

impl Status {
    pub fn of(repository: &RepositoryName, plan: Option<&Plan>, pins: &[Pin], has: impl Fn(&UnitKey) -> bool) -> Self {
        let groups = plan.map(|plan| plan.groups.as_slice()).unwrap_or_default();
        Self {
            repository: repository.to_string(),
            timestamp: plan.and_then(|plan| plan.timestamp),
            releases: groups.iter().map(|group| GroupStatus::of(group, &has)).collect(),
            pins: pins.to_vec(),
        }
    }
}

impl GroupStatus {
    fn of(group: &Group, has: impl Fn(&UnitKey) -> bool) -> Self {
        let (mut blobs_missing, mut bytes_missing, mut blobs_of_unknown_length) = (0, 0, 0);
        for item in &group.items {
            let missing = match (item.shape.get(), item.listed_bytes) {
                (Some(shape), _) => Some(shape.missing_bytes(item.id, &has)).filter(|bytes| *bytes > 0),
                (None, listed) => {
                    blobs_of_unknown_length += u64::from(listed.is_none());
                    Some(listed.unwrap_or(0))
                }
            };
            blobs_missing += u64::from(missing.is_some());
            bytes_missing += missing.unwrap_or(0);
        }
        let (name, pinned, blobs) = (group.name.clone(), group.pinned, group.items.len() as u64);
        Self { name, pinned, blobs, blobs_missing, bytes_missing, blobs_of_unknown_length }
    }
}
