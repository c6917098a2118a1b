//! [`Record`]: what each slot holds, and every attempt at an update, in one document that is replaced as a whole.

use std::collections::BTreeMap;

use colibri_common::{BlobId, UnixSeconds};
use colibri_release::update_package::UpdateMode;
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use super::UpdateError;
use super::boot::{Slot, SlotHealth, System};
use crate::limits::{UPDATE_ATTEMPTS_MAX, UPDATE_RECORD_BYTES_MAX};

const FORMAT: u64 = 1;

/// What a device knows of its systems and updates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u64,
    #[serde(default)]
    a: Option<Installed>,
    #[serde(default)]
    b: Option<Installed>,
    /// Oldest first.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
}

/// The system in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// Its version, for people.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// The update package that it came with, or the id that its signed manifest has as a blob.
    pub update: BlobId,
    /// Its packages by package hash.
    pub packages: Vec<BlobId>,
    /// What its update package calls them: package hashes by unpinned URL with a variant. A signed manifest has no URLs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub urls: BTreeMap<String, BlobId>,
    /// Its blobs, if it came with a signed manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobId>,
}

/// What is known of a system before it is installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct News<'a> {
    /// Its version.
    pub version: &'a str,
    /// What becomes of it.
    pub mode: UpdateMode,
}

/// One attempt at an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// What was asked for.
    pub url: String,
    /// The slot that it writes.
    pub slot: Slot,
    /// It writes recovery and starts that, instead of the slot.
    #[serde(default)]
    pub recovery: bool,
    /// Version before; empty if unknown.
    pub from_version: String,
    /// Version after; empty until it is known.
    pub to_version: String,
    /// How far it is, or how it ended.
    pub state: AttemptState,
    /// When it began.
    pub started: UnixSeconds,
    /// When its state was last changed.
    pub changed: UnixSeconds,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Under way.
    Running(Phase),
    /// Installed: the new system starts next.
    WaitToReboot,
    /// The new system runs and is not committed yet.
    Rebooted,
    /// The new system was committed.
    Complete,
    /// The new system was started and given up: the old one runs.
    FellBack,
    /// Not installed.
    Failed {
        /// In which phase.
        phase: Phase,
        /// Why.
        reason: String,
    },
}

/// The steps of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Fetch the update package, decide whether to take it.
    Prepare,
    /// Write images.
    Stage,
    /// Fetch packages.
    Fetch,
    /// Make the new system the next to start.
    Commit,
}

impl Phase {
    /// Its name in a sentence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Stage => "stage",
            Self::Fetch => "fetch",
            Self::Commit => "commit",
        }
    }
}

fn document_name() -> DocumentName {
    DocumentName::new("update.json").expect("a plain name")
}

impl Record {
    pub fn load(documents: &Documents) -> Result<Self, UpdateError> {
        let Some(json) = documents.get(&document_name(), UPDATE_RECORD_BYTES_MAX)? else {
            return Ok(Self { format: FORMAT, a: None, b: None, attempts: Vec::new() });
        };
        let damaged = |reason: String| UpdateError::Damaged { what: "systems and updates (update.json)", reason };
        let record: Self = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        if record.format != FORMAT {
            return Err(damaged(format!("format {} is not known here", record.format)));
        }
        Ok(record)
    }

    pub fn save(&self, documents: &Documents) -> Result<(), UpdateError> {
        let json = serde_json::to_vec(self).map_err(|error| UpdateError::Internal(error.to_string()))?;
        Ok(documents.put(&document_name(), &json)?)
    }

    pub const fn system(&self, slot: Slot) -> Option<&Installed> {
        match slot {
            Slot::A => self.a.as_ref(),
            Slot::B => self.b.as_ref(),
        }
    }

    /// What lies in a slot; nothing while it is being written.
    pub fn set_system(&mut self, slot: Slot, system: Option<Installed>) {
        match slot {
            Slot::A => self.a = system,
            Slot::B => self.b = system,
        }
    }

    pub fn begin(&mut self, url: String, slot: Slot, now: UnixSeconds) {
        self.set_system(slot, None);
        let from_version = self.system(slot.other()).map(|system| system.version.clone()).unwrap_or_default();
        if self.attempts.len() >= UPDATE_ATTEMPTS_MAX {
            self.attempts.drain(..=self.attempts.len() - UPDATE_ATTEMPTS_MAX);
        }
        let state = AttemptState::Running(Phase::Prepare);
        let to_version = String::new();
        let recovery = false;
        self.attempts.push(Attempt {
            url,
            slot,
            recovery,
            from_version,
            to_version,
            state,
            started: now,
            changed: now,
        });
    }

    /// `news` is what is installed, once that is known.
    pub fn enter(&mut self, phase: Phase, news: Option<News<'_>>, now: UnixSeconds) {
        self.set_state(AttemptState::Running(phase), now);
        if let (Some(attempt), Some(news)) = (self.attempts.last_mut(), news) {
            news.version.clone_into(&mut attempt.to_version);
            attempt.recovery = news.mode == UpdateMode::ForceRecovery;
        }
    }

    pub fn failed(&mut self, reason: String, now: UnixSeconds) {
        let Some(AttemptState::Running(phase)) = self.attempts.last().map(|attempt| &attempt.state) else { return };
        let phase = *phase;
        self.set_state(AttemptState::Failed { phase, reason }, now);
    }

    pub fn set_state(&mut self, state: AttemptState, now: UnixSeconds) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.state = state;
            attempt.changed = now;
        }
    }

    /// The system of `slot` was found healthy.
    pub fn committed(&mut self, slot: Slot, now: UnixSeconds) {
        let waits = |attempt: &Attempt| attempt.slot == slot && attempt.state == AttemptState::Rebooted;
        if self.attempts.last().is_some_and(waits) {
            self.set_state(AttemptState::Complete, now);
        }
    }

    /// What became of the last attempt while nobody looked; true if that changed the record.
    pub fn take_up(
        &mut self,
        running: System,
        next: System,
        health: impl Fn(Slot) -> Result<SlotHealth, UpdateError>,
        now: UnixSeconds,
    ) -> Result<bool, UpdateError> {
        let Some(attempt) = self.attempts.last() else { return Ok(false) };
        let slot = attempt.slot;
        let goal = if attempt.recovery { System::Recovery } else { slot.into() };
        let state = match &attempt.state {
            // Recovery is not committed: that it runs is all there is.
            AttemptState::Running(Phase::Commit) | AttemptState::WaitToReboot
                if attempt.recovery && running == System::Recovery =>
            {
                AttemptState::Complete
            }
            AttemptState::Running(_) | AttemptState::WaitToReboot if running == slot.into() => AttemptState::Rebooted,
            // Made the next to start, and stopped before that was written here.
            AttemptState::Running(Phase::Commit) if next == goal => AttemptState::WaitToReboot,
            AttemptState::Running(phase) => {
                let reason = format!("the device stopped in phase {}", phase.name());
                AttemptState::Failed { phase: *phase, reason }
            }
            AttemptState::WaitToReboot | AttemptState::Rebooted if running != goal && next != goal => {
                AttemptState::FellBack
            }
            AttemptState::Rebooted if health(slot)? == SlotHealth::Healthy => AttemptState::Complete,
            _ => return Ok(false),
        };
        self.set_state(state, now);
        Ok(true)
    }
}
