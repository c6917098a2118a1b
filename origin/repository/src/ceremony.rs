//! Signing on several machines: one JSON file goes from hand to hand and collects signatures.
//!
//! The file is TUF metadata, `{"signatures":[…],"signed":{…}}`, as it will be published, and beside it `ceremony`: what it
//! follows and whose signatures it needs, so that a machine without the repository knows what to do. Only `signed` is signed;
//! import believes nothing else. Deliberately absent: deciding what is signed (`rotation`, `publish`).

use std::collections::BTreeMap;
use std::path::Path;

use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{KeyId, Role, RoleKeys, Root, TrustedSet, canonical};
use serde_json::{Value, json};

use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::keys::{self, KeyRing, KeyRole, KeySources, ListedKey};
use crate::metadata::Terms;
use crate::offer::Offer;
use crate::repository::{Repository, Versions};
use crate::roles::{self, SignedFile};
use crate::{limits, rotation};

/// The form that this version writes.
const FORMAT: u64 = 1;

/// A file that collects signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceremony {
    role: KeyRole,
    version: u32,
    /// Version that it follows.
    follows: u32,
    signed: Value,
    /// Hex by key id.
    signatures: BTreeMap<KeyId, String>,
    /// Whose signatures it needs: for a root the old keys and the new ones.
    needs: Vec<Need>,
}

/// Signatures that a file needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Of what: "root 3" (the root in force) or "root 4" (the new one).
    pub of: String,
    /// How many of the keys must sign.
    pub threshold: u32,
    /// The keys.
    pub keys: Vec<ListedKey>,
}

/// How far a need is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedState {
    /// As [`Need::of`].
    pub of: String,
    /// How many must sign.
    pub threshold: u32,
    /// Keys whose valid signature is there.
    pub signed: Vec<KeyId>,
    /// Keys that could still sign.
    pub open: Vec<KeyId>,
}

impl NeedState {
    /// Whether enough have signed.
    pub fn is_met(&self) -> bool {
        self.signed.len() >= self.threshold as usize
    }
}

fn refused(reason: impl Into<String>) -> RepositoryError {
    RepositoryError::Ceremony(reason.into())
}

fn listed_keys(root: &Value, keys: &RoleKeys) -> Vec<ListedKey> {
    let key = |id: &KeyId| ListedKey::from_json(root.get("keys")?.get(id.as_str())?).filter(|key| key.id() == id);
    keys.key_ids.iter().filter_map(key).collect()
}

impl Need {
    fn new(of: String, keys: &RoleKeys, root: &Value) -> Self {
        Self { of, threshold: keys.threshold, keys: listed_keys(root, keys) }
    }

    fn to_json(&self) -> Value {
        let keys: Vec<_> = self.keys.iter().map(ListedKey::to_json).collect();
        json!({"of": self.of, "threshold": self.threshold, "keys": keys})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let keys = value.get("keys")?.as_array()?.iter().map(ListedKey::from_json).collect::<Option<Vec<_>>>()?;
        let threshold = u32::try_from(value.get("threshold")?.as_u64()?).ok()?;
        Some(Self { of: value.get("of")?.as_str()?.to_owned(), threshold, keys })
    }
}

impl Ceremony {
    fn new(role: KeyRole, follows: u32, signed: Value, needs: Vec<Need>) -> Result<Self, RepositoryError> {
        let version = version_of(&signed).ok_or_else(|| refused(format!("this {role} has no version")))?;
        Ok(Self { role, version, follows, signed, signatures: BTreeMap::new(), needs })
    }

    /// The root after `old`.
    pub(crate) fn root(old: &Root, old_signed: &Value, signed: Value) -> Result<Self, RepositoryError> {
        let new_keys = rotation::keys_of(&signed, KeyRole::Root)?;
        let version = version_of(&signed).unwrap_or(0);
        let needs = vec![
            Need::new(format!("root {}", old.version()), old.role_keys(Role::Root), old_signed),
            Need::new(format!("root {version}"), &new_keys, &signed),
        ];
        Self::new(KeyRole::Root, old.version(), signed, needs)
    }

    /// The targets after version `follows`, under `root`.
    pub(crate) fn targets(
        root: &Root,
        root_signed: &Value,
        follows: u32,
        signed: Value,
    ) -> Result<Self, RepositoryError> {
        let of = format!("targets under root {}", root.version());
        let needs = vec![Need::new(of, root.role_keys(Role::Targets), root_signed)];
        Self::new(KeyRole::Targets, follows, signed, needs)
    }

