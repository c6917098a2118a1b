//! [`Quarantine`]: what sources sent that was not what they were asked for, with where it came from, so that an operator can
//! look at it. In memory only, bounded in number and bytes, oldest out; nothing is ever served from here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use colibri_common::{BlobId, Clock, Digest, UnixSeconds, hex};
use colibri_fetch::{BadPiece, Blame, Given, Witness};
use colibri_package::delivery::Encoding;
use serde::{Serialize, Serializer};

use crate::history::{History, clip};
use crate::limits::{HISTORY_TEXT_BYTES_MAX, QUARANTINE_BYTES_MAX, QUARANTINE_OF_ONE_SOURCE_MAX, QUARANTINED_MAX};
use crate::metrics::Metrics;

/// One piece, and how it came here.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Quarantined {
    /// Its number, which no other piece of this process has.
    pub number: u64,
    /// When it came first, seconds since 1970.
    first_at: UnixSeconds,
    /// When the same came last.
    last_at: UnixSeconds,
    /// How often it came.
    times: u64,
    /// Who sent it, `HOST:PORT`.
    source: String,
    /// The blob that was asked for.
    pub blob: BlobId,
    /// What of it: `raw`, the number of a delivery type, or `leaves`.
    #[serde(serialize_with = "form")]
    encoding: Option<Encoding>,
    /// Offset of the first byte in that.
    offset: u64,
    /// How many bytes the piece had, of which the first are kept.
    piece_bytes: u64,
    kept_bytes: u64,
    /// The hash it should have had, where one hash decides.
    #[serde(serialize_with = "digest")]
    expected: Option<Digest>,
    /// The hash it had.
    #[serde(serialize_with = "digest")]
    found: Option<Digest>,
    /// The rule that it broke.
    detail: String,
    #[serde(skip)]
    content: Bytes,
}

/// [`Quarantined`] with its bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    entry: Quarantined,
    /// In hexadecimal digits.
    content: String,
}

/// The bad pieces of one edge.
pub(crate) struct Quarantine {
    kept: Mutex<Kept>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl std::fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quarantine").field("kept", &self.kept).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    entries: VecDeque<Quarantined>,
    bytes: usize,
    next_number: u64,
}

impl Quarantine {
    pub fn new(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self { kept: Mutex::default(), clock, metrics }
    }

    /// What is here, oldest first.
    pub fn list(&self) -> Vec<Quarantined> {
        self.lock().entries.iter().cloned().collect()
    }

    /// Numbers of what came for a blob.
    pub fn of(&self, blob: BlobId) -> Vec<u64> {
        self.lock().entries.iter().filter(|entry| entry.blob == blob).map(|entry| entry.number).collect()
    }

    /// One of them with its bytes.
    pub fn show(&self, number: u64) -> Option<Shown> {
        let entry = self.lock().entries.iter().find(|entry| entry.number == number).cloned()?;
        Some(Shown { content: hex(&entry.content), entry })
    }

