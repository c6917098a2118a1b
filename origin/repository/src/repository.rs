//! [`Repository`]: one on-disk repository, opened; making one, and reading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{KeyId, PublicKey, RepoConfig, Role, TargetDescription, TargetName, TrustedSet};
use colibri_store::{Disk, OsDisk};

use crate::audit::{Act, AuditLog};
use crate::blobs::BlobFolder;
use crate::commit::Unproven;
use crate::draft::Signing;
use crate::error::RepositoryError;
use crate::gate;
use crate::keys::{KeyForm, KeyRing, KeyRole, KeySources, ListedKey};
use crate::metadata::{MetadataFolder, Terms};
use crate::offer;
use crate::profile::Profile;
use crate::roles::{self, Expiries};
use crate::storage::{LocalStorage, Storage};
use crate::{layout, limits, settings};

/// A repository in a folder. Cheap to clone; every method reads the folder afresh.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) dir: PathBuf,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keys: KeyRing,
    pub(crate) metadata: MetadataFolder,
    pub(crate) blobs: BlobFolder,
    pub(crate) expiries: Expiries,
    pub(crate) audit: AuditLog,
    pub(crate) act: Act,
}

/// How to make a repository.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The time.
    pub now: UnixSeconds,
    /// Versions of targets, snapshot and timestamp are seconds since 1970.
    pub time_versioning: bool,
    /// Folder of existing keys of every role; without it new keys are made in `DIR/keys`.
    pub keys: Option<PathBuf>,
    /// Keys besides that folder, and passphrases.
    pub sources: KeySources,
    /// How new keys are written.
    pub form: KeyForm,
    /// How many keys a role gets and how many of them must sign, where that is not one of one. Keys that are there already
    /// count.
    pub counts: Vec<(KeyRole, KeyCount)>,
    /// How long what is signed stays valid; kept for everything that is signed here later.
    pub expiries: Expiries,
    /// Who and why, for the audit log.
    pub act: Act,
    /// The form of the metadata. It stays as it is.
    pub profile: Profile,
}

/// How many keys a role has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCount {
    /// All.
    pub keys: u32,
    /// How many of them must sign.
    pub threshold: u32,
}

impl CreateOptions {
    /// The profile `compat`, one new, unencrypted key per role, versions counted from 1.
    pub fn new(now: UnixSeconds) -> Self {
        Self {
            now,
            time_versioning: false,
            keys: None,
            sources: KeySources::default(),
            form: KeyForm::default(),
            counts: Vec::new(),
            expiries: Expiries::default(),
            act: Act::default(),
            profile: Profile::default(),
        }
    }

    fn count(&self, role: KeyRole) -> Result<KeyCount, RepositoryError> {
        let count = self.counts.iter().rfind(|(of, _)| *of == role).map(|(_, count)| *count);
        let count = count.unwrap_or(KeyCount { keys: 1, threshold: 1 });
        let most = u32::try_from(limits::KEY_FILES_PER_ROLE_MAX).unwrap_or(u32::MAX);
        if count.threshold == 0 || count.threshold > count.keys || count.keys > most {
            let KeyCount { keys, threshold } = count;
            let reason =
                format!("{role} cannot have {keys} keys of which {threshold} sign; there may be 1 to {most} keys");
            return Err(RepositoryError::Ceremony(reason));
        }
        Ok(count)
    }
}

/// Versions of the four roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Root.
    pub root: u32,
    /// Targets.
    pub targets: u32,
    /// Snapshot.
    pub snapshot: u32,
    /// Timestamp.
    pub timestamp: u32,
}

impl Versions {
    pub(crate) fn of(set: &TrustedSet) -> Self {
        let version = |role| set.version(role).unwrap_or(0);
        Self {
            root: version(Role::Root),
            targets: version(Role::Targets),
            snapshot: version(Role::Snapshot),
            timestamp: version(Role::Timestamp),
        }
    }
}

/// A package that a repository offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageEntry {
    /// Name.
    pub name: String,
    /// Variant, `0` for new packages.
    pub variant: String,
    /// Package hash.
    pub hash: BlobId,
    /// Length of the meta.far in bytes.
    pub length: u64,
    /// When its meta.far was stored, as far as the file system tells.
    pub modified: Option<UnixSeconds>,
}

impl Repository {
    /// Makes a repository without packages.
    ///
    /// # Errors
    /// The folder holds one already, a key file is missing or wrong, or the disk refuses.
    #[expect(clippy::needless_pass_by_value, reason = "options are made for one repository")]
    pub fn create(dir: &Path, options: CreateOptions) -> Result<Self, RepositoryError> {
        Self::create_on(Arc::new(OsDisk), dir, &options)
    }

