//! Which of the two systems of a device starts next: [`BootControl`], and [`FileBoot`], which keeps that in one document.
//!
//! A machine whose boot loader counts attempts itself implements [`BootControl`] over it. Elsewhere `FileBoot` is the loader's
//! stand-in: it decides at the first start after a boot of the machine. One document is replaced as a whole, so that after
//! power loss a device starts the old system or the new one. Deliberately absent: images (`images`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use super::UpdateError;

/// Starts of a new system before the old one is taken again.
pub const TRIES: u8 = 3;

/// Longest document that is read, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 4096;

/// One of the two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The one that an update of this one writes.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// What starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Slot A.
    A,
    /// Slot B.
    B,
    /// Recovery.
    Recovery,
}

impl System {
    /// The slot; none for recovery.
    pub const fn slot(self) -> Option<Slot> {
        match self {
            Self::A => Some(Slot::A),
            Self::B => Some(Slot::B),
            Self::Recovery => None,
        }
    }
}

impl System {
    /// `a`, `b` or `recovery`.
    pub const fn name(self) -> &'static str {
        match self.slot() {
            Some(slot) => slot.name(),
            None => "recovery",
        }
    }
}

impl From<Slot> for System {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::A => Self::A,
            Slot::B => Self::B,
        }
    }
}

/// What is known of a slot's system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotHealth {
    /// It ran, and was found healthy.
    Healthy,
    /// New: it may be started so many times more before it is given up.
    Trying(u8),
    /// Being written, or given up.
    Unbootable,
}

/// What a device's boot loader knows. Every change is durable when a call returns.
pub trait BootControl: Send + Sync {
    /// What runs now.
    fn running(&self) -> Result<System, UpdateError>;
    /// What starts next.
    fn next(&self) -> Result<System, UpdateError>;
    /// What is known of a slot.
    fn health(&self, slot: Slot) -> Result<SlotHealth, UpdateError>;
    /// A slot must not be started: it is about to be written.
    fn set_unbootable(&self, slot: Slot) -> Result<(), UpdateError>;
    /// Starts a new system next, [`TRIES`] times at most until it is found healthy.
    fn activate(&self, slot: Slot) -> Result<(), UpdateError>;
    /// Starts recovery next.
    fn activate_recovery(&self) -> Result<(), UpdateError>;
    /// What runs is healthy: it starts from now on, and the other slot may be written.
    fn set_healthy(&self, slot: Slot) -> Result<(), UpdateError>;
}

/// [`BootControl`] in a document of its own.
#[derive(Debug)]
pub struct FileBoot {
    documents: Documents,
    state: Mutex<BootState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BootState {
    format: u64,
    /// The machine's own name for the time since it was switched on.
    boot_id: String,
    running: System,
    next: System,
    a: SlotHealth,
    b: SlotHealth,
}

const FORMAT: u64 = 1;

impl BootState {
    /// A device as it leaves the factory: slot A runs.
    fn first(boot_id: &str) -> Self {
        Self {
            format: FORMAT,
            boot_id: boot_id.to_owned(),
            running: System::A,
            next: System::A,
            a: SlotHealth::Healthy,
            b: SlotHealth::Unbootable,
        }
    }

