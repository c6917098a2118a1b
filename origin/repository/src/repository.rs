//! [`Repository`]: one on-disk repository, opened; making one, reading it, and signing again what is about to expire.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{KeyId, PublicKey, RepoConfig, Role, TargetDescription, TargetName, TrustedSet};
use colibri_store::{Disk, OsDisk};

use crate::blobs::BlobFolder;
use crate::commit::Unproven;
use crate::draft::Change;
use crate::error::RepositoryError;
use crate::gate::{self, Pass};
use crate::keys::KeyFolder;
use crate::layout;
use crate::metadata::{MetadataFolder, Terms};
use crate::roles::{self, Expiries};
use crate::storage::{LocalStorage, Storage};

/// A repository in a folder. Cheap to clone; every method reads the folder afresh.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) dir: PathBuf,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) keys: KeyFolder,
    pub(crate) metadata: MetadataFolder,
    pub(crate) blobs: BlobFolder,
    pub(crate) expiries: Expiries,
}

/// How to make a repository.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The time.
    pub now: UnixSeconds,
    /// Versions of targets, snapshot and timestamp are seconds since 1970.
    pub time_versioning: bool,
    /// Folder of existing key files, one per role; without it new keys are made in `DIR/keys`.
    pub keys: Option<PathBuf>,
    /// How long what is signed stays valid.
    pub expiries: Expiries,
}

impl CreateOptions {
    /// New keys, versions counted from 1, expiries of the real tools.
    pub fn new(now: UnixSeconds) -> Self {
        Self { now, time_versioning: false, keys: None, expiries: Expiries::default() }
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
    pub fn create(dir: &Path, options: CreateOptions) -> Result<Self, RepositoryError> {
        Self::create_on(Arc::new(OsDisk), dir, options)
    }

    pub(crate) fn create_on(disk: Arc<dyn Disk>, dir: &Path, options: CreateOptions) -> Result<Self, RepositoryError> {
        let storage = Arc::new(LocalStorage::open(disk, dir)?);
        Self::create_in(storage, options)
    }

    pub(crate) fn create_in(storage: Arc<dyn Storage>, options: CreateOptions) -> Result<Self, RepositoryError> {
        let given = options.keys.is_some();
        let mut repository = Self::at(storage, options.keys);
        repository.expiries = options.expiries;
        let _lock = repository.storage.lock()?;
        let exists = || RepositoryError::Exists { path: repository.dir.clone() };
        if repository.metadata.exists()? {
            return Err(exists());
        }
        let mut keys = Vec::new();
        for role in Role::ALL {
            let mut loaded = repository.keys.load(role)?;
            // Keys that an interrupted `create` left are used again: nothing was signed with them that anybody saw.
            if loaded.is_empty() && !given {
                loaded.push(repository.keys.generate(role)?);
            }
            if loaded.is_empty() {
                let path = repository.keys.dir().join(role.file());
                return Err(RepositoryError::KeyFile { path, reason: "it is missing or holds no key" });
            }
            keys.extend(loaded.into_iter().map(|key| (role, key)));
        }
        let terms = Terms { now: options.now, time_versioning: options.time_versioning, expiries: repository.expiries };
        let draft = repository.metadata.first_draft(&keys, roles::first_root(&keys), &terms)?;
        repository.metadata.commit(0, &draft, options.now, None)?.ok_or_else(exists)?;
        Ok(repository)
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
        let is_there = |path: &str| dir.join(path).exists();
        if !is_there(layout::COMMITS) && !is_there(&format!("{}/{}", layout::SERVED, Role::Root.file())) {
            return Err(RepositoryError::NotARepository { path: dir.to_owned() });
        }
        Self::open_on(Arc::new(OsDisk), dir, keys)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, dir: &Path, keys: Option<PathBuf>) -> Result<Self, RepositoryError> {
        Self::open_in(Arc::new(LocalStorage::open(disk, dir)?), keys)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, keys: Option<PathBuf>) -> Result<Self, RepositoryError> {
        let repository = Self::at(storage, keys);
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

    pub(crate) fn at(storage: Arc<dyn Storage>, keys: Option<PathBuf>) -> Self {
        let dir = storage.place().to_owned();
        Self {
            keys: KeyFolder::new(keys.unwrap_or_else(|| dir.join(layout::KEYS))),
            metadata: MetadataFolder::new(storage.clone()),
            blobs: BlobFolder::new(storage.clone()),
            expiries: Expiries::default(),
            dir,
            storage,
        }
    }

    /// This repository with other expiries for what is signed from now on.
    #[must_use]
    pub fn with_expiries(mut self, expiries: Expiries) -> Self {
        self.expiries = expiries;
        self
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

    /// Versions of what is committed.
    ///
    /// # Errors
    /// The metadata on disk is damaged.
    pub fn versions(&self) -> Result<Versions, RepositoryError> {
        Ok(Versions::of(&self.metadata.committed()?))
    }

    /// Signs snapshot and timestamp again, and root and targets too where they would expire before the new timestamp and
    /// their keys are here.
    ///
    /// # Errors
    /// A key is missing, or the disk refuses.
    pub fn refresh(&self, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        self.refresh_with(now, None)
    }

    /// Like [`Self::refresh`]; with a reason, also if blobs of what is offered are absent or wrong. The snapshot says so to
    /// everybody.
    ///
    /// # Errors
    /// A key is missing, blobs are not ready and there is no reason, or the disk refuses.
    pub fn refresh_with(&self, now: UnixSeconds, because: Option<&str>) -> Result<Versions, RepositoryError> {
        let terms = Terms { now, time_versioning: false, expiries: self.expiries };
        let pass = Pass { now, because, look_at_all: true };
        self.transact(&terms, &pass, &mut |head| {
            let committed = &head.set;
            let horizon = self.expiries.at(Role::Timestamp, now);
            let root = committed.root();
            let sign_root = root.expires() <= horizon && self.keys.can_sign(root, Role::Root);
            let mut change = Change { root: sign_root, targets: None, unproven: None };
            let targets_end = committed.targets().is_some_and(|targets| targets.expires() <= horizon);
            if targets_end && self.keys.can_sign(root, Role::Targets) {
                change.targets = Some(self.metadata.entries(committed)?);
            }
            Ok(change)
        })
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
        let committed = self.metadata.committed()?;
        self.blobs.receipts.read_new()?;
        let Some(targets) = committed.targets() else { return Ok(Vec::new()) };
        let entry = |(name, target): (TargetName, TargetDescription)| {
            let (name, variant) = name.as_str().split_once('/')?;
            let hash = target.merkle()?;
            let length = target.size().unwrap_or(target.length);
            let modified = self.blobs.modified(hash);
            Some(PackageEntry { name: name.to_owned(), variant: variant.to_owned(), hash, length, modified })
        };
        Ok(targets.iter().filter_map(entry).collect())
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
