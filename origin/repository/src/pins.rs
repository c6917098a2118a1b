//! Pins: durable, named reasons to keep blobs whatever is offered, each with an owner. `pins/NAME`, outside the served folder.
//!
//! A pinned package keeps everything it names. Deliberately absent: what is collected (`gc`).

use colibri_common::BlobId;
use serde::{Deserialize, Serialize};

use crate::blobs::Standing;
use crate::commit::FORMAT;
use crate::error::RepositoryError;
use crate::repository::Repository;
use crate::{layout, limits};

/// A reason to keep blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: String,
    /// Who wants it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When it was made, in seconds since 1970.
    pub added_s: u64,
    /// Blobs and packages, by hash.
    pub hashes: Vec<BlobId>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    pin: Pin,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Pin {
    fn check(&self) -> Result<(), RepositoryError> {
        let refuse = |reason| Err(RepositoryError::BadPin { name: self.name.chars().take(100).collect(), reason });
        let good = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if self.name.len() as u64 > limits::PIN_NAME_BYTES_MAX || !self.name.chars().all(good) {
            return refuse("a name has up to 100 letters, digits, `.`, `_` and `-`");
        }
        if !self.name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return refuse("a name begins with a letter or digit");
        }
        for text in [&self.owner, &self.reason] {
            if text.trim().is_empty()
                || text.len() as u64 > limits::REASON_BYTES_MAX
                || text.chars().any(char::is_control)
            {
                return refuse("owner and reason have 1 to 512 bytes without control characters");
            }
        }
        if self.hashes.is_empty() || self.hashes.len() as u64 > limits::PINNED_HASHES_MAX {
            return refuse("a pin has at least one hash and not too many");
        }
        Ok(())
    }
}

impl Repository {
    /// Adds a pin, durably; gives those of its hashes that are not here, proven, and so cannot be kept.
    ///
    /// # Errors
    /// There is one of that name, a field is not as it must be, or the disk refuses.
    pub fn add_pin(&self, pin: &Pin) -> Result<Vec<BlobId>, RepositoryError> {
        pin.check()?;
        let path = self.dir.join(layout::PINS).join(&pin.name);
        let stored = Stored { format: FORMAT, pin: pin.clone() };
        let text = serde_json::to_vec_pretty(&stored);
        let text = text.map_err(|e| RepositoryError::Damaged { path, reason: e.to_string() })?;
        {
            // A collection at work has read the pins already: after this it is over.
            let _lock = self.storage.lock()?;
            if !self.storage.create(&layout::pin(&pin.name)?, &text.into())? {
                return Err(RepositoryError::BadPin {
                    name: pin.name.clone(),
                    reason: "there is a pin of that name: remove it first",
                });
            }
        }
        self.blobs.receipts.read_new()?;
        let mut absent = Vec::new();
        for id in &pin.hashes {
            if self.blobs.any_standing(*id, colibri_common::UnixSeconds(pin.added_s))? != Standing::Proven {
                absent.push(*id);
            }
        }
        self.blobs.receipts.flush()?;
        Ok(absent)
    }

    /// Removes a pin, durably; false if there is none of that name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_pin(&self, name: &str) -> Result<bool, RepositoryError> {
        let name = layout::pin(name)?;
        let _lock = self.storage.lock()?;
        let there = self.storage.length(&name)?.is_some();
        self.storage.remove_all(&[name])?;
        Ok(there)
    }

    /// All pins, by name.
    ///
    /// # Errors
    /// One is damaged or of a newer version: then nothing is collected either.
    pub fn pins(&self) -> Result<Vec<Pin>, RepositoryError> {
        let mut pins = Vec::new();
        for name in self.storage.list(&format!("{}/", layout::PINS))? {
            let Some(text) = self.storage.read(&name, limits::PIN_BYTES_MAX)? else { continue };
            let path = self.dir.join(name.as_str());
            let damaged = |e: serde_json::Error| RepositoryError::Damaged {
                path: path.clone(),
                reason: format!("it is no pin: {e}"),
            };
            let head: Head = serde_json::from_slice(&text).map_err(damaged)?;
            if head.format > FORMAT {
                return Err(RepositoryError::TooNew { path, found: head.format, known: FORMAT });
            }
            pins.push(serde_json::from_slice::<Stored>(&text).map_err(damaged)?.pin);
        }
        Ok(pins)
    }
}
