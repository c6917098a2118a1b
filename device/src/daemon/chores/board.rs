//! [`Board`]: what is known of each chore: its past, which outlives a restart in one document (`chores.json`), and how it is
//! going. When it is due is said by [`super::schedule`]; the chores themselves are in [`super::work`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{BlobId, UnixSeconds};
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::schedule::{Cadence, Past};
use crate::daemon::wire::{Chore, ChoreEntry, Went};
use crate::error::DeviceError;
use crate::limits::{CHORE_SAID_BYTES_MAX, CHORES_BYTES_MAX};

const FORMAT: u64 = 1;

/// What came of a chore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub went: Went,
    /// For people.
    pub said: String,
}

/// What is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    format: u64,
    #[serde(default)]
    chores: BTreeMap<Chore, Page>,
    /// The last blob that a verification under way was through with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verified_to: Option<BlobId>,
}

/// What is known of one chore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Page {
    /// Being done, or was when the device stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running_since: Option<UnixSeconds>,
    /// Began, and was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cut_off: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    went: Option<Went>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<String>,
    #[serde(default)]
    failures: u32,
    /// Drawn anew for each pause.
    #[serde(default)]
    lot: u16,
    /// Somebody wants it now.
    #[serde(skip)]
    is_wanted: bool,
}

impl Page {
    fn past(&self) -> Past {
        Past { last: self.ended.max(self.cut_off), failures: self.failures, lot: self.lot }
    }
}

/// See the module.
pub(crate) struct Board {
    documents: Documents,
    cadences: BTreeMap<Chore, Cadence>,
    lots: Arc<dyn Fn() -> u16 + Send + Sync>,
    began: UnixSeconds,
    book: Mutex<Book>,
    /// One change is written down at a time.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Some chore is wanted at once.
    pub wanted: Notify,
}

impl Board {
    /// Takes up what was written down. What cannot be read is begun anew: nothing depends on it but when chores are due.
    pub fn open(
        documents: Documents,
        cadences: BTreeMap<Chore, Cadence>,
        lots: Arc<dyn Fn() -> u16 + Send + Sync>,
        began: UnixSeconds,
    ) -> Result<Self, DeviceError> {
        let read = documents.get(&document_name(), CHORES_BYTES_MAX)?;
        let parsed = read.map(|json| serde_json::from_slice::<Book>(&json).map_err(|error| error.to_string()));
        let mut book = match parsed {
            Some(Ok(book)) if book.format == FORMAT => book,
            None => Book::default(),
            unknown => {
                let reason = unknown.and_then(Result::err).unwrap_or_else(|| "it has another format".to_owned());
                tracing::warn!(%reason, "what is known of chores is begun anew");
                Book::default()
            }
        };
        book.format = FORMAT;
        for chore in Chore::ALL {
            let page = book.chores.entry(chore).or_insert_with(|| Page { lot: lots(), ..Page::default() });
            if let Some(since) = page.running_since.take() {
                // It may be the reason why the device stopped.
                (page.cut_off, page.failures) = (Some(since), page.failures.saturating_add(1));
                page.said = Some("the device stopped meanwhile".to_owned());
                page.went = Some(Went::Failed);
            }
        }
        let (book, writing) = (Mutex::new(book), Arc::default());
        Ok(Self { documents, cadences, lots, began, book, writing, wanted: Notify::new() })
    }

    /// When a chore is due; nothing if it is never done.
    pub fn due(&self, chore: Chore, now: UnixSeconds) -> Option<UnixSeconds> {
        let cadence = self.cadences.get(&chore)?;
        let book = self.lock();
        let page = book.chores.get(&chore)?;
        Some(if page.is_wanted { now } else { cadence.due(&page.past(), self.began, now) })
    }

    /// A chore is to be done as soon as may be.
    pub fn want(&self, chore: Chore) {
        if let Some(page) = self.lock().chores.get_mut(&chore) {
            page.is_wanted = true;
        }
        self.wanted.notify_waiters();
    }

    pub async fn begin(&self, chore: Chore, now: UnixSeconds) {
        self.change(chore, |page| (page.running_since, page.is_wanted) = (Some(now), false)).await;
    }

