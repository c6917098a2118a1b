//! `package archive extract`: an archive's blobs under their hashes, and package manifests that name them.
//!
//! Files are named by hashes that their content proves, never by names in the archive.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use colibri_common::BlobId;
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, ManifestSubpackage, PathsRelative};
use colibri_package::{MetaFar, MetaPackage, PackageArchive, PackageManifest, archive, url};

use super::{made, open};
use crate::far::destination;
use crate::files::{self, FilesError};

const BLOBS: &str = "blobs";
const MANIFESTS: &str = "manifests";
const NAMESPACE: &str = "pkg";

/// Arguments of `package archive extract`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Writes DIR/blobs/HASH for every blob, DIR/package_manifest.json for the package and \
    DIR/manifests/HASH_package_manifest.json for each subpackage. Every blob is proven before it gets its name.\n\n\
    Example:\n  colibri package archive extract -o hello hello.far\n  \
    colibri repo publish --package hello/package_manifest.json repo")]
pub struct Extract {
    /// Where to write
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Host of the repository that the package manifest shall name
    #[arg(long, value_name = "HOST")]
    pub repository: Option<String>,
    /// Write blobs.json too, the manifest's blobs as a bare array
    #[arg(long)]
    pub blobs_json: bool,
    /// Write DIR/pkg too: the package's files under their own paths, as its components see them in /pkg
    #[arg(long)]
    pub namespace: bool,
    /// The archive
    pub archive: PathBuf,
}

pub(super) fn extract(args: &Extract, out: &mut dyn Write) -> Result<(), FilesError> {
    if let Some(host) = &args.repository {
        url::check_host(host).map_err(|error| FilesError::Usage(format!("--repository {host}: {error}")))?;
    }
    let failed = FilesError::package(&args.archive);
    let mut archive = open(&args.archive)?;
    let closure = archive.closure().map_err(&failed)?;
    if let Some(error) = archive.missing(&closure) {
        return Err(failed(error));
    }
    let needed = closure.blobs();
    for entry in archive.entries() {
        let is_needed = entry.text().and_then(|name| name.parse().ok()).is_some_and(|id: BlobId| needed.contains(&id));
        if !is_needed && entry.name() != archive::META_FAR.as_bytes() {
            eprintln!(
                "{}: '{}' belongs to no package in it; not extracted",
                args.archive.display(),
                entry.name().escape_ascii()
            );
        }
    }
    files::create_dir(&args.out)?;
    for id in needed {
        let place = destination(&args.out, format!("{BLOBS}/{id}").as_bytes())?;
        files::write_with(&place, |file| archive.copy_blob(id, file).map_err(&failed))?;
    }
    for (hash, package) in closure.packages().iter().filter(|(hash, _)| **hash != closure.hash()) {
        let name = format!("{MANIFESTS}/{}", manifest_name(*hash));
        write_manifest(&args.out, &name, &manifest(&archive, *hash, package, "../blobs/", ""))?;
    }
    let mut root = manifest(&archive, closure.hash(), closure.root(), "blobs/", "manifests/");
    root.repository.clone_from(&args.repository);
    if args.blobs_json {
        let place = args.out.join(super::super::BLOBS_JSON);
        files::write(&place, &root.blobs_json().map_err(FilesError::package(&place))?)?;
    }
    write_manifest(&args.out, super::super::PACKAGE_MANIFEST, &root)?;
    if args.namespace {
        write_namespace(&args.out, closure.root())?;
    }
    made(out, closure.hash(), &root.path())
}

/// The package's own files under `pkg/`; its content has a second name for the blob's file where the system allows it.
fn write_namespace(directory: &Path, package: &MetaFar) -> Result<(), FilesError> {
    let place = |path: &str| destination(directory, format!("{NAMESPACE}/{path}").as_bytes());
    for path in package.meta_paths() {
        let content = package.meta_file(path).unwrap_or_default();
        files::write(&place(path)?, &content)?;
    }
    for (path, id) in package.contents() {
        let (blob, place) = (directory.join(BLOBS).join(id.to_string()), place(path.as_str())?);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FilesError::io("replacing", &place)(error));
            }
            _ => {}
        }
        if fs::hard_link(&blob, &place).is_err() {
            let mut file = files::open(&blob)?;
            files::write_with(&place, |out| {
                io::copy(&mut file, out).map(drop).map_err(FilesError::io("writing", &place))
            })?;
        }
    }
    Ok(())
}

fn manifest_name(hash: BlobId) -> String {
    format!("{hash}_{}", super::super::PACKAGE_MANIFEST)
}

fn write_manifest(directory: &Path, name: &str, manifest: &PackageManifest) -> Result<(), FilesError> {
    let place = destination(directory, name.as_bytes())?;
    files::write(&place, &manifest.to_bytes().map_err(FilesError::package(&place))?)
}

/// The manifest of a package whose blobs and subpackages' manifests lie in these directories, as seen from its own.
fn manifest(
    archive: &PackageArchive<std::fs::File>,
    hash: BlobId,
    package: &MetaFar,
    blobs: &str,
    manifests: &str,
) -> PackageManifest {
    let blob = |path: &str, merkle: BlobId| ManifestBlob {
        source_path: format!("{blobs}{merkle}"),
        path: path.to_owned(),
        merkle,
        // All were found before.
        size: archive.range_of(merkle).map_or(0, |range| range.len()),
    };
    let contents = package.contents().iter().map(|(path, id)| blob(path.as_str(), *id));
    let child = |(name, merkle): (&url::RelativePackageUrl, &BlobId)| ManifestSubpackage {
        manifest_path: format!("{manifests}{}", manifest_name(*merkle)),
        name: name.clone(),
        merkle: *merkle,
    };
    PackageManifest {
        repository: None,
        package: MetaPackage { name: package.name().clone(), variant: package.variant().clone() },
        blobs: std::iter::once(blob(META_FAR_PATH, hash)).chain(contents).collect(),
        blob_sources_relative: PathsRelative::File,
        subpackages: package.subpackages().iter().map(child).collect(),
        delivery_blob_type: None,
        abi_revision: package.abi_revision(),
    }
}
