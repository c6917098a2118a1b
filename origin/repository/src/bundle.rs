//! [`sources`]: the repositories that a folder holds: one of the real tools' repository folders, or all repositories of a
//! product bundle (reference "Fuchsia formats" §5, Product bundle).

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use colibri_common::BlobId;
use colibri_metadata::{Role, Start, TrustAnchor};
use serde::Deserialize;

use crate::error::RepositoryError;
use crate::folders::{Folders, ListedDocument, Reach, read_capped};
use crate::keys::key_files;
use crate::{layout, limits};

/// The file that makes a folder a product bundle.
const BUNDLE: &str = "product_bundle.json";

/// A repository that may be imported or served as it lies.
#[derive(Debug, Clone)]
pub struct RepositorySource {
    /// Its name, in a product bundle.
    pub name: Option<String>,
    pub(crate) folders: Folders,
    /// Files of private keys that are said to belong to it, by their name in a folder of keys.
    pub(crate) keys: BTreeMap<String, PathBuf>,
}

impl RepositorySource {
    /// A repository with its metadata in one folder and its blobs in others, searched in this order.
    pub fn at(metadata: PathBuf, blobs: Vec<PathBuf>) -> Self {
        Self { name: None, folders: Folders::at(metadata, blobs), keys: BTreeMap::new() }
    }

    /// Blobs that its packages name, as far as they can be read, and that do not lie there in any form.
    ///
    /// # Errors
    /// Its metadata is damaged, or a folder cannot be read.
    pub fn lacking(&self) -> Result<Vec<BlobId>, RepositoryError> {
        let listed = self.folders.listed(&self.folders.trusted()?);
        let reach = Reach::of(&self.folders, &listed)?;
        let absent = |id: &BlobId| self.folders.forms(*id).map(|forms| forms.is_empty().then_some(*id));
        reach.blobs.iter().filter_map(|id| absent(id).transpose()).collect()
    }

    /// Targets that are no packages, as far as their files do not lie there as they should.
    ///
    /// # Errors
    /// Its metadata is damaged, or a folder cannot be read.
    pub fn lacking_documents(&self) -> Result<Vec<ListedDocument>, RepositoryError> {
        let mut lacking = self.folders.documents(&self.folders.trusted()?);
        let mut failed = None;
        lacking.retain(|document| match read_capped(&self.document_path(document), document.description.length) {
            Ok(found) => found.is_none_or(|bytes| document.description.is(&bytes).is_err()),
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        failed.map_or(Ok(lacking), Err)
    }

    /// Where the file of a target that is no package lies.
    pub fn document_path(&self, document: &ListedDocument) -> PathBuf {
        self.folders.metadata.join(&document.target)
    }

    /// Folder of its metadata.
    pub fn metadata_dir(&self) -> &Path {
        &self.folders.metadata
    }

    /// Folders where its blobs may lie, in the order in which they are searched.
    pub fn blob_dirs(&self) -> &[PathBuf] {
        &self.folders.blobs
    }

    /// Checks that its metadata is chained to `trusted_root`, or to its own oldest root. It may have expired.
    ///
    /// # Errors
    /// It is not, or it is damaged.
    pub fn check(&self, trusted_root: Option<Vec<u8>>) -> Result<(), RepositoryError> {
        let root = trusted_root.map_or_else(|| self.folders.first_root(), |root| Ok(root.into()))?;
        let refuse = |source| RepositoryError::Metadata { path: self.folders.metadata.clone(), source };
        self.folders.refresh(Start::FromAnchor(TrustAnchor::RootFile(root)))?.map(drop).map_err(refuse)
    }
}

#[derive(Deserialize)]
struct Bundle {
    version: String,
    #[serde(default)]
    repositories: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    metadata_path: String,
    blobs_path: String,
    root_private_key_path: Option<String>,
    targets_private_key_path: Option<String>,
    snapshot_private_key_path: Option<String>,
    timestamp_private_key_path: Option<String>,
}

/// The repositories of `dir`: those of a product bundle, by name, or the one whose folder it is.
///
/// # Errors
/// It is neither, or the bundle cannot be read.
pub fn sources(dir: &Path) -> Result<Vec<RepositorySource>, RepositoryError> {
    let path = dir.join(BUNDLE);
    let Some(text) = read_capped(&path, limits::MANIFEST_BYTES_MAX)? else {
        let folders = Folders::find(dir)?;
        let keys = key_files(&dir.join(layout::KEYS))?;
        let named = keys.into_iter().filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
        let keys = named.collect();
        return Ok(vec![RepositorySource { name: None, folders, keys }]);
    };
    let refuse = |reason: &dyn std::fmt::Display| RepositoryError::manifest(&path, reason);
    let bundle: Bundle = serde_json::from_slice(&text).map_err(|error| refuse(&error))?;
    if bundle.version != "2" {
        return Err(refuse(&format_args!("product bundles of version {} are not known, only 2", bundle.version)));
    }
    let inside = |relative: &str| {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if Path::new(relative).components().all(plain) {
            Ok(dir.join(relative))
        } else {
            Err(refuse(&format_args!("{relative} does not lie inside the bundle")))
        }
    };
    let source = |entry: Entry| {
        let folders = Folders::at(inside(&entry.metadata_path)?, vec![inside(&entry.blobs_path)?]);
        let named = [
            (Role::Root, entry.root_private_key_path),
            (Role::Targets, entry.targets_private_key_path),
            (Role::Snapshot, entry.snapshot_private_key_path),
            (Role::Timestamp, entry.timestamp_private_key_path),
        ];
        let keys = named
            .into_iter()
            .filter_map(|(role, path)| Some(inside(&path?).map(|path| (role.file().to_owned(), path))));
        Ok(RepositorySource { name: Some(entry.name), folders, keys: keys.collect::<Result<_, RepositoryError>>()? })
    };
    let sources: Vec<RepositorySource> =
        bundle.repositories.into_iter().map(source).collect::<Result<_, RepositoryError>>()?;
    if sources.is_empty() {
        return Err(refuse(&"this product bundle holds no repository"));
    }
    Ok(sources)
}