    pub async fn end(&self, chore: Chore, outcome: Outcome, now: UnixSeconds) {
        let lot = (self.lots)();
        self.change(chore, |page| {
            let mut said = outcome.said;
            let most = said.len().min(CHORE_SAID_BYTES_MAX);
            said.truncate((0..=most).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0));
            *page = Page {
                ended: Some(now),
                went: Some(outcome.went),
                said: Some(said),
                failures: if outcome.went == Went::Done { 0 } else { page.failures.saturating_add(1) },
                lot,
                is_wanted: page.is_wanted,
                running_since: None,
                cut_off: None,
            };
        })
        .await;
    }

    /// The daemon ends before the chore does: it is taken up at the next start.
    pub async fn give_up(&self, chore: Chore) {
        self.change(chore, |page| page.running_since = None).await;
    }

    /// The last blob that a verification under way was through with.
    pub fn verified_to(&self) -> Option<BlobId> {
        self.lock().verified_to
    }

    /// To be written down with the next change, or by [`Self::save`]; nothing when a verification is through.
    pub fn set_verified_to(&self, blob: Option<BlobId>) {
        self.lock().verified_to = blob;
    }

    pub fn entries(&self, now: UnixSeconds) -> Vec<ChoreEntry> {
        let entry = |chore| {
            let next = self.due(chore, now);
            let book = self.lock();
            let page = book.chores.get(&chore).cloned().unwrap_or_default();
            ChoreEntry {
                chore,
                running_since: page.running_since,
                ended: page.ended,
                went: page.went,
                said: page.said,
                failures: page.failures,
                next: next.filter(|_| page.running_since.is_none()),
            }
        };
        Chore::ALL.into_iter().map(entry).collect()
    }

    async fn change(&self, chore: Chore, change: impl FnOnce(&mut Page)) {
        change(self.lock().chores.entry(chore).or_default());
        // Looking at the space that is free, every minute, is not worth a write to a disk.
        if chore != Chore::Space {
            self.save().await;
        }
    }

    /// Writes everything down. If that fails, chores are due at other times after a restart, which is all.
    pub async fn save(&self) {
        let turn = self.writing.clone().lock_owned().await;
        let documents = self.documents.clone();
        let json = serde_json::to_vec(&*self.lock());
        let saved = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let json = json.map_err(|error| error.to_string())?;
            documents.put(&document_name(), &json).map_err(|error| error.to_string())
        });
        let saved = saved.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = saved {
            tracing::warn!(%error, "what is known of chores was not written down");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn document_name() -> DocumentName {
    "chores.json".parse().expect("a good name")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use colibri_store::testing::CrashDisk;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const CADENCE: Cadence = Cadence { every_s: 1000, retry_first_s: 60, retry_max_s: 600, spread_percent: 0 };

    fn open(disk: &Arc<CrashDisk>, began: UnixSeconds) -> Board {
        let documents = Documents::open(disk.clone(), Path::new("/state")).unwrap();
        let cadences = [Chore::UpdateCheck, Chore::Verify].map(|chore| (chore, CADENCE));
        Board::open(documents, cadences.into(), Arc::new(|| 0), began).unwrap()
    }

    fn entry(board: &Board, chore: Chore, now: UnixSeconds) -> ChoreEntry {
        board.entries(now).into_iter().find(|entry| entry.chore == chore).unwrap()
    }

    fn outcome(went: Went) -> Outcome {
        Outcome { went, said: "so it was".repeat(1000) }
    }

    #[tokio::test]
    async fn what_was_done_is_known_after_a_restart() {
        let disk = Arc::new(CrashDisk::new());
        let board = open(&disk, NOW);
        assert_eq!(board.due(Chore::Automatic, NOW), None, "it has no cadence");
        assert_eq!(board.due(Chore::UpdateCheck, NOW), Some(NOW));
        board.begin(Chore::UpdateCheck, NOW).await;
        let running = entry(&board, Chore::UpdateCheck, NOW);
        assert_eq!((running.running_since, running.next), (Some(NOW), None));
        board.end(Chore::UpdateCheck, outcome(Went::Failed), NOW.plus(5)).await;
        board.begin(Chore::Verify, NOW).await;
        board.set_verified_to(Some(BlobId::from_digest([7; 32])));
        board.give_up(Chore::Verify).await;
        drop(board);
        let later = NOW.plus(30);
        let board = open(&disk, later);
        let check = entry(&board, Chore::UpdateCheck, later);
        assert_eq!((check.ended, check.went, check.failures), (Some(NOW.plus(5)), Some(Went::Failed), 1));
        assert_eq!((check.next, check.said.unwrap().len()), (Some(NOW.plus(65)), CHORE_SAID_BYTES_MAX));
        let verify = entry(&board, Chore::Verify, later);
        assert_eq!((verify.failures, verify.ended, verify.next), (0, None, Some(later)), "told to end, it goes on");
        assert_eq!(board.verified_to(), Some(BlobId::from_digest([7; 32])));
    }

    #[tokio::test]
    async fn a_chore_that_ends_the_device_is_not_tried_again_at_once() {
        let disk = Arc::new(CrashDisk::new());
        for (time, pause) in [60, 120, 240].into_iter().enumerate() {
            let now = NOW.plus(1000 * time as u64);
            let board = open(&disk, now);
            board.begin(Chore::UpdateCheck, now).await;
            drop(board);
            let board = open(&disk, now.plus(1));
            let check = entry(&board, Chore::UpdateCheck, now.plus(1));
            assert_eq!((check.went, check.next), (Some(Went::Failed), Some(now.plus(pause))));
            // Nor is that forgotten if the device stops once more.
            assert_eq!(open(&disk, now.plus(2)).due(Chore::UpdateCheck, now.plus(2)), Some(now.plus(pause)));
        }
    }

    #[tokio::test]
    async fn what_is_wanted_is_due_and_only_once() {
        let board = open(&Arc::new(CrashDisk::new()), NOW);
        board.begin(Chore::Verify, NOW).await;
        board.end(Chore::Verify, outcome(Went::Done), NOW).await;
        assert_eq!(board.due(Chore::Verify, NOW), Some(NOW.plus(1000)));
        board.want(Chore::Verify);
        assert_eq!(board.due(Chore::Verify, NOW), Some(NOW));
        board.begin(Chore::Verify, NOW).await;
        // Wanted again meanwhile, it is done again.
        board.want(Chore::Verify);
        board.end(Chore::Verify, outcome(Went::Done), NOW).await;
        assert_eq!(board.due(Chore::Verify, NOW), Some(NOW));
    }

    #[tokio::test]
    async fn a_document_that_is_none_is_begun_anew() {
        let disk = Arc::new(CrashDisk::new());
        let documents = Documents::open(disk.clone(), Path::new("/state")).unwrap();
        for bad in ["{", "[]", r#"{"format":2}"#] {
            documents.put(&document_name(), bad.as_bytes()).unwrap();
            assert_eq!(open(&disk, NOW).due(Chore::Verify, NOW), Some(NOW), "{bad}");
        }
    }
}
