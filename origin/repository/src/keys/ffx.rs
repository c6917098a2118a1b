//! Key files of the real tools (reference "Fuchsia formats" §5, "Key file"): JSON, never encrypted.

use std::path::Path;

use colibri_common::{hex, unhex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::local::LocalKey;
use super::{Secret, Signer as _};
use crate::limits;

const SEED_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct KeyFile {
    encrypted: bool,
    data: Value,
}

#[derive(Serialize, Deserialize)]
struct KeyEntry {
    keytype: String,
    scheme: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid_hash_algorithms: Option<Vec<String>>,
    keyval: KeyValues,
}

#[derive(Serialize, Deserialize)]
struct KeyValues {
    public: String,
    private: Zeroizing<String>,
}

/// The keys of one file's text.
pub(super) fn read(text: &Secret, origin: &str) -> Result<Vec<LocalKey>, &'static str> {
    // The parser's own message could quote the file: it stays out of the error.
    let file: KeyFile = serde_json::from_str(text.expose()).map_err(|_| "it is not of the known form")?;
    if file.encrypted {
        return Err("it is encrypted in a way that is not supported: decrypt it first");
    }
    let entries: Vec<KeyEntry> =
        serde_json::from_value(file.data).map_err(|_| "its data is not a list of ed25519 keys")?;
    if entries.len() as u64 > limits::KEYS_PER_FILE_MAX {
        return Err("it has too many keys");
    }
    entries.into_iter().map(|entry| read_entry(entry, origin)).collect()
}

fn read_entry(entry: KeyEntry, origin: &str) -> Result<LocalKey, &'static str> {
    if entry.keytype != "ed25519" || entry.scheme != "ed25519" {
        return Err("it holds a key that is not ed25519");
    }
    let private = Zeroizing::new(unhex(&entry.keyval.private).unwrap_or_default());
    // The private value is seed and public key, one after the other.
    if private.len() != 2 * SEED_BYTES {
        return Err("its private value is not 128 lower-case hex digits");
    }
    let key = LocalKey::from_seed(&private[..SEED_BYTES], entry.keyid_hash_algorithms, origin);
    let key = key.ok_or("its private value is not a key")?;
    if key.key().public().to_string() != entry.keyval.public || entry.keyval.public != hex(&private[SEED_BYTES..]) {
        return Err("its public and private values do not belong together");
    }
    Ok(key)
}

/// The file of one new key.
pub(super) fn write(seed: &[u8], path: &Path) -> Result<Secret, &'static str> {
    let key = LocalKey::from_seed(seed, None, &path.display().to_string()).ok_or("the seed was refused")?;
    let public = key.key().public().to_string();
    let private = Zeroizing::new(format!("{}{public}", *Zeroizing::new(hex(seed))));
    let keyval = KeyValues { public, private };
    let entry = KeyEntry { keytype: "ed25519".into(), scheme: "ed25519".into(), keyid_hash_algorithms: None, keyval };
    let data = serde_json::to_value([entry]).map_err(|_| "it cannot be written as JSON")?;
    let text = serde_json::to_string(&KeyFile { encrypted: false, data });
    Ok(Secret::new(text.map_err(|_| "it cannot be written as JSON")?))
}
