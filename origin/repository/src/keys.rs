//! Private keys: where they come from ([`KeyRing`]) and what signs ([`Signer`]).
//!
//! A key is a file (PKCS#8, or the form of the real tools), the value of an environment variable, or a command that signs
//! (KMS, HSM, PKCS#11). What signs knows its public key before any secret is touched, so that looking asks for no passphrase.
//! A private key or passphrase is never shown, logged or put into an error. Deliberately absent: what is signed (`roles`).

mod command;
mod ffx;
mod listed;
mod local;
mod pkcs8_file;
mod ring;
mod secret;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use colibri_metadata::Role;

use crate::error::RepositoryError;

pub use listed::ListedKey;
pub use pkcs8_file::generate_key_file;
pub use ring::{KeyForm, KeySources};
pub(crate) use ring::{KeyRing, key_files};
pub use secret::{AskPassphrase, Passphrase, Secret};

/// Whose keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRole {
    /// Names the keys of all roles.
    Root,
    /// Names the targets.
    Targets,
    /// Names the versions of all targets files.
    Snapshot,
    /// Names the newest snapshot.
    Timestamp,
    /// The delegated role that chooses among what targets lists.
    Rollout,
}

impl KeyRole {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp, Self::Rollout];

    /// Its name in metadata and in file names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Rollout => "rollout",
        }
    }

    /// The role whose keys the root names; none for delegated roles.
    pub const fn top_level(self) -> Option<Role> {
        match self {
            Self::Root => Some(Role::Root),
            Self::Targets => Some(Role::Targets),
            Self::Snapshot => Some(Role::Snapshot),
            Self::Timestamp => Some(Role::Timestamp),
            Self::Rollout => None,
        }
    }
}

impl From<Role> for KeyRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Root => Self::Root,
            Role::Targets => Self::Targets,
            Role::Snapshot => Self::Snapshot,
            Role::Timestamp => Self::Timestamp,
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role with keys: root, targets, snapshot, timestamp, rollout")]
pub struct UnknownRole(String);

impl FromStr for KeyRole {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

/// One private key, wherever it is.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public key, as metadata lists it.
    fn key(&self) -> &ListedKey;

    /// Where the private key is, for people: a path, a variable's name, a command. Never the key.
    fn origin(&self) -> String;

    /// The signature of `message`, as metadata carries it before hex.
    ///
    /// # Errors
    /// The key cannot be had now: a passphrase is missing or wrong, a command failed.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RepositoryError>;
}

/// Signs, and checks the signature before anybody relies on it: a command, or faulty hardware, may answer anything.
pub(crate) fn sign_checked(signer: &Arc<dyn Signer>, message: &[u8]) -> Result<Vec<u8>, RepositoryError> {
    let signature = signer.sign(message)?;
    if !signer.key().public().verifies(message, &signature) {
        return Err(RepositoryError::Signer {
            origin: signer.origin(),
            reason: format!("what it answered is no signature of key {}", signer.key().id()),
        });
    }
    Ok(signature)
}
