//! What a daemon does without being asked: looks for updates, fetches automatic packages, verifies what it holds, collects
//! when space is short. When each is due is [`schedule`], pure; what is known of each outlives a restart (`board`).
//!
//! Deliberately absent: starting the machine anew and committing what runs, which need somebody's consent.

mod board;
pub mod schedule;
mod work;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use colibri_store::Documents;
use rustix::rand::{GetRandomFlags, getrandom};

use super::Daemon;
use super::wire::{Chore, ChoreEntry, Went};
use crate::error::DeviceError;
use crate::limits::{CHORES_LOOK_MS, VERIFY_SAVE_BYTES};
use crate::update::UpdateSource;
pub(super) use board::Board;
use schedule::Cadence;

/// What is done about an update that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Install {
    /// Nothing, but to say so.
    #[default]
    WhenAsked,
    /// It is fetched and put into the slot that does not run; it starts when somebody starts the machine anew.
    ByItself,
}

/// What a daemon does by itself, and how often.
#[derive(Clone)]
pub struct Chores {
    /// Where what is known of them is kept.
    pub documents: Documents,
    /// How often each is done; one that is not in it never is.
    pub cadences: BTreeMap<Chore, Cadence>,
    /// Where updates are looked for.
    pub update: Option<UpdateSource>,
    /// What becomes of them.
    pub install: Install,
    /// Verification reads at most so many bytes per second.
    pub verify_bytes_per_s: Option<NonZeroU64>,
    /// After so many bytes it writes down how far it is.
    pub verify_save_bytes: u64,
    /// The longest sleep before the clock is looked at again, which may be set.
    pub look_every: Duration,
    /// Draws lots.
    pub lots: Arc<dyn Fn() -> u16 + Send + Sync>,
}

impl std::fmt::Debug for Chores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chores").field("cadences", &self.cadences).finish_non_exhaustive()
    }
}

impl Chores {
    /// None, to be filled in.
    pub fn none(documents: Documents) -> Self {
        Self {
            documents,
            cadences: BTreeMap::new(),
            update: None,
            install: Install::default(),
            verify_bytes_per_s: None,
            verify_save_bytes: VERIFY_SAVE_BYTES,
            look_every: Duration::from_millis(CHORES_LOOK_MS),
            lots: Arc::new(lot),
        }
    }
}

/// A lot of the machine's own. Who knows it knows nothing.
fn lot() -> u16 {
    let mut bytes = [0; 2];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(_) => u16::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

impl Daemon {
    /// Does chores until [`Daemon::end`]; once in the life of a daemon.
    ///
    /// # Errors
    /// What is known of them cannot be read from the disk.
    pub fn do_chores(&self, how: Chores) -> Result<(), DeviceError> {
        let how = Arc::new(how);
        let (documents, cadences, lots) = (how.documents.clone(), how.cadences.clone(), how.lots.clone());
        let board = Arc::new(Board::open(documents, cadences, lots, self.device().now())?);
        if self.inner.board.set(board.clone()).is_err() {
            return Err(DeviceError::Internal("chores are being done already".to_owned()));
        }
        for chore in how.cadences.keys().copied() {
            let (daemon, how, board) = (self.clone(), how.clone(), board.clone());
            self.inner.tracker.spawn(async move {
                tokio::select! {
                    () = daemon.inner.end.cancelled() => board.give_up(chore).await,
                    () = daemon.keep_doing(chore, &how, &board) => {}
                }
            });
        }
        Ok(())
    }

    async fn keep_doing(&self, chore: Chore, how: &Chores, board: &Board) {
        loop {
            let wanted = board.wanted.notified();
            tokio::pin!(wanted);
            // Listens before looking, so that nothing is missed.
            wanted.as_mut().enable();
            let now = self.device().now();
            let Some(due) = board.due(chore, now) else { return };
            if now < due {
                let pause = Duration::from_secs(due.0 - now.0).min(how.look_every);
                tokio::select! {
                    () = wanted => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            board.begin(chore, now).await;
            let outcome = Box::pin(self.chore(chore, how, board)).await;
            match outcome.went {
                Went::Done => tracing::debug!(chore = chore.name(), said = %outcome.said, "done"),
                Went::Incomplete => tracing::info!(chore = chore.name(), said = %outcome.said, "not done yet"),
                Went::Failed => tracing::warn!(chore = chore.name(), said = %outcome.said, "failed"),
            }
            board.end(chore, outcome, self.device().now()).await;
        }
    }

    /// Something has changed that a chore is about: it is done at once.
    pub(super) fn want(&self, chore: Chore) {
        if let Some(board) = self.inner.board.get() {
            board.want(chore);
        }
    }

    pub(super) fn chores(&self) -> Vec<ChoreEntry> {
        self.inner.board.get().map(|board| board.entries(self.device().now())).unwrap_or_default()
    }
}
