//! The next metadata as signed files, not yet visible: what changes, signed from targets down to timestamp.
//!
//! A draft is run through the verifying client before anybody may see it. Deliberately absent: making it visible
//! (`metadata`), keys (`keys`).

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_metadata::{Role, Root, Start, TrustAnchor, TrustedSet, Update};
use colibri_store::DocumentName;
use serde_json::{Map, Value, json};

use crate::audit::Pending;
use crate::commit::Unproven;
use crate::error::RepositoryError;
use crate::keys::{KeyRing, KeyRole};
use crate::layout;
use crate::metadata::{MetadataFolder, Terms};
use crate::roles::{self, SignedFile};
use crate::rotation;

impl MetadataFolder {
    /// The parts below targets: a snapshot for `targets_meta` (unless only the timestamp is signed again) and the timestamp.
    /// `previous` keeps what the snapshot says of delegated roles.
    fn online_files(
        &self,
        targets_meta: Value,
        unproven: Option<&Unproven>,
        previous: &Previous,
        signing: &mut Signing<'_>,
        timestamp_only: bool,
        terms: &Terms,
    ) -> Result<Vec<SignedFile>, RepositoryError> {
        let mut files = Vec::new();
        let snapshot_meta = if timestamp_only {
            previous.snapshot_meta.clone()
        } else {
            let mut signed = previous.snapshot.clone();
            let meta = signed.entry("meta").or_insert_with(|| json!({}));
            if let Value::Object(map) = meta {
                map.insert(Role::Targets.file().into(), targets_meta);
            }
            roles::set_custom(&mut signed, "unproven", unproven.map(|unproven| json!(unproven)));
            signing.anchor(&mut signed);
            let version = self.next_version(Role::Snapshot.file(), previous.snapshot_version, terms)?;
            let snapshot = signing.sign(Role::Snapshot, version, signed, terms)?;
            let meta = snapshot.meta();
            files.push(snapshot);
            meta
        };
        let version = self.next_version(Role::Timestamp.file(), previous.timestamp_version, terms)?;
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
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        let mut files = Vec::new();
        let timestamp_only = change.timestamp_only;
        let root = match change.root {
            RootChange::Keep => None,
            RootChange::Again => Some(signing.sign_root(self.next_root(committed)?, previous.root.clone(), terms)?),
            RootChange::Sign(signed) => Some(signing.sign_root(self.next_root(committed)?, signed, terms)?),
            RootChange::Adopt(file) => Some(signing.adopt(KeyRole::Root, file)?),
        };
        files.extend(root);
        let targets = match change.targets {
            TargetsChange::Keep => None,
            TargetsChange::Entries(entries) => {
                let signed = previous.next_targets(entries);
                let version = self.next_version(Role::Targets.file(), previous.targets_version, terms)?;
                Some(signing.sign(Role::Targets, version, signed, terms)?)
            }
            TargetsChange::Adopt(file) => Some(signing.adopt(KeyRole::Targets, file)?),
        };
        let targets_meta = targets.as_ref().map_or_else(|| previous.targets_meta.clone(), SignedFile::meta);
        files.extend(targets);
        let unproven = change.unproven.as_ref();
        files.extend(self.online_files(targets_meta, unproven, &previous, &mut signing, timestamp_only, terms)?);
        let update = Update::start(Start::FromSet(committed.clone()), terms.now);
        let set = self.refresh(update, &documents(&files)?)?;
        Ok(Draft { files, numbered: committed.root().consistent_snapshot(), set, audit: signing.pending })
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

    /// The next targets, unsigned, with these entries or those of now: for signers elsewhere.
    pub fn unsigned_targets(
        &self,
        committed: &TrustedSet,
        entries: Option<Map<String, Value>>,
        terms: &Terms,
    ) -> Result<(u32, Value), RepositoryError> {
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        let entries = match entries {
            Some(entries) => entries,
            None => self.entries(committed)?,
        };
        let version = self.next_version(Role::Targets.file(), previous.targets_version, terms)?;
        let expires = terms.expiries.at(KeyRole::Targets, terms.now);
        Ok((version, roles::complete(KeyRole::Targets, version, expires, previous.next_targets(entries))?))
    }

    /// The signed part of the committed root, to be changed.
    pub fn root_signed(&self, committed: &TrustedSet) -> Result<Map<String, Value>, RepositoryError> {
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        Ok(previous.root)
    }

    /// The four roles of a new repository, all version 1 and without targets. `signing` trusts the new root.
    pub fn first_draft(
        &self,
        mut signing: Signing<'_>,
        root_signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<Draft, RepositoryError> {
        let root = signing.sign_root(1, root_signed, terms)?;
        let first = |role: Role| self.next_version(role.file(), 0, terms);
        let empty = json!({"fuchsia_spec_version": 1});
        let signed = Map::from_iter([("targets".to_owned(), json!({})), ("custom".to_owned(), empty)]);
        let targets = signing.sign(Role::Targets, first(Role::Targets)?, signed, terms)?;
        let mut signed = Map::from_iter([("meta".to_owned(), json!({Role::Targets.file(): targets.meta()}))]);
        signing.anchor(&mut signed);
        let snapshot = signing.sign(Role::Snapshot, first(Role::Snapshot)?, signed, terms)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot.meta()}))]);
        let timestamp = signing.sign(Role::Timestamp, first(Role::Timestamp)?, signed, terms)?;
        let anchor = TrustAnchor::RootFile(root.bytes.clone());
        let files = vec![root, targets, snapshot, timestamp];
        let set = self.refresh(Update::start(Start::FromAnchor(anchor), terms.now), &documents(&files)?)?;
        Ok(Draft { files, numbered: true, set, audit: signing.pending })
    }

    /// The entries of the committed targets, with all that they say.
    pub fn entries(&self, committed: &TrustedSet) -> Result<Map<String, Value>, RepositoryError> {
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        match previous.targets.get("targets") {
            Some(Value::Object(entries)) => Ok(entries.clone()),
            _ => Err(self.damaged("targets has no targets")),
        }
    }
}

