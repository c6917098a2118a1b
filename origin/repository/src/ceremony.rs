//! Signing on several machines: one JSON file goes from hand to hand and collects signatures.
//!
//! Of a root or of flat targets it is TUF metadata, `{"signatures":[…],"signed":{…}}`, as it will be published, and beside it
//! `ceremony`: what it follows and whose signatures it needs, so that a machine without the repository knows what to do. With
//! hash bins it carries all files that change together, each with its own signatures. Only `signed` is signed; import believes
//! nothing else. Deliberately absent: deciding what is signed (`rotation`, `publish`).

mod file;

use std::collections::BTreeSet;
use std::path::Path;

use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{KeyId, Role, RoleKeys, RoleName, Root, TrustedSet, canonical};
use serde_json::{Value, json};

use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::keys::{self, KeyRing, KeyRole, KeySources, ListedKey};
use crate::metadata::Terms;
use crate::offer::Offer;
use crate::repository::{Repository, Versions};
use crate::roles::{self, SignedFile};
use crate::{limits, profile, rotation};

pub use file::CeremonyFile;

/// The form with one file, the role's own.
const FORMAT_ONE: u64 = 1;

/// The form with several.
const FORMAT_SEVERAL: u64 = 2;

/// Files of one role that collect signatures together.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceremony {
    role: KeyRole,
    /// At least one; their names are distinct.
    files: Vec<CeremonyFile>,
    /// Whose signatures each of them needs: for a root the old keys and the new ones.
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
    /// The root after `old`.
    pub(crate) fn root(old: &Root, old_signed: &Value, signed: Value) -> Result<Self, RepositoryError> {
        let new_keys = rotation::keys_of(&signed, KeyRole::Root)?;
        let version = version_of(&signed).unwrap_or(0);
        let needs = vec![
            Need::new(format!("root {}", old.version()), old.role_keys(Role::Root), old_signed),
            Need::new(format!("root {version}"), &new_keys, &signed),
        ];
        let file = CeremonyFile::new(Role::Root.file(), old.version(), signed)?;
        Ok(Self { role: KeyRole::Root, files: vec![file], needs })
    }

    /// Targets files under `root`.
    fn targets(root: &Root, root_signed: &Value, files: Vec<CeremonyFile>) -> Result<Self, RepositoryError> {
        if files.is_empty() {
            return Err(refused("there is nothing to sign: what would be offered is offered already"));
        }
        let of = format!("targets under root {}", root.version());
        let needs = vec![Need::new(of, root.role_keys(Role::Targets), root_signed)];
        Ok(Self { role: KeyRole::Targets, files, needs })
    }

    /// Whose file it is.
    pub fn role(&self) -> KeyRole {
        self.role
    }

    /// The files to be signed, for people to look at before they do.
    pub fn files(&self) -> &[CeremonyFile] {
        &self.files
    }

    /// The file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, RepositoryError> {
        let needs: Vec<_> = self.needs.iter().map(Need::to_json).collect();
        let file = match self.files.as_slice() {
            [one] if one.name() == self.own_file() => {
                let about = json!({
                    "format": FORMAT_ONE, "role": self.role.name(), "follows": one.follows(), "needs": needs,
                });
                json!({"ceremony": about, "signatures": one.signatures_json(), "signed": one.signed()})
            }
            several => {
                let files: Vec<_> = several.iter().map(CeremonyFile::to_json).collect();
                let about = json!({"format": FORMAT_SEVERAL, "role": self.role.name(), "needs": needs});
                json!({"ceremony": about, "files": files})
            }
        };
        let mut text = serde_json::to_vec_pretty(&file).map_err(|e| refused(e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }

    fn own_file(&self) -> String {
        format!("{}.json", self.role)
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
        let format = about.get("format").and_then(Value::as_u64);
        let role = about.get("role").and_then(Value::as_str).ok_or_else(|| bad("it names no role"))?;
        let role: KeyRole = role.parse().map_err(|e| bad(&format!("{e}")))?;
        let needs = about.get("needs").and_then(Value::as_array).ok_or_else(|| bad("it needs nobody's signature"))?;
        let needs = needs.iter().map(Need::from_json).collect::<Option<Vec<_>>>();
        let needs = needs.ok_or_else(|| bad("a key in it cannot be used"))?;
        let mut ceremony = Self { role, files: Vec::new(), needs };
        match format {
            Some(FORMAT_ONE) => {
                let file = CeremonyFile::parse(role, &ceremony.own_file(), about.get("follows"), &value)?;
                ceremony.files.push(file);
            }
            Some(FORMAT_SEVERAL) => {
                let files = value.get("files").and_then(Value::as_array).filter(|files| !files.is_empty());
                for file in files.ok_or_else(|| bad("it has no `files`"))? {
                    let name = file.get("file").and_then(Value::as_str).ok_or_else(|| bad("a file has no name"))?;
                    ceremony.files.push(CeremonyFile::parse(role, name, file.get("follows"), file)?);
                }
            }
            _ => return Err(bad("its format is not one that this program knows; use a newer one")),
        }
        let mut names = BTreeSet::new();
        match ceremony.files.iter().find(|file| !names.insert(file.name())) {
            Some(twice) => Err(bad(&format!("{} is in it twice", twice.name()))),
            None => Ok(ceremony),
        }
    }

    /// Takes the signatures of another copy of the same file.
    ///
    /// # Errors
    /// It is another file.
    pub fn merge(&mut self, other: &Self) -> Result<(), RepositoryError> {
        let same = self.files.len() == other.files.len()
            && self.files.iter().zip(&other.files).all(|(one, other)| one.is_the_same_as(other));
        if !same {
            return Err(refused("these are two different files: what is signed is not the same"));
        }
        for (one, other) in self.files.iter_mut().zip(&other.files) {
            one.take_signatures(other);
        }
        Ok(())
    }

    /// Signs with every private key at hand that the file needs. Gives the keys that signed now.
    ///
    /// # Errors
    /// No key that is needed is here, or one cannot be used.
    pub fn sign(&mut self, keys: &Path, sources: KeySources) -> Result<Vec<KeyId>, RepositoryError> {
        let ring = KeyRing::new(keys.to_owned(), sources);
        let mut signed = Vec::new();
        let signers: Vec<_> = ring.available(self.role)?;
        let needed = |key: &ListedKey| self.needs.iter().any(|need| need.keys.contains(key));
        let signers: Vec<_> = signers.into_iter().filter(|signer| needed(signer.key())).collect();
        for file in &mut self.files {
            let message = roles::encode(self.role, file.signed())?;
            for signer in &signers {
                let signature = hex(&keys::sign_checked(signer, &message)?);
                file.add_signature(signer.key().id().clone(), signature);
            }
        }
        for signer in &signers {
            if !signed.contains(signer.key().id()) {
                signed.push(signer.key().id().clone());
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

    /// How far it is: a key has signed if its valid signature is on every file.
    ///
    /// # Errors
    /// What is signed has no canonical form.
    pub fn state(&self) -> Result<Vec<NeedState>, RepositoryError> {
        let messages = self.files.iter().map(|file| roles::encode(self.role, file.signed()));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let valid = |key: &&ListedKey| self.files.iter().zip(&messages).all(|(file, message)| file.has(key, message));
        let state = |need: &Need| {
            let (signed, open): (Vec<_>, Vec<_>) = need.keys.iter().partition(valid);
            let ids = |keys: Vec<&ListedKey>| keys.into_iter().map(|key| key.id().clone()).collect();
            NeedState { of: need.of.clone(), threshold: need.threshold, signed: ids(signed), open: ids(open) }
        };
        Ok(self.needs.iter().map(state).collect())
    }

    /// The root as it would be published, if it follows what is committed. Who signed is not looked at here.
    pub(crate) fn root_that_follows(&self, committed: &TrustedSet) -> Result<SignedFile, RepositoryError> {
        let file = self.check_follows(committed, KeyRole::Root)?.pop();
        file.ok_or_else(|| refused("there is no root in it"))
    }

    /// The files as they would be published, if each follows what is committed. Who signed is not looked at here.
    fn check_follows(&self, committed: &TrustedSet, role: KeyRole) -> Result<Vec<SignedFile>, RepositoryError> {
        if self.role != role {
            return Err(refused(format!("this file is {}, not {role}", self.role)));
        }
        let follows = |file: &CeremonyFile| {
            let name = file.name();
            let current = committed_version(committed, role, name);
            let current = current.ok_or_else(|| refused(format!("{name} is no file of {role} in this repository")))?;
            if file.follows() != current {
                return Err(refused(format!(
                    "this {name} was made to follow version {}, but the repository is at version {current}: export again and \
                     have it signed again, or somebody's change would be lost",
                    file.follows()
                )));
            }
            file.to_signed(role)
        };
        self.files.iter().map(follows).collect()
    }
}

/// The version that is committed of a file that `role`'s keys sign, 0 if there is none; nothing if it is no such file.
fn committed_version(committed: &TrustedSet, role: KeyRole, file: &str) -> Option<u32> {
    let top = role.top_level()?;
    if file == top.file() {
        return Some(committed.version(top).unwrap_or(0));
    }
    let bins = profile::bins_of(committed).filter(|_| top == Role::Targets)?;
    let name = RoleName::of_file(file)?;
    let is_bin = (0..bins.count()).any(|bin| bins.role(bin) == name);
    let listed = committed.snapshot().and_then(|snapshot| snapshot.meta().get(&name.listed_as()));
    is_bin.then(|| listed.map_or(0, |meta| meta.version))
}

fn version_of(signed: &Value) -> Option<u32> {
    u32::try_from(signed.get("version")?.as_u64()?).ok()
}

impl Repository {
    /// The next targets, unsigned, offering what is offered now: to have its life renewed by signers elsewhere; with hash bins,
    /// every one. To change what is offered, use [`Self::prepare`].
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn export_targets(&self, now: UnixSeconds) -> Result<Ceremony, RepositoryError> {
        self.targets_ceremony(&self.metadata.committed()?, &Offer::again(), &self.terms(now, false))
    }

    /// [`Self::export_targets`] under a root that is signed but not in force yet and gives targets other keys: to be signed by
    /// those, and imported together with it.
    ///
    /// # Errors
    /// The root does not follow, or its own keys have not signed it.
    pub fn export_targets_under(&self, root: &Ceremony, now: UnixSeconds) -> Result<Ceremony, RepositoryError> {
        let committed = self.metadata.committed()?;
        let file = root.root_that_follows(&committed)?;
        let trusted = TrustedSet::from_root_file(&file.bytes)
            .map_err(|error| refused(format!("this root is not signed by its own keys yet: {error}")))?;
        let signed = root.files.first().map_or(&Value::Null, CeremonyFile::signed);
        self.targets_ceremony_under(trusted.root(), signed, &committed, &Offer::again(), &self.terms(now, false))
    }

    pub(crate) fn targets_ceremony(
        &self,
        committed: &TrustedSet,
        offer: &Offer,
        terms: &Terms,
    ) -> Result<Ceremony, RepositoryError> {
        let root_signed = Value::Object(self.metadata.root_signed(committed)?);
        self.targets_ceremony_under(committed.root(), &root_signed, committed, offer, terms)
    }

    fn targets_ceremony_under(
        &self,
        root: &Root,
        root_signed: &Value,
        committed: &TrustedSet,
        offer: &Offer,
        terms: &Terms,
    ) -> Result<Ceremony, RepositoryError> {
        let mut unsigned = Vec::new();
        self.metadata.draft_targets(committed, root, offer, terms, &mut |name, version, signed| {
            unsigned.push((name.clone(), canonical::parse(&signed).map_err(|e| refused(e.to_string()))?));
            Ok(roles::envelope(name, version, &signed, Vec::new()))
        })?;
        let file = |(name, signed): (String, Value)| {
            let follows = committed_version(committed, KeyRole::Targets, &name).unwrap_or(0);
            CeremonyFile::new(&name, follows, signed)
        };
        let files = unsigned.into_iter().map(file).collect::<Result<_, _>>()?;
        Ceremony::targets(root, root_signed, files)
    }

    /// Takes over targets signed elsewhere, and signs snapshot and timestamp. Every package that they offer must be here
    /// whole.
    ///
    /// # Errors
    /// Too few signatures, a version that does not follow, a package that is not whole, or an online key that is not here.
    pub fn import_targets(&self, targets: &Ceremony, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        let pass = Pass { now, because: None, past_gate: None, look_at_all: false };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let files = self.adoptable_targets(targets, &head.set)?;
            Ok(Change { targets: TargetsChange::Adopt(files), ..Change::default() })
        })
    }

    /// Targets that follow; whether their packages are all here is asked at the gate.
    pub(crate) fn adoptable_targets(
        &self,
        targets: &Ceremony,
        committed: &TrustedSet,
    ) -> Result<Vec<SignedFile>, RepositoryError> {
        let files = targets.check_follows(committed, KeyRole::Targets)?;
        match targets.files.iter().find(|file| file.version() <= file.follows()) {
            Some(file) => {
                let (name, version, follows) = (file.name(), file.version(), file.follows());
                Err(refused(format!("{name} version {version} is not after {follows}")))
            }
            None => Ok(files),
        }
    }
}