    /// Whose file it is.
    pub fn role(&self) -> KeyRole {
        self.role
    }

    /// The version that it will have.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What is signed, for people to look at before they do.
    pub fn signed(&self) -> &Value {
        &self.signed
    }

    /// The file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RepositoryError> {
        let signatures: Vec<_> =
            self.signatures.iter().map(|(id, signature)| json!({"keyid": id, "sig": signature})).collect();
        let needs: Vec<_> = self.needs.iter().map(Need::to_json).collect();
        let ceremony = json!({"format": FORMAT, "role": self.role.name(), "follows": self.follows, "needs": needs});
        let file = json!({"ceremony": ceremony, "signatures": signatures, "signed": self.signed});
        let mut text = serde_json::to_vec_pretty(&file).map_err(|e| refused(e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Not such a file, or what would be signed has no form that all clients agree on.
    pub fn parse(bytes: &[u8]) -> Result<Self, RepositoryError> {
        if bytes.len() as u64 > limits::CEREMONY_BYTES_MAX {
            return Err(refused(format!("a file to be signed has at most {} bytes", limits::CEREMONY_BYTES_MAX)));
        }
        let value = canonical::parse(bytes).map_err(|e| refused(format!("no file to be signed: {e}")))?;
        let bad = |what: &str| refused(format!("no file to be signed: {what}"));
        let about = value.get("ceremony").ok_or_else(|| bad("it has no `ceremony`"))?;
        if about.get("format").and_then(Value::as_u64) != Some(FORMAT) {
            return Err(bad("its format is not the one this program knows; use a newer one"));
        }
        let role = about.get("role").and_then(Value::as_str).ok_or_else(|| bad("it names no role"))?;
        let role: KeyRole = role.parse().map_err(|e| bad(&format!("{e}")))?;
        let follows = about.get("follows").and_then(|v| u32::try_from(v.as_u64()?).ok());
        let follows = follows.ok_or_else(|| bad("it does not say which version it follows"))?;
        let needs = about.get("needs").and_then(Value::as_array).ok_or_else(|| bad("it needs nobody's signature"))?;
        let needs = needs.iter().map(Need::from_json).collect::<Option<Vec<_>>>();
        let signed = value.get("signed").cloned().ok_or_else(|| bad("it has no `signed`"))?;
        roles::check_text(&signed).map_err(|reason| RepositoryError::Unsignable { role, reason })?;
        if signed.get("_type").and_then(Value::as_str) != Some(role.name()) {
            return Err(bad(&format!("it says it is {role}, but what would be signed is not")));
        }
        let needs = needs.ok_or_else(|| bad("a key in it cannot be used"))?;
        let mut ceremony = Self::new(role, follows, signed, needs)?;
        for entry in value.get("signatures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            let (Some(id), Some(signature)) = (text("keyid"), text("sig")) else {
                return Err(bad("a signature has no keyid or no sig"));
            };
            let id = id.parse().map_err(|e| bad(&format!("{e}")))?;
            ceremony.signatures.insert(id, signature.to_owned());
        }
        Ok(ceremony)
    }

    /// Takes the signatures of another copy of the same file.
    ///
    /// # Errors
    /// It is another file.
    pub fn merge(&mut self, other: &Self) -> Result<(), RepositoryError> {
        if self.signed != other.signed {
            return Err(refused("these are two different files: what is signed is not the same"));
        }
        self.signatures.extend(other.signatures.iter().map(|(id, signature)| (id.clone(), signature.clone())));
        Ok(())
    }

    /// Signs with every private key at hand that the file needs. Gives the keys that signed now.
    ///
    /// # Errors
    /// No key that is needed is here, or one cannot be used.
    pub fn sign(&mut self, keys: &Path, sources: KeySources) -> Result<Vec<KeyId>, RepositoryError> {
        let ring = KeyRing::new(keys.to_owned(), sources);
        let message = roles::encode(self.role, &self.signed)?;
        let mut signed = Vec::new();
        for signer in ring.available(self.role)? {
            let id = signer.key().id();
            let needed = self.needs.iter().any(|need| need.keys.iter().any(|key| key == signer.key()));
            if needed && !signed.contains(id) {
                let signature = hex(&keys::sign_checked(&signer, &message)?);
                self.signatures.insert(id.clone(), signature);
                signed.push(id.clone());
            }
        }
        if signed.is_empty() {
            let wanted: Vec<_> = self.needs.iter().flat_map(|need| &need.keys).map(|key| key.id().as_str()).collect();
            return Err(refused(format!(
                "{} holds no key of {} that this file needs (it needs some of: {})",
                keys.display(),
                self.role,
                wanted.join(", ")
            )));
        }
        Ok(signed)
    }

    /// How far it is: valid signatures only.
    ///
    /// # Errors
    /// What is signed has no canonical form.
    pub fn state(&self) -> Result<Vec<NeedState>, RepositoryError> {
        let message = roles::encode(self.role, &self.signed)?;
        let valid = |key: &&ListedKey| {
            let signature = self.signatures.get(key.id()).and_then(|text| colibri_common::unhex(text));
            signature.is_some_and(|signature| key.public().verifies(&message, &signature))
        };
        let state = |need: &Need| {
            let (signed, open): (Vec<_>, Vec<_>) = need.keys.iter().partition(valid);
            let ids = |keys: Vec<&ListedKey>| keys.into_iter().map(|key| key.id().clone()).collect();
            NeedState { of: need.of.clone(), threshold: need.threshold, signed: ids(signed), open: ids(open) }
        };
        Ok(self.needs.iter().map(state).collect())
    }

    /// The file as it would be published, if it follows what is committed. Who signed is not looked at here.
    pub(crate) fn check_follows(&self, committed: &TrustedSet, role: KeyRole) -> Result<SignedFile, RepositoryError> {
        if self.role != role {
            return Err(refused(format!("this file is {}, not {role}", self.role)));
        }
        let current = role.top_level().and_then(|role| committed.version(role)).unwrap_or(0);
        if self.follows != current {
            return Err(refused(format!(
                "this {role} was made to follow version {}, but the repository is at version {current}: export again and \
                 have it signed again, or somebody's change would be lost",
                self.follows
            )));
        }
        let signatures = self.signatures.iter().map(|(id, signature)| (id.clone(), signature.clone())).collect();
        roles::envelope(role, self.version, &self.signed, signatures)
    }
}

fn version_of(signed: &Value) -> Option<u32> {
    u32::try_from(signed.get("version")?.as_u64()?).ok()
}

impl Repository {
    /// The next targets, unsigned, offering what is offered now: to have its life renewed by signers elsewhere. To change
    /// what is offered, use [`Self::prepare`].
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn export_targets(&self, now: UnixSeconds) -> Result<Ceremony, RepositoryError> {
        self.targets_ceremony(&self.metadata.committed()?, &Offer::again(), &self.terms(now, false))
    }

