//! Whole repositories brought into our folders, with their signed metadata byte for byte: import of what the real tools
//! made, and what it has in common with `export`.
//!
//! Every blob is proven on the way. Metadata is written when all blobs are there, `timestamp.json` (on a first import
//! `root.json`) last: whoever reads meanwhile sees the old state. Nothing is signed here.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, merkle};
use colibri_metadata::{Role, Start, TrustedSet};
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_store::disk::Disk;
use colibri_store::{DocumentName, Documents, OsDisk};

use crate::bundle::RepositorySource;
use crate::error::RepositoryError;
use crate::folders::{Folders, Form, Listed, ListedDocument, Reach, read_capped};
use crate::keys::KeySources;
use crate::repository::{Repository, Versions};
use crate::storage::LocalStorage;
use crate::{layout, limits, parallel};

/// Most missing blobs named in one error.
const LACKING_NAMED_MAX: usize = 10;

/// How files come into another folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Copied.
    #[default]
    Copy,
    /// Another name for the same file where both folders are on one file system, else copied. Whoever writes into the one
    /// changes the other.
    HardLink,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferProgress {
    /// Blobs that are there.
    pub blobs_done: usize,
    /// All blobs.
    pub blobs_total: usize,
}

/// How to transfer.
#[derive(Clone, Copy, Default)]
pub struct Transfer<'a> {
    /// How files come over.
    pub copy_mode: CopyMode,
    /// Import: whether private keys that belong to the source come too.
    pub with_keys: bool,
    /// Hears how far it is, on the calling thread.
    pub progress: Option<&'a dyn Fn(TransferProgress)>,
}

/// What was transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferReport {
    /// Packages offered.
    pub packages: usize,
    /// Distinct blobs of these packages.
    pub blobs: usize,
    /// Those that were not there before.
    pub blobs_new: usize,
    /// Versions of the metadata.
    pub versions: Versions,
}

/// What a source has.
pub(crate) struct Held {
    pub set: TrustedSet,
    pub listed: Vec<Listed>,
    /// Targets that are no packages.
    pub documents: Vec<ListedDocument>,
    pub reach: Reach,
}

impl Held {
    /// Reads a source. A package whose meta.far is missing or damaged is an error here: nobody knows what it needs.
    pub fn of(folders: &Folders, set: TrustedSet) -> Result<Self, RepositoryError> {
        let listed = folders.listed(&set);
        let reach = Reach::of(folders, &listed)?;
        let documents = folders.documents(&set);
        Ok(Self { set, listed, documents, reach })
    }

    /// The error for blobs that could not be brought over.
    fn lacking(&self, lacking: &BTreeMap<BlobId, String>) -> Result<(), RepositoryError> {
        if lacking.is_empty() {
            return Ok(());
        }
        let users = self.reach.users(&self.listed, &lacking.keys().copied().collect());
        let line = |(id, reason): (&BlobId, &String)| {
            let user = users.get(id).and_then(|users| users.first());
            let user = user.map_or_else(String::new, |(package, path)| format!(" ({path} of {package})"));
            format!("  {id}{user}: {reason}")
        };
        let named = lacking.iter().take(LACKING_NAMED_MAX).map(line).collect::<Vec<_>>().join("\n");
        Err(RepositoryError::Lacking { count: lacking.len(), named })
    }

