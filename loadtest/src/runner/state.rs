//! What an idle device is: a few numbers. What many devices hold in common is kept once for all of them.

use std::sync::Arc;

use colibri_common::BlobId;
use colibri_metadata::TrustedSet;

use crate::limits::HELD_PACKAGES_MAX;

/// An idle device. It has no connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DeviceState {
    /// Its trusted metadata, one of [`Common::sets`]; counted from 1, zero for none.
    pub trusted: u32,
    /// The release it runs, one of [`Common::packages`]; likewise.
    pub release: u32,
    /// Other packages it holds, the oldest first; likewise.
    pub others: [u32; HELD_PACKAGES_MAX],
    /// It is in a session now.
    pub is_busy: bool,
    /// It woke at least once.
    pub has_woken: bool,
}

impl DeviceState {
    /// Whether it holds a package other than the release.
    pub fn holds(&self, package: u32) -> bool {
        package != 0 && (self.release == package || self.others.contains(&package))
    }

    /// Takes a package; the oldest one goes if there is no room.
    pub fn take(&mut self, package: u32) {
        if self.holds(package) {
            return;
        }
        let place = self.others.iter().position(|held| *held == 0).unwrap_or_else(|| {
            self.others.rotate_left(1);
            HELD_PACKAGES_MAX - 1
        });
        self.others[place] = package;
    }

    /// Everything it holds.
    pub fn held(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.release).chain(self.others).filter(|package| *package != 0)
    }
}

/// Blobs of a package with their lengths.
pub(crate) type Blobs = Arc<[(BlobId, u64)]>;

/// What devices hold in common, each once.
#[derive(Debug, Default)]
pub(crate) struct Common {
    sets: Vec<Arc<TrustedSet>>,
    packages: Vec<(BlobId, Blobs)>,
}

impl Common {
    /// A trusted set by its number.
    pub fn set(&self, number: u32) -> Option<Arc<TrustedSet>> {
        self.sets.get((number as usize).checked_sub(1)?).cloned()
    }

    /// The number of a trusted set.
    pub fn number_of_set(&mut self, set: &Arc<TrustedSet>) -> u32 {
        let same = |known: &Arc<TrustedSet>| Arc::ptr_eq(known, set) || known.files().eq(set.files());
        // The newest are the likeliest.
        let place = self.sets.iter().rposition(same).unwrap_or_else(|| {
            self.sets.push(set.clone());
            self.sets.len() - 1
        });
        place as u32 + 1
    }

    /// The hash of a package by its number.
    pub fn hash(&self, number: u32) -> Option<BlobId> {
        self.packages.get((number as usize).checked_sub(1)?).map(|(hash, _)| *hash)
    }

    /// The number of a package, if any device has or had it.
    pub fn number_of(&self, hash: &BlobId) -> Option<u32> {
        self.packages.iter().rposition(|(known, _)| known == hash).map(|place| place as u32 + 1)
    }

    /// The number of a package that may be new.
    pub fn number_of_package(&mut self, hash: BlobId, blobs: &Blobs) -> u32 {
        self.number_of(&hash).unwrap_or_else(|| {
            self.packages.push((hash, blobs.clone()));
            self.packages.len() as u32
        })
    }

    /// Blobs of the packages that a device holds.
    pub fn blobs_of(&self, state: &DeviceState) -> Vec<Blobs> {
        state
            .held()
            .filter_map(|number| self.packages.get(number as usize - 1))
            .map(|(_, blobs)| blobs.clone())
            .collect()
    }

    /// Hashes of the packages that a device holds.
    pub fn hashes_of(&self, state: &DeviceState) -> Vec<BlobId> {
        state.held().filter_map(|number| self.hash(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_device_is_small() {
        assert!(
            size_of::<DeviceState>() < 128,
            "{} bytes; with its scheduled wake below 256",
            size_of::<DeviceState>()
        );
    }

    #[test]
    fn the_oldest_package_goes_first() {
        let mut state = DeviceState { release: 1, ..DeviceState::default() };
        (2..=HELD_PACKAGES_MAX as u32 + 2).for_each(|package| state.take(package));
        assert!(state.holds(1) && !state.holds(2) && state.holds(3) && state.holds(HELD_PACKAGES_MAX as u32 + 2));
        assert_eq!(state.held().count(), HELD_PACKAGES_MAX + 1);
        state.take(5);
        assert_eq!(state.held().count(), HELD_PACKAGES_MAX + 1, "what it holds is not taken twice");
    }
}
