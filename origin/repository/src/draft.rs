//! The next metadata as signed files, not yet visible: what changes, signed from targets down to timestamp.
//!
//! A draft is run through the verifying client before anybody may see it. Deliberately absent: making it visible
//! (`metadata`), keys (`keys`).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet, Update};
use colibri_store::DocumentName;
use serde_json::{Map, Value, json};

use crate::commit::Unproven;
use crate::error::RepositoryError;
use crate::keys::KeyFolder;
use crate::layout;
use crate::metadata::{MetadataFolder, Terms};
use crate::roles::{self, SignedFile};

impl MetadataFolder {
    /// The parts below targets, signed for `targets`: snapshot and timestamp. `previous` keeps what the snapshot says of
    /// delegated roles.
    fn online_files(
        &self,
        targets_meta: Value,
        unproven: Option<&Unproven>,
        previous: &Previous,
        keys: &Signers<'_>,
        terms: &Terms,
    ) -> Result<[SignedFile; 2], RepositoryError> {
        let mut signed = previous.snapshot.clone();
        let meta = signed.entry("meta").or_insert_with(|| json!({}));
        if let Value::Object(map) = meta {
            map.insert(Role::Targets.file().into(), targets_meta);
        }
        roles::set_custom(&mut signed, "unproven", unproven.map(|unproven| json!(unproven)));
        let version = self.next_version(Role::Snapshot.file(), previous.snapshot_version, terms)?;
        let snapshot = keys.sign(Role::Snapshot, version, signed, terms)?;
        let version = self.next_version(Role::Timestamp.file(), previous.timestamp_version, terms)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot.meta()}))]);
        let timestamp = keys.sign(Role::Timestamp, version, signed, terms)?;
        Ok([snapshot, timestamp])
    }

    /// Signs a new targets role with `entries`, and all that follows from it; a new root too if asked.
    pub fn draft(
        &self,
        committed: &TrustedSet,
        keys: &KeyFolder,
        change: Change,
        terms: &Terms,
    ) -> Result<Draft, RepositoryError> {
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        let signers = Signers { keys, committed };
        let mut files = Vec::new();
        if change.root {
            let version = self.next_version(Role::Root.file(), committed.root().version(), terms)?;
            if committed.root().version().checked_add(1) != Some(version) {
                return Err(self.damaged("a root file after the trusted one is there but cannot be verified"));
            }
            files.push(signers.sign(Role::Root, version, previous.root.clone(), terms)?);
        }
        let targets_meta = match change.targets {
            Some(entries) => {
                let mut signed = previous.targets.clone();
                signed.insert("targets".into(), Value::Object(entries));
                signed.insert("custom".into(), json!({"fuchsia_spec_version": 1}));
                let version = self.next_version(Role::Targets.file(), previous.targets_version, terms)?;
                let file = signers.sign(Role::Targets, version, signed, terms)?;
                let meta = file.meta();
                files.push(file);
                meta
            }
            None => previous.targets_meta.clone(),
        };
        files.extend(self.online_files(targets_meta, change.unproven.as_ref(), &previous, &signers, terms)?);
        let update = Update::start(Start::FromSet(committed.clone()), terms.now);
        let set = self.refresh(update, &documents(&files)?)?;
        Ok(Draft { files, numbered: committed.root().consistent_snapshot(), set })
    }

    /// The four roles of a new repository, all version 1 and without targets.
    pub fn first_draft(
        &self,
        keys: &[(Role, crate::keys::SigningKey)],
        root_signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<Draft, RepositoryError> {
        let sign = |role: Role, version: u32, signed: Map<String, Value>| {
            let signers = keys.iter().filter(|(of, _)| *of == role).map(|(_, key)| key);
            roles::sign(role, version, terms.expiries.at(role, terms.now), signed, signers)
        };
        let root = sign(Role::Root, 1, root_signed)?;
        let first = |role: Role| self.next_version(role.file(), 0, terms);
        let empty = json!({"fuchsia_spec_version": 1});
        let signed = Map::from_iter([("targets".to_owned(), json!({})), ("custom".to_owned(), empty)]);
        let targets = sign(Role::Targets, first(Role::Targets)?, signed)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Targets.file(): targets.meta()}))]);
        let snapshot = sign(Role::Snapshot, first(Role::Snapshot)?, signed)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot.meta()}))]);
        let timestamp = sign(Role::Timestamp, first(Role::Timestamp)?, signed)?;
        let anchor = TrustAnchor::RootFile(root.bytes.clone());
        let files = vec![root, targets, snapshot, timestamp];
        let set = self.refresh(Update::start(Start::FromAnchor(anchor), terms.now), &documents(&files)?)?;
        Ok(Draft { files, numbered: true, set })
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
#[derive(Debug)]
pub(crate) struct Change {
    /// Sign root again.
    pub root: bool,
    /// New entries of targets; none leaves the targets file as it is.
    pub targets: Option<Map<String, Value>>,
    /// What the snapshot says of blobs that are offered though they are not proven. The transaction fills it in.
    pub unproven: Option<Unproven>,
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
    timestamp_version: u32,
}

impl Previous {
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
            snapshot_version: committed.version(Role::Snapshot)?,
            timestamp_version: committed.version(Role::Timestamp)?,
        })
    }
}

struct Signers<'a> {
    keys: &'a KeyFolder,
    committed: &'a TrustedSet,
}

impl Signers<'_> {
    fn sign(
        &self,
        role: Role,
        version: u32,
        signed: Map<String, Value>,
        terms: &Terms,
    ) -> Result<SignedFile, RepositoryError> {
        let signers = self.keys.signers(self.committed.root(), role)?;
        roles::sign(role, version, terms.expiries.at(role, terms.now), signed, &signers)
    }
}
