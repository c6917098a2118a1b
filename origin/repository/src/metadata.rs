//! Which metadata is the repository's, and making the next one so: numbered files, the commit, then what is derived from it.
//!
//! The newest commit decides. `timestamp.json` and the other unnumbered files follow it; they decide only where there is no
//! commit, or where a program that knows none of commits has published something newer since. Everything is read with the
//! verifying client that devices use, and a draft has been through it before it comes here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds, hex, sha256};
use colibri_metadata::{
    Answer, MetadataError, Role, RoleName, Snapshot, Start, Step, TrustAnchor, TrustedSet, Update, utc,
};
use colibri_store::DocumentName;
use serde_json::{Map, Value};

use crate::commit::{Commit, NewCommit, Source, Unproven};
use crate::draft::Draft;
use crate::error::RepositoryError;
use crate::gate;
use crate::keys::KeyRole;
use crate::layout;
use crate::profile::{self, NearCap};
use crate::repository::Versions;
use crate::roles::{self, Expiries};
use crate::storage::Storage;

/// Before every expiry: what is committed stays readable for its owner after it has expired.
pub(crate) const NEVER_EXPIRED: UnixSeconds = UnixSeconds(0);

/// How the next versions are chosen and signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub now: UnixSeconds,
    pub time_versioning: bool,
    pub expiries: Expiries,
    /// Versions that clients may have seen of a history that was lost, to be overtaken.
    pub above: Option<Versions>,
}

impl Terms {
    /// Whether what expires then, and was signed by these terms, has lived half of its life.
    pub fn is_half_over(&self, role: KeyRole, expires: UnixSeconds) -> bool {
        expires.0.saturating_sub(self.now.0) <= self.expiries.life_s(role) / 2
    }
}

/// What the repository is now.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Number of the newest commit; 0 where there is none.
    pub number: u64,
    /// Verified, but perhaps expired.
    pub set: TrustedSet,
    /// The newest commit, if the set is the one it made.
    pub commit: Option<Commit>,
}

/// The metadata side of a repository.
#[derive(Debug, Clone)]
pub(crate) struct MetadataFolder {
    storage: Arc<dyn Storage>,
    /// The commit that was read last, and the set that it was proven to make: a commit says it with hashes, so it never makes
    /// another.
    proven: Arc<Mutex<Option<(Commit, TrustedSet)>>>,
    /// Versions of delegated roles' files, and when these expire.
    expiries: Arc<Mutex<BTreeMap<String, (u32, UnixSeconds)>>>,
}