/// What the next metadata changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub root: RootChange,
    pub targets: TargetsChange,
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
    /// These entries.
    Entries(Map<String, Value>),
    /// Signed elsewhere.
    Adopt(SignedFile),
}

impl TargetsChange {
    /// What is offered after it; nothing if that stays as it is.
    pub fn entries(&self) -> Option<Cow<'_, Map<String, Value>>> {
        match self {
            Self::Keep => None,
            Self::Entries(entries) => Some(Cow::Borrowed(entries)),
            Self::Adopt(file) => match roles::signed_part(&file.bytes)?.remove("targets")? {
                Value::Object(entries) => Some(Cow::Owned(entries)),
                _ => None,
            },
        }
    }
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

/// What the next metadata carries on, as signed.
struct Previous {
    root: Map<String, Value>,
    targets: Map<String, Value>,
    targets_version: u32,
    /// What the snapshot says about targets.
    targets_meta: Value,
    snapshot: Map<String, Value>,
    snapshot_version: u32,
    /// What the timestamp says about the snapshot.
    snapshot_meta: Value,
    timestamp_version: u32,
}

impl Previous {
    /// The signed part of targets with other entries.
    fn next_targets(&self, entries: Map<String, Value>) -> Map<String, Value> {
        let mut signed = self.targets.clone();
        signed.insert("targets".into(), Value::Object(entries));
        signed.insert("custom".into(), json!({"fuchsia_spec_version": 1}));
        signed
    }

    fn of(committed: &TrustedSet) -> Option<Self> {
        let signed = |role: Role| {
            let (_, bytes) = committed.files().find(|(name, _)| *name == role.file())?;
            roles::signed_part(bytes)
        };
        let snapshot = signed(Role::Snapshot)?;
        let targets_meta = snapshot.get("meta")?.get(Role::Targets.file())?.clone();
        Some(Self {
            root: signed(Role::Root)?,
            targets: signed(Role::Targets)?,
            targets_version: committed.version(Role::Targets)?,
            targets_meta,
            snapshot,
            snapshot_meta: signed(Role::Timestamp)?.get("meta")?.get(Role::Snapshot.file())?.clone(),
            snapshot_version: committed.version(Role::Snapshot)?,
            timestamp_version: committed.version(Role::Timestamp)?,
        })
    }
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

    /// Takes a file over that was signed elsewhere; whether enough keys signed it is found out with the whole draft.
    fn adopt(&mut self, role: KeyRole, file: SignedFile) -> Result<SignedFile, RepositoryError> {
        self.pending.record("adopt", role, &file)?;
        if role == KeyRole::Root {
            self.trust(&file)?;
        }
        Ok(file)
    }

    fn trust(&mut self, file: &SignedFile) -> Result<(), RepositoryError> {
        let set = TrustedSet::from_root_file(&file.bytes);
        let set = set.map_err(|source| RepositoryError::Ceremony(format!("{source}")))?;
        self.root = Some(set.root().clone());
        Ok(())
    }

    fn sign(
        &mut self,
        role: Role,
        version: u32,
        signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<SignedFile, RepositoryError> {
        let root = self.root.as_ref();
        let root = root.ok_or_else(|| RepositoryError::OutOfRange("there is no root yet".to_owned()))?;
        let signers = self.keys.signers(root, role)?;
        let signed = roles::complete(role.into(), version, terms.expiries.at(role.into(), terms.now), signed)?;
        let file = roles::sign(role.into(), version, &signed, &signers)?;
        self.pending.record("sign", role.into(), &file)?;
        Ok(file)
    }

    /// Names the last line of the log in what is about to be signed.
    fn anchor(&self, signed: &mut Map<String, Value>) {
        roles::set_custom(signed, "audit", Some(self.pending.anchor()));
    }
}
