//! Reading the committed metadata and committing the next: numbered files first, `timestamp.json` last.
//!
//! What is committed is what `timestamp.json` leads to, read with the same verifying client that devices use. What is about
//! to be committed is run through that client first: metadata that clients would refuse never becomes visible.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, MetadataError, Role, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_store::{DocumentName, Documents};
use serde_json::{Map, Value, json};

use crate::error::RepositoryError;
use crate::keys::KeyFolder;
use crate::layout;
use crate::roles::{self, Expiries, SignedFile};

/// Before every expiry: what is committed stays readable for its owner after it has expired.
const NEVER_EXPIRED: UnixSeconds = UnixSeconds(0);

/// How the next versions are chosen and signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub now: UnixSeconds,
    pub time_versioning: bool,
    pub expiries: Expiries,
}

/// The metadata side of a repository's folder.
#[derive(Debug, Clone)]
pub(crate) struct MetadataFolder {
    documents: Documents,
}

impl MetadataFolder {
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    fn path(&self) -> PathBuf {
        self.documents.dir().to_owned()
    }

    fn at(&self, source: MetadataError) -> RepositoryError {
        RepositoryError::Metadata { path: self.path(), source }
    }

    /// `root.json`, the exact bytes.
    pub fn root_file(&self) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.documents.get(&layout::role(Role::Root)?, Role::Root.bytes_max())?)
    }

    /// What is committed: verified, but perhaps expired.
    pub fn committed(&self) -> Result<TrustedSet, RepositoryError> {
        let root = self.root_file()?.ok_or_else(|| RepositoryError::NotARepository { path: self.path() })?;
        let start = Start::FromAnchor(TrustAnchor::RootFile(root));
        self.refresh(Update::start(start, NEVER_EXPIRED), &BTreeMap::new())
    }

    /// Drives `update` over `drafts` and, where they have nothing, this folder.
    fn refresh(
        &self,
        mut update: Update,
        drafts: &BTreeMap<DocumentName, Bytes>,
    ) -> Result<TrustedSet, RepositoryError> {
        while let Step::Want(want) = update.next() {
            let name = DocumentName::new(&format!("{}/{}", layout::SERVED, want.name))?;
            let found = match drafts.get(&name) {
                Some(bytes) => Some(bytes.clone()),
                None => self.documents.get(&name, want.bytes_max)?,
            };
            update.supply(found.map_or(Answer::NotFound, Answer::Found)).map_err(|e| self.at(e))?;
        }
        update.finish().map_err(|e| self.at(e))
    }

    /// The version after `previous`: one more, or the time if that is larger; never one whose numbered file is there,
    /// because a crashed publish may have left one that somebody has cached for good.
    fn next_version(&self, role: Role, previous: u32, terms: &Terms) -> Result<u32, RepositoryError> {
        let full = || RepositoryError::OutOfRange(format!("the {role} version cannot grow beyond {previous}"));
        let mut version = previous.checked_add(1).ok_or_else(full)?;
        if terms.time_versioning
            && role != Role::Root
            && let Ok(now) = u32::try_from(terms.now.0)
        {
            version = version.max(now);
        }
        while self.documents.length(&layout::numbered_role(role, version)?)?.is_some() {
            version = version.checked_add(1).ok_or_else(full)?;
        }
        Ok(version)
    }

    /// The parts below targets, signed for `targets`: snapshot and timestamp. `previous` keeps what the snapshot says of
    /// delegated roles.
    fn online_files(
        &self,
        targets_meta: Value,
        previous: &Previous,
        keys: &Signers<'_>,
        terms: &Terms,
    ) -> Result<[SignedFile; 2], RepositoryError> {
        let mut signed = previous.snapshot.clone();
        let meta = signed.entry("meta").or_insert_with(|| json!({}));
        if let Value::Object(map) = meta {
            map.insert(Role::Targets.file().into(), targets_meta);
        }
        let version = self.next_version(Role::Snapshot, previous.snapshot_version, terms)?;
        let snapshot = keys.sign(Role::Snapshot, version, signed, terms)?;
        let version = self.next_version(Role::Timestamp, previous.timestamp_version, terms)?;
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
            let version = self.next_version(Role::Root, committed.root().version(), terms)?;
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
                let version = self.next_version(Role::Targets, previous.targets_version, terms)?;
                let file = signers.sign(Role::Targets, version, signed, terms)?;
                let meta = file.meta();
                files.push(file);
                meta
            }
            None => previous.targets_meta.clone(),
        };
        files.extend(self.online_files(targets_meta, &previous, &signers, terms)?);
        let draft = Draft { files, numbered: committed.root().consistent_snapshot() };
        let update = Update::start(Start::FromSet(committed.clone()), terms.now);
        self.refresh(update, &draft.documents()?)?;
        Ok(draft)
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
        let first = |role| self.next_version(role, 0, terms);
        let empty = json!({"fuchsia_spec_version": 1});
        let signed = Map::from_iter([("targets".to_owned(), json!({})), ("custom".to_owned(), empty)]);
        let targets = sign(Role::Targets, first(Role::Targets)?, signed)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Targets.file(): targets.meta()}))]);
        let snapshot = sign(Role::Snapshot, first(Role::Snapshot)?, signed)?;
        let signed = Map::from_iter([("meta".to_owned(), json!({Role::Snapshot.file(): snapshot.meta()}))]);
        let timestamp = sign(Role::Timestamp, first(Role::Timestamp)?, signed)?;
        let anchor = TrustAnchor::RootFile(root.bytes.clone());
        let draft = Draft { files: vec![root, targets, snapshot, timestamp], numbered: true };
        self.refresh(Update::start(Start::FromAnchor(anchor), terms.now), &draft.documents()?)?;
        Ok(draft)
    }

    /// Makes a draft visible. Until the last write, `timestamp.json`, clients see the old set.
    pub fn commit(&self, draft: &Draft) -> Result<(), RepositoryError> {
        for file in &draft.files {
            if file.role == Role::Root || (draft.numbered && file.role != Role::Timestamp) {
                self.documents.put(&layout::numbered_role(file.role, file.version)?, &file.bytes)?;
            }
        }
        for file in &draft.files {
            self.documents.put(&layout::role(file.role)?, &file.bytes)?;
        }
        Ok(())
    }

    /// Makes the first draft visible. `root.json` comes last: before it there is no repository, and after a crash `create`
    /// starts afresh.
    pub fn commit_first(&self, draft: &Draft) -> Result<(), RepositoryError> {
        for file in draft.files.iter().filter(|file| file.role != Role::Timestamp) {
            self.documents.put(&layout::numbered_role(file.role, file.version)?, &file.bytes)?;
        }
        for file in draft.files.iter().rev() {
            self.documents.put(&layout::role(file.role)?, &file.bytes)?;
        }
        Ok(())
    }

    /// The entries of the committed targets, with all that they say.
    pub fn entries(&self, committed: &TrustedSet) -> Result<Map<String, Value>, RepositoryError> {
        let previous = Previous::of(committed).ok_or_else(|| self.damaged("a role cannot be read again"))?;
        match previous.targets.get("targets") {
            Some(Value::Object(entries)) => Ok(entries.clone()),
            _ => Err(self.damaged("targets has no targets")),
        }
    }

    fn damaged(&self, reason: &str) -> RepositoryError {
        RepositoryError::Damaged { path: self.path(), reason: reason.to_owned() }
    }
}

/// What the next metadata changes.
#[derive(Debug)]
pub(crate) struct Change {
    /// Sign root again.
    pub root: bool,
    /// New entries of targets; none leaves the targets file as it is.
    pub targets: Option<Map<String, Value>>,
}

/// Signed files in the order in which they become visible: root, targets, snapshot, timestamp.
#[derive(Debug)]
pub(crate) struct Draft {
    files: Vec<SignedFile>,
    numbered: bool,
}

impl Draft {
    fn documents(&self) -> Result<BTreeMap<DocumentName, Bytes>, RepositoryError> {
        let mut documents = BTreeMap::new();
        for file in &self.files {
            documents.insert(layout::role(file.role)?, file.bytes.clone());
            if file.role != Role::Timestamp {
                documents.insert(layout::numbered_role(file.role, file.version)?, file.bytes.clone());
            }
        }
        Ok(documents)
    }
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
