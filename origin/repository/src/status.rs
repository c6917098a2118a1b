//! What a repository's owner wants to know about signing: versions, lives, thresholds, and which keys are here.

use colibri_common::UnixSeconds;
use colibri_metadata::{KeyId, Role, RoleKeys};

use crate::error::RepositoryError;
use crate::keys::KeyRole;
use crate::refresh::{Due, expires};
use crate::repository::Repository;

/// A role and its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleStatus {
    /// The role.
    pub role: KeyRole,
    /// Version that is committed.
    pub version: u32,
    /// When it expires; of targets in hash bins, the first file.
    pub expires: UnixSeconds,
    /// When it is to be signed again.
    pub due: UnixSeconds,
    /// How many keys must sign.
    pub threshold: u32,
    /// The keys that the root names.
    pub keys: Vec<KeyStatus>,
    /// Whether enough of them are here.
    pub can_sign: bool,
}

/// A key that the root names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyStatus {
    /// Its id.
    pub id: KeyId,
    /// Where its private key is, if it is here: a path, a variable, a command.
    pub here: Option<String>,
}

impl Repository {
    /// The roles, their lives and their keys, root first. No passphrase is asked for if the key files tell their public keys.
    ///
    /// # Errors
    /// The metadata on disk is damaged, or a key file is.
    pub fn status(&self) -> Result<Vec<RoleStatus>, RepositoryError> {
        let committed = self.metadata.committed()?;
        let due = self.refresh_due()?;
        let mut status = Vec::new();
        for role in [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp] {
            let (Some(version), Some(expires)) = (committed.version(role), expires(&committed, role)) else { continue };
            let wanted = committed.root().role_keys(role);
            status.push(self.role_status(role.into(), version, expires, wanted, &due)?);
        }
        if let Some((wanted, rollout)) = self.rollout_in(&committed)? {
            status.push(self.role_status(KeyRole::Rollout, rollout.version(), rollout.expires(), &wanted, &due)?);
        }
        Ok(status)
    }

    fn role_status(
        &self,
        role: KeyRole,
        version: u32,
        expires: UnixSeconds,
        wanted: &RoleKeys,
        due: &[Due],
    ) -> Result<RoleStatus, RepositoryError> {
        let here = self.keys.matching(role, wanted)?;
        let key = |id: &KeyId| {
            let signer = here.iter().find(|signer| signer.key().id() == id);
            KeyStatus { id: id.clone(), here: signer.map(|signer| signer.origin()) }
        };
        let found = due.iter().find(|due| due.role == role);
        let (expires, due) = found.map_or((expires, expires), |due| (due.expires, due.at));
        let can_sign = here.len() >= wanted.threshold as usize;
        let keys = wanted.key_ids.iter().map(key).collect();
        Ok(RoleStatus { role, version, expires, due, threshold: wanted.threshold, keys, can_sign })
    }
}
