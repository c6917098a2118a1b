//! The next metadata as signed files, not yet visible: what changes, signed from targets down to timestamp.
//!
//! A draft is run through the verifying client before anybody may see it. Deliberately absent: making it visible
//! (`metadata`), keys (`keys`).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_metadata::{Role, RoleKeys, Root, Start, TrustAnchor, TrustedSet, Update};
use colibri_store::DocumentName;
use serde_json::{Map, Value, json};

use crate::audit::Pending;
use crate::commit::Unproven;
use crate::error::RepositoryError;
use crate::keys::{KeyRing, KeyRole};
use crate::layout;
use crate::metadata::{MetadataFolder, Terms};
use crate::offer::{Offer, Offered, SignTargets};
use crate::profile::{self, Profile};
use crate::roles::{self, SignedFile};
use crate::rotation;
use crate::sign_snapshot::{self, CarriedOn};

impl MetadataFolder {
    /// The parts below targets: a snapshot that says `listed` of targets files (unless only the timestamp is signed again) and
    /// the timestamp. What the snapshot said of other files stays.
    fn online_files(
        &self,
        listed: &Map<String, Value>,
        unproven: Option<&Unproven>,
        committed: &TrustedSet,
        signing: &mut Signing<'_>,
        timestamp_only: bool,
        terms: &Terms,
    ) -> Result<Vec<SignedFile>, RepositoryError> {
        let mut files = Vec::new();
        let previous = |role| committed.version(role).unwrap_or(0);
        let snapshot_meta = if timestamp_only {
            let said = self.signed_part(committed, Role::Timestamp)?;
            let said = said.get("meta").and_then(|meta| meta.get(Role::Snapshot.file())).cloned();
            said.ok_or_else(|| self.damaged("timestamp.json cannot be read again"))?
        } else {
            let carried = sign_snapshot::carry_on(committed, listed)?;
            let carried = carried.ok_or_else(|| self.damaged("snapshot.json cannot be read again"))?;
            let CarriedOn { mut rest, meta } = carried;
            roles::set_custom(&mut rest, "unproven", unproven.map(|unproven| json!(unproven)));
            signing.anchor(&mut rest);
            let version = self.next_version(Role::Snapshot.file(), previous(Role::Snapshot), terms)?;
            let snapshot = signing.sign_snapshot(version, rest, &meta, terms)?;
            if Profile::of(committed) == Profile::Compat {
                profile::check_room(Role::Snapshot, snapshot.bytes.len() as u64)?;
            }
            let meta = snapshot.meta();
            files.push(snapshot);
            meta
        };
        let version = self.next_version(Role::Timestamp.file(), previous(Role::Timestamp), terms)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot_meta}))]);
        files.push(signing.sign(Role::Timestamp, version, signed, terms)?);
        Ok(files)
    }

    /// Signs what changes, and all that follows from it.
    pub fn draft(
        &self,
        committed: &TrustedSet,
        mut signing: Signing<'_>,
        change: Change,
        terms: &Terms,
    ) -> Result<Draft, RepositoryError> {
        let mut files = Vec::new();
        let timestamp_only = change.timestamp_only;
        let root = match change.root {
            RootChange::Keep => None,
            RootChange::Again => {
                let signed = self.root_signed(committed)?;
                Some(signing.sign_root(self.next_root(committed)?, signed, terms)?)
            }
            RootChange::Sign(signed) => Some(signing.sign_root(self.next_root(committed)?, signed, terms)?),
            RootChange::Adopt(file) => Some(signing.adopt_root(file)?),
        };
        files.extend(root);
        let rollout_keys = self.rollout_keys_after(committed, &change.targets);
        let mut offered = match change.targets {
            TargetsChange::Keep => Offered::default(),
            TargetsChange::Offer(offer) => {
                let root = signing.root()?.clone();
                let mut sign = signing.targets_signer()?;
                let offered = self.draft_targets(committed, &root, &offer, terms, sign.as_mut())?;
                signing.pending.record_targets("sign", &offered.files)?;
                offered
            }
            TargetsChange::Adopt(files) => {
                signing.pending.record_targets("adopt", &files)?;
                adopted_targets(committed, files)?
            }
        };
        files.append(&mut offered.files);
        if let Some(offer) = &change.rollout {
            let (keys, pending) = (signing.keys, &mut signing.pending);
            let file = self.draft_rollout(committed, offer, &rollout_keys?, terms, keys, pending)?;
            offered.listed.insert(file.file.clone(), file.meta());
            files.push(file);
        }
        let (listed, unproven) = (std::mem::take(&mut offered.listed), change.unproven.as_ref());
        files.extend(self.online_files(&listed, unproven, committed, &mut signing, timestamp_only, terms)?);
        let documents = documents(&files)?;
        let set = self.refresh(Update::start(Start::FromSet(committed.clone()), terms.now), &documents)?;
        let mut set = self.check_offered(set, &offered, &documents, terms.now)?;
        if change.rollout.is_some() {
            set = self.check_rollout(set, &documents, terms.now)?;
        }
        Ok(Draft { files, numbered: committed.root().consistent_snapshot(), set, audit: signing.pending })
    }

    /// The keys of the role `rollout` after a change of targets.
    fn rollout_keys_after(&self, committed: &TrustedSet, targets: &TargetsChange) -> Result<RoleKeys, RepositoryError> {
        if let TargetsChange::Offer(offer) = targets
            && !offer.rollout_keys.is_empty()
        {
            let key_ids = offer.rollout_keys.iter().map(|key| key.id().clone()).collect();
            return Ok(RoleKeys { key_ids, threshold: 1 });
        }
        self.rollout_keys(committed)?.ok_or_else(|| {
            RepositoryError::Rollout("targets names no keys for it: `repo rollout enable` makes one".to_owned())
        })
    }

    /// The version after the committed root, if no file of a later root is in the way.
    pub fn next_root(&self, committed: &TrustedSet) -> Result<u32, RepositoryError> {
        let version = committed.root().version().checked_add(1);
        let version = version.ok_or_else(|| self.damaged("the root's version cannot grow any more"))?;
        if self.has_numbered(Role::Root.file(), version)? {
            return Err(self.damaged("a root file after the trusted one is there but cannot be verified"));
        }
        Ok(version)
    }

    /// The signed part of the committed root, to be changed.
    pub fn root_signed(&self, committed: &TrustedSet) -> Result<Map<String, Value>, RepositoryError> {
        self.signed_part(committed, Role::Root)
    }

    /// The signed part of a committed file, to be carried on with all that it says.
    pub fn signed_part(&self, committed: &TrustedSet, role: Role) -> Result<Map<String, Value>, RepositoryError> {
        let bytes = committed.files().find(|(name, _)| *name == role.file()).map(|(_, bytes)| bytes);
        let signed = bytes.and_then(|bytes| roles::signed_part(bytes));
        signed.ok_or_else(|| self.damaged(&format!("{} cannot be read again", role.file())))
    }

    /// The roles of a new repository, all version 1 and without targets. `signing` trusts the new root.
    pub fn first_draft(
        &self,
        mut signing: Signing<'_>,
        root_signed: Map<String, Value>,
        profile: Profile,
        terms: &Terms,
    ) -> Result<Draft, RepositoryError> {
        let root = signing.sign_root(1, root_signed, terms)?;
        let first = |role: Role| self.next_version(role.file(), 0, terms);
        let trusted = signing.root()?.clone();
        let mut sign = signing.targets_signer()?;
        let mut offered = self.first_targets(profile, &trusted, terms, sign.as_mut())?;
        signing.pending.record_targets("sign", &offered.files)?;
        let listed = std::mem::take(&mut offered.listed);
        let mut signed = Map::from_iter([("meta".to_owned(), Value::Object(listed))]);
        signing.anchor(&mut signed);
        let snapshot = signing.sign(Role::Snapshot, first(Role::Snapshot)?, signed, terms)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot.meta()}))]);
        let timestamp = signing.sign(Role::Timestamp, first(Role::Timestamp)?, signed, terms)?;
        let anchor = TrustAnchor::RootFile(root.bytes.clone());
        let mut files = vec![root];
        files.append(&mut offered.files);
        files.extend([snapshot, timestamp]);
        let documents = documents(&files)?;
        let set = self.refresh(Update::start(Start::FromAnchor(anchor), terms.now), &documents)?;
        let set = self.check_offered(set, &offered, &documents, terms.now)?;
        Ok(Draft { files, numbered: true, set, audit: signing.pending })
    }
}

