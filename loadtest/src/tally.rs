//! [`TallyKeep`]: a device's store that remembers hashes and counts, not content. Every leaf it counts has been verified; a
//! blob counts as kept only when all its leaves were seen. meta.fars are kept once for the whole fleet, to be parsed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use colibri_common::merkle::{self, LEAF_BYTES, Leaves, Verified};
use colibri_common::{BlobId, ByteRange, ClaimedLength};
use colibri_device::{Keep, KeepError, PartialKeep, Purpose};

use crate::limits::{AUDITED_BLOB_BYTES_MAX, META_FARS_BYTES_MAX};

/// The fleet's meta.fars, verified when they came in.
#[derive(Debug, Default)]
pub(crate) struct MetaFars {
    by_id: Mutex<HashMap<BlobId, Bytes>>,
}

/// What was hashed once more, apart from all verification on the way: blobs that devices took as whole.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    audited_bytes: AtomicU64,
    unverified_bytes: AtomicU64,
}

impl Audit {
    /// Bytes audited, and of these the bytes of blobs that were not what their name says.
    pub fn counts(&self) -> (u64, u64) {
        (self.audited_bytes.load(Ordering::Relaxed), self.unverified_bytes.load(Ordering::Relaxed))
    }

    fn blob(&self, id: BlobId, content: &[u8]) {
        let bytes = content.len() as u64;
        self.audited_bytes.fetch_add(bytes, Ordering::Relaxed);
        if merkle::build(content).id != id {
            self.unverified_bytes.fetch_add(bytes.max(1), Ordering::Relaxed);
        }
    }
}

/// What one synthetic device holds.
#[derive(Debug, Clone)]
pub(crate) struct TallyKeep {
    held: Arc<Mutex<HashMap<BlobId, u64>>>,
    meta_fars: Arc<MetaFars>,
    audit: Option<Arc<Audit>>,
    is_full: Arc<AtomicBool>,
}

impl TallyKeep {
    pub fn new(meta_fars: Arc<MetaFars>) -> Self {
        Self::holding(meta_fars, &[], None)
    }

    /// One that holds these packages' blobs. With an audit, what it takes besides is kept whole until it is taken, and hashed.
    pub fn holding(meta_fars: Arc<MetaFars>, packages: &[Arc<[(BlobId, u64)]>], audit: Option<Arc<Audit>>) -> Self {
        let held = packages.iter().flat_map(|blobs| blobs.iter().copied()).collect();
        Self { held: Arc::new(Mutex::new(held)), meta_fars, audit, is_full: Arc::default() }
    }

    /// The same, with no room for anything new while the switch is on.
    pub fn full_while(self, is_full: Arc<AtomicBool>) -> Self {
        Self { is_full, ..self }
    }

    /// Lets go of everything but these; number of blobs and bytes that went.
    pub fn let_go(&self, stays: &HashSet<BlobId>) -> (u64, u64) {
        let (mut blobs, mut bytes) = (0, 0);
        lock(&self.held).retain(|id, length| {
            let is_kept = stays.contains(id);
            (blobs, bytes) = (blobs + u64::from(!is_kept), bytes + if is_kept { 0 } else { *length });
            is_kept
        });
        (blobs, bytes)
    }

    /// Number of blobs and bytes of content held.
    pub fn totals(&self) -> (u64, u64) {
        let held = lock(&self.held);
        (held.len() as u64, held.values().sum())
    }
}

impl Keep for TallyKeep {
    fn length(&self, id: &BlobId) -> Result<Option<u64>, KeepError> {
        Ok(lock(&self.held).get(id).copied())
    }

    fn has(&self, id: &BlobId, purpose: Purpose) -> Result<bool, KeepError> {
        // What came as content was counted, not kept: as a meta.far it is fetched once more.
        let is_readable = || purpose == Purpose::Content || lock(&self.meta_fars.by_id).contains_key(id);
        Ok(lock(&self.held).contains_key(id) && is_readable())
    }

    fn read(&self, id: &BlobId, bytes_max: u64) -> Result<Bytes, KeepError> {
        let kept = lock(&self.meta_fars.by_id).get(id).cloned();
        kept.filter(|bytes| bytes.len() as u64 <= bytes_max)
            .ok_or_else(|| KeepError::Other(format!("blob {id} was tallied, not kept")))
    }

    fn read_range(&self, id: &BlobId, range: ByteRange) -> Result<Bytes, KeepError> {
        let part = |bytes: Bytes| {
            let (start, end) = (usize::try_from(range.start()).ok()?, usize::try_from(range.end()).ok()?);
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        };
        let kept = lock(&self.meta_fars.by_id).get(id).cloned();
        kept.and_then(part).ok_or_else(|| KeepError::Other(format!("blob {id} was tallied, not kept")))
    }

    fn discard(&self, id: &BlobId) -> Result<bool, KeepError> {
        lock(&self.meta_fars.by_id).remove(id);
        Ok(lock(&self.held).remove(id).is_some())
    }

    fn begin(
        &self,
        leaves: &Leaves,
        length: ClaimedLength,
        purpose: Purpose,
    ) -> Result<Box<dyn PartialKeep>, KeepError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(KeepError::NoSpace("the fleet's devices are full".to_owned()));
        }
        let keep = self.clone();
        let seen = vec![false; usize::try_from(leaves.count()).expect("leaf lists fit memory")];
        let is_audited = self.audit.is_some() && length.0 <= AUDITED_BLOB_BYTES_MAX;
        let is_meta_far = purpose == Purpose::MetaFar;
        let content = (is_meta_far || is_audited).then(BytesMut::new);
        Ok(Box::new(TallyPartial { keep, id: leaves.id(), length: length.0, seen, content, is_meta_far, is_audited }))
    }
}

