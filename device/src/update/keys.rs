//! Who may sign manifests of updates: `config/update-keys.json`, which a device is shipped with.
//!
//! A file that cannot be used is an error and not an empty list: somebody wanted to say who is trusted. Deliberately absent:
//! changing the keys, which is what an update of the system does.

use std::path::Path;
use std::sync::Arc;

use colibri_metadata::PublicKey;
use colibri_store::{Disk, DocumentName, Documents};
use serde::Deserialize;

use super::UpdateError;
use crate::limits::{UPDATE_KEYS_BYTES_MAX, UPDATE_KEYS_MAX};

/// Name of the file.
const FILE: &str = "update-keys.json";

const FORMAT: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u64,
    /// In hex.
    ed25519: Vec<String>,
}

/// Reads the keys in the folder that a device was shipped with; none if there is no file.
///
/// # Errors
/// [`UpdateError::Keys`] says what is wrong with the file.
pub fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Vec<PublicKey>, UpdateError> {
    if disk.list_dir(dir).is_err() {
        return Ok(Vec::new());
    }
    let name: DocumentName = FILE.parse().expect("a plain name");
    let Some(json) = Documents::open(disk.clone(), dir)?.get(&name, UPDATE_KEYS_BYTES_MAX)? else {
        return Ok(Vec::new());
    };
    parse(&json).map_err(|reason| UpdateError::Keys { from: dir.join(FILE).display().to_string(), reason })
}

fn parse(json: &[u8]) -> Result<Vec<PublicKey>, String> {
    let File { format, ed25519 } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!("format {format} is not known here"));
    }
    if ed25519.len() > UPDATE_KEYS_MAX {
        return Err(format!("more than {UPDATE_KEYS_MAX} keys"));
    }
    ed25519.iter().map(|key| key.parse().map_err(|error| format!("{key:?}: {error}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_trusts_nobody_and_says_so() {
        let key = "11".repeat(32);
        let good = format!(r#"{{"format":1,"ed25519":["{key}"]}}"#);
        assert_eq!(parse(good.as_bytes()).unwrap().len(), 1);
        let many = format!(r#"{{"format":1,"ed25519":[{}]}}"#, vec![format!("{key:?}"); UPDATE_KEYS_MAX + 1].join(","));
        let bad =
            ["", "{}", &good.replace('1', "2"), &good.replace(&key, "11"), &good.replace("ed25519", "rsa"), &many];
        for bad in bad {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
