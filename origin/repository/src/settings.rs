//! `settings.json` in a repository's folder: how long what is signed here lives. Not served.

use colibri_store::DocumentName;
use serde::{Deserialize, Serialize};

use crate::error::RepositoryError;
use crate::layout;
use crate::roles::Expiries;
use crate::storage::Storage;

/// The form that this version writes.
const FORMAT: u32 = 1;
/// Longest file.
const BYTES_MAX: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Settings {
    format: u32,
    expiries: Expiries,
}

/// Only the number: what else there is may be of a later version.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The lives that were chosen for this repository; the defaults if nothing was.
pub(crate) fn read(storage: &dyn Storage) -> Result<Expiries, RepositoryError> {
    let name = DocumentName::new(layout::SETTINGS)?;
    let Some(bytes) = storage.read(&name, BYTES_MAX)? else { return Ok(Expiries::default()) };
    let bad = |reason: String| RepositoryError::Damaged { path: storage.place().join(name.as_str()), reason };
    let Format { format } = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    if format != FORMAT {
        return Err(bad(format!("it has format {format}; this program knows {FORMAT}: use a newer one")));
    }
    let settings: Settings = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    Ok(settings.expiries)
}

/// Keeps the lives, unless they are the defaults and nothing else was kept before.
pub(crate) fn write(storage: &dyn Storage, expiries: Expiries) -> Result<(), RepositoryError> {
    let name = DocumentName::new(layout::SETTINGS)?;
    if expiries == Expiries::default() && storage.length(&name)?.is_none() {
        return Ok(());
    }
    let text = serde_json::to_vec(&Settings { format: FORMAT, expiries });
    let text = text.map_err(|e| RepositoryError::OutOfRange(format!("settings cannot be written: {e}")))?;
    Ok(storage.replace(&name, &text.into())?)
}