impl MetadataFolder {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, proven: Arc::default(), expiries: Arc::default() }
    }

    fn path(&self) -> PathBuf {
        self.storage.place().to_owned()
    }

    pub fn at(&self, source: MetadataError) -> RepositoryError {
        RepositoryError::Metadata { path: self.path(), source }
    }

    /// The file of the committed set that is nearest to what the stock client reads, from 80 % on.
    pub fn near_cap(&self) -> Result<Option<NearCap>, RepositoryError> {
        let mut near = None;
        for role in [Role::Targets, Role::Snapshot] {
            let bytes = self.storage.length(&layout::metadata(role.file())?)?.unwrap_or(0);
            if let Ok(found @ Some(_)) = profile::check_room(role, bytes) {
                near = near.or(found);
            }
        }
        Ok(near)
    }

    /// A stored document.
    pub fn read(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.storage.read(name, bytes_max)?)
    }

    fn unnumbered(&self, role: Role) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.storage.read(&layout::metadata(role.file())?, role.bytes_max())?)
    }

    /// Whether anybody has made a repository here.
    pub fn exists(&self) -> Result<bool, RepositoryError> {
        Ok(!Commit::numbers(self.storage.as_ref())?.is_empty() || self.unnumbered(Role::Root)?.is_some())
    }

    /// What is committed.
    pub fn committed(&self) -> Result<TrustedSet, RepositoryError> {
        Ok(self.head()?.set)
    }

    /// What the repository is now.
    pub fn head(&self) -> Result<Head, RepositoryError> {
        loop {
            let Some(commit) = Commit::newest(self.storage.as_ref())? else {
                let set = self.served()?;
                return Ok(Head { number: 0, set, commit: None });
            };
            let served = self.unnumbered(Role::Timestamp)?;
            let newer = served.as_deref().and_then(version) > version(commit.timestamp.as_bytes());
            // A timestamp is derived after its commit: if it is of one made just now, that one is there to be read.
            if newer && Commit::numbers(self.storage.as_ref())?.last() != Some(&commit.number) {
                continue;
            }
            return self.newest(commit, newer);
        }
    }

    /// The newer of a commit and what is served, if the latter was made by a program that makes no commits.
    fn newest(&self, commit: Commit, served_is_newer: bool) -> Result<Head, RepositoryError> {
        let number = commit.number;
        let set = match self.proven_of(&commit) {
            Ok(set) => set,
            // That program may have written over a file of the commit.
            Err(error) if served_is_newer => {
                let set = self.served().map_err(|_| error)?;
                return Ok(Head { number, set, commit: None });
            }
            Err(error) => return Err(error),
        };
        if served_is_newer {
            let update = Update::start(Start::FromSet(set.clone()), NEVER_EXPIRED);
            match self.refresh(update, &BTreeMap::new()) {
                Ok(set) => return Ok(Head { number, set, commit: None }),
                Err(error) => {
                    let path = self.path();
                    tracing::warn!(repository = %path.display(), %error, "timestamp.json is newer than the newest commit, but does not verify: the commit counts");
                }
            }
        }
        Ok(Head { number, set, commit: Some(commit) })
    }

    /// What the unnumbered files lead to.
    fn served(&self) -> Result<TrustedSet, RepositoryError> {
        let root = self.unnumbered(Role::Root)?;
        let root = root.ok_or_else(|| RepositoryError::NotARepository { path: self.path() })?;
        let start = Start::FromAnchor(TrustAnchor::RootFile(root));
        self.refresh(Update::start(start, NEVER_EXPIRED), &BTreeMap::new())
    }

    /// What a commit made, verified now or when it was met before.
    fn proven_of(&self, commit: &Commit) -> Result<TrustedSet, RepositoryError> {
        let known = self.proven.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, set)) = known.filter(|(known, _)| known == commit)
            // What was damaged meanwhile is found out by its hash, and named by the full check.
            && commit.files.values().all(|source| self.source(source).is_ok())
        {
            return Ok(set);
        }
        let set = self.of_commit(commit)?;
        self.remember(commit, &set);
        Ok(set)
    }

    fn remember(&self, commit: &Commit, set: &TrustedSet) {
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some((commit.clone(), set.clone()));
    }

    /// What a commit made, verified.
    pub fn of_commit(&self, commit: &Commit) -> Result<TrustedSet, RepositoryError> {
        let mut files = BTreeMap::new();
        files.insert(layout::metadata(Role::Timestamp.file())?, Bytes::from(commit.timestamp.clone()));
        for (file, source) in commit.files.iter().filter(|(_, source)| source.from.starts_with(layout::STAGED)) {
            files.insert(layout::metadata(file)?, self.source(source)?);
        }
        let root = TrustAnchor::RootFile(commit.root.clone().into());
        self.refresh(Update::start(Start::FromAnchor(root), NEVER_EXPIRED), &files)
    }

    fn source(&self, source: &Source) -> Result<Bytes, RepositoryError> {
        let found = self.storage.read(&DocumentName::new(&source.from)?, source.length)?;
        let found = found.filter(|content| source.is(content));
        found.ok_or_else(|| self.damaged(&format!("{} is missing or is not what the commit says", source.from)))
    }

    /// Drives `update` over `drafts` and, where they have nothing, what is stored.
    pub fn refresh(
        &self,
        mut update: Update,
        drafts: &BTreeMap<DocumentName, Bytes>,
    ) -> Result<TrustedSet, RepositoryError> {
        while let Step::Want(want) = update.next() {
            let name = DocumentName::new(&format!("{}/{}", layout::SERVED, want.name))?;
            let found = match drafts.get(&name) {
                Some(bytes) => Some(bytes.clone()),
                None => self.storage.read(&name, want.bytes_max)?,
            };
            update.supply(found.map_or(Answer::NotFound, Answer::Found)).map_err(|e| self.at(e))?;
        }
        update.finish().map_err(|e| self.at(e))
    }

    /// The document of a targets file that a snapshot lists; nothing for files that are no roles.
    pub fn listed_document(
        &self,
        set: &TrustedSet,
        listed: &str,
        version: u32,
    ) -> Result<Option<DocumentName>, RepositoryError> {
        let role = listed.strip_suffix(".json").and_then(|name| name.parse::<RoleName>().ok());
        let file = match role {
            Some(role) => role.file(),
            None if listed == Role::Targets.file() => listed.to_owned(),
            None => return Ok(None),
        };
        let name = if set.root().consistent_snapshot() {
            layout::numbered_metadata(&file, version)?
        } else {
            layout::metadata(&file)?
        };
        Ok(Some(name))
    }

    /// The entries of every delegated role that a set's snapshot lists, as they are stored: nothing is verified, because more
    /// than is offered does no harm where this is asked, and less would.
    fn delegated_entries(&self, set: &TrustedSet) -> Result<Map<String, Value>, RepositoryError> {
        let mut entries = Map::new();
        if set.targets().is_none_or(|targets| targets.delegations().is_none()) {
            return Ok(entries);
        }
        for (listed, meta) in set.snapshot().into_iter().flat_map(|snapshot| snapshot.meta()) {
            if listed == Role::Targets.file() {
                continue;
            }
            let Some(name) = self.listed_document(set, listed, meta.version)? else { continue };
            let bytes = self.storage.read(&name, Role::Targets.bytes_max())?;
            let signed = bytes.as_deref().and_then(roles::signed_part);
            match signed.and_then(|mut signed| signed.remove("targets")) {
                Some(Value::Object(targets)) => entries.extend(targets),
                _ => return Err(self.damaged(&format!("{} is missing or is no targets file", name.as_str()))),
            }
        }
        Ok(entries)
    }

    /// When the first file expires that the keys of targets sign: the one at the top, or a hash bin. Nothing is verified: this
    /// is for signing in time. Each file is read once.
    pub fn targets_expire(&self, set: &TrustedSet) -> Result<Option<UnixSeconds>, RepositoryError> {
        let Some(top) = set.targets() else { return Ok(None) };
        let (Some(bins), Some(snapshot)) = (profile::bins_of(set), set.snapshot()) else {
            return Ok(Some(top.expires()));
        };
        let mut known = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = top.expires();
        for role in (0..bins.count()).map(|bin| bins.role(bin)) {
            let Some(version) = snapshot.meta().get(&role.listed_as()).map(|meta| meta.version) else { continue };
            let expires = match known.get(role.as_str()) {
                Some((of, expires)) if *of == version => Some(*expires),
                _ => {
                    let name = self.listed_document(set, &role.listed_as(), version)?;
                    let bytes = name.map(|name| self.read(&name, Role::Targets.bytes_max())).transpose()?.flatten();
                    bytes.and_then(|bytes| expires(&bytes))
                }
            };
            // A bin that is not there or damaged is for others to find.
            let Some(expires) = expires else { continue };
            known.insert(role.as_str().to_owned(), (version, expires));
            first = first.min(expires);
        }
        Ok(Some(first))
    }

    /// Every package that a set offers, delegated roles included: name and package hash. Other targets are left out.
    pub fn packages_of(&self, set: &TrustedSet) -> Result<BTreeMap<String, BlobId>, RepositoryError> {
        let mut packages = gate::packages_in(&self.delegated_entries(set)?);
        let targets = set.targets().into_iter().flat_map(|targets| targets.iter());
        packages.extend(targets.filter_map(|(name, target)| Some((name.as_str().to_owned(), target.merkle()?))));
        Ok(packages)
    }

    /// Names and hashes, in hex, of every target of a set, delegated roles included; a target may have several.
    pub fn target_hashes_of(&self, set: &TrustedSet) -> Result<Vec<(String, String)>, RepositoryError> {
        let mut hashes = Vec::new();
        for (name, entry) in self.delegated_entries(set)? {
            let listed = entry.get("hashes").and_then(Value::as_object).into_iter().flat_map(|listed| listed.values());
            hashes.extend(listed.filter_map(|hash| Some((name.clone(), hash.as_str()?.to_owned()))));
        }
        for (name, target) in set.targets().into_iter().flat_map(|targets| targets.iter()) {
            let sha256 = target.hashes.sha256.as_ref().map(|hash| hex(hash));
            let sha512 = target.hashes.sha512.as_ref().map(|hash| hex(hash));
            hashes.extend([sha256, sha512].into_iter().flatten().map(|hash| (name.as_str().to_owned(), hash)));
        }
        Ok(hashes)
    }

    /// The version after `previous`: one more, or the time if that is larger; never one whose numbered file is there,
    /// because a crashed publish may have left one that somebody has cached for good.
    pub fn next_version(&self, file: &str, previous: u32, terms: &Terms) -> Result<u32, RepositoryError> {
        let full = || RepositoryError::OutOfRange(format!("the version of {file} cannot grow beyond {previous}"));
        let seen = terms.above.map_or(0, |above| match Role::ALL.into_iter().find(|role| role.file() == file) {
            Some(Role::Targets) => above.targets,
            Some(Role::Snapshot) => above.snapshot,
            Some(Role::Timestamp) => above.timestamp,
            Some(Role::Root) | None => 0,
        });
        let mut version = previous.max(seen).checked_add(1).ok_or_else(full)?;
        if terms.time_versioning
            && file != Role::Root.file()
            && let Ok(now) = u32::try_from(terms.now.0)
        {
            version = version.max(now);
        }
        while self.has_numbered(file, version)? {
            version = version.checked_add(1).ok_or_else(full)?;
        }
        Ok(version)
    }

    /// Whether a file of this number is there, visible or left by a crash.
    pub fn has_numbered(&self, file: &str, version: u32) -> Result<bool, RepositoryError> {
        Ok(self.storage.length(&layout::numbered_metadata(file, version)?)?.is_some())
    }

    /// Makes a draft the repository's next set after commit `previous` (0 if it is the first). Nothing, and nothing has
    /// changed for anybody, if another publisher was first: draft again from the new head.
    ///
    /// Files with numbers of their own come first, since nobody looks for them yet; but a new root is found by its number,
    /// so it waits in the commit.
    pub fn commit(
        &self,
        previous: u64,
        draft: &Draft,
        now: UnixSeconds,
        unproven: Option<Unproven>,
    ) -> Result<Option<Commit>, RepositoryError> {
        let mut sources = BTreeMap::new();
        let mut fixed = Vec::new();
        let before = self.proven.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, bytes) in draft.set.files() {
            let top = Role::ALL.into_iter().find(|role| role.file() == name);
            let from = match top.map(|role| (role, draft.set.version(role))) {
                Some((Role::Root | Role::Timestamp, _)) => continue,
                Some((_, Some(version))) if draft.numbered => layout::numbered_metadata(&name, version)?,
                // Nobody asks for a delegated role without its number, where there are numbers.
                None if draft.numbered => continue,
                _ => layout::staged(&hex(&sha256(bytes)))?,
            };
            let kept = before.as_ref().and_then(|(commit, set)| same_source(commit, set, &name, &from, bytes));
            sources.insert(name.into_owned(), kept.unwrap_or_else(|| Source::of(&from, bytes)));
            if !draft.numbered {
                fixed.push((from, bytes.clone()));
            }
        }
        if draft.numbered {
            for file in draft.files.iter().filter(|file| !file.is(Role::Root) && !file.is(Role::Timestamp)) {
                fixed.push((layout::numbered_metadata(&file.file, file.version)?, file.bytes.clone()));
            }
        }
        let made = self.storage.create_all(&fixed)?;
        for ((name, content), _) in fixed.iter().zip(made).filter(|(_, made)| !made) {
            if self.storage.read(name, content.len() as u64).ok().flatten().as_ref() != Some(content) {
                // The number was taken by a publisher that is at work now, or was when it crashed.
                return Ok(None);
            }
        }
        let file = |role: Role| {
            let found = draft.set.files().find(|(name, _)| *name == role.file()).map(|(_, bytes)| bytes.clone());
            found.ok_or_else(|| self.damaged("a draft is not whole"))
        };
        let new = NewCommit {
            number: previous + 1,
            time: now,
            timestamp: file(Role::Timestamp)?,
            root: file(Role::Root)?,
            root_version: draft.set.root().version(),
            files: sources,
            offers: draft.set.snapshot().map(offers).ok_or_else(|| self.damaged("a draft has no snapshot"))?,
            unproven,
        };
        let commit = Commit::make(self.storage.as_ref(), new)?;
        if let Some(commit) = &commit {
            self.remember(commit, &draft.set);
            self.derive(commit)?;
        }
        Ok(commit)
    }

    /// The unnumbered files, and the numbered root, that are not what a commit says; in the order in which they become
    /// visible, `timestamp.json` last.
    fn underived(&self, commit: &Commit) -> Result<Vec<(DocumentName, Bytes)>, RepositoryError> {
        let differs = |name: &DocumentName, content: &[u8]| {
            // Too long to be read is different too.
            self.storage.read(name, content.len() as u64).ok().flatten().is_none_or(|there| there != content)
        };
        let root = Bytes::from(commit.root.clone());
        let mut derived = vec![
            (layout::numbered_metadata(Role::Root.file(), commit.root_version)?, root.clone()),
            (layout::metadata(Role::Root.file())?, root),
        ];
        derived.retain(|(name, content)| differs(name, content));
        for (file, source) in &commit.files {
            let name = layout::metadata(file)?;
            let there = self.storage.read(&name, source.length).ok().flatten();
            if !there.is_some_and(|content| source.is(&content)) {
                derived.push((name, self.source(source)?));
            }
        }
        let timestamp = layout::metadata(Role::Timestamp.file())?;
        if differs(&timestamp, commit.timestamp.as_bytes()) {
            derived.push((timestamp, commit.timestamp.clone().into()));
        }
        Ok(derived)
    }

    /// Brings the unnumbered files in line with the newest commit. Whoever calls this holds the lock; where there are no
    /// locks, the last to look for a newer commit has the last word.
    fn derive(&self, commit: &Commit) -> Result<(), RepositoryError> {
        let mut commit = commit.clone();
        loop {
            self.storage.replace_all(&self.underived(&commit)?)?;
            match Commit::newest(self.storage.as_ref())? {
                Some(newest) if newest.number > commit.number => commit = newest,
                _ => return Ok(()),
            }
        }
    }

    /// Repairs what a crash between commit and derived files, or another program, left in the unnumbered files. The caller
    /// holds the lock.
    pub fn heal(&self, head: &Head) -> Result<(), RepositoryError> {
        head.commit.as_ref().map_or(Ok(()), |commit| self.derive(commit))
    }

    /// Whether the unnumbered files are what the head says.
    pub fn is_derived(&self, head: &Head) -> Result<bool, RepositoryError> {
        head.commit.as_ref().map_or(Ok(true), |commit| Ok(self.underived(commit)?.is_empty()))
    }

    pub fn damaged(&self, reason: &str) -> RepositoryError {
        RepositoryError::Damaged { path: self.path(), reason: reason.to_owned() }
    }
}