/// What the next metadata changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub root: RootChange,
    pub targets: TargetsChange,
    /// What becomes of the documents of the role `rollout`; nothing leaves its file as it is.
    pub rollout: Option<Offer>,
    /// The snapshot stays too.
    pub timestamp_only: bool,
    /// What the snapshot says of blobs that are offered though they are not proven. The transaction fills it in.
    pub unproven: Option<Unproven>,
}

/// What becomes of the root.
#[derive(Debug, Default)]
pub(crate) enum RootChange {
    #[default]
    Keep,
    /// What it says, signed again.
    Again,
    /// Another content: keys or thresholds.
    Sign(Map<String, Value>),
    /// Signed elsewhere.
    Adopt(SignedFile),
}

/// What becomes of targets.
#[derive(Debug, Default)]
pub(crate) enum TargetsChange {
    #[default]
    Keep,
    /// A change of what is offered.
    Offer(Offer),
    /// Files signed elsewhere: the one at the top, hash bins, or both.
    Adopt(Vec<SignedFile>),
}

/// Signed files in the order in which they become visible: root, targets, snapshot, timestamp.
#[derive(Debug)]
pub(crate) struct Draft {
    /// In the order in which they become visible.
    pub files: Vec<SignedFile>,
    /// Whether files other than roots and timestamps have numbered names.
    pub numbered: bool,
    /// The set that a client has after these files.
    pub set: TrustedSet,
    /// Lines of the audit log, to be durable before any file is visible.
    pub audit: Pending,
}

