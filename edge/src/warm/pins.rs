//! [`Pins`]: releases that an operator wants to stay here, kept on disk. A pinned release is warmed first, is kept longest,
//! and is never refused, whatever targets lists.

use std::sync::{Mutex, PoisonError};

use colibri_api::RepositoryName;
use colibri_common::BlobId;
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use crate::error::EdgeError;
use crate::limits::{PINNED_RELEASES_MAX, PINS_BYTES_MAX};

/// A pinned release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    /// What the operator called it.
    pub release: String,
    /// The package that carries it.
    pub hash: BlobId,
}

/// The pins of one repository.
#[derive(Debug)]
pub(crate) struct Pins {
    documents: Option<Documents>,
    name: DocumentName,
    pins: Mutex<Vec<Pin>>,
}

/// Why a pin cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error("pins are kept on disk, and this edge has no folder for them: set state_dir, or give it a disk tier")]
    NoDisk,
    #[error("at most {PINNED_RELEASES_MAX} releases can be pinned: unpin one first")]
    TooMany,
    #[error("no release `{0}` is pinned")]
    NotPinned(String),
    #[error("the pins cannot be written: {0}")]
    Write(String),
}

impl Pins {
    pub fn open(documents: Option<Documents>, repository: &RepositoryName) -> Result<Self, EdgeError> {
        let name = DocumentName::new(&format!("pins/{repository}.json")).map_err(EdgeError::State)?;
        let stored = match &documents {
            Some(documents) => documents.get(&name, PINS_BYTES_MAX).map_err(EdgeError::State)?,
            None => None,
        };
        let pins = stored.and_then(|stored| {
            let read = serde_json::from_slice(&stored);
            read.inspect_err(|error| tracing::warn!(%repository, %error, "the kept pins are left aside")).ok()
        });
        Ok(Self { documents, name, pins: Mutex::new(pins.unwrap_or_default()) })
    }

    pub fn list(&self) -> Vec<Pin> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pins a release, durably; one of the same name is replaced.
    pub fn pin(&self, pin: Pin) -> Result<(), PinError> {
        self.change(|pins| {
            pins.retain(|known| known.release != pin.release);
            if pins.len() == PINNED_RELEASES_MAX {
                return Err(PinError::TooMany);
            }
            pins.push(pin);
            Ok(())
        })
    }

    /// Takes a pin away, by the name that it was given or by its hash.
    pub fn unpin(&self, release: &str) -> Result<(), PinError> {
        self.change(|pins| {
            let before = pins.len();
            pins.retain(|pin| pin.release != release && pin.hash.to_string() != release);
            if pins.len() == before { Err(PinError::NotPinned(release.to_owned())) } else { Ok(()) }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Pin>) -> Result<(), PinError>) -> Result<(), PinError> {
        let documents = self.documents.as_ref().ok_or(PinError::NoDisk)?;
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = pins.clone();
        change(&mut changed)?;
        let text = serde_json::to_vec(&changed).map_err(|error| PinError::Write(error.to_string()))?;
        documents.put(&self.name, &text).map_err(|error| PinError::Write(error.to_string()))?;
        *pins = changed;
        Ok(())
    }
}