    pub(crate) fn targets_ceremony(
        &self,
        committed: &TrustedSet,
        offer: &Offer,
        terms: &Terms,
    ) -> Result<Ceremony, RepositoryError> {
        let (_, signed) = self.metadata.unsigned_targets(committed, offer, terms)?;
        let root_signed = Value::Object(self.metadata.root_signed(committed)?);
        let follows = committed.version(Role::Targets).unwrap_or(0);
        Ceremony::targets(committed.root(), &root_signed, follows, signed)
    }

    /// Takes over targets signed elsewhere, and signs snapshot and timestamp. Every package that they offer must be here
    /// whole.
    ///
    /// # Errors
    /// Too few signatures, a version that does not follow, a package that is not whole, or an online key that is not here.
    pub fn import_targets(&self, targets: &Ceremony, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        let pass = Pass { now, because: None, past_gate: None, look_at_all: false };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let file = self.adoptable_targets(targets, &head.set)?;
            Ok(Change { targets: TargetsChange::Adopt(file), ..Change::default() })
        })
    }

    /// Targets that follow; whether their packages are all here is asked at the gate.
    pub(crate) fn adoptable_targets(
        &self,
        targets: &Ceremony,
        committed: &TrustedSet,
    ) -> Result<SignedFile, RepositoryError> {
        self.metadata.has_one_targets_file(committed)?;
        let file = targets.check_follows(committed, KeyRole::Targets)?;
        if targets.version <= targets.follows {
            return Err(refused(format!("targets version {} is not after {}", targets.version, targets.follows)));
        }
        Ok(file)
    }
}