    /// Brings every blob over with `work`, which says whether it was new, or why it cannot.
    pub fn each_blob(
        &self,
        folders: &Folders,
        progress: Option<&dyn Fn(TransferProgress)>,
        work: impl Fn(BlobId) -> Result<Result<bool, String>, RepositoryError> + Sync,
    ) -> Result<usize, RepositoryError> {
        let with_bytes = |id: &BlobId| Ok((*id, folders.forms(*id)?.iter().map(|form| form.bytes).max().unwrap_or(0)));
        let blobs = self.reach.blobs.iter().map(with_bytes).collect::<Result<Vec<_>, RepositoryError>>()?;
        let mut at = TransferProgress { blobs_done: 0, blobs_total: blobs.len() };
        let (mut new, mut lacking, mut failed) = (0, BTreeMap::new(), None);
        let done = |(id, _): &(BlobId, u64), outcome| {
            match outcome {
                Ok(Ok(was_new)) => new += usize::from(was_new),
                Ok(Err(reason)) => _ = lacking.insert(*id, reason),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            at.blobs_done += 1;
            if let Some(hear) = progress {
                hear(at);
            }
            ControlFlow::Continue(())
        };
        parallel::each(&blobs, |(_, bytes)| *bytes, |(id, _)| work(*id), done);
        failed.map_or(Ok(()), Err)?;
        self.lacking(&lacking)?;
        Ok(new)
    }
}

impl Repository {
    /// Brings a repository of the real tools into `dir`, with its metadata unchanged. A repository that is there already
    /// must be an older state of the same one.
    ///
    /// # Errors
    /// The source's metadata or a blob is damaged or missing, or `dir` holds another repository. What was visible before
    /// stays visible.
    pub fn import(
        source: &RepositorySource,
        dir: &Path,
        options: &Transfer<'_>,
    ) -> Result<TransferReport, RepositoryError> {
        let folders = &source.folders;
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let repository = Self::at(Arc::new(LocalStorage::open(disk.clone(), dir)?), None, KeySources::default())?;
        let _lock = repository.storage.lock()?;
        let first = !repository.metadata.exists()?;
        let set = if first {
            folders.trusted()?
        } else {
            let refuse = |source| RepositoryError::Metadata { path: folders.metadata.clone(), source };
            folders.with_delegated(folders.refresh(Start::FromSet(repository.metadata()?))?.map_err(refuse)?)?
        };
        let held = Held::of(folders, set)?;
        let blobs_new = repository.take_blobs_of(folders, &held, options)?;
        let documents = Documents::open(disk, dir)?;
        for package in &held.listed {
            take_target(folders, package, &documents, &format!("{}/", layout::SERVED))?;
        }
        for document in &held.documents {
            take_document(folders, document, &documents, &format!("{}/", layout::SERVED))?;
        }
        if options.with_keys {
            take_keys(source, &repository)?;
        }
        take_metadata(folders, &documents, first)?;
        Ok(TransferReport {
            packages: held.listed.len(),
            blobs: held.reach.blobs.len(),
            blobs_new,
            versions: repository.versions()?,
        })
    }

    /// Every blob of a source in, proven; how many were not there.
    pub(crate) fn take_blobs_of(
        &self,
        folders: &Folders,
        held: &Held,
        options: &Transfer<'_>,
    ) -> Result<usize, RepositoryError> {
        self.blobs.receipts.read_new()?;
        // A link needs the folder of its name.
        for folder in ["blobs/1", "blobs/2"].map(|folder| self.served_dir().join(folder)) {
            fs::create_dir_all(&folder).map_err(|error| RepositoryError::read(&folder, error))?;
        }
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let documents = Documents::open(disk.clone(), self.dir())?;
        let into = Destination { disk: disk.as_ref(), documents: &documents, mode: options.copy_mode };
        let new = held.each_blob(folders, options.progress, |id| self.take_blob(folders, &into, id))?;
        self.blobs.receipts.flush()?;
        Ok(new)
    }

    /// One blob in, proven; true if it was not there.
    fn take_blob(
        &self,
        folders: &Folders,
        into: &Destination<'_>,
        id: BlobId,
    ) -> Result<Result<bool, String>, RepositoryError> {
        if self.blobs.has_any(id)? {
            return Ok(Ok(false));
        }
        let mut reason = "it is missing".to_owned();
        for form in folders.forms(id)? {
            match form.encoding {
                Encoding::Delivery(ty) => {
                    let name = layout::blob(ty, id)?;
                    place(into.disk, into.documents, &form, &name, into.mode)?;
                    // Reads what was written, and keeps its leaves as the receipt.
                    if self.blobs.has(ty, id)? {
                        return Ok(Ok(true));
                    }
                    into.documents.remove(&name)?;
                    reason = form.prove().err().unwrap_or_else(|| "it changed while it was copied".to_owned());
                }
                // Old tools stored content as it is; devices ask for delivery blobs.
                Encoding::Raw => match form.content() {
                    Ok(content) => {
                        self.blobs.store(&merkle::build(&content), &content, DeliveryType::Type1, None)?;
                        return Ok(Ok(true));
                    }
                    Err(error) => reason = error,
                },
            }
        }
        Ok(Err(reason))
    }
}

/// Where an import goes.
struct Destination<'a> {
    disk: &'a dyn Disk,
    documents: &'a Documents,
    mode: CopyMode,
}

/// Puts a stored form under another name, durably.
pub(crate) fn place(
    disk: &dyn Disk,
    documents: &Documents,
    form: &Form,
    name: &DocumentName,
    mode: CopyMode,
) -> Result<(), RepositoryError> {
    let (source, target) = (&form.path, documents.path(name));
    if mode == CopyMode::HardLink && documents.length(name)?.is_none() && link(disk, source, &target)? {
        return Ok(());
    }
    let mut file = File::open(source).map_err(|error| RepositoryError::read(source, error))?;
    documents.put_from(name, &mut file, limits::BLOB_CONTENT_BYTES_MAX)?;
    Ok(())
}

