//! The package that carries a release: one content blob, `release.json`.

use std::path::{Path, PathBuf};

use colibri_common::{BlobId, merkle};
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild, PackageManifest, PackageName, PackageVariant};
use colibri_release::Release;

use crate::files::{self, FilesError};

const META_FAR: &str = "meta.far";
const PACKAGE_MANIFEST: &str = "package_manifest.json";

/// What was built.
pub(super) struct Built {
    pub name: PackageName,
    pub hash: BlobId,
    pub manifest: PathBuf,
}

/// Writes the document, meta.far and, last, the manifest that names both.
pub(super) fn build(dir: &Path, name: PackageName, document: &[u8]) -> Result<Built, FilesError> {
    files::create_dir(dir)?;
    let [document_file, meta_far_file, manifest_file] =
        [Release::PATH, META_FAR, PACKAGE_MANIFEST].map(|file| dir.join(file));
    files::write(&document_file, document)?;
    let document_id = merkle::build(document).id;
    let failed = FilesError::package(&meta_far_file);
    let mut build = PackageBuild::new(name.clone(), AbiRevision::LATEST);
    build.add_content(Release::PATH, document_id).map_err(&failed)?;
    let meta_far = build.finish().map_err(&failed)?;
    files::write(&meta_far_file, &meta_far)?;
    let hash = merkle::build(&meta_far).id;
    let blob = |source: &str, path: &str, merkle, size: usize| ManifestBlob {
        source_path: source.to_owned(),
        path: path.to_owned(),
        merkle,
        size: size as u64,
    };
    let manifest = PackageManifest {
        repository: None,
        package: MetaPackage { name: name.clone(), variant: PackageVariant::zero() },
        blobs: vec![
            blob(META_FAR, META_FAR_PATH, hash, meta_far.len()),
            blob(Release::PATH, Release::PATH, document_id, document.len()),
        ],
        blob_sources_relative: PathsRelative::File,
        subpackages: Vec::new(),
        delivery_blob_type: None,
        abi_revision: Some(AbiRevision::LATEST),
    };
    files::write(&manifest_file, &manifest.to_bytes().map_err(FilesError::package(&manifest_file))?)?;
    Ok(Built { name, hash, manifest: manifest_file })
}
