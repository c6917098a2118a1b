//! Receipts: durable notes, outside the served folder, of which stored blobs were read back from the disk and verified.
//!
//! A receipt is for one blob in one encoding. Beside it stands what a proven meta.far names, so that a whole release can be
//! checked, or collected around, without reading a blob. Receipts are written a batch at a time as segments `receipts/N`,
//! create-only; a later entry overrides an earlier one; now and then all are written into one and the older ones removed.
//! Losing receipts loses no data: what has none is read and verified again. Deliberately absent: looking at blobs (`blobs`).

mod segment;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::MetaFar;
use colibri_package::delivery::{DeliveryType, Identity};
use colibri_store::{DocumentName, StoreError};

use crate::error::RepositoryError;
use crate::storage::Storage;
use crate::{layout, limits};
use segment::Segment;

/// That one stored form was durable, was read back, and is what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub id: BlobId,
    pub ty: DeliveryType,
    /// Length of the delivery blob in bytes.
    pub length: u64,
    /// Which of the possible encoded forms it is.
    pub identity: Identity,
    /// When it was proven; 0 if whoever did it had no clock.
    pub at: UnixSeconds,
}

/// What a package names directly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    pub blobs: Vec<BlobId>,
    pub subpackages: Vec<BlobId>,
}

impl Contents {
    pub fn of(meta: &MetaFar) -> Self {
        let mut blobs: Vec<BlobId> = meta.contents().values().copied().collect();
        blobs.sort_unstable();
        blobs.dedup();
        Self { blobs, subpackages: meta.subpackages().values().copied().collect() }
    }
}

/// One line of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Proven(Receipt),
    Package(BlobId, Arc<Contents>),
    /// The blob is about to be removed: nothing said of it before counts.
    Forgotten(BlobId),
}

/// The receipts of a repository, kept in memory once read. Clones share that memory.
#[derive(Debug, Clone)]
pub(crate) struct Receipts {
    storage: Arc<dyn Storage>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last segment read or written.
    through: u64,
    /// Segments that are there, as far as known.
    segments: u64,
    forms: HashMap<(BlobId, DeliveryType), Receipt>,
    packages: HashMap<BlobId, Arc<Contents>>,
    /// Known, and not yet durable.
    pending: Vec<Entry>,
}

impl State {
    fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Proven(receipt) => _ = self.forms.insert((receipt.id, receipt.ty), *receipt),
            Entry::Package(id, contents) => _ = self.packages.insert(*id, contents.clone()),
            Entry::Forgotten(id) => {
                for ty in crate::blobs::TYPES {
                    self.forms.remove(&(*id, ty));
                }
                self.packages.remove(id);
            }
        }
    }

    fn all(&self) -> Vec<Entry> {
        let forms = self.forms.values().map(|receipt| Entry::Proven(*receipt));
        let packages = self.packages.iter().map(|(id, contents)| Entry::Package(*id, contents.clone()));
        forms.chain(packages).collect()
    }
}

impl Receipts {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what other programs have written since.
    pub fn read_new(&self) -> Result<(), RepositoryError> {
        self.catch_up(&mut self.state())
    }

    fn numbers(&self) -> Result<Vec<u64>, RepositoryError> {
        Ok(layout::numbers(self.storage.as_ref(), layout::RECEIPTS)?)
    }

    fn catch_up(&self, state: &mut State) -> Result<(), RepositoryError> {
        'listed: loop {
            let numbers = self.numbers()?;
            let mut new = Vec::new();
            // From the newest back to the first that holds all before it.
            for number in numbers.iter().rev().take_while(|number| **number > state.through) {
                let name = layout::receipts(*number)?;
                let Some(bytes) = self.storage.read(&name, limits::RECEIPTS_BYTES_MAX)? else { continue 'listed };
                let path = self.storage.place().join(name.as_str());
                let segment = Segment::parse(&bytes, &path)?.unwrap_or_else(|| {
                    tracing::warn!(path = %path.display(), "damaged receipts: what they and older ones say is proven again");
                    Segment { holds_all: true, entries: Vec::new() }
                });
                let holds_all = segment.holds_all;
                new.push(segment);
                if holds_all {
                    break;
                }
            }
            for segment in new.into_iter().rev() {
                if segment.holds_all {
                    state.forms.clear();
                    state.packages.clear();
                }
                segment.entries.iter().for_each(|entry| state.apply(entry));
            }
            let pending = std::mem::take(&mut state.pending);
            pending.iter().for_each(|entry| state.apply(entry));
            state.pending = pending;
            state.through = numbers.last().copied().unwrap_or(0).max(state.through);
            state.segments = numbers.len() as u64;
            return Ok(());
        }
    }

    /// The receipt of one form.
    pub fn form(&self, id: BlobId, ty: DeliveryType) -> Option<Receipt> {
        self.state().forms.get(&(id, ty)).copied()
    }

    /// What a package names, if it was ever proven and read.
    pub fn package(&self, id: BlobId) -> Option<Arc<Contents>> {
        self.state().packages.get(&id).cloned()
    }

    /// Notes entries; they are durable after [`Receipts::flush`].
    pub fn note(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut state = self.state();
        for entry in entries {
            state.apply(&entry);
            state.pending.push(entry);
        }
    }