/// Targets files that were signed elsewhere; whether enough keys signed them is found out with the whole draft.
fn adopted_targets(committed: &TrustedSet, files: Vec<SignedFile>) -> Result<Offered, RepositoryError> {
    let mut offered = Offered { all_bins: files.iter().any(|file| file.is(Role::Targets)), ..Offered::default() };
    match profile::bins_of(committed) {
        Some(bins) => {
            offered.listed.extend(files.iter().map(|file| (file.file.clone(), json!({"version": file.version}))));
            offered.touched = bins.names_in(|bin| offered.listed.contains_key(&bins.role(bin).listed_as()));
            offered.reached = true;
        }
        None => {
            for file in &files {
                profile::check_room(Role::Targets, file.bytes.len() as u64)?;
                offered.listed.insert(file.file.clone(), file.meta());
            }
        }
    }
    offered.files = files;
    Ok(offered)
}

/// Where a client would look for these files.
fn documents(files: &[SignedFile]) -> Result<BTreeMap<DocumentName, Bytes>, RepositoryError> {
    let mut documents = BTreeMap::new();
    for file in files {
        documents.insert(layout::metadata(&file.file)?, file.bytes.clone());
        if !file.is(Role::Timestamp) {
            documents.insert(layout::numbered_metadata(&file.file, file.version)?, file.bytes.clone());
        }
    }
    Ok(documents)
}

/// Who signs a draft: the keys at hand, what they are trusted by, and the log of what they do.
#[derive(Debug)]
pub(crate) struct Signing<'a> {
    keys: &'a KeyRing,
    /// The trusted root; once there is a new one, that one.
    root: Option<Root>,
    pending: Pending,
}

