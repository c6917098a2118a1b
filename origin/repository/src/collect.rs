//! What a publish names: packages and blobs of manifests, archives and product bundles, subpackages followed recursively.
//!
//! Nothing is stored here and no content blob is read: claims are checked when blobs are brought in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::{BlobId, merkle};
use colibri_package::delivery::Encoding;
use colibri_package::far::FarBytes;
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, PackageManifest};
use colibri_package::{MetaFar, PackagePath};

use crate::bundle;
use crate::error::RepositoryError;
use crate::folders::{Folders, Listed};
use crate::ingest::{Source, SourceBlob};
use crate::limits;
use crate::publish::Publish;

/// A package that becomes a target.
#[derive(Debug)]
pub(crate) struct Named {
    pub path: PackagePath,
    pub hash: BlobId,
    /// Its manifest or archive, or the metadata that offers it elsewhere.
    from: PathBuf,
    /// Its own blobs by path, to explain a conflict.
    blobs: BTreeMap<String, BlobId>,
}

/// Everything that a publish names.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub named: Vec<Named>,
    /// Every blob of every distinct package, meta.fars and subpackages included.
    pub blobs: Vec<SourceBlob>,
    packages: BTreeSet<(PathBuf, BlobId)>,
}

/// Reads manifests, archives and whole repositories.
pub(crate) fn collect(publish: &Publish<'_>) -> Result<Collected, RepositoryError> {
    let mut collected = Collected::default();
    for path in &publish.manifests {
        let mut stack = Vec::new();
        let named = collected.manifest(path, None, &mut stack)?;
        collected.name(named)?;
    }
    for path in &publish.package_archives {
        let named = collected.archive(path)?;
        collected.name(named)?;
    }
    for path in &publish.product_bundles {
        for source in bundle::sources(path)? {
            for package in source.folders.listed(&source.folders.trusted()?) {
                let named = collected.stored(&source.folders, &package)?;
                collected.name(named)?;
            }
        }
    }
    Ok(collected)
}

fn read(path: &Path, bytes_max: u64) -> Result<Bytes, RepositoryError> {
    let failed = |e| RepositoryError::read(path, e);
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > bytes_max {
        return Err(RepositoryError::TooLarge { path: path.to_owned(), bytes, bytes_max });
    }
    Ok(fs::read(path).map_err(failed)?.into())
}

/// Who names a subpackage, and as what.
struct Parent<'a> {
    path: &'a Path,
    claimed: BlobId,
}

impl Collected {
    /// Adds a package to those that become targets; two of one name must be the same.
    fn name(&mut self, named: Named) -> Result<(), RepositoryError> {
        match self.named.iter().find(|other| other.path == named.path) {
            None => self.named.push(named),
            Some(other) if other.hash == named.hash => {}
            Some(other) => {
                return Err(RepositoryError::Conflict {
                    package: named.path.to_string(),
                    first: other.from.clone(),
                    second: named.from.clone(),
                    differences: differences(other, &named),
                });
            }
        }
        Ok(())
    }

    /// Counts a package; false if it was seen before from this very place.
    fn is_new(&mut self, from: &Path, hash: BlobId) -> Result<bool, RepositoryError> {
        let new = self.packages.insert((from.to_owned(), hash));
        if self.packages.len() as u64 > limits::PACKAGES_PER_PUBLISH_MAX {
            let limit = limits::PACKAGES_PER_PUBLISH_MAX;
            return Err(RepositoryError::TooMany { what: "packages and subpackages", limit });
        }
        Ok(new)
    }

    fn manifest(
        &mut self,
        path: &Path,
        parent: Option<&Parent<'_>>,
        stack: &mut Vec<PathBuf>,
    ) -> Result<Named, RepositoryError> {
        // The same file under two spellings is one file.
        let file = fs::canonicalize(path).map_err(|e| RepositoryError::read(path, e))?;
        if stack.contains(&file) || stack.len() as u64 > limits::SUBPACKAGE_DEPTH_MAX {
            let chain: Vec<_> = stack.iter().chain([&file]).map(|at| at.display().to_string()).collect();
            return Err(RepositoryError::SubpackageCycle { path: path.to_owned(), chain: chain.join(" -> ") });
        }
        let manifest = PackageManifest::parse(&read(path, limits::MANIFEST_BYTES_MAX)?);
        let manifest = manifest.map_err(|e| RepositoryError::manifest(path, &e))?;
        let meta_far = manifest.meta_far().ok_or_else(|| RepositoryError::manifest(path, &"it has no meta.far"))?;
        let hash = meta_far.merkle;
        if let Some(parent) = parent
            && parent.claimed != hash
        {
            let (path, parent, claimed) = (path.to_owned(), parent.path.to_owned(), parent.claimed);
            return Err(RepositoryError::WrongSubpackage { path, parent, claimed, found: hash });
        }
        if self.is_new(&file, hash)? {
            let source = |blob: &ManifestBlob| {
                let at = manifest.blob_sources_relative.resolve(path, &blob.source_path);
                if manifest.delivery_blob_type.is_some() { Source::DeliveryFile(at) } else { Source::File(at) }
            };
            self.blobs.extend(manifest.blobs.iter().map(|blob| SourceBlob {
                path: blob.path.clone(),
                id: blob.merkle,
                size: blob.size,
                source: source(blob),
                named_by: path.to_owned(),
            }));
            stack.push(file);
            for subpackage in &manifest.subpackages {
                let at = manifest.blob_sources_relative.resolve(path, &subpackage.manifest_path);
                self.manifest(&at, Some(&Parent { path, claimed: subpackage.merkle }), stack)?;
            }
            stack.pop();
        }
        let blobs = manifest.blobs.iter().map(|blob| (blob.path.clone(), blob.merkle)).collect();
        Ok(Named { path: manifest.path(), hash, from: path.to_owned(), blobs })
    }

