//! [`Published`]: one whole verified set, as it is served.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{Digest, sha256};
use colibri_metadata::{Role, RoleName, TrustedSet};

/// A metadata file that was verified.
#[derive(Debug)]
pub(crate) struct File {
    pub bytes: Bytes,
    pub sha256: Digest,
}

impl File {
    pub fn new(bytes: Bytes) -> Self {
        let sha256 = sha256(&bytes);
        Self { bytes, sha256 }
    }
}

/// A whole set and its files, by unnumbered name.
#[derive(Debug)]
pub(crate) struct Published {
    set: TrustedSet,
    files: BTreeMap<String, Arc<File>>,
}

impl Published {
    /// A set to be served after `before`, with which it shares what has not changed.
    pub fn new(set: TrustedSet, before: Option<&Self>) -> Self {
        let shared = |name: &str, bytes: &Bytes| before?.files.get(name).filter(|file| file.bytes == *bytes).cloned();
        let file =
            |name: &str, bytes: &Bytes| shared(name, bytes).unwrap_or_else(|| Arc::new(File::new(bytes.clone())));
        let files = set.files().map(|(name, bytes)| (name.to_string(), file(&name, bytes))).collect();
        Self { set, files }
    }

    pub const fn set(&self) -> &TrustedSet {
        &self.set
    }

    /// SHA-256 of the snapshot: names the set, but for its timestamp.
    pub fn snapshot_hash(&self) -> Option<Digest> {
        self.file(Role::Snapshot.file()).map(|file| file.sha256)
    }

    /// A file of the set, by unnumbered name.
    pub fn file(&self, name: &str) -> Option<Arc<File>> {
        self.files.get(name).cloned()
    }

    pub fn version(&self, role: Role) -> Option<u32> {
        self.set.version(role)
    }

    /// The version of a delegated role that the snapshot lists.
    pub fn listed(&self, role: &RoleName) -> Option<u32> {
        self.set.snapshot()?.meta().get(&role.listed_as()).map(|meta| meta.version)
    }

    /// The file of a role of this version, if this set has it.
    pub fn numbered(&self, role: &str, version: u32) -> Option<Arc<File>> {
        let held = match Role::ALL.into_iter().find(|known| known.name() == role) {
            Some(role) => (self.version(role), role.file().to_owned()),
            None => {
                let name: RoleName = role.parse().ok()?;
                (self.listed(&name), name.file())
            }
        };
        (held.0 == Some(version)).then(|| self.file(&held.1)).flatten()
    }

    /// Whether the same files can be reached from both, but for the timestamp.
    pub fn reaches_the_same(&self, other: &Self) -> bool {
        self.snapshot_hash() == other.snapshot_hash()
    }

    /// Bytes of the files that `newer` does not share.
    pub fn bytes_beside(&self, newer: &Self) -> u64 {
        let shared = |name: &String, file: &Arc<File>| newer.files.get(name).is_some_and(|new| Arc::ptr_eq(new, file));
        let own = self.files.iter().filter(|(name, file)| !shared(name, file));
        own.map(|(_, file)| file.bytes.len() as u64).sum()
    }
}