    const fn health(&self, slot: Slot) -> SlotHealth {
        match slot {
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    const fn set_health(&mut self, slot: Slot, health: SlotHealth) {
        match slot {
            Slot::A => self.a = health,
            Slot::B => self.b = health,
        }
    }

    /// What a boot loader does: counts, and falls back.
    fn boot(&mut self, boot_id: &str) {
        boot_id.clone_into(&mut self.boot_id);
        self.running = match self.next.slot() {
            None => System::Recovery,
            Some(wanted) => [wanted, wanted.other()]
                .into_iter()
                .find(|slot| self.try_slot(*slot))
                .map_or(System::Recovery, System::from),
        };
        self.next = self.running;
    }

    fn try_slot(&mut self, slot: Slot) -> bool {
        match self.health(slot) {
            SlotHealth::Healthy => true,
            SlotHealth::Trying(left) if left > 0 => {
                self.set_health(slot, SlotHealth::Trying(left - 1));
                true
            }
            SlotHealth::Trying(_) => {
                self.set_health(slot, SlotHealth::Unbootable);
                false
            }
            SlotHealth::Unbootable => false,
        }
    }
}

impl FileBoot {
    /// Reads the document. If `boot_id` is not the one of the last call, the machine was started anew, and what runs now is
    /// decided here.
    ///
    /// # Errors
    /// The document cannot be read, is damaged, or was written by a newer program.
    pub fn open(documents: Documents, boot_id: &str) -> Result<Self, UpdateError> {
        let read = documents.get(&document_name(), DOCUMENT_BYTES_MAX)?;
        let mut state = match &read {
            None => BootState::first(boot_id),
            Some(json) => parse(json)?,
        };
        if read.is_none() || state.boot_id != boot_id {
            if read.is_some() {
                state.boot(boot_id);
            }
            save(&documents, &state)?;
        }
        Ok(Self { documents, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, BootState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut BootState)) -> Result<(), UpdateError> {
        let mut state = self.state();
        let mut changed = state.clone();
        change(&mut changed);
        if changed != *state {
            save(&self.documents, &changed)?;
            *state = changed;
        }
        Ok(())
    }
}

fn document_name() -> DocumentName {
    DocumentName::new("boot.json").expect("a plain name")
}

fn parse(json: &[u8]) -> Result<BootState, UpdateError> {
    let damaged = |reason: String| UpdateError::Damaged { what: "which system starts (boot.json)", reason };
    let state: BootState = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
    if state.format != FORMAT {
        return Err(damaged(format!("format {} is not known here", state.format)));
    }
    Ok(state)
}

fn save(documents: &Documents, state: &BootState) -> Result<(), UpdateError> {
    let json = serde_json::to_vec(state).map_err(|error| UpdateError::Internal(error.to_string()))?;
    Ok(documents.put(&document_name(), &json)?)
}

impl BootControl for FileBoot {
    fn running(&self) -> Result<System, UpdateError> {
        Ok(self.state().running)
    }

    fn next(&self) -> Result<System, UpdateError> {
        Ok(self.state().next)
    }

    fn health(&self, slot: Slot) -> Result<SlotHealth, UpdateError> {
        Ok(self.state().health(slot))
    }

    fn set_unbootable(&self, slot: Slot) -> Result<(), UpdateError> {
        self.change(|state| {
            state.set_health(slot, SlotHealth::Unbootable);
            if state.next == slot.into() {
                state.next = state.running;
            }
        })
    }

    fn activate(&self, slot: Slot) -> Result<(), UpdateError> {
        self.change(|state| {
            state.set_health(slot, SlotHealth::Trying(TRIES));
            state.next = slot.into();
        })
    }

    fn activate_recovery(&self) -> Result<(), UpdateError> {
        self.change(|state| state.next = System::Recovery)
    }

    fn set_healthy(&self, slot: Slot) -> Result<(), UpdateError> {
        self.change(|state| state.set_health(slot, SlotHealth::Healthy))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use colibri_store::testing::CrashDisk;

    use super::*;

    fn open(disk: &CrashDisk, boot_id: &str) -> FileBoot {
        let documents = Documents::open(Arc::new(disk.clone()), "/state".as_ref()).unwrap();
        FileBoot::open(documents, boot_id).unwrap()
    }

    #[test]
    fn a_new_system_that_never_gets_healthy_is_given_up() {
        let disk = CrashDisk::new();
        let boot = open(&disk, "0");
        assert_eq!((boot.running().unwrap(), boot.health(Slot::A).unwrap()), (System::A, SlotHealth::Healthy));
        boot.set_unbootable(Slot::B).unwrap();
        boot.activate(Slot::B).unwrap();
        assert_eq!(open(&disk, "0").running().unwrap(), System::A, "not started anew yet");
        for start in 1..=TRIES {
            assert_eq!(open(&disk, &start.to_string()).running().unwrap(), System::B);
            assert_eq!(open(&disk, &start.to_string()).running().unwrap(), System::B, "the same start counts once");
        }
        let boot = open(&disk, "last");
        assert_eq!((boot.running().unwrap(), boot.next().unwrap()), (System::A, System::A));
        assert_eq!(boot.health(Slot::B).unwrap(), SlotHealth::Unbootable);
    }

    #[test]
    fn a_healthy_system_stays_and_recovery_is_the_last_resort() {
        let disk = CrashDisk::new();
        open(&disk, "0").activate(Slot::B).unwrap();
        open(&disk, "1").set_healthy(Slot::B).unwrap();
        for start in 2..9 {
            assert_eq!(open(&disk, &start.to_string()).running().unwrap(), System::B);
        }
        open(&disk, "8").set_unbootable(Slot::A).unwrap();
        open(&disk, "8").set_unbootable(Slot::B).unwrap();
        assert_eq!(open(&disk, "9").running().unwrap(), System::Recovery);
        let boot = open(&disk, "9");
        boot.activate(Slot::A).unwrap();
        assert_eq!(open(&disk, "10").running().unwrap(), System::A, "recovery may install a system");
        open(&disk, "10").activate_recovery().unwrap();
        assert_eq!(open(&disk, "11").running().unwrap(), System::Recovery);
    }

    #[test]
    fn a_damaged_document_is_said_not_guessed() {
        let disk = CrashDisk::new();
        let documents = Documents::open(Arc::new(disk.clone()), "/state".as_ref()).unwrap();
        for bad in ["", "{}", r#"{"format":2,"boot_id":"","running":"a","next":"a","a":"healthy","b":"unbootable"}"#] {
            documents.put(&document_name(), bad.as_bytes()).unwrap();
            assert!(matches!(FileBoot::open(documents.clone(), "0"), Err(UpdateError::Damaged { .. })), "{bad}");
        }
    }
}