    pub(crate) fn create_on(disk: Arc<dyn Disk>, dir: &Path, options: &CreateOptions) -> Result<Self, RepositoryError> {
        Self::create_in(Arc::new(LocalStorage::open(disk, dir)?), options)
    }

    pub(crate) fn create_in(storage: Arc<dyn Storage>, options: &CreateOptions) -> Result<Self, RepositoryError> {
        let mut repository = Self::at(storage, options.keys.clone(), options.sources.clone())?;
        repository.expiries = options.expiries;
        repository.act = options.act.clone();
        let _lock = repository.storage.lock()?;
        let exists = || RepositoryError::Exists { path: repository.dir.clone() };
        if repository.metadata.exists()? {
            return Err(exists());
        }
        let mut keys = Vec::new();
        for role in Role::ALL {
            let count = options.count(role.into())?;
            keys.push((role, repository.first_keys(role, count, options)?, count.threshold));
        }
        let terms = repository.terms(options.now, options.time_versioning);
        let signing = repository.signing(None, options.now)?;
        let draft = repository.metadata.first_draft(signing, roles::first_root(&keys), options.profile, &terms)?;
        settings::write(repository.storage.as_ref(), options.expiries)?;
        if !repository.audit.append(&draft.audit)? {
            return Err(exists());
        }
        repository.metadata.commit(0, &draft, options.now, None)?.ok_or_else(exists)?;
        Ok(repository)
    }

    /// The public keys of a new role. Keys that an interrupted `create` left are used again: nothing was signed with them
    /// that anybody saw.
    fn first_keys(
        &self,
        role: Role,
        count: KeyCount,
        options: &CreateOptions,
    ) -> Result<Vec<ListedKey>, RepositoryError> {
        let here = self.keys.available(role.into())?;
        let mut keys: Vec<_> = here.iter().map(|signer| signer.key().clone()).collect();
        while options.keys.is_none() && keys.len() < count.keys as usize {
            keys.push(self.keys.generate(role.into(), options.form)?);
        }
        if keys.len() < count.threshold as usize {
            let path = self.keys.dir().join(role.file());
            return Err(RepositoryError::KeyFile {
                path,
                reason: "it is missing, as is ROLE.pem, or holds too few keys",
            });
        }
        Ok(keys)
    }

    /// Opens a repository whose private keys, if any, are in `DIR/keys`.
    ///
    /// # Errors
    /// There is none, or its metadata is damaged.
    pub fn open(dir: &Path) -> Result<Self, RepositoryError> {
        Self::open_with_keys(dir, None)
    }

