//! [`Ledger`]: how many bytes of units are alive in this process, whoever holds them: the memory tier, fills, readers, bodies
//! on their way to a client.
//!
//! Each run of bytes is counted from the moment it is verified until the last slice of it is dropped: so it is known what
//! readers keep alive after the tier has let it go, and that is bounded. Deliberately absent: what the tier keeps (`memory`), and
//! which units readers hold while they are at them (`pins`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;

use crate::unit::{SEGMENT_OVERHEAD_BYTES, Segment, Slice};

/// Largest copy that a body gets when too much is lent already, bytes: a leaf.
const COPY_BYTES: usize = 8 << 10;

/// The count.
#[derive(Debug)]
pub(crate) struct Ledger {
    live_bytes: AtomicU64,
    lent_bytes: AtomicU64,
    lent_bytes_max: u64,
}

/// The memory of one segment, counted while it is alive.
#[derive(Debug)]
pub(crate) struct Counted {
    bytes: Bytes,
    /// Bodies that hold a part of it.
    borrowers: AtomicU32,
    ledger: Arc<Ledger>,
}

impl Counted {
    const fn cost(&self) -> u64 {
        self.bytes.len() as u64 + SEGMENT_OVERHEAD_BYTES
    }

    /// Counts one more body that holds a part of it; false if that would be too much in all.
    fn borrow(&self) -> bool {
        let one_more = |count: u32| (count > 0).then_some(count + 1);
        loop {
            if self.borrowers.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok() {
                return true;
            }
            let lent = |lent: u64| Some(lent + self.cost()).filter(|&lent| lent <= self.ledger.lent_bytes_max);
            if self.ledger.lent_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, lent).is_err() {
                return false;
            }
            if self.borrowers.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return true;
            }
            // Somebody else was first and has counted it.
            self.ledger.lent_bytes.fetch_sub(self.cost(), Ordering::AcqRel);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.ledger.live_bytes.fetch_sub(self.cost(), Ordering::AcqRel);
    }
}

/// Lets slices of a segment keep its count alive.
struct Owner(Arc<Counted>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// A part of a segment in a body.
struct Lent {
    bytes: Bytes,
    counted: Arc<Counted>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.counted.borrowers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.counted.ledger.lent_bytes.fetch_sub(self.counted.cost(), Ordering::AcqRel);
        }
    }
}

impl Ledger {
    /// Lends at most so many bytes to bodies.
    pub const fn new(lent_bytes_max: u64) -> Self {
        Self { live_bytes: AtomicU64::new(0), lent_bytes: AtomicU64::new(0), lent_bytes_max }
    }

    /// Counts a segment from now on.
    pub fn enter(self: &Arc<Self>, segment: Segment) -> Segment {
        let counted = Counted { bytes: segment.bytes().clone(), borrowers: AtomicU32::new(0), ledger: self.clone() };
        self.live_bytes.fetch_add(counted.cost(), Ordering::AcqRel);
        let counted = Arc::new(counted);
        segment.counted(Bytes::from_owner(Owner(counted.clone())), counted)
    }

    /// Bytes alive.
    pub fn bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Acquire)
    }

    /// A slice for a body without a copy, if there is room for that.
    pub fn try_lend(slice: &Slice) -> Option<Bytes> {
        let counted = slice.counted()?;
        counted.borrow().then(|| Bytes::from_owner(Lent { bytes: slice.bytes().clone(), counted: counted.clone() }))
    }

    /// A copy of the beginning of a slice, for a body when too much is lent already: no more than a leaf.
    pub fn copy(slice: &Slice) -> Bytes {
        Bytes::copy_from_slice(&slice.bytes()[..slice.bytes().len().min(COPY_BYTES)])
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::ByteRange;

    use super::*;
    use crate::unit::slice_at;

    const COST: u64 = 16_384 + SEGMENT_OVERHEAD_BYTES;

    fn segment(ledger: &Arc<Ledger>) -> Segment {
        ledger.enter(Segment::stored(0, vec![7; 16_384].into()))
    }

    fn slice(segment: &Segment, start: u64, end: u64) -> Slice {
        slice_at(std::slice::from_ref(segment), start, ByteRange::new(start, end)).unwrap()
    }

    #[test]
    fn bytes_count_once_and_until_the_last_slice_is_gone() {
        let ledger = Arc::new(Ledger::new(1 << 20));
        let one = segment(&ledger);
        let again = one.clone();
        let lent = Ledger::try_lend(&slice(&one, 5, 9)).unwrap();
        assert_eq!(ledger.bytes(), COST);
        drop((one, again));
        assert_eq!((ledger.bytes(), &lent[..]), (COST, &[7; 4][..]), "a slice keeps all of it");
        drop(lent);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn one_segment_is_lent_once_however_often_and_beyond_the_room_there_are_copies() {
        let ledger = Arc::new(Ledger::new(COST));
        let (one, two) = (segment(&ledger), segment(&ledger));
        let first = Ledger::try_lend(&slice(&one, 0, 16_384)).unwrap();
        let second = Ledger::try_lend(&slice(&one, 1, 16_384)).unwrap();
        assert_eq!((first.len(), second.len()), (16_384, 16_383));
        assert!(Ledger::try_lend(&slice(&two, 0, 1)).is_none());
        assert_eq!(Ledger::copy(&slice(&two, 0, 16_384)).len(), COPY_BYTES);
        assert_eq!(Ledger::copy(&slice(&two, 16_000, 16_384)).len(), 384);
        drop((first, second));
        assert!(Ledger::try_lend(&slice(&two, 0, 1)).is_some(), "room was given back");
    }
}
