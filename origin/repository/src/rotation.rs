//! Which keys a role has: adding, revoking and replacing them, as a change of the next root.
//!
//! A new root is signed by the keys of the old one and by its own (TUF specification §5.3.4), so that devices follow it. When
//! a snapshot or timestamp key is gone, what it signed no longer counts for them (§5.3.11): that is how they recover from a
//! key that was stolen and made versions run ahead. Deliberately absent: private keys (`keys`), signing (`draft`).

use colibri_common::UnixSeconds;
use colibri_metadata::{KeyId, Role, RoleKeys, TrustedSet};
use serde_json::{Map, Value, json};

use crate::ceremony::Ceremony;
use crate::draft::{Change, RootChange, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::keys::{KeyForm, KeyRole, ListedKey};
use crate::offer::Offer;
use crate::repository::{Repository, Versions};
use crate::roles::SignedFile;

/// What the next root changes about the keys of roles.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    /// Keys that a role gets.
    pub add: Vec<(KeyRole, ListedKey)>,
    /// Keys that a role loses.
    pub revoke: Vec<(KeyRole, KeyId)>,
    /// How many keys must sign from now on.
    pub thresholds: Vec<(KeyRole, u32)>,
}

fn refused(reason: impl Into<String>) -> RepositoryError {
    RepositoryError::Ceremony(reason.into())
}

/// Key ids and threshold of `role` in the signed part of a root.
pub(crate) fn keys_of(root: &Value, role: KeyRole) -> Result<RoleKeys, RepositoryError> {
    let of = |entry: &Value| {
        let ids = entry.get("keyids")?.as_array()?.iter().map(|id| id.as_str()?.parse().ok());
        let threshold = u32::try_from(entry.get("threshold")?.as_u64()?).ok()?;
        Some(RoleKeys { key_ids: ids.collect::<Option<Vec<KeyId>>>()?, threshold })
    };
    let entry = root.get("roles").and_then(|roles| roles.get(role.name()));
    entry.and_then(of).ok_or_else(|| refused(format!("the root does not tell the keys of {role}")))
}

/// Applies a change to the signed part of a root. Keys that no role needs any more are no longer listed.
pub(crate) fn apply(mut root: Map<String, Value>, change: &KeyChange) -> Result<Map<String, Value>, RepositoryError> {
    let whole = Value::Object(root.clone());
    let mut roles = Map::new();
    let mut listed = match root.get("keys") {
        Some(Value::Object(listed)) => listed.clone(),
        _ => return Err(refused("the root lists no keys")),
    };
    for (role, key) in &change.add {
        if role.top_level().is_none() {
            return Err(refused(format!("the keys of {role} are named by targets, not by the root")));
        }
        listed.insert(key.id().as_str().to_owned(), key.to_json());
    }
    for role in Role::ALL.map(KeyRole::from) {
        let mut keys = keys_of(&whole, role)?;
        for (_, id) in change.revoke.iter().filter(|(of, _)| *of == role) {
            let before = keys.key_ids.len();
            keys.key_ids.retain(|known| known != id);
            if keys.key_ids.len() == before {
                return Err(refused(format!("{role} has no key {id} that could be revoked")));
            }
        }
        for (_, key) in change.add.iter().filter(|(of, _)| *of == role) {
            if keys.key_ids.contains(key.id()) {
                return Err(refused(format!("{role} has key {} already", key.id())));
            }
            keys.key_ids.push(key.id().clone());
        }
        if let Some((_, threshold)) = change.thresholds.iter().rfind(|(of, _)| *of == role) {
            keys.threshold = *threshold;
        }
        let (count, threshold) = (keys.key_ids.len(), keys.threshold);
        if threshold == 0 || count < threshold as usize {
            return Err(refused(format!(
                "{role} would have {count} keys and need {threshold} signatures: add a key first, or change the threshold"
            )));
        }
        keys.key_ids.sort();
        roles.insert(role.name().to_owned(), json!({"keyids": keys.key_ids, "threshold": threshold}));
    }
    let roles = Value::Object(roles);
    let mut used = Vec::new();
    for role in Role::ALL {
        used.extend(keys_of(&json!({"roles": roles}), role.into())?.key_ids);
    }
    listed.retain(|id, _| used.iter().any(|known| known.as_str() == id));
    root.insert("keys".into(), Value::Object(listed));
    root.insert("roles".into(), roles);
    Ok(root)
}

impl KeyChange {
    fn touches(&self, role: KeyRole) -> bool {
        self.add.iter().map(|(of, _)| *of).chain(self.revoke.iter().map(|(of, _)| *of)).any(|of| of == role)
            || self.thresholds.iter().any(|(of, _)| *of == role)
    }

    /// Whether it says anything.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.revoke.is_empty() && self.thresholds.is_empty()
    }
}