    /// Opens a repository whose private keys are elsewhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_keys(dir: &Path, keys: Option<PathBuf>) -> Result<Self, RepositoryError> {
        Self::open_with(dir, keys, KeySources::default())
    }

    /// Opens a repository whose private keys come from a folder and from elsewhere, or need a passphrase.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(dir: &Path, keys: Option<PathBuf>, sources: KeySources) -> Result<Self, RepositoryError> {
        let is_there = |path: &str| dir.join(path).exists();
        if !is_there(layout::COMMITS) && !is_there(&format!("{}/{}", layout::SERVED, Role::Root.file())) {
            return Err(RepositoryError::NotARepository { path: dir.to_owned() });
        }
        let storage = LocalStorage::open_wherever_blobs_lie(Arc::new(OsDisk), dir)?;
        Self::open_in(Arc::new(storage), keys, sources)
    }

    #[cfg(test)]
    pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path, keys: Option<PathBuf>) -> Result<Self, RepositoryError> {
        Self::open_in(Arc::new(LocalStorage::open(disk, dir)?), keys, KeySources::default())
    }

    pub(crate) fn open_in(
        storage: Arc<dyn Storage>,
        keys: Option<PathBuf>,
        sources: KeySources,
    ) -> Result<Self, RepositoryError> {
        let repository = Self::at(storage, keys, sources)?;
        repository.heal_if_nobody_is_at_work()?;
        repository.blobs.receipts.read_new()?;
        Ok(repository)
    }

    /// Where a crash came between a commit and what is derived from it, the latter is made good, unless somebody is at work
    /// and will do it, or this program may not write here.
    fn heal_if_nobody_is_at_work(&self) -> Result<(), RepositoryError> {
        if self.metadata.is_derived(&self.metadata.head()?)? {
            return Ok(());
        }
        let healed = match self.storage.try_lock() {
            Ok(Some(_lock)) => self.metadata.head().and_then(|head| self.metadata.heal(&head)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match healed {
            Err(error @ (RepositoryError::Read { .. } | RepositoryError::Store(_))) => {
                tracing::warn!(%error, "the unnumbered metadata is not what the newest commit says, and cannot be written");
                Ok(())
            }
            healed => healed,
        }
    }

    pub(crate) fn at(
        storage: Arc<dyn Storage>,
        keys: Option<PathBuf>,
        sources: KeySources,
    ) -> Result<Self, RepositoryError> {
        let dir = storage.place().to_owned();
        Ok(Self {
            keys: KeyRing::new(keys.unwrap_or_else(|| dir.join(layout::KEYS)), sources),
            metadata: MetadataFolder::new(storage.clone()),
            blobs: BlobFolder::new(storage.clone()),
            expiries: settings::read(storage.as_ref())?,
            audit: AuditLog::new(storage.clone()),
            act: Act::default(),
            dir,
            storage,
        })
    }

    /// This repository with other expiries for what is signed from now on.
    #[must_use]
    pub fn with_expiries(mut self, expiries: Expiries) -> Self {
        self.expiries = expiries;
        self
    }

    /// This repository with somebody who signs, for the audit log.
    #[must_use]
    pub fn with_act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    pub(crate) fn terms(&self, now: UnixSeconds, time_versioning: bool) -> Terms {
        Terms { now, time_versioning, expiries: self.expiries, above: None }
    }

    /// Who signs what follows `committed`.
    pub(crate) fn signing(
        &self,
        committed: Option<&TrustedSet>,
        now: UnixSeconds,
    ) -> Result<Signing<'_>, RepositoryError> {
        Ok(Signing::new(&self.keys, committed, self.audit.begin(committed, &self.act, now)?))
    }

    /// The repository's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder that a server serves.
    pub fn served_dir(&self) -> PathBuf {
        self.dir.join(layout::SERVED)
    }

    /// What is committed, verified; it may have expired.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn metadata(&self) -> Result<TrustedSet, RepositoryError> {
        self.metadata.committed()
    }

    /// The form of its metadata.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn profile(&self) -> Result<Profile, RepositoryError> {
        Ok(Profile::of(&self.metadata.committed()?))
    }

    /// Versions of what is committed.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn versions(&self) -> Result<Versions, RepositoryError> {
        Ok(Versions::of(&self.metadata.committed()?))
    }

    /// What the signed snapshot says of blobs that are offered though they were not proven; nothing if all were.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn unproven(&self) -> Result<Option<Unproven>, RepositoryError> {
        Ok(gate::let_through(&self.metadata.committed()?))
    }

    /// The packages offered, by name and variant. Targets that are no packages are left out.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn packages(&self) -> Result<Vec<PackageEntry>, RepositoryError> {
        let committed = self.metadata.with_all_bins(self.metadata.committed()?, &BTreeMap::new())?;
        self.blobs.receipts.read_new()?;
        let entry = |(name, target): (TargetName, TargetDescription)| {
            let (name, variant) = name.as_str().split_once('/')?;
            let hash = target.merkle()?;
            let length = target.size().unwrap_or(target.length);
            let modified = self.blobs.modified(hash);
            Some(PackageEntry { name: name.to_owned(), variant: variant.to_owned(), hash, length, modified })
        };
        let mut packages: Vec<PackageEntry> = offer::targets_of(&committed).filter_map(entry).collect();
        packages.sort_unstable_by(|left, right| (&left.name, &left.variant).cmp(&(&right.name, &right.variant)));
        Ok(packages)
    }

    /// The exact bytes of the newest root, for a client that is set up by hand.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn trusted_root_bytes(&self) -> Result<Bytes, RepositoryError> {
        let committed = self.metadata.committed()?;
        let root = committed.files().find(|(name, _)| *name == Role::Root.file()).map(|(_, bytes)| bytes.clone());
        root.ok_or_else(|| RepositoryError::NotARepository { path: self.dir.clone() })
    }

    /// The root keys.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn root_keys(&self) -> Result<Vec<PublicKey>, RepositoryError> {
        Ok(self.metadata.committed()?.root().public_keys(Role::Root).collect())
    }

    /// The ids of the root keys.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn root_key_ids(&self) -> Result<Vec<KeyId>, RepositoryError> {
        Ok(self.metadata.committed()?.root().role_keys(Role::Root).key_ids.clone())
    }

    /// What to tell a device: the repository is called `fuchsia-pkg://HOST` and served at `mirror_url`.
    ///
    /// # Errors
    /// Host or address are not such, or the metadata on disk is damaged.
    pub fn device_config(&self, host: &str, mirror_url: &str) -> Result<RepoConfig, RepositoryError> {
        Ok(RepoConfig::from_root(host, self.metadata.committed()?.root(), mirror_url)?)
    }
}