/// What a commit said of a file that is still the very same memory, so that it need not be hashed again.
fn same_source(commit: &Commit, set: &TrustedSet, name: &str, from: &DocumentName, bytes: &Bytes) -> Option<Source> {
    let (_, known) = set.files().find(|(known, _)| *known == name)?;
    let same = known.as_ptr() == bytes.as_ptr() && known.len() == bytes.len();
    commit.files.get(name).filter(|source| same && source.from == from.as_str()).cloned()
}

/// The version that a metadata file claims; nothing of it is verified.
fn version(bytes: &[u8]) -> Option<u64> {
    roles::signed_part(bytes)?.get("version")?.as_u64()
}

/// When a metadata file claims to expire; nothing of it is verified.
fn expires(bytes: &[u8]) -> Option<UnixSeconds> {
    #[derive(serde::Deserialize)]
    struct File {
        signed: Signed,
    }
    #[derive(serde::Deserialize)]
    struct Signed {
        expires: String,
    }
    let file: File = serde_json::from_slice(bytes).ok()?;
    utc::parse(&file.signed.expires)
}

/// Hash over what a snapshot lists: a line for each file.
fn offers(snapshot: &Snapshot) -> String {
    let mut lines = String::new();
    for (name, meta) in snapshot.meta() {
        let (version, length) = (meta.version.to_string(), meta.length.unwrap_or(0).to_string());
        [name, " ", &version, " ", &length, " "].into_iter().for_each(|part| lines.push_str(part));
        let hashes = meta.hashes.iter().flat_map(|hashes| [&hashes.sha256, &hashes.sha512]).flatten();
        hashes.for_each(|hash| lines.push_str(&hex(hash)));
        lines.push('\n');
    }
    hex(&sha256(lines.as_bytes()))
}