impl Repository {
    /// Changes the keys of top-level roles: signs the next root with old and new root keys, and signs again what the old keys
    /// had signed. Every private key that this takes must be here; else use [`Self::export_root`].
    ///
    /// # Errors
    /// A key is missing, or the change makes no sense.
    pub fn change_keys(&self, change: &KeyChange, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        let pass = Pass { now, because: None, past_gate: None, look_at_all: false };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let root = RootChange::Sign(apply(self.metadata.root_signed(&head.set)?, change)?);
            let mut change_of = Change { root, ..Change::default() };
            if change.touches(KeyRole::Targets) {
                change_of.targets = TargetsChange::Offer(Offer::again());
            }
            Ok(change_of)
        })
    }

    /// Replaces every key of `role` that is here by a new one, made in the folder of keys. Gives the new keys.
    ///
    /// # Errors
    /// As [`Self::change_keys`]; a key that was made stays in the folder and signs nothing.
    pub fn rotate_keys(
        &self,
        role: KeyRole,
        form: KeyForm,
        now: UnixSeconds,
    ) -> Result<Vec<ListedKey>, RepositoryError> {
        let change = self.prepare_rotation(role, form)?;
        self.change_keys(&change, now)?;
        Ok(change.add.into_iter().map(|(_, key)| key).collect())
    }

    /// Makes the new keys of a rotation without changing the repository; for [`Self::export_root`].
    ///
    /// # Errors
    /// No key of `role` is here, or a file cannot be written.
    pub fn prepare_rotation(&self, role: KeyRole, form: KeyForm) -> Result<KeyChange, RepositoryError> {
        let committed = self.metadata.committed()?;
        let top_level = role.top_level().ok_or_else(|| {
            refused("the keys of rollout are named by targets: `repo rollout enable` makes a new one")
        })?;
        let old = self.keys.matching(role, committed.root().role_keys(top_level))?;
        if old.is_empty() {
            return Err(refused(format!(
                "no private key of {role} is here, so none can be replaced by one made here: use `repo keys add` and \
                 `repo keys revoke`"
            )));
        }
        let mut change = KeyChange::default();
        for signer in old {
            change.revoke.push((role, signer.key().id().clone()));
            change.add.push((role, self.keys.generate(role, form)?));
        }
        Ok(change)
    }

    /// The next root, unsigned, for signers elsewhere: with a change of keys, or only signed again.
    ///
    /// # Errors
    /// The change makes no sense.
    pub fn export_root(&self, change: &KeyChange, now: UnixSeconds) -> Result<Ceremony, RepositoryError> {
        let committed = self.metadata.committed()?;
        let old = self.metadata.root_signed(&committed)?;
        let signed = apply(old.clone(), change)?;
        let version = self.metadata.next_root(&committed)?;
        let expires = self.expiries.at(KeyRole::Root, now);
        let signed = crate::roles::complete(KeyRole::Root, version, expires, signed)?;
        Ceremony::root(committed.root(), &Value::Object(old), signed)
    }

    /// Takes over a root signed elsewhere, and perhaps targets with it. What the old online keys had signed is signed again.
    ///
    /// # Errors
    /// Too few signatures of old or new keys, a version that does not follow, or an online key that is not here.
    pub fn import_root(
        &self,
        root: &Ceremony,
        targets: Option<&Ceremony>,
        now: UnixSeconds,
    ) -> Result<Versions, RepositoryError> {
        let pass = Pass { now, because: None, past_gate: None, look_at_all: false };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let root = root.root_that_follows(&head.set)?;
            let targets = self.targets_under(&root, targets, &head.set)?;
            Ok(Change { root: RootChange::Adopt(root), targets, ..Change::default() })
        })
    }

    /// Targets that a new root trusts: those given, or those of now, signed again if their keys changed.
    fn targets_under(
        &self,
        root: &SignedFile,
        targets: Option<&Ceremony>,
        committed: &TrustedSet,
    ) -> Result<TargetsChange, RepositoryError> {
        if let Some(targets) = targets {
            return Ok(TargetsChange::Adopt(self.adoptable_targets(targets, committed)?));
        }
        let new = TrustedSet::from_root_file(&root.bytes).map_err(|e| refused(e.to_string()))?;
        if new.root().role_keys(Role::Targets) == committed.root().role_keys(Role::Targets) {
            Ok(TargetsChange::Keep)
        } else if self.keys.can_sign(new.root(), Role::Targets)? {
            Ok(TargetsChange::Offer(Offer::again()))
        } else {
            Err(refused(
                "this root changes the keys of targets, which are not here: sign the targets again with the new keys \
                 (`repo targets export --root FILE`, `sign`) and import both with `repo root import --targets FILE`",
            ))
        }
    }
}