impl<'a> Signing<'a> {
    /// For what follows `committed`; for a new repository there is nothing yet.
    pub fn new(keys: &'a KeyRing, committed: Option<&TrustedSet>, pending: Pending) -> Self {
        Self { keys, root: committed.map(|set| set.root().clone()), pending }
    }

    /// The lines of the audit log that this makes.
    pub fn pending(&mut self) -> &mut Pending {
        &mut self.pending
    }

    /// A root is signed by the keys of the one before it and by its own.
    fn sign_root(
        &mut self,
        version: u32,
        signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<SignedFile, RepositoryError> {
        let expires = terms.expiries.at(KeyRole::Root, terms.now);
        let signed = roles::complete(KeyRole::Root, version, expires, signed)?;
        let new = rotation::keys_of(&signed, KeyRole::Root)?;
        let mut signers = self.keys.enough(KeyRole::Root, &new)?;
        if let Some(old) = &self.root {
            for signer in self.keys.signers(old, Role::Root)? {
                if !signers.iter().any(|known| known.key().id() == signer.key().id()) {
                    signers.push(signer);
                }
            }
        }
        let file = roles::sign(KeyRole::Root, version, &signed, &signers)?;
        self.pending.record("sign", KeyRole::Root, &file)?;
        self.trust(&file)?;
        Ok(file)
    }

    /// Takes a root over that was signed elsewhere; whether enough keys signed it is found out with the whole draft.
    fn adopt_root(&mut self, file: SignedFile) -> Result<SignedFile, RepositoryError> {
        self.pending.record("adopt", KeyRole::Root, &file)?;
        self.trust(&file)?;
        Ok(file)
    }

    fn trust(&mut self, file: &SignedFile) -> Result<(), RepositoryError> {
        let set = TrustedSet::from_root_file(&file.bytes);
        let set = set.map_err(|source| RepositoryError::Ceremony(format!("{source}")))?;
        self.root = Some(set.root().clone());
        Ok(())
    }

    /// The root in force.
    fn root(&self) -> Result<&Root, RepositoryError> {
        self.root.as_ref().ok_or_else(|| RepositoryError::OutOfRange("there is no root yet".to_owned()))
    }

    /// Signs targets files, with keys that are looked up once.
    fn targets_signer(&self) -> Result<Box<SignTargets<'static>>, RepositoryError> {
        let signers = self.keys.signers(self.root()?, Role::Targets)?;
        Ok(Box::new(move |file, version, signed| roles::sign_written(file, version, &signed, &signers)))
    }

    fn sign(
        &mut self,
        role: Role,
        version: u32,
        signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<SignedFile, RepositoryError> {
        let signers = self.keys.signers(self.root()?, role)?;
        let signed = roles::complete(role.into(), version, terms.expiries.at(role.into(), terms.now), signed)?;
        let file = roles::sign(role.into(), version, &signed, &signers)?;
        self.pending.record("sign", role.into(), &file)?;
        Ok(file)
    }

    /// A snapshot: what it lists is in canonical form already.
    fn sign_snapshot(
        &mut self,
        version: u32,
        rest: Map<String, Value>,
        meta: &[u8],
        terms: &Terms,
    ) -> Result<SignedFile, RepositoryError> {
        let signers = self.keys.signers(self.root()?, Role::Snapshot)?;
        let expires = terms.expiries.at(KeyRole::Snapshot, terms.now);
        let signed = roles::complete_snapshot(version, expires, rest, meta)?;
        let file = roles::sign_written(Role::Snapshot.file().to_owned(), version, &signed, &signers)?;
        self.pending.record("sign", KeyRole::Snapshot, &file)?;
        Ok(file)
    }

    /// Names the last line of the log in what is about to be signed.
    fn anchor(&self, signed: &mut Map<String, Value>) {
        roles::set_custom(signed, "audit", Some(self.pending.anchor()));
    }
}