    /// Makes everything noted durable.
    pub fn flush(&self) -> Result<(), RepositoryError> {
        let mut state = self.state();
        if state.pending.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut state.pending);
        let segment = Segment { holds_all: false, entries };
        let bytes = segment.to_bytes();
        state.pending = segment.entries;
        while !self.storage.create(&layout::receipts(state.through + 1)?, &bytes)? {
            self.catch_up(&mut state)?;
        }
        state.pending.clear();
        state.through += 1;
        state.segments += 1;
        if state.segments > limits::RECEIPT_SEGMENTS_MAX {
            self.compact(&mut state)?;
        }
        Ok(())
    }

    /// Writes everything into one segment, if it is in several.
    pub fn write_into_one(&self) -> Result<(), RepositoryError> {
        let mut state = self.state();
        if state.segments > 1 { self.compact(&mut state) } else { Ok(()) }
    }

    /// Writes everything into one segment and removes those before it.
    fn compact(&self, state: &mut State) -> Result<(), RepositoryError> {
        loop {
            self.catch_up(state)?;
            let segment = Segment { holds_all: true, entries: state.all() };
            if self.storage.create(&layout::receipts(state.through + 1)?, &segment.to_bytes())? {
                break;
            }
        }
        let older = self.numbers()?.into_iter().filter(|number| *number <= state.through);
        let names: Result<Vec<DocumentName>, StoreError> = older.map(layout::receipts).collect();
        state.through += 1;
        state.segments = 1;
        // Should they come back, the new one still says that nothing older counts.
        Ok(self.storage.sweep(&names?)?)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use colibri_common::merkle;
    use colibri_store::testing::CrashDisk;

    use super::*;
    use crate::storage::LocalStorage;

    fn receipt(n: u64) -> Receipt {
        Receipt {
            id: merkle::build(&n.to_le_bytes()).id,
            ty: if n.is_multiple_of(2) { DeliveryType::Type1 } else { DeliveryType::Type2 },
            length: n,
            identity: Identity::of_unit_h(&n.to_le_bytes()),
            at: UnixSeconds(1000 + n),
        }
    }

    fn package(n: u64) -> Entry {
        let blobs = (0..n).map(|n| receipt(n).id).collect();
        Entry::Package(receipt(n).id, Arc::new(Contents { blobs, subpackages: vec![receipt(n + 1).id] }))
    }

    fn storage() -> Arc<dyn Storage> {
        Arc::new(LocalStorage::open(Arc::new(CrashDisk::new()), "/repo".as_ref()).unwrap())
    }

    fn found(receipts: &Receipts, n: u64) -> Option<Receipt> {
        receipts.form(receipt(n).id, receipt(n).ty)
    }

    #[test]
    fn what_is_flushed_is_read_by_others_and_the_last_word_counts() {
        let storage = storage();
        let [one, two] = [0, 0].map(|_| Receipts::new(storage.clone()));
        one.note([Entry::Proven(receipt(1)), package(3)]);
        assert_eq!(found(&one, 1), Some(receipt(1)));
        two.read_new().unwrap();
        assert_eq!(found(&two, 1), None, "not flushed yet");
        one.flush().unwrap();
        one.flush().unwrap();
        // Both take the next number; one of them has to look again.
        two.note([Entry::Proven(receipt(2))]);
        two.flush().unwrap();
        assert_eq!((found(&two, 1), found(&two, 2)), (Some(receipt(1)), Some(receipt(2))));
        one.note([Entry::Forgotten(receipt(1).id), Entry::Forgotten(receipt(3).id)]);
        one.flush().unwrap();
        assert_eq!(storage.list("receipts/").unwrap().len(), 3);
        for receipts in [&two, &Receipts::new(storage.clone())] {
            receipts.read_new().unwrap();
            assert_eq!((found(receipts, 1), found(receipts, 2)), (None, Some(receipt(2))));
            assert_eq!(receipts.package(receipt(3).id), None);
        }
    }

    #[test]
    fn many_segments_become_one() {
        let storage = storage();
        let [writer, reader] = [0, 0].map(|_| Receipts::new(storage.clone()));
        let all = limits::RECEIPT_SEGMENTS_MAX + 1;
        for n in 0..all {
            writer.note([Entry::Proven(receipt(n)), package(n % 7)]);
            writer.flush().unwrap();
            if n == 10 {
                reader.read_new().unwrap();
            }
        }
        assert_eq!(storage.list("receipts/").unwrap().len(), 1);
        for receipts in [&reader, &Receipts::new(storage.clone())] {
            receipts.read_new().unwrap();
            assert!((0..all).all(|n| found(receipts, n) == Some(receipt(n))));
            assert_eq!(receipts.package(receipt(6).id).unwrap().blobs.len(), 6);
        }
        writer.note([Entry::Forgotten(receipt(4).id)]);
        writer.flush().unwrap();
        reader.read_new().unwrap();
        assert_eq!((found(&reader, 4), found(&reader, 5)), (None, Some(receipt(5))));
    }

    #[test]
    fn damaged_receipts_prove_nothing_and_newer_ones_are_refused() {
        let storage = storage();
        let writer = Receipts::new(storage.clone());
        for n in 1..=3 {
            writer.note([Entry::Proven(receipt(n))]);
            writer.flush().unwrap();
        }
        let name = layout::receipts(2).unwrap();
        let good = storage.read(&name, 1000).unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            storage.replace(&name, &Bytes::from(bad)).unwrap();
            let reader = Receipts::new(storage.clone());
            reader.read_new().unwrap();
            assert_eq!([1, 2, 3].map(|n| found(&reader, n).is_some()), [false, false, true], "byte {at}");
        }
        let newer = segment::with_format(&good, 2);
        storage.replace(&name, &newer).unwrap();
        let error = Receipts::new(storage.clone()).read_new().unwrap_err();
        assert!(matches!(error, RepositoryError::TooNew { found: 2, .. }), "{error}");
    }
}