/// Gives a file a second name, durably; false if the system will not: on another file system, on one without links, or for
/// somebody else's file.
pub(crate) fn link(disk: &dyn Disk, source: &Path, target: &Path) -> Result<bool, RepositoryError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| RepositoryError::read(folder, error))?;
    let file = File::open(source).map_err(|error| RepositoryError::read(source, error))?;
    // Nobody may have made the other name's bytes durable.
    file.sync_all().map_err(|error| RepositoryError::read(source, error))?;
    match disk.hard_link(source, target) {
        Ok(()) => disk.sync_dir(folder).map(|()| true).map_err(|error| RepositoryError::read(folder, error)),
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Ok(false),
        Err(error) => Err(RepositoryError::read(target, error)),
    }
}

/// A meta.far as a TUF target: the source's file, or its content where the source kept none.
pub(crate) fn take_target(
    folders: &Folders,
    package: &Listed,
    documents: &Documents,
    prefix: &str,
) -> Result<(), RepositoryError> {
    let Some(target) = &package.target else { return Ok(()) };
    let name = DocumentName::new(&format!("{prefix}{}", target.display()))?;
    if documents.length(&name)? == Some(package.description.length) {
        return Ok(());
    }
    let content = folders.content(package.hash)?;
    package.description.hashes.check(&content).map_err(|algorithm| RepositoryError::Damaged {
        path: folders.metadata.join(target),
        reason: format!("targets gives {} another {algorithm} than its package hash stands for", package.name),
    })?;
    Ok(documents.put(&name, &content)?)
}

/// A target that is no package, proven; as it lies in the source.
pub(crate) fn take_document(
    folders: &Folders,
    document: &ListedDocument,
    documents: &Documents,
    prefix: &str,
) -> Result<(), RepositoryError> {
    let name = DocumentName::new(&format!("{prefix}{}", document.target.display()))?;
    let length = document.description.length;
    if documents.length(&name)? == Some(length)
        && documents.get(&name, length)?.is_some_and(|there| document.description.is(&there).is_ok())
    {
        return Ok(());
    }
    let path = folders.metadata.join(&document.target);
    let damaged = |reason: String| RepositoryError::Damaged { path: path.clone(), reason };
    let bytes = read_capped(&path, length)?.ok_or_else(|| damaged(format!("target {} is missing", document.name)))?;
    document.description.is(&bytes).map_err(damaged)?;
    Ok(documents.put(&name, &bytes)?)
}

/// The private keys, readable by their owner only. A key file that is there already is never replaced.
fn take_keys(source: &RepositorySource, repository: &Repository) -> Result<(), RepositoryError> {
    let folder = repository.keys.dir();
    fs::create_dir_all(folder).map_err(|error| RepositoryError::read(folder, error))?;
    for (name, path) in &source.keys {
        let key = fs::read(path).map_err(|error| RepositoryError::read(path, error))?;
        let target = folder.join(name);
        let failed = |error| RepositoryError::read(&target, error);
        let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target);
        match open {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            open => {
                let mut file = open.map_err(failed)?;
                io::Write::write_all(&mut file, &key).and_then(|()| file.sync_all()).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// All metadata files, unchanged. The one that makes them visible is last.
fn take_metadata(folders: &Folders, documents: &Documents, first: bool) -> Result<(), RepositoryError> {
    let last = if first { Role::Root.file() } else { Role::Timestamp.file() };
    let mut names: Vec<String> = folders.metadata_files()?.into_iter().collect();
    // Numbered files first: the unnumbered ones name them.
    names.sort_by_key(|name| {
        let numbered = name.starts_with(|first: char| first.is_ascii_digit());
        (name == last, name == Role::Timestamp.file(), !numbered, name.clone())
    });
    for name in names {
        let Some(bytes) = read_capped(&folders.metadata.join(&name), limits::MANIFEST_BYTES_MAX)? else { continue };
        put_changed(documents, &DocumentName::new(&format!("{}/{name}", layout::SERVED))?, &bytes)?;
    }
    // Without the unnumbered root nobody would see that a repository is here.
    let root = layout::metadata(Role::Root.file())?;
    if documents.length(&root)?.is_none() {
        let set = folders.trusted()?;
        if let Some((_, bytes)) = set.files().find(|(name, _)| *name == Role::Root.file()) {
            documents.put(&root, bytes)?;
        }
    }
    Ok(())
}

/// Writes a document unless it is there as it should be.
pub(crate) fn put_changed(documents: &Documents, name: &DocumentName, bytes: &Bytes) -> Result<(), RepositoryError> {
    if documents.length(name)? == Some(bytes.len() as u64)
        && documents.get(name, bytes.len() as u64)?.is_some_and(|there| there == *bytes)
    {
        return Ok(());
    }
    Ok(documents.put(name, bytes)?)
}
