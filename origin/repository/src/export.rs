//! [`export`]: what a repository offers, as a folder that any static web server serves to a device.
//!
//! Every blob is proven on the way, and `timestamp.json` is written last. Nothing is signed here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_metadata::{Role, TrustedSet};
use colibri_package::delivery::Encoding;
use colibri_store::disk::Disk;
use colibri_store::{DocumentName, Documents, OsDisk};

use crate::error::RepositoryError;
use crate::folders::{Folders, read_capped};
use crate::limits;
use crate::repository::Versions;
use crate::transfer::{
    CopyMode, Held, TransferProgress, TransferReport, place, put_changed, take_document, take_target,
};

/// How to export.
#[derive(Clone, Copy, Default)]
pub struct Export<'a> {
    /// How files come over.
    pub copy_mode: CopyMode,
    /// Writes `repo.config`: the host in `fuchsia-pkg` URLs, and the address where the folder will be served.
    pub repo_config: Option<(&'a str, &'a str)>,
    /// Hears how far it is, on the calling thread.
    pub progress: Option<&'a dyn Fn(TransferProgress)>,
}

/// Writes what `dir` offers into the folder `out`, so that any static web server serves it to a device: the chain of roots
/// and the current metadata, numbered and not, `blobs/1/HASH`, leaf lists, `targets/`. What an earlier export left is used
/// again, once it has proven to be right.
///
/// # Errors
/// The repository is damaged, a folder cannot be written.
pub fn export(dir: &Path, out: &Path, options: &Export<'_>) -> Result<TransferReport, RepositoryError> {
    let folders = Folders::find(dir)?;
    let held = Held::of(&folders, folders.trusted()?)?;
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let documents = Documents::open(disk.clone(), out)?;
    for folder in ["blobs", "blobs/1", "blobs/2", "blobs/leaves"] {
        let path = out.join(folder);
        fs::create_dir_all(&path).map_err(|error| RepositoryError::read(&path, error))?;
    }
    let exported = Folders::at(out.to_owned(), Vec::new());
    let to = Outside { folders: &folders, exported, disk, documents: documents.clone(), mode: options.copy_mode };
    let blobs_new = held.each_blob(&folders, options.progress, |id| to.take_blob(id))?;
    for package in &held.listed {
        take_target(&folders, package, &documents, "")?;
    }
    for document in &held.documents {
        take_document(&folders, document, &documents, "")?;
    }
    export_metadata(&folders, &held.set, &documents, options)?;
    readable(out)?;
    Ok(TransferReport {
        packages: held.listed.len(),
        blobs: held.reach.blobs.len(),
        blobs_new,
        versions: Versions::of(&held.set),
    })
}

/// A folder that is exported into.
struct Outside<'a> {
    folders: &'a Folders,
    exported: Folders,
    disk: Arc<dyn Disk>,
    documents: Documents,
    mode: CopyMode,
}

impl Outside<'_> {
    /// Every delivery form of one blob, proven, and its leaf list; true if a form was not there.
    fn take_blob(&self, id: BlobId) -> Result<Result<bool, String>, RepositoryError> {
        let mut outcome = Err("it is not there as a delivery blob".to_owned());
        for form in self.folders.forms(id)? {
            let Encoding::Delivery(ty) = form.encoding else { continue };
            let name = DocumentName::new(&format!("blobs/{ty}/{id}"))?;
            let before = self.exported.forms(id)?.into_iter().find(|there| there.encoding == form.encoding);
            let proven = before.and_then(|there| there.prove().ok());
            let was_new = proven.is_none();
            let tree = match proven.map_or_else(|| form.prove(), Ok) {
                Ok(tree) => tree,
                Err(reason) => return Ok(Err(reason)),
            };
            if was_new {
                self.documents.remove(&name)?;
                place(self.disk.as_ref(), &self.documents, &form, &name, self.mode)?;
            }
            put_changed(&self.documents, &DocumentName::new(&format!("blobs/leaves/{id}"))?, &tree.leaves.wire())?;
            outcome = Ok(was_new);
        }
        Ok(outcome)
    }
}

fn export_metadata(
    folders: &Folders,
    set: &TrustedSet,
    documents: &Documents,
    options: &Export<'_>,
) -> Result<(), RepositoryError> {
    let read = |name: &str| read_capped(&folders.metadata.join(name), limits::MANIFEST_BYTES_MAX);
    let put = |name: &str, bytes: &Bytes| put_changed(documents, &DocumentName::new(name)?, bytes);
    for name in folders.metadata_files()?.iter().filter(|name| name.ends_with(".root.json")) {
        if let Some(bytes) = read(name)? {
            put(name, &bytes)?;
        }
    }
    // Everything that the snapshot names, delegated roles too.
    let named: Vec<(String, u32)> = set
        .snapshot()
        .into_iter()
        .flat_map(|snapshot| snapshot.meta())
        .map(|(file, meta)| (file.clone(), meta.version))
        .collect();
    for (file, version) in &named {
        for name in [format!("{version}.{file}"), file.clone()] {
            if let Some(bytes) = read(&name)? {
                put(&name, &bytes)?;
            }
        }
    }
    let files: BTreeMap<Cow<'_, str>, &Bytes> = set.files().collect();
    for role in [Role::Root, Role::Targets, Role::Snapshot] {
        if let (Some(bytes), Some(version)) = (files.get(role.file()), set.version(role)) {
            put(&role.numbered_file(version), bytes)?;
            put(role.file(), bytes)?;
        }
    }
    if let Some((host, mirror_url)) = options.repo_config {
        let config = colibri_metadata::RepoConfig::from_root(host, set.root(), mirror_url)?;
        let text = serde_json::to_vec(&config).map_err(|error| RepositoryError::OutOfRange(error.to_string()))?;
        put("repo.config", &text.into())?;
    }
    files.get(Role::Timestamp.file()).map_or(Ok(()), |bytes| put(Role::Timestamp.file(), bytes))
}

/// A web server runs as somebody else: folders and files are made readable for all, as far as they are ours.
fn readable(out: &Path) -> Result<(), RepositoryError> {
    let mut open: Vec<PathBuf> = vec![out.to_owned()];
    while let Some(path) = open.pop() {
        let failed = |error| RepositoryError::read(&path, error);
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        let wanted = if found.is_dir() { 0o755 } else { 0o644 };
        if found.is_symlink() {
            continue;
        }
        if found.permissions().mode() & wanted != wanted {
            let mode = fs::Permissions::from_mode(found.permissions().mode() | wanted);
            fs::set_permissions(&path, mode).map_err(failed)?;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&path).map_err(failed)? {
                open.push(entry.map_err(failed)?.path());
            }
        }
    }
    Ok(())
}