#[derive(Debug)]
struct TallyPartial {
    keep: TallyKeep,
    id: BlobId,
    length: u64,
    seen: Vec<bool>,
    content: Option<BytesMut>,
    is_meta_far: bool,
    is_audited: bool,
}

impl PartialKeep for TallyPartial {
    fn missing(&self) -> Vec<ByteRange> {
        let leaves = self.seen.iter().zip(0..).filter(|(is_here, _)| !**is_here);
        leaves.map(|(_, leaf)| ByteRange::new(leaf * LEAF_BYTES, (leaf + 1) * LEAF_BYTES)).collect()
    }

    fn write(&mut self, run: &Verified) -> Result<(), KeepError> {
        if run.id() != self.id {
            return Err(KeepError::Other(format!("leaves of {} written to {}", run.id(), self.id)));
        }
        let first = usize::try_from(run.offset() / LEAF_BYTES).expect("leaf lists fit memory");
        let count = run.bytes().len().div_ceil(LEAF_BYTES as usize).max(1);
        self.seen[first..first + count].fill(true);
        if let Some(content) = &mut self.content {
            let start = usize::try_from(run.offset()).expect("meta.fars fit memory");
            let end = start + run.bytes().len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(run.bytes());
        }
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<(), KeepError> {
        if self.seen.contains(&false) {
            return Err(KeepError::Other(format!("blob {} is not whole", self.id)));
        }
        if let (Some(audit), Some(content), true) = (&self.keep.audit, &self.content, self.is_audited) {
            audit.blob(self.id, content);
        }
        if let Some(content) = self.content.filter(|_| self.is_meta_far) {
            let mut meta_fars = lock(&self.keep.meta_fars.by_id);
            let total: u64 = meta_fars.values().map(|bytes| bytes.len() as u64).sum();
            if total + content.len() as u64 > META_FARS_BYTES_MAX {
                return Err(KeepError::NoSpace(format!(
                    "the fleet keeps at most {META_FARS_BYTES_MAX} bytes of meta.fars"
                )));
            }
            meta_fars.entry(self.id).or_insert_with(|| content.freeze());
        }
        lock(&self.keep.held).insert(self.id, self.length);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_counts_only_when_every_leaf_was_seen() {
        let data = Bytes::from(vec![7; 20_000]);
        let tree = colibri_common::merkle::build(&data);
        let keep = TallyKeep::new(Arc::default());
        let begin = || keep.begin(&tree.leaves, tree.length.into(), Purpose::MetaFar).unwrap();
        let mut partial = begin();
        partial.write(&tree.leaves.verify(8192, data.slice(8192..)).unwrap()).unwrap();
        assert_eq!(partial.missing().len(), 1);
        assert!(partial.commit().is_err());
        assert_eq!(keep.length(&tree.id).unwrap(), None);
        let mut partial = begin();
        partial.write(&tree.leaves.verify(8192, data.slice(8192..)).unwrap()).unwrap();
        partial.write(&tree.leaves.verify(0, data.slice(..8192)).unwrap()).unwrap();
        assert!(partial.missing().is_empty());
        partial.commit().unwrap();
        assert_eq!(keep.totals(), (1, 20_000));
        assert_eq!(keep.read(&tree.id, 20_000).unwrap(), data);
        assert!(keep.read(&tree.id, 19_999).is_err());
    }

    #[test]
    fn an_audit_finds_what_is_not_what_its_name_says() {
        let audit = Audit::default();
        let id = colibri_common::merkle::build(b"good").id;
        audit.blob(id, b"good");
        assert_eq!(audit.counts(), (4, 0));
        audit.blob(id, b"evil");
        audit.blob(id, b"");
        assert_eq!(audit.counts(), (8, 5), "an empty one counts, too");
    }

    #[test]
    fn what_it_takes_is_audited_and_what_it_held_is_there() {
        let data = Bytes::from(vec![7; 20_000]);
        let tree = colibri_common::merkle::build(&data);
        let audit = Arc::new(Audit::default());
        let keep = TallyKeep::holding(Arc::default(), &[[(tree.id, 20_000)].into()], Some(audit.clone()));
        assert_eq!(keep.totals(), (1, 20_000));
        let mut partial = keep.begin(&tree.leaves, tree.length.into(), Purpose::Content).unwrap();
        partial.write(&tree.leaves.verify(0, data.clone()).unwrap()).unwrap();
        partial.commit().unwrap();
        assert_eq!(audit.counts(), (20_000, 0));
        assert!(keep.read(&tree.id, 20_000).is_err(), "content is audited, not kept");
    }

    #[test]
    fn content_that_turns_out_to_be_a_meta_far_is_taken_again() {
        let data = Bytes::from(vec![7; 5_000]);
        let tree = colibri_common::merkle::build(&data);
        let keep = TallyKeep::new(Arc::default());
        for (purpose, readable) in [(Purpose::Content, false), (Purpose::MetaFar, true)] {
            let mut partial = keep.begin(&tree.leaves, tree.length.into(), purpose).unwrap();
            partial.write(&tree.leaves.verify(0, data.clone()).unwrap()).unwrap();
            partial.commit().unwrap();
            assert!(keep.has(&tree.id, Purpose::Content).unwrap());
            assert_eq!(keep.has(&tree.id, Purpose::MetaFar).unwrap(), readable);
            assert_eq!(keep.totals(), (1, 5_000), "counted once");
        }
        assert_eq!(keep.read(&tree.id, 5_000).unwrap(), data);
    }
}
