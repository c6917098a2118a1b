//! The checks of the TUF specification §5 as pure functions: each names its section.

use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::envelope::{Envelope, Keyring, Signatures};
use crate::error::Rule;
use crate::key::PublicKey;
use crate::limits::Caps;
use crate::online::{Snapshot, Timestamp};
use crate::role::{Document, FileMeta, Role};
use crate::root::Root;

/// Refuses a file beyond its cap before anything reads it (§5.3.3, §5.4.1, §5.5.1, §5.6.1).
pub(crate) fn size(bytes: &[u8], bytes_max: u64) -> Result<(), Rule> {
    let length = bytes.len() as u64;
    if length > bytes_max { Err(Rule::TooLarge { bytes: length, bytes_max }) } else { Ok(()) }
}

/// Length and hashes against the role above, as far as it gives them (§5.5.2, §5.6.2).
pub(crate) fn against_parent(bytes: &[u8], meta: &FileMeta, parent: Role) -> Result<(), Rule> {
    let length = bytes.len() as u64;
    if let Some(expected) = meta.length
        && expected != length
    {
        return Err(Rule::Length { bytes: length, expected, parent });
    }
    match &meta.hashes {
        Some(hashes) => hashes.check(bytes).map_err(|algorithm| Rule::Hash { algorithm, parent }),
        None => Ok(()),
    }
}

/// Refuses at once what the role above says is longer than the cap.
pub(crate) fn within_cap(meta: &FileMeta, role: Role, caps: &Caps) -> Result<(), Rule> {
    match meta.length {
        Some(bytes) if bytes > caps.of(role) => {
            Err(Rule::NamesTooLarge { named: role, bytes, bytes_max: caps.of(role) })
        }
        _ => Ok(()),
    }
}

/// A file of a role other than root, signed by the threshold of that role's keys in the role above (§5.4.2, §5.5.3,
/// §5.6.3).
pub(crate) fn signed<T: Document>(file: &Bytes, ring: Keyring<'_>, signers: &'static str) -> Result<Held<T>, Rule> {
    let envelope = Envelope::parse(file)?;
    envelope.signatures.check(file, ring, signers)?;
    Held::new(file, envelope)
}

/// Whose keys sign the roles below root.
pub(crate) const BY_ROOT: &str = "the trusted root's keys for this role";

/// A root that is signed by the threshold of its own root keys.
pub(crate) fn own_root(file: &Bytes) -> Result<Held<Root>, Rule> {
    let envelope = Envelope::<Root>::parse(file)?;
    let root = envelope.signed.as_ref().map_err(Rule::clone)?;
    envelope.signatures.check(file, root.keyring(Role::Root), "its own root keys")?;
    Held::new(file, envelope)
}

/// The first root under configured keys: signed by `threshold` of them and by itself, with exactly `version`.
pub(crate) fn anchored_root(
    file: &Bytes,
    keys: &[PublicKey],
    threshold: u32,
    version: u32,
) -> Result<Held<Root>, Rule> {
    let envelope = Envelope::<Root>::parse(file)?;
    let root = envelope.signed.as_ref().map_err(Rule::clone)?;
    envelope.signatures.check_trusted(file, root.keys(), keys, threshold)?;
    envelope.signatures.check(file, root.keyring(Role::Root), "its own root keys")?;
    expect_version(root.version(), version)?;
    Held::new(file, envelope)
}

/// The successor of `old`: signed by old keys and by new keys (§5.3.4), with version exactly one more (§5.3.5).
pub(crate) fn next_root(file: &Bytes, old: &Root) -> Result<Held<Root>, Rule> {
    let envelope = Envelope::<Root>::parse(file)?;
    envelope.signatures.check(file, old.keyring(Role::Root), "the trusted root's root keys")?;
    let new = envelope.signed.as_ref().map_err(Rule::clone)?;
    envelope.signatures.check(file, new.keyring(Role::Root), "the new root's own root keys")?;
    expect_version(new.version(), old.version().saturating_add(1))?;
    Held::new(file, envelope)
}

/// The version must be exactly the one asked for (§5.3.5, §5.5.4, §5.6.4).
pub(crate) fn expect_version(version: u32, expected: u32) -> Result<(), Rule> {
    if version == expected { Ok(()) } else { Err(Rule::Version { version, expected }) }
}

/// Freeze attacks: the expiry must lie after the start of the update (§5.3.10, §5.4.4, §5.5.6, §5.6.5).
pub(crate) fn fresh(expires: UnixSeconds, now: UnixSeconds) -> Result<(), Rule> {
    if expires > now { Ok(()) } else { Err(Rule::Expired { expires, now }) }
}

fn not_older(subject: &str, version: u32, trusted: u32) -> Result<(), Rule> {
    if version < trusted { Err(Rule::Rollback { subject: subject.to_owned(), version, trusted }) } else { Ok(()) }
}

/// Rollback of the timestamp (§5.4.3.1) and of the snapshot that it names (§5.4.3.2).
pub(crate) fn timestamp_not_older(new: &Timestamp, trusted: &Timestamp) -> Result<(), Rule> {
    not_older(Role::Timestamp.file(), new.version(), trusted.version())?;
    not_older(Role::Snapshot.file(), new.snapshot().version, trusted.snapshot().version)
}

/// The timestamp must not name a snapshot older than the trusted one either.
pub(crate) fn snapshot_named_not_older(new: &Timestamp, trusted: &Snapshot) -> Result<(), Rule> {
    not_older(Role::Snapshot.file(), new.snapshot().version, trusted.version())
}

/// Rollback of any targets file, and a targets file that is no longer listed (§5.5.5).
pub(crate) fn snapshot_not_older(new: &Snapshot, trusted: &Snapshot) -> Result<(), Rule> {
    for (name, old) in trusted.meta() {
        let Some(meta) = new.meta().get(name) else { return Err(Rule::Disappeared(name.clone())) };
        not_older(name, meta.version, old.version)?;
    }
    Ok(())
}

/// Whether a key of timestamp or snapshot was taken away between two roots: then what they signed no longer sets a floor,
/// so that a repository recovers from a fast-forward attack (§5.3.11). Added keys revoke nothing and keep the floor.
pub(crate) fn online_keys_revoked(old: &Root, new: &Root) -> bool {
    [Role::Timestamp, Role::Snapshot].into_iter().any(|role| {
        let kept: Vec<PublicKey> = new.public_keys(role).collect();
        old.public_keys(role).any(|key| !kept.contains(&key))
    })
}

/// A file that was believed, with its exact bytes.
#[derive(Debug)]
pub(crate) struct Held<T> {
    pub bytes: Bytes,
    pub role: Arc<T>,
    signatures: Arc<Signatures>,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), role: self.role.clone(), signatures: self.signatures.clone() }
    }
}

impl<T: Document> Held<T> {
    fn new(file: &Bytes, envelope: Envelope<T>) -> Result<Self, Rule> {
        let (role, signatures) = (Arc::new(envelope.signed?), Arc::new(envelope.signatures));
        Ok(Self { bytes: file.clone(), role, signatures })
    }

    /// Whether enough of these keys signed it.
    pub fn is_signed_by(&self, ring: Keyring<'_>) -> bool {
        self.signatures.check(&self.bytes, ring, BY_ROOT).is_ok()
    }

    /// Whether it is what the role above names, and still fresh: then it need not be fetched again.
    pub fn serves_as(&self, meta: &FileMeta, parent: Role, now: UnixSeconds) -> bool {
        self.role.version() == meta.version
            && fresh(self.role.expires(), now).is_ok()
            && against_parent(&self.bytes, meta, parent).is_ok()
    }
}
