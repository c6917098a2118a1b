//! [`TrustStore`]: the trusted metadata sets of a device or edge, one durable document per repository.
//!
//! All roles of a set are kept in *one* document, so that a crash leaves the old set or the new one, never a mixture, and
//! the versions in it remain a floor against rollback. What is read back is verified again before it is used.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_metadata::{Role, TrustedSet};
use colibri_store::{DocumentName, Documents};

use crate::error::FetchError;
use crate::limits::TRUSTED_SET_BYTES_MAX;

/// Trusted sets on disk, by repository host.
#[derive(Debug)]
pub struct TrustStore {
    documents: Documents,
}

impl TrustStore {
    /// Keeps sets in `documents`.
    pub const fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The set stored for `host`, re-verified; nothing if there is none.
    pub fn load(&self, host: &str) -> Result<Option<TrustedSet>, FetchError> {
        let local = |error: &dyn std::fmt::Display| FetchError::Local(format!("trusted metadata of {host}: {error}"));
        let Some(stored) = self.documents.get(&name(host)?, TRUSTED_SET_BYTES_MAX).map_err(|error| local(&error))?
        else {
            return Ok(None);
        };
        let texts: BTreeMap<String, String> = serde_json::from_slice(&stored).map_err(|error| local(&error))?;
        let files = texts.into_iter().map(|(role, text)| (role, Bytes::from(text)));
        TrustedSet::load(files).map(Some).map_err(|error| local(&error))
    }

    /// Stores a set for `host`, durably, in place of the one before. Delegated roles only if there is room for them.
    pub fn save(&self, host: &str, set: &TrustedSet) -> Result<(), FetchError> {
        let local = |error: &dyn std::fmt::Display| FetchError::Local(format!("trusted metadata of {host}: {error}"));
        let texts: Result<BTreeMap<Cow<'_, str>, &str>, _> =
            set.files().map(|(role, bytes)| Ok((role, std::str::from_utf8(bytes)?))).collect();
        let mut texts = texts.map_err(|error: std::str::Utf8Error| local(&error))?;
        let mut document = serde_json::to_vec(&texts).map_err(|error| local(&error))?;
        if document.len() as u64 > TRUSTED_SET_BYTES_MAX {
            // What is written can be read again. Delegated roles are fetched anew when they are searched; they are no floor.
            texts.retain(|name, _| Role::ALL.iter().any(|role| role.file() == name));
            document = serde_json::to_vec(&texts).map_err(|error| local(&error))?;
        }
        self.documents.put(&name(host)?, &document).map_err(|error| local(&error))
    }

    /// Forgets the set of `host`.
    pub fn remove(&self, host: &str) -> Result<(), FetchError> {
        let removed = self.documents.remove(&name(host)?);
        removed.map(drop).map_err(|error| FetchError::Local(format!("trusted metadata of {host}: {error}")))
    }
}

fn name(host: &str) -> Result<DocumentName, FetchError> {
    let name = format!("trusted/{host}.json").parse();
    name.map_err(|error| FetchError::Local(format!("trusted metadata of {host}: {error}")))
}