    /// Takes a bad piece in; one that is here already is counted.
    fn take(&self, blame: &Blame, blob: BlobId, piece: &BadPiece) {
        self.metrics.quarantined.inc();
        let now = self.clock.now();
        let mut kept = self.lock();
        let same = |entry: &&mut Quarantined| {
            let what = (entry.blob, entry.encoding, entry.offset, entry.piece_bytes);
            what == (blob, blame.encoding, piece.offset, piece.length_bytes)
                && entry.source == blame.source
                && entry.content == piece.bytes
        };
        if let Some(entry) = kept.entries.iter_mut().find(same) {
            (entry.last_at, entry.times) = (now, entry.times + 1);
            return;
        }
        kept.make_room(&blame.source, piece.bytes.len());
        let number = kept.next_number;
        kept.next_number += 1;
        kept.bytes += piece.bytes.len();
        kept.entries.push_back(Quarantined {
            number,
            first_at: now,
            last_at: now,
            times: 1,
            source: blame.source.clone(),
            blob,
            encoding: blame.encoding,
            offset: piece.offset,
            piece_bytes: piece.length_bytes,
            kept_bytes: piece.bytes.len() as u64,
            expected: piece.expected,
            found: piece.found,
            detail: clip(&blame.detail, HISTORY_TEXT_BYTES_MAX).to_owned(),
            content: piece.bytes.clone(),
        });
        self.metrics.quarantine_pieces.set(i64::try_from(kept.entries.len()).unwrap_or(i64::MAX));
        self.metrics.quarantine_bytes.set(i64::try_from(kept.bytes).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Lets old ones go until another of this source with so many bytes fits. A source that lies without end pushes out its
    /// own first: what others did stays to be seen.
    fn make_room(&mut self, source: &str, bytes: usize) {
        let of_source = self.entries.iter().filter(|entry| entry.source == source).count();
        if of_source >= QUARANTINE_OF_ONE_SOURCE_MAX {
            let oldest = self.entries.iter().position(|entry| entry.source == source);
            self.remove(oldest.unwrap_or(0));
        }
        while self.entries.len() >= QUARANTINED_MAX || self.bytes + bytes > QUARANTINE_BYTES_MAX {
            if !self.remove(0) {
                return;
            }
        }
    }

    fn remove(&mut self, index: usize) -> bool {
        let Some(gone) = self.entries.remove(index) else { return false };
        self.bytes -= gone.content.len();
        true
    }
}

/// What an edge remembers of its sources, whoever a fetch is for.
#[derive(Debug)]
pub(crate) struct Seen {
    pub history: Arc<History>,
    pub quarantine: Arc<Quarantine>,
}

impl Witness for Seen {
    fn gave(&self, authority: &str, given: Given) {
        self.history.gave(authority, given);
    }

    fn blamed(&self, blame: &Blame) {
        if let (Some(blob), Some(piece)) = (blame.blob, &blame.piece) {
            self.quarantine.take(blame, blob, piece);
        }
    }
}

fn digest<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
    digest.as_ref().map(|digest| hex(digest)).serialize(serializer)
}

fn form<S: Serializer>(encoding: &Option<Encoding>, serializer: S) -> Result<S::Ok, S::Error> {
    match encoding {
        Some(encoding) => serializer.collect_str(encoding),
        None => serializer.serialize_str("leaves"),
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::ManualClock;
    use colibri_fetch::limits::BAD_PIECE_BYTES_MAX;
    use colibri_service::metrics::Registry;

    use super::*;

    fn quarantine() -> Quarantine {
        let clock = Arc::new(ManualClock::new(UnixSeconds(1000)));
        Quarantine::new(clock, Metrics::register(&Registry::new()).unwrap())
    }

    fn take(quarantine: &Quarantine, source: &str, offset: u64, bytes: usize) {
        let blob = BlobId::from_digest([7; 32]);
        let (detail, encoding) = ("x".repeat(10_000), Some(Encoding::Raw));
        let blame = Blame { source: source.to_owned(), blob: Some(blob), encoding, detail, piece: None };
        let bytes = Bytes::from(vec![3; bytes]);
        let (length_bytes, expected) = (bytes.len() as u64, None);
        quarantine.take(&blame, blob, &BadPiece { offset, length_bytes, bytes, expected, found: None });
    }

    #[test]
    fn a_source_that_lies_without_end_pushes_out_its_own_and_no_bound_is_passed() {
        let quarantine = quarantine();
        take(&quarantine, "once:1", 5, 8192);
        for lie in 0..10 * QUARANTINED_MAX as u64 {
            take(&quarantine, "liar:1", lie, BAD_PIECE_BYTES_MAX);
            let kept = quarantine.lock();
            assert!(kept.entries.len() <= QUARANTINED_MAX && kept.bytes <= QUARANTINE_BYTES_MAX);
            assert_eq!(kept.bytes, kept.entries.iter().map(|entry| entry.content.len()).sum::<usize>());
        }
        let list = quarantine.list();
        assert_eq!(list.len(), QUARANTINE_OF_ONE_SOURCE_MAX + 1);
        assert_eq!((list[0].source.as_str(), list[0].offset), ("once:1", 5), "others' stay");
        assert_eq!(list.last().unwrap().offset, 10 * QUARANTINED_MAX as u64 - 1, "the newest is here");
        assert!(list.iter().all(|entry| entry.detail.len() <= HISTORY_TEXT_BYTES_MAX));
        // Many liars, with small pieces and with large ones.
        for bytes in [1, BAD_PIECE_BYTES_MAX] {
            for source in 0..2 * QUARANTINED_MAX as u64 {
                take(&quarantine, &format!("{source}:1"), source, bytes);
            }
            let kept = quarantine.lock();
            assert!(kept.entries.len() <= QUARANTINED_MAX && kept.bytes <= QUARANTINE_BYTES_MAX);
        }
        assert_eq!(quarantine.metrics.quarantine_pieces.get(), quarantine.list().len() as i64);
        assert_eq!(quarantine.metrics.quarantine_bytes.get(), quarantine.lock().bytes as i64);
    }

    #[test]
    fn the_same_lie_is_counted_and_kept_once() {
        let quarantine = quarantine();
        (0..1000).for_each(|_| take(&quarantine, "liar:1", 8192, 100));
        let list = quarantine.list();
        assert_eq!((list.len(), list[0].times, quarantine.metrics.quarantined.get()), (1, 1000, 1000));
        assert_eq!(quarantine.show(list[0].number).unwrap().content, "03".repeat(100));
        assert!(quarantine.show(list[0].number + 1).is_none());
        assert_eq!(quarantine.of(BlobId::from_digest([7; 32])), [list[0].number]);
        assert_eq!(quarantine.of(BlobId::from_digest([8; 32])), [0; 0]);
    }
}