    /// A package archive: `meta.far` and one entry per blob, of subpackages too, named by its id.
    fn archive(&mut self, path: &Path) -> Result<Named, RepositoryError> {
        let bad = |e: &dyn std::fmt::Display| RepositoryError::manifest(path, e);
        let far = FarBytes::parse(read(path, limits::ARCHIVE_BYTES_MAX)?).map_err(|e| bad(&e))?;
        let top =
            far.get(b"meta.far").ok_or_else(|| bad(&"this archive has no meta.far: it is not a package archive"))?;
        let hash = merkle::build(&top).id;
        let mut named = None;
        let mut open = vec![(hash, top)];
        while let Some((hash, content)) = open.pop() {
            if !self.is_new(path, hash)? {
                continue;
            }
            let meta = MetaFar::parse(content.clone()).map_err(|e| bad(&format_args!("package {hash}: {e}")))?;
            let mut blobs = BTreeMap::from([(META_FAR_PATH.to_owned(), hash)]);
            self.push_archived(path, META_FAR_PATH, hash, content);
            for (at, id) in meta.contents() {
                blobs.insert(at.to_string(), *id);
                if let Some(content) = far.get(id.to_string().as_bytes()) {
                    self.push_archived(path, at.as_str(), *id, content);
                }
            }
            // A blob or subpackage that the archive lacks may be in the repository: that is checked before signing.
            for id in meta.subpackages().values() {
                open.extend(far.get(id.to_string().as_bytes()).map(|content| (*id, content)));
            }
            named.get_or_insert(Named { path: meta.path(), hash, from: path.to_owned(), blobs });
        }
        match named {
            Some(named) => Ok(named),
            // The same archive was given twice.
            None => self.archived_before(path, hash).ok_or_else(|| bad(&"it was given twice")),
        }
    }

    /// A package of a repository that lies somewhere, under the name that it has there.
    fn stored(&mut self, folders: &Folders, package: &Listed) -> Result<Named, RepositoryError> {
        let from = folders.metadata.clone();
        let bad = |e: &dyn std::fmt::Display| RepositoryError::manifest(&from, &format_args!("{}: {e}", package.name));
        let path: PackagePath = package.name.parse().map_err(|e| bad(&e))?;
        let own = folders.names(package.hash)?.contents;
        let mut blobs: BTreeMap<String, BlobId> = own.into_iter().collect();
        blobs.insert(META_FAR_PATH.to_owned(), package.hash);
        let mut open = vec![package.hash];
        while let Some(hash) = open.pop() {
            if !self.is_new(&from, hash)? {
                continue;
            }
            let names = folders.names(hash)?;
            let of_package = [(META_FAR_PATH.to_owned(), hash)].into_iter().chain(names.contents);
            for (at, id) in of_package {
                let form = folders.forms(id)?.into_iter().next();
                let form = form.ok_or_else(|| bad(&format_args!("blob {id} ({at}) is missing")))?;
                let size = form.content_bytes().map_err(|e| bad(&format_args!("{}: {e}", form.path.display())))?;
                let source = match form.encoding {
                    Encoding::Raw => Source::File(form.path),
                    Encoding::Delivery(_) => Source::DeliveryFile(form.path),
                };
                self.blobs.push(SourceBlob { path: at, id, size, source, named_by: from.clone() });
            }
            open.extend(names.subpackages.into_iter().map(|(_, id)| id));
        }
        Ok(Named { path, hash: package.hash, from, blobs })
    }

    fn archived_before(&self, path: &Path, hash: BlobId) -> Option<Named> {
        let before = self.named.iter().find(|named| named.from == path && named.hash == hash)?;
        Some(Named { path: before.path.clone(), hash, from: path.to_owned(), blobs: before.blobs.clone() })
    }

    fn push_archived(&mut self, archive: &Path, path: &str, id: BlobId, content: Bytes) {
        let size = content.len() as u64;
        let source = Source::Archive(archive.to_owned(), content);
        self.blobs.push(SourceBlob { path: path.to_owned(), id, size, source, named_by: archive.to_owned() });
    }
}

/// Which files of two packages differ, a line each.
fn differences(first: &Named, second: &Named) -> String {
    let paths: BTreeSet<&String> = first.blobs.keys().chain(second.blobs.keys()).collect();
    let side = |named: &Named, path: &str| named.blobs.get(path).map_or("absent".to_owned(), BlobId::to_string);
    let line = |path: &&String| format!("  {path}: {} / {}", side(first, path), side(second, path));
    let differ = |path: &&String| first.blobs.get(*path) != second.blobs.get(*path);
    paths.into_iter().filter(differ).map(|path| line(&path)).collect::<Vec<_>>().join("\n")
}
